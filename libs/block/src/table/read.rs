//! Reads of a span table, each cut at a row.

use std::ops::ControlFlow;
use std::sync::Arc;

use clew_model::TraceId;
use clew_model::otlp::SpanView;
use clew_model::trace::{ResourceRecord, SpanRecord, Trace, TraceSummary};
use clew_traceql::plan::{Condition, Field, Scope};

use super::{SpanTable, TraceRows};
use crate::codec::narrow;
use crate::error::BlockError;
use crate::extract::visit_texts;
use crate::hash::hash64;
use crate::lookup::{FILTERED_SHARE, duration_bounds, lookup};
use crate::probe::{Probe, Values};
use crate::rows::{LookupResult, RowSet};
use crate::source::{IndexSource, KeyFacts, Place, RecordKind, TermRef, TermVisitor, TraceFacts};
use crate::tags::{self, TagName, TagValueSink, TagValuesEnd};
use crate::term::KeyScope;
use crate::terms::{KeyEntry, TermEntry};
use crate::traces::TraceExtent;

impl SpanTable {
    /// The rows below `rows_max` that can pass a condition.
    ///
    /// # Errors
    /// [`BlockError`]; none is known for a table in memory.
    pub fn lookup(&self, condition: &Condition, rows_max: u32) -> Result<LookupResult, BlockError> {
        lookup(&self.view(rows_max), condition)
    }

    /// Keeps those of the rows that can pass a condition, and tells whether all of them do. `None`:
    /// [`SpanTable::lookup`] is no dearer.
    pub fn filter(&self, condition: &Condition, rows: &mut RowSet) -> Option<bool> {
        if rows.len() > u64::from(self.row_count() / FILTERED_SHARE) {
            return None;
        }
        let (shortest, longest, exact) = duration_bounds(condition)?;
        let passes = |row: &u32| {
            let row = self.rows.get(*row as usize);
            row.is_some_and(|row| (shortest..=longest).contains(&(row.end - row.start)))
        };
        *rows = rows.iter().filter(passes).collect();
        Some(exact)
    }

    /// The ordinal of the trace that a row belongs to.
    pub fn trace_of_row(&self, row: u32) -> Option<u32> {
        self.trace_of.get(row as usize).copied()
    }

    /// The ordinals of the traces that have one of the rows; ascending, each once.
    pub fn traces_of_rows(&self, rows: impl Iterator<Item = u32>) -> Vec<u32> {
        let mut bits = vec![0u64; self.traces.len().div_ceil(64)];
        for trace in rows.filter_map(|row| self.trace_of.get(row as usize)) {
            bits[*trace as usize / 64] |= 1 << (trace % 64);
        }
        let mut ordinals = Vec::new();
        for (at, mut word) in (0u32..).zip(bits) {
            while word != 0 {
                ordinals.push(at * 64 + word.trailing_zeros());
                word &= word - 1;
            }
        }
        ordinals
    }

    /// A span's start and end, nanoseconds since the epoch. The end is never before the start.
    pub fn row_start_end(&self, row: u32) -> Option<(u64, u64)> {
        self.rows.get(row as usize).map(|row| (row.start, row.end))
    }

