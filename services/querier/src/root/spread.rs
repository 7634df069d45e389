//! Which querier reads a block: the one that most likely has it in its cache. Every root finds the
//! same one by rendezvous hashing (Thaler and Ravishankar, 1998), so that the caches of all queriers
//! together hold each block about once, and a querier that comes or goes moves only its share.
//!
//! Invariants:
//! - The answer is the same whoever reads. A querier that fails, or that takes long, is stood in for
//!   by this one; the first answer counts.
//! - Only a small share of the calls is made twice, however slow the others are
//!   (Dean and Barroso, "The Tail at Scale", 2013): a cluster that is slow because it is busy must not
//!   be given more work.
//! - A querier that failed or was overtaken is left out for a while, and longer each time: one that
//!   hangs costs a few queries the wait, not all of them.

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::Duration;

use clew_catalog::{NodeId, ObjectKey};
use clew_model::ErrorKind;
use clew_node::rpc::{Channel, MESSAGE_BYTES_MAX};
use clew_node::{Clock, Problem};
use clew_ring::hash::hash;
use clew_storage::Budget;
use futures::future::{Either, join_all, select};
use parking_lot::Mutex;
use tonic::{Code, Status};

use super::Root;
use super::block_work::{BlockWork, Client};
use super::blocks::{BlockAnswer, Failure};
use super::missing::Missing;
use super::snapshot::{BlockRef, Snapshot};

/// How long a querier is left out after its first failure in a row; twice as long after each more.
const AWAY_FIRST: Duration = Duration::from_secs(1);

/// The longest time that a querier is left out.
const AWAY_MAX: Duration = Duration::from_secs(600);

/// Second calls that may be made at once after a quiet time.
const HEDGES_SAVED_MAX: u32 = 10;

/// A querier of the cluster.
#[derive(Debug, Clone)]
pub struct Peer {
    /// The node it runs on.
    pub node: NodeId,
    /// How it is reached; nothing for the one in this process.
    pub channel: Option<Channel>,
}

/// What is remembered of the other queriers.
pub(super) struct Spread {
    clock: Clock,
    hedge_after: Duration,
    hedges: Budget,
    away: Mutex<BTreeMap<NodeId, Away>>,
}

/// A querier that is left out.
struct Away {
    until: Duration,
    failures: u32,
}

impl Spread {
    pub(super) fn new(clock: Clock, hedge_after: Duration) -> Spread {
        let hedges = Budget::of(HEDGES_SAVED_MAX);
        Spread { clock, hedge_after, hedges, away: Mutex::default() }
    }

    /// The blocks by who shall read them, each list in the order of `blocks`; nothing if there is nobody
    /// else.
    fn divide(
        &self,
        peers: &[Peer],
        blocks: &[BlockRef],
    ) -> Option<Vec<(Option<Peer>, Vec<BlockRef>)>> {
        let peers = self.present(peers);
        if peers.iter().all(|(_, peer)| peer.channel.is_none()) {
            return None;
        }
        let mut lists: Vec<Vec<BlockRef>> = vec![Vec::new(); peers.len()];
        for block in blocks {
            // Drawn afresh for every object, so it tells them apart as well as the whole key does.
            let random = match block.object {
                ObjectKey::Flush(key) => key.random,
                ObjectKey::Compacted(key) => key.random,
            };
            let key = hash(block.block.offset, &random.to_le_bytes());
            let owner = (0..peers.len()).max_by_key(|at| hash(key, &peers[*at].0.to_le_bytes()));
            if let Some(list) = owner.and_then(|owner| lists.get_mut(owner)) {
                list.push(block.clone());
            }
        }
        let groups = peers.into_iter().map(|(_, peer)| peer.channel.is_some().then_some(peer));
        Some(groups.zip(lists).filter(|(_, list)| !list.is_empty()).collect())
    }

    /// The queriers that are not left out now, with the hashes of their names.
    fn present(&self, peers: &[Peer]) -> Vec<(u64, Peer)> {
        let now = self.clock.monotonic();
        let away = self.away.lock();
        let is_away = |node: &NodeId| away.get(node).is_some_and(|away| away.until > now);
        let is_here = |peer: &&Peer| peer.channel.is_none() || !is_away(&peer.node);
        let named = |peer: &Peer| (hash(0, peer.node.as_str().as_bytes()), peer.clone());
        peers.iter().filter(is_here).map(named).collect()
    }

    fn note_success(&self, node: &NodeId) {
        self.away.lock().remove(node);
    }

    /// Leaves the querier out for a while. What fails while it is left out was asked before: many calls
    /// that hang at once are one failure.
    fn note_failure(&self, node: &NodeId) {
        let now = self.clock.monotonic();
        let mut away = self.away.lock();
        let away = away.entry(node.clone()).or_insert(Away { until: now, failures: 0 });
        if away.until > now {
            return;
        }
        let pause = AWAY_FIRST.saturating_mul(1 << away.failures.min(10)).min(AWAY_MAX);
        *away =
            Away { until: now.saturating_add(pause), failures: away.failures.saturating_add(1) };
    }

