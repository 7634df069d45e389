//! The subcommands `bench` and `compare`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use clew_loadtest::Error;
use clew_loadtest::bench::{self, BenchReport, Options, REFERENCE_TRACES};
use clew_loadtest::own_server::Setup;
use clew_loadtest::queries::Repeats;
use clew_node::Deps;

use crate::cli::duration;
use crate::commands::{Progress, print};

/// The server that a command starts for itself.
#[derive(Debug, Args)]
pub(crate) struct OwnServerArgs {
    /// The server's program (default: `clew` beside this program)
    #[arg(long)]
    server: Option<PathBuf>,
    /// The core the server may use, by `taskset` (default: all)
    #[arg(long)]
    core: Option<usize>,
    /// A setting of the server, as key=value; may be given several times
    #[arg(long = "set")]
    settings: Vec<String>,
}

impl OwnServerArgs {
    pub(crate) fn setup(&self) -> Result<Setup, Error> {
        let program = match &self.server {
            Some(program) => program.clone(),
            None => std::env::current_exe()
                .map_err(|error| Error::Usage(error.to_string()))?
                .with_file_name("clew"),
        };
        Ok(Setup { program, core: self.core, settings: self.settings.clone() })
    }
}

#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    #[command(flatten)]
    server: OwnServerArgs,
    /// Send so many traces; the goals are stated for the default
    #[arg(long, default_value_t = REFERENCE_TRACES)]
    traces: u64,
    /// Measure only what ingest costs on so many nodes, compared with one
    #[arg(long, value_parser = clap::value_parser!(u8).range(2..=9))]
    nodes: Option<u8>,
    /// Ask at least so many queries of each class
    #[arg(long, default_value_t = 5)]
    repeat: u64,
    /// Ask queries of each class at least for so long
    #[arg(long, default_value = "2s", value_parser = duration)]
    class_time: Duration,
    /// Ask for so many traces by id
    #[arg(long, default_value_t = 500)]
    sample: usize,
    /// Write the result as JSON to this file
    #[arg(long)]
    json: Option<PathBuf>,
    /// What the result is called in comparisons, such as a commit
    #[arg(long, default_value = "clew")]
    label: String,
    /// No progress line
    #[arg(long)]
    quiet: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    /// The result to compare with, as written by `bench --json`
    before: PathBuf,
    /// The result that is compared
    after: PathBuf,
}

/// True if every answer was right.
pub(crate) async fn bench(args: &BenchArgs, deps: &Deps) -> Result<bool, Error> {
    let options = Options {
        setup: args.server.setup()?,
        traces: args.traces,
        repeats: Repeats { queries: args.repeat, time: args.class_time },
        by_id: args.sample,
        label: args.label.clone(),
    };
    let progress = Progress::new(args.quiet);
    if let Some(nodes) = args.nodes {
        let told = |what: &str| progress.show(what);
        let report = bench::run_nodes(&options, nodes.into(), deps, told).await?;
        progress.end();
        print(&report.to_string())?;
        write_json(args.json.as_deref(), &report)?;
        return Ok(report.is_clean());
    }
    let report = bench::run(&options, deps, |what| progress.show(what)).await?;
    progress.end();
    print(&bench::to_table(&report))?;
    write_json(args.json.as_deref(), &report)?;
    Ok(report.is_clean())
}

fn write_json(path: Option<&Path>, report: &impl serde::Serialize) -> Result<(), Error> {
    let Some(path) = path else { return Ok(()) };
    let text = serde_json::to_vec_pretty(report).map_err(|error| broken(path, &error))?;
    std::fs::write(path, text).map_err(|error| broken(path, &error))
}

pub(crate) fn compare(args: &CompareArgs) -> Result<bool, Error> {
    print(&bench::compare(&load(&args.before)?, &load(&args.after)?)?)?;
    Ok(true)
}

fn load(path: &Path) -> Result<BenchReport, Error> {
    let text = std::fs::read(path).map_err(|error| broken(path, &error))?;
    serde_json::from_slice(&text).map_err(|error| broken(path, &error))
}

fn broken(path: &Path, error: &dyn std::fmt::Display) -> Error {
    Error::File { path: path.display().to_string(), reason: error.to_string() }
}
