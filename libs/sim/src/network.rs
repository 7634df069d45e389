//! The network between simulated processes: whole requests and answers that are delayed, lost,
//! doubled and overtake each other, over links that can be cut in one direction or both.
//!
//! It lies below the generated clients and above the routers of the services, where production has
//! connections: a cut link is noticed late, as by a keep-alive, and a process that is not there
//! refuses at once.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use clew_node::rpc::{Channel, Connect};
use clew_node::{Clock, Process, Rng};
use clew_raft::{GroupId, Host};
use futures::StreamExt;
use http_body_util::{BodyExt, StreamBody};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tower::ServiceExt;

use crate::journal::Journal;

/// Who a process is, to the network.
pub(crate) type Name = Arc<str>;

type Frame = hyper::body::Frame<Bytes>;

/// How often an open connection looks whether its link is cut.
const KEEP_ALIVE: Duration = Duration::from_secs(3);

/// What goes wrong with messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Weather {
    /// The shortest time on the way.
    pub(crate) delay_min: Duration,
    /// The longest, mostly.
    pub(crate) delay_max: Duration,
    /// In thousandths: takes much longer than the others.
    pub(crate) slow: u64,
    /// How much longer at most.
    pub(crate) slow_max: Duration,
    /// In thousandths of the messages: lost.
    pub(crate) lost: u64,
    /// In thousandths of the requests: arrives twice.
    pub(crate) doubled: u64,
}

impl Weather {
    /// Nothing goes wrong.
    pub(crate) const FINE: Weather = Weather {
        delay_min: Duration::from_millis(1),
        delay_max: Duration::from_millis(3),
        slow: 0,
        slow_max: Duration::ZERO,
        lost: 0,
        doubled: 0,
    };
}

/// The network. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Network(Arc<Inner>);

struct Inner {
    clock: Clock,
    rng: Rng,
    journal: Journal,
    state: Mutex<State>,
}

struct State {
    servers: BTreeMap<String, Server>,
    /// Who takes messages of raft groups.
    hosts: BTreeMap<String, (Name, Process, Host)>,
    /// Links that are cut, by direction.
    cut: BTreeSet<(Name, Name)>,
    /// Links on which the pieces of long answers wait.
    held: BTreeSet<(Name, Name)>,
    weather: Weather,
}

#[derive(Clone)]
struct Server {
    name: Name,
    process: Process,
    router: Router,
}

/// A request that got no answer, and no word whether it arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Broken(pub(crate) &'static str);

/// Ends a request's work on the server when its client goes away.
struct Working(AbortHandle);

impl Drop for Working {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What a server has said.
struct Answer {
    head: http::response::Parts,
    body: AnswerBody,
}

enum AnswerBody {
    Whole(Vec<Frame>),
    Stream(mpsc::UnboundedReceiver<Frame>),
}

impl Network {
    /// A network without processes.
    pub(crate) fn new(clock: Clock, rng: Rng, journal: Journal) -> Network {
        let state = State {
            servers: BTreeMap::new(),
            hosts: BTreeMap::new(),
            cut: BTreeSet::new(),
            held: BTreeSet::new(),
            weather: Weather::FINE,
        };
        Network(Arc::new(Inner { clock, rng, journal, state: Mutex::new(state) }))
    }

    /// Lets a process answer at an address.
    pub(crate) fn serve(&self, addr: String, name: Name, process: Process, router: Router) {
        self.0.state.lock().servers.insert(addr, Server { name, process, router });
    }

    /// Lets a process take messages of raft groups at an address.
    pub(crate) fn serve_raft(&self, addr: String, name: Name, process: Process, host: Host) {
        self.0.state.lock().hosts.insert(addr, (name, process, host));
    }

    /// Takes a process off the network.
    pub(crate) fn remove(&self, name: &Name) {
        let mut state = self.0.state.lock();
        state.servers.retain(|_, server| server.name != *name);
        state.hosts.retain(|_, (server, ..)| server != name);
    }

    pub(crate) fn set_weather(&self, weather: Weather) {
        self.0.state.lock().weather = weather;
    }

    /// Cuts the way from one to another, or mends it.
    pub(crate) fn set_cut(&self, from: &Name, to: &Name, cut: bool) {
        let link = (from.clone(), to.clone());
        let mut state = self.0.state.lock();
        match cut {
            true => state.cut.insert(link),
            false => state.cut.remove(&link),
        };
    }

    /// Lets the pieces of long answers wait on their way from one to another, or go on.
    pub(crate) fn set_held(&self, from: &Name, to: &Name, held: bool) {
        let link = (from.clone(), to.clone());
        let mut state = self.0.state.lock();
        match held {
            true => state.held.insert(link),
            false => state.held.remove(&link),
        };
    }

    /// Mends all links.
    pub(crate) fn mend(&self) {
        let mut state = self.0.state.lock();
        state.cut.clear();
        state.held.clear();
    }

