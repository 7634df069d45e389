//! Answers a query's condition from an index: every row that can pass it, and whether those are
//! all rows that do.
//!
//! A condition on a field the index does not hold is answered with all rows, so a caller may
//! always intersect. A value too long for a term, a number near the limits of doubles, an array
//! of arrays: such doubts never lose a row, they only make the answer inexact.

use std::ops::{Bound, ControlFlow};

use clew_model::TraceId;
use clew_model::otlp::KeyValueView;
use clew_model::otlp::view::ScopeView;
use clew_model::otlp::view::resource_attributes;
use clew_model::wire::WireError;
use clew_traceql::plan::{Condition, Field, Intrinsic, Scope, Test};
use clew_traceql::value::Static;

use crate::error::BlockError;
use crate::probe::{self, Plan, Probe, Values};
use crate::rows::{LookupResult, RowSet};
use crate::source::{IndexSource, RecordKind, TraceFacts};
use crate::term::{
    KeyScope, code, intrinsic, kind_code, status_code, text_term, value_terms, with_bytes,
};

/// Rows are looked at one by one if there are at most one in so many.
pub(crate) const FILTERED_SHARE: u32 = 8;

/// Looks a condition up.
pub(crate) fn lookup(
    source: &impl IndexSource,
    condition: &Condition,
) -> Result<LookupResult, BlockError> {
    match &condition.field {
        Field::Attribute(Scope::Resource, name) => {
            records(source, RecordKind::Resource, &condition.test, |message, plan| {
                attribute_match(resource_attributes(message), name, plan)
            })
        }
        Field::Attribute(Scope::Instrumentation, name) => {
            records(source, RecordKind::Scope, &condition.test, |message, plan| {
                attribute_match(ScopeView::parse(message)?.attributes(), name, plan)
            })
        }
        Field::Attribute(scope, name) => match KeyScope::of(*scope) {
            Some(scope) => attribute(source, scope, name.as_bytes(), &condition.test),
            None => Ok(unknown(source)),
        },
        Field::Intrinsic(field) => intrinsic_field(source, *field, &condition.test),
    }
}

fn unknown(source: &impl IndexSource) -> LookupResult {
    LookupResult::at_most(RowSet::from_range(0..source.row_limit()))
}

fn all(source: &impl IndexSource) -> LookupResult {
    LookupResult::exactly(RowSet::from_range(0..source.row_limit()))
}

fn attribute(
    source: &impl IndexSource,
    scope: KeyScope,
    name: &[u8],
    test: &Test,
) -> Result<LookupResult, BlockError> {
    let plan = probe::plan(test);
    let Some(key) = source.key(scope, name) else {
        // An absent value passes no test, except one the index does not understand.
        return Ok(match plan {
            Plan::Unknown => unknown(source),
            _ => LookupResult::exactly(RowSet::new()),
        });
    };
    // Which of several events or links a test is about is the query's business.
    let certain = scope == KeyScope::Span && !key.repeated;
    match plan {
        Plan::Unknown => Ok(unknown(source)),
        Plan::Exists => {
            let exact = certain && !has_incomparable(source, key.handle)?;
            Ok(LookupResult { rows: source.key_rows(key.handle)?, exact })
        }
        Plan::Probes(probes) => {
            let mut found = probe_terms(source, key.handle, &probes)?;
            found.exact &= certain;
            Ok(found)
        }
    }
}

fn has_incomparable(source: &impl IndexSource, key: u32) -> Result<bool, BlockError> {
    let mut any = false;
    source.visit_terms(key, Some(&probe::one(code::PRESENT, &[])), &mut |_| {
        any = true;
        Ok(ControlFlow::Break(()))
    })?;
    Ok(any)
}

