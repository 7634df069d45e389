//! The part of writing that is the same whatever the spans come from: pages, trace table, columns,
//! filter and footer.

use std::ops::Range;

use clew_model::TraceId;
use clew_model::otlp::SpanView;
use clew_model::otlp::view::status;
use clew_model::trace::{ResourceRecord, ScopeRecord};
use clew_model::wire::put_varint;

use super::parents::Parents;
use super::{BlockMeta, BlockOptions, TraceMarks};
use crate::codec::{Compressor, narrow, put_bytes};
use crate::columns::{ColumnRow, Parent};
use crate::error::BlockError;
use crate::extract::KeyGuess;
use crate::filter::TraceFilter;
use crate::footer::{Codec, FORMAT_VERSION, Footer, Section, SectionKind};
use crate::index::{IndexParts, StoreRows, write_index};
use crate::keys::put_keys;
use crate::page::{CarriedRow, Carrier, PageSpan, PageTrace, PagesParts, PagesWriter};
use crate::records::{Describe, Entry, Records};
use crate::table::ROWS_MAX;
use crate::term::{kind_byte, status_byte};
use crate::terms::TermStore;
use crate::traces::{NewTrace, TracesWriter};

/// The zstd level of small sections.
const SECTION_LEVEL: i32 = 3;

/// A span in its final place.
#[derive(Debug, Clone, Copy)]
pub(super) struct NewSpan<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) start: u64,
    /// Never before the start.
    pub(super) end: u64,
    pub(super) span_id: [u8; 8],
    pub(super) parent_id: [u8; 8],
    pub(super) kind: i32,
    pub(super) status: i32,
    /// The block's ordinal.
    pub(super) resource: u32,
    /// The block's ordinal.
    pub(super) scope: u32,
}

/// Collects a block.
pub(super) struct Assembler {
    meta: BlockMeta,
    pages: PagesWriter,
    traces: TracesWriter,
    resources: Records<ResourceRecord>,
    scopes: Records<ScopeRecord>,
    /// The text ordinal of each resource's service.
    services: Vec<u32>,
    rows: u32,
    min_start: u64,
    max_end: u64,
    parents: Parents,
    /// Spans and errors per resource of the trace at hand.
    counts: Vec<(u32, u32, u32)>,
}

impl Assembler {
    /// # Errors
    /// [`BlockError::Engine`] when the compressor does not start.
    pub(super) fn new(
        options: &BlockOptions,
        meta: BlockMeta,
        seed: u64,
    ) -> Result<Assembler, BlockError> {
        Ok(Assembler {
            meta,
            pages: PagesWriter::new(options.page_level, options.page_bytes, seed)?,
            traces: TracesWriter::default(),
            resources: Records::new(seed),
            scopes: Records::new(seed),
            services: Vec::new(),
            rows: 0,
            min_start: u64::MAX,
            max_end: 0,
            parents: Parents::default(),
            counts: Vec::new(),
        })
    }

    /// How many rows there are.
    pub(super) const fn rows(&self) -> u32 {
        self.rows
    }

    /// The row of the next span, if `more` spans have room.
    pub(super) fn next_row(&self, more: usize) -> Result<u32, BlockError> {
        if u64::from(self.rows) + more as u64 > ROWS_MAX {
            return Err(BlockError::Limit { what: "rows in a block", limit: ROWS_MAX });
        }
        Ok(self.rows)
    }

    /// The block's ordinals of a resource and a scope.
    pub(super) fn intern(&mut self, resource: &ResourceRecord, scope: &ScopeRecord) -> (u32, u32) {
        let ordinal = self.resources.intern(&resource.bytes, &resource.schema_url);
        if ordinal as usize == self.services.len() {
            let service = resource.service_name().unwrap_or_default();
            self.services.push(self.traces.texts.intern(service));
        }
        (ordinal, self.scopes.intern(&scope.bytes, &scope.schema_url))
    }

    /// The page that is being written.
    pub(super) const fn pages_mut(&mut self) -> &mut PagesWriter {
        &mut self.pages
    }

