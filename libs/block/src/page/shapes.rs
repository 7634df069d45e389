//! Shapes: which fields a span has and in which order. Spans of one operation share a shape, so a
//! block keeps each shape once and a page stores little more of a span than its values.
//!
//! Stored form (the shapes section): number of fields (varint); per field its form (1 byte), whether
//! it stands inside an event (1 byte), its name (length and bytes); number of shapes (varint); per
//! shape the number of its fields and their ordinals (varints).

use hashbrown::HashTable;

use clew_model::wire::put_varint;

use crate::codec::{ByteReader, narrow, put_bytes};
use crate::error::BlockError;
use crate::hash::hash64;

const SECTION: &str = "shapes";

/// The most fields of a block. What comes later is stored as raw bytes.
const FIELDS_MAX: usize = 1 << 16;
/// The most shapes of a block. Spans with other shapes are stored as raw bytes.
const SHAPES_MAX: usize = 1 << 16;
/// The most field ordinals of all shapes together.
const STEPS_MAX: usize = 1 << 20;

/// How a field of a span becomes a value of a column, and a value the field again. The numbers are
/// part of the block format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Form {
    /// Any bytes, as they are.
    Raw = 0,
    /// The trace's id.
    TraceId = 1,
    /// The row's span id.
    SpanId = 2,
    /// The span id of the parent's row.
    Parent = 3,
    /// A parent's id that no row of the page has.
    ParentElsewhere = 4,
    /// The span's name.
    Name = 5,
    /// The row's kind.
    Kind = 6,
    /// The row's start.
    Start = 7,
    /// The row's start plus its duration.
    End = 8,
    /// An end before the start.
    EarlyEnd = 9,
    /// The row's status code.
    Status = 10,
    /// A message and the row's status code.
    StatusMessage = 11,
    /// The W3C trace state.
    TraceState = 12,
    /// How many attributes were dropped.
    DroppedAttributes = 13,
    /// How many events were dropped.
    DroppedEvents = 14,
    /// How many links were dropped.
    DroppedLinks = 15,
    /// The W3C flags.
    Flags = 16,
    /// An attribute with text.
    Text = 17,
    /// An attribute with an integer.
    Int = 18,
    /// An attribute that is true.
    True = 19,
    /// An attribute that is false.
    False = 20,
    /// An attribute with a double, by its bits.
    Double = 21,
    /// An attribute with another value, as an encoded `AnyValue`.
    Other = 22,
    /// An event begins; the fields up to [`Form::EventEnd`] are its own.
    Event = 23,
    /// When the event happened, from the span's start.
    EventTime = 24,
    /// The event's name.
    EventName = 25,
    /// The event ends.
    EventEnd = 26,
}

/// What a column of a form holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    /// Nothing: the shape, or the row's columns, say it all.
    Nothing,
    /// Byte strings.
    Bytes,
    /// 64-bit numbers.
    Ints,
}

impl Form {
    const ALL: [Form; 27] = [
        Form::Raw,
        Form::TraceId,
        Form::SpanId,
        Form::Parent,
        Form::ParentElsewhere,
        Form::Name,
        Form::Kind,
        Form::Start,
        Form::End,
        Form::EarlyEnd,
        Form::Status,
        Form::StatusMessage,
        Form::TraceState,
        Form::DroppedAttributes,
        Form::DroppedEvents,
        Form::DroppedLinks,
        Form::Flags,
        Form::Text,
        Form::Int,
        Form::True,
        Form::False,
        Form::Double,
        Form::Other,
        Form::Event,
        Form::EventTime,
        Form::EventName,
        Form::EventEnd,
    ];

    fn from_code(code: u8) -> Option<Form> {
        Form::ALL.get(usize::from(code)).copied()
    }

    /// What its column holds.
    pub(crate) const fn content(self) -> Content {
        match self {
            Form::TraceId
            | Form::SpanId
            | Form::Parent
            | Form::Kind
            | Form::Start
            | Form::End
            | Form::Status
            | Form::True
            | Form::False
            | Form::Event
            | Form::EventEnd => Content::Nothing,
            Form::Raw
            | Form::Name
            | Form::StatusMessage
            | Form::TraceState
            | Form::Text
            | Form::Other
            | Form::EventName => Content::Bytes,
            Form::ParentElsewhere
            | Form::EarlyEnd
            | Form::DroppedAttributes
            | Form::DroppedEvents
            | Form::DroppedLinks
            | Form::Flags
            | Form::Int
            | Form::Double
            | Form::EventTime => Content::Ints,
        }
    }
}

