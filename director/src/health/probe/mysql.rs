//! MySQL and MariaDB ("Connection Phase" in the MySQL internals manual): a greeting of protocol version 10, then a login that
//! is answered. Without the login the server would take the check for a broken client, and block this host after
//! `max_connect_errors` of them.
//!
//! Without a password nobody logs in: a server that asks who it is, or lets this user not in, is up and takes connections.
//! One that has too many of them, is starting up or blocks this host says so. With a password the login must succeed.

use sha1::Sha1;
use sha2::{Digest, Sha256};

use super::dialogue::Dialogue;
use super::{Failure, FailureKind, Good, Reach, tls};
use crate::config::LoginProbe;

/// User that asks, if none is configured.
const USER: &str = "director";
/// Bytes of the challenge that passwords are hashed with.
const CHALLENGE_BYTES: usize = 20;
/// `CLIENT_SSL`.
const TLS: u32 = 1 << 11;

/// First bytes of answers.
const OK: u8 = 0;
const MORE: u8 = 1;
const OTHER_METHOD: u8 = 0xfe;
const ERROR: u8 = 0xff;

pub(super) async fn probe(reach: &Reach, probe: &LoginProbe) -> Result<Good, Failure> {
    let mut dialogue = Dialogue::open(reach, None).await?;
    let (mut number, packet) = packet(&mut dialogue, "the server's greeting").await?;
    let Some(greeting) = Greeting::read(&packet) else {
        return judge(&packet, "a MySQL greeting", true).map(Good::new);
    };
    let tls = match &probe.tls {
        None => 0,
        Some(options) => {
            if greeting.capabilities & TLS == 0 {
                return Err(Failure::new(
                    FailureKind::Unexpected,
                    "the server does not speak TLS",
                ));
            }
            send(&mut dialogue, &mut number, &head(TLS)).await?;
            let name = tls::default_name(reach.address);
            dialogue = dialogue.into_tls(options, &name).await?;
            TLS
        }
    };
    let user = probe.user.as_deref().unwrap_or(USER);
    let said = match &probe.password {
        None => {
            let login = login(tls, user, &[], Method::Native);
            send(&mut dialogue, &mut number, &login).await?;
            let (_, answer) = self::packet(&mut dialogue, ANSWER).await?;
            judge(&answer, "an answer to the login", false)?
        }
        Some(password) => {
            let login = Login {
                user,
                password: &password.0,
                tls,
            };
            login.through(&mut dialogue, &greeting, number).await?
        }
    };
    // COM_QUIT, number 0 of its sequence.
    dialogue.send(&[1, 0, 0, 0, 1]).await?;
    Ok(Good::new(format!("version {}, {said}", greeting.version)))
}

/// What is waited for after a login.
const ANSWER: &str = "the answer to the login";

/// What a server says first (`HandshakeV10`). What is not in it is empty.
#[derive(Debug, PartialEq, Eq)]
struct Greeting {
    version: String,
    capabilities: u32,
    challenge: Vec<u8>,
    plugin: String,
}

impl Greeting {
    /// `None`: it is none of this protocol.
    fn read(packet: &[u8]) -> Option<Self> {
        const VERSION: u8 = 10;
        let (version, rest) = text(packet.strip_prefix(&[VERSION])?);
        let at = |from: usize, to: usize| rest.get(from..to).unwrap_or_default();
        let number = |from: usize| match at(from, from + 2) {
            [low, high] => u32::from(u16::from_le_bytes([*low, *high])),
            _ => 0,
        };
        // The number of the connection (4), the challenge's beginning (8), 0, capabilities (2), character set (1), status
        // (2), more capabilities (2), length of the challenge (1), reserved (10), the rest of the challenge, the method.
        let length = rest.get(20).copied().unwrap_or_default();
        let plugin_at = 31 + usize::from(length.saturating_sub(8)).max(13);
        let (plugin, _) = text(rest.get(plugin_at..).unwrap_or_default());
        Some(Self {
            version,
            capabilities: number(13) | number(18) << 16,
            challenge: [at(4, 12), at(31, 43)].concat(),
            plugin,
        })
    }
}

/// A text up to a 0, and what is behind that.
fn text(bytes: &[u8]) -> (String, &[u8]) {
    let end = bytes.iter().position(|byte| *byte == 0);
    let end = end.unwrap_or(bytes.len());
    let rest = bytes.get(end + 1..).unwrap_or_default();
    (String::from_utf8_lossy(&bytes[..end]).into_owned(), rest)
}

/// How a password is shown to be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    Native,
    CachingSha2,
}

