//! A TCP connection is taken.

use super::{Failure, Good, Reach};

pub(super) async fn probe(reach: &Reach) -> Result<Good, Failure> {
    reach.connect().await?;
    Ok(Good::new("connected"))
}