    /// How a process connects to others.
    pub(crate) fn connector(&self, from: &Name) -> Connect {
        let (network, from) = (self.clone(), from.clone());
        Arc::new(move |addr| {
            let (network, from, addr) = (network.clone(), from.clone(), addr.to_owned());
            let call = move |request: http::Request<tonic::body::Body>| {
                let (network, from, addr) = (network.clone(), from.clone(), addr.clone());
                async move { Ok::<_, Infallible>(network.call_grpc(&from, &addr, request).await) }
            };
            Ok(Channel::local(tower::service_fn(call)))
        })
    }

    async fn call_grpc(
        &self,
        from: &Name,
        addr: &str,
        request: http::Request<tonic::body::Body>,
    ) -> http::Response<tonic::body::Body> {
        let (head, body) = request.into_parts();
        let collected = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let limit =
            head.headers.get("grpc-timeout").and_then(|limit| limit_of(limit.to_str().ok()?));
        let request = http::Request::from_parts(head, collected);
        let call = self.call(from, addr, request);
        let answer = match limit {
            Some(limit) => self.0.clock.timeout(limit, call).await,
            None => Some(call.await),
        };
        match answer {
            Some(Ok(answer)) => answer.map(tonic::body::Body::new),
            Some(Err(Broken(why))) => tonic::Status::unavailable(why).into_http(),
            None => tonic::Status::cancelled("Timeout expired").into_http(),
        }
    }

    /// Sends a request and waits for the answer.
    pub(crate) async fn call(
        &self,
        from: &Name,
        addr: &str,
        request: http::Request<Bytes>,
    ) -> Result<http::Response<Body>, Broken> {
        let path = request.uri().path().to_owned();
        let bytes = request.body().len();
        let Some(to) = self.0.state.lock().servers.get(addr).map(|server| server.name.clone())
        else {
            self.0.clock.sleep(Duration::from_millis(1)).await;
            return Err(Broken("connection refused"));
        };
        self.travel(from, &to).await?;
        let server = self.0.state.lock().servers.get(addr).cloned();
        let server = server.ok_or(Broken("connection reset"))?;
        self.0.journal.note_quietly(format_args!("{from} > {to} {path} {bytes}"));
        if self.chance(|weather| weather.doubled) {
            self.deliver_again(&server, &request);
        }
        let is_stream = path.ends_with("/Watch");
        let (work, answer) = self.start(&server, request, is_stream, (&to, from));
        let answer = self.wait(answer, (from, &to)).await?;
        self.travel(&to, from).await?;
        self.0.journal.note_quietly(format_args!("{from} < {to} {path} {}", answer.head.status));
        let body = match answer.body {
            AnswerBody::Whole(frames) => {
                let frames = frames.into_iter().map(Ok::<_, Infallible>);
                Body::new(StreamBody::new(futures::stream::iter(frames)))
            }
            AnswerBody::Stream(frames) => {
                let state = Some((frames, work));
                let frames = futures::stream::unfold(state, |state| async move {
                    let (mut frames, work) = state?;
                    Some(match frames.recv().await {
                        Some(frame) => (Ok(frame), Some((frames, work))),
                        None => (Err(Broken("the stream broke")), None),
                    })
                });
                Body::new(StreamBody::new(frames.boxed()))
            }
        };
        Ok(http::Response::from_parts(answer.head, body))
    }

    /// Sends a message of a raft group and waits for the answer: what gRPC does for all others, with
    /// less work, since two thirds of all messages are of this kind.
    pub(crate) async fn call_raft(
        &self,
        from: &Name,
        addr: &str,
        group: GroupId,
        message: Bytes,
    ) -> Result<Result<Bytes, clew_raft::Error>, Broken> {
        let bytes = message.len();
        let known = self.0.state.lock().hosts.get(addr).cloned();
        let Some((to, ..)) = known else {
            self.0.clock.sleep(Duration::from_millis(1)).await;
            return Err(Broken("connection refused"));
        };
        self.travel(from, &to).await?;
        let known = self.0.state.lock().hosts.get(addr).cloned();
        let (to, process, host) = known.ok_or(Broken("connection reset"))?;
        self.0.journal.note_quietly(format_args!("{from} > {to} {group} {bytes}"));
        if self.chance(|weather| weather.doubled) {
            let (host, clock) = (host.clone(), self.0.clock.clone());
            let (message, delay) = (message.clone(), self.delay());
            process.spawn(async move {
                clock.sleep(delay).await;
                drop(host.handle(group, message).await);
            });
        }
        let (done, answer) = oneshot::channel();
        let work = process.spawn(async move {
            // The caller may have gone.
            let _ = done.send(host.handle(group, message).await);
        });
        let _work = Working(work.abort_handle());
        let answer = self.wait(answer, (from, &to)).await?;
        self.travel(&to, from).await?;
        self.0.journal.note_quietly(format_args!("{from} < {to} {group}"));
        Ok(answer)
    }

    /// Waits for what a server says, until the link is cut.
    async fn wait<T>(
        &self,
        mut answer: oneshot::Receiver<T>,
        (from, to): (&Name, &Name),
    ) -> Result<T, Broken> {
        loop {
            match self.0.clock.timeout(KEEP_ALIVE, &mut answer).await {
                Some(Ok(answer)) => return Ok(answer),
                Some(Err(_)) => return Err(Broken("connection reset")),
                None if self.is_cut(from, to) || self.is_cut(to, from) => {
                    return Err(Broken("keep-alive timed out"));
                }
                None => {}
            }
        }
    }

