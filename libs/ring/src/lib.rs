//! Which shard a trace belongs to, and which nodes hold a shard: pure functions on consistent
//! hashing.
//!
//! Writers and readers of a cluster compute these answers apart from each other and must agree, also
//! across releases and processor architectures. So everything here depends on its arguments alone,
//! and the hash function is fixed in [`hash`]; golden tests pin the answers. Changing any of it
//! needs a new map generation with a new version of the function.
//!
//! - [`MapGeneration`]: the shards that exist from some point on. A cluster has one or several live
//!   generations ([`ShardMap`]); writers use the newest, readers the union.
//! - [`Ring`]: a generation prepared for quick look-ups; [`Ring::tenant`] gives the part of it that
//!   a tenant uses, and [`TenantRing::places`] the places of a trace.
//! - [`Placement`]: the live nodes prepared for the question which of them hold a shard.

pub mod hash;
mod map;
mod node;
mod placement;
mod ring;
mod table;

pub use map::{MapError, MapGeneration, MapShard, SHARDS_MAX, ShardId, ShardMap};
pub use node::{NODE_ID_BYTES_MAX, NodeId, NodeIdError};
pub use placement::{Candidate, Placement, place_replicas};
pub use ring::{Places, Ring, TenantRing};
