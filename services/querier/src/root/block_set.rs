//! Blocks as they travel to the querier that shall read them, and what it says of those that it
//! could not read.

use std::sync::Arc;

use clew_catalog::{OBJECT_BYTES_MAX, ObjectKey, TenantBlock};
use clew_model::{ErrorKind, TenantId, TraceId, UnixNanos};
use clew_node::Problem;
use clew_proto::query::v1::block_set::Block;
use clew_proto::query::v1::{BlockFailure, BlockSet};
use clew_query::{decode_ids, encode_ids};

use super::blocks::{Failure, problem_of};
use super::snapshot::BlockRef;

/// The blocks as a message.
pub(super) fn encode(blocks: &[BlockRef]) -> BlockSet {
    let mut lists: Vec<&Arc<[TraceId]>> = Vec::new();
    let mut set = BlockSet::default();
    for BlockRef { object, block, deleted } in blocks {
        // Most blocks share their list with others, or have none.
        let known = lists.iter().rposition(|list| Arc::ptr_eq(list, deleted));
        let deleted = match known {
            _ if deleted.is_empty() => 0,
            Some(at) => at + 1,
            None => {
                lists.push(deleted);
                lists.len()
            }
        };
        set.blocks.push(Block {
            object: object.to_string(),
            offset: block.offset,
            length: block.length,
            footer_length: block.footer_length,
            min_unix_nanos: block.min_time.0,
            max_unix_nanos: block.max_time.0,
            spans: block.spans,
            traces: block.traces,
            splits: block.splits,
            deleted: u32::try_from(deleted).unwrap_or(u32::MAX),
        });
    }
    set.deleted = lists.into_iter().map(|list| encode_ids(list.iter()).into()).collect();
    set
}

/// The blocks of `tenant` in a message.
///
/// # Errors
/// [`ErrorKind::Invalid`] when it names what cannot be a block.
pub(super) fn decode(tenant: &TenantId, set: Option<BlockSet>) -> Result<Vec<BlockRef>, Problem> {
    let BlockSet { blocks, deleted } = set.ok_or_else(|| invalid("no blocks"))?;
    let mut lists: Vec<Arc<[TraceId]>> = vec![Arc::new([])];
    for list in deleted {
        let mut ids = decode_ids(&list).map_err(problem_of)?;
        // They are looked up by bisection.
        ids.sort_unstable();
        lists.push(ids.into());
    }
    let block_of = |block: Block| {
        let object = ObjectKey::parse(&block.object).map_err(|error| invalid(error.to_string()))?;
        let end = block.offset.checked_add(block.length);
        let fits = end.is_some_and(|end| end <= OBJECT_BYTES_MAX)
            && u64::from(block.footer_length) <= block.length;
        let list = usize::try_from(block.deleted).ok().and_then(|list| lists.get(list));
        match list {
            Some(list) if fits => Ok(BlockRef {
                object,
                block: TenantBlock {
                    tenant: tenant.clone(),
                    offset: block.offset,
                    length: block.length,
                    footer_length: block.footer_length,
                    min_time: UnixNanos(block.min_unix_nanos),
                    max_time: UnixNanos(block.max_unix_nanos),
                    spans: block.spans,
                    traces: block.traces,
                    splits: block.splits,
                    // Whoever asks has looked at them.
                    ids: None,
                },
                deleted: Arc::clone(list),
            }),
            _ => Err(invalid(format!("block {object} is out of bounds"))),
        }
    };
    blocks.into_iter().map(block_of).collect()
}

/// Failures as a message.
pub(super) fn encode_failures(failed: Vec<Failure>) -> Vec<BlockFailure> {
    let failure = |Failure { block, kind, why }| BlockFailure {
        block: u32::try_from(block).unwrap_or(u32::MAX),
        kind: kind.as_str().to_owned(),
        message: why,
    };
    failed.into_iter().map(failure).collect()
}

/// Failures in a message.
pub(super) fn decode_failures(failed: Vec<BlockFailure>) -> Vec<Failure> {
    let failure = |BlockFailure { block, kind, message }| Failure {
        block: usize::try_from(block).unwrap_or(usize::MAX),
        kind: ErrorKind::from_name(&kind).unwrap_or(ErrorKind::Internal),
        why: message,
    };
    failed.into_iter().map(failure).collect()
}

fn invalid(message: impl Into<String>) -> Problem {
    Problem::new(ErrorKind::Invalid, "block_set", message)
}

#[cfg(test)]
mod tests {
    use clew_catalog::{Incarnation, ShardId};

    use super::*;

    fn block(through: u64, deleted: &Arc<[TraceId]>) -> BlockRef {
        BlockRef {
            object: ObjectKey::flush(ShardId(3), Incarnation(2), through, 77),
            block: TenantBlock {
                tenant: TenantId::single(),
                offset: 8,
                length: 1_000 + through,
                footer_length: 90,
                min_time: UnixNanos(5),
                max_time: UnixNanos(6),
                spans: 7,
                traces: 4,
                splits: 1,
                ids: None,
            },
            deleted: Arc::clone(deleted),
        }
    }

    #[test]
    fn blocks_arrive_as_they_were_sent() {
        let none: Arc<[TraceId]> = Arc::new([]);
        let some: Arc<[TraceId]> = Arc::new([TraceId([1; 16]), TraceId([2; 16])]);
        let more: Arc<[TraceId]> = Arc::new([TraceId([3; 16])]);
        let sent = [block(1, &some), block(2, &none), block(3, &more), block(4, &some)];
        let set = encode(&sent);
        assert_eq!(set.deleted.len(), 2, "each list travels once");
        let arrived = decode(&TenantId::single(), Some(set)).unwrap();
        let seen = |blocks: &[BlockRef]| -> Vec<_> {
            blocks.iter().map(|b| (b.object, b.block.clone(), b.deleted.to_vec())).collect()
        };
        assert_eq!(seen(&arrived), seen(&sent));
    }

    #[test]
    fn nonsense_is_refused() {
        let none: Arc<[TraceId]> = Arc::new([]);
        let good = encode(&[block(1, &none)]);
        type Change = fn(&mut BlockSet);
        let changes: [Change; 6] = [
            |set| set.blocks[0].object = "flush/../x".to_owned(),
            |set| set.blocks[0].offset = u64::MAX,
            |set| set.blocks[0].length = u64::MAX - 1_000,
            |set| set.blocks[0].footer_length = u32::MAX,
            |set| set.blocks[0].deleted = 1,
            |set| set.deleted.push(vec![1, 2, 3].into()),
        ];
        for change in changes {
            let mut set = good.clone();
            change(&mut set);
            let refused = decode(&TenantId::single(), Some(set.clone())).unwrap_err();
            assert_eq!(refused.kind, ErrorKind::Invalid, "{set:?}");
        }
        assert!(decode(&TenantId::single(), None).is_err());
    }
}
