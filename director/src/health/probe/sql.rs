//! Database servers, as far as they speak to a stranger.
//!
//! Nobody logs in, so no password stands in the configuration: a server that asks who it is, or lets this user not in, is up
//! and takes connections. One that has too many of them, is starting up or blocks this host says so.

use super::dialogue::Dialogue;
use super::{Failure, FailureKind, Good, Reach};
use crate::config::LoginProbe;

/// User that asks, if none is configured.
const USER: &str = "director";

/// MySQL and MariaDB ("Connection Phase" in the MySQL internals manual): a greeting of protocol version 10, then a login
/// that is answered. Without the login the server would take the check for a broken client, and block this host after
/// `max_connect_errors` of them.
pub(super) async fn mysql(reach: &Reach, probe: &LoginProbe) -> Result<Good, Failure> {
    const VERSION: u8 = 10;
    let mut dialogue = Dialogue::open(reach, None).await?;
    let greeting = packet(&mut dialogue, "the server's greeting").await?;
    let version = match greeting.split_first() {
        Some((&VERSION, rest)) => rest.split(|byte| *byte == 0).next().unwrap_or_default(),
        _ => return judge_packet(&greeting, "a MySQL greeting").map(Good::new),
    };
    let version = String::from_utf8_lossy(version).into_owned();
    dialogue
        .send(&login(probe.user.as_deref().unwrap_or(USER)))
        .await?;
    let answer = packet(&mut dialogue, "the answer to the login").await?;
    let said = judge_packet(&answer, "an answer to the login")?;
    // COM_QUIT, number 0 of its sequence.
    dialogue.send(&[1, 0, 0, 0, 1]).await?;
    Ok(Good::new(format!("version {version}, {said}")))
}

/// A packet: three bytes of length, one of number.
async fn packet(dialogue: &mut Dialogue, what: &str) -> Result<Vec<u8>, Failure> {
    let head = dialogue.exactly(4, what).await?;
    let length = usize::from(head[0]) | usize::from(head[1]) << 8 | usize::from(head[2]) << 16;
    dialogue.exactly(length, what).await
}

/// `HandshakeResponse41` with an empty password.
fn login(user: &str) -> Vec<u8> {
    /// `CLIENT_LONG_PASSWORD`, `CLIENT_PROTOCOL_41`, `CLIENT_SECURE_CONNECTION`, `CLIENT_PLUGIN_AUTH`.
    const CAPABILITIES: u32 = 1 | 1 << 9 | 1 << 15 | 1 << 19;
    const PACKET_BYTES: u32 = 1 << 24;
    const UTF8: u8 = 33;
    let mut body = Vec::new();
    body.extend(CAPABILITIES.to_le_bytes());
    body.extend(PACKET_BYTES.to_le_bytes());
    body.push(UTF8);
    body.extend([0; 23]);
    body.extend(user.bytes().filter(|byte| *byte != 0));
    // The end of the user, and no byte of a password.
    body.extend([0, 0]);
    body.extend(b"mysql_native_password\0");
    // A configured text is far shorter than 16 MiB. Number 1, after the greeting's 0.
    let length = (body.len() as u32).to_le_bytes();
    [&length[..3], &[1], &body].concat()
}

