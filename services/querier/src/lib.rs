//! The role that answers queries: Tempo's HTTP API outside, the root of every query inside.
//!
//! - [`Config::build`] makes a [`Querier`] from settings, the world ([`clew_node::Deps`]) and
//!   [`Parts`]; [`Querier::router`] are its routes.
//! - A query takes a cut through the catalog and the shards' heads, has blocks read by the queriers
//!   that have them in their caches and asks shard leaders for what is not in blocks yet, gathers
//!   traces that may lie in several places, and joins everything into the newest matches.
//! - Every answer is complete, or names what it misses: `status: PARTIAL` with a message where the
//!   body has room, and the header `X-Clew-Partial` always. If nothing can be read it is a 503.
//!
//! Without `start` and `end` a search covers everything there is, newest first; Tempo would look at
//! the last minutes only. Nothing is cut off before now either.

mod answers;
mod ask;
mod config;
mod http;
mod leaf;
mod metrics;
mod querier;
mod root;
mod shape;
mod stream;

pub use config::{BuildError, Config, DiskCacheConfig, QueryConfig};
pub use leaf::Leaf;
pub use querier::{Parts, Querier, VersionInfo};
pub use root::{Leader, Peer, Router};
pub use stream::Streaming;
