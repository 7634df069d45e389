//! Names and values of attributes, from an index: what fills the drop-downs of a query editor.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use clew_model::otlp::KeyValueView;
use clew_model::otlp::view::ScopeView;
use clew_model::otlp::view::resource_attributes;
use clew_model::wire::WireError;
use clew_traceql::plan::{Field, Intrinsic, Scope};
use clew_traceql::value::Static;

use crate::error::BlockError;
use crate::rows::RowSet;
use crate::source::{IndexSource, RecordKind};
use crate::term::{Decoded, KeyScope, code, decode, intrinsic, value_terms, with_bytes};

/// An attribute that spans have.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TagName {
    /// Where the attribute lives.
    pub scope: Scope,
    /// Its name.
    pub name: Arc<str>,
}

/// A value that spans have.
#[derive(Debug, Clone, PartialEq)]
pub struct TagValue {
    /// The value; of an array, one of its elements.
    pub value: Static,
    /// How many spans have it.
    pub rows: u64,
}

/// How a visit of values ended.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TagValuesEnd {
    /// Rows with values that the index does not hold, because they are too long or too rare: at
    /// least one for each such value. They are found in the spans themselves.
    pub long_values: RowSet,
    /// Whether the sink ended the visit before the last value.
    pub stopped: bool,
}

/// Takes values one by one; breaking ends the visit.
pub type TagValueSink<'a> = dyn FnMut(TagValue) -> ControlFlow<()> + 'a;

