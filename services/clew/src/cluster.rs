//! The operator's view of a cluster: what `clew cluster` and `/status/cluster` show and change.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use clew_catalog::{
    AddGeneration, ForgetNode, ForgetOutcome, GenerationOutcome, NodeId, NodeState, OpenOutcome,
    OpenShardLog, Outcome, ReplicaId, Request, RequestId, Roles, SetNodeState, ShardId, ShardPlace,
    SharedTopology, Topology,
};
use clew_model::{ErrorKind, UnixNanos};
use clew_node::rpc::{Channel, MESSAGE_BYTES_MAX};
use clew_node::tls::MutualConfig;
use clew_node::{Clock, Problem, Rng};
use clew_proto::metastore::v1::cluster_service_client::ClusterServiceClient;
use clew_proto::metastore::v1::metastore_service_client::MetastoreServiceClient;
use clew_proto::metastore::v1::{
    ApplyRequest, ReplicaReport, StatusRequest, StatusResponse, WatchRequest,
};
use serde_json::{Value, json};

use crate::cli::{Cluster, ClusterCommand};
use crate::member::Reached;

/// Replicas of a shard.
const REPLICAS: usize = 3;

/// Between two looks at a node that is drained.
const LOOK_DELAY: Duration = Duration::from_millis(500);

/// The account of the metastore's leader.
pub(crate) async fn ask(metastore: Channel) -> Result<StatusResponse, Problem> {
    let mut client =
        ClusterServiceClient::new(metastore).max_decoding_message_size(MESSAGE_BYTES_MAX);
    Ok(client.status(StatusRequest {}).await?.into_inner())
}

/// Does what `clew cluster` was told, and gives what to print.
pub(crate) async fn run(cluster: Cluster) -> Result<String, String> {
    let Reached { addr, channel } = cluster.member.reach(MutualConfig::default())?;
    let done = match cluster.command {
        ClusterCommand::Status { json } => status(&channel, json).await,
        ClusterCommand::Drain { node, no_wait } => drain(&channel, &node, !no_wait).await,
        ClusterCommand::Undrain { node } => {
            set_state(&channel, &node, NodeState::Active).await.map(|()| String::new())
        }
        ClusterCommand::Forget { node } => forget(&channel, &node).await,
        ClusterCommand::Scale { targets } => crate::scale::run(&channel, &targets).await,
        ClusterCommand::Recover { shard, force } => recover(&channel, ShardId(shard), force).await,
        ClusterCommand::Shards { count } => grow(&channel, count).await,
    };
    done.map_err(|problem| format!("{addr}: {problem}"))
}

async fn status(channel: &Channel, as_json: bool) -> Result<String, Problem> {
    let (topology, account) = (look(channel).await?, ask(channel.clone()).await?);
    Ok(match as_json {
        true => format!("{:#}\n", json(&topology, &account)),
        false => text(&topology, &account),
    })
}

