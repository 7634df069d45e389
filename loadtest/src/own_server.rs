//! A server of one's own: started in an empty folder on free ports of this machine, killed and
//! started again on the same data if wanted, and gone when it is dropped.

use std::fs::OpenOptions;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use clew_node::Clock;
use http::{Method, StatusCode};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::error::Error;
use crate::measure::Process;
use crate::target::{Compression, Manners, Otlp, Protocol, Tempo};

/// How long a server may take to be ready.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// How long a flush may take.
const FLUSHED_WITHIN: Duration = Duration::from_secs(600);
/// How often a flush is asked for, and how long is waited in between.
const FLUSH_TRIES: u32 = 60;
const FLUSH_PAUSE: Duration = Duration::from_secs(1);
/// How long a server may take to end.
const END_WITHIN: Duration = Duration::from_secs(30);
/// How often a server that starts is asked whether it is ready.
const READY_POLL: Duration = Duration::from_millis(50);

/// How to start a server.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The program.
    pub program: PathBuf,
    /// The core it may use; all if none is given.
    pub core: Option<usize>,
    /// Settings as `key=value`.
    pub settings: Vec<String>,
}

impl Setup {
    /// The same with more settings.
    pub(crate) fn with(&self, settings: &[&str]) -> Setup {
        let more = settings.iter().map(|setting| (*setting).to_owned());
        Setup { settings: self.settings.iter().cloned().chain(more).collect(), ..self.clone() }
    }
}

/// A server that runs.
pub(crate) struct OwnServer {
    child: Child,
    process: Process,
    setup: Setup,
    admin: Tempo,
    clock: Clock,
    addresses: Addresses,
    /// Holds the data and the log; goes with the server.
    folder: TempDir,
}

/// Where a server listens, as `host:port`.
pub(crate) struct Addresses {
    http: String,
    grpc: String,
    otlp_http: String,
    rpc: String,
}

impl OwnServer {
    /// Starts a server in a new folder and waits until it is ready.
    pub(crate) async fn start(setup: Setup, clock: &Clock) -> Result<OwnServer, Error> {
        let folder = tempfile::tempdir().map_err(|error| Error::Server(error.to_string()))?;
        let mut addresses = Addresses::free(1)?;
        let addresses = addresses.pop().ok_or_else(|| Error::Server("no address".to_owned()))?;
        let mut server = OwnServer::spawn(setup, addresses, folder, clock)?;
        server.wait_until_ready().await?;
        Ok(server)
    }

    /// Starts a server that keeps its data in `folder`, without waiting for it.
    pub(crate) fn spawn(
        setup: Setup,
        addresses: Addresses,
        folder: TempDir,
        clock: &Clock,
    ) -> Result<OwnServer, Error> {
        let (child, pid) = spawn(&setup, &addresses, folder.path())?;
        let process = Process::new(pid);
        let patient =
            Manners { headers: Vec::new(), timeout: FLUSHED_WITHIN, tenant_header: false };
        let admin = Tempo::new(&format!("http://{}", addresses.http), patient, clock.clone())?;
        let clock = clock.clone();
        Ok(OwnServer { child, process, setup, admin, clock, addresses, folder })
    }

    /// Ends it as a crash would and starts it again on the same data.
    pub(crate) async fn crash_and_restart(&mut self) -> Result<(), Error> {
        self.kill().await;
        let (child, pid) = spawn(&self.setup, &self.addresses, self.folder.path())?;
        self.child = child;
        self.process.follow(pid);
        self.wait_until_ready().await
    }

    /// Waits until it answers that it is ready.
    pub(crate) async fn wait_until_ready(&mut self) -> Result<(), Error> {
        let until = self.clock.monotonic() + READY_WITHIN;
        while self.clock.monotonic() < until {
            if let Ok(answer) = self.admin.admin(Method::GET, "/ready").await
                && answer.status == StatusCode::OK
            {
                return Ok(());
            }
            self.check_alive()?;
            self.clock.sleep(READY_POLL).await;
        }
        Err(self.failed("it was not ready in time"))
    }

