//! From the bytes of one span to the terms it is indexed under.
//!
//! Two steps, so that a damaged span leaves nothing behind: first everything is read into a
//! reused list, then the list is applied, which cannot fail.

use clew_model::otlp::view::{is_utf8, messages, plain_pair, plain_value};
use clew_model::otlp::{AnyValueView, EventView, KeyValueView, LinkView, SpanView};
use clew_model::wire::{Reader, Value, WireError};

use crate::term::{
    KeyScope, TermBytes, code, intrinsic, kind_byte, plain_term, status_byte, text_term,
    value_terms,
};
use crate::terms::{KeyOrdinal, TermStore};

const ATTRIBUTES: u32 = 9;
const EVENTS: u32 = 11;
const LINKS: u32 = 13;
const EVENT_ATTRIBUTES: u32 = 3;
const LINK_ATTRIBUTES: u32 = 4;

/// One term of the span at hand.
#[derive(Debug, Clone, Copy)]
struct Item<'a> {
    key: KeyOrdinal,
    code: u8,
    /// Whether this begins another value of the key, rather than an element of the same array.
    fresh: bool,
    value: TermBytes<'a>,
}

/// Remembers which key followed which: senders repeat themselves.
#[derive(Debug, Default)]
pub(crate) struct KeyGuess {
    /// By key ordinal.
    followers: Vec<KeyOrdinal>,
    before: KeyOrdinal,
}

impl KeyGuess {
    #[inline]
    fn key(&mut self, store: &mut TermStore, scope: KeyScope, name: &[u8]) -> KeyOrdinal {
        if let Some(guess) = self.followers.get(self.before as usize)
            && store.key_is(*guess, scope, name)
        {
            self.before = *guess;
            return *guess;
        }
        let key = store.key(scope, name);
        let known = store.keys().len();
        if self.followers.len() < known {
            // A key that is none is a guess that fails.
            self.followers.resize(known, KeyOrdinal::MAX);
        }
        self.followers[self.before as usize] = key;
        self.before = key;
        key
    }
}

/// What is at hand while a span is read; reused for all spans of a buffer.
#[derive(Debug, Default)]
pub(crate) struct Extracted<'a> {
    items: Vec<Item<'a>>,
}

/// Reads the encoded span and indexes it under `row`, if `accepts` says so. On an error nothing was
/// indexed, though keys may be known that have no rows.
///
/// # Errors
/// [`WireError`] when the span, an attribute, an event or a link is damaged.
pub(crate) fn index_span<'a>(
    store: &mut TermStore,
    guess: &mut KeyGuess,
    extracted: &mut Extracted<'a>,
    raw: &'a [u8],
    row: u32,
    accepts: impl FnOnce(&SpanView<'a>) -> bool,
) -> Result<Option<SpanView<'a>>, WireError> {
    let items = &mut extracted.items;
    items.clear();
    guess.before = 0;
    let span = SpanView::parse_with(raw, |field| {
        match field.number {
            ATTRIBUTES => attribute(store, guess, items, KeyScope::Span, field.bytes()?)?,
            EVENTS => event(store, guess, items, field.bytes()?)?,
            LINKS => {
                for pair in messages(field.bytes()?, LINK_ATTRIBUTES) {
                    attribute(store, guess, items, KeyScope::Link, pair?)?;
                }
            }
            _ => {}
        }
        Ok(())
    })?;
    if !accepts(&span) {
        return Ok(None);
    }
    intrinsics(items, &span);
    apply(store, items, row);
    Ok(Some(span))
}

/// What an encoded field of a span that stands for itself says to the index.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum LoneField<'a> {
    /// Nothing.
    Nothing,
    /// It is a link.
    Link(&'a [u8]),
    /// Only the whole span tells.
    Unclear,
}

