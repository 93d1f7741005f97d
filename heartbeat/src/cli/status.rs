//! `heartbeat status`.

use std::fmt::Write;
use std::path::Path;

use anyhow::Result;
use serde_json::Value;

use crate::control::{Question, ask};

/// Changes that are shown.
const CHANGES: usize = 10;

pub(super) fn status(socket: &Path, json: bool) -> Result<()> {
    let status = ask(socket, &Question::Status)?;
    if json {
        println!("{}", serde_json::to_string_pretty(&status)?);
    } else {
        print!("{}", shown(&status));
    }
    Ok(())
}

/// The status for people.
#[must_use]
pub fn shown(status: &Value) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write(&mut text, status);
    text
}

fn write(out: &mut String, status: &Value) -> std::fmt::Result {
    let fitness = match (word(&status["unfit"]), status["lowered_by"].as_u64()) {
        (why, _) if !why.is_empty() => format!("not fit: {why}"),
        (_, Some(lowered)) if lowered > 0 => format!("priorities lowered by {lowered}"),
        _ => "fit".to_owned(),
    };
    writeln!(out, "node {}, {fitness}", word(&status["node"]))?;
    let fills = &status["may_fail_back"];
    match fills["filled"].as_str() {
        Some("waiting") => writeln!(out, "takes no groups back yet: {}", word(&fills["words"]))?,
        Some("done") => writeln!(out, "may take groups back: {}", word(&fills["words"]))?,
        Some("given_up") => {
            writeln!(
                out,
                "takes groups back after failback_limit all the same: {}",
                word(&fills["words"])
            )?;
        }
        _ => {}
    }

    for warning in list(&status["warnings"]) {
        writeln!(out, "warning: {}", word(warning))?;
    }

    writeln!(out, "\ngroups")?;
    for group in list(&status["groups"]) {
        let name = word(&group["group"]);
        let mut about = vec![format!("since {}", time(&group["since_ms"]))];
        about.push(word(&group["reason"]));
        let primary = word(&group["primary"]);
        if !primary.is_empty() && word(&group["role"]) != "primary" {
            about.push(format!("primary is {primary}"));
        }
        if let Some(address) = group["foreign"]["address"].as_str() {
            about.push(format!("primary is the VRRP router {address}"));
        }
        for (flag, what) in [
            ("is_standby", "standby ordered"),
            ("is_forced", "takeover ordered"),
        ] {
            if group[flag] == true {
                about.push(what.to_owned());
            }
        }
        let (priority, effective) = (&group["priority"], &group["effective_priority"]);
        let priority = if priority == effective {
            format!("priority {priority}")
        } else {
            format!("priority {effective} of {priority}")
        };
        writeln!(
            out,
            "  {name:<16} {:<10} {priority}, {}",
            word(&group["role"]),
            about.join("; ")
        )?;
        let failing = word(&group["failing"]);
        if !failing.is_empty() {
            writeln!(
                out,
                "    serves only if nobody else can, until `ready` is ordered: {failing}"
            )?;
        }
        for takeover in list(&status["takeover"]) {
            let fault = word(&takeover["fault"]);
            if word(&takeover["group"]) == name && !fault.is_empty() && fault != failing {
                writeln!(out, "    {fault}")?;
            }
        }
    }

    writeln!(out, "\nother nodes")?;
    for node in list(&status["nodes"]) {
        let mut heard: Vec<String> = list(&node["links"])
            .iter()
            .map(|link| {
                let (name, state) = (word(&link["link"]), word(&link["state"]));
                format!(
                    "{name}: {state}, heard {} ago",
                    time(&link["last_heard_ms"])
                )
            })
            .collect();
        if node["hears_us"] == false && word(&node["state"]) == "alive" {
            heard.push("does not hear this node".to_owned());
        }
        if node["is_unproven"] == true {
            heard.push(
                "heard but not believed: its messages may be recorded ones, they do not show that it hears this node"
                    .to_owned(),
            );
        }
        if let [keepalive, deadtime] = list(&node["other_times_ms"]) {
            heard.push(format!(
                "has other times than this node: keepalive {keepalive} ms, deadtime {deadtime} ms"
            ));
        }
        writeln!(
            out,
            "  {:<16} {:<10} {}",
            word(&node["node"]),
            word(&node["state"]),
            heard.join("; ")
        )?;
    }

    writeln!(out, "\nlinks")?;
    for link in list(&status["links"]) {
        let fault = word(&link["fault"]);
        let state = if fault.is_empty() { "works" } else { "broken" };
        let numbers = format!(
            "sent {}, not sent {}, heard {}",
            link["sent"], link["unsent"], link["heard"]
        );
        writeln!(out, "  {:<16} {state:<10} {numbers}", word(&link["link"]))?;
        if !fault.is_empty() {
            writeln!(out, "    {fault}")?;
        }
        for (key, what) in [
            ("refused", "came through a router, or not from a peer"),
            ("own", "came from an address of this node: its own"),
            ("garbage", "pieces on the line that were no messages"),
        ] {
            if let Some(count) = link[key].as_u64().filter(|count| *count > 0) {
                writeln!(out, "    not looked at: {count} × {what}")?;
            }
        }
        if let Some(refused) = link["not_believed"].as_object() {
            for (why, count) in refused {
                writeln!(out, "    not believed: {count} × {why}")?;
            }
        }
    }

    let checks = list(&status["fitness"]);
    if !checks.is_empty() {
        writeln!(out, "\nfitness")?;
    }
    for check in checks {
        let state = match check["is_good"].as_bool() {
            None => "unknown",
            Some(true) => "good",
            Some(false) => "failed",
        };
        writeln!(
            out,
            "  {:<24} {state:<10} {}",
            word(&check["name"]),
            word(&check["why"])
        )?;
    }

    writeln!(out, "\nlately")?;
    let history = list(&status["history"]);
    let now = status["now_ms"].as_u64().unwrap_or(0);
    for change in history.iter().rev().take(CHANGES) {
        let ago = Value::from(now.saturating_sub(change["at"].as_u64().unwrap_or(now)));
        let (from, to) = (word(&change["from"]), word(&change["to"]));
        writeln!(
            out,
            "  {} ago: {} from {from} to {to}: {}",
            time(&ago),
            word(&change["group"]),
            word(&change["reason"])
        )?;
    }
    Ok(())
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn word(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Milliseconds in words: the two largest units that matter.
fn time(milliseconds: &Value) -> String {
    let milliseconds = milliseconds.as_u64().unwrap_or(0);
    let seconds = milliseconds / 1000;
    match (
        seconds / 86_400,
        seconds / 3600 % 24,
        seconds / 60 % 60,
        seconds % 60,
    ) {
        (0, 0, 0, 0) => format!("{milliseconds} ms"),
        (0, 0, 0, seconds) => format!("{seconds} s"),
        (0, 0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (0, hours, minutes, _) => format!("{hours} h {minutes} min"),
        (days, hours, ..) => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        let rows = [
            (7, "7 ms"),
            (1999, "1 s"),
            (61_000, "1 min 1 s"),
            (3_700_000, "1 h 1 min"),
            (90_000_000, "1 d 1 h"),
        ];
        for (milliseconds, expected) in rows {
            assert_eq!(time(&Value::from(milliseconds)), expected);
        }
    }

    #[test]
    fn whatever_is_missing() {
        let text = shown(&Value::Null);
        assert!(text.starts_with("node , fit\n"), "{text}");
    }
}
