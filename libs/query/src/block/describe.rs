//! Entries of a search's answer from a block's index, without its pages: the trace table says what
//! is said of a trace, the columns and the dictionary what is shown of its spans. Only what the
//! index does not hold of a span that is shown is read from a page. Pieces of split traces are told
//! the same way, and nothing is read for them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use clew_block::{Block, BlockError, BlockSearch, RowSet};
use clew_model::id;
use clew_model::otlp::view::resource_attributes;
use clew_model::{Trace, TraceId};
use clew_proto::common::v1::AnyValue;
use clew_proto::common::v1::any_value::Value;
use clew_proto::query::v1::FoundTrace;
use clew_proto::query::v1::piece::Shown as ShownSpan;
use clew_proto::tempopb::{Span, SpanSet};
use clew_traceql::FieldRef;
use clew_traceql::plan::{Field, Intrinsic, Scope, Test};
use clew_traceql::value::Static;

use super::pages::Pages;
use super::{BlockSource, QueryError};
use crate::found::{found_trace, message_of, shown_span, shown_value};
use crate::piece::{Pieces, say_summary};
use crate::plan::{SearchPlan, Shown};
use crate::select::{CutPiece, CutPieces, cut_pieces};
use crate::view::{TraceView, any_value_message, kind_of, span_values, status_of};

/// A trace that matched, and which of its rows are shown.
struct Outline {
    ordinal: u32,
    matched: u32,
    /// Places of its first shown row and behind its last one in the list of all.
    shown: Range<usize>,
}

/// Entries as far as the index knows them.
struct Described {
    outlines: Vec<Outline>,
    /// The rows that are shown, ascending.
    rows: Vec<u32>,
    /// The spans to be shown, by the places of their rows.
    spans: Vec<Option<Span>>,
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
            move || {
                let described = describe(&block, &index, &plan, &matches, ordinals)?;
                Ok(if described.unknown.is_empty() {
                    Ok(described.into_entries(&index))
                } else {
                    Err(described)
                })
            }
        };
        let mut described = match self.compute(work).await? {
            Ok(entries) => return Ok(entries),
            Err(described) => described,
        };
        let page_of = |row| block.pages().page_of_row(row);
        let wanted: BTreeSet<usize> = described.unknown.iter().filter_map(page_of).collect();
        let pages = self.pages(&block, wanted).await?;
        let plan = plan.clone();
        let read = move || {
            described.read_spans(&block, &pages, &plan)?;
            Ok(described.into_entries(&index))
        };
        self.compute(read).await
    }

    pub(super) async fn pieces_of_traces(
        &self,
        plan: &SearchPlan,
        ids: &[TraceId],
    ) -> Result<Pieces, QueryError> {
        let block = self.opened().await?;
        let ids: Vec<TraceId> =
            ids.iter().filter(|id| block.filter().contains(id)).copied().collect();
        if ids.is_empty() {
            return Ok(Pieces::default());
        }
        let verified = self.verified_index(plan.selection()).await?;
        let (index, plan) = (self.index().await?, plan.clone());
        self.compute(move || {
            let cut = cut_pieces(&verified, &plan, &ids)?;
            pieces(&block, &index, &plan, cut)
        })
        .await
    }
}

fn describe(
    block: &Block,
    index: &BlockSearch,
    plan: &SearchPlan,
    matches: &RowSet,
    mut ordinals: Vec<u32>,
) -> Result<Described, BlockError> {
    ordinals.sort_unstable();
    let mut outlines = Vec::with_capacity(ordinals.len());
    let mut rows: Vec<u32> = Vec::new();
    for ordinal in ordinals {
        let Some(trace) = index.traces().get(ordinal) else { continue };
        if !plan.admits_duration(trace.end.saturating_sub(trace.start)) {
            continue;
        }
        let (mut matched, first) = (0, rows.len());
        for row in matches.range(trace.rows.clone()) {
            matched += 1;
            if rows.len() - first < plan.spans_per_spanset() {
                rows.push(row);
            }
        }
        outlines.push(Outline { ordinal, matched, shown: first..rows.len() });
    }
    let (spans, unknown) = shown_rows(block, index, plan, &rows)?;
    Ok(Described { outlines, rows, spans, unknown })
}

