//! A merge of blocks holds what the blocks hold, whatever is in which; and what it writes is, to the
//! last byte, what the spans themselves would have given.

use bytes::Bytes;
use clew_block::{
    Block, BlockOptions, BlockWriter, Merge, MergeStep, SpanTable, TableRows, TraceMarks,
    write_block,
};
use clew_model::wire::{put_bytes_field, put_fixed32_field, put_fixed64_field, put_varint_field};
use clew_model::{Trace, TraceId};
use proptest::prelude::*;

use crate::naive::merged;
use crate::round_trip::{OPTIONS, meta, open, slice};
use crate::spans::{Batch, batches, traces_data};

/// Pages that hold several traces.
const WIDE: BlockOptions = BlockOptions { page_level: 1, page_bytes: 6_000 };

fn block_with(buffer: &Bytes, split: bool, options: &BlockOptions) -> Bytes {
    let mut table = SpanTable::new(1);
    let pushed = table.push(buffer).unwrap();
    if split {
        for trace in pushed.new_traces {
            table.mark_split(trace);
        }
    }
    let rows = TableRows { table: &table, rows_max: u32::MAX };
    Bytes::from(write_block(&[rows], options, meta()).unwrap())
}

fn block_of(buffer: &Bytes, split: bool) -> Bytes {
    block_with(buffer, split, &OPTIONS)
}

/// What came out of a merge.
struct Outcome {
    traces: Vec<Trace>,
    split: Vec<TraceId>,
    duplicates: u64,
    /// Traces that one place held.
    stored: usize,
    /// What a writer made of it.
    written: Bytes,
}

/// Runs a merge, with at most two pages of each block in memory.
fn merge_with(
    blocks: &[Bytes],
    keep: impl Fn(&TraceId) -> bool,
    options: &BlockOptions,
) -> Outcome {
    let opened = blocks.iter().map(|block| Block::open(block).unwrap()).collect();
    let mut merge = Merge::new(opened);
    let mut writer = BlockWriter::new(options, meta(), 5).unwrap();
    let (mut traces, mut split) = (Vec::new(), Vec::new());
    let (mut duplicates, mut stored) = (0, 0);
    loop {
        match merge.step().unwrap() {
            MergeStep::End => {
                let written = Bytes::from(writer.finish().unwrap());
                return Outcome { traces, split, duplicates, stored, written };
            }
            MergeStep::Trace(merged) => {
                let marks = TraceMarks { split: merged.split, ..TraceMarks::default() };
                writer.push_merged(&merged, marks).unwrap();
                if merged.split {
                    split.push(merged.id);
                }
                duplicates += merged.duplicates;
                stored += usize::from(merged.only_input().is_some());
                let trace = merged.trace().unwrap();
                assert_eq!((trace.id, trace.spans.len()), (merged.id, merged.spans));
                traces.push(trace);
            }
            MergeStep::Pages(wanted) => {
                for place in wanted {
                    let (bytes, block) = (&blocks[place.input], merge.block(place.input).unwrap());
                    let entry = &block.pages().entries()[place.page];
                    let columns = slice(bytes, &entry.columns);
                    let page = block.page(place.page, &slice(bytes, &entry.bytes), &columns);
                    merge.supply(place.input, page.unwrap(), |id, _| keep(id)).unwrap();
                }
            }
        }
    }
}

fn merge(blocks: &[Bytes], keep: impl Fn(&TraceId) -> bool) -> Outcome {
    merge_with(blocks, keep, &OPTIONS)
}

/// A block of the traces themselves.
fn write_with(traces: &[Trace], split: &[TraceId], options: &BlockOptions) -> Bytes {
    let mut writer = BlockWriter::new(options, meta(), 3).unwrap();
    for trace in traces {
        let marks = TraceMarks { split: split.contains(&trace.id), ..TraceMarks::default() };
        writer.push_trace(trace, marks).unwrap();
    }
    Bytes::from(writer.finish().unwrap())
}

