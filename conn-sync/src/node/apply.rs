//! Puts what peers told into this node's tables.

use std::io;

use xdp_ebpf::layout::{Template as Standing, learned};
use xdp_ebpf::state::State;

use super::Tables;
use super::templates::Templates;
use crate::directory::{Directory, Numbered, Unknown};
use crate::entry::{Entry, How, Impossible, Record, Template, supersedes};
use crate::table::{Placed, Wish, forget, place};

/// What became of records, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Applied {
    /// They stand in the tables.
    pub taken: u64,
    /// This node, or another peer, knew better.
    pub known_better: u64,
    /// The table was full of what is worth more.
    pub refused: u64,
    /// Of a service or a real server that is not configured here.
    pub unknown: u64,
    /// The kernel refused, or a map was full.
    pub failed: u64,
    /// There cannot be such a thing.
    pub impossible: ImpossibleCounts,
}

/// Records that cannot be, by [`Impossible`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct ImpossibleCounts {
    /// Client and virtual service are of different families.
    pub families: u64,
    /// Nothing of this protocol is balanced.
    pub protocol: u64,
    /// The protocol has no such state, or peers are not told of it.
    pub state: u64,
    /// It has been idle for longer than it lives here.
    pub idle: u64,
}

impl ImpossibleCounts {
    fn count(&mut self, why: Impossible) {
        *match why {
            Impossible::Families => &mut self.families,
            Impossible::Protocol => &mut self.protocol,
            Impossible::State => &mut self.state,
            Impossible::Idle => &mut self.idle,
        } += 1;
    }
}

/// Puts what a peer told into the tables. Gives what names a service or a real server that is not known here.
///
/// # Errors
/// The tables cannot be read or written. What was entered before that stays, and the rest counts as failed.
pub(super) fn apply(
    tables: &dyn Tables,
    directory: &Directory,
    known: &mut Templates,
    told: (&[Entry], &[Template]),
    how: How,
    applied: &mut Applied,
) -> io::Result<Vec<Record>> {
    let entered = entries(tables, directory, told.0, how, applied).and_then(|mut unknown| {
        unknown.extend(templates(tables, directory, known, told.1, how, applied)?);
        Ok(unknown)
    });
    if entered.is_err() {
        applied.failed += (told.0.len() + told.1.len()) as u64;
    }
    entered
}

fn entries(
    tables: &dyn Tables,
    directory: &Directory,
    entries: &[Entry],
    how: How,
    applied: &mut Applied,
) -> io::Result<Vec<Record>> {
    let view = tables.view()?;
    let mut unknown = Vec::new();
    let mut orders = vec![Vec::new(); view.cpus as usize];
    for entry in entries {
        if let Err(why) = Record::Entry(*entry).check() {
            applied.impossible.count(why);
            continue;
        }
        match directory.number(entry) {
            // It would be freed at once, and meanwhile be found by packets.
            Ok(numbered) if entry.idle_s >= lifetime_s(directory, &numbered, entry.state) => {
                is_over(how, applied);
            }
            Ok(numbered) => {
                let wish = Wish {
                    numbered,
                    state: entry.state,
                    idle_s: entry.idle_s,
                    how,
                };
                match place(&view, &wish) {
                    Placed::On(cpu, order) => {
                        if let Some(orders) = orders.get_mut(cpu as usize) {
                            orders.push(order);
                        }
                    }
                    Placed::KnownBetter => applied.known_better += 1,
                }
            }
            Err(what) => {
                if what == Unknown::Server
                    && let Ok((handle, _)) = directory.handle(entry)
                {
                    forget(&view, handle, entry.idle_s, how);
                }
                applied.unknown += 1;
                unknown.push(Record::Entry(*entry));
            }
        }
    }
    for (cpu, mut orders) in (0..).zip(orders) {
        if orders.is_empty() {
            continue;
        }
        tables.learn(cpu, &mut orders)?;
        for order in orders {
            match u64::from(order.outcome) {
                learned::TAKEN => applied.taken += 1,
                learned::KNOWN_BETTER => applied.known_better += 1,
                learned::REFUSED => applied.refused += 1,
                _ => applied.failed += 1,
            }
        }
    }
    Ok(unknown)
}

/// Its time has passed. What was kept aside may have lived when it was told.
fn is_over(how: How, applied: &mut Applied) {
    if how != How::Aside {
        applied.impossible.count(Impossible::Idle);
    }
}

/// Idle seconds after which an entry is forgotten here.
fn lifetime_s(directory: &Directory, numbered: &Numbered, state: State) -> u16 {
    directory.timeouts_s(numbered.handle.endpoint())[state as usize]
}

fn templates(
    tables: &dyn Tables,
    directory: &Directory,
    known: &mut Templates,
    templates: &[Template],
    how: How,
    applied: &mut Applied,
) -> io::Result<Vec<Record>> {
    let now_s = tables.view()?.now_s;
    let mut unknown = Vec::new();
    for template in templates {
        if let Err(why) = Record::Template(*template).check() {
            applied.impossible.count(why);
            continue;
        }
        let Ok((key, destination)) = directory.number_template(template) else {
            applied.unknown += 1;
            unknown.push(Record::Template(*template));
            continue;
        };
        if template.idle_s >= directory.template_timeout_s(&key) {
            is_over(how, applied);
            continue;
        }
        let mut seen_s = now_s.wrapping_sub(template.idle_s);
        if let Some(standing) = tables.template(&key) {
            let held = known.held(&key, &standing, now_s);
            if !supersedes(held, template.idle_s, how) {
                applied.known_better += 1;
                continue;
            }
            if standing.destination == destination && held.idle_s < template.idle_s {
                seen_s = standing.seen_s;
            }
        }
        let standing = Standing {
            destination,
            seen_s,
        };
        match tables.put_template(&key, &standing) {
            Ok(()) => {
                known.learned(key, &standing);
                applied.taken += 1;
            }
            // The map is full of what is used: it gives way to nothing for a moment.
            Err(_) => applied.failed += 1,
        }
    }
    Ok(unknown)
}
