//! From the bytes of one span to the terms it is indexed under.
//!
//! Two steps, so that a damaged span leaves nothing behind: first everything is read into a
//! reused list, then the list is applied, which cannot fail.

use clew_model::otlp::{AnyValueView, EventView, KeyValueView, LinkView, SpanView};
use clew_model::wire::{Reader, WireError};

use crate::term::{
    KeyScope, TermBytes, code, intrinsic, kind_byte, status_byte, text_term, value_terms,
};
use crate::terms::{KeyOrdinal, TermStore};

const ATTRIBUTES: u32 = 9;
const EVENTS: u32 = 11;
const LINKS: u32 = 13;

/// One term of the span at hand.
#[derive(Debug, Clone, Copy)]
struct Item<'a> {
    key: KeyOrdinal,
    code: u8,
    /// Whether this begins another value of the key, rather than an element of the same array.
    fresh: bool,
    value: TermBytes<'a>,
}

/// Remembers which key stood at which place in the span before: senders repeat themselves.
#[derive(Debug, Default)]
pub(crate) struct KeyGuess {
    keys: Vec<KeyOrdinal>,
    at: usize,
}

impl KeyGuess {
    #[inline]
    fn key(&mut self, store: &mut TermStore, scope: KeyScope, name: &str) -> KeyOrdinal {
        let at = self.at;
        self.at += 1;
        if let Some(key) = self.keys.get(at)
            && store.key_is(*key, scope, name.as_bytes())
        {
            return *key;
        }
        let key = store.key(scope, name.as_bytes());
        match self.keys.get_mut(at) {
            Some(guess) => *guess = key,
            // Spans with thousands of attributes are not worth remembering.
            None if at < 256 => self.keys.push(key),
            None => {}
        }
        key
    }
}

/// Indexes `span` under `row`. On an error nothing was indexed, though keys may be known that
/// have no rows.
///
/// # Errors
/// [`WireError`] when an attribute, event or link is damaged.
pub(crate) fn index_span(
    store: &mut TermStore,
    guess: &mut KeyGuess,
    span: &SpanView<'_>,
    row: u32,
) -> Result<(), WireError> {
    guess.at = 0;
    let mut items = Vec::with_capacity(guess.keys.len() + 8);
    intrinsics(&mut items, span);
    let mut reader = Reader::new(span.raw);
    while let Some(field) = reader.next_field()? {
        match field.number {
            ATTRIBUTES => {
                let pair = KeyValueView::parse(field.bytes()?)?;
                attribute(store, guess, &mut items, KeyScope::Span, &pair)?;
            }
            EVENTS => event(store, guess, &mut items, field.bytes()?)?,
            LINKS => {
                for pair in LinkView::parse(field.bytes()?)?.attributes() {
                    attribute(store, guess, &mut items, KeyScope::Link, &pair?)?;
                }
            }
            _ => {}
        }
    }
    for item in &items {
        if item.fresh {
            store.note_key(item.key, row);
        }
        store.add(item.key, item.code, &item.value, row);
    }
    Ok(())
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
    for pair in event.attributes() {
        attribute(store, guess, items, KeyScope::Event, &pair?)?;
    }
    Ok(())
}

#[inline]
fn attribute<'a>(
    store: &mut TermStore,
    guess: &mut KeyGuess,
    items: &mut Vec<Item<'a>>,
    scope: KeyScope,
    pair: &KeyValueView<'a>,
) -> Result<(), WireError> {
    let key = guess.key(store, scope, pair.key);
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
