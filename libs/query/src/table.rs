//! A head as a source: a span table in memory, cut at a row.

mod describe;

use std::ops::ControlFlow;
use std::sync::Arc;

use async_trait::async_trait;
use clew_block::{BlockError, LookupResult, RowFacts, RowSet, SpanTable};
use clew_model::{Trace, TraceId, UnixNanos};
use clew_node::Tasks;
use clew_proto::query::v1::FoundTrace;
use clew_traceql::plan::{Condition, Scope};
use clew_traceql::value::Static;
use parking_lot::RwLock;

use crate::QueryError;
use crate::piece::Pieces;
use crate::plan::SearchPlan;
use crate::search::judge_all;
use crate::select::{FilterRows, RowIndex, TraceRows, cut_pieces, exact_rows, select};
use crate::source::{Candidate, Selected, Selection, SourceInfo, SourceKind, SpanSource};
use crate::structure::{Link, Parent, parents};
use crate::tags::{TagField, long_value};

/// The rows of a span table below a limit. Several tables of a shard may hold pieces of one trace;
/// whoever fills them marks such a trace as split in each.
#[derive(Clone)]
pub struct TableSource {
    info: SourceInfo,
    table: Handle,
    rows_max: u32,
    tasks: Tasks,
}

#[derive(Clone)]
enum Handle {
    Sealed(Arc<SpanTable>),
    Active(Arc<RwLock<SpanTable>>),
}

impl Handle {
    fn read<R>(&self, read: impl FnOnce(&SpanTable) -> R) -> R {
        match self {
            Handle::Sealed(table) => read(table),
            Handle::Active(table) => read(&table.read()),
        }
    }
}

impl TableSource {
    /// A table that grows no more.
    pub fn sealed(name: &str, table: Arc<SpanTable>, rows_max: u32, tasks: Tasks) -> TableSource {
        TableSource::new(name, Handle::Sealed(table), rows_max, tasks)
    }

    /// A table that grows while it is read. Its writer waits while a step of a query reads it.
    pub fn active(
        name: &str,
        table: Arc<RwLock<SpanTable>>,
        rows_max: u32,
        tasks: Tasks,
    ) -> TableSource {
        TableSource::new(name, Handle::Active(table), rows_max, tasks)
    }

    fn new(name: &str, table: Handle, rows_max: u32, tasks: Tasks) -> TableSource {
        let info = table.read(|table| {
            let (min_time, max_time) = table.start_end().unwrap_or((0, u64::MAX));
            SourceInfo {
                name: Arc::from(name),
                kind: SourceKind::Head,
                spans: u64::from(table.row_count().min(rows_max)),
                traces: u64::from(table.trace_count()),
                bytes: table.memory_bytes() as u64,
                min_time: UnixNanos(min_time),
                max_time: UnixNanos(max_time),
            }
        });
        TableSource { info, table, rows_max, tasks }
    }

    async fn compute<R: Send + 'static>(
        &self,
        work: impl FnOnce(&SpanTable, u32) -> Result<R, BlockError> + Send + 'static,
    ) -> Result<R, QueryError> {
        let (table, rows_max) = (self.table.clone(), self.rows_max);
        let done = self.tasks.compute(move || table.read(|table| work(table, rows_max))).await?;
        done.map_err(QueryError::block(&self.info.name))
    }
}

/// A table cut at a row.
struct Cut<'a> {
    table: &'a SpanTable,
    rows_max: u32,
}

