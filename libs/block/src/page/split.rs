//! Takes a span's bytes apart into fields and values, so that putting them together gives the same
//! bytes again.
//!
//! A field is recognised only if it is encoded in the one canonical way (tags and lengths of least
//! size, the members of a message in the usual order); anything else is kept as raw bytes. Since
//! the canonical encoding of given members has a known length, comparing lengths is enough.

use clew_model::otlp::view::{PlainValue, plain_pair, plain_value};
use clew_model::wire::{Reader, Value, WireError, bytes_field_len, varint_len};

use super::shapes::{Form, ShapesBuilder};

/// What the columns hold of a span, which its bytes need not repeat.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowFacts {
    pub(crate) trace_id: [u8; 16],
    pub(crate) span_id: [u8; 8],
    /// The span id of the parent's row, if that row is in the same page.
    pub(crate) parent: Option<[u8; 8]>,
    pub(crate) start: u64,
    /// Never before the start.
    pub(crate) end: u64,
    pub(crate) kind: u8,
    pub(crate) status: u8,
}

/// The value of one field.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Item<'a> {
    Nothing,
    Bytes(&'a [u8]),
    Int(i64),
}

/// The fields of the span at hand with their values, and its shape.
#[derive(Debug, Default)]
pub(crate) struct Split<'a> {
    /// Field ordinals, in order.
    pub(crate) steps: Vec<u32>,
    pub(crate) items: Vec<Item<'a>>,
    before: u32,
}

/// A recognised field.
type Known<'a> = (Form, &'a [u8], Item<'a>);

impl<'a> Split<'a> {
    /// Takes `span` apart; returns the ordinal of its shape.
    ///
    /// # Errors
    /// [`WireError`] when the bytes are no message.
    pub(crate) fn split(
        &mut self,
        shapes: &mut ShapesBuilder,
        span: &'a [u8],
        facts: &RowFacts,
    ) -> Result<Option<u32>, WireError> {
        self.steps.clear();
        self.items.clear();
        self.before = 0;
        let mut reader = Reader::new(span);
        loop {
            let rest = reader.rest();
            let Some(field) = reader.next_field()? else { break };
            let raw = &rest[..rest.len() - reader.rest().len()];
            match (field.number, field.value) {
                (9, Value::Bytes(pair)) if is_canonical(raw, 9, pair) => {
                    self.attribute(shapes, raw, pair, false);
                }
                (11, Value::Bytes(event)) if is_canonical(raw, 11, event) => {
                    self.event(shapes, raw, event, facts);
                }
                (number, value) => {
                    let (form, name, item) = plain(number, value, raw, facts).unwrap_or((
                        Form::Raw,
                        &[],
                        Item::Bytes(raw),
                    ));
                    self.put(shapes, form, false, name, item, raw);
                }
            }
        }
        let known = shapes.shape(&self.steps);
        if known.is_some() {
            return Ok(known);
        }
        self.steps.clear();
        self.items.clear();
        self.put(shapes, Form::Raw, false, &[], Item::Bytes(span), span);
        Ok(shapes.shape(&self.steps))
    }

    /// Notes a field; as raw bytes if there are too many fields.
    #[inline]
    fn put(
        &mut self,
        shapes: &mut ShapesBuilder,
        form: Form,
        in_event: bool,
        name: &[u8],
        item: Item<'a>,
        raw: &'a [u8],
    ) {
        match shapes.field(self.before, form, in_event, name) {
            Some(field) => {
                self.before = field;
                self.steps.push(field);
                self.items.push(item);
            }
            None => {
                self.before = 0;
                self.steps.push(0);
                self.items.push(Item::Bytes(raw));
            }
        }
    }

    #[inline]
    fn attribute(
        &mut self,
        shapes: &mut ShapesBuilder,
        raw: &'a [u8],
        pair: &'a [u8],
        in_event: bool,
    ) {
        let (form, name, item) = attribute(pair).unwrap_or((Form::Raw, &[], Item::Bytes(raw)));
        self.put(shapes, form, in_event && form != Form::Raw, name, item, raw);
    }

