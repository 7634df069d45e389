//! Writes traces that a merge found in one place: their columns are carried over.

use clew_model::TraceId;
use clew_model::trace::Trace;

use super::{BlockWriter, TraceMarks};
use crate::columns::Parent;
use crate::error::BlockError;
use crate::merge::{Content, Merged, StoredTrace};
use crate::page::{BlockRecords, Carrier};

/// An ordinal that is not known yet.
const NONE: u32 = u32::MAX;

/// What a writer knows of a block that traces come from.
#[derive(Debug, Default)]
pub(super) struct CarriedInput {
    carrier: Carrier,
    /// The ordinals of its resources and scopes in the block that is written.
    resources: Vec<u32>,
    scopes: Vec<u32>,
}

const fn corrupt() -> BlockError {
    BlockError::corrupt("page", "a span has no resource or scope")
}

impl BlockWriter {
    /// Appends a trace of a merge. A writer takes the traces of one merge only. What is written is
    /// what [`BlockWriter::push_trace`] would write, at a fraction of the cost if the trace lay in
    /// one place. A trace without spans is left out.
    ///
    /// # Errors
    /// As [`BlockWriter::push_trace`], and [`BlockError::Corrupt`] when the page that has the trace
    /// refers to something that is not there.
    pub fn push_merged(&mut self, merged: &Merged, marks: TraceMarks) -> Result<(), BlockError> {
        match &merged.content {
            Content::Joined(trace) => self.push_trace(trace, marks),
            Content::Stored(stored) if self.carry(merged.id, stored, marks)? => Ok(()),
            Content::Stored(_) => {
                let trace: Trace = merged.trace()?;
                self.push_trace(&trace, marks)
            }
        }
    }

    /// Carries a trace over, if that can be done.
    fn carry(
        &mut self,
        id: TraceId,
        stored: &StoredTrace,
        marks: TraceMarks,
    ) -> Result<bool, BlockError> {
        let StoredTrace { input, page, part, records } = stored;
        if self.inputs.len() <= *input {
            self.inputs.resize_with(input + 1, CarriedInput::default);
        }
        let Self { assembler, terms, guess, inputs, .. } = self;
        let from = &mut inputs[*input];
        let size = from.carrier.read(page, *part, records)?;
        let rows = from.carrier.rows();
        if rows.is_empty() {
            return Ok(true);
        }
        // A trace's start is that of its first span, or columns would hold other values.
        let begins = rows.iter().any(|row| row.columns.start_in_trace == 0);
        if !begins || !assembler.pages_mut().has_room_for(size) {
            return Ok(false);
        }
        if from.carrier.settle(records, assembler.pages_mut(), terms).is_none() {
            return Ok(false);
        }
        let (_, read_row) = from.carrier.place();
        let rows = from.carrier.rows_mut();
        terms.reserve(size)?;
        let first_row = assembler.next_row(rows.len())?;
        from.resources.resize(records.resources.len(), NONE);
        from.scopes.resize(records.scopes.len(), NONE);
        let spans = rows.len();
        for row in rows {
            let (of_resource, of_scope) = (row.columns.resource as usize, row.scope as usize);
            let known = from.resources.get_mut(of_resource).zip(from.scopes.get_mut(of_scope));
            let (resource, scope) = known.ok_or_else(corrupt)?;
            if *resource == NONE || *scope == NONE {
                let BlockRecords { resources, scopes, .. } = &**records;
                (*resource, *scope) = assembler.intern(&resources[of_resource], &scopes[of_scope]);
            }
            (row.columns.resource, row.scope) = (*resource, *scope);
            if let Parent::Row(parent) = &mut row.columns.parent {
                let within = parent.checked_sub(read_row).filter(|at| (*at as usize) < spans);
                let within = within.ok_or(BlockError::corrupt("page", "a parent is elsewhere"))?;
                *parent = first_row.saturating_add(within);
            }
        }
        assembler.add_carried(id, marks, size, &mut from.carrier, terms, guess)?;
        self.span_bytes = self.span_bytes.saturating_add(size as u64);
        Ok(true)
    }
}
