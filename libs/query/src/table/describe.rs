//! Entries of a search's answer from a head's table: what the table knows of each row sums the
//! trace up, and only the spans that are shown are parsed.

use std::collections::BTreeMap;
use std::sync::Arc;

use clew_block::{BlockError, RowFacts, RowSet, SpanTable};
use clew_model::otlp::SpanView;
use clew_model::otlp::view::status;
use clew_model::trace::{ServiceStats, Trace, TraceSummary};
use clew_model::{TraceId, UnixNanos};
use clew_proto::query::v1::FoundTrace;
use clew_proto::tempopb::{Span, SpanSet};

use crate::found::{found_trace, shown_span};
use crate::plan::SearchPlan;
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
    let mut services = Services::default();
    let mut rows: Vec<(u32, RowFacts)> = Vec::new();
    for &ordinal in ordinals {
        let Some(id) = table.trace_id(ordinal) else { continue };
        rows.clear();
        let facts = |row| Some((row, table.row_facts(row)?));
        rows.extend(table.rows_of_trace(ordinal, rows_max).filter_map(facts));
        rows.sort_unstable_by_key(|(_, facts)| (facts.span_id, facts.kind));
        let identity = |facts: &RowFacts| (facts.span_id, facts.kind);
        if rows.windows(2).any(|pair| identity(&pair[0].1) == identity(&pair[1].1)) {
            described.versions.push(ordinal);
            continue;
        }
        // The order in which the model keeps the spans of a trace.
        rows.sort_unstable_by_key(|(_, facts)| (facts.start, facts.span_id, facts.kind));
        let summary = sum_up(table, id, &rows, &mut services);
        if !plan.admits_duration(summary.duration_nanos()) {
            continue;
        }
        let mut set = SpanSet::default();
        for (row, _) in rows.iter().filter(|(row, _)| matches.contains(*row)) {
            set.matched += 1;
            if set.spans.len() < plan.spans_per_spanset() {
                set.spans.extend(shown(table, *row, plan)?);
            }
        }
        described.entries.push(found_trace(&summary, vec![set]));
    }
    Ok(described)
}

/// The names of resources' services, each read once.
#[derive(Default)]
struct Services(BTreeMap<u32, Arc<str>>);

impl Services {
    fn name(&mut self, table: &SpanTable, resource: u32) -> Arc<str> {
        let name = self.0.entry(resource).or_insert_with(|| {
            let record = table.resource(resource);
            Arc::from(record.and_then(|record| record.service_name()).unwrap_or_default())
        });
        Arc::clone(name)
    }
}

/// The trace's facts from rows in the model's order; the first root is the root.
fn sum_up(
    table: &SpanTable,
    id: TraceId,
    rows: &[(u32, RowFacts)],
    names: &mut Services,
) -> TraceSummary {
    let mut services: Vec<ServiceStats> = Vec::new();
    let mut errors = 0u32;
    for (_, facts) in rows {
        let failed = u32::from(facts.status == status::ERROR);
        errors = errors.saturating_add(failed);
        let name = names.name(table, facts.resource);
        match services.iter_mut().find(|service| service.name == name) {
            Some(service) => {
                service.spans = service.spans.saturating_add(1);
                service.errors = service.errors.saturating_add(failed);
            }
            None => services.push(ServiceStats { name, spans: 1, errors: failed }),
        }
    }
    services.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    let root = rows.iter().find(|(_, facts)| facts.is_root);
    let root_name = root.and_then(|(row, _)| {
        let record = table.span(*row)?;
        SpanView::parse(&record.bytes).ok().map(|span| Arc::from(span.name))
    });
    TraceSummary {
        id,
        start: UnixNanos(rows.iter().map(|(_, facts)| facts.start).min().unwrap_or(0)),
        end: UnixNanos(rows.iter().map(|(_, facts)| facts.end).max().unwrap_or(0)),
        root_service: root.map(|(_, facts)| names.name(table, facts.resource)),
        root_name,
        span_count: u32::try_from(rows.len()).unwrap_or(u32::MAX),
        error_count: errors,
        services,
    }
}

fn shown(table: &SpanTable, row: u32, plan: &SearchPlan) -> Result<Option<Span>, BlockError> {
    let Some(record) = table.span(row) else { return Ok(None) };
    // What is shown of a span does not depend on the rest of its trace.
    let trace = Trace { id: TraceId([0; 16]), spans: vec![record] };
    let view = TraceView::new(&trace)?;
    let shown = span_values(&view, 0).map(|values| shown_span(&values, plan.shown()));
    view.check()?;
    Ok(shown)
}
