//! One try to deliver an alert. When another one follows is [`super::machine`]'s business.

mod addresses;
mod mail;
mod program;
#[cfg(test)]
mod tests;
mod webhook;

use std::time::Duration;

use super::message::Letter;
use crate::config::AlertWay;

/// The longest that a try may take.
pub(super) const TIMEOUT: Duration = Duration::from_secs(30);

/// Delivers an alert, or says why it could not, in words for the log.
pub(super) async fn deliver(way: &AlertWay, letter: &Letter, time: Duration) -> Result<(), String> {
    let delivery = async {
        match way {
            AlertWay::Mail(mail) => mail::send(mail, letter, time).await,
            AlertWay::Program(program) => program::run(program, letter).await,
            AlertWay::Webhook(webhook) => webhook::post(webhook, letter, time).await,
        }
    };
    match tokio::time::timeout(time, delivery).await {
        Ok(result) => result,
        Err(_) => Err(format!("not done within {} ms", time.as_millis())),
    }
}
