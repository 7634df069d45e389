//! Runs seeds, or one again with its events.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::Parser;
use clew_sim::{Options, PLANTED, Report, Shape, run, smallest};

// As in production; a sixth of the time is spent on memory.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Simulates a whole cluster under many seeds, and checks every promise.
#[derive(Parser)]
struct Args {
    /// How many seeds to run.
    #[arg(long, default_value_t = 50)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Runs this seed alone and prints what happens.
    #[arg(long)]
    seed: Option<u64>,
    /// Of the faults of a seed only these happen, by number, as 3,17; or none.
    #[arg(long, value_name = "NUMBERS", value_parser = faults)]
    only: Option<Faults>,
    /// Leaves out faults of the seed, which fails, as long as it still breaks the same rule.
    #[arg(long, requires = "seed")]
    shrink: bool,
    /// How long things go wrong in each run, in virtual seconds.
    #[arg(long, default_value_t = 180)]
    seconds: u64,
    /// Four shards rather than sixteen.
    #[arg(long)]
    small: bool,
    /// How many seeds to run at the same time, each in a thread.
    #[arg(long, default_value_t = 1)]
    jobs: u64,
    /// Runs every seed twice and compares.
    #[arg(long)]
    twice: bool,
    /// A defect to plant, such as bug::ack_before_commit: the first seed that finds it ends the run.
    #[arg(long)]
    planted: Option<String>,
    /// Plants every defect in turn, and says which seed finds it.
    #[arg(long)]
    table: bool,
    /// Prints the log of the simulated processes, too, from this level on.
    #[arg(long)]
    log: Option<tracing::Level>,
}

/// Numbers of faults.
#[derive(Debug, Clone)]
struct Faults(BTreeSet<u64>);

fn faults(text: &str) -> Result<Faults, std::num::ParseIntError> {
    let numbers = text.split(',').filter(|number| *number != "none");
    Ok(Faults(numbers.map(|number| number.trim().parse()).collect::<Result<_, _>>()?))
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(level) = args.log {
        tracing_subscriber::fmt()
            .with_max_level(level)
            .without_time()
            .with_writer(std::io::stderr)
            .init();
    }
    let options = |seed, shows| Options {
        seed,
        chaos: Duration::from_secs(args.seconds),
        shape: if args.small { Shape::SMALL } else { Shape::USUAL },
        shows,
        planted: args.planted.clone(),
        only: args.only.clone().map(|only| only.0),
    };
    if args.table {
        return table(&args, &options);
    }
    if let (Some(seed), true) = (args.seed, args.shrink) {
        return shrink(&options(seed, false));
    }
    if let Some(seed) = args.seed {
        return show(&run(&options(seed, true)), false);
    }
    if args.planted.is_some() {
        return plant(&args, &options);
    }
    let failed = AtomicU64::new(0);
    let next = AtomicU64::new(args.from);
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= args.from.saturating_add(args.seeds) {
                return;
            }
            let report = run(&options(seed, false));
            if args.twice && report.as_ref().ok() != run(&options(seed, false)).as_ref().ok() {
                say(&format!("seed {seed} has two courses"));
                failed.fetch_add(1, Ordering::Relaxed);
            }
            if show(&report, true) != ExitCode::SUCCESS {
                failed.fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    std::thread::scope(|threads| (0..args.jobs.max(1)).for_each(|_| drop(threads.spawn(work))));
    match failed.into_inner() {
        0 => ExitCode::SUCCESS,
        count => {
            say(&format!("{count} seeds failed; replay one with: make sim SEED=…"));
            ExitCode::FAILURE
        }
    }
}

/// Runs seeds until one notices the defect that is planted.
fn plant(args: &Args, options: &impl Fn(u64, bool) -> Options) -> ExitCode {
    for seed in args.from..args.from.saturating_add(args.seeds) {
        if show(&run(&options(seed, false)), true) != ExitCode::SUCCESS {
            return ExitCode::SUCCESS;
        }
    }
    say("the planted defect was not found");
    ExitCode::FAILURE
}

/// Runs a seed that fails with fewer and fewer faults, and says which of them are needed.
fn shrink(options: &Options) -> ExitCode {
    let report = run(options);
    let first = report.as_ref().ok().and_then(|report| {
        let rule = report.violations.first()?.split(' ').next()?.to_owned();
        let all = options.only.clone().unwrap_or_else(|| (0..report.faults).collect());
        Some((rule, all))
    });
    let Some((rule, all)) = first else {
        show(&report, false);
        say("nothing is broken: there is nothing to shrink");
        return ExitCode::FAILURE;
    };
    let with = |faults: &[u64]| Options {
        only: Some(faults.iter().copied().collect()),
        ..options.clone()
    };
    let mut runs = 0;
    let left = smallest(all.into_iter().collect(), |faults| {
        runs += 1;
        let report = run(&with(faults));
        let broken = report.iter().flat_map(|report| &report.violations);
        let still = broken.clone().any(|what| what.split(' ').next() == Some(rule.as_str()));
        say(&format!("{} faults: {}", faults.len(), if still { &rule } else { "ok" }));
        still
    });
    show(&run(&with(&left)), true);
    let left: Vec<String> = left.iter().map(u64::to_string).collect();
    let needed = if left.is_empty() { "none".to_owned() } else { left.join(",") };
    say(&format!("{rule} needs {} faults ({runs} runs): --only {needed}", left.len()));
    ExitCode::SUCCESS
}

/// A table in Markdown of the planted defects.
fn table(args: &Args, options: &impl Fn(u64, bool) -> Options) -> ExitCode {
    let mut missed = 0;
    say("| defect | found by | rule | seed |");
    say("|---|---|---|---|");
    for (name, what) in PLANTED {
        let planted = Some(name.to_owned());
        let mut seeds = args.from..args.from.saturating_add(args.seeds);
        let found = seeds.find_map(|seed| {
            let report = run(&Options { planted: planted.clone(), ..options(seed, false) }).ok()?;
            Some((seed, report.violations.first()?.clone()))
        });
        match found {
            Some((seed, violation)) => {
                let rule = violation.split(' ').next().unwrap_or_default();
                say(&format!("| {what} (`{name}`) | {violation} | {rule} | {seed} |"));
            }
            None => {
                missed += 1;
                say(&format!("| {what} (`{name}`) | not within {} seeds | | |", args.seeds));
            }
        }
    }
    if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[allow(clippy::print_stdout, reason = "the tool's output")]
fn say(text: &str) {
    println!("{text}");
}

fn show(report: &std::io::Result<Report>, with_events: bool) -> ExitCode {
    let report = match report {
        Ok(report) => report,
        Err(error) => {
            say(&format!("the simulation could not begin: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let Report { seed, hash, events, clock, next_random, violations, last, done, faults } = report;
    let clock = clock.as_secs_f64();
    say(&format!(
        "seed {seed}: {} in {clock:.3} s, {faults} faults, {events} events, hash {hash:016x}, next {next_random:016x}; {done}",
        if violations.is_empty() { "ok" } else { "FAILED" },
    ));
    if violations.is_empty() {
        return ExitCode::SUCCESS;
    }
    if with_events {
        last.iter().for_each(|line| say(line));
    }
    violations.iter().for_each(|line| say(line));
    ExitCode::FAILURE
}
