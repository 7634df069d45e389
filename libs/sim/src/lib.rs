//! A whole cluster in one thread under a seed: the production code of every role, with a clock, a
//! network, disks and a bucket that misbehave, and actors who remember what they were promised.
//!
//! Nothing waits for real time. One seed gives one course of events ([`Report::hash`]), as long as
//! tokio's own dice are seeded, too: build with `--cfg tokio_unstable`.
//!
//! A run has two phases. In *chaos* nodes crash, stand still and lose their disks, links break,
//! requests get lost, come twice and out of order, the bucket fails. Then everything *heals*, and
//! within bounded time every acknowledged span has to be found once, the bucket has to equal the
//! catalog, and logs have to be purged. docs/reliability.md says what is checked.
#![cfg(feature = "simulation")]

mod actors;
mod aimed;
mod chaos;
mod cluster;
mod growth;
mod http_client;
mod invariants;
mod journal;
mod ledger;
mod network;
mod node;
mod planted;
mod raft_link;
mod run;
mod shrink;
mod time;

// The wiring of the binary, which has no library to depend on: the same files.
#[allow(dead_code, reason = "the binary uses all of it")]
#[path = "../../../services/clew/src/beat.rs"]
mod beat;
#[path = "../../../services/clew/src/inside.rs"]
mod inside;
#[allow(dead_code, reason = "the binary uses all of it")]
#[path = "../../../services/clew/src/router.rs"]
mod router;
#[path = "../../../services/clew/src/topology.rs"]
mod topology;

pub use cluster::Shape;
pub use planted::{PLANTED, WITHIN};
pub use run::{Options, Report, run};
pub use shrink::smallest;
