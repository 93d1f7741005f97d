//! PostgreSQL: a startup message is answered with a request for authentication, or with none needed (protocol 3.0, chapters
//! "Message Flow" and "Message Formats" of its manual).
//!
//! Without a password nobody logs in: a server that asks who it is, or lets this user not in, is up and takes connections.
//! With a password the login must succeed.

use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use tokio::task::spawn_blocking;

use super::dialogue::Dialogue;
use super::{Failure, FailureKind, Good, Reach, tls};
use crate::config::{LoginProbe, TlsOptions};

/// User that asks, if none is configured.
const USER: &str = "director";
/// What is waited for.
const ANSWER: &str = "the answer to the startup message";

/// Most rounds of hashing that a server may ask for: part of a second. Servers ask for 4,096 unless they are told otherwise.
const ROUNDS: u32 = 1_000_000;

/// Requests of the server, by their numbers.
const AUTHENTICATED: u32 = 0;
const PASSWORD: u32 = 3;
const MD5: u32 = 5;
const SASL: u32 = 10;
const SASL_GOES_ON: u32 = 11;
const SASL_ENDS: u32 = 12;

pub(super) async fn probe(reach: &Reach, probe: &LoginProbe) -> Result<Good, Failure> {
    let mut dialogue = Dialogue::open(reach, None).await?;
    if let Some(options) = &probe.tls {
        dialogue = encrypted(dialogue, options, &tls::default_name(reach.address)).await?;
    }
    let user = probe.user.as_deref().unwrap_or(USER);
    dialogue.send(&startup(user, probe)).await?;
    let mut login = probe.password.as_ref().map(|password| Login {
        user,
        password: &password.0,
        is_encrypted: probe.tls.is_some(),
        scram: None,
    });
    let mut is_let_in = false;
    loop {
        let head = dialogue.exactly(5, ANSWER).await?;
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        let rest = usize::try_from(length)
            .unwrap_or(usize::MAX)
            .saturating_sub(4);
        match (head[0], is_let_in) {
            (b'R', false) => {
                let request = dialogue.exactly(rest, ANSWER).await?;
                let Some((number, data)) = request.split_first_chunk() else {
                    return Err(Failure::unexpected("a PostgreSQL answer", &request));
                };
                match (u32::from_be_bytes(*number), &mut login) {
                    // What follows may still be that there are too many connections, or no such database.
                    (AUTHENTICATED, _) => is_let_in = true,
                    (number, Some(login)) => match login.answer(number, data).await {
                        Ok(None) => {}
                        Ok(Some(answer)) => dialogue.send(&message(b'p', &answer)).await?,
                        Err(failure) => {
                            // As below.
                            dialogue.leave().await;
                            return Err(failure);
                        }
                    },
                    (_, None) => {
                        // It would log a reset at every check.
                        dialogue.leave().await;
                        return Ok(Good::new("asks for authentication"));
                    }
                }
            }
            (b'E', _) => {
                let fields = dialogue.exactly(rest, ANSWER).await?;
                return judge_error(&fields, probe.database.is_some(), login.is_some());
            }
            // `ReadyForQuery`, answered with `Terminate`.
            (b'Z', true) => {
                dialogue.send(&message(b'X', &[])).await?;
                return Ok(Good::new("lets in"));
            }
            // Parameters, the key for cancelling, notices.
            (b'S' | b'K' | b'N', true) => drop(dialogue.exactly(rest, ANSWER).await?),
            _ => return Err(Failure::unexpected("a PostgreSQL answer", &head)),
        }
    }
}

/// TLS, which has a question of its own here.
async fn encrypted(
    mut dialogue: Dialogue,
    options: &TlsOptions,
    name: &str,
) -> Result<Dialogue, Failure> {
    /// `SSLRequest`, with its length.
    const REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
    dialogue.send(&REQUEST).await?;
    match dialogue
        .exactly(1, "the answer to the request for TLS")
        .await?[..]
    {
        [b'S'] => dialogue.into_tls(options, name).await,
        [b'N'] => Err(Failure::new(
            FailureKind::Unexpected,
            "the server does not speak TLS",
        )),
        ref other => Err(Failure::unexpected("a PostgreSQL answer", other)),
    }
}

