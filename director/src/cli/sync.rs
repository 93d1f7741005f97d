//! `director sync`.

use std::fmt::Write;
use std::process::ExitCode;

use serde_json::Value;

use super::arguments::Socket;
use super::output::{show, show_json, show_outcome};
use super::server::socket_path;
use crate::control::fetch_sync;

/// Shows how sharing connections stands.
pub(super) fn tell(socket: &Socket, json: bool) -> anyhow::Result<ExitCode> {
    match fetch_sync(&socket_path(socket)?) {
        Ok(status) if json => show_json(&status)?,
        Ok(status) => show(&shown(&status))?,
        Err(error) => return show_outcome(Err(error), json),
    }
    Ok(ExitCode::SUCCESS)
}

/// The status for people.
fn shown(status: &Value) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write(&mut text, status);
    text
}

fn write(out: &mut String, status: &Value) -> std::fmt::Result {
    if status["kernel"].is_object() {
        return write_kernel(out, status);
    }
    let readiness = match status["readiness"].as_str() {
        Some("synced") => "has all connections of the others",
        Some("alone") => "hears nobody, so there are no connections to be had",
        Some("limit") => {
            "hears others, and none that says that it hears this node: it has none of their connections"
        }
        _ => "does not have all connections of the others yet",
    };
    writeln!(
        out,
        "node {} on {} {readiness}",
        word(&status["node"]),
        word(&status["interface"])
    )?;
    writeln!(
        out,
        "told {} connections in {} messages, {} wait; messages repaired {}; last look at the tables took {:.1} ms",
        number(&status["records"]),
        number(&status["updates"]),
        number(&status["backlog"]),
        number(&status["repairs"]),
        number(&status["pass_us"]) as f64 / 1000.0,
    )?;
    write_applied(out, status, &status["aside"])?;
    for refused in list(&status["refused"]) {
        writeln!(
            out,
            "refused {} messages: {}, the last from {}, {} s ago",
            number(&refused["datagrams"]),
            word(&refused["words"]),
            word(&refused["last_from"]),
            number(&refused["last_ms_ago"]) / 1000,
        )?;
    }
    write_trouble(out, &status["trouble"])?;
    write_restarts(out, status)?;
    let peers = list(&status["peers"]);
    if peers.is_empty() {
        return writeln!(out, "\nno other node has been heard");
    }
    let mut rows = vec![
        [
            "node",
            "address",
            "role",
            "of theirs here",
            "of ours there",
            "lag",
            "lost",
            "resent",
            "last full sync",
        ]
        .map(str::to_owned),
    ];
    rows.extend(peers.iter().map(row));
    writeln!(out)?;
    table(out, &rows)
}

/// A node that speaks the kernel's protocol.
fn write_kernel(out: &mut String, status: &Value) -> std::fmt::Result {
    let kernel = &status["kernel"];
    writeln!(
        out,
        "the kernel's IPVS protocol on {}: told {} connections in {} messages, {} wait, {} cannot be told",
        word(&status["interface"]),
        number(&kernel["records"]),
        number(&kernel["messages"]),
        number(&kernel["backlog"]),
        number(&kernel["unsendable"]),
    )?;
    writeln!(
        out,
        "heard {} connections in {} messages, {} of them not shared here",
        number(&kernel["heard_records"]),
        number(&kernel["heard"]),
        number(&kernel["passed_over"]),
    )?;
    write_applied(out, status, &kernel["aside"])?;
    for (what, map) in [
        ("refused", &kernel["refused"]),
        ("from", &kernel["senders"]),
    ] {
        for (name, count) in map.as_object().into_iter().flatten() {
            writeln!(out, "{what} {name}: {}", number(count))?;
        }
    }
    write_trouble(out, &status["trouble"])?;
    write_restarts(out, status)
}

/// What last went wrong: perhaps long ago.
fn write_trouble(out: &mut String, trouble: &Value) -> std::fmt::Result {
    let Some(words) = trouble["words"].as_str() else {
        return Ok(());
    };
    let ago = number(&trouble["ms_ago"]) / 1000;
    writeln!(out, "last trouble, {ago} s ago: {words}")
}

/// Whether it has ended by itself.
fn write_restarts(out: &mut String, status: &Value) -> std::fmt::Result {
    let Some(last_end) = status["last_end"].as_str() else {
        return Ok(());
    };
    let count = number(&status["restarts"]);
    let times = match count {
        1 => "once".to_owned(),
        count => format!("{count} times"),
    };
    writeln!(out, "started again {times}, last because {last_end}")
}

fn write_applied(out: &mut String, status: &Value, aside: &Value) -> std::fmt::Result {
    let applied = &status["applied"];
    writeln!(
        out,
        "heard {} that are in the tables, {} known better here, {} without room, {} of unknown services or real servers ({} kept aside), {} failed",
        number(&applied["taken"]),
        number(&applied["known_better"]),
        number(&applied["refused"]),
        number(&applied["unknown"]),
        number(aside),
        number(&applied["failed"]),
    )?;
    write_impossible(out, &applied["impossible"])
}

