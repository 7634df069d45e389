//! The values that given rows have under a field, from an index: what a search shows of spans that
//! it found without decoding them.

use std::ops::ControlFlow;

use clew_traceql::plan::{Field, Intrinsic, Scope, Test};
use clew_traceql::value::Static;

use crate::error::BlockError;
use crate::probe::{self, Plan};
use crate::rows::RowSet;
use crate::source::{IndexSource, TermRef};
use crate::term::{Decoded, KeyScope, code, decode, intrinsic};

/// Visits the value that each row in `within` has under an attribute of spans, a name or a status
/// message; returns the rows whose value the index does not hold as a whole. Rows that are neither
/// visited nor returned have none. With a `test` that all rows pass only its terms are looked at.
pub(crate) fn visit(
    source: &impl IndexSource,
    field: &Field,
    within: &RowSet,
    test: Option<&Test>,
    visit: &mut dyn FnMut(u32, &Static),
) -> Result<RowSet, BlockError> {
    let key = match field {
        Field::Attribute(scope, name) => match (scope, KeyScope::of(*scope)) {
            (Scope::Span, Some(scope)) => source.key(scope, name.as_bytes()),
            _ => return Ok(within.clone()),
        },
        Field::Intrinsic(Intrinsic::Name) => source.key(KeyScope::Intrinsic, b"name"),
        Field::Intrinsic(Intrinsic::StatusMessage) => {
            debug_assert_eq!(intrinsic::NAMES[intrinsic::STATUS_MESSAGE as usize], "statusMessage");
            source.key(KeyScope::Intrinsic, b"statusMessage")
        }
        Field::Intrinsic(_) => return Ok(within.clone()),
    };
    let Some(key) = key else { return Ok(RowSet::new()) };
    if key.repeated {
        let mut unknown = source.key_rows(key.handle)?;
        unknown.intersect(within);
        return Ok(unknown);
    }
    let mut unknown = source.rare_text_rows(key.handle)?;
    unknown.intersect(within);
    let mut take = |term: &TermRef<'_>| {
        let mut rows = RowSet::new();
        source.add_rows(&term.place, &mut rows)?;
        rows.intersect(within);
        match decode(term.code, term.value) {
            _ if rows.is_empty() => {}
            Some(Decoded::Value(value)) if term.code & code::ARRAY == 0 => {
                rows.iter().for_each(|row| visit(row, &value));
            }
            Some(_) => unknown.unite(&rows),
            None => return Err(BlockError::corrupt("index", "a term is no value")),
        }
        Ok(ControlFlow::Continue(()))
    };
    match test.map(probe::plan) {
        Some(Plan::Probes(probes)) => {
            for probe in &probes {
                source.visit_terms(key.handle, Some(probe), &mut |term| {
                    if probe.matches(term.value) {
                        take(term)
                    } else {
                        Ok(ControlFlow::Continue(()))
                    }
                })?;
            }
        }
        _ => source.visit_terms(key.handle, None, &mut take)?,
    }
    for type_code in [code::INT, code::FLOAT] {
        source.visit_rare_numbers(key.handle, type_code, &mut |row, value| {
            if within.contains(row)
                && let Some(Decoded::Value(value)) = decode(type_code, &value.to_be_bytes())
            {
                visit(row, &value);
            }
        })?;
    }
    Ok(unknown)
}
