//! What the subcommands do.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clew_loadtest::Error;
use clew_loadtest::measure::{Point, Process, Stats};
use clew_loadtest::queries::{Repeats, measure};
use clew_loadtest::report::{Report, to_text};
use clew_loadtest::send::{Cast, Extent, Plan};
use clew_loadtest::target::{Otlp, Tempo};
use clew_loadtest::verify::{Truth, verify};
use clew_node::Deps;

use crate::cli::{Cli, Command, QueriesArgs, ReportArgs, RunArgs, TargetArgs, VerifyArgs};
use crate::{bench_command, trial_commands};

/// Runs a command. True if nothing was wrong with the server.
pub(crate) async fn run(cli: Cli) -> Result<bool, Error> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let deps = Deps::system(cores);
    match cli.command {
        Command::Run(args) => send(&args, &deps).await,
        Command::Verify(args) => check(&args, &deps).await,
        Command::Queries(args) => ask(&args, &deps).await,
        Command::Bench(args) => bench_command::bench(&args, &deps).await,
        Command::Compare(args) => bench_command::compare(&args),
        Command::Soak(args) => trial_commands::soak(&args, &deps).await,
        Command::Overload(args) => trial_commands::overload(&args, &deps).await,
    }
}

/// Says something on standard error.
pub(crate) fn complain(message: &str) {
    // There is nobody to tell when standard error is closed.
    let _ = writeln!(std::io::stderr(), "clew-loadtest: {message}");
}

async fn send(args: &RunArgs, deps: &Deps) -> Result<bool, Error> {
    let tenant_header = args.workload.tenants > 0;
    let data_set = args.workload.data_set(deps.clock.now_unix(), args.send.rate)?;
    let extent = args.workload.extent();
    if args.send.make_ahead && matches!(extent, Extent::Time(_)) {
        return Err(Error::Usage("--make-ahead needs --traces or --spans".to_owned()));
    }
    let manners = args.target.manners(tenant_header);
    let otlp = Otlp::new(
        &args.send.otlp_url(),
        args.send.protocol,
        args.send.compression,
        usize::from(args.send.connections),
        manners,
        deps.clock.clone(),
    )?;
    let tempo = connect(&args.target, tenant_header, deps)?;
    let plan = Plan {
        data_set,
        extent,
        pace: args.send.pace(),
        connections: usize::from(args.send.connections),
        in_flight: usize::from(args.send.in_flight),
        make_ahead: args.send.make_ahead,
        makers: 2,
        retry_for: args.send.retry_for,
        reads_per_second: args.send.reads.max(0.0),
        found_within: args.send.found_within,
        tenant_header,
    };
    let process = args.target.pid.map(Process::new);
    let stats = Arc::new(Stats::default());
    let mut progress = Progress::new(args.report.quiet);
    let cast = Cast {
        otlp,
        tempo: tempo.clone(),
        process: process.as_ref(),
        stats: Arc::clone(&stats),
        interrupted: listen_for_interrupt(deps),
    };
    let sent = clew_loadtest::send::run(&plan, cast, deps, |point, in_flight| {
        progress.point(point, in_flight, &stats);
    });
    let outcome = sent.await?;
    progress.end();
    if let Some(path) = &args.ledger {
        outcome.ledger.save(path)?;
    }
    let report = Report::about(&args.target.query_url, &outcome.ledger.data_set);
    let mut report = report.sent(&outcome, &stats);
    if args.verify {
        deps.clock.sleep(args.settle).await;
        let truth = Truth::new(outcome.ledger, &deps.tasks).await?;
        let depth = args.check.depth();
        report.verified = Some(verify(&truth, &tempo, depth, |what| progress.step(what)).await?);
        progress.end();
    }
    finish(&report, &args.report)
}

async fn check(args: &VerifyArgs, deps: &Deps) -> Result<bool, Error> {
    let ledger = args.sent.ledger()?;
    let tempo = connect(&args.target, ledger.tenant_header, deps)?;
    let mut progress = Progress::new(args.report.quiet);
    progress.step("making the right answers");
    let truth = Truth::new(ledger, &deps.tasks).await?;
    let verified = verify(&truth, &tempo, args.check.depth(), |what| progress.step(what)).await?;
    progress.end();
    let about = Report::about(&args.target.query_url, &truth.ledger.data_set);
    let report = Report { verified: Some(verified), ..about };
    finish(&report, &args.report)
}