/// The spans of rows, which ascend, as they are shown; and the rows of those that have to be read.
fn shown_rows(
    block: &Block,
    index: &BlockSearch,
    plan: &SearchPlan,
    rows: &[u32],
) -> Result<(Vec<Option<Span>>, RowSet), BlockError> {
    let set = RowSet::from_ascending(rows);
    let mut unknown = RowSet::new();
    let values: Vec<Values> = plan
        .shown()
        .iter()
        .map(|shown| Values::of(shown, block, index, plan, rows, &set, &mut unknown))
        .collect::<Result<_, _>>()?;
    let mut spans: Vec<Option<Span>> = Vec::with_capacity(rows.len());
    let mut values = values;
    for (at, row) in rows.iter().enumerate() {
        let known = unknown.is_empty() || !unknown.contains(*row);
        spans.push(known.then(|| shown_row(index, plan.shown(), &mut values, at, *row)));
    }
    Ok((spans, unknown))
}

/// Pieces of split traces with what the block says of them and with the spans that may be shown.
fn pieces(
    block: &Block,
    index: &BlockSearch,
    plan: &SearchPlan,
    mut cut: CutPieces,
) -> Result<Pieces, BlockError> {
    // Rows ascend with the ordinals of their traces.
    cut.pieces.sort_unstable_by_key(|piece| piece.ordinal);
    let rows: Vec<u32> =
        cut.pieces.iter().flat_map(|piece| piece.shown.iter().map(|(_, row)| *row)).collect();
    let (spans, _) = shown_rows(block, index, plan, &rows)?;
    let mut spans = spans.into_iter();
    let mut told = Pieces { pieces: Vec::with_capacity(cut.pieces.len()), unjudged: cut.unjudged };
    for CutPiece { ordinal, mut piece, shown } in cut.pieces {
        let of_piece = spans.by_ref().take(shown.len());
        // Those that would have to be read are left out; if one is to be shown, the trace is gathered.
        let shown = shown
            .iter()
            .zip(of_piece)
            .filter_map(|((place, _), span)| Some(ShownSpan { place: *place, span: Some(span?) }));
        piece.shown = shown.collect();
        let Some(trace) = index.traces().get(ordinal) else { continue };
        say_summary(&mut piece, &trace.summary());
        told.pieces.push(piece);
    }
    Ok(told)
}

/// What rows show under one field, by their places.
enum Values {
    /// Nothing, because the answer says it elsewhere.
    Nothing,
    /// The span's name.
    Names(Vec<Option<AnyValue>>),
    /// An attribute.
    Attributes(Vec<Option<AnyValue>>),
}

impl Values {
    /// Looks up what `rows`, also given as a set, show; adds those whose value the index does not
    /// hold to `unknown`.
    fn of(
        shown: &Shown,
        block: &Block,
        index: &BlockSearch,
        plan: &SearchPlan,
        rows: &[u32],
        set: &RowSet,
        unknown: &mut RowSet,
    ) -> Result<Values, BlockError> {
        let (name, on_span, on_resource) = match &shown.field {
            FieldRef::Attribute { parent: true, .. } | FieldRef::Parent => {
                return Ok(Values::Nothing);
            }
            FieldRef::Attribute { scope: None, name, .. } => (name, true, true),
            FieldRef::Attribute { scope: Some(Scope::Span), name, .. } => (name, true, false),
            FieldRef::Attribute { scope: Some(Scope::Resource), name, .. } => (name, false, true),
            FieldRef::Attribute { .. } => {
                unknown.unite(set);
                return Ok(Values::Nothing);
            }
            FieldRef::Intrinsic { intrinsic, .. } => {
                return Values::of_intrinsic(*intrinsic, index, rows, set, unknown);
            }
        };
        let mut values = vec![None; rows.len()];
        if on_span {
            let field = Field::Attribute(Scope::Span, Arc::from(&**name));
            let test = plan.test_on(&field);
            look_up(index, &field, test, rows, set, &mut values, unknown)?;
        }
        if on_resource {
            add_resource_values(block, index, name, rows, &mut values);
        }
        Ok(Values::Attributes(values))
    }

