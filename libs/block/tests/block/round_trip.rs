//! What goes into tables comes out of tables and blocks, and lookups lose nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use bytes::Bytes;
use clew_block::{
    Block, BlockMeta, BlockOptions, BlockSearch, BlockWriter, Heritage, LookupResult, Origin, Page,
    Parent, SearchSections, SpanTable, TableRows, TagValue, TraceMarks, pack, write_block,
};
use clew_model::otlp::SpanView;
use clew_model::trace::{SpanRecord, Trace, TraceSummary};
use clew_model::{TenantId, TraceId};
use clew_traceql::plan::{Condition, Field, Intrinsic, Scope};
use clew_traceql::value::Static;
use proptest::prelude::*;

use crate::conditions::{condition, field};
use crate::naive::{Value, evaluate, merged, values};
use crate::spans::{Batch, batches, traces_data};

/// Small pages, so that traces spread over several.
pub(crate) const OPTIONS: BlockOptions = BlockOptions { page_level: 1, page_bytes: 700 };

pub(crate) fn meta() -> BlockMeta {
    BlockMeta {
        tenant: TenantId::parse("tenant").unwrap(),
        origin: Origin { shard: 1, incarnation: 2, from: 3, through: 4 },
        lineage: vec!["old".to_owned()],
        heritage: Heritage::default(),
    }
}

pub(crate) fn slice(block: &Bytes, range: &std::ops::Range<u64>) -> Bytes {
    block.slice(usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap())
}

/// A block opened from its bytes, with all it holds.
pub(crate) struct Opened {
    pub(crate) block: Block,
    pub(crate) search: BlockSearch,
    pub(crate) pages: Vec<Page>,
}

pub(crate) fn open(bytes: &Bytes) -> Result<Opened, clew_block::BlockError> {
    let block = Block::open(bytes)?;
    let ranges = block.search_ranges()?;
    let sections = SearchSections {
        traces: slice(bytes, &ranges.traces),
        dictionary: slice(bytes, &ranges.dictionary),
        postings: slice(bytes, &ranges.postings),
        locator: slice(bytes, &ranges.locator),
        numbers: slice(bytes, &ranges.numbers),
        columns: slice(bytes, &ranges.columns),
    };
    let search = block.search(&sections)?;
    let pages = block
        .pages()
        .entries()
        .iter()
        .enumerate()
        .map(|(at, entry)| {
            block.page(at, &slice(bytes, &entry.bytes), &slice(bytes, &entry.columns))
        })
        .collect::<Result<_, _>>()?;
    Ok(Opened { block, search, pages })
}

impl Opened {
    pub(crate) fn trace(&self, id: &TraceId) -> Result<Option<Trace>, clew_block::BlockError> {
        self.block.trace(id, &self.pages[self.block.pages().pages_of(id)])
    }
}

fn pushed(buffers: &[Bytes]) -> SpanTable {
    let mut table = SpanTable::new(42);
    for buffer in buffers {
        let before = table.row_count();
        let pushed = table.push(buffer).unwrap();
        assert_eq!(pushed.rejected, 0);
        assert_eq!(pushed.rows, before..table.row_count());
    }
    table
}

fn buffers(batches: &[Batch]) -> Vec<Bytes> {
    batches.chunks(2).map(traces_data).collect()
}

fn block_of(tables: &[&SpanTable]) -> Bytes {
    let rows: Vec<_> = tables.iter().map(|table| TableRows { table, rows_max: u32::MAX }).collect();
    Bytes::from(write_block(&rows, &OPTIONS, meta()).unwrap())
}

/// Rows with their traces' summaries, in order.
type Rows<'a> = Vec<(&'a SpanRecord, &'a TraceSummary)>;

fn check(
    found: &LookupResult,
    rows: &Rows<'_>,
    condition: &Condition,
    place: &str,
) -> Result<(), TestCaseError> {
    for (row, (record, summary)) in (0..).zip(rows) {
        let verdict = evaluate(record, summary, condition);
        let has = found.rows.contains(row);
        prop_assert!(has || !verdict.may_pass, "{place} lost row {row} for {condition:?}");
        prop_assert!(
            !found.exact || verdict.unknown || has == verdict.passes,
            "{place} is not exact in row {row} for {condition:?}"
        );
    }
    prop_assert!(found.rows.iter().all(|row| (row as usize) < rows.len()));
    Ok(())
}

fn collect(values: &mut BTreeMap<String, u64>) -> impl FnMut(TagValue) -> ControlFlow<()> + '_ {
    |found| {
        if !is_short(&found.value) {
            // Long names of roots and libraries are known, other long values are not.
            return ControlFlow::Continue(());
        }
        *values.entry(format!("{:?}", found.value)).or_default() += found.rows;
        ControlFlow::Continue(())
    }
}

