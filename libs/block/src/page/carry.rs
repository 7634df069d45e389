//! Carries traces over from a page that was read to the page that is being written: values go from
//! column to column and become terms on the way, but no span is put together or taken apart, and a
//! value that is numbered in its page is looked at once per page.
//!
//! What comes out is, to the last byte, what the spans themselves would have given. So whatever
//! depends on a span's bytes (how many there are, fields that are kept raw) is worked out here.

mod plan;
mod source;

use std::ops::Range;
use std::sync::Arc;

use clew_model::otlp::SpanView;
use clew_model::wire::{WireError, bytes_field_len};

use self::plan::Plan;
use self::source::{Numbered, Source, put_term, put_text};
use super::decode::{PageCursor, PageTraceRows, Values};
use super::join::Joiner;
use super::read_values::Strings;
use super::shapes::{Content, Form, Shapes};
use super::write::{PageTrace, PagesWriter};
use super::{BlockRecords, PAGE, Page};
use crate::codec::narrow;
use crate::columns::{ColumnRow, Parent, UnpackedRows};
use crate::error::BlockError;
use crate::extract::{Extracted, KeyGuess, LoneField, index_span};
use crate::term::{TermBytes, code, intrinsic};
use crate::terms::TermStore;

/// A key or term that is none.
const NONE: u32 = u32::MAX;

/// Takes the traces of one block over into another; reused for all its pages.
#[derive(Debug, Default)]
pub(crate) struct Carrier {
    /// By shape of the block read.
    plans: Vec<Option<Plan>>,
    page: Option<Arc<Page>>,
    cursor: PageCursor,
    columns: UnpackedRows,
    /// Of the page at hand, by field of the block read: what is known of numbered values.
    fields: Vec<Vec<Numbered>>,
    /// The start of the trace at hand.
    start: u64,
    /// Its first row in the block that is read.
    first_row: u32,
    /// Its rows.
    rows: Vec<CarriedRow>,
    /// Their values, field by field: number or position of byte strings, place or bits of numbers.
    values: Vec<u64>,
    /// The bytes of those rows that have to be put together.
    joined: Vec<u8>,
    /// A value that is not stored in one piece.
    value: Vec<u8>,
}

/// A row on its way from page to page.
#[derive(Debug)]
pub(crate) struct CarriedRow {
    /// With the resource's ordinal in the block that is read until the writer knows better.
    pub(crate) columns: ColumnRow,
    /// As the resource.
    pub(crate) scope: u32,
    /// Whether it has no parent.
    pub(crate) is_root: bool,
    shape: u32,
    /// Where its values begin.
    values: usize,
    /// Its bytes, if they had to be put together.
    joined: Range<usize>,
}

const fn missing() -> BlockError {
    BlockError::corrupt(PAGE, "a value is missing")
}

/// A byte string that [`Carrier`] noted.
fn bytes_of<'a>(
    strings: &'a Strings,
    value: u64,
    buffer: &'a mut Vec<u8>,
) -> Result<&'a [u8], BlockError> {
    let at = index(value);
    if strings.distinct().is_some() {
        return strings.numbered(at).ok_or_else(missing);
    }
    buffer.clear();
    if strings.append(at, buffer) { Ok(buffer) } else { Err(missing()) }
}