/// What there cannot be.
fn write_impossible(out: &mut String, impossible: &Value) -> std::fmt::Result {
    let kinds = [
        (
            "families",
            "a client and a virtual service of different families",
        ),
        ("protocol", "of a protocol that is not balanced"),
        (
            "state",
            "in a state that its protocol does not have, or that is not shared",
        ),
        ("idle", "idle for longer than it lives here"),
    ];
    for (kind, words) in kinds {
        match number(&impossible[kind]) {
            0 => {}
            count => writeln!(out, "refused {count} connections or templates: {words}")?,
        }
    }
    Ok(())
}

fn row(peer: &Value) -> [String; 9] {
    let state = match peer["state"].as_str().unwrap_or_default() {
        "silent" => format!("silent for {} s", number(&peer["heard_ms_ago"]) / 1000),
        "one_way" => "it does not hear this node".to_owned(),
        "no_bulk" => "it gives no full sync".to_owned(),
        "waiting" => "waits for a full sync".to_owned(),
        "syncing" => format!(
            "full sync, {} of about {}",
            number(&peer["received"]),
            number(&peer["about"])
        ),
        "repairing" => format!("{} messages missing", number(&peer["missing"])),
        _ => "all".to_owned(),
    };
    let there = match (number(&peer["missing_there"]), &peer["state"]) {
        _ if peer["has_ours"] == true => "all".to_owned(),
        (_, state) if state == "silent" => "not known".to_owned(),
        (0, _) => "not all yet".to_owned(),
        (missing, _) => format!("{missing} messages missing"),
    };
    let last = peer["last_bulk_ms_ago"].as_u64();
    [
        word(&peer["node"]),
        word(&peer["address"]),
        word(&peer["role"]),
        state,
        there,
        format!(
            "{} connections, {:.1} s",
            number(&peer["lag_records"]),
            number(&peer["lag_ms"]) as f64 / 1000.0
        ),
        number(&peer["missed"]).to_string(),
        number(&peer["repaired"]).to_string(),
        last.map_or_else(|| "never".to_owned(), |ms| format!("{} s ago", ms / 1000)),
    ]
}

fn table(out: &mut String, rows: &[[String; 9]]) -> std::fmt::Result {
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: [usize; 9] = std::array::from_fn(width);
    for row in rows {
        let cells: Vec<String> = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        writeln!(out, "{}", cells.join("  ").trim_end())?;
    }
    Ok(())
}

fn word(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_people_see() {
        let status = json!({
            "node": "lb1", "interface": "eth1", "readiness": "synced", "records": 1200, "updates": 30, "backlog": 5,
            "repairs": 1, "pass_us": 2300, "aside": 2,
            "applied": { "taken": 7, "known_better": 1, "refused": 0, "unknown": 2, "failed": 0, "impossible": { "families": 0, "state": 9 } },
            "refused": [{
                "reason": "signature", "words": "the signature is wrong", "datagrams": 3, "last_from": "192.0.2.7:8849",
                "last_ms_ago": 4100,
            }],
            "trouble": { "words": "a datagram cannot be sent: no route", "ms_ago": 65_900 },
            "restarts": 2, "last_end": "conn-sync has ended: it panicked: no reason",
            "peers": [{
                "node": "lb2", "address": "192.0.2.2:8849", "role": "both", "state": "syncing", "received": 10, "about": 99,
                "has_ours": true, "lag_records": 4, "lag_ms": 120, "missed": 6, "repaired": 5, "last_bulk_ms_ago": null,
            }],
        });
        let expected = "\
node lb1 on eth1 has all connections of the others
told 1200 connections in 30 messages, 5 wait; messages repaired 1; last look at the tables took 2.3 ms
heard 7 that are in the tables, 1 known better here, 0 without room, 2 of unknown services or real servers (2 kept aside), 0 failed
refused 9 connections or templates: in a state that its protocol does not have, or that is not shared
refused 3 messages: the signature is wrong, the last from 192.0.2.7:8849, 4 s ago
last trouble, 65 s ago: a datagram cannot be sent: no route
started again 2 times, last because conn-sync has ended: it panicked: no reason

node  address         role  of theirs here             of ours there  lag                   lost  resent  last full sync
lb2   192.0.2.2:8849  both  full sync, 10 of about 99  all            4 connections, 0.1 s  6     5       never
";
        assert_eq!(shown(&status), expected);
    }

    /// State, whether the peer says that it has all, how many messages it misses; what is shown of theirs here, and of ours
    /// there.
    #[test]
    fn what_is_known_of_a_peer() {
        for (state, has_ours, missing, here, there) in [
            ("synced", true, 0, "all", "all"),
            ("synced", false, 7, "all", "7 messages missing"),
            ("synced", false, 0, "all", "not all yet"),
            ("waiting", true, 0, "waits for a full sync", "all"),
            ("silent", false, 0, "silent for 3600 s", "not known"),
            ("silent", false, 7, "silent for 3600 s", "not known"),
        ] {
            let peer = json!({
                "state": state, "has_ours": has_ours, "missing_there": missing, "heard_ms_ago": 3_600_100,
                "last_bulk_ms_ago": 90_000,
            });
            let row = row(&peer);
            assert_eq!(
                [&row[3], &row[4], &row[8]],
                [here, there, "90 s ago"],
                "{state}"
            );
        }
    }
}
