//! rtnetlink (`rtnetlink(7)`): conversations that change something, dumps, and events. Nothing here waits: the kernel
//! answers a request within the call that sends it.

mod conversation;
mod watch;

pub(crate) use conversation::{Conversation, Request, change};
pub(crate) use watch::{Change, LinkState, Watch, address};
