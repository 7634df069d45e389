//! The distributor from outside: OTLP goes in over its routers, spans come out at fake shards that
//! keep the contract of the real ones.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code fails by panicking")]

mod cluster;
mod faults;
mod grpc;
mod hostile;
mod http;
mod limits;
mod otlp;
mod routing;