/// The rows of all terms and rare values that the probes admit.
fn probe_terms(
    source: &impl IndexSource,
    key: u32,
    probes: &[Probe],
) -> Result<LookupResult, BlockError> {
    let mut found = LookupResult::exactly(RowSet::new());
    for probe in probes {
        source.visit_terms(key, Some(probe), &mut |term| {
            if probe.matches(term.value) {
                source.add_rows(&term.place, &mut found.rows)?;
                found.exact &= probe.exact;
            }
            Ok(ControlFlow::Continue(()))
        })?;
        probe_rare(source, key, probe, &mut found)?;
    }
    Ok(found)
}

fn probe_rare(
    source: &impl IndexSource,
    key: u32,
    probe: &Probe,
    found: &mut LookupResult,
) -> Result<(), BlockError> {
    match (probe.code, &probe.values) {
        (code::STRING, Values::One(text)) => {
            let before = found.rows.len();
            let certain = source.add_rare_text(key, text, &mut found.rows)?;
            found.exact &= certain || found.rows.len() == before;
        }
        (code::STRING, Values::Between(..)) => {
            let rows = source.rare_text_rows(key)?;
            found.exact &= rows.is_empty();
            found.rows.unite(&rows);
        }
        (code::INT | code::FLOAT, values) => {
            let Some((low, high)) = word_bounds(values) else { return Ok(()) };
            let mut rows = Vec::new();
            source.visit_rare_numbers(key, probe.code, &mut |row, value| {
                if (low..=high).contains(&value) {
                    rows.push(row);
                }
            })?;
            found.exact &= probe.exact || rows.is_empty();
            found.rows.extend_sorted(&rows);
        }
        _ => {}
    }
    Ok(())
}

/// The smallest and the largest number of a range of terms; `None` if there is none.
fn word_bounds(values: &Values) -> Option<(u64, u64)> {
    let word = |bytes: &Vec<u8>| bytes.as_slice().try_into().ok().map(u64::from_be_bytes);
    let (low, high) = match values {
        Values::One(value) => return Some((word(value)?, word(value)?)),
        Values::Between(low, high) => (low, high),
    };
    let low = match low {
        Bound::Unbounded => 0,
        Bound::Included(low) => word(low)?,
        Bound::Excluded(low) => word(low)?.checked_add(1)?,
    };
    let high = match high {
        Bound::Unbounded => u64::MAX,
        Bound::Included(high) => word(high)?,
        Bound::Excluded(high) => word(high)?.checked_sub(1)?,
    };
    Some((low, high))
}

/// Whether a record passes a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Match {
    No,
    Maybe,
    Yes,
}

/// Tests each distinct record once and answers with the rows of those that pass.
fn records(
    source: &impl IndexSource,
    kind: RecordKind,
    test: &Test,
    passes: impl Fn(&[u8], &Plan) -> Result<Match, WireError>,
) -> Result<LookupResult, BlockError> {
    let plan = probe::plan(test);
    if matches!(plan, Plan::Unknown) {
        return Ok(unknown(source));
    }
    let mut found = LookupResult::exactly(RowSet::new());
    for ordinal in 0..source.record_count(kind) {
        // What cannot be read is a candidate: the reader of the span will say what is wrong.
        let passed = passes(source.record_message(kind, ordinal), &plan).unwrap_or(Match::Maybe);
        if passed != Match::No {
            found.rows.unite(&source.record_rows(kind, ordinal)?);
            found.exact &= passed == Match::Yes;
        }
    }
    Ok(found)
}

fn attribute_match<'a>(
    attributes: impl Iterator<Item = Result<KeyValueView<'a>, WireError>>,
    name: &str,
    plan: &Plan,
) -> Result<Match, WireError> {
    let mut best = Match::No;
    let mut values = 0;
    for pair in attributes {
        let pair = pair?;
        if pair.key != name {
            continue;
        }
        values += 1;
        value_terms(&pair.value, &mut |code, value| {
            best = best.max(with_bytes(&value, |bytes| term_match(plan, code, bytes)));
        })?;
    }
    Ok(if values > 1 { best.min(Match::Maybe) } else { best })
}

