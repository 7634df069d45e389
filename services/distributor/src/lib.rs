//! The distributor: takes OTLP traces in over gRPC and HTTP, checks and limits them, divides them by
//! trace among the shards, and acknowledges what is durable.
//!
//! - [`Config::build`] makes a [`Distributor`]; its routers serve the two protocols, its
//!   [`Handle`] takes spans from inside the process.
//! - [`Router`] tells where shards are; [`StaticRouter`] is the one of a single process.
//!
//! Rules:
//! - A success means that every span but those in `partial_success` is durable at its shard. A bad
//!   span is rejected alone. When any shard fails, the whole request is answered with an error that
//!   clients retry; storing a span twice is harmless, readers keep one per identity.
//! - All spans of a trace in a request go to the same shard: its home, or a fallback while the home
//!   cannot be written to.
//! - Bodies, decompressed bytes, nesting, spans, requests and bytes in flight are bounded. What
//!   does not fit now is refused at once with a retry hint, never queued.
//! - Requests are not traced: Clew's own spans would multiply here.

mod admission;
mod answer;
mod body;
mod coding;
mod config;
mod deliver;
mod distributor;
mod grpc;
mod http;
mod metrics;
mod places;
mod plan;
mod push;
mod rate;
mod refusal;
mod router;
mod tenant;

pub use config::{BuildError, Config};
pub use distributor::{Distributor, Handle, Parts};
pub use push::PushOutcome;
pub use router::{Leader, Router, StaticRouter};
pub use tenant::TENANT_HEADER;
