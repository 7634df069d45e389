//! Puts a span together again from its shape and values: the reverse of [`super::split`].

use clew_model::wire::{
    bytes_field_len, put_fixed32_field, put_fixed64_field, put_len_header, put_varint,
    put_varint_field, varint_len,
};

use super::PAGE;
use super::decode::{PageTraceRows, Values};
use super::read_values::{Strings, put_framed};
use super::shapes::{FieldDef, Form};
use crate::columns::{ColumnChunk, Parent};
use crate::error::BlockError;

/// Appends spans of one trace, row by row.
pub(super) struct Joiner<'a> {
    columns: &'a [Values],
    /// The next value of each field.
    cursors: Vec<usize>,
    chunk: &'a ColumnChunk,
    trace: &'a PageTraceRows,
    out: Vec<u8>,
    /// The event at hand, whose length must be known before it is written.
    event: Vec<u8>,
}

/// The row at hand.
#[derive(Debug, Clone, Copy)]
struct Row {
    row: u32,
    start: u64,
    end: u64,
    status: u8,
}

/// A value that is there.
struct BytesAt<'a> {
    strings: &'a Strings,
    at: usize,
    length: usize,
}

impl BytesAt<'_> {
    #[inline]
    fn put(&self, out: &mut Vec<u8>) {
        // Its length was found, so it is there.
        let _ = self.strings.append(self.at, out);
    }

    #[inline]
    fn put_framed(&self, out: &mut Vec<u8>, tag: u8) {
        out.push(tag);
        put_varint(out, self.length as u64);
        self.put(out);
    }
}

const fn missing() -> BlockError {
    BlockError::corrupt(PAGE, "a value is missing")
}

