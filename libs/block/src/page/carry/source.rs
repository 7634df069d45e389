//! A value on its way from a page into another and into the terms.

use clew_model::otlp::AnyValueView;
use clew_model::otlp::view::is_utf8;
use clew_model::wire::WireError;

use super::plan::Step;
use super::{NONE, bytes_of, index, missing};
use crate::error::BlockError;
use crate::extract::{KeyGuess, LoneField, index_link};
use crate::page::Page;
use crate::page::decode::Values;
use crate::page::shapes::Form;
use crate::page::write::PagesWriter;
use crate::term::{TermBytes, code, encode_float, encode_int, text_term, value_terms};
use crate::terms::{KeyOrdinal, TermOrdinal, TermStore};

/// What is known of a value that has a number in its page.
#[derive(Debug, Clone, Copy)]
pub(super) struct Numbered {
    /// The term, if it is known; [`NONE`] otherwise.
    term: TermOrdinal,
    /// No other value has the term.
    is_only: bool,
}

const UNKNOWN: Numbered = Numbered { term: NONE, is_only: false };

pub(super) fn put_term(
    terms: &mut TermStore,
    key: KeyOrdinal,
    term: (u8, TermBytes<'_>),
    row: u32,
) {
    terms.note_key(key, row);
    let _ = terms.add(key, term.0, &term.1, row);
}

pub(super) fn put_text(terms: &mut TermStore, key: KeyOrdinal, text: &[u8], row: u32) {
    put_term(terms, key, text_term(text), row);
}

/// A value on its way.
pub(super) struct Source<'a> {
    pub(super) page: &'a Page,
    pub(super) step: &'a Step,
    /// As [`Carrier`] noted it.
    pub(super) value: u64,
    /// The field's numbered values.
    pub(super) known: &'a mut Vec<Numbered>,
    pub(super) buffer: &'a mut Vec<u8>,
}

/// The row that values become terms of, and where they are kept.
pub(super) type Indexed<'t> = Option<(u32, &'t mut TermStore)>;

impl Source<'_> {
    /// Puts a field that is kept raw into the page and, if it is a link, into the terms.
    pub(super) fn put_raw(
        self,
        indexed: Indexed<'_>,
        guess: &mut KeyGuess,
        pages: &mut PagesWriter,
    ) -> Result<(), BlockError> {
        let Some(Values::Bytes(strings)) = self.page.columns.get(self.step.from as usize) else {
            return Err(missing());
        };
        let value = bytes_of(strings, self.value, self.buffer)?;
        pages.put_bytes(self.step.to, value);
        if let (Some((row, terms)), LoneField::Link(link)) = (indexed, LoneField::read(value)) {
            index_link(terms, guess, link, row)?;
        }
        Ok(())
    }

    /// Puts a byte string into the page and, as far as its field is indexed, into the terms.
    #[inline]
    pub(super) fn put_bytes(
        self,
        indexed: Indexed<'_>,
        pages: &mut PagesWriter,
    ) -> Result<(), BlockError> {
        let step = self.step;
        let Some(Values::Bytes(strings)) = self.page.columns.get(step.from as usize) else {
            return Err(missing());
        };
        let numbered = strings.distinct();
        let value = bytes_of(strings, self.value, self.buffer)?;
        let Some((row, terms)) = indexed.filter(|_| step.key != NONE) else {
            pages.put_bytes(step.to, value);
            return Ok(());
        };
        if step.form == Form::Other {
            put_other(terms, step.key, value, row)?;
            pages.put_bytes(step.to, value);
            return Ok(());
        }
        if step.form == Form::StatusMessage && value.is_empty() {
            pages.put_bytes(step.to, value);
            return Ok(());
        }
        terms.note_key(step.key, row);
        let known = numbered.map(|count| {
            self.known.resize(count, UNKNOWN);
            &mut self.known[index(self.value)]
        });
        match known {
            Some(Numbered { term, is_only }) if *term != NONE => {
                terms.add_known(*term, row);
                match is_only {
                    true => pages.put_term(step.to, *term, value),
                    false => drop(pages.put_bytes(step.to, value)),
                }
            }
            known => {
                if !is_utf8(value) {
                    return Err(WireError::NotUtf8(1).into());
                }
                let (code, bytes) = text_term(value);
                let term = terms.add(step.key, code, &bytes, row);
                pages.put_bytes(step.to, value);
                if let (Some(known), Some(term)) = (known, term) {
                    *known = Numbered { term, is_only: code == code::STRING };
                }
            }
        }
        Ok(())
    }

    /// Puts a number into the page and, as far as its field is indexed, into the terms.
    #[inline]
    pub(super) fn put_int(
        self,
        indexed: Indexed<'_>,
        pages: &mut PagesWriter,
    ) -> Result<(), BlockError> {
        let step = self.step;
        let Some(Values::Ints(ints)) = self.page.columns.get(step.from as usize) else {
            return Err(missing());
        };
        let numbered = ints.distinct();
        let value = match numbered {
            Some(_) => ints.distinct_at(index(self.value)).ok_or_else(missing)?,
            None => self.value.cast_signed(),
        };
        pages.put_int(step.to, value);
        let Some((row, terms)) = indexed.filter(|_| step.key != NONE) else { return Ok(()) };
        terms.note_key(step.key, row);
        let known = numbered.map(|count| {
            self.known.resize(count, UNKNOWN);
            &mut self.known[index(self.value)]
        });
        match known {
            Some(Numbered { term, .. }) if *term != NONE => terms.add_known(*term, row),
            known => {
                let (code, word) = match step.form {
                    Form::Double => {
                        (code::FLOAT, encode_float(f64::from_bits(value.cast_unsigned())))
                    }
                    _ => (code::INT, encode_int(value)),
                };
                let term = terms.add(step.key, code, &TermBytes::Word(word), row);
                if let (Some(known), Some(term)) = (known, term) {
                    *known = Numbered { term, is_only: true };
                }
            }
        }
        Ok(())
    }
}

/// Indexes an attribute by its encoded `AnyValue`.
fn put_other(
    terms: &mut TermStore,
    key: KeyOrdinal,
    value: &[u8],
    row: u32,
) -> Result<(), BlockError> {
    terms.note_key(key, row);
    value_terms(&AnyValueView::parse(value)?, &mut |code, value| {
        let _ = terms.add(key, code, &value, row);
    })?;
    Ok(())
}