    /// Appends a trace whose spans `carrier` has read, with their resources and scopes as ordinals
    /// of this block. Its spans have `size` bytes.
    pub(super) fn add_carried(
        &mut self,
        id: TraceId,
        marks: TraceMarks,
        size: usize,
        carrier: &mut Carrier,
        terms: &mut TermStore,
        guess: &mut KeyGuess,
    ) -> Result<(), BlockError> {
        let (start, _) = carrier.place();
        let place = self.begin_trace(id, start, carrier.rows().len())?;
        let mut end = start;
        for (row, carried) in (place.first_row..).zip(carrier.rows()) {
            let columns = &carried.columns;
            self.resources.note(columns.resource, row);
            self.scopes.note(carried.scope, row);
            let span_start = start.saturating_add(columns.start_in_trace);
            end = end.max(span_start.saturating_add(columns.duration));
        }
        let count = |carried: &CarriedRow| {
            let columns = &carried.columns;
            (columns.resource, i32::from(columns.status) == status::ERROR)
        };
        let counted = self.count_services(carrier.rows().iter().map(count));
        let root = match carrier.rows().iter().position(|row| row.is_root) {
            Some(at) => {
                let resource = carrier.rows()[at].columns.resource;
                let name = self.traces.texts.intern(carrier.name(at)?);
                Some((self.services[resource as usize], name))
            }
            None => None,
        };
        let page = carrier.put(&place, size, &mut self.pages, terms, guess)?;
        self.end_trace(&place, marks, page, end, root, counted);
        Ok(())
    }

    /// The place of a trace that begins now.
    fn begin_trace(
        &mut self,
        id: TraceId,
        start: u64,
        spans: usize,
    ) -> Result<PageTrace, BlockError> {
        if self.traces.traces.last().is_some_and(|before| before.id >= id) {
            return Err(BlockError::OutOfOrder);
        }
        let first_row = self.next_row(spans)?;
        self.rows += narrow(spans);
        Ok(PageTrace { id, ordinal: narrow(self.traces.traces.len()), start, first_row })
    }

    /// Files a trace that has all its rows.
    fn end_trace(
        &mut self,
        place: &PageTrace,
        marks: TraceMarks,
        page: u32,
        end: u64,
        root: Option<(u32, u32)>,
        (services, errors): (Range<usize>, u32),
    ) {
        self.min_start = self.min_start.min(place.start);
        self.max_end = self.max_end.max(end);
        self.traces.traces.push(NewTrace {
            id: place.id,
            spans: self.rows - place.first_row,
            page,
            start: place.start,
            end,
            root,
            errors,
            services,
            split: marks.split,
            weight: marks.weight,
        });
    }