    /// The rows of a trace below `rows_max`, ascending.
    pub fn rows_of_trace(&self, trace: u32, rows_max: u32) -> impl Iterator<Item = u32> + '_ {
        self.trace_rows(trace, rows_max)
    }

    /// The earliest start and the latest end of a trace's spans below `rows_max`, nanoseconds
    /// since the epoch, and how many spans there are; `None` if there are none.
    pub fn trace_extent(&self, trace: u32, rows_max: u32) -> Option<TraceExtent> {
        let known = self.traces.get(trace as usize)?;
        let TraceRows { id, start, end, rows: spans, .. } = *known;
        if known.last < rows_max {
            return Some(TraceExtent { id, start, end, spans });
        }
        let extent = |row: u32| {
            let row = &self.rows[row as usize];
            TraceExtent { id, start: row.start, end: row.end, spans: 1 }
        };
        self.trace_rows(trace, rows_max).map(extent).reduce(|a, b| TraceExtent {
            id,
            start: a.start.min(b.start),
            end: a.end.max(b.end),
            spans: a.spans + b.spans,
        })
    }

    /// The earliest start and the latest end of all spans, whatever the cut of a read.
    pub fn start_end(&self) -> Option<(u64, u64)> {
        self.bounds
    }

    /// A trace's spans below `rows_max` in the order of arrival, not merged: a span sent twice is
    /// there twice. `None` if there are none.
    pub fn fetch(&self, trace: u32, rows_max: u32) -> Option<Trace> {
        let id = self.trace_id(trace)?;
        let spans: Vec<SpanRecord> =
            self.trace_rows(trace, rows_max).filter_map(|row| self.span(row)).collect();
        (!spans.is_empty()).then_some(Trace { id, spans })
    }

    /// The span of a row with what it was reported under.
    pub fn span(&self, row: u32) -> Option<SpanRecord> {
        let row = self.rows.get(row as usize)?;
        Some(SpanRecord {
            resource: self.resources.entries()[row.resource as usize].record.clone(),
            scope: self.scopes.entries()[row.scope as usize].record.clone(),
            bytes: self.span_slice(row),
        })
    }

    /// A resource by the table's number for it.
    pub fn resource(&self, ordinal: u32) -> Option<&Arc<ResourceRecord>> {
        self.resources.entries().get(ordinal as usize).map(|entry| &entry.record)
    }

    /// What the table knows of a row without reading its span.
    pub fn row_facts(&self, row: u32) -> Option<RowFacts> {
        self.rows.get(row as usize).map(|row| RowFacts {
            start: row.start,
            end: row.end,
            span_id: row.span_id,
            is_root: row.parent_id == [0; 8],
            parent_id: row.parent_id,
            kind: row.kind,
            status: row.status,
            resource: row.resource,
        })
    }

    /// The names of attributes that spans below `rows_max` have, of one scope or of all, sorted.
    ///
    /// # Errors
    /// [`BlockError`]; none is known for a table in memory.
    pub fn tag_names(
        &self,
        scope: Option<Scope>,
        rows_max: u32,
    ) -> Result<Vec<TagName>, BlockError> {
        tags::names(&self.view(rows_max), scope)
    }

    /// Visits the values of a field on spans below `rows_max`, only on the rows in `within` if
    /// given. Values come once each, in no particular order.
    ///
    /// # Errors
    /// [`BlockError`]; none is known for a table in memory.
    pub fn tag_values(
        &self,
        field: &Field,
        rows_max: u32,
        within: Option<&RowSet>,
        sink: &mut TagValueSink<'_>,
    ) -> Result<TagValuesEnd, BlockError> {
        tags::values(&self.view(rows_max), field, within, sink)
    }

    fn view(&self, rows_max: u32) -> TableView<'_> {
        TableView { table: self, rows_max: rows_max.min(self.row_count()) }
    }
}

/// What a table knows of a row without reading its span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowFacts {
    /// Nanoseconds since the epoch.
    pub start: u64,
    /// Nanoseconds since the epoch; never before the start.
    pub end: u64,
    /// The span's id.
    pub span_id: [u8; 8],
    /// Whether the span has no parent.
    pub is_root: bool,
    /// The parent's id; all zero for a root.
    pub parent_id: [u8; 8],
    /// The kind as it was sent.
    pub kind: i32,
    /// The status code as it was sent.
    pub status: i32,
    /// The table's number for its resource.
    pub resource: u32,
}

/// The rows of a table below a limit.
struct TableView<'a> {
    table: &'a SpanTable,
    rows_max: u32,
}

impl TableView<'_> {
    fn extend(&self, term: &TermEntry, rows: &mut RowSet) {
        rows.extend_sorted(term.rows(self.rows_max));
    }

    /// Whether a span really has a text under a key, of which only the hash is known.
    fn has_text(&self, key: &KeyEntry, row: u32, text: &[u8]) -> Option<bool> {
        let span = self.table.span_bytes(self.table.rows.get(row as usize)?);
        let name = self.table.terms.key_name(key);
        let mut found = false;
        visit_texts(span, key.scope, name, &mut |value| found |= value == text).ok()?;
        Some(found)
    }

    fn merged(&self, trace: u32) -> Option<TraceSummary> {
        Some(Trace::merge([self.table.fetch(trace, self.rows_max)?])?.summary())
    }

    /// Start, end, root row and whether a span is there in two versions.
    fn sum_up(&self, trace: u32, identities: &mut Vec<([u8; 8], i32)>) -> Option<Sum> {
        identities.clear();
        let mut sum: Option<Sum> = None;
        for at in self.table.trace_rows(trace, self.rows_max) {
            let row = &self.table.rows[at as usize];
            identities.push((row.span_id, row.kind));
            let sum = sum.get_or_insert(Sum { start: row.start, end: row.end, ..Sum::default() });
            sum.start = sum.start.min(row.start);
            sum.end = sum.end.max(row.end);
            if row.parent_id == [0; 8] {
                let order = (row.start, row.span_id, row.kind);
                if sum.root.is_none_or(|(best, _)| order < best) {
                    sum.root = Some((order, at));
                }
            }
        }
        identities.sort_unstable();
        let versions = identities.windows(2).any(|pair| pair[0] == pair[1]);
        sum.map(|sum| Sum { versions, ..sum })
    }
}