/// The names of all attributes, of one scope or of all, sorted.
pub(crate) fn names(
    source: &impl IndexSource,
    scope: Option<Scope>,
) -> Result<Vec<TagName>, BlockError> {
    let mut names = Vec::new();
    source.visit_keys(&mut |key_scope, name, rows| {
        let found = match key_scope {
            KeyScope::Span => Scope::Span,
            KeyScope::Event => Scope::Event,
            KeyScope::Link => Scope::Link,
            KeyScope::Intrinsic => return,
        };
        if rows > 0 && scope.is_none_or(|wanted| wanted == found) {
            names.push(TagName { scope: found, name: Arc::from(name) });
        }
    });
    for (found, kind) in
        [(Scope::Resource, RecordKind::Resource), (Scope::Instrumentation, RecordKind::Scope)]
    {
        if scope.is_none_or(|wanted| wanted == found) {
            let counts = source.count_record_rows(kind)?;
            let records = (0..source.record_count(kind)).zip(counts);
            for (ordinal, _) in records.filter(|(_, rows)| *rows > 0) {
                // A damaged record names nothing; whoever reads its spans reports the damage.
                let _ =
                    record_attributes(kind, source.record_message(kind, ordinal), &mut |pair| {
                        names.push(TagName { scope: found, name: Arc::from(pair.key) });
                        Ok(())
                    });
            }
        }
    }
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

fn record_attributes(
    kind: RecordKind,
    message: &[u8],
    visit: &mut dyn FnMut(KeyValueView<'_>) -> Result<(), WireError>,
) -> Result<(), WireError> {
    match kind {
        RecordKind::Resource => resource_attributes(message).try_for_each(|pair| visit(pair?)),
        RecordKind::Scope => {
            ScopeView::parse(message)?.attributes().try_for_each(|pair| visit(pair?))
        }
    }
}

/// Visits the values of a field, only those of the rows in `within` if given. A field whose
/// values are not indexed has none here.
pub(crate) fn values(
    source: &impl IndexSource,
    field: &Field,
    within: Option<&RowSet>,
    sink: &mut TagValueSink<'_>,
) -> Result<TagValuesEnd, BlockError> {
    let key = match field {
        Field::Attribute(Scope::Resource, name) => {
            return record_values(source, RecordKind::Resource, within, sink, &|message, put| {
                record_attributes(RecordKind::Resource, message, &mut |pair| {
                    if pair.key == &**name { put_value(&pair, put) } else { Ok(()) }
                })
            });
        }
        Field::Attribute(Scope::Instrumentation, name) => {
            return record_values(source, RecordKind::Scope, within, sink, &|message, put| {
                record_attributes(RecordKind::Scope, message, &mut |pair| {
                    if pair.key == &**name { put_value(&pair, put) } else { Ok(()) }
                })
            });
        }
        Field::Attribute(scope, name) => KeyScope::of(*scope)
            .and_then(|scope| source.key(scope, name.as_bytes()))
            .map(|key| key.handle),
        Field::Intrinsic(Intrinsic::Name) => Some(intrinsic::NAME),
        Field::Intrinsic(Intrinsic::Status) => Some(intrinsic::STATUS),
        Field::Intrinsic(Intrinsic::Kind) => Some(intrinsic::KIND),
        Field::Intrinsic(Intrinsic::StatusMessage) => Some(intrinsic::STATUS_MESSAGE),
        Field::Intrinsic(Intrinsic::EventName) => Some(intrinsic::EVENT_NAME),
        Field::Intrinsic(Intrinsic::InstrumentationName) => {
            return record_values(source, RecordKind::Scope, within, sink, &|message, put| {
                put(code::STRING, ScopeView::parse(message)?.name.as_bytes());
                Ok(())
            });
        }
        Field::Intrinsic(Intrinsic::InstrumentationVersion) => {
            return record_values(source, RecordKind::Scope, within, sink, &|message, put| {
                put(code::STRING, ScopeView::parse(message)?.version.as_bytes());
                Ok(())
            });
        }
        Field::Intrinsic(Intrinsic::RootName) => {
            return root_values(source, within, sink, |(name, _)| name);
        }
        Field::Intrinsic(Intrinsic::RootService) => {
            return root_values(source, within, sink, |(_, service)| service);
        }
        Field::Intrinsic(_) => None,
    };
    match key {
        Some(key) => term_values(source, key, within, sink),
        None => Ok(TagValuesEnd::default()),
    }
}

fn put_value(pair: &KeyValueView<'_>, put: &mut dyn FnMut(u8, &[u8])) -> Result<(), WireError> {
    value_terms(&pair.value, &mut |code, value| with_bytes(&value, |bytes| put(code, bytes)))
}

fn term_values(
    source: &impl IndexSource,
    key: u32,
    within: Option<&RowSet>,
    sink: &mut TagValueSink<'_>,
) -> Result<TagValuesEnd, BlockError> {
    let mut end = TagValuesEnd::default();
    source.visit_terms(key, None, &mut |term| {
        let decoded = decode(term.code, term.value);
        let mut rows = RowSet::new();
        let count = if within.is_some() || decoded == Some(Decoded::Long) {
            source.add_rows(&term.place, &mut rows)?;
            if let Some(within) = within {
                rows.intersect(within);
            }
            rows.len()
        } else {
            source.count_rows(&term.place)
        };
        if count == 0 {
            return Ok(ControlFlow::Continue(()));
        }
        match decoded {
            Some(Decoded::Value(value)) => {
                let flow = sink(TagValue { value, rows: count });
                end.stopped = flow.is_break();
                Ok(flow)
            }
            Some(Decoded::Long) => {
                rows.first_at_or_after(0).into_iter().for_each(|row| end.long_values.insert(row));
                Ok(ControlFlow::Continue(()))
            }
            Some(Decoded::Incomparable) => Ok(ControlFlow::Continue(())),
            None => Err(BlockError::corrupt("index", "a term is no value")),
        }
    })?;
    if !end.stopped {
        rare_numbers(source, key, within, sink, &mut end)?;
        let mut rows = source.rare_text_rows(key)?;
        if let Some(within) = within {
            rows.intersect(within);
        }
        end.long_values.unite(&rows);
    }
    Ok(end)
}

fn rare_numbers(
    source: &impl IndexSource,
    key: u32,
    within: Option<&RowSet>,
    sink: &mut TagValueSink<'_>,
    end: &mut TagValuesEnd,
) -> Result<(), BlockError> {
    for type_code in [code::INT, code::FLOAT] {
        let mut numbers = Vec::new();
        source.visit_rare_numbers(key, type_code, &mut |row, value| {
            if within.is_none_or(|within| within.contains(row)) {
                numbers.push(value);
            }
        })?;
        numbers.sort_unstable();
        for same in numbers.chunk_by(|a, b| a == b) {
            let first = same.first().map(|value| value.to_be_bytes()).unwrap_or_default();
            if let Some(Decoded::Value(value)) = decode(type_code, &first)
                && sink(TagValue { value, rows: same.len() as u64 }).is_break()
            {
                end.stopped = true;
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Reads the values of one record.
type ReadValues<'a> = &'a dyn Fn(&[u8], &mut dyn FnMut(u8, &[u8])) -> Result<(), WireError>;

fn record_values(
    source: &impl IndexSource,
    kind: RecordKind,
    within: Option<&RowSet>,
    sink: &mut TagValueSink<'_>,
    read: ReadValues<'_>,
) -> Result<TagValuesEnd, BlockError> {
    let mut found: BTreeMap<(u8, Vec<u8>), u64> = BTreeMap::new();
    let mut end = TagValuesEnd::default();
    let counts = source.count_record_rows(kind)?;
    for (ordinal, count) in (0..source.record_count(kind)).zip(counts) {
        let count = match within {
            Some(within) if count > 0 => {
                source.record_rows(kind, ordinal)?.intersection_len(within)
            }
            _ => count,
        };
        if count == 0 {
            continue;
        }
        let mut long = false;
        // A damaged record has no values; whoever reads its spans reports the damage.
        let _ = read(source.record_message(kind, ordinal), &mut |term_code, value| {
            long |= term_code & !code::ARRAY == code::LONG_STRING;
            *found.entry((term_code, value.to_vec())).or_default() += count;
        });
        if long {
            let mut rows = source.record_rows(kind, ordinal)?;
            if let Some(within) = within {
                rows.intersect(within);
            }
            rows.first_at_or_after(0).into_iter().for_each(|row| end.long_values.insert(row));
        }
    }
    for ((term_code, value), rows) in found {
        if let Some(Decoded::Value(value)) = decode(term_code, &value)
            && sink(TagValue { value, rows }).is_break()
        {
            end.stopped = true;
            break;
        }
    }
    Ok(end)
}

fn root_values(
    source: &impl IndexSource,
    within: Option<&RowSet>,
    sink: &mut TagValueSink<'_>,
    pick: impl for<'a> Fn((&'a str, &'a str)) -> &'a str,
) -> Result<TagValuesEnd, BlockError> {
    let mut found: BTreeMap<String, u64> = BTreeMap::new();
    source.visit_traces(&mut |trace, facts| {
        if let Some(root) = facts.root {
            let mut rows = RowSet::new();
            source.add_trace_rows(trace, &mut rows);
            if let Some(within) = within {
                rows.intersect(within);
            }
            if !rows.is_empty() {
                *found.entry(pick(root).to_owned()).or_default() += rows.len();
            }
        }
        ControlFlow::Continue(())
    })?;
    for (value, rows) in found {
        if sink(TagValue { value: Static::String(value.into()), rows }).is_break() {
            return Ok(TagValuesEnd { stopped: true, ..TagValuesEnd::default() });
        }
    }
    Ok(TagValuesEnd::default())
}
