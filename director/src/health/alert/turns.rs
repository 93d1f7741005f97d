//! How many mails are on their way by one mail server at the same time. No I/O and no clock.
//!
//! Each recipient has a queue of its own, and all of them hear of the same things in the same moment: without a bound, twenty
//! recipients would be twenty connections and logins at once, of which many a mail server refuses some.

use std::collections::HashMap;

use super::machine::Id;
use crate::config::{AlertTarget, AlertWay, limits};

/// Name and port.
type MailServer = (String, u16);

/// Mails on their way.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// By target, of those too that are not known any more.
    mails: HashMap<Id, MailServer>,
}

impl Turns {
    /// Whether a target must wait until another one's mail has been taken or refused.
    pub(super) fn must_wait(&self, target: &AlertTarget) -> bool {
        let AlertWay::Mail(mail) = &target.way else {
            return false;
        };
        let its = |(server, port): &&MailServer| *server == mail.server && *port == mail.port;
        self.mails.values().filter(its).count() >= limits::MAILS_AT_ONCE
    }

    /// A message to a target is on its way.
    pub(super) fn begin(&mut self, id: Id, target: &AlertTarget) {
        if let AlertWay::Mail(mail) = &target.way {
            self.mails.insert(id, (mail.server.clone(), mail.port));
        }
    }

    /// It no longer is.
    pub(super) fn end(&mut self, id: Id) {
        self.mails.remove(&id);
    }
}
