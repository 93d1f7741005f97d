//! What an agent on the real server says of it: HAProxy's agent-check (configuration manual, "agent-check").

use super::dialogue::Dialogue;
use super::{Administrative, Failure, Good, Operational, Reach, Said};
use crate::config::AgentProbe;

pub(super) async fn probe(reach: &Reach, probe: &AgentProbe) -> Result<Good, Failure> {
    let mut dialogue = Dialogue::open(reach, None).await?;
    if let Some(text) = &probe.send {
        dialogue.send(text.as_bytes()).await?;
    }
    let line = dialogue.first_line_or_all("the agent's report").await?;
    let said = parse(&line).ok_or_else(|| {
        Failure::unexpected(
            "a report like \"75%\", \"up\" or \"drain\"",
            line.as_bytes(),
        )
    })?;
    Ok(Good {
        said: Some(said),
        ..Good::new(line)
    })
}

/// Words apart by spaces, tabs or commas, up to a `#` that begins a reason. `None`: not one of them is known.
fn parse(line: &str) -> Option<Said> {
    let (line, _reason) = line.split_once('#').unwrap_or((line, ""));
    let mut said = Said::default();
    let mut is_known = false;
    for word in line
        .split([' ', '\t', ',', '\r'])
        .filter(|word| !word.is_empty())
    {
        let word = word.to_ascii_lowercase();
        let before = said;
        match word.as_str() {
            "up" => said.operational = Some(Operational::Up),
            "down" | "failed" | "fail" | "stopped" => said.operational = Some(Operational::Down),
            "ready" => said.administrative = Some(Administrative::Ready),
            "drain" => said.administrative = Some(Administrative::Drain),
            "maint" => said.administrative = Some(Administrative::Maintenance),
            other => {
                if let Some(percent) = other.strip_suffix('%').and_then(|it| it.parse().ok()) {
                    said.percent = Some(percent);
                } else if let Some(number) = other.strip_prefix("maxconn:") {
                    said.maximum_connections = number.parse().ok().or(said.maximum_connections);
                }
            }
        }
        is_known |= said != before;
    }
    is_known.then_some(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports() {
        let nothing = Said::default();
        let percent = |percent| Said {
            percent: Some(percent),
            ..nothing
        };
        let cases = [
            ("75%", Some(percent(75))),
            ("0%\r", Some(percent(0))),
            (
                "up, 50%\t maxconn:30 ready",
                Some(Said {
                    percent: Some(50),
                    maximum_connections: Some(30),
                    administrative: Some(Administrative::Ready),
                    operational: Some(Operational::Up),
                }),
            ),
            (
                "MAINT",
                Some(Said {
                    administrative: Some(Administrative::Maintenance),
                    ..nothing
                }),
            ),
            (
                "down # disk full, 100%",
                Some(Said {
                    operational: Some(Operational::Down),
                    ..nothing
                }),
            ),
            (
                "drain,drain nonsense",
                Some(Said {
                    administrative: Some(Administrative::Drain),
                    ..nothing
                }),
            ),
            ("nonsense", None),
            ("-5%", None),
            ("# 75%", None),
            ("", None),
        ];
        for (line, expected) in cases {
            assert_eq!(parse(line), expected, "{line:?}");
        }
    }
}
