//! Sending: waves are made ahead of time, dealt to connections at the wanted rate, and repeated
//! until they are acknowledged.

mod feed;
mod pace;
mod probe;
mod run;
mod worker;

pub use self::feed::{Batch, Extent, Sample};
pub use self::pace::Pace;
pub use self::run::{Cast, Outcome, Plan, run};