impl RowIndex for Cut<'_> {
    fn lookup(&self, condition: &Condition) -> Result<LookupResult, BlockError> {
        self.table.lookup(condition, self.rows_max)
    }

    fn filter(&self, condition: &Condition, rows: &mut RowSet) -> Option<bool> {
        self.table.filter(condition, rows)
    }

    fn trace_count(&self) -> u32 {
        self.table.trace_count()
    }

    fn traces_of(&self, rows: &RowSet) -> RowSet {
        RowSet::from_ascending(&self.table.traces_of_rows(rows.iter()))
    }

    fn candidate(&self, ordinal: u32) -> Option<Candidate> {
        Some(Candidate::new(ordinal, &self.table.trace_extent(ordinal, self.rows_max)?))
    }

    fn add_rows(&self, ordinal: u32, rows: &mut RowSet) {
        self.table.rows_of_trace(ordinal, self.rows_max).for_each(|row| rows.insert(row));
    }

    fn has_row(&self, ordinal: u32, rows: &RowSet) -> bool {
        self.table.rows_of_trace(ordinal, self.rows_max).any(|row| rows.contains(row))
    }

    fn newest_starts(&self) -> &[u64] {
        self.table.newest_starts()
    }

    fn find(&self, id: &TraceId) -> Option<u32> {
        let ordinal = self.table.find(id)?;
        self.table.trace_extent(ordinal, self.rows_max).map(|_| ordinal)
    }

    /// A trace's spans arrive in several batches, and other traces' between them.
    fn is_scattered(&self) -> bool {
        true
    }

    fn trace_rows(&self, ordinal: u32) -> Option<Box<dyn TraceRows + '_>> {
        let table = self.table;
        let entry = |row| {
            let RowFacts { span_id, kind, .. } = table.row_facts(row)?;
            Some(TraceRow { id: u64::from_be_bytes(span_id), kind, row })
        };
        let rows = table.rows_of_trace(ordinal, self.rows_max);
        let mut rows: Vec<TraceRow> = rows.filter_map(entry).collect();
        rows.sort_unstable_by_key(|row| (row.id, row.kind));
        let same_id = |pair: &[TraceRow]| pair[0].id == pair[1].id;
        if !rows.windows(2).any(same_id) {
            return Some(Box::new(TableTrace { table, rows, parents: None }));
        }
        if rows.windows(2).any(|pair| same_id(pair) && pair[0].kind == pair[1].kind) {
            return None;
        }
        // Two sides of a call under one id: which one is the parent depends on the model's order.
        let facts = |row: &TraceRow| table.row_facts(row.row);
        rows.sort_by_cached_key(|row| (facts(row).map(|facts| facts.start), row.id, row.kind));
        let facts: Vec<RowFacts> = rows.iter().map(facts).collect::<Option<_>>()?;
        let link = |facts: &RowFacts| Link {
            id: facts.span_id,
            parent: facts.parent_id,
            kind: facts.kind,
        };
        let links: Vec<Link> = facts.iter().map(link).collect();
        let parents = Some(parents(&links, |a, b| facts[a].resource == facts[b].resource));
        Some(Box::new(TableTrace { table, rows, parents }))
    }

    fn duration(&self, row: u32) -> Option<u64> {
        self.table.row_start_end(row).map(|(start, end)| end.saturating_sub(start))
    }

    fn start_end(&self, row: u32) -> Option<(u64, u64)> {
        self.table.row_start_end(row)
    }
}

/// What the rows of a trace are sorted by: small, as sorting them is most of what judging a trace costs.
#[derive(Clone, Copy)]
struct TraceRow {
    /// The span's id as a number.
    id: u64,
    kind: i32,
    row: u32,
}

/// A trace of a table: sorted by span id, or in the model's order with its parents.
struct TableTrace<'a> {
    table: &'a SpanTable,
    rows: Vec<TraceRow>,
    parents: Option<Vec<Parent>>,
}

impl TableTrace<'_> {
    fn facts(&self, place: u32) -> Option<RowFacts> {
        self.table.row_facts(self.rows.get(place as usize)?.row)
    }
}

impl TraceRows for TableTrace<'_> {
    fn count(&self) -> u32 {
        u32::try_from(self.rows.len()).unwrap_or(u32::MAX)
    }

    fn row(&self, place: u32) -> u32 {
        self.rows.get(place as usize).map_or(u32::MAX, |row| row.row)
    }

    fn places(&self, rows: &FilterRows) -> Vec<u32> {
        let passes = |(at, row): (u32, &TraceRow)| rows.contains(row.row).then_some(at);
        (0u32..).zip(&self.rows).filter_map(passes).collect()
    }

    fn parent(&self, place: u32) -> Parent {
        if let Some(parents) = &self.parents {
            return parents.get(place as usize).copied().unwrap_or(Parent::Missing);
        }
        let Some(facts) = self.facts(place) else { return Parent::Missing };
        if facts.is_root {
            return Parent::Root;
        }
        if facts.parent_id == facts.span_id {
            return Parent::Missing;
        }
        let parent = u64::from_be_bytes(facts.parent_id);
        let found = self.rows.binary_search_by_key(&parent, |row| row.id);
        found.ok().and_then(|at| u32::try_from(at).ok()).map_or(Parent::Missing, Parent::Span)
    }

    fn span_id(&self, place: u32) -> Option<[u8; 8]> {
        self.rows.get(place as usize).map(|row| row.id.to_be_bytes())
    }

    fn absent_parent(&self, place: u32) -> Option<[u8; 8]> {
        self.facts(place).map(|facts| facts.parent_id)
    }
}

