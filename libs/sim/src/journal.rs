//! What happened, in order: every event counts into one hash, and the last ones are kept for people.
//!
//! How often tasks have run by then counts, too: what goes by real time or by an address shows there long
//! before it makes a difference to anybody.

use std::collections::VecDeque;
use std::fmt::{Arguments, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clew_node::Clock;
use parking_lot::Mutex;

/// Events kept for the report of a failure.
const KEPT: usize = 400;

/// How often tasks of a run have run. Clones are the same count.
#[derive(Debug, Clone, Default)]
pub(crate) struct Polls(Arc<AtomicU64>);

impl Polls {
    /// Counts one; for the hooks of a runtime, of which there may be none.
    #[cfg_attr(not(tokio_unstable), expect(dead_code, reason = "nobody tells of polls"))]
    pub(crate) fn count(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The events of a run. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Journal(Arc<Inner>);

struct Inner {
    clock: Clock,
    polls: Polls,
    shows: bool,
    state: Mutex<State>,
}

struct State {
    hash: u64,
    count: u64,
    kept: VecDeque<String>,
    violations: Vec<String>,
}

impl Journal {
    /// An empty journal; `shows` prints every event as it comes.
    pub(crate) fn new(clock: Clock, polls: Polls, shows: bool) -> Journal {
        let state = State {
            hash: 0xcbf2_9ce4_8422_2325,
            count: 0,
            kept: VecDeque::new(),
            violations: Vec::new(),
        };
        Journal(Arc::new(Inner { clock, polls, shows, state: Mutex::new(state) }))
    }

    /// Notes an event.
    pub(crate) fn note(&self, event: Arguments<'_>) {
        self.write(event, true);
    }

    /// Notes an event that is part of the hash and of no interest to people.
    pub(crate) fn note_quietly(&self, event: Arguments<'_>) {
        self.write(event, false);
    }

    #[allow(clippy::print_stderr, reason = "what a replay is for")]
    fn write(&self, event: Arguments<'_>, is_kept: bool) {
        let at = self.0.clock.monotonic();
        let mut state = self.0.state.lock();
        state.count += 1;
        Hashing(&mut state.hash).write(&self.0.polls.get().to_le_bytes());
        // Writing into a hash or a text cannot fail.
        if !is_kept && !self.0.shows {
            let _ = write!(Hashing(&mut state.hash), "{} {event}", Stamp(at));
            return;
        }
        let mut line = String::with_capacity(80);
        let _ = write!(line, "{} {event}", Stamp(at));
        let _ = Hashing(&mut state.hash).write_str(&line);
        if self.0.shows {
            eprintln!("{line}");
        }
        if is_kept {
            if state.kept.len() == KEPT {
                state.kept.pop_front();
            }
            state.kept.push_back(line);
        }
    }

    /// Notes that a promise was broken: `id` names it.
    pub(crate) fn violation(&self, id: &str, what: Arguments<'_>) {
        self.note(format_args!("VIOLATION {id}: {what}"));
        let at = Stamp(self.0.clock.monotonic());
        self.0.state.lock().violations.push(format!("{id} at {at}: {what}"));
    }

    /// The promises that were broken so far.
    pub(crate) fn violations(&self) -> Vec<String> {
        self.0.state.lock().violations.clone()
    }

    /// Whether none was.
    pub(crate) fn is_clean(&self) -> bool {
        self.0.state.lock().violations.is_empty()
    }

    /// The hash of all events, and how many they were.
    pub(crate) fn hash(&self) -> (u64, u64) {
        let state = self.0.state.lock();
        (state.hash, state.count)
    }

    /// The last events.
    pub(crate) fn last(&self) -> Vec<String> {
        self.0.state.lock().kept.iter().cloned().collect()
    }
}

/// Text that only counts. FNV-1a: what matters is that equal courses are equal, on every machine.
struct Hashing<'a>(&'a mut u64);

impl Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            *self.0 = (*self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

impl std::fmt::Write for Hashing<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.write(text.as_bytes());
        Ok(())
    }
}

struct Stamp(Duration);

impl std::fmt::Display for Stamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:4}.{:06}", self.0.as_secs(), self.0.subsec_micros())
    }
}
