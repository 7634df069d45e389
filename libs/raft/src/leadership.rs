//! Who leads a group, as one of its replicas has heard.

use openraft::metrics::RaftServerMetrics;
use tokio::sync::watch;

use crate::ids::{NodeAddr, ReplicaId};

/// Who leads a group, by the vote this replica has saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Leadership {
    /// The term of that vote. A new leader always shows up with a higher (term, leader).
    pub term: u64,
    /// The leader, once a majority has elected it; `None` during an election.
    pub leader: Option<ReplicaId>,
    /// Whether that is this replica. It may have been superseded without knowing:
    /// [`Group::read_index`](crate::Group::read_index) finds out.
    pub is_leader: bool,
}

/// Keeps the published leadership up to date until the replica stops.
pub(crate) async fn follow_leadership(
    mut metrics: watch::Receiver<RaftServerMetrics<u64, NodeAddr>>,
    leadership: watch::Sender<Leadership>,
) {
    loop {
        let now = {
            let metrics = metrics.borrow_and_update();
            let leader = metrics.vote.committed.then_some(metrics.vote.leader_id.node_id);
            Leadership {
                term: metrics.vote.leader_id.term,
                leader: leader.map(ReplicaId),
                is_leader: leader == Some(metrics.id) && metrics.state.is_leader(),
            }
        };
        leadership.send_if_modified(|before| std::mem::replace(before, now) != now);
        if metrics.changed().await.is_err() {
            break;
        }
    }
    leadership.send_modify(|last| *last = Leadership { term: last.term, ..Leadership::default() });
}