impl<'a> LoneField<'a> {
    /// Reads a field with its tag.
    #[inline]
    pub(crate) fn read(raw: &'a [u8]) -> LoneField<'a> {
        // What many senders put into spans without a status.
        if raw == [15 << 3 | 2, 0] {
            return LoneField::Nothing;
        }
        match Reader::new(raw).next_field() {
            Ok(Some(field)) => match (field.number, field.value) {
                (LINKS, Value::Bytes(link)) => LoneField::Link(link),
                (1..=ATTRIBUTES | EVENTS | LINKS | 15, _) => LoneField::Unclear,
                _ => LoneField::Nothing,
            },
            _ => LoneField::Unclear,
        }
    }
}

/// Indexes an encoded link of the span at `row`, as [`index_span`] does.
///
/// # Errors
/// [`WireError`] when the link or an attribute is damaged.
pub(crate) fn index_link(
    store: &mut TermStore,
    guess: &mut KeyGuess,
    link: &[u8],
    row: u32,
) -> Result<(), WireError> {
    let mut items = Vec::new();
    for pair in messages(link, LINK_ATTRIBUTES) {
        attribute(store, guess, &mut items, KeyScope::Link, pair?)?;
    }
    apply(store, &items, row);
    Ok(())
}

fn apply(store: &mut TermStore, items: &[Item<'_>], row: u32) {
    for item in items {
        if item.fresh {
            store.note_key(item.key, row);
        }
        let _ = store.add(item.key, item.code, &item.value, row);
    }
}

fn intrinsics<'a>(items: &mut Vec<Item<'a>>, span: &SpanView<'a>) {
    let mut put = |key, (code, value)| items.push(Item { key, code, fresh: true, value });
    put(intrinsic::NAME, text_term(span.name.as_bytes()));
    let status = TermBytes::Byte(status_byte(span.status_code));
    put(intrinsic::STATUS, (code::STATUS, status));
    put(intrinsic::KIND, (code::KIND, TermBytes::Byte(kind_byte(span.kind))));
    if !span.status_message.is_empty() {
        put(intrinsic::STATUS_MESSAGE, text_term(span.status_message.as_bytes()));
    }
    if span.parent().is_none() {
        put(intrinsic::ROOT, (code::BOOL, TermBytes::Byte(1)));
    }
}

fn event<'a>(
    store: &mut TermStore,
    guess: &mut KeyGuess,
    items: &mut Vec<Item<'a>>,
    raw: &'a [u8],
) -> Result<(), WireError> {
    let event = EventView::parse(raw)?;
    let (code, value) = text_term(event.name.as_bytes());
    items.push(Item { key: intrinsic::EVENT_NAME, code, fresh: true, value });
    for pair in messages(raw, EVENT_ATTRIBUTES) {
        attribute(store, guess, items, KeyScope::Event, pair?)?;
    }
    Ok(())
}

#[inline]
fn attribute<'a>(
    store: &mut TermStore,
    guess: &mut KeyGuess,
    items: &mut Vec<Item<'a>>,
    scope: KeyScope,
    raw: &'a [u8],
) -> Result<(), WireError> {
    if let Some((key, value)) = plain_pair(raw)
        && let Some((code, value)) = plain_value(value).and_then(plain_term)
        && is_utf8(key)
    {
        let key = guess.key(store, scope, key);
        items.push(Item { key, code, fresh: true, value });
        return Ok(());
    }
    let pair = KeyValueView::parse(raw)?;
    let key = guess.key(store, scope, pair.key.as_bytes());
    let mut fresh = true;
    value_terms(&pair.value, &mut |code, value| {
        items.push(Item { key, code, fresh, value });
        fresh = false;
    })
}

/// Visits the texts that a span has under a key: of the span itself, its events or its links.
///
/// # Errors
/// [`WireError`] when the span's bytes are damaged.
pub(crate) fn visit_texts(
    span: &[u8],
    scope: KeyScope,
    name: &[u8],
    visit: &mut impl FnMut(&[u8]),
) -> Result<(), WireError> {
    let mut text = |pair: &KeyValueView<'_>| {
        if let (true, AnyValueView::String(text)) = (pair.key.as_bytes() == name, pair.value) {
            visit(text.as_bytes());
        }
    };
    let mut reader = Reader::new(span);
    while let Some(field) = reader.next_field()? {
        match (field.number, scope) {
            (ATTRIBUTES, KeyScope::Span) => text(&KeyValueView::parse(field.bytes()?)?),
            (EVENTS, KeyScope::Event) => {
                for pair in EventView::parse(field.bytes()?)?.attributes() {
                    text(&pair?);
                }
            }
            (LINKS, KeyScope::Link) => {
                for pair in LinkView::parse(field.bytes()?)?.attributes() {
                    text(&pair?);
                }
            }
            // Names and messages repeat; what is rare among them is a term all the same.
            _ => {}
        }
    }
    Ok(())
}