    fn of_intrinsic(
        intrinsic: Intrinsic,
        index: &BlockSearch,
        rows: &[u32],
        set: &RowSet,
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
                let mut names = vec![None; rows.len()];
                let field = Field::Intrinsic(Intrinsic::Name);
                look_up(index, &field, None, rows, set, &mut names, unknown)?;
                Ok(Values::Names(names))
            }
            Intrinsic::Status | Intrinsic::Kind => {
                let columns = index.columns();
                let word = |row: &u32| -> Option<AnyValue> {
                    Some(message_of(&match intrinsic {
                        Intrinsic::Kind => Static::Kind(kind_of(columns.kind(*row)?.into())),
                        _ => Static::Status(status_of(columns.status(*row)?.into())),
                    }))
                };
                Ok(Values::Attributes(rows.iter().map(word).collect()))
            }
            _ => {
                unknown.unite(set);
                Ok(Values::Nothing)
            }
        }
    }
}

/// Fills in the values that rows have under a field.
fn look_up(
    index: &BlockSearch,
    field: &Field,
    test: Option<&Test>,
    rows: &[u32],
    set: &RowSet,
    values: &mut [Option<AnyValue>],
    unknown: &mut RowSet,
) -> Result<(), BlockError> {
    let mut zeros = RowSet::new();
    let others = index.row_values(field, set, test, &mut |row, value| {
        // Both zeros are one value in the index.
        if matches!(value, Static::Float(0.0)) {
            zeros.insert(row);
        } else if let Ok(at) = rows.binary_search(&row) {
            values[at] = Some(message_of(value));
        }
    })?;
    unknown.unite(&others);
    unknown.unite(&zeros);
    Ok(())
}

/// Adds what the resources of rows have under a name, where there is no value yet.
fn add_resource_values(
    block: &Block,
    index: &BlockSearch,
    name: &str,
    rows: &[u32],
    values: &mut [Option<AnyValue>],
) {
    let mut known: BTreeMap<u32, Option<AnyValue>> = BTreeMap::new();
    for (row, value) in rows.iter().zip(values).filter(|(_, value)| value.is_none()) {
        let Some(ordinal) = index.columns().resource(*row) else { continue };
        let of_resource = known.entry(ordinal).or_insert_with(|| {
            let resource = block.records().resources.get(ordinal as usize)?;
            let mut pairs = resource_attributes(&resource.bytes).map_while(Result::ok);
            let message = any_value_message(&pairs.find(|pair| pair.key == name)?.value).ok()?;
            message.value.is_some().then_some(message)
        });
        value.clone_from(of_resource);
    }
}

fn shown_row(
    index: &BlockSearch,
    fields: &[Shown],
    values: &mut [Values],
    at: usize,
    row: u32,
) -> Span {
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
            Values::Names(names) => {
                if let Some(Value::StringValue(name)) = names[at].take().and_then(|n| n.value) {
                    span.name = name;
                }
            }
            Values::Attributes(values) => {
                span.attributes.extend(shown_value(shown, values[at].take()));
            }
        }
    }
    span
}

impl Described {
    /// Fills in the spans that the index does not know, from their pages.
    fn read_spans(
        &mut self,
        block: &Block,
        pages: &Pages,
        plan: &SearchPlan,
    ) -> Result<(), BlockError> {
        for (row, span) in self.rows.iter().zip(&mut self.spans).filter(|(_, span)| span.is_none())
        {
            let page = block.pages().page_of_row(*row).and_then(|page| pages.get(&page));
            let Some(page) = page else { continue };
            let Some(record) = page.span(*row, block.records())? else { continue };
            // What is shown of a span does not depend on the rest of its trace.
            let trace = Trace { id: TraceId([0; 16]), spans: vec![record] };
            let view = TraceView::new(&trace)?;
            *span = span_values(&view, 0).map(|values| shown_span(&values, plan));
            view.check()?;
        }
        Ok(())
    }

    fn into_entries(mut self, index: &BlockSearch) -> Vec<FoundTrace> {
        let mut entries = Vec::with_capacity(self.outlines.len());
        for outline in &self.outlines {
            let Some(trace) = index.traces().get(outline.ordinal) else { continue };
            let shown = self.spans.get_mut(outline.shown.clone()).unwrap_or_default();
            let spans = shown.iter_mut().filter_map(Option::take).collect();
            let set = SpanSet { spans, matched: outline.matched, attributes: Vec::new() };
            entries.push(found_trace(&trace.summary(), vec![set]));
        }
        entries
    }
}