fn term_match(plan: &Plan, term_code: u8, value: &[u8]) -> Match {
    match plan {
        Plan::Unknown => Match::Maybe,
        Plan::Exists if term_code == code::PRESENT => Match::Maybe,
        Plan::Exists => Match::Yes,
        Plan::Probes(probes) => probes
            .iter()
            .filter(|probe| probe.admits(term_code, value))
            .map(|probe| if probe.exact { Match::Yes } else { Match::Maybe })
            .max()
            .unwrap_or(Match::No),
    }
}

fn text_match(plan: &Plan, text: &str) -> Match {
    let (code, value) = text_term(text.as_bytes());
    with_bytes(&value, |bytes| term_match(plan, code, bytes))
}

fn intrinsic_field(
    source: &impl IndexSource,
    field: Intrinsic,
    test: &Test,
) -> Result<LookupResult, BlockError> {
    match (field, test) {
        (
            Intrinsic::Name | Intrinsic::Duration | Intrinsic::Status | Intrinsic::Kind,
            Test::Exists,
        ) => Ok(all(source)),
        (Intrinsic::Name, _) => named(source, intrinsic::NAME, test),
        (Intrinsic::EventName, _) => {
            let mut found = named(source, intrinsic::EVENT_NAME, test)?;
            found.exact = false;
            Ok(found)
        }
        (Intrinsic::StatusMessage, _) => status_message(source, test),
        (Intrinsic::Status, Test::Equals(Static::Status(status))) => {
            let probe = probe::one(code::STATUS, &[status_code(*status)]);
            probe_terms(source, intrinsic::STATUS, &[probe])
        }
        (Intrinsic::Kind, Test::Equals(Static::Kind(kind))) => {
            let probe = probe::one(code::KIND, &[kind_code(*kind)]);
            probe_terms(source, intrinsic::KIND, &[probe])
        }
        (Intrinsic::Duration, _) => Ok(duration(source, test)),
        (Intrinsic::InstrumentationName, _) => {
            records(source, RecordKind::Scope, test, |message, plan| {
                Ok(text_match(plan, ScopeView::parse(message)?.name))
            })
        }
        (Intrinsic::InstrumentationVersion, _) => {
            records(source, RecordKind::Scope, test, |message, plan| {
                Ok(text_match(plan, ScopeView::parse(message)?.version))
            })
        }
        (Intrinsic::NestedSetParent, _) => nested_set_parent(source, test),
        (Intrinsic::TraceId, Test::Equals(Static::String(text))) => Ok(trace_id(source, text)),
        (Intrinsic::RootName, _) => {
            let plan = probe::plan(test);
            traces(source, |facts| {
                facts.root.is_none_or(|(name, _)| text_match(&plan, name) != Match::No)
            })
        }
        (Intrinsic::RootService, _) => {
            let plan = probe::plan(test);
            traces(source, |facts| {
                facts.root.is_none_or(|(_, service)| text_match(&plan, service) != Match::No)
            })
        }
        (Intrinsic::TraceDuration, _) => trace_duration(source, test),
        _ => Ok(unknown(source)),
    }
}

/// A field indexed under one of the intrinsic keys.
fn named(source: &impl IndexSource, key: u32, test: &Test) -> Result<LookupResult, BlockError> {
    match probe::plan(test) {
        Plan::Unknown => Ok(unknown(source)),
        Plan::Exists => Ok(LookupResult::exactly(source.key_rows(key)?)),
        Plan::Probes(probes) => probe_terms(source, key, &probes),
    }
}

/// The message is only indexed where there is one, so a test that the empty text passes is not
/// for the index.
fn status_message(source: &impl IndexSource, test: &Test) -> Result<LookupResult, BlockError> {
    let plan = probe::plan(test);
    if matches!(test, Test::Exists) || text_match(&plan, "") != Match::No {
        return Ok(unknown(source));
    }
    named(source, intrinsic::STATUS_MESSAGE, test)
}