fn is_short(value: &Static) -> bool {
    !matches!(value, Static::String(text) if text.len() > 256)
}

/// The short values of a field with the number of rows that have each, by the model.
fn naive_values(rows: &Rows<'_>, field: &Field) -> Option<BTreeMap<String, u64>> {
    let mut found = BTreeMap::new();
    for (record, summary) in rows {
        let mut of_row = BTreeSet::new();
        for value in values(record, summary, field)?.into_iter().flatten() {
            if let Value::Comparable(value) = value
                && is_short(&value)
            {
                let value = match value {
                    Static::Float(number) => Static::Float(number + 0.0),
                    value => value,
                };
                // No message is not a message.
                let message = *field == Field::Intrinsic(Intrinsic::StatusMessage);
                if message && value == Static::String("".into()) {
                    continue;
                }
                of_row.insert(format!("{value:?}"));
            }
        }
        for value in of_row {
            *found.entry(value).or_default() += 1;
        }
    }
    Some(found)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn traces_come_back_merged(batches in batches(), split in 0usize..4) {
        let buffers = buffers(&batches);
        let (left, right) = buffers.split_at(split.min(buffers.len()));
        let (left, right) = (pushed(left), pushed(right));
        let bytes = block_of(&[&left, &right]);
        let opened = open(&bytes).unwrap();
        let traces = merged(&buffers);
        let footer = opened.block.footer();
        prop_assert_eq!(footer.traces, traces.len() as u64);
        prop_assert_eq!(footer.spans, traces.iter().map(|trace| trace.spans.len() as u64).sum::<u64>());
        prop_assert_eq!(footer.block_length(), bytes.len() as u64);
        let table = opened.search.traces();
        let mut row = 0;
        for (ordinal, trace) in (0..).zip(&traces) {
            let fetched = opened.trace(&trace.id).unwrap();
            prop_assert_eq!(fetched.as_ref(), Some(trace));
            prop_assert_eq!(table.find(&trace.id), Some(ordinal));
            let entry = table.get(ordinal).unwrap();
            prop_assert_eq!(entry.summary(), trace.summary());
            prop_assert!(opened.block.filter().contains(&trace.id));
            for span in &trace.spans {
                let view = SpanView::parse(&span.bytes).unwrap();
                let end = view.start_unix_nanos.max(view.end_unix_nanos);
                prop_assert_eq!(
                    opened.search.row_start_end(row), Some((view.start_unix_nanos, end)));
                prop_assert_eq!(table.trace_of_row(row), Some(ordinal));
                let page = opened.block.pages().page_of_row(row).unwrap();
                let stored = opened.pages[page].span(row, opened.block.records()).unwrap();
                prop_assert_eq!(stored.as_ref(), Some(span));
                row += 1;
            }
        }
        prop_assert_eq!(opened.trace(&TraceId([0xee; 16])).unwrap(), None);
        let starts = traces.iter().map(|trace| trace.summary().start.0).min();
        prop_assert_eq!(footer.min_start, starts.unwrap_or(0));
    }

    #[test]
    fn lookups_lose_nothing(
        batches in batches(), conditions in proptest::collection::vec(condition(), 1..20),
        cut in 0u32..30,
    ) {
        let buffers = buffers(&batches);
        let table = pushed(&buffers);
        let opened = open(&block_of(&[&table])).unwrap();
        let traces = merged(&buffers);
        let summaries: Vec<TraceSummary> = traces.iter().map(Trace::summary).collect();
        let rows: Rows<'_> = traces.iter().zip(&summaries)
            .flat_map(|(trace, summary)| trace.spans.iter().map(move |span| (span, summary)))
            .collect();
        for condition in &conditions {
            check(&opened.search.lookup(condition).unwrap(), &rows, condition, "block")?;
        }
        // The table is read below a cut: as if nothing had come after it.
        let cut = cut.min(table.row_count());
        let spans: Vec<SpanRecord> = (0..cut).map(|row| table.span(row).unwrap()).collect();
        let parts: Vec<Trace> = (0..table.trace_count())
            .filter_map(|trace| table.fetch(trace, cut))
            .map(|trace| Trace::merge([trace]).unwrap())
            .collect();
        let summaries: BTreeMap<TraceId, TraceSummary> =
            parts.iter().map(|trace| (trace.id, trace.summary())).collect();
        let rows: Rows<'_> = spans.iter()
            .map(|span| {
                let id = SpanView::parse(&span.bytes).unwrap().trace().unwrap();
                (span, &summaries[&id])
            })
            .collect();
        for condition in &conditions {
            check(&table.lookup(condition, cut).unwrap(), &rows, condition, "table")?;
        }
    }

    #[test]
    fn tags_are_those_of_the_spans(batches in batches(), field in field(), within: u64) {
        let buffers = buffers(&batches);
        let table = pushed(&buffers);
        let opened = open(&block_of(&[&table])).unwrap();
        let traces = merged(&buffers);
        let summaries: Vec<TraceSummary> = traces.iter().map(Trace::summary).collect();
        let rows: Rows<'_> = traces.iter().zip(&summaries)
            .flat_map(|(trace, summary)| trace.spans.iter().map(move |span| (span, summary)))
            .collect();
        let wanted = |row: usize| row < 64 && within >> row & 1 == 1;
        let some: Rows<'_> = rows.iter().enumerate()
            .filter(|(row, _)| wanted(*row)).map(|(_, row)| *row).collect();
        let set = (0..64u32).filter(|row| wanted(*row as usize)).collect();
        for (rows, within) in [(&rows, None), (&some, Some(&set))] {
            let mut found = BTreeMap::new();
            let end = opened.search.tag_values(&field, within, &mut collect(&mut found)).unwrap();
            prop_assert!(!end.stopped);
            // The model knows fields whose values are not offered.
            if let Some(model) = naive_values(rows, &field)
                && !found.is_empty()
            {
                // A value that stands alone in one row and in an array in another counts twice
                // only where it is both in one row.
                prop_assert_eq!(
                    found.keys().collect::<Vec<_>>(), model.keys().collect::<Vec<_>>());
                for (value, rows) in &model {
                    prop_assert!(found[value] >= *rows);
                }
            }
        }
        let mut of_table = BTreeMap::new();
        let limit = table.row_count();
        table.tag_values(&field, limit, None, &mut collect(&mut of_table)).unwrap();
        let mut of_block = BTreeMap::new();
        opened.search.tag_values(&field, None, &mut collect(&mut of_block)).unwrap();
        for value in of_block.keys() {
            prop_assert!(of_table.contains_key(value), "the table lacks {value}");
        }
    }

    #[test]
    fn names_are_those_of_the_spans(batches in batches()) {
        let buffers = buffers(&batches);
        let table = pushed(&buffers);
        let opened = open(&block_of(&[&table])).unwrap();
        let traces = merged(&buffers);
        for scope in [Scope::Span, Scope::Resource, Scope::Event, Scope::Link, Scope::Instrumentation] {
            let found: BTreeSet<String> = opened.search.tag_names(Some(scope)).unwrap().iter()
                .map(|name| name.name.to_string()).collect();
            let summary = Trace { id: TraceId([1; 16]), spans: Vec::new() }.summary();
            for key in ["k", "l", "k\u{0}", "service.name", "name"] {
                let field = Field::Attribute(scope, key.into());
                let there = traces.iter().flat_map(|trace| &trace.spans)
                    .any(|span| values(span, &summary, &field).is_some_and(|found| !found.is_empty()));
                prop_assert_eq!(found.contains(key), there, "{:?} {}", scope, key);
            }
            let of_table = table.tag_names(Some(scope), table.row_count()).unwrap();
            prop_assert!(found.iter().all(|name| of_table.iter().any(|tag| *tag.name == **name)));
        }
    }

    #[test]
    fn both_writers_agree(batches in batches()) {
        let buffers = buffers(&batches);
        let table = pushed(&buffers);
        let from_tables = block_of(&[&table]);
        let traces = merged(&buffers);
        let mut writer = BlockWriter::new(&OPTIONS, meta(), 7).unwrap();
        for trace in &traces {
            writer.push_trace(trace, TraceMarks::default()).unwrap();
        }
        let from_traces = Bytes::from(writer.finish().unwrap());
        let kept: usize = traces.iter().map(|trace| trace.spans.len()).sum();
        if kept == table.row_count() as usize {
            prop_assert_eq!(&from_traces, &from_tables);
        }
        let (a, b) = (open(&from_traces).unwrap(), open(&from_tables).unwrap());
        prop_assert_eq!(a.search.traces().entries(), b.search.traces().entries());
    }

    #[test]
    fn parents_are_those_of_the_shown_trace(batches in batches()) {
        let buffers = buffers(&batches);
        let table = pushed(&buffers);
        let opened = open(&block_of(&[&table])).unwrap();
        let mut first = 0u32;
        for trace in merged(&buffers) {
            let mut shown = trace.clone();
            shown.unshare_span_ids();
            let views: Vec<_> =
                shown.spans.iter().map(|span| SpanView::parse(&span.bytes).unwrap()).collect();
            for (row, view) in (first..).zip(&views) {
                let parent = opened.search.columns().parent(row).unwrap();
                match parent {
                    Parent::Root => prop_assert_eq!(view.parent(), None),
                    Parent::Row(parent) => prop_assert_eq!(
                        views[(parent - first) as usize].span(), view.parent()),
                    Parent::Elsewhere => prop_assert!(view.parent() == view.span()
                        || views.iter().all(|other| other.span() != view.parent())),
                }
            }
            first += u32::try_from(views.len()).unwrap();
        }
    }
}

