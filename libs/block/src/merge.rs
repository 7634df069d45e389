//! Merges blocks of one tenant, however large: traces come out one by one in the order of their ids,
//! while of every block only the pages at hand are in memory. A trace of which one page of one block
//! holds everything comes as a place in that page, from which
//! [`BlockWriter::push_merged`](crate::BlockWriter::push_merged) carries its columns over; what lies
//! in several places is put together and joined.
//!
//! Nothing is fetched here. [`Merge::step`] names the pages that are needed to go on, whoever drives
//! the merge reads and decodes them, says what shall not be kept, and hands them in.
//!
//! Invariants:
//! - Ids ascend strictly, so what comes out can go straight into a [`crate::BlockWriter`].
//! - Of several versions of a span the one is kept that the model's law prefers; the order of the
//!   blocks has no influence.

use std::collections::VecDeque;
use std::sync::Arc;

use clew_model::{Trace, TraceId};

use crate::block::Block;
use crate::error::BlockError;
use crate::page::{BlockRecords, Page, PageCursor};

/// A page that a merge needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageWanted {
    /// The block's number in the merge.
    pub input: usize,
    /// The page's number in the block.
    pub page: usize,
}

/// A trace, merged.
#[derive(Debug, Clone)]
pub struct Merged {
    /// Its id.
    pub id: TraceId,
    /// How many spans it has, one per identity.
    pub spans: usize,
    /// Some fragment was marked: other spans may lie elsewhere, in the merge or outside.
    pub split: bool,
    /// How many blocks had a fragment.
    pub fragments: usize,
    /// How many spans were there more than once.
    pub duplicates: u64,
    pub(crate) content: Content,
}

/// Where the spans of a merged trace are.
#[derive(Debug, Clone)]
pub(crate) enum Content {
    /// Here.
    Joined(Trace),
    /// All in one page.
    Stored(StoredTrace),
}

/// A trace of which one page of one input holds everything.
#[derive(Debug, Clone)]
pub(crate) struct StoredTrace {
    /// The block's number in the merge.
    pub(crate) input: usize,
    pub(crate) page: Arc<Page>,
    /// The trace's number in the page.
    pub(crate) part: usize,
    pub(crate) records: Arc<BlockRecords>,
}

impl Merged {
    /// The trace itself.
    ///
    /// # Errors
    /// [`BlockError::Corrupt`] when the page refers to something that is not there.
    pub fn trace(&self) -> Result<Trace, BlockError> {
        match &self.content {
            Content::Joined(trace) => Ok(trace.clone()),
            Content::Stored(stored) => {
                let StoredTrace { page, part, records, .. } = stored;
                let spans = page.trace_part(*part, &mut PageCursor::default(), records)?;
                Ok(Trace { id: self.id, spans })
            }
        }
    }

    /// The number of the block that alone has the trace, if there is one.
    pub fn only_input(&self) -> Option<usize> {
        match &self.content {
            Content::Joined(_) => None,
            Content::Stored(stored) => Some(stored.input),
        }
    }
}

/// What a merge has to say.
#[derive(Debug, Clone)]
pub enum MergeStep {
    /// It needs these pages, one of each block at most.
    Pages(Vec<PageWanted>),
    /// The next trace.
    Trace(Box<Merged>),
    /// There is nothing more.
    End,
}

/// A block that cannot be merged.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct InputError {
    /// The block's number in the merge.
    pub input: usize,
    /// What is wrong with it.
    #[source]
    pub error: BlockError,
}

/// A merge under way.
#[derive(Debug)]
pub struct Merge {
    inputs: Vec<Input>,
    current: Option<Current>,
}

#[derive(Debug)]
struct Input {
    block: Block,
    /// The next page to read.
    next: usize,
    /// The page read last.
    page: Option<Arc<Page>>,
    /// What is left of it: traces with their numbers in the page.
    parts: VecDeque<(TraceId, usize)>,
    /// The last trace handed in: ids of a block do not descend.
    last: Option<TraceId>,
    cursor: PageCursor,
}

#[derive(Debug)]
struct Current {
    id: TraceId,
    fragments: Vec<Fragment>,
}

/// What a page has of a trace.
#[derive(Debug)]
struct Fragment {
    input: usize,
    page: Arc<Page>,
    part: usize,
}

impl Input {
    fn wants_page(&self) -> bool {
        self.parts.is_empty() && self.next < self.block.pages().entries().len()
    }
}

impl Merge {
    /// A merge of opened blocks of one tenant.
    pub fn new(blocks: Vec<Block>) -> Merge {
        let input = |block| Input {
            block,
            next: 0,
            page: None,
            parts: VecDeque::new(),
            last: None,
            cursor: PageCursor::default(),
        };
        Merge { inputs: blocks.into_iter().map(input).collect(), current: None }
    }