pub(crate) async fn look(channel: &Channel) -> Result<SharedTopology, Problem> {
    let mut client =
        ClusterServiceClient::new(channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let mut news = client.watch(WatchRequest::default()).await?.into_inner();
    let unreadable = |what: String| Problem::new(ErrorKind::Internal, "topology", what);
    let first = news.message().await?.ok_or_else(|| unreadable("it says nothing".to_owned()))?;
    let topology = Topology::decode(&first.topology);
    Ok(Arc::new(topology.map_err(|error| unreadable(error.to_string()))?))
}

/// Proposes one command from the command line.
pub(crate) async fn apply<R: Request>(channel: &Channel, request: R) -> Result<R::Answer, Problem> {
    apply_at(channel, request, Clock::system().now_unix()).await
}

/// Proposes one command with the time of whoever does.
pub(crate) async fn apply_at<R: Request>(
    channel: &Channel,
    request: R,
    now: UnixNanos,
) -> Result<R::Answer, Problem> {
    let command = request.into_command().encode(now).into();
    let mut client = MetastoreServiceClient::new(channel.clone());
    let answer = client.apply(ApplyRequest { command }).await?.into_inner();
    let outcome = Outcome::decode(&answer.outcome)
        .map_err(|error| Problem::new(ErrorKind::Internal, "outcome", error.to_string()))?;
    R::answer(outcome)
        .map_err(|refusal| Problem::new(refusal.kind(), "refused", refusal.to_string()))
}

pub(crate) async fn set_state(
    channel: &Channel,
    node: &str,
    state: NodeState,
) -> Result<(), Problem> {
    apply(channel, SetNodeState { node: node_id(node)?, state }).await
}

fn node_id(name: &str) -> Result<NodeId, Problem> {
    NodeId::parse(name).map_err(|error| Problem::new(ErrorKind::Invalid, "node", error.to_string()))
}

pub(crate) async fn drain(channel: &Channel, node: &str, waits: bool) -> Result<String, Problem> {
    let topology = look(channel).await?;
    let ingesters = ingesters_without(node, &topology);
    if ingesters == Some(0) {
        let message = format!("no other node can take what {node} holds: start an ingester first");
        return Err(Problem::new(ErrorKind::Conflict, "nowhere_to_go", message));
    }
    set_state(channel, node, NodeState::Draining).await?;
    if !waits {
        return Ok(String::new());
    }
    let clock = Clock::system();
    loop {
        let topology = look(channel).await?;
        let left = topology.shards.values().filter(|place| is_on(&topology, place, node)).count();
        if left == 0 {
            let few = ingesters.filter(|left| *left < REPLICAS).map_or(String::new(), |left| {
                format!("{left} ingesters are left, and shards want {REPLICAS} replicas: add one\n")
            });
            return Ok(format!("{node} holds no replica any more and can be taken away\n{few}"));
        }
        clock.sleep(LOOK_DELAY).await;
    }
}

/// The ingesters that stay when a node goes, if it is one.
fn ingesters_without(node: &str, topology: &Topology) -> Option<usize> {
    let ingesters = topology.nodes.iter().filter(|info| info.roles.contains(Roles::INGESTER));
    let (own, others): (Vec<_>, Vec<_>) = ingesters.partition(|info| info.node.as_str() == node);
    let stay = others.iter().filter(|info| info.state == NodeState::Active).count();
    (!own.is_empty()).then_some(stay)
}

/// Takes out a node that nobody hears of and nothing is on.
async fn forget(channel: &Channel, name: &str) -> Result<String, Problem> {
    let node = node_id(name)?;
    let (topology, account) = (look(channel).await?, ask(channel.clone()).await?);
    let refuse = |why: String| Err(Problem::new(ErrorKind::Conflict, "node_is_used", why));
    if account.nodes.iter().any(|status| status.node == name && status.alive) {
        return refuse(format!("{name} is alive: it would be back with its next start"));
    }
    let addr = topology.node(&node).map(|info| info.addr.clone());
    if addr.is_some_and(|addr| account.voters.contains(&addr)) {
        return refuse(format!("{name} is a member of the metastore"));
    }
    match apply(channel, ForgetNode { node }).await? {
        ForgetOutcome::Forgotten => Ok(format!("{name} is forgotten\n")),
        ForgetOutcome::HoldsReplicas => {
            refuse(format!("{name} holds replicas: drain it, or wait until they were moved"))
        }
    }
}

/// Whether a replica of the shard is on the node, or shall be.
fn is_on(topology: &Topology, place: &ShardPlace, node: &str) -> bool {
    let voters = place.lead.iter().flat_map(|lead| lead.voters.iter().chain(&lead.learners));
    place
        .placed
        .iter()
        .chain(voters)
        .any(|replica| topology.node_of(*replica).is_some_and(|info| info.node.as_str() == node))
}

/// Opens a shard's log anew on nodes that live. What was acknowledged and not flushed is given up.
async fn recover(channel: &Channel, shard: ShardId, force: bool) -> Result<String, Problem> {
    let (topology, account) = (look(channel).await?, ask(channel.clone()).await?);
    let Some(place) = topology.shards.get(&shard) else {
        let message = format!("there is no shard {shard}");
        return Err(Problem::new(ErrorKind::NotFound, "shard", message));
    };
    let copies = copies(&topology, &account, place);
    if let Some(leader) = copies.iter().find(|copy| copy.report.is_some_and(|r| r.leads))
        && !force
    {
        let message = format!("{} says that it leads shard {shard}", leader.node);
        return Err(Problem::new(ErrorKind::Conflict, "shard_is_led", message));
    }
    let is_alive = |name: &str| account.nodes.iter().any(|n| n.node == name && n.alive);
    let able = topology.nodes.iter().filter(|info| {
        info.roles.contains(Roles::INGESTER)
            && info.state == NodeState::Active
            && is_alive(info.node.as_str())
    });
    let mut replicas: Vec<ReplicaId> = able.filter_map(|info| info.replica).collect();
    // Those that were to have it first, so that little moves afterwards.
    replicas.sort_by_key(|replica| !place.placed.contains(replica));
    replicas.truncate(REPLICAS);
    let rng = Rng::from_os();
    let mut request = [0; 16];
    request[..8].copy_from_slice(&rng.next_u64().to_be_bytes());
    request[8..].copy_from_slice(&rng.next_u64().to_be_bytes());
    let open = OpenShardLog {
        shard,
        replicas,
        replaces: Some(place.incarnation),
        request: RequestId(request),
    };
    match apply(channel, open).await? {
        OpenOutcome::Opened { incarnation } | OpenOutcome::AlreadyOpened { incarnation } => {
            Ok(format!(
                "shard {shard} begins again as incarnation {incarnation}; what incarnation {} had \
                 not flushed behind {} is lost\n",
                place.incarnation,
                watermark(&account, place)
            ))
        }
        OpenOutcome::Conflict { .. } | OpenOutcome::UnknownShard => {
            let message = "somebody else has changed the shard meanwhile";
            Err(Problem::new(ErrorKind::Conflict, "shard", message))
        }
    }
}

async fn grow(channel: &Channel, shard_count: u32) -> Result<String, Problem> {
    let topology = look(channel).await?;
    let after = topology.generations.last().map_or(0, |newest| newest.map.generation());
    match apply(channel, AddGeneration { after, shard_count }).await? {
        GenerationOutcome::Added { generation }
        | GenerationOutcome::AlreadyAdded { generation } => {
            Ok(format!("map generation {generation} has {shard_count} shards\n"))
        }
        GenerationOutcome::Conflict { newest } => {
            let message = format!("somebody else made generation {newest} meanwhile");
            Err(Problem::new(ErrorKind::Conflict, "generation", message))
        }
    }
}

/// One replica of a shard with where it is and how it stands.
pub(crate) struct Copy<'a> {
    replica: ReplicaId,
    node: String,
    pub(crate) role: &'static str,
    pub(crate) report: Option<&'a ReplicaReport>,
}