impl Method {
    /// By its name: that of a plugin of the server.
    fn of(name: &str) -> Option<Self> {
        [Self::Native, Self::CachingSha2]
            .into_iter()
            .find(|it| it.name() == name)
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Native => "mysql_native_password",
            Self::CachingSha2 => "caching_sha2_password",
        }
    }

    /// What is sent of a password; its hash cannot be had from that without trying passwords.
    fn answer(self, password: &str, challenge: &[u8]) -> Vec<u8> {
        let xor = |one: &[u8], other: &[u8]| {
            let pairs = one.iter().zip(other);
            pairs.map(|(one, other)| one ^ other).collect()
        };
        if password.is_empty() {
            return Vec::new();
        }
        match self {
            Self::Native => {
                let once = Sha1::digest(password);
                let twice = Sha1::digest(once);
                let mixed = Sha1::new().chain_update(challenge).chain_update(twice);
                xor(&once, &mixed.finalize())
            }
            Self::CachingSha2 => {
                let once = Sha256::digest(password);
                let twice = Sha256::digest(once);
                let mixed = Sha256::new().chain_update(twice).chain_update(challenge);
                xor(&once, &mixed.finalize())
            }
        }
    }
}

/// Somebody who logs in.
struct Login<'a> {
    user: &'a str,
    password: &'a str,
    /// [`TLS`], or 0.
    tls: u32,
}

impl Login<'_> {
    /// Logs in, after the packet of this number.
    async fn through(
        &self,
        dialogue: &mut Dialogue,
        greeting: &Greeting,
        mut number: u8,
    ) -> Result<String, Failure> {
        /// `caching_sha2_password`: the server knows the password's hash, or wants the password itself.
        const KNOWN: u8 = 3;
        const WANTED: u8 = 4;
        // A server that prefers another one asks for it when it knows who this is.
        let mut method = Method::of(&greeting.plugin).unwrap_or(Method::Native);
        let mut has_switched = false;
        let response = method.answer(self.password, challenge(&greeting.challenge)?);
        let login = login(self.tls, self.user, &response, method);
        send(dialogue, &mut number, &login).await?;
        loop {
            let (nth, answer) = packet(dialogue, ANSWER).await?;
            number = nth;
            match answer.as_slice() {
                [OTHER_METHOD, rest @ ..] if !has_switched => {
                    has_switched = true;
                    let (plugin, rest) = text(rest);
                    method = Method::of(&plugin).ok_or_else(|| unknown(&plugin))?;
                    let response = method.answer(self.password, challenge(rest)?);
                    send(dialogue, &mut number, &response).await?;
                }
                [MORE, KNOWN] if method == Method::CachingSha2 => {}
                // In clear, so only where nobody else can read it.
                [MORE, WANTED] if method == Method::CachingSha2 && self.tls != 0 => {
                    let password = [self.password.as_bytes(), &[0]].concat();
                    send(dialogue, &mut number, &password).await?;
                }
                [MORE, WANTED] if method == Method::CachingSha2 => {
                    return Err(Failure::new(
                        FailureKind::Unexpected,
                        "the server does not have this user's password at hand (caching_sha2_password) and wants it as it \
                         is: give the check \"tls: true\"",
                    ));
                }
                _ => return judge(&answer, "an answer to the login", true),
            }
        }
    }
}

fn challenge(bytes: &[u8]) -> Result<&[u8], Failure> {
    let expected = "a MySQL greeting with a challenge of 20 bytes";
    let challenge = bytes.get(..CHALLENGE_BYTES);
    challenge.ok_or_else(|| Failure::unexpected(expected, bytes))
}

fn unknown(plugin: &str) -> Failure {
    let known = [Method::Native, Method::CachingSha2].map(Method::name);
    let plugin = if plugin.is_empty() {
        "that of MySQL before 4.1"
    } else {
        plugin
    };
    Failure::new(
        FailureKind::Unexpected,
        format!(
            "the server has this user log in by {plugin}; this check knows {}",
            known.join(" and ")
        ),
    )
}

/// A packet and its number: three bytes of length, one of number.
async fn packet(dialogue: &mut Dialogue, what: &str) -> Result<(u8, Vec<u8>), Failure> {
    let head = dialogue.exactly(4, what).await?;
    let length = usize::from(head[0]) | usize::from(head[1]) << 8 | usize::from(head[2]) << 16;
    Ok((head[3], dialogue.exactly(length, what).await?))
}

/// Sends the packet after the one of this number, which becomes its own.
async fn send(dialogue: &mut Dialogue, number: &mut u8, body: &[u8]) -> Result<(), Failure> {
    *number = number.wrapping_add(1);
    // A configured text is far shorter than 16 MiB.
    let length = (body.len() as u32).to_le_bytes();
    dialogue
        .send(&[&length[..3], &[*number], body].concat())
        .await
}

/// The beginning of `HandshakeResponse41`, which asks for TLS where it is alone (`SSLRequest`).
fn head(tls: u32) -> Vec<u8> {
    /// `CLIENT_LONG_PASSWORD`, `CLIENT_PROTOCOL_41`, `CLIENT_SECURE_CONNECTION`, `CLIENT_PLUGIN_AUTH`.
    const CAPABILITIES: u32 = 1 | 1 << 9 | 1 << 15 | 1 << 19;
    const PACKET_BYTES: u32 = 1 << 24;
    const UTF8: u8 = 33;
    let mut head = Vec::new();
    head.extend((CAPABILITIES | tls).to_le_bytes());
    head.extend(PACKET_BYTES.to_le_bytes());
    head.push(UTF8);
    head.extend([0; 23]);
    head
}

