//! A block's index together with what pages said of rare texts, which the index alone knows to lie
//! somewhere in a page.

use std::collections::BTreeSet;
use std::sync::Arc;

use clew_block::{BlockError, BlockSearch, LookupResult, RowSet};
use clew_model::TraceId;
use clew_traceql::plan::{Condition, Field, Prefilter, Scope, Test};
use clew_traceql::value::Static;

use super::{BlockSource, QueryError};
use crate::select::{RowIndex, TraceRows};
use crate::source::{Candidate, Selection};

/// So many pages are looked at for one selection; values that lie on more are judged trace by
/// trace.
const PAGES_MAX: usize = 32;

/// An index that answers lookups of some rare texts exactly.
pub(super) struct VerifiedIndex {
    index: Arc<BlockSearch>,
    verified: Vec<Verified>,
    /// Traces that are not to be seen any more, ascending.
    deleted: Arc<[TraceId]>,
}

/// The rows that have a text.
struct Verified {
    name: Arc<str>,
    text: Arc<str>,
    rows: Vec<u32>,
}

impl BlockSource {
    /// The index for a selection, with the pages that its rare texts may lie in looked at.
    pub(super) async fn verified_index(
        &self,
        selection: &Selection,
    ) -> Result<VerifiedIndex, QueryError> {
        let index = self.index().await?;
        let mut wanted: Vec<(Verified, Vec<usize>)> = Vec::new();
        let filters = selection.pipeline.iter().flat_map(|pipeline| pipeline.filters());
        let of_filters = filters.map(|leaf| &leaf.prefilter);
        for condition in selection.conditions.iter().chain([&selection.fragment]).chain(of_filters)
        {
            visit(condition, &mut |condition| {
                let Some((name, text)) = text_of(condition) else { return };
                let pages = index.pages_to_verify(condition);
                let is_known = wanted.iter().any(|(known, _)| known.is(name, text));
                if !pages.is_empty() && !is_known {
                    let (name, text) = (Arc::clone(name), Arc::clone(text));
                    wanted.push((Verified { name, text, rows: Vec::new() }, pages));
                }
            });
        }
        let numbers: BTreeSet<usize> =
            wanted.iter().flat_map(|(_, pages)| pages).copied().collect();
        if numbers.is_empty() || numbers.len() > PAGES_MAX {
            let deleted = Arc::clone(&self.block.deleted);
            return Ok(VerifiedIndex { index, verified: Vec::new(), deleted });
        }
        let block = self.opened().await?;
        let pages = self.pages(&block, numbers).await?;
        let verify = move || {
            let verified = wanted.into_iter().map(|(mut verified, mut numbers)| {
                numbers.sort_unstable();
                for page in numbers.iter().filter_map(|number| pages.get(number)) {
                    let (name, text) = (&verified.name, &verified.text);
                    let mut rows = page.rows_with_text(name, text, block.records());
                    verified.rows.append(&mut rows);
                }
                verified
            });
            Ok(verified.collect())
        };
        let deleted = Arc::clone(&self.block.deleted);
        Ok(VerifiedIndex { index, verified: self.compute(verify).await?, deleted })
    }
}

impl Verified {
    fn is(&self, name: &str, text: &str) -> bool {
        *self.name == *name && *self.text == *text
    }
}

/// The attribute and the text of a condition on a span's attribute.
fn text_of(condition: &Condition) -> Option<(&Arc<str>, &Arc<str>)> {
    match (&condition.field, &condition.test) {
        (Field::Attribute(Scope::Span, name), Test::Equals(Static::String(text))) => {
            Some((name, text))
        }
        _ => None,
    }
}

fn visit(prefilter: &Prefilter, found: &mut dyn FnMut(&Condition)) {
    match prefilter {
        Prefilter::All | Prefilter::None => {}
        Prefilter::Condition(condition) => found(condition),
        Prefilter::And(parts) | Prefilter::Or(parts) => {
            parts.iter().for_each(|part| visit(part, found));
        }
    }
}

impl RowIndex for VerifiedIndex {
    fn lookup(&self, condition: &Condition) -> Result<LookupResult, BlockError> {
        let verified = text_of(condition)
            .and_then(|(name, text)| self.verified.iter().find(|known| known.is(name, text)));
        match verified {
            Some(verified) => self.index.lookup_verified(condition, &verified.rows),
            None => self.index.lookup(condition),
        }
    }

    fn filter(&self, condition: &Condition, rows: &mut RowSet) -> Option<bool> {
        RowIndex::filter(self.index.as_ref(), condition, rows)
    }

    fn trace_count(&self) -> u32 {
        RowIndex::trace_count(self.index.as_ref())
    }

    fn traces_of(&self, rows: &RowSet) -> RowSet {
        RowIndex::traces_of(self.index.as_ref(), rows)
    }

    fn candidate(&self, ordinal: u32) -> Option<Candidate> {
        let candidate = RowIndex::candidate(self.index.as_ref(), ordinal)?;
        self.deleted.binary_search(&candidate.id).is_err().then_some(candidate)
    }

    fn add_rows(&self, ordinal: u32, rows: &mut RowSet) {
        RowIndex::add_rows(self.index.as_ref(), ordinal, rows);
    }

    fn has_row(&self, ordinal: u32, rows: &RowSet) -> bool {
        RowIndex::has_row(self.index.as_ref(), ordinal, rows)
    }

    fn find(&self, id: &TraceId) -> Option<u32> {
        let is_deleted = self.deleted.binary_search(id).is_ok();
        if is_deleted { None } else { RowIndex::find(self.index.as_ref(), id) }
    }

    fn trace_rows(&self, ordinal: u32) -> Option<Box<dyn TraceRows + '_>> {
        RowIndex::trace_rows(self.index.as_ref(), ordinal)
    }

    fn duration(&self, row: u32) -> Option<u64> {
        RowIndex::duration(self.index.as_ref(), row)
    }

    fn start_end(&self, row: u32) -> Option<(u64, u64)> {
        RowIndex::start_end(self.index.as_ref(), row)
    }
}
