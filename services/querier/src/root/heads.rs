//! The leaf calls: one request to the leader of every shard in a cut, each over exactly the entries
//! of the cut.

use clew_catalog::ShardId;
use clew_model::ErrorKind;
use clew_node::Problem;
use clew_proto::query::v1 as query;
use clew_proto::shard::v1 as shard;
use futures::future::join_all;

use super::Root;
use super::missing::Missing;
use super::run::{Step, place};
use super::shards::Client;
use super::snapshot::Snapshot;

/// Why a shard is missing that kept flushing.
const MOVED_TOO_OFTEN: &str = "it flushed during every attempt to read it";

/// The answers of the shards asked, each with its shard.
pub(super) type HeadAnswers<T> = Vec<(u32, Result<Step<T>, Problem>)>;

macro_rules! leaf_calls {
    ($($(#[$doc:meta])* $name:ident calls $method:ident with $envelope:ident($request:ident)
        answers $module:ident($response:ident);)*) => {
        impl Root {$(
            $(#[$doc])*
            pub(super) async fn $name(
                &self,
                snapshot: &Snapshot,
                request: &query::$request,
            ) -> HeadAnswers<query::$response> {
                use shard::$module::Answer;
                join_all(snapshot.cuts.iter().map(|cut| async move {
                    let call = |client: Client| {
                        let request = shard::$envelope {
                            cut: Some(cut.clone()),
                            request: Some(request.clone()),
                        };
                        async move { client.$method(request).await }
                    };
                    let step = match self.shards.call(ShardId(cut.shard), call).await {
                        Ok(answer) => match answer.answer {
                            Some(Answer::Result(response)) => Ok(Step::Done(response)),
                            Some(Answer::Behind(_) | Answer::TooOld(_)) => Ok(Step::Moved),
                            None => Err(empty_answer()),
                        },
                        // The shard's log was opened anew.
                        Err(problem) if problem.kind == ErrorKind::Conflict => Ok(Step::Moved),
                        Err(problem) => Err(problem),
                    };
                    (cut.shard, step)
                }))
                .await
            }
        )*}
    };
}
leaf_calls! {
    /// Searches the heads.
    search_heads calls search with ShardSearchRequest(SearchRequest)
        answers shard_search_response(SearchResponse);
    /// Fetches fragments from the heads.
    fetch_heads calls fetch with ShardFetchRequest(FetchRequest)
        answers shard_fetch_response(FetchResponse);
    /// Names of attributes in the heads.
    names_of_heads calls tag_names with ShardTagNamesRequest(TagNamesRequest)
        answers shard_tag_names_response(TagNamesResponse);
    /// Values of an attribute in the heads.
    values_of_heads calls tag_values with ShardTagValuesRequest(TagValuesRequest)
        answers shard_tag_values_response(TagValuesResponse);
}

/// The answers of the heads that could be read, with their shards. In the `last` attempt a shard
/// that flushed again is missing; before, it makes the query start again.
pub(super) fn sift<T>(
    heads: HeadAnswers<T>,
    last: bool,
    missing: &mut Missing,
) -> Result<Step<Vec<(u32, T)>>, Problem> {
    let mut answers = Vec::new();
    for (shard, answer) in heads {
        match answer {
            Ok(Step::Done(answer)) => answers.push((shard, answer)),
            Ok(Step::Moved) if !last => return Ok(Step::Moved),
            Ok(Step::Moved) => missing.add("shard", place(shard), MOVED_TOO_OFTEN),
            // The request is wrong, not the shard.
            Err(problem) if problem.kind == ErrorKind::Invalid => return Err(problem),
            Err(problem) => missing.add("shard", place(shard), problem.message),
        }
    }
    Ok(Step::Done(answers))
}

fn empty_answer() -> Problem {
    Problem::new(ErrorKind::Internal, "shard_answer", "the shard's answer is empty")
}