fn index(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

impl Carrier {
    /// Reads a part of a page: [`Carrier::rows`] are its rows then. Returns how many bytes its spans
    /// have. Parts come in ascending order.
    pub(crate) fn read(
        &mut self,
        page: &Arc<Page>,
        part: usize,
        records: &BlockRecords,
    ) -> Result<usize, BlockError> {
        let shapes = &records.shapes;
        let part = page.part(part).ok_or_else(missing)?;
        (self.start, self.first_row) = (part.start, part.rows.start);
        self.turn_to(page, shapes);
        let rows = page.rows_of(part);
        page.seek(&mut self.cursor, rows.start, shapes);
        self.rows.clear();
        self.values.clear();
        self.joined.clear();
        let mut size = 0usize;
        for at in rows.clone() {
            let shape = page.shape_at(at).ok_or_else(missing)?;
            let plan = self.plan(shape, shapes)?;
            let (mut is_plain, mut is_root) = (plan.is_plain, plan.is_root);
            let has_parent = plan.has_parent;
            let values = self.values.len();
            let length = self.read_row(page, shape, &mut is_plain, &mut is_root)?;
            let row = part.rows.start + narrow(at - rows.start);
            let mut joined = 0..0;
            if !is_plain {
                joined = self.join(page, part, row, shape, records)?;
                let view = SpanView::parse(&self.joined[joined.clone()])?;
                is_root = view.parent().is_none();
            }
            size = size.saturating_add(length);
            self.cursor.passed = at + 1;
            let columns = self.columns.row(row).ok_or_else(missing)?;
            if has_parent && !matches!(columns.parent, Parent::Row(_)) {
                return Err(missing());
            }
            let missing = || BlockError::corrupt(PAGE, "a span has no resource or scope");
            let scope = page.scopes.get(at).and_then(|scope| u32::try_from(scope).ok());
            self.rows.push(CarriedRow {
                columns,
                scope: scope.ok_or_else(missing)?,
                is_root,
                shape,
                values,
                joined,
            });
        }
        Ok(size)
    }

    /// How rows of a shape are carried over.
    fn plan(&mut self, shape: u32, shapes: &Shapes) -> Result<&Plan, BlockError> {
        let at = shape as usize;
        if self.plans.len() <= at {
            self.plans.resize_with(at + 1, || None);
        }
        let plan = &mut self.plans[at];
        if plan.is_none() {
            *plan = Plan::new(shapes.shape(shape).ok_or_else(missing)?, shapes);
        }
        plan.as_ref().ok_or_else(missing)
    }

    /// Gives the shapes of the rows that were read their places in the block that is written; `None`
    /// if that has no room for one.
    pub(crate) fn settle(
        &mut self,
        records: &BlockRecords,
        pages: &mut PagesWriter,
        terms: &mut TermStore,
    ) -> Option<()> {
        for row in &self.rows {
            let plan = self.plans.get_mut(row.shape as usize)?.as_mut()?;
            if plan.shape == NONE {
                plan.settle(&records.shapes, pages.shapes_mut(), terms)?;
            }
        }
        Some(())
    }

    /// When the trace that was read starts, and what its row is in the block that is read.
    pub(crate) const fn place(&self) -> (u64, u32) {
        (self.start, self.first_row)
    }

    /// The rows that were read last.
    pub(crate) fn rows(&self) -> &[CarriedRow] {
        &self.rows
    }

    /// The rows that were read last, to be told their ordinals in the block that is written.
    pub(crate) fn rows_mut(&mut self) -> &mut [CarriedRow] {
        &mut self.rows
    }

    fn turn_to(&mut self, page: &Arc<Page>, shapes: &Shapes) {
        if self.page.as_ref().is_some_and(|known| Arc::ptr_eq(known, page)) {
            return;
        }
        self.cursor = PageCursor::default();
        self.fields.iter_mut().for_each(Vec::clear);
        self.fields.resize_with(shapes.fields().len(), Vec::new);
        page.chunk.unpack(&mut self.columns);
        self.page = Some(Arc::clone(page));
    }

    /// Notes the values of the row at the cursor; returns how many bytes its span has.
    fn read_row(
        &mut self,
        page: &Page,
        shape: u32,
        is_plain: &mut bool,
        is_root: &mut bool,
    ) -> Result<usize, BlockError> {
        let plan = self.plans[shape as usize].as_ref().ok_or_else(missing)?;
        let (mut length, mut event) = (0usize, None);
        for step in &plan.steps {
            let next = self.cursor.next.get_mut(step.from as usize).ok_or_else(missing)?;
            let at = *next;
            *next += 1;
            let bytes = match (step.form.content(), page.columns.get(step.from as usize)) {
                (Content::Nothing, _) => match step.form {
                    Form::Event => {
                        event = Some(length);
                        0
                    }
                    Form::EventEnd => {
                        let start = event.take().ok_or_else(missing)?;
                        let content = length - start;
                        bytes_field_len(11, content) - content
                    }
                    _ => step.length(),
                },
                (Content::Bytes, Some(Values::Bytes(strings))) => {
                    let number = strings.number(at);
                    let value = number.unwrap_or(at) as u64;
                    self.values.push(value);
                    if step.form == Form::Raw && *is_plain {
                        let raw = bytes_of(strings, value, &mut self.value)?;
                        *is_plain = LoneField::read(raw) != LoneField::Unclear;
                    }
                    let length = match number {
                        Some(number) => strings.numbered(number).map(<[u8]>::len),
                        None => strings.length(at),
                    };
                    step.bytes_length(length.ok_or_else(missing)?)
                }
                (Content::Ints, Some(Values::Ints(ints))) => {
                    let value = ints.get(at).ok_or_else(missing)?;
                    if step.form == Form::Flags && u32::try_from(value).is_err() {
                        return Err(missing());
                    }
                    *is_root |= step.form == Form::ParentElsewhere && value == 0;
                    let place = ints.place(at).map(|place| place as u64);
                    self.values.push(place.unwrap_or(value.cast_unsigned()));
                    step.int_length(value)
                }
                _ => return Err(missing()),
            };
            length = length.saturating_add(bytes);
        }
        if event.is_some() { Err(missing()) } else { Ok(length) }
    }

    /// Puts the span of the row together whose values were passed just now.
    fn join(
        &mut self,
        page: &Page,
        part: &PageTraceRows,
        row: u32,
        shape: u32,
        records: &BlockRecords,
    ) -> Result<Range<usize>, BlockError> {
        let shapes = &records.shapes;
        let steps = shapes.shape(shape).unwrap_or_default();
        for step in steps {
            self.cursor.next[*step as usize] -= 1;
        }
        let cursors = std::mem::take(&mut self.cursor.next);
        let mut joiner = Joiner::new(&page.columns, cursors, &page.chunk, part);
        joiner.join(row, steps, shapes.fields())?;
        let (bytes, cursors) = joiner.into_parts();
        self.cursor.next = cursors;
        // Fields without values were not counted.
        for step in steps {
            let field = shapes.fields().get(*step as usize).ok_or_else(missing)?;
            self.cursor.next[*step as usize] +=
                usize::from(field.form.content() == Content::Nothing);
        }
        let start = self.joined.len();
        self.joined.extend_from_slice(&bytes);
        Ok(start..self.joined.len())
    }

    /// The name of the span of a row that was read.
    pub(crate) fn name(&mut self, row: usize) -> Result<&str, BlockError> {
        let page = self.page.as_ref().ok_or_else(missing)?;
        let row = self.rows.get(row).ok_or_else(missing)?;
        if !row.joined.is_empty() {
            return Ok(SpanView::parse(&self.joined[row.joined.clone()])?.name);
        }
        let plan = self.plans[row.shape as usize].as_ref().ok_or_else(missing)?;
        let with_values = plan.steps.iter().filter(|step| step.form.content() != Content::Nothing);
        let Some((at, step)) = with_values.enumerate().find(|(_, step)| step.form == Form::Name)
        else {
            return Ok("");
        };
        let value = *self.values.get(row.values + at).ok_or_else(missing)?;
        let Some(Values::Bytes(strings)) = page.columns.get(step.from as usize) else {
            return Err(missing());
        };
        let name = bytes_of(strings, value, &mut self.value)?;
        std::str::from_utf8(name).map_err(|_| WireError::NotUtf8(5).into())
    }

    /// Puts the rows that were read into the page at hand and their terms into `terms`; the trace
    /// begins at `first_row` of the block that is written.
    pub(crate) fn put(
        &mut self,
        trace: &PageTrace,
        size: usize,
        pages: &mut PagesWriter,
        terms: &mut TermStore,
        guess: &mut KeyGuess,
    ) -> Result<u32, BlockError> {
        let Some(page) = self.page.clone() else { return Err(missing()) };
        let number = pages.open_trace(trace, size, self.rows.len())?;
        let mut rows = std::mem::take(&mut self.rows);
        for (row, carried) in (trace.first_row..).zip(&rows) {
            self.put_row(&page, row, carried, pages, terms, guess)?;
            if carried.joined.is_empty() {
                continue;
            }
            let bytes = &self.joined[carried.joined.clone()];
            let has_ids = |view: &SpanView<'_>| view.trace().is_some() && view.span().is_some();
            let indexed = index_span(terms, guess, &mut Extracted::default(), bytes, row, has_ids)?;
            if indexed.is_none() {
                return Err(WireError::Truncated.into());
            }
        }
        rows.clear();
        self.rows = rows;
        Ok(number)
    }

    fn put_row(
        &mut self,
        page: &Page,
        row: u32,
        carried: &CarriedRow,
        pages: &mut PagesWriter,
        terms: &mut TermStore,
        guess: &mut KeyGuess,
    ) -> Result<(), BlockError> {
        let plan = self.plans[carried.shape as usize].as_ref().ok_or_else(missing)?;
        let is_plain = carried.joined.is_empty();
        pages.open_row(row, plan.shape, carried.scope, &carried.columns);
        let mut values = self.values.get(carried.values..).unwrap_or_default().iter();
        let mut event_has_name = false;
        for step in &plan.steps {
            match step.form.content() {
                Content::Nothing if !is_plain => {}
                Content::Nothing => match step.form {
                    Form::Event => event_has_name = false,
                    Form::EventEnd if !event_has_name => {
                        put_text(terms, intrinsic::EVENT_NAME, b"", row);
                    }
                    Form::True | Form::False => {
                        let truth = TermBytes::Byte(u8::from(step.form == Form::True));
                        put_term(terms, step.key, (code::BOOL, truth), row);
                    }
                    _ => {}
                },
                Content::Bytes => {
                    event_has_name |= step.form == Form::EventName;
                    let value = *values.next().ok_or_else(missing)?;
                    let known = &mut self.fields[step.from as usize];
                    let from = Source { page, step, value, known, buffer: &mut self.value };
                    match step.form {
                        Form::Raw => {
                            from.put_raw(is_plain.then_some((row, &mut *terms)), guess, pages)?
                        }
                        _ => from.put_bytes(is_plain.then_some((row, &mut *terms)), pages)?,
                    }
                }
                Content::Ints => {
                    let value = *values.next().ok_or_else(missing)?;
                    let known = &mut self.fields[step.from as usize];
                    let from = Source { page, step, value, known, buffer: &mut self.value };
                    from.put_int(is_plain.then_some((row, &mut *terms)), pages)?;
                }
            }
        }
        if is_plain {
            if !plan.has_name {
                put_text(terms, intrinsic::NAME, b"", row);
            }
            let ColumnRow { status, kind, .. } = carried.columns;
            put_term(terms, intrinsic::STATUS, (code::STATUS, TermBytes::Byte(status)), row);
            put_term(terms, intrinsic::KIND, (code::KIND, TermBytes::Byte(kind)), row);
            if carried.is_root {
                put_term(terms, intrinsic::ROOT, (code::BOOL, TermBytes::Byte(1)), row);
            }
        }
        Ok(())
    }
}
