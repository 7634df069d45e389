//! A trace as filters see it: spans parsed once, values of attributes read from the bytes on
//! demand, and facts about the whole trace worked out when first asked for.

mod value;

use std::cell::{Cell, OnceCell};

use clew_model::otlp::view::{ScopeView, resource_attributes};
use clew_model::otlp::{EventView, KeyValueView, LinkView, SpanView};
use clew_model::wire::WireError;
use clew_model::{Trace, TraceSummary, id};
use clew_traceql::eval::{Cursor, SpanValues};
use clew_traceql::plan::{Intrinsic, Scope};
use clew_traceql::value::Static;

pub(crate) use self::value::{any_value_message, kind_of, static_of, status_of};
use crate::structure::{Link, Structure, parents};

/// A parsed trace. Evaluating a filter on damaged bytes sees absent values; ask
/// [`TraceView::check`] afterwards.
pub struct TraceView<'a> {
    trace: &'a Trace,
    spans: Vec<SpanView<'a>>,
    summary: OnceCell<TraceSummary>,
    structure: OnceCell<Structure>,
    damage: Cell<Option<WireError>>,
}

impl<'a> TraceView<'a> {
    /// Parses the scalar fields of every span.
    ///
    /// # Errors
    /// [`WireError`] when a span's bytes are damaged.
    pub fn new(trace: &'a Trace) -> Result<TraceView<'a>, WireError> {
        let spans = trace.spans.iter().map(|record| SpanView::parse(&record.bytes));
        Ok(TraceView {
            trace,
            spans: spans.collect::<Result<_, _>>()?,
            summary: OnceCell::new(),
            structure: OnceCell::new(),
            damage: Cell::new(None),
        })
    }

    /// The damage found so far while values were read.
    ///
    /// # Errors
    /// The first [`WireError`].
    pub fn check(&self) -> Result<(), WireError> {
        self.damage.get().map_or(Ok(()), Err)
    }

    /// The trace itself.
    pub fn trace(&self) -> &'a Trace {
        self.trace
    }

    /// Its spans, in the trace's order.
    pub fn spans(&self) -> &[SpanView<'a>] {
        &self.spans
    }

    /// Times, root, counts.
    pub fn summary(&self) -> &TraceSummary {
        self.summary.get_or_init(|| self.trace.summary())
    }

    /// Who is whose child.
    pub(crate) fn structure(&self) -> &Structure {
        self.structure.get_or_init(|| {
            let links: Vec<Link> = self.spans.iter().map(link).collect();
            let resource = |at: usize| &self.trace.spans[at].resource;
            Structure::of(&parents(&links, |a, b| resource(a) == resource(b)))
        })
    }

    /// Remembers damage and reads on as if the value were absent.
    fn intact<T>(&self, read: Result<T, WireError>) -> Option<T> {
        match read {
            Ok(value) => Some(value),
            Err(error) => {
                if self.damage.get().is_none() {
                    self.damage.set(Some(error));
                }
                None
            }
        }
    }

    /// The first attribute called `name`: of a repeated key the first one counts.
    fn first<'b>(
        &self,
        mut attributes: impl Iterator<Item = Result<KeyValueView<'b>, WireError>>,
        name: &str,
    ) -> Option<KeyValueView<'b>> {
        attributes.find_map(|pair| self.intact(pair).filter(|pair| pair.key == name))
    }
}

fn link(span: &SpanView<'_>) -> Link {
    Link {
        id: span.span().map_or([0; 8], |id| id.0),
        parent: span.parent().map_or([0; 8], |id| id.0),
        kind: span.kind,
    }
}

/// One span of a [`TraceView`].
pub struct SpanRef<'v, 'a> {
    view: &'v TraceView<'a>,
    at: usize,
    events: OnceCell<Vec<EventView<'a>>>,
    links: OnceCell<Vec<LinkView<'a>>>,
}

/// The values of span number `at`, if the trace has that many.
pub fn span_values<'v, 'a>(view: &'v TraceView<'a>, at: usize) -> Option<SpanRef<'v, 'a>> {
    (at < view.spans.len()).then(|| SpanRef {
        view,
        at,
        events: OnceCell::new(),
        links: OnceCell::new(),
    })
}

