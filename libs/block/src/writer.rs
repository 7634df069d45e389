//! Writes blocks: from span tables at flush, or from merged traces in compaction.
//!
//! Both ways bring the spans of one trace after the other into final order, trace by trace in
//! ascending order of ids; the row of a span is its position. What is written per trace goes
//! through the assembler; the index is written at the end, from interned terms.

mod assemble;
mod carry;
mod parents;
mod tables;

use std::sync::Arc;

use clew_model::TenantId;
use clew_model::otlp::SpanView;
use clew_model::trace::{ResourceRecord, ScopeRecord, Trace};
use clew_model::wire::WireError;

use self::assemble::{Assembler, NewSpan};
use self::carry::CarriedInput;
pub use self::tables::{TableRows, write_block};
use crate::error::BlockError;
use crate::extract::{Extracted, KeyGuess, index_span};
use crate::footer::Origin;
use crate::heritage::Heritage;
use crate::index::StoreRows;
use crate::terms::TermStore;

/// How a block is written. The defaults are measured, see `docs/design/block-format.md`.
#[derive(Debug, Clone, Copy)]
pub struct BlockOptions {
    /// The zstd level of pages.
    pub page_level: i32,
    /// How many bytes the spans of a page should have, at most 16 MiB.
    pub page_bytes: usize,
}

impl Default for BlockOptions {
    fn default() -> BlockOptions {
        BlockOptions { page_level: 1, page_bytes: 512 << 10 }
    }
}

/// What a block says of itself beside its content.
#[derive(Debug, Clone)]
pub struct BlockMeta {
    /// Whose block it is.
    pub tenant: TenantId,
    /// Where its spans came from.
    pub origin: Origin,
    /// Keys of the objects it replaces.
    pub lineage: Vec<String>,
    /// What else a catalog wants to know that has to be made anew.
    pub heritage: Heritage,
}

/// What is known of a trace beside its spans.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TraceMarks {
    /// Other spans of it may lie elsewhere.
    pub split: bool,
    /// How many traces it stands for under sampling.
    pub weight: f32,
}

impl Default for TraceMarks {
    fn default() -> TraceMarks {
        TraceMarks { split: false, weight: 1.0 }
    }
}

/// Writes a block from merged traces that come in ascending order of their ids.
pub struct BlockWriter {
    assembler: Assembler,
    terms: TermStore,
    guess: KeyGuess,
    span_bytes: u64,
    /// By input of the merge that traces come from.
    inputs: Vec<CarriedInput>,
}

impl std::fmt::Debug for BlockWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlockWriter").finish_non_exhaustive()
    }
}

impl BlockWriter {
    /// A writer of one block. `seed` goes into its hash tables and has no influence on the block.
    ///
    /// # Errors
    /// [`BlockError::Engine`] when the compressor does not start.
    pub fn new(
        options: &BlockOptions,
        meta: BlockMeta,
        seed: u64,
    ) -> Result<BlockWriter, BlockError> {
        Ok(BlockWriter {
            assembler: Assembler::new(options, meta, seed)?,
            terms: TermStore::new(seed),
            guess: KeyGuess::default(),
            span_bytes: 0,
            inputs: Vec::new(),
        })
    }

    /// How many spans there are so far.
    pub const fn spans(&self) -> u32 {
        self.assembler.rows()
    }

    /// How many bytes of OTLP those are: memory grows with them.
    pub const fn span_bytes(&self) -> u64 {
        self.span_bytes
    }

    /// Appends a merged trace. A trace without spans is left out.
    ///
    /// # Errors
    /// [`BlockError::OutOfOrder`] when the id is not above that of the trace before,
    /// [`BlockError::NotOtlp`] when a span is damaged, [`BlockError::Limit`] when the block is
    /// full. The writer is of no use after an error.
    pub fn push_trace(&mut self, trace: &Trace, marks: TraceMarks) -> Result<(), BlockError> {
        let bytes = trace.spans.iter().map(|span| span.bytes.len()).sum();
        self.terms.reserve(bytes)?;
        self.span_bytes = self.span_bytes.saturating_add(bytes as u64);
        let first_row = self.assembler.next_row(trace.spans.len())?;
        let mut spans = Vec::with_capacity(trace.spans.len());
        let mut at: Option<(&Arc<ResourceRecord>, &Arc<ScopeRecord>, u32, u32)> = None;
        let mut extracted = Extracted::default();
        for (row, record) in (first_row..).zip(&trace.spans) {
            let has_ids = |view: &SpanView<'_>| view.trace().is_some() && view.span().is_some();
            let (terms, guess) = (&mut self.terms, &mut self.guess);
            let view = index_span(terms, guess, &mut extracted, &record.bytes, row, has_ids)?;
            let Some((view, id)) = view.and_then(|view| Some((view, view.span()?))) else {
                return Err(WireError::Truncated.into());
            };
            let (resource, scope) = match at {
                Some((resource, scope, resource_at, scope_at))
                    if Arc::ptr_eq(resource, &record.resource)
                        && Arc::ptr_eq(scope, &record.scope) =>
                {
                    (resource_at, scope_at)
                }
                _ => self.assembler.intern(&record.resource, &record.scope),
            };
            at = Some((&record.resource, &record.scope, resource, scope));
            spans.push(NewSpan {
                bytes: &record.bytes,
                start: view.start_unix_nanos,
                end: view.end_unix_nanos.max(view.start_unix_nanos),
                span_id: id.0,
                parent_id: view.parent().map_or([0; 8], |parent| parent.0),
                kind: view.kind,
                status: view.status_code,
                resource,
                scope,
            });
        }
        self.assembler.add_trace(trace.id, marks, &spans)
    }

    /// The finished block.
    ///
    /// # Errors
    /// [`BlockError::Engine`] when the index or the compressor fails.
    pub fn finish(self) -> Result<Vec<u8>, BlockError> {
        let rows =
            StoreRows { terms: &self.terms, renumbered: None, rows_max: self.assembler.rows() };
        self.assembler.finish(&[rows])
    }
}
