//! Merges blocks of one tenant, however large: traces come out one by one in the order of their ids,
//! each joined from all fragments, while of every block only the pages at hand are in memory.
//!
//! Nothing is fetched here. [`Merge::step`] names the pages that are needed to go on, whoever drives
//! the merge reads and decodes them, leaves out what shall not be kept, and hands them in.
//!
//! Invariants:
//! - Ids ascend strictly, so what comes out can go straight into a [`crate::BlockWriter`].
//! - Of several versions of a span the one is kept that the model's law prefers; the order of the
//!   blocks has no influence.

use std::collections::VecDeque;

use clew_model::{Trace, TraceId};

use crate::block::Block;
use crate::error::BlockError;

/// A page that a merge needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageWanted {
    /// The block's number in the merge.
    pub input: usize,
    /// The page's number in the block.
    pub page: usize,
}

/// A trace, joined.
#[derive(Debug, Clone, PartialEq)]
pub struct Merged {
    /// Its spans, one per identity.
    pub trace: Trace,
    /// Some fragment was marked: other spans may lie elsewhere, in the merge or outside.
    pub split: bool,
    /// How many blocks had a fragment.
    pub fragments: usize,
    /// How many spans were there more than once.
    pub duplicates: u64,
}

/// What a merge has to say.
#[derive(Debug, Clone, PartialEq)]
pub enum MergeStep {
    /// It needs these pages, one of each block at most.
    Pages(Vec<PageWanted>),
    /// The next trace.
    Trace(Box<Merged>),
    /// There is nothing more.
    End,
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
    page: usize,
    /// What is left of the pages read.
    traces: VecDeque<Trace>,
    /// The last trace handed in: ids of a block do not descend.
    last: Option<TraceId>,
}

#[derive(Debug)]
struct Current {
    id: TraceId,
    fragments: Vec<Trace>,
    inputs: Vec<usize>,
}

impl Input {
    fn wants_page(&self) -> bool {
        self.traces.is_empty() && self.page < self.block.pages().entries().len()
    }
}

impl Merge {
    /// A merge of opened blocks of one tenant.
    pub fn new(blocks: Vec<Block>) -> Merge {
        let input = |block| Input { block, page: 0, traces: VecDeque::new(), last: None };
        Merge { inputs: blocks.into_iter().map(input).collect(), current: None }
    }

    /// The block with that number.
    pub fn block(&self, input: usize) -> Option<&Block> {
        Some(&self.inputs.get(input)?.block)
    }

    /// Hands in the traces of the page that the block's turn is at, as
    /// [`crate::Page::all_traces`] gives them; some may be missing, and then they are left out.
    ///
    /// # Errors
    /// [`BlockError::Corrupt`] when they do not follow those before.
    pub fn supply(&mut self, input: usize, traces: Vec<Trace>) -> Result<(), BlockError> {
        let Some(input) = self.inputs.get_mut(input).filter(|input| input.wants_page()) else {
            return Err(BlockError::NotLoaded { section: "page" });
        };
        for trace in &traces {
            if input.last.is_some_and(|last| last > trace.id) {
                return Err(BlockError::corrupt("page", "its traces are not sorted"));
            }
            input.last = Some(trace.id);
        }
        input.page += 1;
        input.traces.extend(traces);
        Ok(())
    }

    /// Goes on as far as it can.
    pub fn step(&mut self) -> MergeStep {
        loop {
            let wanting = self.inputs.iter().enumerate().filter(|(_, input)| input.wants_page());
            let wanted: Vec<PageWanted> =
                wanting.map(|(at, input)| PageWanted { input: at, page: input.page }).collect();
            if !wanted.is_empty() {
                return MergeStep::Pages(wanted);
            }
            let heads = self.inputs.iter().filter_map(|input| Some(input.traces.front()?.id));
            let next = heads.min();
            match (self.current.take(), next) {
                (Some(current), next) if next != Some(current.id) => {
                    if let Some(merged) = self.join(current) {
                        return MergeStep::Trace(Box::new(merged));
                    }
                }
                (None, None) => return MergeStep::End,
                (current, next) => {
                    let Some(id) = next else { continue };
                    let fresh = Current { id, fragments: Vec::new(), inputs: Vec::new() };
                    self.current = Some(self.collect(current.unwrap_or(fresh)));
                }
            }
        }
    }

    /// Takes what is at hand of a trace.
    fn collect(&mut self, mut current: Current) -> Current {
        for (at, input) in self.inputs.iter_mut().enumerate() {
            while input.traces.front().is_some_and(|trace| trace.id == current.id) {
                current.fragments.extend(input.traces.pop_front());
                if current.inputs.last() != Some(&at) && !current.inputs.contains(&at) {
                    current.inputs.push(at);
                }
            }
        }
        current
    }

    fn join(&self, current: Current) -> Option<Merged> {
        let Current { id, mut fragments, inputs } = current;
        let marked = |at: &usize| self.inputs[*at].block.split_ids().contains(&id);
        let split = inputs.iter().any(marked);
        let had: usize = fragments.iter().map(|trace| trace.spans.len()).sum();
        let trace = match (fragments.pop(), fragments.is_empty()) {
            // What one page holds of a trace is merged already.
            (Some(only), true) => only,
            (Some(last), false) => Trace::merge(fragments.into_iter().chain([last]))?,
            (None, _) => return None,
        };
        let duplicates = (had - trace.spans.len()) as u64;
        Some(Merged { trace, split, fragments: inputs.len(), duplicates })
    }
}
