//! Real connections through the lab: the director's methods beside a bare route, nftables' NAT and HAProxy.

use std::time::Duration;

use anyhow::Result;

use super::answers;
use crate::bench::Options;
use crate::bench::machine::{gross, speed};
use crate::bench::report::{Question, Row, Suite};
use crate::bench::rounds::{self, Extent, Turn};
use crate::bench::wire::{Load, Way, Wire};

/// Runs it.
///
/// # Errors
/// A way does not carry what it should.
pub fn run(options: &Options) -> Result<Suite> {
    Ok(Suite {
        name: "wire".to_owned(),
        rows: through(options, &[Load::Stream, Load::Requests])?,
        notes: notes(),
        ..Suite::default()
    })
}

/// What one should know of such figures.
pub(super) fn notes() -> Vec<String> {
    vec![
        "By the clock on the wall, for a second each; client, real server (nginx, one process) and director share this machine's processors. More is better.".to_owned(),
        "The director in one lab, the others in another one of the same shape without a program on the way; one real server, MTU 1500, no offloads of checksums or segments.".to_owned(),
    ]
}

/// Has these loads go by all ways.
///
/// # Errors
/// A way does not carry what it should.
pub(super) fn through(options: &Options, loads: &[Load]) -> Result<Vec<Row>> {
    let extent = if options.quick {
        Extent {
            quiet: 1,
            rounds: 3,
            time: Duration::from_secs(20),
        }
    } else {
        Extent {
            quiet: 9,
            rounds: 20,
            time: Duration::from_secs(100) * loads.len() as u32,
        }
    };
    let ways = Way::ALL.len();
    let mut wire = Wire::new()?;
    let rounds = rounds::run(loads.len() * ways, extent, |turn| match turn {
        Turn::Floor => speed(),
        Turn::Contender(nth) => wire.measure(Way::ALL[nth % ways], loads[nth / ways]),
    })?;
    let rows = answers(&questions(loads), &gross(&rounds));
    Ok(rows)
}

/// Of each load by each way, beside the bare route.
fn questions(loads: &[Load]) -> Vec<Question> {
    let ways = Way::ALL.len();
    let all = (0..).zip(loads).flat_map(|(nth, load)| {
        (0..).zip(Way::ALL).map(move |(place, way)| Question {
            name: format!("{}-{}", load.name(), way.name()),
            what: format!("{}: {}", load.words(), way.words()),
            unit: load.unit(),
            contender: nth * ways + place,
            against: (way != Way::Route).then(|| (nth * ways, Way::Route.words().to_owned())),
            ..Question::default()
        })
    });
    all.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_stands_beside_the_route_of_its_own_load() {
        let questions = questions(&[Load::Stream, Load::Requests]);
        assert_eq!(questions.len(), 12);
        for (nth, question) in questions.iter().enumerate() {
            assert_eq!(question.contender, nth);
            let route = nth / 6 * 6;
            let against = question.against.as_ref().map(|(contender, _)| *contender);
            assert_eq!(
                against,
                (nth != route).then_some(route),
                "{}",
                question.name
            );
        }
        assert_eq!(questions[0].name, "stream-route");
        assert_eq!(questions[11].name, "requests-haproxy");
    }
}