fn some_batches() -> Vec<Batch> {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    loop {
        let batches = batches().new_tree(&mut runner).unwrap().current();
        if batches.len() > 4 {
            return batches;
        }
    }
}

#[test]
fn split_marks_reach_the_block() {
    let buffers = buffers(&some_batches());
    let mut table = pushed(&buffers);
    table.mark_split(0);
    let id = table.trace_id(0).unwrap();
    assert!(table.is_split(0) && !table.is_split(1));
    let opened = open(&block_of(&[&table])).unwrap();
    assert_eq!(opened.block.split_ids().ids(), [id]);
    assert!(opened.block.split_ids().contains(&id));
    assert_eq!(opened.block.footer().split, 1);
    let entry = opened.search.traces().find(&id).unwrap();
    assert!(opened.search.traces().get(entry).unwrap().split);
}

#[test]
fn a_tail_is_all_it_takes_to_open() {
    let block = block_of(&[&pushed(&buffers(&some_batches()))]);
    let needed = match Block::open(&block.slice(block.len() - 10..)) {
        Err(clew_block::BlockError::TailTooShort { needed }) => needed,
        other => panic!("{other:?}"),
    };
    let mut tail = usize::try_from(needed).unwrap();
    let opened = loop {
        match Block::open(&block.slice(block.len() - tail..)) {
            Ok(opened) => break opened,
            Err(clew_block::BlockError::TailTooShort { needed }) => {
                assert!(needed > tail as u64);
                tail = usize::try_from(needed).unwrap();
            }
            Err(other) => panic!("{other}"),
        }
    };
    assert_eq!(tail as u64, u64::from(opened.footer().tail_length));
    assert!(tail < block.len());
}