pub(crate) fn copies<'a>(
    topology: &Topology,
    account: &'a StatusResponse,
    place: &ShardPlace,
) -> Vec<Copy<'a>> {
    let lead = place.lead.as_ref();
    let mut replicas: Vec<ReplicaId> = place.placed.clone();
    for member in lead.iter().flat_map(|lead| lead.voters.iter().chain(&lead.learners)) {
        if !replicas.contains(member) {
            replicas.push(*member);
        }
    }
    let copy = |replica: ReplicaId| {
        let node = topology.node_of(replica);
        let node = node.map_or_else(|| "unknown".to_owned(), |info| info.node.to_string());
        let role = match lead {
            Some(lead) if lead.leader == replica => "leader",
            Some(lead) if lead.voters.contains(&replica) && place.placed.contains(&replica) => {
                "voter"
            }
            Some(lead) if lead.voters.contains(&replica) => "leaving",
            _ => "joining",
        };
        let reports = account.nodes.iter().filter(|status| status.alive);
        let report = reports.flat_map(|status| &status.replicas).find(|report| {
            report.shard == place.shard.0
                && report.incarnation == place.incarnation.0
                && report.replica == replica.0
        });
        Copy { replica, node, role, report }
    };
    replicas.into_iter().map(copy).collect()
}

