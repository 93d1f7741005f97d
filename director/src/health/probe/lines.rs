//! Protocols of lines: a greeting, perhaps a login, a farewell.
//!
//! The farewell is said and not waited for: who greeted and let in is well.

use super::dialogue::Dialogue;
use super::{Failure, FailureKind, Good, Reach};
use crate::config::{LoginProbe, SmtpProbe};

/// SMTP: 220, `EHLO` with 250 (RFC 5321 section 3.1 and 3.2).
pub(super) async fn smtp(reach: &Reach, probe: &SmtpProbe) -> Result<Good, Failure> {
    let mut dialogue = Dialogue::open(reach, probe.tls.as_ref()).await?;
    let greeting = reply(&mut dialogue, "the SMTP greeting", "220").await?;
    dialogue.say(&format!("EHLO {}", probe.hello)).await?;
    reply(&mut dialogue, "the answer to EHLO", "250").await?;
    dialogue.say("QUIT").await?;
    Ok(Good::new(greeting))
}

/// FTP: 220, with a login `USER` and `PASS` with 230 (RFC 959 section 5.4).
pub(super) async fn ftp(reach: &Reach, probe: &LoginProbe) -> Result<Good, Failure> {
    let mut dialogue = Dialogue::open(reach, probe.tls.as_ref()).await?;
    let greeting = reply(&mut dialogue, "the FTP greeting", "220").await?;
    if let Some(user) = one_line(probe.user.as_deref(), "user")? {
        dialogue.say(&format!("USER {user}")).await?;
        let answer = reply_any(&mut dialogue, "the answer to USER", &["331", "230"]).await?;
        if answer.starts_with("331") {
            dialogue.say(&format!("PASS {}", password(probe)?)).await?;
            reply(&mut dialogue, "the answer to PASS", "230").await?;
        }
    }
    dialogue.say("QUIT").await?;
    Ok(Good::new(greeting))
}

/// NNTP: 200 or 201, with a login `AUTHINFO` with 281 (RFC 3977 section 5.1, RFC 4643 section 2.3).
pub(super) async fn nntp(reach: &Reach, probe: &LoginProbe) -> Result<Good, Failure> {
    let mut dialogue = Dialogue::open(reach, probe.tls.as_ref()).await?;
    let greeting = reply_any(&mut dialogue, "the NNTP greeting", &["200", "201"]).await?;
    if let Some(user) = one_line(probe.user.as_deref(), "user")? {
        dialogue.say(&format!("AUTHINFO USER {user}")).await?;
        let asked = "the answer to AUTHINFO USER";
        let answer = reply_any(&mut dialogue, asked, &["381", "281"]).await?;
        if answer.starts_with("381") {
            let password = password(probe)?;
            dialogue.say(&format!("AUTHINFO PASS {password}")).await?;
            reply(&mut dialogue, "the answer to AUTHINFO PASS", "281").await?;
        }
    }
    dialogue.say("QUIT").await?;
    Ok(Good::new(greeting))
}

/// POP3: `+OK`, with a login `USER` and `PASS` (RFC 1939 section 4 and 7).
pub(super) async fn pop3(reach: &Reach, probe: &LoginProbe) -> Result<Good, Failure> {
    let mut dialogue = Dialogue::open(reach, probe.tls.as_ref()).await?;
    let greeting = starts(&mut dialogue, "the POP3 greeting", "+OK").await?;
    if let Some(user) = one_line(probe.user.as_deref(), "user")? {
        dialogue.say(&format!("USER {user}")).await?;
        starts(&mut dialogue, "the answer to USER", "+OK").await?;
        dialogue.say(&format!("PASS {}", password(probe)?)).await?;
        starts(&mut dialogue, "the answer to PASS", "+OK").await?;
    }
    dialogue.say("QUIT").await?;
    Ok(Good::new(greeting))
}