fn write(traces: &[Trace]) -> Bytes {
    write_with(traces, &[], &OPTIONS)
}

fn buffers(batches: &[Batch]) -> Vec<Bytes> {
    batches.chunks(2).map(traces_data).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_merge_holds_what_its_blocks_hold(batches in batches(), marked: u8) {
        let buffers = buffers(&batches);
        let is_marked = |at: usize| marked & (1 << (at % 8)) != 0;
        let blocks: Vec<Bytes> =
            buffers.iter().enumerate().map(|(at, buffer)| block_of(buffer, is_marked(at))).collect();
        let Outcome { traces, split, duplicates, .. } = merge(&blocks, |_| true);
        let expected = merged(&buffers);
        prop_assert_eq!(&traces, &expected);
        let had: usize = buffers
            .iter()
            .map(|buffer| merged(std::slice::from_ref(buffer)))
            .map(|traces| traces.iter().map(|trace| trace.spans.len()).sum::<usize>())
            .sum();
        let has: usize = traces.iter().map(|trace| trace.spans.len()).sum();
        prop_assert_eq!(duplicates, (had - has) as u64);
        let mut marks: Vec<TraceId> = blocks
            .iter()
            .flat_map(|block| Block::open(block).unwrap().split_ids().ids().to_vec())
            .collect();
        marks.sort_unstable();
        marks.dedup();
        prop_assert_eq!(split, marks);
        let mut reversed = blocks.clone();
        reversed.reverse();
        prop_assert_eq!(&merge(&reversed, |_| true).traces, &traces);
        // What is written of it can be merged again, and nothing changes.
        let again = write(&traces);
        let opened = open(&again).unwrap();
        for trace in &traces {
            let stored = opened.trace(&trace.id).unwrap();
            prop_assert_eq!(stored.as_ref(), Some(trace));
        }
        let both: Vec<Bytes> = blocks.first().cloned().into_iter().chain([again]).collect();
        prop_assert_eq!(merge(&both, |_| true).traces, traces);
    }

    #[test]
    fn what_is_left_out_is_nowhere(batches in batches(), which: u8) {
        let buffers = buffers(&batches);
        let blocks: Vec<Bytes> = buffers.iter().map(|buffer| block_of(buffer, false)).collect();
        let keep = |id: &TraceId| (id.0[15] ^ which) & 3 != 0;
        let mut expected = merged(&buffers);
        expected.retain(|trace| keep(&trace.id));
        prop_assert_eq!(merge(&blocks, keep).traces, expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Fragments, duplicates, traces that are left out, pages of other sizes: whatever is carried
    /// over or put together gives the bytes of a fresh block, index included, so all answers too.
    #[test]
    fn what_a_merge_writes_is_what_its_spans_would_give(
        parts in proptest::collection::vec(batches(), 1..4), which: u8, marked: bool,
        wide_in: bool, wide_out: bool,
    ) {
        let options = |wide| if wide { WIDE } else { OPTIONS };
        let blocks: Vec<Bytes> = parts
            .iter()
            .map(|batches| block_with(&traces_data(batches), marked, &options(wide_in)))
            .collect();
        let keep = |id: &TraceId| (id.0[15] ^ which) & 7 != 0;
        let Outcome { traces, split, written, .. } = merge_with(&blocks, keep, &options(wide_out));
        let fresh = write_with(&traces, &split, &options(wide_out));
        prop_assert!(written == fresh, "the blocks differ");
        // Once more, of what was carried over.
        let Outcome { written, .. } = merge_with(&[written], |_| true, &options(wide_in));
        prop_assert!(written == write_with(&traces, &split, &options(wide_in)), "the blocks differ");
    }
}

fn message(put: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out);
    out
}

/// A span with every field that OTLP has, in its usual form.
fn full_span(trace: u8, id: u8) -> Vec<u8> {
    let attribute = |key: &str, value: &[u8]| {
        message(|out| {
            put_bytes_field(out, 1, key.as_bytes());
            put_bytes_field(out, 2, value);
        })
    };
    let text = |text: &str| message(|out| put_bytes_field(out, 1, text.as_bytes()));
    let start = 1_750_000_000_000_000_000 + u64::from(id) * 1_000;
    message(|out| {
        put_bytes_field(out, 1, &[trace; 16]);
        put_bytes_field(out, 2, &[id; 8]);
        put_bytes_field(out, 3, format!("vendor={}", id % 3).as_bytes());
        if id > 1 {
            put_bytes_field(out, 4, &[id - 1; 8]);
        }
        put_bytes_field(out, 5, "work".repeat(usize::from(id)).as_bytes());
        put_varint_field(out, 6, 1 + u64::from(id % 5));
        put_fixed64_field(out, 7, start);
        put_fixed64_field(out, 8, start + 70_000 * u64::from(trace));
        put_bytes_field(out, 9, &attribute("few", &text(["a", "b"][usize::from(id % 2)])));
        put_bytes_field(out, 9, &attribute("many", &text(&format!("{trace:02x}{id:02x}beef"))));
        put_bytes_field(out, 9, &attribute("long", &text(&"l".repeat(100 + usize::from(id)))));
        put_bytes_field(out, 9, &attribute("true", &message(|out| put_varint_field(out, 2, 1))));
        let number = (u64::from(id) << (id % 60)).wrapping_neg();
        put_bytes_field(
            out,
            9,
            &attribute("int", &message(|out| put_varint_field(out, 3, number))),
        );
        let double = (f64::from(id) / 3.0).to_bits();
        let double = message(|out| put_fixed64_field(out, 4, double));
        put_bytes_field(out, 9, &attribute("double", &double));
        put_varint_field(out, 10, u64::from(id) * 100);
        for at in 0..id % 3 {
            let event = message(|out| {
                put_fixed64_field(out, 1, start + u64::from(at));
                put_bytes_field(out, 2, format!("event {at}").as_bytes());
                put_bytes_field(out, 3, &attribute("few", &text("in an event")));
                put_varint_field(out, 4, u64::from(at));
            });
            put_bytes_field(out, 11, &event);
        }
        put_varint_field(out, 12, u64::from(id));
        put_varint_field(out, 14, u64::from(trace));
        let status = message(|out| {
            if id.is_multiple_of(4) {
                put_bytes_field(out, 2, b"it failed");
            }
            put_varint_field(out, 3, u64::from(id % 3));
        });
        put_bytes_field(out, 15, &status);
        put_fixed32_field(out, 16, 0x100 + u32::from(id));
    })
}

#[test]
fn every_field_is_carried_over() {
    let block = |traces: std::ops::Range<u8>| {
        let spans = message(|out| {
            for trace in traces {
                (1..40).for_each(|id| put_bytes_field(out, 2, &full_span(trace, id)));
            }
        });
        let of_resource = message(|out| put_bytes_field(out, 2, &spans));
        let data = message(|out| put_bytes_field(out, 1, &of_resource));
        block_with(&Bytes::from(data), false, &BlockOptions::default())
    };
    let blocks = [block(1..40), block(40..80), block(80..83)];
    let options = BlockOptions { page_bytes: 64 << 10, ..BlockOptions::default() };
    let outcome = merge_with(&blocks, |_| true, &options);
    assert_eq!((outcome.stored, outcome.traces.len()), (82, 82));
    assert!(outcome.written == write_with(&outcome.traces, &[], &options), "the blocks differ");
    for (trace, number) in outcome.traces.iter().zip(1..) {
        for (span, id) in trace.spans.iter().zip(1..) {
            assert_eq!(span.bytes, full_span(number, id));
        }
    }
}

#[test]
fn nothing_merges_to_nothing() {
    assert!(matches!(Merge::new(Vec::new()).step(), Ok(MergeStep::End)));
    let empty = write(&[]);
    assert_eq!(merge(&[empty.clone(), empty], |_| true).traces, []);
}
