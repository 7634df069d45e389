//! The cut through one shard's log: which entries the head answers for, and which objects hold the
//! ones before.

use std::sync::Arc;

use clew_catalog::{Incarnation, ObjectMeta, ShardId, ShardView};
use clew_model::{ErrorKind, TenantId, TraceId};
use clew_node::Problem;
use clew_proto::query::v1::Cut;
use clew_proto::shard::v1::{Behind, CutRequest, cut_response};
use clew_query::decode_ids;

use super::shards::Shards;

/// How often one shard may answer that it has flushed on before a new view is taken.
const BEHIND_MAX: usize = 8;

/// A shard as one query sees it.
#[derive(Debug, Clone)]
pub(super) struct ShardCut {
    /// The entries that the head answers for.
    pub(super) cut: Cut,
    /// Objects that the view did not know yet, oldest first.
    pub(super) objects: Vec<Arc<ObjectMeta>>,
    /// Split traces in the head's part.
    pub(super) split_ids: Vec<TraceId>,
}

/// Why a shard has no cut.
#[derive(Debug)]
pub(super) enum CutError {
    /// The leader no longer knows the objects since the view's watermark.
    TooOld,
    /// The shard cannot be asked.
    Away(Problem),
}

impl Shards {
    /// Fixes what `tenant`'s query reads of a shard's log.
    pub(super) async fn cut(
        &self,
        tenant: &TenantId,
        view: &ShardView,
    ) -> Result<ShardCut, CutError> {
        let mut objects = Vec::new();
        let mut request = CutRequest {
            tenant: tenant.to_string(),
            shard: view.shard.0,
            incarnation: view.incarnation.0,
            watermark: view.watermark.index,
        };
        for _ in 0..BEHIND_MAX {
            let ask = |client: super::shards::Client| {
                let request = request.clone();
                async move { client.cut(request).await }
            };
            let answer = match self.call_soon(view.shard, ask).await {
                Ok(answer) => answer,
                // The shard's log was opened anew: the view is of the time before.
                Err(problem) if problem.kind == ErrorKind::Conflict => {
                    return Err(CutError::TooOld);
                }
                Err(problem) => return Err(CutError::Away(problem)),
            };
            match answer.answer {
                Some(cut_response::Answer::Taken(taken)) => {
                    let split_ids = decode_ids(&taken.split_ids)
                        .map_err(|error| CutError::Away(unreadable(&error.to_string())))?;
                    if taken.upto < request.watermark {
                        return Err(CutError::Away(unreadable("a cut that ends before it begins")));
                    }
                    let CutRequest { shard, incarnation, watermark, .. } = request;
                    let taken_by = taken.stretch;
                    let cut =
                        Cut { shard, incarnation, watermark, upto: taken.upto, stretch: taken_by };
                    return Ok(ShardCut { cut, objects, split_ids });
                }
                Some(cut_response::Answer::Behind(behind)) => {
                    let from = request.watermark;
                    let Some(more) = covering(view.shard, view.incarnation, from, &behind) else {
                        return Err(CutError::TooOld);
                    };
                    objects.extend(more);
                    request.watermark = behind.watermark;
                }
                Some(cut_response::Answer::TooOld(_)) => return Err(CutError::TooOld),
                None => return Err(CutError::Away(unreadable("an empty answer"))),
            }
        }
        Err(CutError::TooOld)
    }
}

/// The objects of `behind` if they cover the shard's log from `from` to its watermark without gap or
/// overlap; otherwise a new view is safer.
fn covering(
    shard: ShardId,
    incarnation: Incarnation,
    from: u64,
    behind: &Behind,
) -> Option<Vec<Arc<ObjectMeta>>> {
    let mut objects = Vec::with_capacity(behind.objects.len());
    let mut border = from;
    for encoded in &behind.objects {
        let object = ObjectMeta::decode(encoded).ok()?;
        let belongs = object.shard() == shard && object.incarnation() == Some(incarnation);
        if !belongs || object.from != border || object.validate().is_err() {
            return None;
        }
        border = object.through.index;
        objects.push(Arc::new(object));
    }
    (border == behind.watermark && border > from).then_some(objects)
}

fn unreadable(what: &str) -> Problem {
    Problem::new(
        ErrorKind::Internal,
        "shard_answer",
        format!("the shard's answer is unreadable: {what}"),
    )
}

#[cfg(test)]
mod tests {
    use clew_catalog::{LogPoint, ObjectKey};
    use clew_model::UnixNanos;

    use super::*;

    fn object(shard: u32, incarnation: u64, from: u64, through: u64) -> bytes::Bytes {
        let object = ObjectMeta {
            key: ObjectKey::flush(ShardId(shard), Incarnation(incarnation), through, 1),
            size: 10,
            from,
            through: LogPoint { term: 1, leader: 1, index: through },
            level: 0,
            created_at: UnixNanos(0),
            data_at: UnixNanos(0),
            revision: 0,
            tenants: Vec::new(),
        };
        object.encode().into()
    }

    fn covered(watermark: u64, objects: Vec<bytes::Bytes>) -> Option<usize> {
        let behind = Behind { watermark, objects };
        covering(ShardId(1), Incarnation(2), 10, &behind).map(|objects| objects.len())
    }

    #[test]
    fn objects_that_cover_the_difference_are_taken() {
        assert_eq!(covered(30, vec![object(1, 2, 10, 20), object(1, 2, 20, 30)]), Some(2));
    }

    #[test]
    fn anything_else_makes_the_view_too_old() {
        let good = || object(1, 2, 10, 20);
        for (watermark, objects) in [
            (20, vec![]),
            (10, vec![]),
            (30, vec![good()]),
            (30, vec![good(), object(1, 2, 21, 30)]),
            (30, vec![good(), object(1, 2, 19, 30)]),
            (30, vec![object(1, 2, 20, 30), good()]),
            (20, vec![object(0, 2, 10, 20)]),
            (20, vec![object(1, 3, 10, 20)]),
            (20, vec![good(), bytes::Bytes::from_static(b"\xff")]),
        ] {
            assert_eq!(covered(watermark, objects), None);
        }
    }
}
