//! Lookups in a block: the index together with the tables its answers need.

use std::ops::ControlFlow;
use std::sync::Arc;

use clew_model::TraceId;
use clew_traceql::plan::{Condition, Field, Scope, Test};
use clew_traceql::value::Static;

use super::{AttributeIndex, IndexSections};
use crate::columns::Columns;
use crate::error::BlockError;
use crate::keys::Keys;
use crate::lookup::{FILTERED_SHARE, duration_bounds, lookup};
use crate::page::{BlockRecords, PageDirectory};
use crate::probe::{Probe, one};
use crate::row_values;
use crate::rows::{LookupResult, RowSet};
use crate::source::{IndexSource, KeyFacts, Place, RecordKind, TermVisitor, TraceFacts};
use crate::tags::{self, TagName, TagValueSink, TagValuesEnd};
use crate::term::{KeyScope, STRING_BYTES_MAX, code, intrinsic};
use crate::traces::TraceTable;

/// Answers conditions and tag requests on a block. Opened by
/// [`Block::search`](crate::Block::search).
#[derive(Debug, Clone)]
pub struct BlockSearch {
    index: AttributeIndex,
    traces: Arc<TraceTable>,
    columns: Columns,
    records: Arc<BlockRecords>,
    pages: Arc<PageDirectory>,
}

/// The sections a search works on, verified.
pub(crate) struct SearchParts {
    pub(crate) keys: Arc<Keys>,
    pub(crate) index: IndexSections,
    pub(crate) pages: Arc<PageDirectory>,
    pub(crate) columns: Columns,
    pub(crate) traces: Arc<TraceTable>,
    pub(crate) records: Arc<BlockRecords>,
}

impl BlockSearch {
    pub(crate) fn open(parts: SearchParts) -> Result<BlockSearch, BlockError> {
        let rows = parts.traces.row_count();
        Ok(BlockSearch {
            index: AttributeIndex::open(parts.keys, parts.index, rows)?,
            pages: parts.pages,
            columns: parts.columns,
            traces: parts.traces,
            records: parts.records,
        })
    }

    /// The rows that can pass a condition.
    ///
    /// # Errors
    /// [`BlockError::Corrupt`] when the index is damaged.
    pub fn lookup(&self, condition: &Condition) -> Result<LookupResult, BlockError> {
        lookup(self, condition)
    }

    /// The pages that tell which rows have the rare text that a condition asks for: a lookup alone
    /// answers with all rows of those pages that have rare texts. By their index in the directory;
    /// none if the condition asks for nothing of that kind.
    pub fn pages_to_verify(&self, condition: &Condition) -> Vec<usize> {
        let (Field::Attribute(Scope::Span, name), Test::Equals(Static::String(text))) =
            (&condition.field, &condition.test)
        else {
            return Vec::new();
        };
        match self.key(KeyScope::Span, name.as_bytes()) {
            Some(key) if !key.repeated && text.len() <= STRING_BYTES_MAX => {
                let pages = self.index.pages_of_text(key.handle, text.as_bytes());
                pages.into_iter().map(|page| page as usize).collect()
            }
            _ => Vec::new(),
        }
    }

    /// The lookup of a condition whose pages were looked at: `verified` are the rows of those that
    /// have the text.
    ///
    /// # Errors
    /// [`BlockError::Corrupt`] when the index is damaged.
    pub fn lookup_verified(
        &self,
        condition: &Condition,
        verified: &[u32],
    ) -> Result<LookupResult, BlockError> {
        let mut found = self.lookup(condition)?;
        let Field::Attribute(Scope::Span, name) = &condition.field else { return Ok(found) };
        if let Some(key) = self.key(KeyScope::Span, name.as_bytes()) {
            // A row has one value, so none of them is there for another reason.
            found.rows.subtract(&self.index.rare_text_rows(key.handle)?);
            found.rows.unite(&RowSet::from_ascending(verified));
            found.exact = true;
        }
        Ok(found)
    }

