//! Messages and gRPC stubs generated from `/proto` at build time; nothing here is written by hand.
//!
//! Compatibility: fields are only added, numbers are never reused, and a reader keeps working when
//! a field it does not know appears.

#![allow(missing_docs, unreachable_pub, clippy::all, reason = "generated; documented in /proto")]
#![allow(rust_2018_idioms, reason = "generated")]

/// Messages and services between the roles.
pub mod clew {
    /// The cluster's memory.
    pub mod metastore {
        /// Version 1.
        pub mod v1 {
            tonic::include_proto!("clew.metastore.v1");
        }
    }
    /// What a query's root asks of a leaf.
    pub mod query {
        /// Version 1.
        pub mod v1 {
            tonic::include_proto!("clew.query.v1");
        }
    }
    /// How replicas of raft groups reach each other.
    pub mod raft {
        /// Version 1.
        pub mod v1 {
            tonic::include_proto!("clew.raft.v1");
        }
    }
    /// What an ingester serves for a shard.
    pub mod shard {
        /// Version 1.
        pub mod v1 {
            tonic::include_proto!("clew.shard.v1");
        }
    }
}

/// OTLP's common messages, as far as the search API's answers hold them.
pub mod opentelemetry {
    pub mod proto {
        pub mod common {
            pub mod v1 {
                tonic::include_proto!("opentelemetry.proto.common.v1");
            }
        }
    }
}

/// Messages of the Tempo query API.
pub mod tempopb {
    tonic::include_proto!("tempopb");
}

pub use self::clew::{metastore, query, raft, shard};
pub use self::opentelemetry::proto::common;