    /// The block with that number.
    pub fn block(&self, input: usize) -> Option<&Block> {
        Some(&self.inputs.get(input)?.block)
    }

    /// Hands in the page that the block's turn is at. `keep` is asked about every trace in it, with
    /// the number of its spans there; what it refuses is left out.
    ///
    /// # Errors
    /// [`BlockError::Corrupt`] when its traces do not follow those before.
    pub fn supply(
        &mut self,
        input: usize,
        page: Page,
        mut keep: impl FnMut(&TraceId, usize) -> bool,
    ) -> Result<(), BlockError> {
        let Some(input) = self.inputs.get_mut(input).filter(|input| input.wants_page()) else {
            return Err(BlockError::NotLoaded { section: "page" });
        };
        for (part, (id, rows)) in page.traces().enumerate() {
            if input.last.is_some_and(|last| last > id) {
                return Err(BlockError::corrupt("page", "its traces are not sorted"));
            }
            input.last = Some(id);
            if keep(&id, rows.len()) {
                input.parts.push_back((id, part));
            }
        }
        input.next += 1;
        input.page = Some(Arc::new(page));
        Ok(())
    }

    /// Goes on as far as it can.
    ///
    /// # Errors
    /// [`InputError`] when fragments cannot be put together because of one.
    pub fn step(&mut self) -> Result<MergeStep, InputError> {
        loop {
            let wanting = self.inputs.iter().enumerate().filter(|(_, input)| input.wants_page());
            let wanted: Vec<PageWanted> =
                wanting.map(|(at, input)| PageWanted { input: at, page: input.next }).collect();
            if !wanted.is_empty() {
                return Ok(MergeStep::Pages(wanted));
            }
            let heads = self.inputs.iter().filter_map(|input| Some(input.parts.front()?.0));
            let next = heads.min();
            match (self.current.take(), next) {
                (Some(current), next) if next != Some(current.id) => {
                    if let Some(merged) = self.merged(current)? {
                        return Ok(MergeStep::Trace(Box::new(merged)));
                    }
                }
                (None, None) => return Ok(MergeStep::End),
                (current, next) => {
                    let Some(id) = next else { continue };
                    let fresh = Current { id, fragments: Vec::new() };
                    self.current = Some(self.collect(current.unwrap_or(fresh)));
                }
            }
        }
    }

    /// Takes what is at hand of a trace.
    fn collect(&mut self, mut current: Current) -> Current {
        for (at, input) in self.inputs.iter_mut().enumerate() {
            let Some(page) = &input.page else { continue };
            while let Some((_, part)) = input.parts.front().filter(|(id, _)| *id == current.id) {
                let fragment = Fragment { input: at, page: Arc::clone(page), part: *part };
                current.fragments.push(fragment);
                input.parts.pop_front();
            }
        }
        current
    }

    fn merged(&mut self, current: Current) -> Result<Option<Merged>, InputError> {
        let Current { id, mut fragments } = current;
        let marked = |part: &Fragment| self.inputs[part.input].block.split_ids().contains(&id);
        let split = fragments.iter().any(marked);
        if fragments.len() > 1 {
            return self.join(id, fragments, split);
        }
        let Some(Fragment { input, page, part }) = fragments.pop() else { return Ok(None) };
        let spans = page.part_len(part);
        let records = Arc::clone(self.inputs[input].block.records());
        let content = Content::Stored(StoredTrace { input, page, part, records });
        Ok(Some(Merged { id, spans, split, fragments: 1, duplicates: 0, content }))
    }

    /// Puts the fragments together and joins them.
    fn join(
        &mut self,
        id: TraceId,
        fragments: Vec<Fragment>,
        split: bool,
    ) -> Result<Option<Merged>, InputError> {
        let mut inputs: Vec<usize> = fragments.iter().map(|fragment| fragment.input).collect();
        inputs.sort_unstable();
        inputs.dedup();
        let mut traces = Vec::with_capacity(fragments.len());
        let mut had = 0;
        for Fragment { input, page, part } in fragments {
            let Input { block, cursor, .. } = &mut self.inputs[input];
            let spans = page.trace_part(part, cursor, block.records());
            let spans = spans.map_err(|error| InputError { input, error })?;
            had += spans.len();
            traces.push(Trace { id, spans });
        }
        let Some(trace) = Trace::merge(traces) else { return Ok(None) };
        Ok(Some(Merged {
            id,
            spans: trace.spans.len(),
            split,
            fragments: inputs.len(),
            duplicates: (had - trace.spans.len()) as u64,
            content: Content::Joined(trace),
        }))
    }
}