    /// Fails if the server has ended by itself.
    pub(crate) fn check_alive(&mut self) -> Result<(), Error> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(self.failed(&format!("it ended: {status}"))),
            Err(error) => Err(self.failed(&error.to_string())),
        }
    }

    /// The reason with the end of the server's log.
    fn failed(&self, reason: &str) -> Error {
        let log = std::fs::read_to_string(log_of(self.folder.path())).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = &lines[lines.len().saturating_sub(10)..];
        Error::Server(format!("{reason}\n{}", last.join("\n")))
    }

    /// Where queries go.
    pub(crate) fn query_url(&self) -> String {
        format!("http://{}", self.addresses.http)
    }

    /// A sender to it over plain gRPC.
    pub(crate) fn otlp(
        &self,
        connections: usize,
        manners: Manners,
        clock: Clock,
    ) -> Result<Otlp, Error> {
        let address = format!("http://{}", self.addresses.grpc);
        Otlp::new(&address, Protocol::Grpc, Compression::None, connections, manners, clock)
    }

    /// Its process, also after a restart.
    pub(crate) const fn process(&self) -> &Process {
        &self.process
    }

    /// Brings everything into blocks. A shard whose leader changes meanwhile is asked for again.
    pub(crate) async fn flush(&self) -> Result<(), Error> {
        let mut tries_left = FLUSH_TRIES;
        loop {
            let answer = self.admin.admin(Method::POST, "/flush").await?;
            tries_left -= 1;
            match answer.status {
                status if status.is_success() => return Ok(()),
                StatusCode::SERVICE_UNAVAILABLE if tries_left > 0 => {
                    self.clock.sleep(FLUSH_PAUSE).await;
                }
                status => {
                    let said = String::from_utf8_lossy(&answer.body);
                    let what = format!("it answered HTTP {status} to a flush: {}", said.trim());
                    return Err(self.failed(&what));
                }
            }
        }
    }

    /// Its metrics page.
    pub(crate) async fn metrics(&self) -> Result<String, Error> {
        let answer = self.admin.admin(Method::GET, "/metrics").await?;
        Ok(String::from_utf8_lossy(&answer.body).into_owned())
    }

    /// Ends it at once.
    pub(crate) async fn kill(&mut self) {
        // It may be gone already; what it leaves behind goes with its folder.
        let _ = self.child.start_kill();
        let _ = self.clock.timeout(END_WITHIN, self.child.wait()).await;
    }
}

/// The process and its number.
fn spawn(setup: &Setup, addresses: &Addresses, folder: &Path) -> Result<(Child, u32), Error> {
    let failed = |what: &str, error: std::io::Error| Error::Server(format!("{what}: {error}"));
    let log = OpenOptions::new().create(true).append(true).open(log_of(folder));
    let log = log.map_err(|error| failed("cannot write its log", error))?;
    let mut command = match setup.core {
        Some(core) => {
            let mut command = Command::new("taskset");
            command.arg("-c").arg(core.to_string()).arg(&setup.program);
            command
        }
        None => Command::new(&setup.program),
    };
    command.arg("serve").arg("--data-dir").arg(folder.join("data"));
    for (name, address) in [
        ("--http-addr", &addresses.http),
        ("--otlp-grpc-addr", &addresses.grpc),
        ("--otlp-http-addr", &addresses.otlp_http),
        ("--rpc-addr", &addresses.rpc),
    ] {
        command.arg(name).arg(address);
    }
    for setting in &setup.settings {
        command.arg("--set").arg(setting);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).kill_on_drop(true);
    let child = command.spawn();
    let child = child
        .map_err(|error| failed(&format!("cannot start {}", setup.program.display()), error))?;
    // `taskset` becomes the program, so this is the server's own number.
    let pid = child.id().ok_or_else(|| Error::Server("it ended at once".to_owned()))?;
    Ok((child, pid))
}

fn log_of(folder: &Path) -> PathBuf {
    folder.join("log")
}

impl Addresses {
    /// Addresses for so many servers on this machine where nobody listens at the moment.
    pub(crate) fn free(servers: usize) -> Result<Vec<Addresses>, Error> {
        let failed = |error: std::io::Error| Error::Server(format!("no free port: {error}"));
        let mut listeners = Vec::new();
        let mut next = || {
            // Held until all are found, so that none is given twice.
            let listener = TcpListener::bind("127.0.0.1:0").map_err(failed)?;
            let address = listener.local_addr().map_err(failed)?.to_string();
            listeners.push(listener);
            Ok::<_, Error>(address)
        };
        let mut of_server =
            || Ok(Addresses { http: next()?, grpc: next()?, otlp_http: next()?, rpc: next()? });
        (0..servers).map(|_| of_server()).collect()
    }

    /// Where other nodes reach it.
    pub(crate) fn rpc(&self) -> &str {
        &self.rpc
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_addresses_are_different() {
        let found = Addresses::free(3).unwrap().into_iter();
        let different: std::collections::BTreeSet<String> = found
            .flat_map(|Addresses { http, grpc, otlp_http, rpc }| [http, grpc, otlp_http, rpc])
            .collect();
        assert_eq!(different.len(), 12);
    }

    #[tokio::test]
    async fn a_program_that_ends_is_reported_with_its_log() {
        // The shell takes "serve" for a script that is not there.
        let setup = Setup { program: PathBuf::from("/bin/sh"), core: None, settings: Vec::new() };
        let error = OwnServer::start(setup, &Clock::system()).await.err().unwrap().to_string();
        assert!(error.contains("it ended") && error.contains("serve"), "{error}");
    }
}
