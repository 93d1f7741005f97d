//! Those that keep an address at its servers.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use super::{Client, LeastConnection, Scheduler, Server, least};

/// `sysctl_lblcr_expiration`.
const SHRINK_S: u32 = 24 * 60 * 60;

/// `is_overloaded` of both: more active ones than its weight, and another one has less than half of its own.
fn is_overloaded(servers: &[Server], index: usize) -> bool {
    servers[index].active > u64::from(servers[index].weight)
        && servers
            .iter()
            .any(|other| other.active * 2 < u64::from(other.weight))
}

fn wlc(servers: &[Server], client: &Client, now_s: u32) -> Option<usize> {
    LeastConnection { weighted: true }.choose(servers, client, now_s)
}

/// `lblc`: an address keeps its server.
#[derive(Clone, Debug, Default)]
pub struct Lblc {
    cache: HashMap<IpAddr, usize>,
}

impl Scheduler for Lblc {
    fn choose(&mut self, servers: &[Server], client: &Client, now_s: u32) -> Option<usize> {
        if let Some(known) = self.cache.get(&client.destination)
            && servers[*known].weight > 0
            && !is_overloaded(servers, *known)
        {
            return Some(*known);
        }
        let chosen = wlc(servers, client, now_s)?;
        self.cache.insert(client.destination, chosen);
        Some(chosen)
    }
}

/// `lblcr`: an address keeps a set of servers.
#[derive(Clone, Debug, Default)]
pub struct Lblcr {
    cache: HashMap<IpAddr, Set>,
}

#[derive(Clone, Debug, Default)]
struct Set {
    members: BTreeSet<usize>,
    changed_s: u32,
}

impl Scheduler for Lblcr {
    fn choose(&mut self, servers: &[Server], client: &Client, now_s: u32) -> Option<usize> {
        let Some(set) = self.cache.get_mut(&client.destination) else {
            let chosen = wlc(servers, client, now_s)?;
            let set = Set {
                members: BTreeSet::from([chosen]),
                changed_s: now_s,
            };
            self.cache.insert(client.destination, set);
            return Some(chosen);
        };
        let members = || set.members.iter().map(|index| (*index, &servers[*index]));
        let best = least(members().filter(|(_, it)| it.takes()), Server::overhead);
        if set.members.len() > 1 && now_s - set.changed_s > SHRINK_S {
            // `ip_vs_dest_set_max`: the first of the most loaded.
            let most = members()
                .filter(|(_, it)| it.weight > 0)
                .reduce(|one, other| {
                    let load = |it: &Server| u128::from(it.overhead());
                    let weight = |it: &Server| u128::from(it.weight);
                    let is_more = load(other.1) * weight(one.1) > load(one.1) * weight(other.1);
                    if is_more { other } else { one }
                })
                .map(|(index, _)| index);
            if let Some(most) = most {
                set.members.remove(&most);
                set.changed_s = now_s;
            }
        }
        if let Some(best) = best
            && !is_overloaded(servers, best)
        {
            return Some(best);
        }
        let chosen = wlc(servers, client, now_s)?;
        if set.members.insert(chosen) {
            set.changed_s = now_s;
        }
        Some(chosen)
    }
}