async fn ask(args: &QueriesArgs, deps: &Deps) -> Result<bool, Error> {
    let ledger = args.sent.ledger()?;
    let tempo = connect(&args.target, ledger.tenant_header, deps)?;
    let mut progress = Progress::new(args.report.quiet);
    progress.step("making the right answers");
    let truth = Truth::new(ledger, &deps.tasks).await?;
    let process = args.target.pid.map(Process::new);
    let repeats = Repeats { queries: args.repeat, time: args.class_time };
    let (queries, findings) = measure(
        &truth,
        &tempo,
        process.as_ref(),
        repeats,
        args.check.depth(),
        &deps.clock,
        |what| progress.step(what),
    )
    .await?;
    progress.end();
    let about = Report::about(&args.target.query_url, &truth.ledger.data_set);
    let report = Report { queries, findings, ..about };
    finish(&report, &args.report)
}

fn connect(target: &TargetArgs, tenant_header: bool, deps: &Deps) -> Result<Tempo, Error> {
    Tempo::new(&target.query_url, target.manners(tenant_header), deps.clock.clone())
}

/// Prints a result.
pub(crate) fn print(text: &str) -> Result<(), Error> {
    std::io::stdout().write_all(text.as_bytes()).map_err(|error| Error::File {
        path: "standard output".to_owned(),
        reason: error.to_string(),
    })
}

/// Prints and writes the report.
pub(crate) fn finish(report: &Report, args: &ReportArgs) -> Result<bool, Error> {
    print(&to_text(report))?;
    let save = |path: &Option<std::path::PathBuf>,
                write: fn(&Report, &Path) -> Result<(), Error>| {
        path.as_deref().map_or(Ok(()), |path| write(report, path))
    };
    save(&args.json, Report::save_json)?;
    save(&args.html, Report::save_html)?;
    Ok(report.is_clean())
}

/// A flag that is set by the first Ctrl-C; the second one ends the process.
fn listen_for_interrupt(deps: &Deps) -> Arc<AtomicBool> {
    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&interrupted);
    deps.tasks.spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            flag.store(true, Ordering::Relaxed);
            complain("finishing the current wave; press Ctrl-C again to stop at once");
        }
        if tokio::signal::ctrl_c().await.is_ok() {
            std::process::exit(130);
        }
    });
    interrupted
}

/// The line that shows how far a command is.
pub(crate) struct Progress {
    shown: bool,
    terminal: bool,
    ticks: u64,
}

impl Progress {
    pub(crate) fn new(quiet: bool) -> Progress {
        Progress { shown: !quiet, terminal: std::io::stderr().is_terminal(), ticks: 0 }
    }

    pub(crate) fn point(&mut self, point: &Point, in_flight: u64, stats: &Stats) {
        self.ticks += 1;
        // A log is not a terminal: a line every ten seconds is enough there.
        if !self.terminal && !self.ticks.is_multiple_of(10) {
            return;
        }
        let totals = stats.totals();
        let server = match (point.cpu_cores, point.rss_bytes) {
            (Some(cores), Some(bytes)) => {
                format!(", server {cores:.2} cores {:.0} MB", bytes as f64 / 1e6)
            }
            _ => String::new(),
        };
        self.show(&format!(
            "{:>5.0} s  {:>8.0} spans/s  {:>10} spans  ack p99 {:.1} ms  {in_flight} under way  {} \
             repeated  {} unknown{server}",
            point.at_seconds,
            point.spans_per_second,
            totals.spans_acked,
            point.ack.p99_ms,
            totals.attempts_retried,
            totals.requests_unknown,
        ));
    }

    pub(crate) fn step(&mut self, what: &str) {
        self.show(&format!("checking: {what}"));
    }

    pub(crate) fn show(&self, text: &str) {
        if !self.shown {
            return;
        }
        // Progress is no use to anybody once standard error is closed.
        let _ = match self.terminal {
            true => write!(std::io::stderr(), "\r\x1b[2K{text}"),
            false => writeln!(std::io::stderr(), "{text}"),
        };
    }

    pub(crate) fn end(&self) {
        if self.shown && self.terminal {
            let _ = write!(std::io::stderr(), "\r\x1b[2K");
        }
    }
}