    /// An event whose fields are all known; else it is raw as a whole.
    fn event(
        &mut self,
        shapes: &mut ShapesBuilder,
        raw: &'a [u8],
        event: &'a [u8],
        facts: &RowFacts,
    ) {
        let (steps, before) = (self.steps.len(), self.before);
        self.put(shapes, Form::Event, true, &[], Item::Nothing, &[]);
        if self.event_fields(shapes, event, facts).is_none() {
            self.steps.truncate(steps);
            self.items.truncate(steps);
            self.before = before;
            self.put(shapes, Form::Raw, false, &[], Item::Bytes(raw), raw);
            return;
        }
        self.put(shapes, Form::EventEnd, true, &[], Item::Nothing, &[]);
    }

    fn event_fields(
        &mut self,
        shapes: &mut ShapesBuilder,
        event: &'a [u8],
        facts: &RowFacts,
    ) -> Option<()> {
        let mut reader = Reader::new(event);
        loop {
            let rest = reader.rest();
            let Some(field) = reader.next_field().ok()? else { return Some(()) };
            let raw = &rest[..rest.len() - reader.rest().len()];
            match (field.number, field.value) {
                (1, Value::Fixed64(time)) if raw.len() == 9 => {
                    let since = time.wrapping_sub(facts.start).cast_signed();
                    self.put(shapes, Form::EventTime, true, &[], Item::Int(since), raw);
                }
                (2, Value::Bytes(name)) if is_canonical(raw, 2, name) => {
                    self.put(shapes, Form::EventName, true, &[], Item::Bytes(name), raw);
                }
                (3, Value::Bytes(pair)) if is_canonical(raw, 3, pair) => {
                    self.attribute(shapes, raw, pair, true);
                }
                (4, Value::Varint(count)) if raw.len() == 1 + varint_len(count) => {
                    let item = Item::Int(count.cast_signed());
                    self.put(shapes, Form::DroppedAttributes, true, &[], item, raw);
                }
                _ => self.put(shapes, Form::Raw, false, &[], Item::Bytes(raw), raw),
            }
        }
    }
}

#[inline]
fn is_canonical(raw: &[u8], number: u32, content: &[u8]) -> bool {
    raw.len() == bytes_field_len(number, content.len())
}

/// A field that is neither an attribute nor an event.
fn plain<'a>(number: u32, value: Value<'a>, raw: &'a [u8], facts: &RowFacts) -> Option<Known<'a>> {
    let nothing = |form: Form| Some((form, &[][..], Item::Nothing));
    let int = |form: Form, value: u64| Some((form, &[][..], Item::Int(value.cast_signed())));
    match (number, value) {
        (1, Value::Bytes(id)) if raw.len() == 18 && *id == facts.trace_id => nothing(Form::TraceId),
        (2, Value::Bytes(id)) if raw.len() == 10 && *id == facts.span_id => nothing(Form::SpanId),
        (4, Value::Bytes(id)) if raw.len() == 10 => match (<[u8; 8]>::try_from(id), facts.parent) {
            (Ok(id), Some(parent)) if id == parent => nothing(Form::Parent),
            (Ok(id), _) => int(Form::ParentElsewhere, u64::from_le_bytes(id)),
            (Err(_), _) => None,
        },
        (5, Value::Bytes(name)) if is_canonical(raw, 5, name) => {
            Some((Form::Name, &[], Item::Bytes(name)))
        }
        (6, Value::Varint(kind)) if raw.len() == 2 && kind == u64::from(facts.kind) => {
            nothing(Form::Kind)
        }
        (7, Value::Fixed64(start)) if raw.len() == 9 && start == facts.start => {
            nothing(Form::Start)
        }
        (8, Value::Fixed64(end)) if raw.len() == 9 => {
            if end == facts.end {
                nothing(Form::End)
            } else {
                int(Form::EarlyEnd, end)
            }
        }
        (3, Value::Bytes(state)) if is_canonical(raw, 3, state) => {
            Some((Form::TraceState, &[], Item::Bytes(state)))
        }
        (10 | 12 | 14, Value::Varint(count)) if raw.len() == 1 + varint_len(count) => {
            let form = match number {
                10 => Form::DroppedAttributes,
                12 => Form::DroppedEvents,
                _ => Form::DroppedLinks,
            };
            int(form, count)
        }
        (15, Value::Bytes(status)) if is_canonical(raw, 15, status) => status_field(status, facts),
        (16, Value::Fixed32(flags)) if raw.len() == 6 => int(Form::Flags, u64::from(flags)),
        _ => None,
    }
}

