//! The block format and the indexed table of spans it is written from.
//!
//! - [`SpanTable`]: spans in memory, appended and looked up: a shard leader's head.
//! - [`write_block`] and [`BlockWriter`]: from tables or merged traces to the bytes of a block.
//! - [`Block`]: opened from the tail of a block, names the byte ranges of everything else and
//!   reads them: [`BlockSearch`] for lookups, [`Page`] for spans.
//! - [`Merge`]: from many blocks of one tenant to the traces of one.
//! - [`pack`]: joins the blocks of several tenants into one object; [`TenantEntry::of`] finds them
//!   again, from the object's end.
//!
//! Pure and synchronous: everything works on byte buffers handed in. Stored bytes are verified
//! before use, so damage is [`BlockError::Corrupt`] and never a panic or a wrong answer. The
//! format is specified in `docs/design/block-format.md`.
//!
//! Invariants:
//! - The row of a span in a block is its position among all spans sorted by (trace id, start,
//!   span id, kind); a trace's rows are consecutive.
//! - A lookup answers with every row that can pass its condition; if it says `exact`, with no
//!   other. Tables and blocks give the same answers for the same spans.
//! - The same spans in the same order give the same block bytes.

mod block;
mod codec;
mod columns;
mod error;
mod extract;
mod filter;
mod footer;
mod hash;
mod heritage;
mod identity;
mod index;
mod keys;
mod lookup;
mod merge;
mod object;
mod packed;
mod page;
mod postings;
mod probe;
mod records;
mod row_values;
mod rows;
mod source;
mod table;
mod tags;
mod term;
mod terms;
mod traces;
mod writer;

pub use block::{Block, KeyCost, SearchSections, SplitIds};
pub use columns::{Columns, Parent};
pub use error::BlockError;
pub use filter::TraceFilter;
pub use footer::{Codec, FORMAT_VERSION, Footer, Origin, Section, SectionKind, TRAILER_BYTES};
pub use heritage::{Cover, Heritage};
pub use identity::Identity;
pub use index::BlockSearch;
pub use merge::{InputError, Merge, MergeStep, Merged, PageWanted};
pub use object::{TenantEntry, pack, pack_last};
pub use page::{BlockRecords, Page, PageDirectory, PageEntry};
pub use rows::{LookupResult, RowSet};
pub use table::{NEWEST_STEP, Pushed, ROWS_MAX, RowFacts, SpanTable};
pub use tags::{TagName, TagValue, TagValueSink, TagValuesEnd};
pub use traces::{TraceEntry, TraceExtent, TraceTable};
pub use writer::{BlockMeta, BlockOptions, BlockWriter, TableRows, TraceMarks, write_block};
