//! One try to deliver an alert. When another one follows is [`super::machine`]'s business.

mod addresses;
mod mail;
mod program;
#[cfg(test)]
mod tests;
mod webhook;

use std::time::Duration;

use tokio::sync::Semaphore;

use super::message::Letter;
use crate::config::{AlertWay, limits};

/// The longest that a try may take.
pub(super) const TIMEOUT: Duration = Duration::from_secs(30);

/// Places of all files and programs that alerts wait for. Of alerts alone: what checks wait for keeps nobody from being told.
static PLACES: Semaphore = Semaphore::const_new(limits::FILES_AT_ONCE);

/// Delivers an alert, or says why it could not, in words for the log.
pub(super) async fn deliver(way: &AlertWay, letter: &Letter, time: Duration) -> Result<(), String> {
    let delivery = async {
        match way {
            AlertWay::Mail(mail) => mail::send(mail, letter, time).await,
            AlertWay::Program(program) => program::run(program, letter, time).await,
            AlertWay::Webhook(webhook) => webhook::post(webhook, letter, time).await,
        }
    };
    match tokio::time::timeout(time, delivery).await {
        Ok(result) => result,
        Err(_) => Err(format!("not done within {} ms", time.as_millis())),
    }
}
