//! A merge of blocks holds what the blocks hold, whatever is in which.

use bytes::Bytes;
use clew_block::{
    Block, BlockWriter, Merge, MergeStep, SpanTable, TableRows, TraceMarks, write_block,
};
use clew_model::{Trace, TraceId};
use proptest::prelude::*;

use crate::naive::merged;
use crate::round_trip::{OPTIONS, meta, open, slice};
use crate::spans::{Batch, batches, traces_data};

fn block_of(buffer: &Bytes, split: bool) -> Bytes {
    let mut table = SpanTable::new(1);
    let pushed = table.push(buffer).unwrap();
    if split {
        for trace in pushed.new_traces {
            table.mark_split(trace);
        }
    }
    let rows = TableRows { table: &table, rows_max: u32::MAX };
    Bytes::from(write_block(&[rows], &OPTIONS, meta()).unwrap())
}

/// Runs a merge, with at most one page of each block in memory.
fn merge(blocks: &[Bytes], keep: impl Fn(&TraceId) -> bool) -> (Vec<Trace>, Vec<TraceId>, u64) {
    let opened = blocks.iter().map(|block| Block::open(block).unwrap()).collect();
    let mut merge = Merge::new(opened);
    let (mut traces, mut split, mut duplicates) = (Vec::new(), Vec::new(), 0);
    loop {
        match merge.step() {
            MergeStep::End => return (traces, split, duplicates),
            MergeStep::Trace(merged) => {
                if merged.split {
                    split.push(merged.trace.id);
                }
                duplicates += merged.duplicates;
                traces.push(merged.trace);
            }
            MergeStep::Pages(wanted) => {
                for place in wanted {
                    let (bytes, block) = (&blocks[place.input], merge.block(place.input).unwrap());
                    let entry = &block.pages().entries()[place.page];
                    let columns = slice(bytes, &entry.columns);
                    let page = block.page(place.page, &slice(bytes, &entry.bytes), &columns);
                    let mut all = page.unwrap().all_traces(block.records()).unwrap();
                    all.retain(|trace| keep(&trace.id));
                    merge.supply(place.input, all).unwrap();
                }
            }
        }
    }
}

fn write(traces: &[Trace]) -> Bytes {
    let mut writer = BlockWriter::new(&OPTIONS, meta(), 3).unwrap();
    for trace in traces {
        writer.push_trace(trace, TraceMarks::default()).unwrap();
    }
    Bytes::from(writer.finish().unwrap())
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
        let (traces, split, duplicates) = merge(&blocks, |_| true);
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
        prop_assert_eq!(&merge(&reversed, |_| true).0, &traces);
        // What is written of it can be merged again, and nothing changes.
        let again = write(&traces);
        let opened = open(&again).unwrap();
        for trace in &traces {
            let stored = opened.trace(&trace.id).unwrap();
            prop_assert_eq!(stored.as_ref(), Some(trace));
        }
        let both: Vec<Bytes> = blocks.first().cloned().into_iter().chain([again]).collect();
        prop_assert_eq!(merge(&both, |_| true).0, traces);
    }

    #[test]
    fn what_is_left_out_is_nowhere(batches in batches(), which: u8) {
        let buffers = buffers(&batches);
        let blocks: Vec<Bytes> = buffers.iter().map(|buffer| block_of(buffer, false)).collect();
        let keep = |id: &TraceId| (id.0[15] ^ which) & 3 != 0;
        let mut expected = merged(&buffers);
        expected.retain(|trace| keep(&trace.id));
        prop_assert_eq!(merge(&blocks, keep).0, expected);
    }
}

#[test]
fn nothing_merges_to_nothing() {
    assert_eq!(Merge::new(Vec::new()).step(), MergeStep::End);
    let empty = write(&[]);
    assert_eq!(merge(&[empty.clone(), empty], |_| true).0, []);
}
