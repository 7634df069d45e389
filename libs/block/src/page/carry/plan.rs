//! How the rows of a shape are carried over: worked out once per shape of a block that is read.

use clew_model::otlp::view::is_utf8;
use clew_model::wire::{bytes_field_len, varint_len};

use super::NONE;
use crate::page::shapes::{FieldDef, Form, Shapes, ShapesBuilder};
use crate::term::{KeyScope, intrinsic};
use crate::terms::{KeyOrdinal, TermStore};

/// How the rows of a shape are taken over.
#[derive(Debug)]
pub(super) struct Plan {
    /// The shape's ordinal in the block that is written, or [`NONE`] before it has its place there.
    pub(super) shape: u32,
    pub(super) steps: Box<[Step]>,
    /// Fields hold all that is indexed, unless a raw one says that only the span itself does.
    pub(super) is_plain: bool,
    pub(super) has_name: bool,
    /// No field tells of a parent.
    pub(super) is_root: bool,
    /// A field says that the parent is at another row.
    pub(super) has_parent: bool,
}

/// How a field is taken over.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) form: Form,
    in_event: bool,
    /// In the block that is read.
    pub(super) from: u32,
    /// In the block that is written, once the shape has its place there.
    pub(super) to: u32,
    /// What its values are indexed under, or [`NONE`]; once the shape has its place.
    pub(super) key: KeyOrdinal,
    key_length: usize,
}

impl Step {
    fn new(from: u32, field: &FieldDef) -> Step {
        let (form, in_event, key_length) = (field.form, field.in_event, field.name.len());
        Step { form, in_event, from, to: NONE, key: NONE, key_length }
    }

    fn settle(&mut self, field: &FieldDef, to: u32, terms: &mut TermStore) {
        self.to = to;
        self.key = match field.form {
            Form::Text | Form::Int | Form::True | Form::False | Form::Double | Form::Other => {
                let scope = if field.in_event { KeyScope::Event } else { KeyScope::Span };
                terms.key(scope, &field.name)
            }
            Form::Name => intrinsic::NAME,
            Form::StatusMessage => intrinsic::STATUS_MESSAGE,
            Form::EventName => intrinsic::EVENT_NAME,
            _ => NONE,
        };
    }

    /// How many bytes an attribute with an encoded value of that length takes.
    #[inline]
    fn attribute_length(&self, value: usize) -> usize {
        // The numbers of both fields take one byte.
        bytes_field_len(9, bytes_field_len(1, self.key_length) + bytes_field_len(2, value))
    }

    /// How many bytes a field with a value of that length takes in its span.
    #[inline]
    pub(super) fn bytes_length(&self, value: usize) -> usize {
        match self.form {
            Form::Text => self.attribute_length(bytes_field_len(1, value)),
            Form::Other => self.attribute_length(value),
            Form::StatusMessage => bytes_field_len(15, bytes_field_len(2, value) + 2),
            Form::Name | Form::TraceState | Form::EventName => bytes_field_len(5, value),
            _ => value,
        }
    }

    /// How many bytes a field with that number takes.
    #[inline]
    pub(super) fn int_length(&self, value: i64) -> usize {
        match self.form {
            Form::Int => self.attribute_length(1 + varint_len(value.cast_unsigned())),
            Form::Double => self.attribute_length(9),
            Form::ParentElsewhere => 10,
            Form::EarlyEnd | Form::EventTime => 9,
            Form::Flags => 6,
            _ => 1 + varint_len(value.cast_unsigned()),
        }
    }

    /// How many bytes a field without a value takes; an event's come on top of its fields.
    pub(super) fn length(&self) -> usize {
        match self.form {
            Form::TraceId => 18,
            Form::SpanId | Form::Parent => 10,
            Form::Kind => 2,
            Form::Start | Form::End => 9,
            Form::Status => 4,
            Form::True | Form::False => self.attribute_length(2),
            _ => 0,
        }
    }
}

impl Plan {
    /// A plan for a shape of the block that is read, of which `known` are all.
    pub(super) fn new(shape: &[u32], known: &Shapes) -> Option<Plan> {
        let step = |from: &u32| Some(Step::new(*from, known.fields().get(*from as usize)?));
        let steps: Box<[Step]> = shape.iter().map(step).collect::<Option<_>>()?;
        let count = |forms: &[Form]| steps.iter().filter(|step| forms.contains(&step.form)).count();
        let parents = count(&[Form::Parent, Form::ParentElsewhere]);
        Some(Plan {
            shape: NONE,
            is_plain: is_plain(&steps, known),
            has_name: count(&[Form::Name]) > 0,
            is_root: parents == 0,
            has_parent: count(&[Form::Parent]) > 0,
            steps,
        })
    }

    /// Gives the shape its place in the block that is written; `None` if that has no room for it.
    pub(super) fn settle(
        &mut self,
        known: &Shapes,
        shapes: &mut ShapesBuilder,
        terms: &mut TermStore,
    ) -> Option<()> {
        let (mut before, mut ordinals) = (0, Vec::with_capacity(self.steps.len()));
        for step in &mut self.steps {
            let field = known.fields().get(step.from as usize)?;
            before = shapes.field(before, field.form, field.in_event, &field.name)?;
            step.settle(field, before, terms);
            ordinals.push(before);
        }
        self.shape = shapes.shape(&ordinals)?;
        Some(())
    }
}

/// Whether fields hold all that is indexed, apart from what raw ones say: keys are text, each stands
/// where its kind does, and nothing is there twice of which only one counts.
fn is_plain(steps: &[Step], known: &Shapes) -> bool {
    let single = |step: &Step| match step.form {
        Form::Name => Some(0),
        Form::Status | Form::StatusMessage => Some(1),
        Form::Parent | Form::ParentElsewhere => Some(2),
        Form::EventName => Some(3),
        _ => None,
    };
    let mut counts = [0; 4];
    let mut inside = false;
    for step in steps {
        let name = known.fields().get(step.from as usize).map_or(&[][..], |field| &field.name);
        if step.form == Form::Event {
            counts[3] = 0;
            inside = true;
        }
        let of_event = matches!(step.form, Form::EventName | Form::EventTime);
        let of_span = matches!(step.form, Form::Name | Form::StatusMessage);
        if !is_utf8(name) || step.in_event != inside || (of_event && !inside) || (of_span && inside)
        {
            return false;
        }
        inside &= step.form != Form::EventEnd;
        if let Some(at) = single(step) {
            counts[at] += 1;
            if counts[at] > 1 {
                return false;
            }
        }
    }
    true
}