/// The bounds of a test on a number.
#[allow(clippy::cast_precision_loss, reason = "the bounds are widened where doubles are coarse")]
fn number_bounds(test: &Test) -> Option<(Bound<f64>, Bound<f64>)> {
    let one = match test {
        Test::NumberRange(low, high) => return Some((*low, *high)),
        Test::Equals(Static::Int(number) | Static::Duration(number)) => *number as f64,
        Test::Equals(Static::Float(number)) => *number,
        _ => return None,
    };
    Some((Bound::Included(one), Bound::Included(one)))
}

/// The bounds of a test on a number of nanoseconds; `Err` when the test is none.
fn nanos_bounds(test: &Test) -> Option<Option<(u64, u64, bool)>> {
    let (low, high) = number_bounds(test)?;
    let Some((low, high, exact)) = probe::int_bounds(low, high) else { return Some(None) };
    let Ok(longest) = u64::try_from(high) else { return Some(None) };
    // Beyond 2^63 nanoseconds all durations are alike.
    let longest = if high == i64::MAX { u64::MAX } else { longest };
    Some(Some((u64::try_from(low).unwrap_or(0), longest, exact)))
}

/// The durations in nanoseconds that pass a condition, and whether all of them do; `None` if the
/// condition is on something else or on no range of durations.
pub(crate) fn duration_bounds(condition: &Condition) -> Option<(u64, u64, bool)> {
    match condition.field {
        Field::Intrinsic(Intrinsic::Duration) => nanos_bounds(&condition.test)?,
        _ => None,
    }
}

fn duration(source: &impl IndexSource, test: &Test) -> LookupResult {
    match nanos_bounds(test) {
        None => unknown(source),
        Some(None) => LookupResult::exactly(RowSet::new()),
        Some(Some((shortest, longest, exact))) => {
            LookupResult { rows: source.rows_by_duration(shortest, longest), exact }
        }
    }
}

fn trace_duration(source: &impl IndexSource, test: &Test) -> Result<LookupResult, BlockError> {
    match nanos_bounds(test) {
        None => Ok(unknown(source)),
        Some(None) => traces(source, |_| false),
        Some(Some((shortest, longest, _))) => traces(source, |facts| {
            (shortest..=longest).contains(&facts.end.saturating_sub(facts.start))
        }),
    }
}

/// A root's parent is -1 and every other value is positive or, for spans cut off, zero. So a test
/// that admits no other negative number than -1 is a test for roots.
fn nested_set_parent(source: &impl IndexSource, test: &Test) -> Result<LookupResult, BlockError> {
    let bounds = number_bounds(test).map(|(low, high)| probe::int_bounds(low, high));
    match bounds {
        Some(Some((low, high, _))) if high < 0 => {
            if (low..=high).contains(&-1) {
                let root = probe::one(code::BOOL, &[1]);
                probe_terms(source, intrinsic::ROOT, &[root])
            } else {
                Ok(LookupResult::exactly(RowSet::new()))
            }
        }
        Some(None) => Ok(LookupResult::exactly(RowSet::new())),
        _ => Ok(unknown(source)),
    }
}

fn trace_id(source: &impl IndexSource, text: &str) -> LookupResult {
    let mut rows = RowSet::new();
    // Leading zeros do not count, so more than 32 digits can still be an id.
    let digits = text.trim_start_matches('0');
    if let Ok(id) = TraceId::parse_padded(if digits.is_empty() { "0" } else { digits })
        && let Some(trace) = source.find_trace(&id)
    {
        source.add_trace_rows(trace, &mut rows);
    }
    LookupResult::at_most(rows)
}

/// The rows of the traces that may pass. A trace that is not certain always may.
fn traces(
    source: &impl IndexSource,
    passes: impl Fn(&TraceFacts<'_>) -> bool,
) -> Result<LookupResult, BlockError> {
    let mut rows = RowSet::new();
    source.visit_traces(&mut |trace, facts| {
        if facts.uncertain || passes(facts) {
            source.add_trace_rows(trace, &mut rows);
        }
        ControlFlow::Continue(())
    })?;
    Ok(LookupResult::at_most(rows))
}
