//! LDAP: a simple bind (RFC 4511 section 4.2), anonymous without a login.
//!
//! Two messages of fixed shape, so the few rules of BER that they need stand here (RFC 4511 section 5.1) instead of a client.

use super::dialogue::Dialogue;
use super::{Failure, FailureKind, Good, Reach};
use crate::config::LoginProbe;

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const OCTET_STRING: u8 = 0x04;
const ENUMERATED: u8 = 0x0a;
/// `[APPLICATION 0]`, `[APPLICATION 1]`, `[APPLICATION 2]`; `[CONTEXT 0]` of a simple password.
const BIND_REQUEST: u8 = 0x60;
const BIND_RESPONSE: u8 = 0x61;
const UNBIND_REQUEST: u8 = 0x42;
const SIMPLE: u8 = 0x80;

pub(super) async fn probe(reach: &Reach, probe: &LoginProbe) -> Result<Good, Failure> {
    let mut dialogue = Dialogue::open(reach, probe.tls.as_ref()).await?;
    let user = probe.user.as_deref().unwrap_or_default();
    let password = probe.password.as_ref().map_or("", |secret| &secret.0);
    dialogue.send(&bind(user, password)).await?;
    let what = "the answer to the bind";
    let head = dialogue.exactly(2, what).await?;
    let (tag, length) = (head[0], head[1]);
    if tag != SEQUENCE {
        return Err(Failure::unexpected("an LDAP message", &head));
    }
    // Long form: so many bytes of length follow.
    let length = if length & 0x80 == 0 {
        usize::from(length)
    } else {
        let digits = usize::from(length & 0x7f);
        if !(1..=4).contains(&digits) {
            return Err(Failure::unexpected("an LDAP message", &head));
        }
        let digits = dialogue.exactly(digits, what).await?;
        digits
            .iter()
            .fold(0, |sum, digit| sum << 8 | usize::from(*digit))
    };
    let message = dialogue.exactly(length, what).await?;
    let (code, words) = bind_result(&message)
        .ok_or_else(|| Failure::unexpected("the answer to a bind", &message))?;
    // Message id 2, without a value.
    dialogue
        .send(&[SEQUENCE, 5, INTEGER, 1, 2, UNBIND_REQUEST, 0])
        .await?;
    if code == 0 {
        return Ok(Good::new("bound"));
    }
    Err(Failure::new(
        FailureKind::Unexpected,
        format!("the bind was refused with code {code} (RFC 4511 section 4.1.9): {words}"),
    ))
}

fn bind(user: &str, password: &str) -> Vec<u8> {
    let parts = [
        element(INTEGER, &[3]),
        element(OCTET_STRING, user.as_bytes()),
        element(SIMPLE, password.as_bytes()),
    ];
    let request = element(BIND_REQUEST, &parts.concat());
    element(SEQUENCE, &[element(INTEGER, &[1]), request].concat())
}

fn element(tag: u8, value: &[u8]) -> Vec<u8> {
    let length = value.len();
    let mut bytes = vec![tag];
    if length < 0x80 {
        bytes.push(length as u8);
    } else {
        bytes.push(0x84);
        // A configured text is far shorter than 4 GiB.
        bytes.extend((length as u32).to_be_bytes());
    }
    bytes.extend(value);
    bytes
}

/// Result code and diagnostic message of a bind response; `message` is what the outer sequence holds.
fn bind_result(message: &[u8]) -> Option<(u32, String)> {
    let (tag, _id, rest) = take(message)?;
    let (response_tag, response, _) = take(rest)?;
    let (code_tag, code, rest) = take(response)?;
    let (_, _matched, rest) = take(rest)?;
    let (_, words, _) = take(rest)?;
    let is_right = tag == INTEGER && response_tag == BIND_RESPONSE && code_tag == ENUMERATED;
    let code = code
        .iter()
        .take(4)
        .fold(0, |sum, byte| sum << 8 | u32::from(*byte));
    is_right.then(|| (code, String::from_utf8_lossy(words).into_owned()))
}

/// Tag and value of the first element, and what follows it.
fn take(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, length) = (*bytes.first()?, *bytes.get(1)?);
    let (length, start) = if length & 0x80 == 0 {
        (usize::from(length), 2)
    } else {
        let digits = usize::from(length & 0x7f);
        let length = bytes.get(2..2 + digits).filter(|_| digits <= 4)?;
        let length = length
            .iter()
            .fold(0, |sum, digit| sum << 8 | usize::from(*digit));
        (length, 2 + digits)
    };
    let value = bytes.get(start..start.checked_add(length)?)?;
    Some((tag, value, &bytes[start + length..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages() {
        let anonymous = [0x30, 12, 2, 1, 1, 0x60, 7, 2, 1, 3, 4, 0, 0x80, 0];
        assert_eq!(bind("", ""), anonymous);
        let long = bind(&"x".repeat(200), "secret");
        let (tag, value, rest) = take(&long).unwrap();
        assert_eq!((tag, rest.len()), (SEQUENCE, 0));
        assert_eq!(take(value).unwrap().1, [1]);
    }

    #[test]
    fn results() {
        let answer = |code: u8, words: &str| {
            let parts = [
                element(ENUMERATED, &[code]),
                element(OCTET_STRING, b""),
                element(OCTET_STRING, words.as_bytes()),
            ];
            [
                element(INTEGER, &[1]),
                element(BIND_RESPONSE, &parts.concat()),
            ]
            .concat()
        };
        assert_eq!(bind_result(&answer(0, "")), Some((0, String::new())));
        let refused = answer(49, "no");
        assert_eq!(bind_result(&refused), Some((49, "no".to_owned())));
        for end in 0..refused.len() {
            assert_eq!(bind_result(&refused[..end]), None, "{end}");
        }
    }
}
