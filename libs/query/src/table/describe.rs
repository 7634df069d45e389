//! Entries of a search's answer from a head's table: what the table knows of each row sums the
//! trace up, and only the spans that are shown are parsed.

use std::collections::BTreeMap;
use std::sync::Arc;

use clew_block::{BlockError, RowFacts, RowSet, SpanTable};
use clew_model::otlp::SpanView;
use clew_model::otlp::view::status;
use clew_model::trace::{ServiceStats, SpanRecord, Trace, TraceSummary};
use clew_model::{TraceId, UnixNanos};
use clew_proto::query::v1::piece::Shown;
use clew_proto::query::v1::{FoundTrace, Piece};
use clew_proto::tempopb::{Span, SpanSet};

use crate::found::{found_trace, shown_span};
use crate::piece::say_summary;
use crate::plan::SearchPlan;
use crate::select::CutPiece;
use crate::view::{TraceView, span_values};

/// The entries of traces, and the ordinals of those that have to be judged whole because a span is
/// there in several versions.
#[derive(Default)]
pub(super) struct Described {
    pub(super) entries: Vec<FoundTrace>,
    pub(super) versions: Vec<u32>,
}

/// Describes traces of a table cut at a row.
pub(super) fn describe(
    table: &SpanTable,
    rows_max: u32,
    plan: &SearchPlan,
    matches: &RowSet,
    ordinals: &[u32],
) -> Result<Described, BlockError> {
    let mut described = Described::default();
    let mut tally = Tally::new(table);
    for &ordinal in ordinals {
        let Some(id) = table.trace_id(ordinal) else { continue };
        tally.count(ordinal, rows_max, matches);
        if tally.has_versions() {
            described.versions.push(ordinal);
            continue;
        }
        if !plan.admits_duration(tally.end.saturating_sub(tally.start)) {
            continue;
        }
        let summary = tally.summary(id);
        let mut set = SpanSet {
            matched: u32::try_from(tally.matched.len()).unwrap_or(u32::MAX),
            ..SpanSet::default()
        };
        for row in tally.first_matches(plan.spans_per_spanset()) {
            set.spans.extend(shown(table, row, plan)?);
        }
        described.entries.push(found_trace(&summary, vec![set]));
    }
    Ok(described)
}

/// Pieces of split traces with what the table says of them and with the spans that may be shown.
pub(super) fn pieces(
    table: &SpanTable,
    rows_max: u32,
    plan: &SearchPlan,
    cut: Vec<CutPiece>,
) -> Result<Vec<Piece>, BlockError> {
    let mut tally = Tally::new(table);
    let mut pieces = Vec::with_capacity(cut.len());
    for CutPiece { ordinal, mut piece, shown: places } in cut {
        let Some(id) = table.trace_id(ordinal) else { continue };
        tally.count(ordinal, rows_max, &RowSet::new());
        say_summary(&mut piece, &tally.summary(id));
        for (place, row) in places {
            piece.shown.push(Shown { place, span: shown(table, row, plan)? });
        }
        pieces.push(piece);
    }
    Ok(pieces)
}

/// The order in which the model keeps the spans of a trace: start, span id, kind.
type Order = (u64, [u8; 8], i32);

/// What the rows of one trace add up to; its lists are used again for the next trace.
struct Tally<'a> {
    table: &'a SpanTable,
    services: Services,
    start: u64,
    end: u64,
    root: Option<(Order, u32)>,
    /// Span ids as numbers, and the kinds, of all rows.
    ids: Vec<(u64, i32)>,
    /// The rows that match.
    matched: Vec<(Order, u32)>,
    /// Spans and failed ones by service.
    counts: Vec<(u32, u32)>,
    /// The services with a count.
    counted: Vec<u32>,
}