    /// Whether blocks that were asked of the querier may be read here as well: if it is left out by
    /// now, that is no second call but one instead.
    fn may_hedge(&self, node: &NodeId) -> bool {
        let now = self.clock.monotonic();
        let is_away = self.away.lock().get(node).is_some_and(|away| away.until > now);
        is_away || self.hedges.spend()
    }
}

impl Root {
    /// Has the blocks read, each by its querier. Those that could not be read are noted in `missing`
    /// and, if they are damaged, reported.
    pub(super) async fn on_blocks<W: BlockWork>(
        &self,
        snapshot: &Snapshot,
        blocks: &[BlockRef],
        work: &W,
        missing: &mut Missing,
    ) -> Result<Vec<W::Answer>, Problem> {
        self.metrics.blocks.inc_by(blocks.len() as u64);
        let Some(groups) = self.spread.divide(&self.router.queriers(), blocks) else {
            let BlockAnswer { value, failed } = work.here(&self.blocks, blocks).await?;
            self.note_failures(snapshot, blocks, failed, missing);
            self.note_cached();
            return Ok(vec![value]);
        };
        let asked = groups.into_iter().map(|(peer, list)| async move {
            let answer = match &peer {
                None => work.here(&self.blocks, &list).await,
                Some(peer) => self.on_peer(peer, &list, work).await,
            };
            (list, answer)
        });
        let mut answers = Vec::new();
        for (list, answer) in join_all(asked).await {
            let BlockAnswer { value, failed } = answer?;
            self.note_failures(snapshot, &list, failed, missing);
            answers.push(value);
        }
        self.note_cached();
        Ok(answers)
    }

    fn note_cached(&self) {
        let bytes = self.blocks.cached_bytes();
        self.metrics.cache_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Asks a querier, and stands in for it if it fails or takes long.
    async fn on_peer<W: BlockWork>(
        &self,
        peer: &Peer,
        blocks: &[BlockRef],
        work: &W,
    ) -> Result<BlockAnswer<W::Answer>, Problem> {
        self.spread.hedges.earn();
        let calls = &self.metrics.block_calls;
        let mut asked = pin!(self.ask(peer, blocks, work));
        let answer = loop {
            let patience = pin!(self.clock.sleep(self.spread.hedge_after));
            match select(asked.as_mut(), patience).await {
                Either::Left((answer, _)) => break answer,
                Either::Right(_) if self.spread.may_hedge(&peer.node) => {}
                Either::Right(_) => continue,
            }
            let here = pin!(work.here(&self.blocks, blocks));
            match select(asked, here).await {
                Either::Left((Ok(Some(answer)), _)) => break Ok(Some(answer)),
                Either::Left((_, here)) => {
                    calls.with_label_values(&["failed"]).inc();
                    return here.await;
                }
                Either::Right((answer, _)) => {
                    calls.with_label_values(&["overtaken"]).inc();
                    self.spread.note_failure(&peer.node);
                    return answer;
                }
            }
        };
        match answer? {
            Some(answer) => {
                calls.with_label_values(&["answered"]).inc();
                Ok(answer)
            }
            None => {
                calls.with_label_values(&["failed"]).inc();
                work.here(&self.blocks, blocks).await
            }
        }
    }

    /// What the querier answers; nothing if it cannot be asked.
    ///
    /// # Errors
    /// [`Problem`] if the request is at fault: it would be elsewhere, too.
    async fn ask<W: BlockWork>(
        &self,
        peer: &Peer,
        blocks: &[BlockRef],
        work: &W,
    ) -> Result<Option<BlockAnswer<W::Answer>>, Problem> {
        let Some(channel) = peer.channel.clone() else { return Ok(None) };
        let client = Client::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        match work.there(client, blocks).await {
            Ok(answer) => {
                self.spread.note_success(&peer.node);
                Ok(Some(answer))
            }
            Err(status) if is_our_fault(&status) => Err(status.into()),
            Err(status) => {
                self.spread.note_failure(&peer.node);
                let (node, problem) = (&peer.node, Problem::from(status));
                tracing::warn!(%node, %problem, "a querier did not read its blocks");
                Ok(None)
            }
        }
    }

    /// Notes in `missing` which of `blocks` could not be read, and reports damaged ones.
    fn note_failures(
        &self,
        snapshot: &Snapshot,
        blocks: &[BlockRef],
        failed: Vec<Failure>,
        missing: &mut Missing,
    ) {
        for Failure { block, kind, why } in failed {
            let block = blocks.get(block);
            let place = block.map_or_else(|| "a block".to_owned(), BlockRef::place);
            match block {
                Some(block) if kind == ErrorKind::Corrupt => {
                    self.reports.damaged(block.object, &snapshot.tenant, &why);
                }
                _ => tracing::warn!(block = place, error = why, "a block could not be read"),
            }
            missing.add("block", place, why);
        }
    }
}

/// Whether the request would fail anywhere. A querier of an older release does not know the call.
fn is_our_fault(status: &Status) -> bool {
    status.code() != Code::Unimplemented && Problem::from(status.clone()).kind == ErrorKind::Invalid
}
