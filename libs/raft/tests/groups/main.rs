//! Groups from the outside: one process and its crashes, and clusters whose links can be cut.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code may panic")]

mod cluster;
mod rig;
mod single;