    /// Keeps those of the rows that can pass a condition, and tells whether all of them do. `None`:
    /// [`BlockSearch::lookup`] is no dearer.
    pub fn filter(&self, condition: &Condition, rows: &mut RowSet) -> Option<bool> {
        if rows.len() > u64::from(self.row_count() / FILTERED_SHARE) {
            return None;
        }
        let (shortest, longest, exact) = duration_bounds(condition)?;
        let passes = |row: &u32| {
            self.columns.duration(*row).is_some_and(|nanos| (shortest..=longest).contains(&nanos))
        };
        *rows = rows.iter().filter(passes).collect();
        Some(exact)
    }

    /// The names of attributes that spans have, of one scope or of all, sorted.
    ///
    /// # Errors
    /// [`BlockError::Corrupt`] when the index is damaged.
    pub fn tag_names(&self, scope: Option<Scope>) -> Result<Vec<TagName>, BlockError> {
        tags::names(self, scope)
    }

    /// Visits the values of a field, only on the rows in `within` if given. Values of attributes
    /// come once each, by type and then ascending.
    ///
    /// # Errors
    /// [`BlockError::Corrupt`] when the index is damaged.
    pub fn tag_values(
        &self,
        field: &Field,
        within: Option<&RowSet>,
        sink: &mut TagValueSink<'_>,
    ) -> Result<TagValuesEnd, BlockError> {
        tags::values(self, field, within, sink)
    }

    /// Visits the value that each row in `within` has under an attribute of spans, a name or a
    /// status message; returns the rows whose value the index does not hold as a whole. Rows that
    /// are neither visited nor returned have none. A `test` that all rows pass makes it cheaper.
    ///
    /// # Errors
    /// [`BlockError::Corrupt`] when the index is damaged.
    pub fn row_values(
        &self,
        field: &Field,
        within: &RowSet,
        test: Option<&Test>,
        visit: &mut dyn FnMut(u32, &Static),
    ) -> Result<RowSet, BlockError> {
        row_values::visit(self, field, within, test, visit)
    }

    /// How many rows the block has.
    pub fn row_count(&self) -> u32 {
        self.index.rows()
    }

    /// About how many bytes of memory the index takes, without traces and columns.
    pub fn memory_bytes(&self) -> usize {
        self.index.memory_bytes()
    }

    /// The block's traces.
    pub fn traces(&self) -> &TraceTable {
        &self.traces
    }

    /// The block's columns.
    pub fn columns(&self) -> &Columns {
        &self.columns
    }

    /// The start and end of a row's span, nanoseconds since the epoch.
    pub fn row_start_end(&self, row: u32) -> Option<(u64, u64)> {
        let trace = self.traces.get(self.traces.trace_of_row(row)?)?;
        let start = trace.start.saturating_add(self.columns.start_in_trace(row)?);
        Some((start, start.saturating_add(self.columns.duration(row)?)))
    }
}

impl IndexSource for BlockSearch {
    fn row_limit(&self) -> u32 {
        self.index.rows()
    }

    fn key(&self, scope: KeyScope, name: &[u8]) -> Option<KeyFacts> {
        let handle = self.index.keys().find(scope, name)?;
        let repeated = self.index.keys().get(handle)?.repeated;
        Some(KeyFacts { handle, repeated })
    }

    fn visit_keys(&self, visit: &mut dyn FnMut(KeyScope, &str, u64)) {
        for key in self.index.keys().all() {
            visit(key.scope, &key.name, u64::from(key.rows));
        }
    }

    fn visit_terms(
        &self,
        key: u32,
        probe: Option<&Probe>,
        visit: &mut TermVisitor<'_>,
    ) -> Result<(), BlockError> {
        self.index.visit_terms(key, probe, visit)
    }

    fn add_rows(&self, place: &Place, rows: &mut RowSet) -> Result<(), BlockError> {
        match place {
            Place::Postings(range, count) => self.index.add_postings(range, *count, rows),
            Place::Term(_) => Ok(()),
        }
    }

