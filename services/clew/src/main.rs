//! The `clew` binary: reads the command line and the settings, and hands over.

mod beat;
mod cli;
mod cluster;
mod config;
mod explain;
mod inside;
mod roles;
mod router;
mod serve;
mod status;
mod topology;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Command};
use crate::config::Config;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The exit code for a wrong command line or setting (`EX_USAGE` of sysexits.h).
const EXIT_USAGE: u8 = 64;

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Serve(options) => match options.load() {
            Ok(config) => serve(config),
            Err(error) => usage(&error.to_string()),
        },
        Command::Config(options) => match options.load().and_then(|config| config.to_yaml()) {
            Ok(text) => print(&text),
            Err(error) => usage(&error.to_string()),
        },
        Command::Cluster(command) => on_runtime(cluster::run(command)),
        Command::Explain(explain) => on_runtime(explain::run(explain)),
        Command::Version => print(&format!("clew {}\n", env!("CARGO_PKG_VERSION"))),
    }
}

fn serve(config: Config) -> ExitCode {
    #[cfg(feature = "failpoints")]
    let _failpoints = fail::FailScenario::setup();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(serve::run(config)),
        Err(error) => Err(serve::ServeError::Runtime(error)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is_usage() => usage(&error.to_string()),
        Err(error) => {
            complain(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

/// Runs a command that prints a text.
fn on_runtime(command: impl Future<Output = Result<String, String>>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(command),
        Err(error) => Err(error.to_string()),
    };
    match result {
        Ok(text) => print(&text),
        Err(message) => {
            complain(&message);
            ExitCode::FAILURE
        }
    }
}

fn usage(message: &str) -> ExitCode {
    complain(message);
    ExitCode::from(EXIT_USAGE)
}

#[allow(clippy::print_stdout, reason = "the output of a command belongs on standard output")]
fn print(text: &str) -> ExitCode {
    print!("{text}");
    ExitCode::SUCCESS
}

#[allow(clippy::print_stderr, reason = "the logger may not be set up yet")]
fn complain(message: &str) {
    eprintln!("clew: {message}");
}