#[async_trait]
impl SpanSource for TableSource {
    fn info(&self) -> &SourceInfo {
        &self.info
    }

    async fn select(&self, selection: &Arc<Selection>) -> Result<Selected, QueryError> {
        let selection = Arc::clone(selection);
        self.compute(move |table, rows_max| select(&Cut { table, rows_max }, &selection)).await
    }

    async fn fetch(&self, ordinals: &[u32]) -> Result<Vec<Trace>, QueryError> {
        let ordinals = ordinals.to_vec();
        self.compute(move |table, rows_max| {
            let fetched = ordinals.iter().filter_map(|ordinal| table.fetch(*ordinal, rows_max));
            Ok(fetched.filter_map(|trace| Trace::merge([trace])).collect())
        })
        .await
    }

    async fn describe(
        &self,
        plan: &SearchPlan,
        matches: &Arc<RowSet>,
        ordinals: &[u32],
    ) -> Result<Vec<FoundTrace>, QueryError> {
        let (plan, matches, ordinals) = (plan.clone(), Arc::clone(matches), ordinals.to_vec());
        let name = Arc::clone(&self.info.name);
        let done = self
            .compute(move |table, rows_max| {
                let described = describe::describe(table, rows_max, &plan, &matches, &ordinals)?;
                let fetch = |ordinal: &u32| Trace::merge([table.fetch(*ordinal, rows_max)?]);
                let traces: Vec<Trace> = described.versions.iter().filter_map(fetch).collect();
                Ok((described.entries, judge_all(&traces, &plan, &name)))
            })
            .await?;
        let (mut entries, judged) = done;
        entries.append(&mut judged?);
        Ok(entries)
    }

    async fn pieces(&self, plan: &SearchPlan, ids: &[TraceId]) -> Result<Pieces, QueryError> {
        let (plan, ids) = (plan.clone(), ids.to_vec());
        self.compute(move |table, rows_max| {
            let cut = cut_pieces(&Cut { table, rows_max }, &plan, &ids)?;
            let pieces = describe::pieces(table, rows_max, &plan, cut.pieces)?;
            Ok(Pieces { pieces, unjudged: cut.unjudged })
        })
        .await
    }

    async fn find(&self, ids: &[TraceId]) -> Result<Vec<Option<u32>>, QueryError> {
        let ids = ids.to_vec();
        self.compute(move |table, rows_max| {
            let cut = Cut { table, rows_max };
            Ok(ids.iter().map(|id| cut.find(id)).collect())
        })
        .await
    }

    async fn split_ids(&self) -> Result<Vec<TraceId>, QueryError> {
        self.compute(|table, rows_max| {
            let cut = Cut { table, rows_max };
            let mut ids: Vec<TraceId> = table
                .split_traces()
                .iter()
                .filter_map(|ordinal| cut.candidate(*ordinal))
                .map(|candidate| candidate.id)
                .collect();
            ids.sort_unstable();
            Ok(ids)
        })
        .await
    }

    async fn tag_names(&self, scope: Option<Scope>) -> Result<Vec<(Scope, Arc<str>)>, QueryError> {
        self.compute(move |table, rows_max| {
            let names = table.tag_names(scope, rows_max)?.into_iter();
            Ok(names.map(|name| (name.scope, name.name)).collect())
        })
        .await
    }

    async fn tag_values(
        &self,
        field: &TagField,
        within: Option<&Arc<Selection>>,
    ) -> Result<Option<Vec<Static>>, QueryError> {
        let (fields, within) = (field.fields(), within.cloned());
        self.compute(move |table, rows_max| {
            let rows = match within {
                None => None,
                Some(selection) => match exact_rows(&Cut { table, rows_max }, &selection)? {
                    None => return Ok(None),
                    rows => rows,
                },
            };
            let mut values = Vec::new();
            for field in &fields {
                let end = table.tag_values(field, rows_max, rows.as_ref(), &mut |found| {
                    values.push(found.value);
                    ControlFlow::Continue(())
                })?;
                for row in end.long_values.iter() {
                    let id = table.trace_of_row(row).and_then(|trace| table.trace_id(trace));
                    if let (Some(span), Some(id)) = (table.span(row), id) {
                        long_value(&Trace { id, spans: vec![span] }, field, &mut values);
                    }
                }
            }
            Ok(Some(values))
        })
        .await
    }
}
