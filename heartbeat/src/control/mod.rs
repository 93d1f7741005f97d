//! The operator's socket: one line of JSON to ask, one to answer.
//!
//! ```text
//! {"ask":"status"}                       {"ok":{"node":"lb1","groups":[…],…}}
//! {"ask":"standby","group":"web"}        {"ok":null}
//! {"ask":"standby"}                      {"ok":"group web: lb2 lost it more than once …"}
//! {"ask":"takeover"}                     {"error":"there is no group …"}
//! ```
//!
//! Without `group` an order is for all groups. What keeps an order from taking effect at once is answered, where that is known. The socket belongs to the user who runs heartbeat, and to nobody else.

mod client;
mod server;
mod within;

use serde::{Deserialize, Serialize};
use std::time::Duration;

pub use client::{ClientError, ask};
pub use server::{Server, ServerError, answer};

/// Longest question, in bytes.
const QUESTION_BYTES: u64 = 4096;
/// Longest answer, in bytes: the history is bounded, too.
const ANSWER_BYTES: u64 = 4 << 20;
/// How long who asks waits for the whole answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a questioner may take to ask, and to hear, all in all: others wait meanwhile.
const QUESTION_PATIENCE: Duration = Duration::from_secs(1);

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "lowercase", deny_unknown_fields)]
pub enum Question {
    /// How the node is.
    Status,
    /// Give groups to another node.
    Standby {
        /// Which one; none: all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        group: Option<String>,
    },
    /// Serve groups.
    Takeover {
        /// Which one; none: all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        group: Option<String>,
    },
    /// Be a node like the others again.
    Ready {
        /// For which one; none: all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        group: Option<String>,
    },
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// It is done, or here it is.
    Ok(serde_json::Value),
    /// Why not.
    Error(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let group = Some("web".to_owned());
        let rows = [
            (r#"{"ask":"status"}"#, Question::Status),
            (r#"{"ask":"standby"}"#, Question::Standby { group: None }),
            (
                r#"{"ask":"takeover","group":"web"}"#,
                Question::Takeover {
                    group: group.clone(),
                },
            ),
            (
                r#"{"ask":"ready","group":"web"}"#,
                Question::Ready { group },
            ),
        ];
        for (line, question) in rows {
            assert_eq!(serde_json::from_str::<Question>(line).unwrap(), question);
            assert_eq!(serde_json::to_string(&question).unwrap(), line);
        }
        for wrong in [
            "",
            "status",
            r#"{"ask":"stop"}"#,
            r#"{"ask":"standby","node":"lb1"}"#,
        ] {
            assert!(serde_json::from_str::<Question>(wrong).is_err(), "{wrong}");
        }
        let answer = Answer::Error("no".to_owned());
        assert_eq!(serde_json::to_string(&answer).unwrap(), r#"{"error":"no"}"#);
    }
}