impl<'a> SpanRef<'_, 'a> {
    /// The span's scalar fields.
    pub fn span(&self) -> &SpanView<'a> {
        &self.view.spans[self.at]
    }

    /// The attribute as it was sent, if it was. Of events and links that of the one at `place`, or
    /// else of the first that has it.
    pub(crate) fn raw_attribute(
        &self,
        scope: Scope,
        name: &str,
        place: Cursor,
    ) -> Option<KeyValueView<'a>> {
        let record = &self.view.trace.spans[self.at];
        match scope {
            Scope::Span => self.view.first(self.span().attributes(), name),
            Scope::Resource => self.view.first(resource_attributes(&record.resource.bytes), name),
            Scope::Instrumentation => self.view.first(self.scope()?.attributes(), name),
            Scope::Event => {
                let of = |event: &EventView<'a>| self.view.first(event.attributes(), name);
                let meant = place.event.and_then(|at| self.events().get(at)).and_then(of);
                meant.or_else(|| self.events().iter().find_map(of))
            }
            Scope::Link => {
                let of = |link: &LinkView<'a>| self.view.first(link.attributes(), name);
                let meant = place.link.and_then(|at| self.links().get(at)).and_then(of);
                meant.or_else(|| self.links().iter().find_map(of))
            }
        }
    }

    /// Every attribute of a scope: of all events or links for those.
    pub(crate) fn each_attribute(&self, scope: Scope, visit: &mut dyn FnMut(KeyValueView<'a>)) {
        let record = &self.view.trace.spans[self.at];
        let mut visit = |pair| {
            if let Some(pair) = self.view.intact(pair) {
                visit(pair);
            }
        };
        match scope {
            Scope::Span => self.span().attributes().for_each(visit),
            Scope::Resource => resource_attributes(&record.resource.bytes).for_each(visit),
            Scope::Instrumentation => {
                if let Some(scope) = self.scope() {
                    scope.attributes().for_each(visit);
                }
            }
            Scope::Event => {
                self.events().iter().for_each(|event| event.attributes().for_each(&mut visit));
            }
            Scope::Link => {
                self.links().iter().for_each(|link| link.attributes().for_each(&mut visit));
            }
        }
    }

    fn scope(&self) -> Option<ScopeView<'a>> {
        self.view.intact(ScopeView::parse(&self.view.trace.spans[self.at].scope.bytes))
    }

    pub(crate) fn events(&self) -> &[EventView<'a>] {
        self.events.get_or_init(|| {
            self.span().events().filter_map(|event| self.view.intact(event)).collect()
        })
    }

    pub(crate) fn links(&self) -> &[LinkView<'a>] {
        self.links
            .get_or_init(|| self.span().links().filter_map(|link| self.view.intact(link)).collect())
    }

    fn value(&self, pair: KeyValueView<'a>) -> Option<Static> {
        self.view.intact(static_of(&pair.value)).flatten()
    }

    /// The parent span, if it is in the trace.
    pub(crate) fn parent(&self) -> Option<SpanRef<'_, 'a>> {
        span_values(self.view, self.view.structure().parent(self.at)?)
    }

    fn nested(&self, of: impl Fn(&Structure, usize) -> i64) -> Option<Static> {
        Some(Static::Int(of(self.view.structure(), self.at)))
    }
}

impl SpanValues for SpanRef<'_, '_> {
    fn attribute(&self, scope: Scope, name: &str) -> Option<Static> {
        self.raw_attribute(scope, name, Cursor::default()).and_then(|pair| self.value(pair))
    }

    fn intrinsic(&self, intrinsic: Intrinsic) -> Option<Static> {
        let span = self.span();
        match intrinsic {
            Intrinsic::Duration => Some(Static::Duration(clamp(span.duration_nanos()))),
            Intrinsic::Name => Some(Static::string(span.name)),
            Intrinsic::Status => Some(Static::Status(status_of(span.status_code))),
            Intrinsic::StatusMessage => Some(Static::string(span.status_message)),
            Intrinsic::Kind => Some(Static::Kind(kind_of(span.kind))),
            Intrinsic::SpanId => Some(Static::string(&id::to_hex(span.span_id))),
            Intrinsic::ParentId => {
                let parent = span.parent().map(|id| id.to_string()).unwrap_or_default();
                Some(Static::string(&parent))
            }
            Intrinsic::ChildCount => self.nested(Structure::child_count),
            Intrinsic::NestedSetLeft => self.nested(Structure::left),
            Intrinsic::NestedSetRight => self.nested(Structure::right),
            Intrinsic::NestedSetParent => self.nested(Structure::parent_left),
            Intrinsic::TraceDuration => {
                Some(Static::Duration(clamp(self.view.summary().duration_nanos())))
            }
            Intrinsic::RootName => self.view.summary().root_name.clone().map(Static::String),
            Intrinsic::RootService => self.view.summary().root_service.clone().map(Static::String),
            Intrinsic::TraceId => Some(Static::string(&self.view.trace.id.to_string())),
            Intrinsic::InstrumentationName => self.scope().map(|scope| Static::string(scope.name)),
            Intrinsic::InstrumentationVersion => {
                self.scope().map(|scope| Static::string(scope.version))
            }
            Intrinsic::EventName
            | Intrinsic::EventTimeSinceStart
            | Intrinsic::LinkTraceId
            | Intrinsic::LinkSpanId => None,
        }
    }

    fn event_count(&self) -> usize {
        self.events().len()
    }

    fn event_attribute(&self, event: usize, name: &str) -> Option<Static> {
        let event = self.events().get(event)?;
        self.view.first(event.attributes(), name).and_then(|pair| self.value(pair))
    }

    fn event_intrinsic(&self, event: usize, intrinsic: Intrinsic) -> Option<Static> {
        let event = self.events().get(event)?;
        match intrinsic {
            Intrinsic::EventName => Some(Static::string(event.name)),
            Intrinsic::EventTimeSinceStart => {
                let start = i128::from(self.span().start_unix_nanos);
                let since = i128::from(event.time_unix_nanos) - start;
                // An event before its span is a clock's mistake; the difference stays negative.
                let bound = if since < 0 { i64::MIN } else { i64::MAX };
                Some(Static::Duration(i64::try_from(since).unwrap_or(bound)))
            }
            _ => None,
        }
    }

    fn link_count(&self) -> usize {
        self.links().len()
    }

    fn link_attribute(&self, link: usize, name: &str) -> Option<Static> {
        let link = self.links().get(link)?;
        self.view.first(link.attributes(), name).and_then(|pair| self.value(pair))
    }

    fn link_intrinsic(&self, link: usize, intrinsic: Intrinsic) -> Option<Static> {
        let link = self.links().get(link)?;
        match intrinsic {
            Intrinsic::LinkTraceId => Some(Static::string(&id::to_hex(link.trace_id))),
            Intrinsic::LinkSpanId => Some(Static::string(&id::to_hex(link.span_id))),
            _ => None,
        }
    }

    fn parent_attribute(&self, scope: Scope, name: &str) -> Option<Static> {
        self.parent()?.attribute(scope, name)
    }
}

fn clamp(nanos: u64) -> i64 {
    i64::try_from(nanos).unwrap_or(i64::MAX)
}
