//! Timeouts of services, and the end of what persistence remembers.
//!
//! A template goes when its time has passed and its client has no connection left (the kernel's rule: a template does not
//! expire while it controls connections, `ip_vs_conn_expire`). Time is looked at first, in the map; for those whose time
//! has passed the next pass over the connection tables looks for connections.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use xdp_ebpf::layout::Template;

use super::node::Node;
use crate::config::{Config, VirtualService};
use crate::upkeep::{EndpointRule, Persistence, templates};

/// How often templates are looked through, at the most.
const PERIOD: Duration = Duration::from_secs(5);
/// The share of its time that the director spends with that, at the most: one in so many.
const SHARE: u32 = 50;

impl Node {
    /// What upkeep must know of the endpoints of a configuration that is in force.
    pub(super) fn rules(&self, config: &Config) -> Vec<EndpointRule> {
        let by_id: HashMap<u16, &VirtualService> = self.service_ids(config).collect();
        let mut rules = Vec::new();
        for (id, endpoint) in &self.tables.endpoints {
            let Some(service) = by_id.get(&endpoint.service) else {
                continue;
            };
            let Some(record) = self.tables.services.get(&endpoint.service) else {
                continue;
            };
            let at = usize::from(*id);
            if rules.len() <= at {
                rules.resize(at + 1, EndpointRule::default());
            }
            rules[at] = EndpointRule {
                timeouts_s: service.timeouts.by_state(),
                persistence: service.persistence.map(|persistence| Persistence {
                    service: endpoint.service,
                    mask: record.persistence_mask,
                    per_port: !persistence.across_ports,
                    port: endpoint.port,
                    timeout_s: persistence.timeout_s,
                }),
            };
        }
        rules
    }

    /// After a pass over the connection tables: takes away the templates that it found no connections of, and looks for
    /// others whose time has passed.
    pub(super) fn templates_after_pass(&mut self) {
        let now_s = self.tables.settings.now_s;
        for (key, template) in std::mem::take(&mut self.idle_templates) {
            if self.datapath.maps.template(&key) != Some(template) {
                // Used meanwhile, or given up.
                continue;
            }
            let result = if self.report.live_templates.contains(&key) {
                let used = Template {
                    seen_s: now_s,
                    ..template
                };
                self.datapath.maps.put_template(key, Some(used))
            } else {
                self.datapath.maps.put_template(key, None)
            };
            if let Err(error) = result {
                tracing::warn!("{error}");
            }
        }
        let begun = Instant::now();
        if begun < self.templates_due {
            return;
        }
        let timeouts_s: HashMap<u16, u32> = self
            .service_ids(&self.config)
            .filter_map(|(id, service)| Some((id, service.persistence?.timeout_s)))
            .collect();
        self.templates_due = begun + PERIOD;
        if timeouts_s.is_empty() {
            return;
        }
        match self.datapath.maps.templates() {
            Ok(all) => {
                self.idle_templates = all
                    .into_iter()
                    .filter(|(key, template)| {
                        // Of a service that is not persistent any more: at once.
                        let timeout_s = timeouts_s.get(&key.service).copied().unwrap_or(0);
                        templates::is_idle(template, now_s, timeout_s)
                    })
                    .collect();
                self.upkeep
                    .watch(self.idle_templates.keys().copied().collect());
            }
            Err(error) => tracing::warn!("{error}"),
        }
        self.templates_due = (begun + PERIOD).max(Instant::now() + begun.elapsed() * SHARE);
    }
}