/// What an answer says, if it is one of a server that is well.
fn judge_packet(packet: &[u8], expected: &str) -> Result<String, Failure> {
    const OK: u8 = 0;
    const OTHER_METHOD: u8 = 0xfe;
    const ERROR: u8 = 0xff;
    /// `ER_ACCESS_DENIED_ERROR`, `ER_ACCESS_DENIED_NO_PASSWORD_ERROR`.
    const DENIED: [u16; 2] = [1045, 1698];
    match packet {
        [OK, ..] => Ok("lets in".to_owned()),
        [OTHER_METHOD, ..] => Ok("asks for authentication".to_owned()),
        [ERROR, low, high, words @ ..] => {
            let code = u16::from_le_bytes([*low, *high]);
            // After the code a `#` and five characters of state, once the protocol is agreed.
            let words = match words {
                [b'#', _, _, _, _, _, words @ ..] => words,
                words => words,
            };
            let words = String::from_utf8_lossy(words);
            if DENIED.contains(&code) {
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

/// PostgreSQL: a startup message is answered with a request for authentication, or with none needed (protocol 3.0, chapter
/// "Message Formats" of its manual).
pub(super) async fn postgres(reach: &Reach, probe: &LoginProbe) -> Result<Good, Failure> {
    const PROTOCOL: u32 = 3 << 16;
    let mut dialogue = Dialogue::open(reach, None).await?;
    let user = probe.user.as_deref().unwrap_or(USER);
    let database = probe.database.as_deref().unwrap_or(user);
    let mut body = PROTOCOL.to_be_bytes().to_vec();
    for word in ["user", user, "database", database] {
        body.extend(word.bytes().filter(|byte| *byte != 0));
        body.push(0);
    }
    body.push(0);
    // Its own four bytes are part of the length, which is far below 4 GiB.
    let length = (body.len() as u32 + 4).to_be_bytes();
    dialogue.send(&[&length[..], &body].concat()).await?;
    let what = "the answer to the startup message";
    let mut is_let_in = false;
    loop {
        let head = dialogue.exactly(5, what).await?;
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        let rest = usize::try_from(length)
            .unwrap_or(usize::MAX)
            .saturating_sub(4);
        match (head[0], is_let_in) {
            (b'R', false) => {
                // `AuthenticationOk` is 0. What follows may still be that there are too many connections, or no such
                // database.
                is_let_in = dialogue.exactly(rest, what).await? == [0; 4];
                if !is_let_in {
                    // It would log a reset at every check.
                    dialogue.leave().await;
                    return Ok(Good::new("asks for authentication"));
                }
            }
            (b'E', _) => {
                let fields = dialogue.exactly(rest, what).await?;
                return judge_error(&fields, probe.database.is_some());
            }
            // `ReadyForQuery`, answered with `Terminate`.
            (b'Z', true) => {
                dialogue.send(&[b'X', 0, 0, 0, 4]).await?;
                return Ok(Good::new("lets in"));
            }
            // Parameters, the key for cancelling, notices.
            (b'S' | b'K' | b'N', true) => drop(dialogue.exactly(rest, what).await?),
            _ => return Err(Failure::unexpected("a PostgreSQL answer", &head)),
        }
    }
}

/// An error is a failure, unless it is only that this user is not let in: who says that is up ("Error and Notice Message
/// Fields": `C` is the SQLSTATE, class 28 is "Invalid Authorization Specification", `M` the message). Nor is it one that
/// there is no database of a name that nobody asked for: 3D000 is "invalid_catalog_name".
fn judge_error(fields: &[u8], has_database: bool) -> Result<Good, Failure> {
    let field = |code: u8| {
        fields
            .split(|byte| *byte == 0)
            .find(|field| field.first() == Some(&code))
            .map(|field| String::from_utf8_lossy(&field[1..]).into_owned())
            .unwrap_or_default()
    };
    let (state, message) = (field(b'C'), field(b'M'));
    if state.starts_with("28") || (state == "3D000" && !has_database) {
        return Ok(Good::new(format!("answers: {message}")));
    }
    Err(Failure::new(
        FailureKind::Unexpected,
        format!("the server refuses: {message} ({state})"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_mysql() {
        let error =
            |code: u16, words: &str| [&[0xff], &code.to_le_bytes()[..], words.as_bytes()].concat();
        let cases = [
            (vec![0, 0, 0], true, "lets in"),
            (vec![0xfe], true, "authentication"),
            (
                error(1045, "#28000Access denied"),
                true,
                "answers: Access denied",
            ),
            (
                error(1040, "Too many connections"),
                false,
                "Too many connections (1040)",
            ),
            (error(1129, "Host is blocked"), false, "blocked"),
            (vec![7], false, "expected"),
            (vec![], false, "expected"),
        ];
        for (packet, is_good, words) in cases {
            let (found, said) = match judge_packet(&packet, "x") {
                Ok(said) => (true, said),
                Err(failure) => (false, failure.words),
            };
            assert_eq!(found, is_good, "{said}");
            assert!(said.contains(words), "{said}");
        }
    }

    #[test]
    fn errors_of_postgres() {
        // (fields, whether a database is configured, whether it is good, words)
        let cases: [(&[u8], bool, bool, &str); 5] = [
            (
                b"SFATAL\0C28000\0Mno entry for this host\0\0",
                true,
                true,
                "no entry",
            ),
            (
                b"SFATAL\0C57P03\0Mthe system is starting up\0\0",
                false,
                false,
                "starting up",
            ),
            (b"C3D000\0Mno such database\0\0", false, true, "no such"),
            (b"C3D000\0Mno such database\0\0", true, false, "no such"),
            (b"", false, false, "refuses"),
        ];
        for (fields, has_database, is_good, words) in cases {
            let (found, said) = match judge_error(fields, has_database) {
                Ok(good) => (true, good.words),
                Err(failure) => (false, failure.words),
            };
            assert_eq!(found, is_good);
            assert!(said.contains(words), "{said}");
        }
    }
}
