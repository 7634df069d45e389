//! Calls to shard leaders: found through the router, asked again while a shard has no leader.

use std::sync::Arc;
use std::time::Duration;

use clew_catalog::ShardId;
use clew_model::ErrorKind;
use clew_node::rpc::{Channel, MESSAGE_BYTES_MAX};
use clew_node::{Clock, Problem};
use clew_proto::shard::v1::shard_service_client::ShardServiceClient;
use clew_proto::shard::v1::shard_service_server::ShardService;
use clew_proto::shard::v1::{self as shard};
use futures::future::{BoxFuture, Either, select};
use tonic::{Request, Response, Status};

use super::spread::Peer;

/// Between two attempts to reach a shard's leader.
const RETRY_DELAY: Duration = Duration::from_millis(100);

/// What a leader may take to answer a call that is quick when all is well, beyond the wait.
const ANSWER_MARGIN: Duration = Duration::from_secs(1);

/// What one attempt of such a call may take before the leader is looked for again: it may be cut off.
const ATTEMPT_MAX: Duration = Duration::from_millis(1500);

/// How a shard's leader is reached.
#[derive(Clone)]
pub enum Leader {
    /// It is in this process: messages are handed over as they are. Large answers are not encoded
    /// only to be decoded again.
    Here(Arc<dyn ShardService>),
    /// It is on another node.
    There(Channel),
}

/// Knows who leads a shard.
pub trait Router: Send + Sync + 'static {
    /// The node that is believed to lead `shard`; asked again after every failure, so that a router
    /// that learns of a new leader is heard.
    fn leader(&self, shard: ShardId) -> Option<Leader>;

    /// Completes when another node leads `shard` than at the time of the call; never if the router
    /// is not told.
    fn moved(&self, _shard: ShardId) -> BoxFuture<'static, ()> {
        Box::pin(std::future::pending())
    }

    /// The queriers among which blocks are divided, this one included; none if this one reads all.
    fn queriers(&self) -> Arc<[Peer]> {
        Arc::new([])
    }
}

/// The shard leaders.
#[derive(Clone)]
pub(super) struct Shards {
    router: Arc<dyn Router>,
    clock: Clock,
    wait: Duration,
}

/// A client of one shard's leader.
pub(super) struct Client(Leader);

macro_rules! calls {
    ($($name:ident($request:ident) -> $response:ident;)*) => {
        impl Client {$(
            pub(super) async fn $name(
                self,
                request: shard::$request,
            ) -> Result<Response<shard::$response>, Status> {
                match self.0 {
                    Leader::Here(service) => service.$name(Request::new(request)).await,
                    Leader::There(channel) => {
                        ShardServiceClient::new(channel)
                            .max_decoding_message_size(MESSAGE_BYTES_MAX)
                            .max_encoding_message_size(MESSAGE_BYTES_MAX)
                            .$name(request)
                            .await
                    }
                }
            }
        )*}
    };
}
calls! {
    cut(CutRequest) -> CutResponse;
    search(ShardSearchRequest) -> ShardSearchResponse;
    fetch(ShardFetchRequest) -> ShardFetchResponse;
    tag_names(ShardTagNamesRequest) -> ShardTagNamesResponse;
    tag_values(ShardTagValuesRequest) -> ShardTagValuesResponse;
    flush(FlushRequest) -> FlushResponse;
}

impl Shards {
    pub(super) fn new(router: Arc<dyn Router>, clock: Clock, wait: Duration) -> Shards {
        Shards { router, clock, wait }
    }

    /// Calls the leader of `shard`; while there is none, or it turns out not to lead, again and
    /// again until the wait is over.
    pub(super) async fn call<T, F>(
        &self,
        shard: ShardId,
        call: impl Fn(Client) -> F,
    ) -> Result<T, Problem>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        self.attempt(shard, None, call).await
    }

    async fn attempt<T, F>(
        &self,
        shard: ShardId,
        attempt_max: Option<Duration>,
        call: impl Fn(Client) -> F,
    ) -> Result<T, Problem>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let deadline = self.clock.monotonic().saturating_add(self.wait);
        loop {
            // Asked for first, so that no change is missed between the two.
            let moved = self.router.moved(shard);
            let problem = match self.router.leader(shard) {
                None => Problem::new(ErrorKind::Unavailable, "no_leader", "no leader is known"),
                Some(leader) => {
                    let client = Client(leader);
                    // A leader that was cut off or stopped never answers; its successor will.
                    let first = select(Box::pin(call(client)), moved);
                    let answer = match attempt_max {
                        Some(limit) => self.clock.timeout(limit, first).await,
                        None => Some(first.await),
                    };
                    match answer {
                        Some(Either::Left((Ok(answer), _))) => return Ok(answer.into_inner()),
                        Some(Either::Left((Err(status), _))) => Problem::from(status),
                        Some(Either::Right(_)) => continue,
                        None => silent(),
                    }
                }
            };
            let over = self.clock.monotonic().saturating_add(RETRY_DELAY) >= deadline;
            if !problem.kind.is_retryable() || over {
                return Err(problem);
            }
            self.clock.sleep(RETRY_DELAY).await;
        }
    }

    /// The same for calls that are quick when all is well: the attempts together take no longer
    /// than the wait, so that a leader that hangs does not hold up the query.
    pub(super) async fn call_soon<T, F>(
        &self,
        shard: ShardId,
        call: impl Fn(Client) -> F,
    ) -> Result<T, Problem>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        // A little longer, so that an honest refusal is told rather than the time that it took.
        let wait = self.wait.saturating_add(ANSWER_MARGIN);
        let answer = self.attempt(shard, Some(ATTEMPT_MAX), call);
        self.clock.timeout(wait, answer).await.unwrap_or_else(|| Err(silent()))
    }
}

fn silent() -> Problem {
    let message = "the leader does not answer in time";
    Problem::new(ErrorKind::Unavailable, "shard_silent", message)
}