/// A field of spans: attributes by their name, everything else by its form alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FieldDef {
    pub(crate) form: Form,
    pub(crate) in_event: bool,
    /// The attribute's key; empty for other forms.
    pub(crate) name: Box<[u8]>,
}

impl FieldDef {
    #[inline]
    fn is(&self, form: Form, in_event: bool, name: &[u8]) -> bool {
        self.form == form && self.in_event == in_event && *self.name == *name
    }
}

/// The fields and shapes of a block.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shapes {
    fields: Vec<FieldDef>,
    shapes: Vec<Box<[u32]>>,
}

impl Shapes {
    /// Reads the raw section.
    pub(crate) fn parse(raw: &[u8]) -> Result<Shapes, BlockError> {
        let mut reader = ByteReader::new(SECTION, raw);
        let count = reader.count(3)?;
        let mut fields = Vec::with_capacity(count);
        for _ in 0..count {
            let form = Form::from_code(reader.u8()?);
            let form = form.ok_or_else(|| reader.corrupt("a form is unknown"))?;
            let in_event = reader.u8()? != 0;
            fields.push(FieldDef { form, in_event, name: reader.bytes()?.into() });
        }
        let count = reader.count(1)?;
        let mut shapes = Vec::with_capacity(count);
        for _ in 0..count {
            let length = reader.count(1)?;
            let mut steps = Vec::with_capacity(length);
            for _ in 0..length {
                let field = reader.varint_u32()?;
                if field as usize >= fields.len() {
                    return Err(reader.corrupt("a field is missing"));
                }
                steps.push(field);
            }
            shapes.push(steps.into_boxed_slice());
        }
        reader.finish()?;
        Ok(Shapes { fields, shapes })
    }

    /// Writes the raw section.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_varint(&mut out, self.fields.len() as u64);
        for field in &self.fields {
            out.push(field.form as u8);
            out.push(u8::from(field.in_event));
            put_bytes(&mut out, &field.name);
        }
        put_varint(&mut out, self.shapes.len() as u64);
        for shape in &self.shapes {
            put_varint(&mut out, shape.len() as u64);
            shape.iter().for_each(|field| put_varint(&mut out, u64::from(*field)));
        }
        out
    }

    /// All fields; the position is the ordinal.
    pub(crate) fn fields(&self) -> &[FieldDef] {
        &self.fields
    }

    /// The fields of a shape, in order.
    pub(crate) fn shape(&self, ordinal: u32) -> Option<&[u32]> {
        self.shapes.get(ordinal as usize).map(|shape| &**shape)
    }

    /// The ordinal of an attribute's field, if any span has it.
    pub(crate) fn attribute(&self, form: Form, in_event: bool, name: &[u8]) -> Option<u32> {
        self.fields.iter().position(|field| field.is(form, in_event, name)).map(narrow)
    }
}

/// Collects the fields and shapes of a block, each once.
#[derive(Debug)]
pub(crate) struct ShapesBuilder {
    seed: u64,
    shapes: Shapes,
    field_index: HashTable<(u64, u32)>,
    /// For each field the one that followed it last: senders repeat themselves.
    followers: Vec<u32>,
    shape_index: HashTable<(u64, u32)>,
    steps: usize,
}

impl ShapesBuilder {
    /// `seed` goes into hash tables only.
    pub(crate) fn new(seed: u64) -> ShapesBuilder {
        let mut builder = ShapesBuilder {
            seed,
            shapes: Shapes::default(),
            field_index: HashTable::new(),
            followers: Vec::new(),
            shape_index: HashTable::new(),
            steps: 0,
        };
        // These are always there: what finds no room becomes raw, and an event is all or nothing.
        for (form, in_event) in [(Form::Raw, false), (Form::Event, true), (Form::EventEnd, true)] {
            builder.find_field(form, in_event, &[]);
        }
        builder
    }

