//! The query engine: runs one leaf of a query over its sources, and merges leaves.
//!
//! - [`SearchPlan`]: a search, parsed and compiled once; TraceQL filters and the legacy tags.
//! - [`Engine`]: [search](Engine::search), [fetch by id](Engine::fetch), [names](Engine::tag_names)
//!   and [values](Engine::tag_values) of attributes over [`SpanSource`]s.
//! - [`TableSource`] (a head) and [`BlockSource`] (a block in the bucket).
//! - [`merge_search`], [`merge_tag_names`], [`merge_tag_values`]: what the root does with answers.
//!
//! A trace that lies in one source is judged there, whole. Traces that may lie in several places,
//! the set F, are only named by the leaves; the root asks all places for what their indexes tell of
//! these, puts the [pieces](Engine::pieces) together and [judges](judge_pieces) them. Where that is not
//! enough it fetches their fragments from all places, [merges](merge_traces) them and has them
//! [judged](Engine::search_traces). So no answer depends on where spans happen to lie, and a span
//! counts once.
//!
//! A source that cannot be read does not fail the query: the [`Outcome`] names it, and the root
//! tells the user that the answer is partial.

mod block;
mod decisive;
mod engine;
mod error;
mod explain;
mod fetch;
mod found;
mod ids;
mod merge;
mod piece;
mod pipeline;
mod plan;
mod prune;
mod search;
mod select;
mod source;
mod structure;
mod table;
mod tags;
mod view;

pub use block::{BlockCache, BlockReader, BlockRef, BlockSource, DiskCache, DiskCacheOptions};
pub use engine::{Engine, Outcome, QueryLimits, SourceFailure};
pub use error::QueryError;
pub use fetch::Fetched;
pub use ids::{SplitSet, decode_ids, encode_ids};
pub use merge::{merge_search, merge_traces};
pub use piece::{Pieces, judge_pieces};
pub use plan::{SearchPlan, refuse_metrics_query};
pub use prune::Prune;
pub use search::search_traces;
pub use source::{Candidate, Selected, Selection, SourceInfo, SourceKind, SpanSource, TimeRange};
pub use table::TableSource;
pub use tags::{TagField, merge_tag_names, merge_tag_values, tag_query_needs_traces};
pub use view::{SpanRef, TraceView, span_values};
