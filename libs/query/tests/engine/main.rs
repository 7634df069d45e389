//! The engine over heads and blocks against a plain evaluation of the same filters on whole
//! traces: whatever the layout, the answers are the same.

#![allow(clippy::unwrap_used, unreachable_pub, reason = "tests fail by panicking")]

mod disk;
mod failures;
mod filters;
mod pieces;
mod pipelines;
mod search;
mod shapes;
mod spans;
mod tags;
mod world;

/// Runs a test's future to its end.
fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}
