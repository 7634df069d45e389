//! Processor time and memory of a process on this machine, from `/proc`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::error::Error;

/// Clock ticks per second in `/proc/PID/stat`; fixed at 100 in Linux's interface to programs.
const TICKS_PER_SECOND: u64 = 100;

/// A process that is watched. Clones watch the same one.
#[derive(Debug, Clone)]
pub struct Process {
    pid: Arc<AtomicU32>,
}

/// What a process has used so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Processor time in user and kernel mode, of all its threads; steps of 10 ms.
    pub cpu: Duration,
    /// Memory in use, in bytes.
    pub rss_bytes: u64,
    /// The most memory ever in use, in bytes.
    pub peak_rss_bytes: u64,
}

impl Process {
    /// The process `pid` of this machine.
    pub fn new(pid: u32) -> Process {
        Process { pid: Arc::new(AtomicU32::new(pid)) }
    }

    /// Watches `pid` from now on, which took the place of the one before.
    pub fn follow(&self, pid: u32) {
        self.pid.store(pid, Ordering::Relaxed);
    }

    fn folder(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}", self.pid.load(Ordering::Relaxed)))
    }

    /// What it has used so far.
    ///
    /// # Errors
    /// [`Error::File`] when there is no such process or `/proc` is not Linux's.
    pub fn usage(&self) -> Result<Usage, Error> {
        let folder = self.folder();
        let (stat, status) = (read(&folder.join("stat"))?, read(&folder.join("status"))?);
        let broken = || Error::File {
            path: folder.display().to_string(),
            reason: "not in the form of Linux".to_owned(),
        };
        let cpu = parse_stat(&stat).ok_or_else(broken)?;
        // A process that is ending has no memory left.
        let rss_bytes = parse_status(&status, "VmRSS:").unwrap_or(0);
        let peak_rss_bytes = parse_status(&status, "VmHWM:").unwrap_or(0);
        Ok(Usage { cpu, rss_bytes, peak_rss_bytes })
    }

    /// Processor time of the threads that are alive, added up by name.
    ///
    /// # Errors
    /// [`Error::File`] as for [`Process::usage`].
    pub fn threads(&self) -> Result<BTreeMap<String, Duration>, Error> {
        let folder = self.folder().join("task");
        let threads = std::fs::read_dir(&folder).map_err(|error| broken(&folder, &error))?;
        let mut found = BTreeMap::new();
        for thread in threads.flatten() {
            // A thread may end meanwhile.
            let Ok(stat) = read(&thread.path().join("stat")) else { continue };
            if let Some((name, cpu)) = parse_name(&stat).zip(parse_stat(&stat)) {
                *found.entry(name.to_owned()).or_default() += cpu;
            }
        }
        Ok(found)
    }
}

fn read(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(|error| broken(path, &error))
}

fn broken(path: &Path, error: &std::io::Error) -> Error {
    Error::File { path: path.display().to_string(), reason: error.to_string() }
}

/// The name of a thread or program from its `stat`.
fn parse_name(stat: &str) -> Option<&str> {
    let (_, rest) = stat.split_once('(')?;
    rest.rsplit_once(')').map(|(name, _)| name)
}

/// User and system time from `/proc/PID/stat`.
fn parse_stat(stat: &str) -> Option<Duration> {
    // The program's name is in parentheses and may hold anything, also parentheses.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Duration::from_millis((user + system) * 1000 / TICKS_PER_SECOND))
}

/// A line of `/proc/PID/status` that gives kilobytes, in bytes.
fn parse_status(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_and_status_are_read() {
        let stat = "77 (a) b (c) S 1 77 77 0 -1 4194560 900 0 0 0 150 50 0 0 20 0 9 0 12345 0 0";
        assert_eq!(parse_stat(stat), Some(Duration::from_secs(2)));
        assert_eq!(parse_stat("77 (a) S 1"), None);
        assert_eq!(parse_name(stat), Some("a) b (c"));
        let status = "Name:\ta\nVmHWM:\t  2048 kB\nVmRSS:\t    12 kB\n";
        assert_eq!(parse_status(status, "VmHWM:"), Some(2 << 20));
        assert_eq!(parse_status(status, "VmRSS:"), Some(12 << 10));
        assert_eq!(parse_status(status, "VmSwap:"), None);
    }

    #[test]
    fn a_process_that_is_none_is_an_error() {
        assert!(Process::new(u32::MAX).usage().is_err());
    }

    #[test]
    fn threads_have_names() {
        let threads = Process::new(std::process::id()).threads().unwrap();
        assert!(threads.keys().any(|name| name.starts_with("measure::")), "{threads:?}");
    }
}