    fn add_rare_text(&self, key: u32, text: &[u8], rows: &mut RowSet) -> Result<bool, BlockError> {
        let pages = self.index.pages_of_text(key, text);
        if pages.is_empty() {
            return Ok(true);
        }
        let rare = self.index.rare_text_rows(key)?;
        for page in pages {
            let page = self.pages.entries().get(page as usize);
            let page = page.map_or(0..0, |page| page.first_row..page.first_row + page.rows);
            rare.range(page).for_each(|row| rows.insert(row));
        }
        Ok(false)
    }

    fn rare_text_rows(&self, key: u32) -> Result<RowSet, BlockError> {
        self.index.rare_text_rows(key)
    }

    fn visit_rare_numbers(
        &self,
        key: u32,
        type_code: u8,
        visit: &mut dyn FnMut(u32, u64),
    ) -> Result<(), BlockError> {
        self.index.visit_rare_numbers(key, type_code, visit)
    }

    fn count_rows(&self, place: &Place) -> u64 {
        match place {
            Place::Postings(_, count) => u64::from(*count),
            Place::Term(_) => 0,
        }
    }

    fn count_record_rows(&self, kind: RecordKind) -> Result<Vec<u64>, BlockError> {
        let mut counts = vec![0; self.record_count(kind) as usize];
        self.index.visit_terms(record_key(kind), None, &mut |term| {
            let ordinal = term.value.try_into().map_or(u32::MAX, u32::from_be_bytes);
            if let Some(count) = counts.get_mut(ordinal as usize) {
                *count = self.count_rows(&term.place);
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(counts)
    }

    fn key_rows(&self, key: u32) -> Result<RowSet, BlockError> {
        self.index.key_rows(key)
    }

    fn record_count(&self, kind: RecordKind) -> u32 {
        crate::codec::narrow(match kind {
            RecordKind::Resource => self.records.resources.len(),
            RecordKind::Scope => self.records.scopes.len(),
        })
    }

    fn record_message(&self, kind: RecordKind, ordinal: u32) -> &[u8] {
        let at = ordinal as usize;
        match kind {
            RecordKind::Resource => self.records.resources.get(at).map_or(&[], |r| &r.bytes),
            RecordKind::Scope => self.records.scopes.get(at).map_or(&[], |s| &s.bytes),
        }
    }

    fn record_rows(&self, kind: RecordKind, ordinal: u32) -> Result<RowSet, BlockError> {
        let probe = one(code::ORDINAL, &ordinal.to_be_bytes());
        let mut rows = RowSet::new();
        self.index.visit_terms(record_key(kind), Some(&probe), &mut |term| {
            self.add_rows(&term.place, &mut rows)?;
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(rows)
    }

    fn rows_by_duration(&self, shortest: u64, longest: u64) -> RowSet {
        let mut rows = Vec::new();
        self.columns.for_each_duration(|row, duration| {
            if (shortest..=longest).contains(&duration) {
                rows.push(row);
            }
        });
        let mut set = RowSet::new();
        set.extend_sorted(&rows);
        set
    }

    fn visit_traces(
        &self,
        visit: &mut dyn FnMut(u32, &TraceFacts<'_>) -> ControlFlow<()>,
    ) -> Result<(), BlockError> {
        for (ordinal, trace) in (0..).zip(self.traces.entries()) {
            let facts = TraceFacts {
                start: trace.start,
                end: trace.end,
                root: trace.root.as_ref().map(|(service, name)| (&**name, &**service)),
                uncertain: trace.split,
            };
            if visit(ordinal, &facts).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn find_trace(&self, id: &TraceId) -> Option<u32> {
        self.traces.find(id)
    }

    fn add_trace_rows(&self, trace: u32, rows: &mut RowSet) {
        if let Some(trace) = self.traces.get(trace) {
            rows.insert_range(trace.rows.clone());
        }
    }
}

/// The key under which rows are filed by their record.
const fn record_key(kind: RecordKind) -> u32 {
    match kind {
        RecordKind::Resource => intrinsic::RESOURCE,
        RecordKind::Scope => intrinsic::SCOPE,
    }
}
