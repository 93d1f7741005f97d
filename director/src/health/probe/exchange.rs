//! What is sent and what must come back, in turns.

use super::dialogue::Dialogue;
use super::pattern::Wanted;
use super::{Failure, Good, Reach};
use crate::config::{ExchangeProbe, Step};

pub(super) async fn probe(reach: &Reach, probe: &ExchangeProbe) -> Result<Good, Failure> {
    let mut dialogue = Dialogue::open(reach, probe.tls.as_ref()).await?;
    for step in &probe.steps {
        match step {
            Step::Send(bytes) => dialogue.send(bytes).await?,
            Step::Expect(pattern) => dialogue.expect(&Wanted::new(pattern)?).await?,
        }
    }
    Ok(Good::new(format!("{} steps", probe.steps.len())))
}