/// `HandshakeResponse41`.
fn login(tls: u32, user: &str, response: &[u8], method: Method) -> Vec<u8> {
    let mut body = head(tls);
    body.extend(user.bytes().filter(|byte| *byte != 0));
    // The end of the user, and the length of a hash, which is 32 at most.
    body.extend([0, response.len() as u8]);
    body.extend(response);
    body.extend(method.name().bytes());
    body.push(0);
    body
}

/// What an answer says, if it is one of a server that is well. `must_let_in`: not one that only knows who it does not.
fn judge(packet: &[u8], expected: &str, must_let_in: bool) -> Result<String, Failure> {
    /// `ER_ACCESS_DENIED_ERROR`, `ER_ACCESS_DENIED_NO_PASSWORD_ERROR`.
    const DENIED: [u16; 2] = [1045, 1698];
    match packet {
        [OK, ..] => Ok("lets in".to_owned()),
        [OTHER_METHOD, ..] if !must_let_in => Ok("asks for authentication".to_owned()),
        [ERROR, low, high, words @ ..] => {
            let code = u16::from_le_bytes([*low, *high]);
            // After the code a `#` and five characters of state, once the protocol is agreed.
            let words = match words {
                [b'#', _, _, _, _, _, words @ ..] => words,
                words => words,
            };
            let words = String::from_utf8_lossy(words);
            if DENIED.contains(&code) && !must_let_in {
                return Ok(format!("answers: {words}"));
            }
            Err(Failure::new(
                FailureKind::Unexpected,
                format!("the server refuses: {words} ({code})"),
            ))
        }
        _ => Err(Failure::unexpected(expected, packet)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        let error =
            |code: u16, words: &str| [&[0xff], &code.to_le_bytes()[..], words.as_bytes()].concat();
        // (packet, whether the login must succeed, whether it is good, words)
        let cases = [
            (vec![0, 0, 0], false, true, "lets in"),
            (vec![0, 0, 0], true, true, "lets in"),
            (vec![0xfe], false, true, "authentication"),
            (vec![0xfe], true, false, "expected"),
            (
                error(1045, "#28000Access denied"),
                false,
                true,
                "answers: Access denied",
            ),
            (
                error(1045, "#28000Access denied"),
                true,
                false,
                "refuses: Access denied (1045)",
            ),
            (
                error(1040, "Too many connections"),
                false,
                false,
                "Too many connections (1040)",
            ),
            (error(1129, "Host is blocked"), false, false, "blocked"),
            (vec![7], false, false, "expected"),
            (vec![], true, false, "expected"),
        ];
        for (packet, must_let_in, is_good, words) in cases {
            let (found, said) = match judge(&packet, "x", must_let_in) {
                Ok(said) => (true, said),
                Err(failure) => (false, failure.words),
            };
            assert_eq!(found, is_good, "{said}");
            assert!(said.contains(words), "{said}");
        }
    }

    /// Against Python: `hashlib`, with the rules of MySQL's manual ("Secure Password Authentication", "Caching SHA-2").
    #[test]
    fn passwords() {
        let challenge: Vec<u8> = (1..=20).collect();
        let hexadecimal =
            |bytes: &[u8]| -> String { bytes.iter().map(|byte| format!("{byte:02x}")).collect() };
        let cases = [
            (
                Method::Native,
                "secret",
                "b32bb3a583e1340c0a1108d58b1be49781ad8c2f",
            ),
            (
                Method::CachingSha2,
                "secret",
                "746ebe205d56a0707acb3e796e834e0dd7b1d61743b26bd5202c7a623230c7c9",
            ),
            (Method::Native, "", ""),
            (Method::CachingSha2, "", ""),
        ];
        for (method, password, expected) in cases {
            let found = method.answer(password, &challenge);
            assert_eq!(hexadecimal(&found), expected, "{method:?} {password:?}");
        }
    }

    #[test]
    fn greetings() {
        let whole = [
            &b"\x0a8.4.2\0\x01\x02\x03\x04abcdefgh\0\xff\xff\xff\x02\0\xff\xdf\x15"[..],
            &[0; 10],
            b"ijklmnopqrst\0caching_sha2_password\0",
        ]
        .concat();
        let found = Greeting::read(&whole).unwrap();
        let expected = Greeting {
            version: "8.4.2".to_owned(),
            capabilities: 0xdfff_ffff,
            challenge: b"abcdefghijklmnopqrst".to_vec(),
            plugin: "caching_sha2_password".to_owned(),
        };
        assert_eq!(found, expected);
        // Nothing breaks on what is shorter.
        for length in 1..whole.len() {
            let found = Greeting::read(&whole[..length]).unwrap();
            assert!(expected.version.starts_with(&found.version));
            assert!(expected.challenge.starts_with(&found.challenge));
        }
        assert_eq!(Greeting::read(b"\x09old"), None);
        assert_eq!(Greeting::read(b""), None);
    }
}
