//! What every process of Clew shares: the world as values (clock, randomness, tasks), stopping,
//! configuration, errors on the wire, RPC transport, HTTP serving, and telemetry.
//!
//! Nothing outside this crate reads the clock, draws randomness or spawns a task by itself
//! (`clippy.toml` bans the ambient ways), so a whole cluster can run under a simulated world.

pub mod clock;
pub mod config;
pub mod cpu;
pub mod deps;
pub mod disk;
pub mod http_server;
pub mod metrics;
pub mod process;
pub mod rng;
pub mod rpc;
pub mod status;
pub mod stop;
pub mod tasks;
pub mod telemetry;
pub mod tls;

pub use clock::Clock;
pub use cpu::{CpuTime, Phase};
pub use deps::Deps;
pub use metrics::Metrics;
pub use process::Process;
pub use rng::Rng;
pub use status::Problem;
pub use stop::Stop;
pub use tasks::Tasks;