/// A status of a code, or of a message and a code.
fn status_field<'a>(status: &'a [u8], facts: &RowFacts) -> Option<Known<'a>> {
    let mut reader = Reader::new(status);
    let mut field = reader.next_field().ok()??;
    let mut known: Known<'a> = (Form::Status, &[], Item::Nothing);
    let mut length = 2;
    if let (2, Value::Bytes(message)) = (field.number, field.value) {
        known = (Form::StatusMessage, &[], Item::Bytes(message));
        length += bytes_field_len(2, message.len());
        field = reader.next_field().ok()??;
    }
    let code_fits = (field.number, field.value) == (3, Value::Varint(u64::from(facts.status)));
    (code_fits && status.len() == length).then_some(known)
}

/// An attribute: its key and a value of one member.
#[inline]
fn attribute(pair: &[u8]) -> Option<Known<'_>> {
    if let Some((key, value)) = plain_pair(pair)
        && let Some(value) = plain_value(value)
    {
        return Some(match value {
            PlainValue::Text(text) => (Form::Text, key, Item::Bytes(text)),
            PlainValue::Bool(true) => (Form::True, key, Item::Nothing),
            PlainValue::Bool(false) => (Form::False, key, Item::Nothing),
            PlainValue::Int(number) => (Form::Int, key, Item::Int(number)),
            PlainValue::Double(bits) => (Form::Double, key, Item::Int(bits.cast_signed())),
        });
    }
    any_attribute(pair)
}

/// An attribute of any form.
fn any_attribute(pair: &[u8]) -> Option<Known<'_>> {
    let mut reader = Reader::new(pair);
    let key = match reader.next_field().ok()?? {
        field if field.number == 1 => field.bytes().ok()?,
        _ => return None,
    };
    let value = match reader.next_field().ok()?? {
        field if field.number == 2 => field.bytes().ok()?,
        _ => return None,
    };
    if pair.len() != bytes_field_len(1, key.len()) + bytes_field_len(2, value.len()) {
        return None;
    }
    let mut reader = Reader::new(value);
    let known = match reader.next_field() {
        Ok(Some(field)) => match (field.number, field.value) {
            (1, Value::Bytes(text)) if value.len() == bytes_field_len(1, text.len()) => {
                (Form::Text, key, Item::Bytes(text))
            }
            (2, Value::Varint(1)) if value.len() == 2 => (Form::True, key, Item::Nothing),
            (2, Value::Varint(0)) if value.len() == 2 => (Form::False, key, Item::Nothing),
            (3, Value::Varint(number)) if value.len() == 1 + varint_len(number) => {
                (Form::Int, key, Item::Int(number.cast_signed()))
            }
            (4, Value::Fixed64(bits)) if value.len() == 9 => {
                (Form::Double, key, Item::Int(bits.cast_signed()))
            }
            _ => (Form::Other, key, Item::Bytes(value)),
        },
        _ => (Form::Other, key, Item::Bytes(value)),
    };
    Some(known)
}