#[test]
fn objects_pack_tenants_in_order() {
    let table = pushed(&buffers(&some_batches()));
    let rows = [TableRows { table: &table, rows_max: u32::MAX }];
    let tenants = ["b", "a"].map(|tenant| TenantId::parse(tenant).unwrap());
    let block = |tenant: &TenantId| {
        write_block(&rows, &OPTIONS, BlockMeta { tenant: tenant.clone(), ..meta() }).unwrap()
    };
    let blocks = tenants.iter().map(|tenant| (tenant.clone(), block(tenant))).collect();
    let (object, entries) = pack(blocks).unwrap();
    let object = Bytes::from(object);
    assert_eq!(entries.iter().map(|entry| entry.tenant.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    for entry in &entries {
        let end = usize::try_from(entry.offset + entry.length).unwrap();
        // A tail that reaches into the block before does no harm.
        let opened = Block::open(&object.slice(..end)).unwrap();
        assert_eq!(opened.footer().tenant, entry.tenant);
        let tail = end - entry.tail_length as usize;
        assert_eq!(Block::open(&object.slice(tail..end)).unwrap().footer(), opened.footer());
        assert_eq!(entry.spans, opened.footer().spans);
    }
    let wrong = vec![(TenantId::parse("c").unwrap(), block(&tenants[0]))];
    assert!(pack(wrong).is_err());
    assert_eq!(pack(Vec::new()).unwrap().1, []);
}

#[test]
fn damaged_spans_are_left_out_and_damaged_batches_refused() {
    use clew_model::wire::put_bytes_field;
    let nest = |inner: &[u8], number| {
        let mut out = Vec::new();
        put_bytes_field(&mut out, number, inner);
        out
    };
    let mut scope_spans = Vec::new();
    for span in [&b"\x0a\x05x"[..], b"", &some_batches()[0].spans[0].encode()] {
        put_bytes_field(&mut scope_spans, 2, span);
    }
    let body = Bytes::from(nest(&nest(&scope_spans, 2), 1));
    let mut table = SpanTable::new(1);
    let pushed = table.push(&body).unwrap();
    assert_eq!((pushed.rejected, pushed.rows, pushed.new_traces), (2, 0..1, 0..1));
    assert!(table.push(&body.slice(..body.len() - 1)).is_err());
    assert_eq!(table.row_count(), 1);
    assert!(table.memory_bytes() > body.len());
}

#[test]
fn traces_must_ascend() {
    let trace = &merged(&buffers(&some_batches()))[0];
    let mut writer = BlockWriter::new(&OPTIONS, meta(), 7).unwrap();
    writer.push_trace(trace, TraceMarks::default()).unwrap();
    assert!(writer.push_trace(trace, TraceMarks::default()).is_err());
}