/// The entries that the furthest behind of the copies lacks.
fn lag(copies: &[Copy<'_>]) -> Option<u64> {
    let known = || copies.iter().filter_map(|copy| copy.report);
    let last = known().map(|report| report.last_index).max()?;
    Some(last.saturating_sub(known().map(|report| report.last_index).min()?))
}

/// Whether every shard has a leader and all its replicas are members that were heard of lately.
fn is_healthy(place: &ShardPlace, copies: &[Copy<'_>]) -> bool {
    let led = copies.iter().any(|copy| copy.report.is_some_and(|report| report.leads));
    led && place.is_settled() && copies.iter().all(|copy| copy.report.is_some())
}

/// The cluster for programs.
pub(crate) fn json(topology: &Topology, account: &StatusResponse) -> Value {
    let nodes = topology.nodes.iter().map(|info| {
        let status = account.nodes.iter().find(|status| status.node == info.node.as_str());
        json!({
            "node": info.node.as_str(),
            "addr": info.addr,
            "zone": info.zone,
            "capacity": info.capacity,
            "state": state_name(info.state),
            "alive": status.is_some_and(|status| status.alive),
            "leaving": status.is_some_and(|status| status.leaving),
            "silent_ms": status.and_then(|status| status.silent_millis),
            "replica": info.replica.map(|replica| replica.0),
            "feature_levels": status.and_then(|status| status.features).map(|features| json!({
                "oldest": features.oldest,
                "newest": features.newest,
            })),
        })
    });
    let shards = topology.shards.values().map(|place| {
        let copies = copies(topology, account, place);
        let replicas = copies.iter().map(|copy| {
            json!({
                "replica": copy.replica.0,
                "node": copy.node,
                "role": copy.role,
                "last_index": copy.report.map(|report| report.last_index),
                "applied_index": copy.report.map(|report| report.applied_index),
            })
        });
        json!({
            "shard": place.shard.0,
            "incarnation": place.incarnation.0,
            "term": place.lead.as_ref().map(|lead| lead.term),
            "watermark": watermark(account, place),
            "healthy": is_healthy(place, &copies),
            "settled": place.is_settled(),
            "lag": lag(&copies),
            "replicas": replicas.collect::<Vec<_>>(),
        })
    });
    json!({
        "cluster": topology.cluster.map(|cluster| cluster.to_string()),
        "revision": account.revision,
        "metastore": {
            "leader": account.leader,
            "term": account.term,
            "voters": account.voters,
        },
        "feature_level": {
            "level": account.feature_level,
            "next": account.feature_level_next,
            "held_by": account.held_by,
        },
        "generations": topology.generations.iter().map(|generation| json!({
            "generation": generation.map.generation(),
            "shards": generation.map.shards().len(),
        })).collect::<Vec<_>>(),
        "nodes": nodes.collect::<Vec<_>>(),
        "shards": shards.collect::<Vec<_>>(),
    })
}

fn watermark(account: &StatusResponse, place: &ShardPlace) -> u64 {
    let known = account.shards.iter().find(|status| status.shard == place.shard.0);
    known.map_or(0, |status| status.watermark)
}

fn state_name(state: NodeState) -> &'static str {
    match state {
        NodeState::Active => "active",
        NodeState::Draining => "draining",
    }
}

/// The cluster for people.
pub(crate) fn text(topology: &Topology, account: &StatusResponse) -> String {
    let mut out = String::new();
    // Writing into a string does not fail.
    let _ = writeln!(
        out,
        "metastore  leader {} (term {}), revision {}, members {}",
        account.leader,
        account.term,
        account.revision,
        account.voters.join(" ")
    );
    let _ = writeln!(out, "features   {}\n", feature_line(account));
    let _ = writeln!(out, "{:<20} {:<22} {:<10} {:<9} health", "node", "address", "zone", "state");
    for info in &topology.nodes {
        let status = account.nodes.iter().find(|status| status.node == info.node.as_str());
        let health = match status {
            Some(status) if status.leaving => "leaving".to_owned(),
            Some(status) if status.alive => "alive".to_owned(),
            Some(status) => match status.silent_millis {
                Some(silent) => format!("silent for {} s", silent / 1000),
                None => "not heard of".to_owned(),
            },
            None => "not heard of".to_owned(),
        };
        let (zone, state) = (&info.zone, state_name(info.state));
        let (node, addr) = (info.node.as_str(), &info.addr);
        let _ = writeln!(out, "{node:<20} {addr:<22} {zone:<10} {state:<9} {health}");
    }
    let _ = writeln!(
        out,
        "\n{:<6} {:<10} {:<10} {:<7} replicas",
        "shard", "health", "watermark", "lag"
    );
    for place in topology.shards.values() {
        let copies = copies(topology, account, place);
        let health = match (is_healthy(place, &copies), place.is_settled()) {
            (true, _) => "ok",
            (false, false) => "moving",
            (false, true) => "degraded",
        };
        let lag = lag(&copies).map_or_else(|| "-".to_owned(), |lag| lag.to_string());
        let replicas: Vec<String> =
            copies.iter().map(|copy| format!("{}:{}", copy.node, copy.role)).collect();
        let (shard, watermark) = (place.shard.0, watermark(account, place));
        let replicas = replicas.join(" ");
        let _ = writeln!(out, "{shard:<6} {health:<10} {watermark:<10} {lag:<7} {replicas}");
    }
    out
}

/// The feature level, and what keeps it from rising.
fn feature_line(account: &StatusResponse) -> String {
    let StatusResponse { feature_level, feature_level_next, held_by, .. } = account;
    if held_by.is_empty() {
        return format!("level {feature_level}");
    }
    let nodes = held_by.join(" ");
    format!("level {feature_level}; {feature_level_next} as soon as these support it: {nodes}")
}

/// The same as a page.
pub(crate) fn page(topology: &Topology, account: &StatusResponse) -> String {
    let text = text(topology, account);
    let escaped = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Clew cluster</title>\
         <style>body{{font:14px/1.5 ui-monospace,monospace;margin:2rem;color-scheme:light dark}}\
         </style><h1>Clew cluster</h1><pre>{escaped}</pre></html>\n"
    )
}