fn startup(user: &str, probe: &LoginProbe) -> Vec<u8> {
    const PROTOCOL: u32 = 3 << 16;
    let database = probe.database.as_deref().unwrap_or(user);
    let mut body = PROTOCOL.to_be_bytes().to_vec();
    for word in ["user", user, "database", database] {
        body.extend(word.bytes().filter(|byte| *byte != 0));
        body.push(0);
    }
    body.push(0);
    [&length(&body)[..], &body].concat()
}

/// A message after the first.
fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind], &length(body)[..], body].concat()
}

/// Its own four bytes are part of the length, which is far below 4 GiB.
fn length(body: &[u8]) -> [u8; 4] {
    (body.len() as u32 + 4).to_be_bytes()
}

/// Somebody who logs in.
struct Login<'a> {
    user: &'a str,
    password: &'a str,
    is_encrypted: bool,
    /// A conversation of SCRAM under way.
    scram: Option<ScramSha256>,
}

impl Login<'_> {
    /// What is said to a request of the server, if anything.
    async fn answer(&mut self, number: u32, data: &[u8]) -> Result<Option<Vec<u8>>, Failure> {
        Ok(match (number, self.scram.take()) {
            // In clear, so only where nobody else can read it.
            (PASSWORD, _) if self.is_encrypted => Some(terminated(self.password)),
            (PASSWORD, _) => {
                return Err(refused(
                    "the server wants the password as it is: give the check \"tls: true\"",
                ));
            }
            (MD5, _) => {
                let salt = data
                    .first_chunk()
                    .ok_or_else(|| Failure::unexpected("a salt of 4 bytes", data))?;
                let hash = md5_hash(self.user.as_bytes(), self.password.as_bytes(), *salt);
                Some(terminated(&hash))
            }
            (SASL, None) => {
                let mut mechanisms = data.split(|byte| *byte == 0);
                if !mechanisms.any(|it| it == SCRAM_SHA_256.as_bytes()) {
                    let known = format!("the SASL mechanism {SCRAM_SHA_256}");
                    return Err(Failure::unexpected(&known, data));
                }
                // That of the certificate, which rustls does not hand out the like of.
                let binding = ChannelBinding::unsupported();
                let scram = ScramSha256::new(self.password.as_bytes(), binding);
                let first = scram.message();
                // As in `length`.
                let length = (first.len() as u32).to_be_bytes();
                let answer = [SCRAM_SHA_256.as_bytes(), &[0], &length, first].concat();
                self.scram = Some(scram);
                Some(answer)
            }
            (SASL_GOES_ON, Some(mut scram)) => {
                // No other login must wait for ever for one at a server that asks for billions.
                if let Some(rounds) = rounds(data).filter(|rounds| *rounds > ROUNDS) {
                    let words = format!(
                        "{rounds} rounds of hashing are asked for, at most {ROUNDS} are done"
                    );
                    return Err(broken(&std::io::Error::other(words)));
                }
                let data = data.to_vec();
                // Made to take long, by as many rounds as the server says: beside the other checks.
                let thread = spawn_blocking(move || {
                    let outcome = scram.update(&data);
                    (scram, outcome)
                });
                let (scram, outcome) = thread.await.map_err(|error| broken(&error))?;
                outcome.map_err(|error| broken(&error))?;
                let answer = scram.message().to_vec();
                self.scram = Some(scram);
                Some(answer)
            }
            (SASL_ENDS, Some(mut scram)) => {
                // That the server knows the password too.
                scram.finish(data).map_err(|error| broken(&error))?;
                None
            }
            (number, _) => {
                return Err(refused(&format!(
                    "the server has this user log in by method {number} of its protocol; this check knows scram-sha-256, \
                     md5 and, with TLS, password"
                )));
            }
        })
    }
}

