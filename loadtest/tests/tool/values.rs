//! What a filter can ask of a decoded span, answered the slow and plain way.

use clew_model::otlp::view::{ScopeView, array_elements, resource_attributes};
use clew_model::otlp::{AnyValueView, EventView, KeyValueView, LinkView, SpanView};
use clew_model::trace::SpanRecord;
use clew_model::wire::WireError;
use clew_model::{TraceSummary, id};
use clew_traceql::{Intrinsic, Kind, Scope, SpanValues, Static, Status};

/// A span with the summary of its trace.
pub(crate) struct Values<'a> {
    span: SpanView<'a>,
    resource: &'a [u8],
    scope: ScopeView<'a>,
    events: Vec<EventView<'a>>,
    links: Vec<LinkView<'a>>,
    summary: &'a TraceSummary,
}

impl<'a> Values<'a> {
    pub(crate) fn new(record: &'a SpanRecord, summary: &'a TraceSummary) -> Values<'a> {
        let span = SpanView::parse(&record.bytes).unwrap();
        Values {
            span,
            resource: &record.resource.bytes,
            scope: ScopeView::parse(&record.scope.bytes).unwrap(),
            events: span.events().map(Result::unwrap).collect(),
            links: span.links().map(Result::unwrap).collect(),
            summary,
        }
    }
}

fn find<'a>(
    attributes: impl Iterator<Item = Result<KeyValueView<'a>, WireError>>,
    name: &str,
) -> Option<Static> {
    let pair = attributes.map(Result::unwrap).find(|pair| pair.key == name)?;
    value(&pair.value)
}

fn value(value: &AnyValueView<'_>) -> Option<Static> {
    match value {
        AnyValueView::String(text) => Some(text_of(text)),
        AnyValueView::Int(number) => Some(Static::Int(*number)),
        AnyValueView::Double(number) => Some(Static::Float(*number)),
        AnyValueView::Bool(truth) => Some(Static::Bool(*truth)),
        AnyValueView::Array(raw) => {
            let elements = array_elements(raw).map(|element| self::value(&element.unwrap()));
            Some(Static::Array(elements.collect::<Option<_>>()?))
        }
        _ => None,
    }
}

fn text_of(text: &str) -> Static {
    Static::String(text.into())
}

fn nanos(nanos: u64) -> Static {
    Static::Duration(i64::try_from(nanos).unwrap())
}

impl SpanValues for Values<'_> {
    fn attribute(&self, scope: Scope, name: &str) -> Option<Static> {
        match scope {
            Scope::Span => find(self.span.attributes(), name),
            Scope::Resource => find(resource_attributes(self.resource), name),
            Scope::Instrumentation => find(self.scope.attributes(), name),
            Scope::Event | Scope::Link => None,
        }
    }

    fn intrinsic(&self, intrinsic: Intrinsic) -> Option<Static> {
        Some(match intrinsic {
            Intrinsic::Duration => nanos(self.span.duration_nanos()),
            Intrinsic::Name => text_of(self.span.name),
            Intrinsic::StatusMessage => text_of(self.span.status_message),
            Intrinsic::Status => Static::Status(
                [Status::Unset, Status::Ok, Status::Error]
                    [usize::try_from(self.span.status_code).unwrap()],
            ),
            Intrinsic::Kind => Static::Kind(
                [
                    Kind::Unspecified,
                    Kind::Internal,
                    Kind::Server,
                    Kind::Client,
                    Kind::Producer,
                    Kind::Consumer,
                ][usize::try_from(self.span.kind).unwrap()],
            ),
            Intrinsic::TraceDuration => nanos(self.summary.duration_nanos()),
            Intrinsic::RootService => text_of(self.summary.root_service.as_deref()?),
            Intrinsic::RootName => text_of(self.summary.root_name.as_deref()?),
            Intrinsic::InstrumentationName => text_of(self.scope.name),
            other => panic!("no query asks for {other:?}"),
        })
    }

    fn event_count(&self) -> usize {
        self.events.len()
    }

    fn event_attribute(&self, event: usize, name: &str) -> Option<Static> {
        find(self.events[event].attributes(), name)
    }

    fn event_intrinsic(&self, event: usize, intrinsic: Intrinsic) -> Option<Static> {
        assert_eq!(intrinsic, Intrinsic::EventName);
        Some(text_of(self.events[event].name))
    }

    fn link_count(&self) -> usize {
        self.links.len()
    }

    fn link_attribute(&self, link: usize, name: &str) -> Option<Static> {
        find(self.links[link].attributes(), name)
    }

    fn link_intrinsic(&self, link: usize, intrinsic: Intrinsic) -> Option<Static> {
        assert_eq!(intrinsic, Intrinsic::LinkTraceId);
        Some(text_of(&id::to_hex(self.links[link].trace_id)))
    }

    fn parent_attribute(&self, _: Scope, name: &str) -> Option<Static> {
        panic!("no query asks for parent.{name}")
    }
}
