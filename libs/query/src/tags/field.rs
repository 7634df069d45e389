//! The field whose values are asked for, and its values on a span.

use std::sync::Arc;

use clew_model::Trace;
use clew_traceql::FieldRef;
use clew_traceql::eval::SpanValues;
use clew_traceql::plan::{Field, Intrinsic};
use clew_traceql::value::Static;

use crate::QueryError;
use crate::found::each_span;
use crate::view::{SpanRef, TraceView, static_of};

/// A field as the user wrote it: `.a` stands for the span's and the resource's.
#[derive(Debug, Clone, PartialEq)]
pub struct TagField(FieldRef);

impl TagField {
    /// Reads an attribute or intrinsic as TraceQL writes it.
    ///
    /// # Errors
    /// [`QueryError::BadRequest`] when the text is something else.
    pub fn parse(tag: &str) -> Result<TagField, QueryError> {
        match clew_traceql::parse_field(tag) {
            Ok(field) if !field.is_parent() => Ok(TagField(field)),
            Ok(_) => Err(QueryError::NotSupported { what: "values of the parent span" }),
            Err(error) => Err(QueryError::bad("tagName", error.to_string())),
        }
    }

    /// The places where values are looked for.
    pub fn fields(&self) -> Vec<Field> {
        self.0.fields().into_vec()
    }

    /// Whether other spans of a trace have a say in what a span has.
    pub(crate) fn is_of_trace(&self) -> bool {
        matches!(&self.0, FieldRef::Intrinsic { intrinsic, .. } if intrinsic.is_trace_level())
    }

    /// Whether listing values makes sense: not for durations, ids and positions in the tree.
    pub fn has_values(&self) -> bool {
        match &self.0 {
            FieldRef::Attribute { .. } => true,
            FieldRef::Parent => false,
            FieldRef::Intrinsic { intrinsic, .. } => matches!(
                intrinsic,
                Intrinsic::Name
                    | Intrinsic::Status
                    | Intrinsic::StatusMessage
                    | Intrinsic::Kind
                    | Intrinsic::RootName
                    | Intrinsic::RootService
                    | Intrinsic::EventName
                    | Intrinsic::InstrumentationName
                    | Intrinsic::InstrumentationVersion
            ),
        }
    }
}

/// Hands every scalar the field has on a span to `take`.
pub(crate) fn values_of(span: &SpanRef<'_, '_>, field: &Field, take: &mut dyn FnMut(Static)) {
    match field {
        Field::Attribute(scope, name) => span.each_attribute(*scope, &mut |pair| {
            if pair.key == &**name {
                // Damage inside one value: nothing of it is a suggestion.
                match static_of(&pair.value) {
                    Ok(Some(Static::Array(elements))) => elements.into_iter().for_each(&mut *take),
                    Ok(Some(scalar)) => take(scalar),
                    Ok(None) | Err(_) => {}
                }
            }
        }),
        Field::Intrinsic(Intrinsic::EventName) => {
            span.events().iter().for_each(|event| take(Static::String(Arc::from(event.name))));
        }
        Field::Intrinsic(intrinsic) => {
            span.intrinsic(*intrinsic).into_iter().for_each(take);
        }
    }
}

/// The values of a field on the span of a one-span trace: those that were too long for an index.
pub(crate) fn long_value(trace: &Trace, field: &Field, values: &mut Vec<Static>) {
    // Damaged bytes have no values to suggest; whoever reads the trace reports them.
    if let Ok(view) = TraceView::new(trace) {
        for span in each_span(&view) {
            values_of(&span, field, &mut |value| values.push(value));
        }
    }
}
