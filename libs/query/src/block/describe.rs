//! Entries of a search's answer from a block's index, without its pages: the trace table says what
//! is said of a trace, the columns and the dictionary what is shown of its spans. Only what the
//! index does not hold of a span that is shown is read from a page.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use clew_block::{Block, BlockError, BlockSearch, RowSet};
use clew_model::id;
use clew_model::otlp::view::resource_attributes;
use clew_model::{Trace, TraceId};
use clew_proto::common::v1::AnyValue;
use clew_proto::query::v1::FoundTrace;
use clew_proto::tempopb::{Span, SpanSet};
use clew_traceql::FieldRef;
use clew_traceql::plan::{Field, Intrinsic, Scope};
use clew_traceql::value::Static;

use super::pages::Pages;
use super::{BlockSource, QueryError};
use crate::found::{found_trace, message_of, shown_span, shown_value};
use crate::plan::{SearchPlan, Shown};
use crate::view::{TraceView, any_value_message, kind_of, span_values, status_of};

/// A trace that matched, and which of its rows are shown.
struct Outline {
    ordinal: u32,
    matched: u32,
    shown: Vec<u32>,
}

/// Entries as far as the index knows them.
struct Described {
    outlines: Vec<Outline>,
    /// The spans to be shown, by row.
    spans: BTreeMap<u32, Span>,
    /// Rows of spans that have to be read.
    unknown: RowSet,
}

impl BlockSource {
    pub(super) async fn describe_traces(
        &self,
        plan: &SearchPlan,
        matches: &Arc<RowSet>,
        ordinals: &[u32],
    ) -> Result<Vec<FoundTrace>, QueryError> {
        let (block, index) = (self.opened().await?, self.index().await?);
        let work = {
            let (block, index) = (Arc::clone(&block), Arc::clone(&index));
            let (plan, matches, ordinals) = (plan.clone(), Arc::clone(matches), ordinals.to_vec());
            move || describe(&block, &index, &plan, &matches, &ordinals)
        };
        let mut described = self.compute(work).await?;
        if !described.unknown.is_empty() {
            let page_of = |row| block.pages().page_of_row(row);
            let wanted: BTreeSet<usize> = described.unknown.iter().filter_map(page_of).collect();
            let pages = self.pages(&block, wanted).await?;
            let (unknown, plan) = (std::mem::take(&mut described.unknown), plan.clone());
            let read = move || read_spans(&block, &pages, &unknown, plan.shown());
            described.spans.extend(self.compute(read).await?);
        }
        self.compute(move || Ok(described.into_entries(&index))).await
    }
}

fn describe(
    block: &Block,
    index: &BlockSearch,
    plan: &SearchPlan,
    matches: &RowSet,
    ordinals: &[u32],
) -> Result<Described, BlockError> {
    let mut outlines = Vec::with_capacity(ordinals.len());
    let mut rows = RowSet::new();
    for &ordinal in ordinals {
        let Some(trace) = index.traces().get(ordinal) else { continue };
        if !plan.admits_duration(trace.end.saturating_sub(trace.start)) {
            continue;
        }
        let mut outline = Outline { ordinal, matched: 0, shown: Vec::new() };
        for row in matches.range(trace.rows.clone()) {
            outline.matched += 1;
            if outline.shown.len() < plan.spans_per_spanset() {
                outline.shown.push(row);
                rows.insert(row);
            }
        }
        outlines.push(outline);
    }
    let mut unknown = RowSet::new();
    let mut spans: BTreeMap<u32, Span> = BTreeMap::new();
    let values: Vec<Values> = plan
        .shown()
        .iter()
        .map(|shown| Values::of(shown, block, index, plan, &rows, &mut unknown))
        .collect::<Result<_, _>>()?;
    for row in rows.iter().filter(|row| !unknown.contains(*row)) {
        spans.insert(row, shown_row(index, plan.shown(), &values, row));
    }
    Ok(Described { outlines, spans, unknown })
}

/// What rows show under one field.
enum Values {
    /// Nothing, because the answer says it elsewhere.
    Nothing,
    /// The span's name.
    Names(BTreeMap<u32, String>),
    /// An attribute.
    Attributes(BTreeMap<u32, AnyValue>),
}

impl Values {
    /// Looks up what `rows` show; adds those whose value the index does not hold to `unknown`.
    fn of(
        shown: &Shown,
        block: &Block,
        index: &BlockSearch,
        plan: &SearchPlan,
        rows: &RowSet,
        unknown: &mut RowSet,
    ) -> Result<Values, BlockError> {
        let mut values = BTreeMap::new();
        let mut look_up = |field: &Field| -> Result<(), BlockError> {
            let test = plan.test_on(field);
            let others = index.row_values(field, rows, test, &mut |row, value| {
                values.insert(row, message_of(value));
            })?;
            unknown.unite(&others);
            Ok(())
        };
        let (name, on_span, on_resource) = match &shown.field {
            FieldRef::Attribute { parent: true, .. } | FieldRef::Parent => {
                return Ok(Values::Nothing);
            }
            FieldRef::Attribute { scope: None, name, .. } => (name, true, true),
            FieldRef::Attribute { scope: Some(Scope::Span), name, .. } => (name, true, false),
            FieldRef::Attribute { scope: Some(Scope::Resource), name, .. } => (name, false, true),
            FieldRef::Attribute { .. } => {
                unknown.unite(rows);
                return Ok(Values::Nothing);
            }
            FieldRef::Intrinsic { intrinsic, .. } => {
                return Values::of_intrinsic(*intrinsic, index, rows, unknown);
            }
        };
        if on_span {
            look_up(&Field::Attribute(Scope::Span, Arc::from(&**name)))?;
        }
        if on_resource {
            add_resource_values(block, index, name, rows, &mut values);
        }
        Ok(Values::Attributes(values))
    }