/// By what the model chooses among several roots: start, span id, kind.
type RootOrder = (u64, [u8; 8], i32);

#[derive(Debug, Default)]
struct Sum {
    start: u64,
    end: u64,
    root: Option<(RootOrder, u32)>,
    versions: bool,
}

impl IndexSource for TableView<'_> {
    fn row_limit(&self) -> u32 {
        self.rows_max
    }

    fn key(&self, scope: KeyScope, name: &[u8]) -> Option<KeyFacts> {
        let handle = self.table.terms.find_key(scope, name)?;
        let key = &self.table.terms.keys()[handle as usize];
        (key.first_row < self.rows_max).then_some(KeyFacts { handle, repeated: key.repeated })
    }

    fn visit_keys(&self, visit: &mut dyn FnMut(KeyScope, &str, u64)) {
        for key in self.table.terms.keys() {
            if key.first_row < self.rows_max
                && let Ok(name) = std::str::from_utf8(self.table.terms.key_name(key))
            {
                visit(key.scope, name, u64::from(key.rows));
            }
        }
    }

    fn visit_terms(
        &self,
        key: u32,
        probe: Option<&Probe>,
        visit: &mut TermVisitor<'_>,
    ) -> Result<(), BlockError> {
        let terms = &self.table.terms;
        if let Some(Probe { code, values: Values::One(value), .. }) = probe {
            if let Some((place, _)) = terms.find_term(key, *code, value) {
                let _ = visit(&TermRef { code: *code, value, place: Place::Term(place) })?;
            }
            return Ok(());
        }
        let Some(key) = terms.keys().get(key as usize) else { return Ok(()) };
        for &ordinal in &key.terms {
            let term = terms.term(ordinal);
            let value = terms.value(term);
            let wanted =
                probe.is_none_or(|probe| probe.code == term.code && probe.values.contain(value));
            if wanted {
                let term = TermRef { code: term.code, value, place: Place::Term(ordinal) };
                if visit(&term)?.is_break() {
                    break;
                }
            }
        }
        Ok(())
    }

    fn add_rows(&self, place: &Place, rows: &mut RowSet) -> Result<(), BlockError> {
        if let Place::Term(term) = place {
            self.extend(self.table.terms.term(*term), rows);
        }
        Ok(())
    }

    fn count_rows(&self, place: &Place) -> u64 {
        let Place::Term(term) = place else { return 0 };
        self.table.terms.term(*term).rows(self.rows_max).len() as u64
    }

    fn count_record_rows(&self, kind: RecordKind) -> Result<Vec<u64>, BlockError> {
        let (table, rows_max) = (self.table, self.rows_max);
        Ok(match kind {
            RecordKind::Resource => {
                let entries = table.resources.entries().iter();
                entries.map(|entry| entry.rows(rows_max).len() as u64).collect()
            }
            RecordKind::Scope => {
                let entries = table.scopes.entries().iter();
                entries.map(|entry| entry.rows(rows_max).len() as u64).collect()
            }
        })
    }

    fn add_rare_text(&self, key: u32, text: &[u8], rows: &mut RowSet) -> Result<bool, BlockError> {
        let Some(key) = self.table.terms.keys().get(key as usize) else { return Ok(true) };
        let hash = hash64(0, text);
        for (row, value) in key.rare_texts.below(self.rows_max) {
            // What cannot be read was never indexed.
            if value == hash && self.has_text(key, row, text).unwrap_or(true) {
                rows.insert(row);
            }
        }
        Ok(true)
    }

    fn rare_text_rows(&self, key: u32) -> Result<RowSet, BlockError> {
        let Some(key) = self.table.terms.keys().get(key as usize) else { return Ok(RowSet::new()) };
        let mut rows: Vec<u32> = key.rare_texts.below(self.rows_max).map(|(row, _)| row).collect();
        rows.dedup();
        let mut set = RowSet::new();
        set.extend_sorted(&rows);
        Ok(set)
    }

    fn visit_rare_numbers(
        &self,
        key: u32,
        type_code: u8,
        visit: &mut dyn FnMut(u32, u64),
    ) -> Result<(), BlockError> {
        let key = self.table.terms.keys().get(key as usize);
        if let Some(rare) = key.and_then(|key| key.rare_numbers(type_code)) {
            rare.below(self.rows_max).for_each(|(row, value)| visit(row, value));
        }
        Ok(())
    }

    fn key_rows(&self, key: u32) -> Result<RowSet, BlockError> {
        let terms = &self.table.terms;
        let Some(key) = terms.keys().get(key as usize) else { return Ok(RowSet::new()) };
        if key.rows == self.table.row_count() {
            return Ok(RowSet::from_range(0..self.rows_max));
        }
        let mut rows: Vec<u32> = Vec::with_capacity(key.rows as usize);
        for &ordinal in &key.terms {
            rows.extend_from_slice(terms.term(ordinal).rows(self.rows_max));
        }
        for rare in [&key.rare_texts, &key.rare_ints, &key.rare_floats] {
            rows.extend(rare.below(self.rows_max).map(|(row, _)| row));
        }
        rows.sort_unstable();
        rows.dedup();
        let mut set = RowSet::new();
        set.extend_sorted(&rows);
        Ok(set)
    }

    fn record_count(&self, kind: RecordKind) -> u32 {
        narrow(match kind {
            RecordKind::Resource => self.table.resources.entries().len(),
            RecordKind::Scope => self.table.scopes.entries().len(),
        })
    }

    fn record_message(&self, kind: RecordKind, ordinal: u32) -> &[u8] {
        let at = ordinal as usize;
        match kind {
            RecordKind::Resource => &self.table.resources.entries()[at].record.bytes,
            RecordKind::Scope => &self.table.scopes.entries()[at].record.bytes,
        }
    }

    fn record_rows(&self, kind: RecordKind, ordinal: u32) -> Result<RowSet, BlockError> {
        let at = ordinal as usize;
        let mut rows = RowSet::new();
        rows.extend_sorted(match kind {
            RecordKind::Resource => self.table.resources.entries()[at].rows(self.rows_max),
            RecordKind::Scope => self.table.scopes.entries()[at].rows(self.rows_max),
        });
        Ok(rows)
    }

    fn rows_by_duration(&self, shortest: u64, longest: u64) -> RowSet {
        (0..self.rows_max)
            .zip(&self.table.rows)
            .filter(|(_, row)| (shortest..=longest).contains(&(row.end - row.start)))
            .map(|(at, _)| at)
            .collect()
    }

    fn visit_traces(
        &self,
        visit: &mut dyn FnMut(u32, &TraceFacts<'_>) -> ControlFlow<()>,
    ) -> Result<(), BlockError> {
        let mut identities = Vec::new();
        for (trace, entry) in (0..).zip(&self.table.traces) {
            let Some(sum) = self.sum_up(trace, &mut identities) else { continue };
            let root = sum.root.and_then(|(_, at)| {
                let row = &self.table.rows[at as usize];
                let span = SpanView::parse(self.table.span_bytes(row)).ok()?;
                let resource = &self.table.resources.entries()[row.resource as usize].record;
                Some((span.name, resource.service_name().unwrap_or_default()))
            });
            let mut facts =
                TraceFacts { start: sum.start, end: sum.end, root, uncertain: entry.split };
            // Of several versions of a span only one counts; merging tells which. It is rare.
            let merged = sum.versions.then(|| self.merged(trace)).flatten();
            if let Some(merged) = &merged {
                facts.start = merged.start.0;
                facts.end = merged.end.0;
                facts.root = merged.root_name.as_deref().zip(merged.root_service.as_deref());
            }
            if visit(trace, &facts).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn find_trace(&self, id: &TraceId) -> Option<u32> {
        self.table.find(id)
    }

    fn add_trace_rows(&self, trace: u32, rows: &mut RowSet) {
        for row in self.table.trace_rows(trace, self.rows_max) {
            rows.insert(row);
        }
    }
}
