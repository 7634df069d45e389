//! The `clew-loadtest` binary: reads the command line, does what it says, prints the report.

mod bench_command;
mod cli;
mod commands;
mod trial_commands;

use std::process::ExitCode;

use clap::Parser;
use clew_model::ErrorKind;

/// Exit code for a wrong command line (`EX_USAGE` of sysexits.h).
const EXIT_USAGE: u8 = 64;
/// Exit code when the work could not be done (`EX_UNAVAILABLE`).
const EXIT_UNAVAILABLE: u8 = 69;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            commands::complain(&format!("cannot start: {error}"));
            return ExitCode::from(EXIT_UNAVAILABLE);
        }
    };
    match runtime.block_on(commands::run(cli)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            commands::complain(&error.to_string());
            let usage = error.kind() == ErrorKind::Invalid;
            ExitCode::from(if usage { EXIT_USAGE } else { EXIT_UNAVAILABLE })
        }
    }
}