    fn of_intrinsic(
        intrinsic: Intrinsic,
        index: &BlockSearch,
        rows: &RowSet,
        unknown: &mut RowSet,
    ) -> Result<Values, BlockError> {
        match intrinsic {
            Intrinsic::Duration
            | Intrinsic::SpanId
            | Intrinsic::TraceId
            | Intrinsic::TraceDuration
            | Intrinsic::RootName
            | Intrinsic::RootService => Ok(Values::Nothing),
            Intrinsic::Name => {
                let mut names = BTreeMap::new();
                let field = Field::Intrinsic(Intrinsic::Name);
                let others = index.row_values(&field, rows, None, &mut |row, value| {
                    if let Static::String(name) = value {
                        names.insert(row, name.to_string());
                    }
                })?;
                unknown.unite(&others);
                Ok(Values::Names(names))
            }
            Intrinsic::Status | Intrinsic::Kind => {
                let word = |row| -> Option<Static> {
                    let columns = index.columns();
                    Some(match intrinsic {
                        Intrinsic::Kind => Static::Kind(kind_of(columns.kind(row)?.into())),
                        _ => Static::Status(status_of(columns.status(row)?.into())),
                    })
                };
                let message = |row| Some((row, message_of(&word(row)?)));
                Ok(Values::Attributes(rows.iter().filter_map(message).collect()))
            }
            _ => {
                unknown.unite(rows);
                Ok(Values::Nothing)
            }
        }
    }
}

/// Adds what the resources of rows have under a name, where there is no value yet.
fn add_resource_values(
    block: &Block,
    index: &BlockSearch,
    name: &str,
    rows: &RowSet,
    values: &mut BTreeMap<u32, AnyValue>,
) {
    let mut known: BTreeMap<u32, Option<AnyValue>> = BTreeMap::new();
    for row in rows.iter().filter(|row| !values.contains_key(row)).collect::<Vec<_>>() {
        let Some(ordinal) = index.columns().resource(row) else { continue };
        let value = known.entry(ordinal).or_insert_with(|| {
            let resource = block.records().resources.get(ordinal as usize)?;
            let mut pairs = resource_attributes(&resource.bytes).map_while(Result::ok);
            let message = any_value_message(&pairs.find(|pair| pair.key == name)?.value).ok()?;
            message.value.is_some().then_some(message)
        });
        if let Some(value) = value {
            values.insert(row, value.clone());
        }
    }
}

fn shown_row(index: &BlockSearch, fields: &[Shown], values: &[Values], row: u32) -> Span {
    let (start, end) = index.row_start_end(row).unwrap_or_default();
    let mut span = Span {
        span_id: id::to_hex(&index.columns().span_id(row).unwrap_or_default()),
        start_time_unix_nano: start,
        duration_nanos: end.saturating_sub(start),
        ..Span::default()
    };
    for (shown, values) in fields.iter().zip(values) {
        match values {
            Values::Nothing => {}
            Values::Names(names) => span.name = names.get(&row).cloned().unwrap_or_default(),
            Values::Attributes(values) => {
                span.attributes.extend(shown_value(shown, values.get(&row).cloned()));
            }
        }
    }
    span
}

/// The spans of rows as they are shown, from their pages.
fn read_spans(
    block: &Block,
    pages: &Pages,
    rows: &RowSet,
    fields: &[Shown],
) -> Result<BTreeMap<u32, Span>, BlockError> {
    let mut spans = BTreeMap::new();
    for row in rows.iter() {
        let page = block.pages().page_of_row(row).and_then(|page| pages.get(&page));
        let Some(page) = page else { continue };
        let Some(record) = page.span(row, block.records())? else { continue };
        // What is shown of a span does not depend on the rest of its trace.
        let trace = Trace { id: TraceId([0; 16]), spans: vec![record] };
        let view = TraceView::new(&trace)?;
        if let Some(values) = span_values(&view, 0) {
            spans.insert(row, shown_span(&values, fields));
        }
        view.check()?;
    }
    Ok(spans)
}

impl Described {
    fn into_entries(mut self, index: &BlockSearch) -> Vec<FoundTrace> {
        let mut entries = Vec::with_capacity(self.outlines.len());
        for outline in &self.outlines {
            let Some(trace) = index.traces().get(outline.ordinal) else { continue };
            let spans = outline.shown.iter().filter_map(|row| self.spans.remove(row)).collect();
            let set = SpanSet { spans, matched: outline.matched, attributes: Vec::new() };
            entries.push(found_trace(&trace.summary(), vec![set]));
        }
        entries
    }
}
