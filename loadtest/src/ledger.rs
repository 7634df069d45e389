//! The ledger: what is known about everything that was sent.
//!
//! Spans can be made again from the data set, so the ledger only says how far sending came and
//! which requests have an unknown fate. A call that failed is unknown, not undone. Waves are sent
//! whole, so a wave that was begun has only acknowledged and unknown requests in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::workload::DataSet;

/// The largest ledger file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// What was sent, as it is kept in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ledger {
    /// What was sent, cut off after the last wave that was begun.
    pub data_set: DataSet,
    /// Whether requests named their tenant.
    pub tenant_header: bool,
    /// Wave and position of the requests whose fate is unknown.
    pub unknown: BTreeSet<(u64, u32)>,
}

impl Ledger {
    /// Of a data set of which everything was acknowledged.
    pub fn complete(data_set: DataSet, tenant_header: bool) -> Ledger {
        Ledger { data_set, tenant_header, unknown: BTreeSet::new() }
    }

    /// Reads a ledger file.
    ///
    /// # Errors
    /// [`Error::File`] when it cannot be read or is none, and as [`DataSet::check`].
    pub fn load(path: &Path) -> Result<Ledger, Error> {
        let broken = |reason: String| Error::File { path: path.display().to_string(), reason };
        let length = std::fs::metadata(path).map_err(|error| broken(error.to_string()))?.len();
        if length > FILE_BYTES_MAX {
            return Err(broken(format!("larger than {FILE_BYTES_MAX} bytes")));
        }
        let text = std::fs::read(path).map_err(|error| broken(error.to_string()))?;
        let ledger: Ledger =
            serde_json::from_slice(&text).map_err(|error| broken(error.to_string()))?;
        ledger.data_set.check()?;
        Ok(ledger)
    }

    /// Writes a ledger file.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        let broken = |reason: String| Error::File { path: path.display().to_string(), reason };
        let text = serde_json::to_vec(self).map_err(|error| broken(error.to_string()))?;
        std::fs::write(path, text).map_err(|error| broken(error.to_string()))
    }
}

/// The ledger while sending.
#[derive(Debug, Default)]
pub struct Journal {
    waves: u64,
    /// How many requests of a wave have no answer yet.
    open: BTreeMap<u64, u32>,
    unknown: BTreeSet<(u64, u32)>,
}

impl Journal {
    /// Wave `number`, the next one, is about to be sent in so many requests.
    pub fn begin(&mut self, number: u64, requests: u32) {
        self.waves = self.waves.max(number + 1);
        if requests > 0 {
            self.open.insert(number, requests);
        }
    }

    /// A request of a wave has its final answer.
    pub fn end(&mut self, wave: u64, request: u32, acked: bool) {
        if !acked {
            self.unknown.insert((wave, request));
        }
        if let Some(left) = self.open.get_mut(&wave) {
            *left -= 1;
            if *left == 0 {
                self.open.remove(&wave);
            }
        }
    }

    /// How many requests have no answer yet.
    pub fn in_flight(&self) -> u64 {
        self.open.values().map(|left| u64::from(*left)).sum()
    }

    /// The ledger of `data_set` as far as it was sent.
    pub fn close(self, data_set: &DataSet, tenant_header: bool) -> Ledger {
        Ledger { data_set: data_set.cut(self.waves), tenant_header, unknown: self.unknown }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::tests::data_set;

    #[test]
    fn what_failed_is_unknown_and_what_was_not_begun_is_not_there() {
        let mut journal = Journal::default();
        journal.begin(0, 2);
        journal.begin(1, 1);
        journal.end(0, 1, true);
        assert_eq!(journal.in_flight(), 2);
        journal.end(1, 0, false);
        journal.end(0, 0, true);
        assert_eq!(journal.in_flight(), 0);
        let ledger = journal.close(&data_set(1000), false);
        assert_eq!(ledger.data_set.traces, 128);
        assert_eq!(ledger.unknown, BTreeSet::from([(1, 0)]));
    }

    #[test]
    fn a_ledger_reads_back_as_written() {
        let mut ledger = Ledger::complete(data_set(10), true);
        ledger.unknown.insert((3, 4));
        let text = serde_json::to_vec(&ledger).unwrap();
        assert_eq!(serde_json::from_slice::<Ledger>(&text).unwrap(), ledger);
        assert!(serde_json::from_slice::<Ledger>(b"{}").is_err());
        assert!(Ledger::load(Path::new("/nonexistent/ledger")).is_err());
    }
}