    /// Appends a trace whose spans are in final order.
    pub(super) fn add_trace(
        &mut self,
        id: TraceId,
        marks: TraceMarks,
        spans: &[NewSpan<'_>],
    ) -> Result<(), BlockError> {
        let Some(start) = spans.iter().map(|span| span.start).min() else { return Ok(()) };
        let place = self.begin_trace(id, start, spans.len())?;
        let end = spans.iter().map(|span| span.end).max().unwrap_or(start);
        self.parents.read(spans);
        let mut page_spans = Vec::with_capacity(spans.len());
        for (at, (row, span)) in (place.first_row..).zip(spans).enumerate() {
            self.resources.note(span.resource, row);
            self.scopes.note(span.scope, row);
            let parent = self.parents.of(at, span, spans, place.first_row);
            let columns = ColumnRow {
                span_id: span.span_id,
                start_in_trace: span.start - start,
                duration: span.end - span.start,
                resource: span.resource,
                kind: kind_byte(span.kind),
                status: status_byte(span.status),
                parent,
                absent_parent: (parent == Parent::Elsewhere).then_some(span.parent_id),
            };
            page_spans.push(PageSpan { bytes: span.bytes, scope: span.scope, columns });
        }
        let page = self.pages.add(&place, &page_spans)?;
        let count = |span: &NewSpan<'_>| (span.resource, span.status == status::ERROR);
        let counted = self.count_services(spans.iter().map(count));
        let root = self.root(spans);
        self.end_trace(&place, marks, page, end, root, counted);
        Ok(())
    }

    /// Counts spans, of which resource and failure are given, by service in the order of the
    /// services' names, and all errors.
    fn count_services(&mut self, spans: impl Iterator<Item = (u32, bool)>) -> (Range<usize>, u32) {
        self.counts.clear();
        let mut errors = 0;
        for (resource, failed) in spans {
            let service = self.services[resource as usize];
            let failed = u32::from(failed);
            errors += failed;
            match self.counts.iter_mut().find(|count| count.0 == service) {
                Some(count) => {
                    count.1 += 1;
                    count.2 += failed;
                }
                None => self.counts.push((service, 1, failed)),
            }
        }
        let texts = &self.traces.texts;
        self.counts.sort_unstable_by(|a, b| texts.get(a.0).cmp(texts.get(b.0)));
        let start = self.traces.services.len();
        self.traces.services.extend_from_slice(&self.counts);
        (start..self.traces.services.len(), errors)
    }

    /// Service and name of the first span without a parent; spans are in the order by which the
    /// model chooses among several.
    fn root(&mut self, spans: &[NewSpan<'_>]) -> Option<(u32, u32)> {
        let root = spans.iter().find(|span| span.parent_id == [0; 8])?;
        // The span was read before, so this cannot fail.
        let name = SpanView::parse(root.bytes).map_or("", |view| view.name);
        let name = self.traces.texts.intern(name);
        Some((self.services[root.resource as usize], name))
    }

    /// The whole block, with the index of the given terms.
    pub(super) fn finish(self, stores: &[StoreRows<'_>]) -> Result<Vec<u8>, BlockError> {
        let (resources, scopes) = (&self.resources, &self.scopes);
        let min_start = if self.rows == 0 { 0 } else { self.min_start };
        let traces = &self.traces.traces;
        let filter = TraceFilter::build(traces.iter().map(|trace| &trace.id));
        let mut split_ids = Vec::new();
        for trace in traces.iter().filter(|trace| trace.split) {
            split_ids.extend_from_slice(&trace.id.0);
        }
        let PagesParts { pages, columns, directory, shapes, entries } = self.pages.finish()?;
        let IndexParts { dictionary, postings, locator, numbers, keys } =
            write_index(stores, resources, scopes, &entries)?;
        let mut out = Sections::default();
        out.put_parts(SectionKind::Pages, pages);
        out.put(SectionKind::Dictionary, Codec::Raw, &dictionary)?;
        drop(dictionary);
        out.put(SectionKind::Postings, Codec::Raw, &postings)?;
        drop(postings);
        out.put(SectionKind::Locator, Codec::Raw, &locator)?;
        out.put(SectionKind::Numbers, Codec::Raw, &numbers)?;
        out.put_parts(SectionKind::Columns, columns);
        out.put(SectionKind::Traces, Codec::Zstd, &self.traces.finish(min_start))?;
        out.put(SectionKind::PageDirectory, Codec::Zstd, &directory)?;
        out.put(SectionKind::Resources, Codec::Zstd, &put_records(resources.entries()))?;
        out.put(SectionKind::Scopes, Codec::Zstd, &put_records(scopes.entries()))?;
        out.put(SectionKind::Shapes, Codec::Zstd, &shapes)?;
        out.put(SectionKind::Keys, Codec::Zstd, &put_keys(&keys))?;
        out.put(SectionKind::Filter, Codec::Raw, &filter.to_bytes())?;
        out.put(SectionKind::SplitIds, Codec::Raw, &split_ids)?;
        let footer = Footer {
            version: FORMAT_VERSION,
            tenant: self.meta.tenant,
            origin: self.meta.origin,
            lineage: self.meta.lineage,
            heritage: self.meta.heritage,
            spans: u64::from(self.rows),
            traces: traces.len() as u64,
            split: split_ids.len() as u64 / 16,
            min_start,
            max_end: self.max_end,
            footer_start: out.bytes.len() as u64,
            sections: out.sections,
            // Both are worked out from the rest.
            tail_length: 0,
            footer_length: 0,
        };
        let mut block = out.bytes;
        block.extend_from_slice(&footer.to_bytes());
        Ok(block)
    }
}

/// Sections one after the other.
#[derive(Default)]
struct Sections {
    zstd: Compressor,
    bytes: Vec<u8>,
    sections: Vec<Section>,
}

impl Sections {
    /// A section of parts that each have a checksum elsewhere.
    fn put_parts(&mut self, kind: SectionKind, mut parts: Vec<u8>) {
        let start = self.bytes.len() as u64;
        let raw_length = parts.len() as u64;
        if self.bytes.is_empty() {
            self.bytes = parts;
        } else {
            self.bytes.append(&mut parts);
        }
        self.sections.push(Section {
            kind: kind as u8,
            codec: Codec::Raw,
            bytes: start..start + raw_length,
            raw_length,
            crc32c: 0,
        });
    }

    fn put(&mut self, kind: SectionKind, codec: Codec, raw: &[u8]) -> Result<(), BlockError> {
        let start = self.bytes.len() as u64;
        let packed;
        let stored = match codec {
            Codec::Raw => raw,
            Codec::Zstd => {
                packed = self.zstd.compress(raw, SECTION_LEVEL)?;
                &packed
            }
        };
        self.bytes.extend_from_slice(stored);
        self.sections.push(Section {
            kind: kind as u8,
            codec,
            bytes: start..self.bytes.len() as u64,
            raw_length: raw.len() as u64,
            crc32c: crc32c::crc32c(stored),
        });
        Ok(())
    }
}

fn put_records<R: Describe>(entries: &[Entry<R>]) -> Vec<u8> {
    let mut out = Vec::new();
    put_varint(&mut out, entries.len() as u64);
    for entry in entries {
        put_bytes(&mut out, entry.record.message());
        put_bytes(&mut out, entry.record.schema_url().as_bytes());
    }
    out
}
