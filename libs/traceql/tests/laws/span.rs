//! Spans as plain data, and how to make them at random.

use std::collections::BTreeMap;

use clew_traceql::{Intrinsic, Kind, Scope, SpanValues, Static, Status};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

pub(crate) type Attributes = BTreeMap<String, Static>;

/// An event or a link.
#[derive(Debug, Clone, Default)]
pub(crate) struct Part {
    pub(crate) attributes: Attributes,
    pub(crate) intrinsics: Vec<(Intrinsic, Static)>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Span {
    pub(crate) span: Attributes,
    pub(crate) resource: Attributes,
    pub(crate) instrumentation: Attributes,
    pub(crate) intrinsics: Vec<(Intrinsic, Static)>,
    pub(crate) events: Vec<Part>,
    pub(crate) links: Vec<Part>,
    /// Attributes of the parent span and of its resource.
    pub(crate) parent: Option<(Attributes, Attributes)>,
}

pub(crate) fn find(intrinsics: &[(Intrinsic, Static)], wanted: Intrinsic) -> Option<Static> {
    intrinsics.iter().find(|(intrinsic, _)| *intrinsic == wanted).map(|(_, value)| value.clone())
}

impl SpanValues for Span {
    fn attribute(&self, scope: Scope, name: &str) -> Option<Static> {
        match scope {
            Scope::Span => self.span.get(name).cloned(),
            Scope::Resource => self.resource.get(name).cloned(),
            Scope::Instrumentation => self.instrumentation.get(name).cloned(),
            Scope::Event | Scope::Link => panic!("asked for without an index"),
        }
    }

    fn intrinsic(&self, intrinsic: Intrinsic) -> Option<Static> {
        find(&self.intrinsics, intrinsic)
    }

    fn event_count(&self) -> usize {
        self.events.len()
    }

    fn event_attribute(&self, event: usize, name: &str) -> Option<Static> {
        self.events[event].attributes.get(name).cloned()
    }

    fn event_intrinsic(&self, event: usize, intrinsic: Intrinsic) -> Option<Static> {
        find(&self.events[event].intrinsics, intrinsic)
    }

    fn link_count(&self) -> usize {
        self.links.len()
    }

    fn link_attribute(&self, link: usize, name: &str) -> Option<Static> {
        self.links[link].attributes.get(name).cloned()
    }

    fn link_intrinsic(&self, link: usize, intrinsic: Intrinsic) -> Option<Static> {
        find(&self.links[link].intrinsics, intrinsic)
    }

    fn parent_attribute(&self, scope: Scope, name: &str) -> Option<Static> {
        let (span, resource) = self.parent.as_ref()?;
        match scope {
            Scope::Span => span.get(name).cloned(),
            Scope::Resource => resource.get(name).cloned(),
            other => panic!("parents have no {other:?} scope"),
        }
    }
}

/// Few enough values that two of them are often equal.
pub(crate) fn scalar() -> BoxedStrategy<Static> {
    prop_oneof![
        4 => (-2i64..4).prop_map(Static::Int),
        1 => prop_oneof![
            Just((1i64 << 53) + 1), Just(1i64 << 53), Just(-(1i64 << 53) - 1),
            Just(i64::MAX), Just(i64::MIN),
        ].prop_map(Static::Int),
        2 => prop_oneof![
            Just(0.5), Just(1.0), Just(-1.0), Just(0.0), Just(9_007_199_254_740_992.0), Just(1e300),
        ].prop_map(Static::Float),
        4 => "[ab0]{0,2}".prop_map(|text| Static::string(&text)),
        3 => any::<bool>().prop_map(Static::Bool),
        2 => (0i64..3).prop_map(Static::Duration),
        1 => prop::sample::select(Status::ALL.to_vec()).prop_map(Static::Status),
        1 => prop::sample::select(Kind::ALL.to_vec()).prop_map(Static::Kind),
    ]
    .boxed()
}

fn stored() -> BoxedStrategy<Static> {
    prop_oneof![
        6 => scalar(),
        1 => Just(Static::Float(f64::NAN)),
        2 => vec(scalar(), 0..3).prop_map(Static::Array),
    ]
    .boxed()
}

pub(crate) fn attribute_name() -> BoxedStrategy<String> {
    "[abc]".boxed()
}

fn attributes() -> impl Strategy<Value = Attributes> {
    btree_map(attribute_name(), stored(), 0..4)
}

fn intrinsics(of: &'static [Intrinsic]) -> impl Strategy<Value = Vec<(Intrinsic, Static)>> {
    vec(any::<u8>(), of.len()).prop_map(|seeds| {
        let values = of.iter().zip(seeds);
        values.filter_map(|(i, seed)| Some((*i, intrinsic_value(*i, seed)?))).collect()
    })
}

/// A value of the right type; sometimes none.
fn intrinsic_value(intrinsic: Intrinsic, seed: u8) -> Option<Static> {
    let pick = usize::from(seed % 5);
    let text = ["", "a", "b", "ab"].get(pick).map(|text| Static::string(text));
    match intrinsic {
        Intrinsic::Status => Status::ALL.get(pick).copied().map(Static::Status),
        Intrinsic::Kind => Kind::ALL.get(pick).copied().map(Static::Kind),
        Intrinsic::Duration | Intrinsic::EventTimeSinceStart => {
            (pick < 4).then_some(Static::Duration(pick as i64))
        }
        Intrinsic::SpanId | Intrinsic::LinkSpanId => {
            Some(Static::string(&format!("{:016x}", pick * 10)))
        }
        Intrinsic::TraceId => Some(Static::string(&format!("{:032x}", pick * 10))),
        _ => text,
    }
}

/// Intrinsics of the span itself that the laws use.
pub(crate) const SPAN_INTRINSICS: &[Intrinsic] = &[
    Intrinsic::Duration,
    Intrinsic::Name,
    Intrinsic::Status,
    Intrinsic::Kind,
    Intrinsic::SpanId,
    Intrinsic::TraceId,
    Intrinsic::RootName,
];
pub(crate) const EVENT_INTRINSICS: &[Intrinsic] =
    &[Intrinsic::EventName, Intrinsic::EventTimeSinceStart];
pub(crate) const LINK_INTRINSICS: &[Intrinsic] = &[Intrinsic::LinkSpanId];

fn part(of: &'static [Intrinsic]) -> impl Strategy<Value = Part> {
    (attributes(), intrinsics(of))
        .prop_map(|(attributes, intrinsics)| Part { attributes, intrinsics })
}

pub(crate) fn any_span() -> impl Strategy<Value = Span> {
    (
        (attributes(), attributes(), attributes()),
        intrinsics(SPAN_INTRINSICS),
        vec(part(EVENT_INTRINSICS), 0..3),
        vec(part(LINK_INTRINSICS), 0..3),
        proptest::option::weighted(0.7, (attributes(), attributes())),
    )
        .prop_map(|((span, resource, instrumentation), intrinsics, events, links, parent)| {
            Span { span, resource, instrumentation, intrinsics, events, links, parent }
        })
}