/// How many rounds of hashing a server asks for (RFC 5802, section 5.1: `i`).
fn rounds(first_message: &[u8]) -> Option<u32> {
    let mut parts = first_message.split(|byte| *byte == b',');
    let number = parts.find_map(|part| part.strip_prefix(b"i="))?;
    std::str::from_utf8(number).ok()?.parse().ok()
}

fn terminated(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}

fn refused(words: &str) -> Failure {
    Failure::new(FailureKind::Unexpected, words)
}

fn broken(error: &dyn std::error::Error) -> Failure {
    refused(&format!("logging in by scram-sha-256: {error}"))
}

/// An error is a failure, unless it is only that this user is not let in who has no password: who says that is up ("Error and
/// Notice Message Fields": `C` is the SQLSTATE, class 28 is "Invalid Authorization Specification", `M` the message). Nor is it
/// one that there is no database of a name that nobody asked for: 3D000 is "invalid_catalog_name".
fn judge_error(fields: &[u8], has_database: bool, must_let_in: bool) -> Result<Good, Failure> {
    let field = |code: u8| {
        fields
            .split(|byte| *byte == 0)
            .find(|field| field.first() == Some(&code))
            .map(|field| String::from_utf8_lossy(&field[1..]).into_owned())
            .unwrap_or_default()
    };
    let (state, message) = (field(b'C'), field(b'M'));
    if (state.starts_with("28") && !must_let_in) || (state == "3D000" && !has_database) {
        return Ok(Good::new(format!("answers: {message}")));
    }
    Err(refused(&format!("the server refuses: {message} ({state})")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However many rounds a server asks for, no thread is kept by it.
    #[tokio::test]
    async fn rounds_that_are_too_many_are_refused() {
        // (what the server says, whether it is refused for that)
        let cases: [(&[u8], bool); 4] = [
            (b"r=x,s=QUJD,i=4294967295", true),
            (b"r=x,s=QUJD,i=1000001", true),
            // Refused for other reasons.
            (b"r=x,s=QUJD,i=4096", false),
            (b"r=x", false),
        ];
        for (first_message, expected) in cases {
            let mut login = Login {
                user: USER,
                password: "secret",
                is_encrypted: false,
                scram: None,
            };
            let offered = [SCRAM_SHA_256.as_bytes(), &[0, 0]].concat();
            login.answer(SASL, &offered).await.unwrap();
            let failure = login.answer(SASL_GOES_ON, first_message).await.unwrap_err();
            let found = failure.words.contains("are asked for");
            assert_eq!(found, expected, "{failure:?}");
        }
    }

    #[test]
    fn errors() {
        const DENIED: &[u8] = b"SFATAL\0C28000\0Mno entry for this host\0\0";
        // (fields, whether a database is configured, whether the login must succeed, whether it is good, words)
        let cases: [(&[u8], bool, bool, bool, &str); 7] = [
            (DENIED, true, false, true, "no entry"),
            (DENIED, true, true, false, "refuses: no entry"),
            (
                b"SFATAL\0C57P03\0Mthe system is starting up\0\0",
                false,
                false,
                false,
                "starting up",
            ),
            (
                b"C3D000\0Mno such database\0\0",
                false,
                false,
                true,
                "no such",
            ),
            (
                b"C3D000\0Mno such database\0\0",
                false,
                true,
                true,
                "no such",
            ),
            (
                b"C3D000\0Mno such database\0\0",
                true,
                false,
                false,
                "no such",
            ),
            (b"", false, false, false, "refuses"),
        ];
        for (fields, has_database, must_let_in, is_good, words) in cases {
            let (found, said) = match judge_error(fields, has_database, must_let_in) {
                Ok(good) => (true, good.words),
                Err(failure) => (false, failure.words),
            };
            assert_eq!(found, is_good, "{said}");
            assert!(said.contains(words), "{said}");
        }
    }
}
