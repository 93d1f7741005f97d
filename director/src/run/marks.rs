//! After a pass over the connection tables: slots of services that track on change settle again.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::sync::Arc;

use super::node::Node;
use crate::config::{Track, VirtualService};
use crate::plan;

/// Services that are rewritten after one pass, a second's work: of 16,381 slots each, a few milliseconds in which nothing else
/// goes on. The others' turn comes after the next ones.
const SERVICES_AT_ONCE: usize = 4;

impl Node {
    /// Takes marks off slots that need none any more, and marks those where connections were found that the table alone would
    /// send elsewhere.
    pub(super) fn settle_slots(&mut self) {
        // Entries stand in two sets of tables, of which this pass has seen one.
        if self.resize.is_some() {
            self.marks.begin_anew();
            return;
        }
        let config = Arc::clone(&self.config);
        let elsewhere = std::mem::take(&mut self.report.elsewhere);
        let mut marks = std::mem::take(&mut self.marks);
        let services: OnceCell<HashMap<u16, &VirtualService>> = OnceCell::new();
        let of = |id: u16| {
            let services = services.get_or_init(|| self.service_ids(&config).collect());
            services.get(&id).copied()
        };
        let hold_s = |id: u16| match of(id).map(|service| service.track) {
            Some(Track::OnChange { hold_s }) => u32::from(hold_s),
            // On its way out of the configuration.
            _ => u32::MAX,
        };
        let now_s = self.tables.settings.now_s;
        let changes = marks.pass_ends(&self.tables, elsewhere, now_s, hold_s);
        let words = marks
            .in_turn(changes, SERVICES_AT_ONCE)
            .into_iter()
            .map(|(id, words)| {
                let name = of(id).map_or("", |service| service.name.as_str());
                let marked = words.iter().filter(|word| plan::owners::is_marked(**word));
                tracing::debug!(service = name, marked = marked.count(), "slots settle");
                (id, (name, words))
            })
            .collect();
        let writes = plan::rewrite(&self.tables, words);
        self.marks = marks;
        let outcome = match writes {
            Ok(writes) => self.apply(writes),
            Err(error) => Err(error.into()),
        };
        if let Err(error) = outcome {
            tracing::error!("cannot write slots that have settled: {error:#}");
        }
    }
}
