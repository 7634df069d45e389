//! The work of the member that leads: it watches over where shards are and proposes what
//! [`plan_places`] finds to do. What it decides is in the catalog before anything moves, so the next
//! leader goes on from there.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use clew_catalog::{Command, NodeId, Roles, Topology, plan_places};
use clew_node::Stop;

use crate::MetastoreError;
use crate::service::Metastore;

/// How often silent nodes are looked for.
const TICK: Duration = Duration::from_secs(1);

/// How long a new cluster waits for its first ingesters before it places shards on fewer.
const FIRST_WAIT: Duration = Duration::from_secs(15);

/// Ingesters that a new cluster waits for.
const FIRST_NODES: usize = 3;

/// A topology, by its revision, and the nodes that were alive.
type Settled = (u64, BTreeSet<NodeId>);

impl Metastore {
    /// Looks after the cluster whenever this member leads, until `stop`.
    pub async fn run(&self, stop: Stop) {
        let mut leadership = self.0.group.leadership();
        loop {
            match stop.or(leadership.wait_for(|now| now.is_leader)).await {
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return,
            }
            self.0.beats.clear();
            self.0.note_began();
            let mut lost = self.0.group.leadership();
            tokio::select! {
                biased;
                () = stop.stopped() => return,
                _ = lost.wait_for(|now| !now.is_leader) => {}
                () = self.control() => {}
                () = self.back_up_forever() => {}
            }
        }
    }

    async fn control(&self) {
        let inner = &self.0;
        let mut committed = inner.group.committed();
        let revision = || inner.group.with_state(|machine| machine.state.topology_revision());
        let mut settled = None;
        loop {
            let planned = revision();
            if let Err(error) = self.control_once(&mut settled).await {
                tracing::debug!(%error, "the controller could not do its work now");
            }
            // Most of what is committed are flushes, which move nothing.
            let moved =
                async { while committed.changed().await.is_ok() && revision() == planned {} };
            tokio::select! {
                () = moved => {}
                () = inner.beats.news.notified() => {}
                () = inner.deps.clock.sleep(TICK) => {}
            }
        }
    }

    /// One round. `settled` is what it went by when there was nothing left to do.
    async fn control_once(&self, settled: &mut Option<Settled>) -> Result<(), MetastoreError> {
        let inner = &self.0;
        let topology = inner.group.with_state(|machine| machine.state.topology());
        if let Err(error) = self.raise_level(&topology).await {
            tracing::debug!(%error, "the feature level cannot be raised now");
        }
        let (time, began) = (inner.deps.clock.monotonic(), inner.began());
        let alive = inner.beats.alive(&topology, time, began, inner.dead_after);
        if topology.shards.is_empty() && self.waits_for_nodes(&topology, time, began) {
            return Ok(());
        }
        let now = (topology.revision, alive.clone());
        if settled.as_ref() == Some(&now) {
            return Ok(());
        }
        // A leader that was passed over must not act on what it believes.
        inner.group.read_index().await?;
        let commands = plan_places(&topology, &alive);
        *settled = commands.is_empty().then_some(now);
        for command in commands {
            log_plan(&topology, &alive, &command);
            let encoded = Bytes::from(command.encode(inner.deps.clock.now_unix()));
            let (_, outcome) = inner.apply(encoded, true).await?;
            tracing::debug!(?outcome, "a plan was applied");
        }
        Ok(())
    }

    /// Whether a new cluster should see more of its ingesters before shards are placed: placed on
    /// the first alone they would all have to move.
    fn waits_for_nodes(&self, topology: &Topology, now: Duration, began: Duration) -> bool {
        let ingesters = topology.nodes.iter().filter(|node| node.roles.contains(Roles::INGESTER));
        let expected = self.0.members.len().min(FIRST_NODES);
        let there = ingesters.filter(|node| node.replica.is_some()).count();
        there < expected && now.saturating_sub(began) < FIRST_WAIT
    }
}

fn log_plan(topology: &Topology, alive: &BTreeSet<NodeId>, command: &Command) {
    let names = |replicas: &[clew_catalog::ReplicaId]| {
        let name = |replica: &clew_catalog::ReplicaId| match topology.node_of(*replica) {
            Some(info) => format!("{}({replica})", info.node),
            None => replica.to_string(),
        };
        replicas.iter().map(name).collect::<Vec<_>>().join(",")
    };
    match command {
        Command::PlaceShard(place) => tracing::info!(
            shard = place.shard.0,
            from = names(&place.from),
            to = names(&place.to),
            alive = alive.len(),
            "a shard is placed anew"
        ),
        Command::OpenShardLog(open) => {
            tracing::info!(shard = open.shard.0, on = names(&open.replicas), "a shard is opened");
        }
        _ => {}
    }
}
