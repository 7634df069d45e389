//! The `clew` binary: reads the command line and the settings, and hands over.

mod beat;
mod blocks;
mod catalog;
mod cli;
mod cluster;
mod config;
mod delete;
mod explain;
mod fsck;
mod inside;
mod instant;
mod member;
mod migrate;
mod parquet;
mod probe;
mod roles;
mod router;
mod scale;
mod serve;
mod status;
mod topology;
mod vitals;
mod web;

use std::io::Write as _;
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
        Command::Cluster(command) => printed(async |_| cluster::run(command).await),
        Command::Explain(explain) => printed(async |_| explain::run(explain).await),
        Command::Delete(command) => printed(async |_| delete::run(command).await),
        Command::Tenant(command) => printed(async |_| delete::tenant(command).await),
        Command::Block(command) => written(async |out| blocks::run(command, out).await),
        Command::Analyse(command) => streamed(async |out| blocks::analyse(command, out).await),
        Command::Catalog(command) => streamed(async |out| catalog::run(command, out).await),
        Command::Fsck(command) => streamed(async |out| fsck::run(command, out).await),
        Command::Probe(options) => probe(options),
        Command::Health(options) => printed(async |_| probe::health(options).await),
        Command::MigrateConfig(options) => migrate(options),
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

/// Runs a command that prints as it goes.
fn streamed(command: impl AsyncFnOnce(&mut dyn FnMut(&str)) -> Result<(), String>) -> ExitCode {
    written(async |out| command(&mut |text: &str| out(text.as_bytes())).await)
}

/// Runs a command that writes as it goes, not always text.
fn written(command: impl AsyncFnOnce(&mut dyn FnMut(&[u8])) -> Result<(), String>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let mut out = std::io::stdout().lock();
    let mut write = |bytes: &[u8]| {
        // Whoever reads has gone: there is nobody to tell.
        if out.write_all(bytes).is_err() {
            std::process::exit(1);
        }
    };
    let result = match runtime {
        Ok(runtime) => runtime.block_on(command(&mut write)),
        Err(error) => Err(error.to_string()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            complain(&message);
            ExitCode::FAILURE
        }
    }
}

/// Runs a command that gives one text to print.
fn printed(command: impl AsyncFnOnce(()) -> Result<String, String>) -> ExitCode {
    streamed(async |out| {
        out(&command(()).await?);
        Ok(())
    })
}

fn probe(options: cli::Probe) -> ExitCode {
    match probe::Settings::of(&options) {
        Ok(settings) if options.once => {
            let within = options.within.unwrap_or_default();
            printed(async |_| probe::once(settings, within).await)
        }
        Ok(settings) => {
            printed(async |_| probe::run(settings, options.listen, options.interval).await)
        }
        Err(message) => usage(&message),
    }
}

fn migrate(options: cli::MigrateConfig) -> ExitCode {
    match migrate::run(&options.file) {
        Ok(migrated) => {
            complain_plainly(&migrated.report);
            print(&migrated.yaml)
        }
        Err(message) => usage(&message),
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

#[allow(clippy::print_stderr, reason = "a report that must not mix with the output")]
fn complain_plainly(text: &str) {
    eprint!("{text}");
}
