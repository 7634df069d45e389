//! I8: nobody keeps the catalog busy. Whatever fails is tried again after a pause, so that even with the bucket
//! away or half of the nodes gone the metastore does not drown in commands of those who wait.

use std::collections::VecDeque;
use std::time::Duration;

use clew_catalog::State;

use super::Rule;
use crate::cluster::Cluster;
use crate::network::Name;

/// Commands within [`WINDOW`]: several times what a cluster of this size needs on its worst days.
const COMMANDS_MAX: u64 = 600;

const WINDOW: Duration = Duration::from_secs(60);

/// When each of the last revisions was seen first.
#[derive(Default)]
pub(super) struct NotKeptBusy(VecDeque<(Duration, u64)>);

impl Rule for NotKeptBusy {
    fn id(&self) -> &'static str {
        "I8"
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
        if !is_newest {
            return Ok(());
        }
        let now = cluster.clock.monotonic();
        while self.0.front().is_some_and(|(at, _)| *at + WINDOW < now) {
            self.0.pop_front();
        }
        self.0.push_back((now, state.revision()));
        let first = self.0.front().map_or(0, |(_, revision)| *revision);
        match state.revision().saturating_sub(first) {
            commands if commands > COMMANDS_MAX => {
                Err(format!("{commands} commands within a minute"))
            }
            _ => Ok(()),
        }
    }
}
