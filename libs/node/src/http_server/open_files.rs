//! How many connections the process can afford: each takes a file handle, and the log that runs out
//! of handles ends the process.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The share of the process's file handles that one listener may use. A process has up to four, so
/// that half is left for the log, the bucket and calls to other nodes.
const SHARE: u64 = 8;

/// The most connections of one listener. Raises the process's soft limit on open files to the hard
/// one first: the soft one is often 1,024, for the sake of old programs.
pub(super) fn connections_max() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    let current = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => raised.current,
        Err(error) => {
            tracing::warn!(%error, "the limit on open files stays as it is");
            limit.current
        }
    };
    share(current)
}

fn share(files: Option<u64>) -> usize {
    let share = files.map_or(u64::MAX, |files| (files / SHARE).max(1));
    usize::try_from(share).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_leave_handles_for_the_log() {
        assert_eq!(share(Some(1_024)), 128);
        assert_eq!(share(Some(0)), 1);
        assert_eq!(share(None), usize::MAX);
    }

    #[test]
    fn the_soft_limit_is_raised() {
        let connections = connections_max();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
        assert_eq!(connections, share(limit.maximum));
    }
}