    /// Starts the work on a request in the server's process.
    fn start(
        &self,
        server: &Server,
        request: http::Request<Bytes>,
        is_stream: bool,
        (to, from): (&Name, &Name),
    ) -> (Working, oneshot::Receiver<Answer>) {
        let (done, answer) = oneshot::channel();
        let router = server.router.clone();
        let (network, to, from) = (self.clone(), to.clone(), from.clone());
        let work = server.process.spawn(async move {
            let answered = match router.oneshot(request.map(Body::from)).await {
                Ok(answered) => answered,
                Err(never) => match never {},
            };
            let (head, mut body) = answered.into_parts();
            if !is_stream {
                let mut frames = Vec::new();
                while let Some(Ok(frame)) = body.frame().await {
                    frames.push(frame);
                }
                // The client may have gone.
                let _ = done.send(Answer { head, body: AnswerBody::Whole(frames) });
                return;
            }
            let (frames, stream) = mpsc::unbounded_channel();
            let _ = done.send(Answer { head, body: AnswerBody::Stream(stream) });
            network.stream(body, frames, &to, &from).await;
        });
        (Working(work.abort_handle()), answer)
    }

    /// Brings the pieces of an answer to the client, until the link is cut.
    async fn stream(
        &self,
        mut body: Body,
        frames: mpsc::UnboundedSender<Frame>,
        from: &Name,
        to: &Name,
    ) {
        loop {
            let next = self.0.clock.timeout(KEEP_ALIVE, body.frame()).await;
            if self.is_cut(from, to) || self.is_cut(to, from) {
                return;
            }
            let frame = match next {
                None => continue,
                Some(Some(Ok(frame))) => frame,
                Some(Some(Err(_)) | None) => return,
            };
            let link = (from.clone(), to.clone());
            while self.0.state.lock().held.contains(&link) {
                self.0.clock.sleep(KEEP_ALIVE / 10).await;
            }
            if self.travel(from, to).await.is_err() || frames.send(frame).is_err() {
                return;
            }
        }
    }

    /// Delivers a copy of a request later on; nobody hears of its answer.
    fn deliver_again(&self, server: &Server, request: &http::Request<Bytes>) {
        let mut again = http::Request::new(request.body().clone());
        *again.uri_mut() = request.uri().clone();
        *again.method_mut() = request.method().clone();
        *again.headers_mut() = request.headers().clone();
        let (router, clock, delay) = (server.router.clone(), self.0.clock.clone(), self.delay());
        server.process.spawn(async move {
            clock.sleep(delay).await;
            drop(router.oneshot(again.map(Body::from)).await);
        });
    }

    /// One message's way over a link.
    async fn travel(&self, from: &Name, to: &Name) -> Result<(), Broken> {
        let lost = self.chance(|weather| weather.lost);
        if lost || self.is_cut(from, to) {
            let after = KEEP_ALIVE.mul_f64(0.7 + f64::from(self.below(130)) / 100.0);
            self.0.clock.sleep(after).await;
            return Err(Broken("keep-alive timed out"));
        }
        self.0.clock.sleep(self.delay()).await;
        if self.is_cut(from, to) {
            self.0.clock.sleep(KEEP_ALIVE).await;
            return Err(Broken("keep-alive timed out"));
        }
        Ok(())
    }

    fn delay(&self) -> Duration {
        let weather = self.0.state.lock().weather;
        let more = u64::try_from((weather.delay_max - weather.delay_min).as_nanos()).unwrap_or(0);
        let mut delay = weather.delay_min + Duration::from_nanos(self.0.rng.below(more + 1));
        if self.0.rng.below(1_000) < weather.slow {
            let slow = u64::try_from(weather.slow_max.as_nanos()).unwrap_or(0);
            delay += Duration::from_nanos(self.0.rng.below(slow + 1));
        }
        delay
    }

    fn chance(&self, thousandths: impl Fn(&Weather) -> u64) -> bool {
        let wanted = thousandths(&self.0.state.lock().weather);
        wanted > 0 && self.0.rng.below(1_000) < wanted
    }

    fn below(&self, bound: u64) -> u32 {
        u32::try_from(self.0.rng.below(bound)).unwrap_or(0)
    }

    fn is_cut(&self, from: &Name, to: &Name) -> bool {
        let state = self.0.state.lock();
        !state.cut.is_empty() && state.cut.contains(&(from.clone(), to.clone()))
    }
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Broken {}

/// The time in a header `grpc-timeout`, as the gRPC protocol has it: a number and a unit.
fn limit_of(text: &str) -> Option<Duration> {
    let unit = text.chars().last()?;
    let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
    Some(match unit {
        'H' => Duration::from_secs(number.checked_mul(3_600)?),
        'M' => Duration::from_secs(number.checked_mul(60)?),
        'S' => Duration::from_secs(number),
        'm' => Duration::from_millis(number),
        'u' => Duration::from_micros(number),
        'n' => Duration::from_nanos(number),
        _ => return None,
    })
}