impl<'a> Joiner<'a> {
    /// Continues with the values that `cursors` point at.
    pub(super) fn new(
        columns: &'a [Values],
        cursors: Vec<usize>,
        chunk: &'a ColumnChunk,
        trace: &'a PageTraceRows,
    ) -> Joiner<'a> {
        Joiner { columns, cursors, chunk, trace, out: Vec::new(), event: Vec::new() }
    }

    /// How many bytes were written.
    pub(super) fn len(&self) -> usize {
        self.out.len()
    }

    /// The spans, and where each field's next value is.
    pub(super) fn into_parts(self) -> (Vec<u8>, Vec<usize>) {
        (self.out, self.cursors)
    }

    /// Appends the span of a row.
    pub(super) fn join(
        &mut self,
        row: u32,
        steps: &[u32],
        fields: &[FieldDef],
    ) -> Result<(), BlockError> {
        let start_in_trace = self.chunk.start_in_trace(row).ok_or_else(missing)?;
        let start = self.trace.start.saturating_add(start_in_trace);
        let duration = self.chunk.duration(row).ok_or_else(missing)?;
        let at = Row {
            row,
            start,
            end: start.saturating_add(duration),
            status: self.chunk.status(row).ok_or_else(missing)?,
        };
        let mut out = std::mem::take(&mut self.out);
        let mut event = std::mem::take(&mut self.event);
        let mut in_event = false;
        for step in steps {
            let field = fields.get(*step as usize).ok_or_else(missing)?;
            match field.form {
                Form::Event => {
                    event.clear();
                    in_event = true;
                }
                Form::EventEnd => {
                    put_framed(&mut out, 11 << 3 | 2, &event);
                    in_event = false;
                }
                _ => {
                    let into = if in_event { &mut event } else { &mut out };
                    self.put(into, *step, field, &at, in_event)?;
                }
            }
        }
        (self.out, self.event) = (out, event);
        Ok(())
    }

    fn put(
        &mut self,
        out: &mut Vec<u8>,
        step: u32,
        field: &FieldDef,
        at: &Row,
        in_event: bool,
    ) -> Result<(), BlockError> {
        match field.form {
            Form::Text => {
                let text = self.bytes(step)?;
                put_attribute(out, in_event, &field.name, bytes_field_len(1, text.length));
                text.put_framed(out, 1 << 3 | 2);
            }
            Form::Int => {
                let number = self.int(step)?.cast_unsigned();
                put_attribute(out, in_event, &field.name, 1 + varint_len(number));
                put_varint_field(out, 3, number);
            }
            Form::True | Form::False => {
                put_attribute(out, in_event, &field.name, 2);
                put_varint_field(out, 2, u64::from(field.form == Form::True));
            }
            Form::Double => {
                let bits = self.int(step)?.cast_unsigned();
                put_attribute(out, in_event, &field.name, 9);
                put_fixed64_field(out, 4, bits);
            }
            Form::Other => {
                let value = self.bytes(step)?;
                put_attribute(out, in_event, &field.name, value.length);
                value.put(out);
            }
            Form::Raw => self.bytes(step)?.put(out),
            Form::TraceId => put_framed(out, 1 << 3 | 2, &self.trace.id.0),
            Form::SpanId => put_framed(out, 2 << 3 | 2, &self.span_id(at.row)?),
            Form::Parent => {
                let Some(Parent::Row(parent)) = self.chunk.parent(at.row) else {
                    return Err(missing());
                };
                put_framed(out, 4 << 3 | 2, &self.span_id(parent)?);
            }
            Form::ParentElsewhere => {
                put_framed(out, 4 << 3 | 2, &self.int(step)?.to_le_bytes());
            }
            Form::Name => self.bytes(step)?.put_framed(out, 5 << 3 | 2),
            Form::Kind => {
                let kind = self.chunk.kind(at.row).ok_or_else(missing)?;
                put_varint_field(out, 6, u64::from(kind));
            }
            Form::Start => put_fixed64_field(out, 7, at.start),
            Form::End => put_fixed64_field(out, 8, at.end),
            Form::EarlyEnd => put_fixed64_field(out, 8, self.int(step)?.cast_unsigned()),
            Form::Status => {
                put_len_header(out, 15, 2);
                put_varint_field(out, 3, u64::from(at.status));
            }
            Form::StatusMessage => {
                let message = self.bytes(step)?;
                put_len_header(out, 15, bytes_field_len(2, message.length) + 2);
                message.put_framed(out, 2 << 3 | 2);
                put_varint_field(out, 3, u64::from(at.status));
            }
            Form::TraceState => self.bytes(step)?.put_framed(out, 3 << 3 | 2),
            Form::DroppedAttributes | Form::DroppedEvents | Form::DroppedLinks => {
                let number = match field.form {
                    Form::DroppedAttributes if in_event => 4,
                    Form::DroppedAttributes => 10,
                    Form::DroppedEvents => 12,
                    _ => 14,
                };
                put_varint_field(out, number, self.int(step)?.cast_unsigned());
            }
            Form::Flags => {
                let flags = u32::try_from(self.int(step)?).map_err(|_| missing())?;
                put_fixed32_field(out, 16, flags);
            }
            Form::EventTime => {
                let time = at.start.wrapping_add_signed(self.int(step)?);
                put_fixed64_field(out, 1, time);
            }
            Form::EventName => self.bytes(step)?.put_framed(out, 2 << 3 | 2),
            // The caller has dealt with the borders of events.
            Form::Event | Form::EventEnd => {}
        }
        Ok(())
    }

    #[inline]
    fn cursor(&mut self, step: u32) -> Result<usize, BlockError> {
        let cursor = self.cursors.get_mut(step as usize).ok_or_else(missing)?;
        *cursor += 1;
        Ok(*cursor - 1)
    }

    #[inline]
    fn bytes(&mut self, step: u32) -> Result<BytesAt<'a>, BlockError> {
        let at = self.cursor(step)?;
        match self.columns.get(step as usize) {
            Some(Values::Bytes(strings)) => {
                let length = strings.length(at).ok_or_else(missing)?;
                Ok(BytesAt { strings, at, length })
            }
            _ => Err(missing()),
        }
    }

    #[inline]
    fn int(&mut self, step: u32) -> Result<i64, BlockError> {
        let at = self.cursor(step)?;
        match self.columns.get(step as usize) {
            Some(Values::Ints(values)) => values.get(at).ok_or_else(missing),
            _ => Err(missing()),
        }
    }

    fn span_id(&self, row: u32) -> Result<[u8; 8], BlockError> {
        self.chunk.span_id(row).ok_or_else(missing)
    }
}

/// Appends the attribute's frame and key, and the tag of a value of that length.
#[inline]
fn put_attribute(out: &mut Vec<u8>, in_event: bool, key: &[u8], value: usize) {
    let number = if in_event { 3 } else { 9 };
    out.push(number << 3 | 2);
    put_varint(out, (bytes_field_len(1, key.len()) + bytes_field_len(2, value)) as u64);
    put_framed(out, 1 << 3 | 2, key);
    out.push(2 << 3 | 2);
    put_varint(out, value as u64);
}
