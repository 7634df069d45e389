//! What is measured: latencies, counts over time, and the server's processor time and memory.

mod histogram;
mod process;
mod stats;

pub use self::histogram::{Histogram, Summary};
pub use self::process::{Process, Usage};
pub use self::stats::{Point, ReadKind, Stats, Totals};
