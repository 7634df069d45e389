//! What must hold of a catalog however it came about: checked by `clew fsck` and by tests, which would
//! otherwise notice a broken flush protocol only by its late consequences.

use std::collections::BTreeMap;

use clew_ring::ShardId;

use crate::key::ObjectKey;
use crate::object::ObjectMeta;
use crate::view::View;

/// A broken invariant of the flush protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unsound {
    /// Two flushes hold the same entries of a log.
    #[error("{first} and {second} hold the same entries of the log of shard {shard}")]
    Overlap {
        /// The shard.
        shard: ShardId,
        /// The one that begins earlier.
        first: ObjectKey,
        /// The one that begins before the first ends.
        second: ObjectKey,
    },
    /// A flush holds entries that the watermark says are not in objects yet.
    #[error("{object} reaches beyond the watermark of shard {shard}, {watermark}")]
    BeyondWatermark {
        /// The shard.
        shard: ShardId,
        /// The flush.
        object: ObjectKey,
        /// The log index through which everything is in objects.
        watermark: u64,
    },
}

impl View {
    /// What is broken in the shards' open logs, as far as the flushes in this view tell: those that were
    /// compacted are not looked at.
    pub fn unsound(&self) -> Vec<Unsound> {
        let mut flushes: BTreeMap<ObjectKey, &ObjectMeta> = BTreeMap::new();
        for (object, _) in self.tenants().flat_map(|tenant| self.blocks(tenant)) {
            if self.shards.get(&object.shard()).map(|s| s.incarnation) == object.incarnation() {
                flushes.insert(object.key, object);
            }
        }
        let mut flushes: Vec<&ObjectMeta> = flushes.into_values().collect();
        flushes.sort_by_key(|object| (object.shard(), object.from, object.through.index));
        let overlaps = flushes.windows(2).filter_map(|pair| {
            let (first, second) = (pair[0], pair[1]);
            let shard = first.shard();
            let same = shard == second.shard() && second.from < first.through.index;
            same.then_some(Unsound::Overlap { shard, first: first.key, second: second.key })
        });
        let beyond = flushes.iter().filter_map(|object| {
            let log = self.shards.get(&object.shard())?;
            let (shard, watermark) = (log.shard, log.watermark.index);
            let object = (object.through.index > watermark).then_some(object.key)?;
            Some(Unsound::BeyondWatermark { shard, object, watermark })
        });
        overlaps.chain(beyond).collect()
    }
}

#[cfg(test)]
mod tests {
    use clew_model::{TenantId, UnixNanos};

    use super::*;
    use crate::*;

    fn object(incarnation: Incarnation, from: u64, through: u64) -> ObjectMeta {
        ObjectMeta {
            key: ObjectKey::flush(ShardId(0), incarnation, through, from),
            size: 100,
            from,
            through: LogPoint { term: 1, leader: 1, index: through },
            level: 0,
            created_at: UnixNanos(0),
            data_at: UnixNanos(0),
            revision: 0,
            tenants: vec![TenantBlock {
                tenant: TenantId::single(),
                offset: 0,
                length: 100,
                footer_length: 10,
                min_time: UnixNanos(1),
                max_time: UnixNanos(2),
                spans: 1,
                traces: 1,
                splits: 0,
                ids: None,
            }],
        }
    }

    fn opened() -> (State, Incarnation) {
        let mut state = State::new();
        let node = NodeId::parse("node-0").unwrap();
        let commands = [
            Command::CreateCluster(CreateCluster { cluster: ClusterId([0; 16]), shard_count: 1 }),
            Command::RegisterNode(RegisterNode {
                node: node.clone(),
                addr: "127.0.0.1:9095".to_owned(),
                zone: String::new(),
                capacity: 1,
                roles: Roles::ALL,
                features: FeatureRange::default(),
            }),
            Command::IssueReplicaId(IssueReplicaId { disk: DiskId([0; 16]), node, holds: None }),
            Command::OpenShardLog(OpenShardLog {
                shard: ShardId(0),
                replicas: vec![ReplicaId(1)],
                replaces: None,
                request: RequestId([0; 16]),
            }),
        ];
        for (command, index) in commands.iter().zip(1..) {
            state.apply(index, &command.encode(UnixNanos(index)));
        }
        let incarnation = state.shard_log(ShardId(0)).unwrap().incarnation;
        for (object, index) in [(0, 5), (5, 9)].into_iter().zip(10..) {
            let object = self::object(incarnation, object.0, object.1);
            let command = Command::CommitFlush(CommitFlush { object });
            state.apply(index, &command.encode(UnixNanos(index)));
        }
        (state, incarnation)
    }

    #[test]
    fn a_catalog_that_came_about_by_commands_is_sound() {
        let (state, _) = opened();
        assert_eq!(state.shard_log(ShardId(0)).unwrap().watermark.index, 9);
        assert_eq!(state.view(&[]).unsound(), []);
    }

    #[test]
    fn entries_in_two_flushes_and_beyond_the_watermark_are_noticed() {
        let (mut state, incarnation) = opened();
        let (shard, twice) = (ShardId(0), object(incarnation, 3, 7));
        let (first, second) = (ObjectKey::flush(shard, incarnation, 5, 0), twice.key);
        state.insert_object(twice);
        let third = ObjectKey::flush(shard, incarnation, 9, 5);
        assert_eq!(
            state.view(&[]).unsound(),
            [
                Unsound::Overlap { shard, first, second },
                Unsound::Overlap { shard, first: second, second: third },
            ]
        );
        let (mut state, _) = opened();
        let beyond = object(incarnation, 9, 12);
        let expected = Unsound::BeyondWatermark { shard, object: beyond.key, watermark: 9 };
        state.insert_object(beyond);
        assert_eq!(state.view(&[]).unsound(), [expected]);
    }
}