impl<'a> Tally<'a> {
    fn new(table: &'a SpanTable) -> Tally<'a> {
        Tally {
            table,
            services: Services::default(),
            start: 0,
            end: 0,
            root: None,
            ids: Vec::new(),
            matched: Vec::new(),
            counts: Vec::new(),
            counted: Vec::new(),
        }
    }

    fn clear(&mut self) {
        (self.start, self.end, self.root) = (u64::MAX, 0, None);
        self.ids.clear();
        self.matched.clear();
        for service in self.counted.drain(..) {
            self.counts[service as usize] = (0, 0);
        }
    }

    fn count(&mut self, ordinal: u32, rows_max: u32, matches: &RowSet) {
        self.clear();
        for row in self.table.rows_of_trace(ordinal, rows_max) {
            let Some(facts) = self.table.row_facts(row) else { continue };
            self.start = self.start.min(facts.start);
            self.end = self.end.max(facts.end);
            self.ids.push((u64::from_be_bytes(facts.span_id), facts.kind));
            let order = (facts.start, facts.span_id, facts.kind);
            if facts.is_root && self.root.is_none_or(|(best, _)| order < best) {
                self.root = Some((order, row));
            }
            if matches.contains(row) {
                self.matched.push((order, row));
            }
            self.count_service(&facts);
        }
        self.start = self.start.min(self.end);
    }

    fn count_service(&mut self, facts: &RowFacts) {
        let service = self.services.of(self.table, facts.resource);
        let at = service as usize;
        if at >= self.counts.len() {
            self.counts.resize(at + 1, (0, 0));
        }
        let (spans, errors) = &mut self.counts[at];
        if *spans == 0 {
            self.counted.push(service);
        }
        *spans = spans.saturating_add(1);
        *errors = errors.saturating_add(u32::from(facts.status == status::ERROR));
    }

    /// Whether a span is there in several versions.
    fn has_versions(&mut self) -> bool {
        self.ids.sort_unstable();
        self.ids.windows(2).any(|pair| pair[0] == pair[1])
    }

    /// The first of the rows that match, at most `count`.
    fn first_matches(&mut self, count: usize) -> impl Iterator<Item = u32> + '_ {
        if self.matched.len() > count {
            self.matched.select_nth_unstable(count);
            self.matched.truncate(count);
        }
        self.matched.sort_unstable();
        self.matched.iter().map(|(_, row)| *row)
    }

    fn summary(&mut self, id: TraceId) -> TraceSummary {
        let names = &self.services.names;
        self.counted.sort_unstable_by(|a, b| names[*a as usize].cmp(&names[*b as usize]));
        let stats = |service: &u32| {
            let (spans, errors) = self.counts[*service as usize];
            ServiceStats { name: Arc::clone(&names[*service as usize]), spans, errors }
        };
        let services: Vec<ServiceStats> = self.counted.iter().map(stats).collect();
        let errors = services.iter().map(|service| service.errors);
        let root = self.root.and_then(|(_, row)| self.table.span(row));
        let root_name =
            |root: &SpanRecord| Some(Arc::from(SpanView::parse(&root.bytes).ok()?.name));
        let root_service =
            |root: &SpanRecord| Arc::from(root.resource.service_name().unwrap_or_default());
        TraceSummary {
            id,
            start: UnixNanos(self.start),
            end: UnixNanos(self.end),
            root_service: root.as_ref().map(root_service),
            root_name: root.as_ref().and_then(root_name),
            span_count: u32::try_from(self.ids.len()).unwrap_or(u32::MAX),
            error_count: errors.fold(0, u32::saturating_add),
            services,
        }
    }
}

/// Numbers the services of a table's resources, each of which is read once.
#[derive(Default)]
struct Services {
    /// The service of each resource; [`Services::UNREAD`] until it is asked for.
    of_resource: Vec<u32>,
    names: Vec<Arc<str>>,
    numbers: BTreeMap<Arc<str>, u32>,
}

impl Services {
    const UNREAD: u32 = u32::MAX;

    fn of(&mut self, table: &SpanTable, resource: u32) -> u32 {
        let at = resource as usize;
        if at >= self.of_resource.len() {
            self.of_resource.resize(at + 1, Services::UNREAD);
        }
        if self.of_resource[at] == Services::UNREAD {
            let name = table.resource(resource).and_then(|record| record.service_name());
            self.of_resource[at] = self.number(Arc::from(name.unwrap_or_default()));
        }
        self.of_resource[at]
    }

    fn number(&mut self, name: Arc<str>) -> u32 {
        let names = &mut self.names;
        *self.numbers.entry(Arc::clone(&name)).or_insert_with(|| {
            names.push(name);
            u32::try_from(names.len() - 1).unwrap_or(Services::UNREAD)
        })
    }
}

fn shown(table: &SpanTable, row: u32, plan: &SearchPlan) -> Result<Option<Span>, BlockError> {
    let Some(record) = table.span(row) else { return Ok(None) };
    // What is shown of a span does not depend on the rest of its trace.
    let trace = Trace { id: TraceId([0; 16]), spans: vec![record] };
    let view = TraceView::new(&trace)?;
    let shown = span_values(&view, 0).map(|values| shown_span(&values, plan));
    view.check()?;
    Ok(shown)
}
