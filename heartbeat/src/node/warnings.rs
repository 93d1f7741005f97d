//! Heartbeats that are refused: counted all, and said clearly once a minute for each link, sender and reason. Whoever can send to
//! a link can cause as many as he likes.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::config::Config;
use crate::config::limits::SAID_ANEW;
use crate::machine::{LinkId, Seldom};
use crate::wire::auth::Reject;
use crate::wire::message::NameId;

/// Of a link, a reason and, by position in [`Config::nodes`], who claims to be the sender. So there are not many.
type Cause = (LinkId, Reject, Option<usize>);

#[derive(Debug)]
struct Warning {
    text: String,
    seldom: Seldom,
    last: Duration,
}

/// What was warned of.
#[derive(Debug, Default)]
pub(super) struct Warnings(BTreeMap<Cause, Warning>);

impl Warnings {
    /// A message was refused; `claimed` is who it says that it is from, true or not. What is to be said now, if anything is.
    pub(super) fn refused(
        &mut self,
        now: Duration,
        config: &Config,
        link: LinkId,
        reject: Reject,
        claimed: Option<NameId>,
    ) -> Option<&str> {
        let advice = advice(config, reject)?;
        let mut nodes = config.nodes.iter();
        let sender = claimed.and_then(|claimed| nodes.position(|name| NameId::of(name) == claimed));
        let warning = self.0.entry((link, reject, sender)).or_insert_with(|| {
            let link = config.link_name(link);
            let name = sender.and_then(|sender| config.nodes.get(sender));
            let of = match name {
                Some(name) => format!("that say that they are from {name} "),
                None => String::new(),
            };
            Warning {
                text: format!(
                    "heartbeats {of}are not believed on the link {link}: {reject}; {advice}"
                ),
                seldom: Seldom::default(),
                last: now,
            }
        });
        warning.last = now;
        warning
            .seldom
            .may(now, 1, SAID_ANEW)
            .then_some(warning.text.as_str())
    }

    /// What there was a cause for within the last minute.
    pub(super) fn recent(&self, now: Duration) -> Vec<String> {
        let recent = self.0.values().filter(|it| now < it.last + SAID_ANEW);
        recent.map(|it| it.text.clone()).collect()
    }
}

/// What to do about it; none: it needs no person.
fn advice(config: &Config, reject: Reject) -> Option<String> {
    Some(match reject {
        Reject::Key | Reject::Signature => {
            let key = if config.keys.is_some() {
                ""
            } else {
                " (this one has none)"
            };
            format!("give all nodes the same key, id and secret{key}")
        }
        Reject::Version | Reject::Malformed => {
            "run the same version of the program on all nodes".to_owned()
        }
        Reject::Node => "give it a priority in a group here, or keep it from this link".to_owned(),
        Reject::SameName => format!(
            "give each machine a name of its own: another one is called {} too",
            config.node
        ),
        // Strangers' traffic, copies, and this node's own messages.
        Reject::Short
        | Reject::Long
        | Reject::Foreign
        | Reject::Own
        | Reject::Replayed
        | Reject::Old => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    const TEXT: &str = "
node: lb1
links: [{ udp: { interface: eth0, broadcast: true } }, { serial: { device: /dev/ttyS0 } }]
groups: [{ name: web, interface: eth0, addresses: [198.51.100.10/24], priority: { lb1: 150, lb2: 100 } }]";

    #[test]
    fn once_a_minute_for_each_cause() {
        let config = config::parse("test", TEXT, "host").unwrap();
        let mut warnings = Warnings::default();
        let peer = Some("lb2");
        // When, on which link, why, from whom, and whether it is said.
        let rows = [
            (0, 0, Reject::Signature, peer, true),
            (1, 0, Reject::Signature, peer, false),
            (2, 1, Reject::Signature, peer, true),
            (3, 0, Reject::Key, peer, true),
            (4, 0, Reject::Signature, None, true),
            // Who is no node of ours is as good as nobody.
            (5, 0, Reject::Signature, Some("stranger"), false),
            (6, 0, Reject::Replayed, peer, false),
            (7, 0, Reject::Own, Some("lb1"), false),
            (8, 0, Reject::SameName, Some("lb1"), true),
            (59, 0, Reject::Signature, peer, false),
            (60, 0, Reject::Signature, peer, true),
        ];
        for (at, link, reject, claimed, expected) in rows {
            let claimed = claimed.map(NameId::of);
            let now = Duration::from_secs(at);
            let said = warnings.refused(now, &config, LinkId(link), reject, claimed);
            assert_eq!(said.is_some(), expected, "{at}: {said:?}");
        }
        let shown = |at| warnings.recent(Duration::from_secs(at));
        assert_eq!(shown(60).len(), 5);
        assert_eq!(
            shown(119),
            [
                "heartbeats that say that they are from lb2 are not believed on the link udp eth0: the signature is \
              wrong; give all nodes the same key, id and secret (this one has none)"
            ]
        );
        assert!(shown(120).is_empty());
    }
}