/// IMAP: `* OK`, with a login `LOGIN` (RFC 9051 section 6.2.3 and 7.1).
pub(super) async fn imap(reach: &Reach, probe: &LoginProbe) -> Result<Good, Failure> {
    let mut dialogue = Dialogue::open(reach, probe.tls.as_ref()).await?;
    let greeting = starts(&mut dialogue, "the IMAP greeting", "* OK").await?;
    if let Some(user) = one_line(probe.user.as_deref(), "user")? {
        let login = format!("d1 LOGIN {} {}", quoted(user), quoted(password(probe)?));
        dialogue.say(&login).await?;
        let mut answer = dialogue.line("the answer to LOGIN").await?;
        // Anything may be said in between.
        while answer.starts_with('*') {
            answer = dialogue.line("the answer to LOGIN").await?;
        }
        if !answer.starts_with("d1 OK") {
            return Err(Failure::unexpected(
                "the answer to LOGIN to be OK",
                answer.as_bytes(),
            ));
        }
    }
    dialogue.say("d2 LOGOUT").await?;
    Ok(Good::new(greeting))
}

/// Redis: `PING` with `PONG`, with a password after `AUTH` (RESP2).
pub(super) async fn redis(reach: &Reach, probe: &LoginProbe) -> Result<Good, Failure> {
    let mut dialogue = Dialogue::open(reach, probe.tls.as_ref()).await?;
    if let Some(password) = &probe.password {
        let words: Vec<&str> = match &probe.user {
            Some(user) => vec!["AUTH", user, &password.0],
            None => vec!["AUTH", &password.0],
        };
        dialogue.send(&command(&words)).await?;
        starts(&mut dialogue, "the answer to AUTH", "+OK").await?;
    }
    dialogue.send(&command(&["PING"])).await?;
    let answer = starts(&mut dialogue, "the answer to PING", "+PONG").await?;
    Ok(Good::new(answer))
}

/// An array of bulk strings.
fn command(words: &[&str]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend(format!("${}\r\n{word}\r\n", word.len()).into_bytes());
    }
    bytes
}

/// A reply of one or more lines with a code; of several, all but the last have a hyphen after it (RFC 5321 section 4.2.1,
/// RFC 959 section 4.2, whose lines in between may be anything). Gives the first line.
async fn reply(dialogue: &mut Dialogue, what: &str, code: &str) -> Result<String, Failure> {
    reply_any(dialogue, what, &[code]).await
}

async fn reply_any(dialogue: &mut Dialogue, what: &str, codes: &[&str]) -> Result<String, Failure> {
    let first = dialogue.line(what).await?;
    let code = first.get(..3).unwrap_or_default().to_owned();
    if !codes.contains(&code.as_str()) {
        let expected = format!("{what} to be {}", codes.join(" or "));
        return Err(Failure::unexpected(&expected, first.as_bytes()));
    }
    if first.as_bytes().get(3) == Some(&b'-') {
        let last = format!("{code} ");
        loop {
            let line = dialogue.line(what).await?;
            if line.starts_with(&last) || line == code {
                break;
            }
        }
    }
    Ok(first)
}

async fn starts(dialogue: &mut Dialogue, what: &str, with: &str) -> Result<String, Failure> {
    let line = dialogue.line(what).await?;
    if line.starts_with(with) {
        Ok(line)
    } else {
        let expected = format!("{what} to begin with {with}");
        Err(Failure::unexpected(&expected, line.as_bytes()))
    }
}

fn password(probe: &LoginProbe) -> Result<&str, Failure> {
    let password = probe.password.as_ref().map(|secret| secret.0.as_str());
    Ok(one_line(password, "password")?.unwrap_or_default())
}

/// What goes into a line must not begin another one.
fn one_line<'a>(text: Option<&'a str>, what: &str) -> Result<Option<&'a str>, Failure> {
    match text {
        Some(text) if text.contains(['\r', '\n', '\0']) => Err(Failure::new(
            FailureKind::Local,
            format!("the {what} has more than one line, which this protocol cannot say"),
        )),
        text => Ok(text),
    }
}

/// A quoted string (RFC 9051 section 9).
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