    /// The ordinal of a field, new or known, which stands behind `before` in the span at hand;
    /// `None` when there are too many.
    #[inline]
    pub(crate) fn field(
        &mut self,
        before: u32,
        form: Form,
        in_event: bool,
        name: &[u8],
    ) -> Option<u32> {
        if let Some(&guess) = self.followers.get(before as usize)
            && self.shapes.fields[guess as usize].is(form, in_event, name)
        {
            return Some(guess);
        }
        let field = self.find_field(form, in_event, name)?;
        if let Some(follower) = self.followers.get_mut(before as usize) {
            *follower = field;
        }
        Some(field)
    }

    fn find_field(&mut self, form: Form, in_event: bool, name: &[u8]) -> Option<u32> {
        let salt = (form as u64) << 1 | u64::from(in_event);
        let hash = hash64(self.seed ^ salt.rotate_right(8), name);
        let fields = &self.shapes.fields;
        let known = self.field_index.find(hash, |(kept, field)| {
            *kept == hash && fields[*field as usize].is(form, in_event, name)
        });
        if let Some((_, field)) = known {
            return Some(*field);
        }
        if fields.len() >= FIELDS_MAX {
            return None;
        }
        let ordinal = narrow(fields.len());
        self.shapes.fields.push(FieldDef { form, in_event, name: name.into() });
        self.followers.push(0);
        self.field_index.insert_unique(hash, (hash, ordinal), |(hash, _)| *hash);
        Some(ordinal)
    }

    /// The ordinal of a shape, new or known; `None` when there are too many.
    #[inline]
    pub(crate) fn shape(&mut self, steps: &[u32]) -> Option<u32> {
        let mut hash = self.seed;
        for step in steps {
            hash = (hash.rotate_left(5) ^ u64::from(*step)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
        let shapes = &self.shapes.shapes;
        let known = self
            .shape_index
            .find(hash, |(kept, shape)| *kept == hash && *shapes[*shape as usize] == *steps);
        if let Some((_, shape)) = known {
            return Some(*shape);
        }
        if shapes.len() >= SHAPES_MAX || self.steps + steps.len() > STEPS_MAX {
            return None;
        }
        let ordinal = narrow(shapes.len());
        self.steps += steps.len();
        self.shapes.shapes.push(steps.into());
        self.shape_index.insert_unique(hash, (hash, ordinal), |(hash, _)| *hash);
        Some(ordinal)
    }

    pub(crate) fn shapes(&self) -> &Shapes {
        &self.shapes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_have_their_numbers() {
        for (code, form) in (0u8..).zip(Form::ALL) {
            assert_eq!(form as u8, code);
        }
        assert_eq!(Form::from_code(27), None);
    }

    #[test]
    fn fields_and_shapes_are_kept_once_and_round_trip() {
        let mut builder = ShapesBuilder::new(5);
        let name = builder.field(0, Form::Name, false, &[]).unwrap();
        let a = builder.field(name, Form::Text, false, b"a").unwrap();
        let in_event = builder.field(a, Form::Text, true, b"a").unwrap();
        assert_eq!(builder.field(name, Form::Text, false, b"a"), Some(a));
        assert_eq!(builder.field(in_event, Form::Text, false, b"a"), Some(a));
        assert_ne!(a, in_event);
        let shape = builder.shape(&[name, a]).unwrap();
        let other = builder.shape(&[a, name]).unwrap();
        assert_ne!(shape, other);
        assert_eq!(builder.shape(&[name, a]), Some(shape));
        let read = Shapes::parse(&builder.shapes().to_bytes()).unwrap();
        assert_eq!(read.fields(), builder.shapes().fields());
        assert_eq!(read.shape(other), Some(&[a, name][..]));
        assert_eq!(read.attribute(Form::Text, true, b"a"), Some(in_event));
        assert_eq!(read.shape(2), None);
    }

    #[test]
    fn a_shape_of_fields_that_are_not_there_is_refused() {
        assert!(Shapes::parse(&[1, 5, 0, 0, 1, 1, 1]).is_err());
        assert!(Shapes::parse(&[1, 5, 0, 0, 1, 1, 0]).is_ok());
    }
}
