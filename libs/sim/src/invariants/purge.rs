//! I4: no replica forgets an entry that is not in a registered object: what it takes for flushed is at
//! or below the catalog's watermark.

use clew_catalog::State;

use super::Rule;
use crate::cluster::Cluster;
use crate::network::Name;
use crate::node::Role;

pub(super) struct PurgedIsFlushed;

impl Rule for PurgedIsFlushed {
    fn id(&self) -> &'static str {
        "I4"
    }

    fn sees_catalog_only(&self) -> bool {
        false
    }

    fn check(
        &mut self,
        _: &Name,
        state: &State,
        is_newest: bool,
        cluster: &Cluster,
    ) -> Result<(), String> {
        // Members that are away may have applied more than those that can be seen.
        let all_here = cluster.members().len() == cluster.of(Role::Metastore).count();
        if !is_newest || !all_here {
            return Ok(());
        }
        for node in cluster.of(Role::Ingester) {
            let Some(running) = cluster.running(node) else { continue };
            let Some(handle) = running.probe.lock().ingester.clone() else { continue };
            for report in handle.reports() {
                let log = state.shard_log(clew_ring::ShardId(report.shard));
                let log = log.filter(|log| log.incarnation.0 == report.incarnation);
                if let Some(log) = log
                    && report.watermark > log.watermark.index
                {
                    return Err(format!(
                        "{} takes shard {} for flushed up to {}, it is up to {}",
                        node.name, report.shard, report.watermark, log.watermark.index
                    ));
                }
            }
        }
        Ok(())
    }
}
