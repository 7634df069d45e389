//! I8: nobody keeps the catalog busy. Whatever fails is tried again after a pause, so that even with the bucket
//! away or half of the nodes gone the metastore does not drown in commands of those who wait.

use std::collections::VecDeque;

use clew_catalog::State;

use super::Rule;
use crate::cluster::Cluster;
use crate::network::Name;

/// Commands within [`STEPS`]: several times what a cluster of this size needs on its worst days.
const COMMANDS_MAX: u64 = 600;

/// One minute.
const STEPS: usize = 120;

/// The newest revision at each of the last steps.
#[derive(Default)]
pub(super) struct NotKeptBusy(VecDeque<u64>);

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
        _: &Cluster,
    ) -> Result<(), String> {
        if !is_newest {
            return Ok(());
        }
        if self.0.len() == STEPS {
            self.0.pop_front();
        }
        self.0.push_back(state.revision());
        let first = self.0.front().copied().unwrap_or_default();
        match state.revision().saturating_sub(first) {
            commands if commands > COMMANDS_MAX => {
                Err(format!("{commands} commands within a minute"))
            }
            _ => Ok(()),
        }
    }
}
