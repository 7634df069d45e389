//! The subcommands `soak` and `overload`.

use std::time::Duration;

use clap::Args;
use clew_loadtest::soak::{self, Progress as Told};
use clew_loadtest::{Error, overload};
use clew_node::Deps;

use crate::bench_command::OwnServerArgs;
use crate::cli::{CheckArgs, ReportArgs, duration, positive};
use crate::commands::{Progress, finish};

#[derive(Debug, Args)]
pub(crate) struct SoakArgs {
    #[command(flatten)]
    server: OwnServerArgs,
    #[command(flatten)]
    check: CheckArgs,
    #[command(flatten)]
    report: ReportArgs,
    /// A cluster of so many nodes; all but the first are killed one after the other
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=9))]
    nodes: u8,
    /// Send for so long; a single server is killed after half of it
    #[arg(long, default_value = "10m", value_parser = duration)]
    duration: Duration,
    /// Tenants that take turns
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    tenants: u64,
    /// Spans per second
    #[arg(long, default_value = "5000", value_parser = positive)]
    rate: f64,
    /// Reads per second
    #[arg(long, default_value_t = 20.0)]
    reads: f64,
}

#[derive(Debug, Args)]
pub(crate) struct OverloadArgs {
    #[command(flatten)]
    server: OwnServerArgs,
    #[command(flatten)]
    check: CheckArgs,
    #[command(flatten)]
    report: ReportArgs,
    /// Send for so long, once as fast as the server takes it and once at twice that rate
    #[arg(long, default_value = "1m", value_parser = duration)]
    duration: Duration,
    /// What the server's memory must not exceed, in MB
    #[arg(long, default_value_t = 3000)]
    memory_max: u64,
}

/// True if nothing was lost.
pub(crate) async fn soak(args: &SoakArgs, deps: &Deps) -> Result<bool, Error> {
    let options = soak::Options {
        setup: args.server.setup()?,
        nodes: args.nodes.into(),
        time: args.duration,
        tenants: args.tenants,
        rate: args.rate,
        reads: args.reads.max(0.0),
        depth: args.check.depth(),
    };
    let mut progress = Progress::new(args.report.quiet);
    let report = soak::run(&options, deps, |told| tell(&mut progress, told)).await?;
    progress.end();
    finish(&report, &args.report)
}

/// True if the server kept its promises.
pub(crate) async fn overload(args: &OverloadArgs, deps: &Deps) -> Result<bool, Error> {
    let options = overload::Options {
        setup: args.server.setup()?,
        time: args.duration,
        memory_max: args.memory_max.saturating_mul(1_000_000),
        depth: args.check.depth(),
    };
    let mut progress = Progress::new(args.report.quiet);
    let report = overload::run(&options, deps, |told| tell(&mut progress, told)).await?;
    progress.end();
    finish(&report, &args.report)
}

fn tell(progress: &mut Progress, told: Told<'_>) {
    match told {
        Told::Sent(point, in_flight, stats) => progress.point(point, in_flight, stats),
        Told::Checking(what) => progress.step(what),
    }
}
