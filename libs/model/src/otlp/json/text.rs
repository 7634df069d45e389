//! JSON strings of OTLP/JSON: field names, text, hexadecimal ids and base64 bytes.

use std::fmt::{self, Formatter};

use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::de::{DeserializeSeed, Deserializer, Error, Visitor};

use crate::id::from_hex;
use crate::otlp::schema::{FieldDef, MessageDef};

const CONFIG: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);
const BASE64: GeneralPurpose = GeneralPurpose::new(&STANDARD, CONFIG);
const BASE64_URL: GeneralPurpose = GeneralPurpose::new(&URL_SAFE, CONFIG);

/// The name of a field; yields nothing for a name the message does not have.
pub(super) struct KeySeed {
    pub(super) def: &'static MessageDef,
}

impl<'de> DeserializeSeed<'de> for KeySeed {
    type Value = Option<&'static FieldDef>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_bytes(self)
    }
}

impl Visitor<'_> for KeySeed {
    type Value = Option<&'static FieldDef>;

    fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("a field name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.def.named(name))
    }

    fn visit_bytes<E: Error>(self, name: &[u8]) -> Result<Self::Value, E> {
        Ok(std::str::from_utf8(name).ok().and_then(|name| self.def.named(name)))
    }
}

/// What the characters of a string stand for.
#[derive(Clone, Copy)]
pub(super) enum TextForm {
    Text,
    Hex,
    Base64,
}

/// A string that becomes the content of a `string` or `bytes` field; nothing for null.
pub(super) struct BytesSeed {
    pub(super) field: &'static FieldDef,
    pub(super) form: TextForm,
}

impl<'de> DeserializeSeed<'de> for BytesSeed {
    type Value = Option<Vec<u8>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for BytesSeed {
    type Value = Option<Vec<u8>>;

    fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "a string ({})", self.field.json)
    }

    fn visit_none<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        // Asked for bytes, the parser also yields strings that are not Unicode, which JavaScript
        // produces when it cuts a string in the middle of a character.
        deserializer.deserialize_bytes(self)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        self.visit_bytes(text.as_bytes())
    }

    fn visit_bytes<E: Error>(self, text: &[u8]) -> Result<Self::Value, E> {
        match self.form {
            TextForm::Text => Ok(Some(without_lone_surrogates(text))),
            // What is no id is passed on, for the scan to reject this one span.
            TextForm::Hex => Ok(Some(
                std::str::from_utf8(text).ok().and_then(from_hex).unwrap_or_else(|| text.to_vec()),
            )),
            TextForm::Base64 => {
                let url_safe = text.iter().any(|byte| matches!(byte, b'-' | b'_'));
                let engine = if url_safe { &BASE64_URL } else { &BASE64 };
                let bytes = engine
                    .decode(text)
                    .map_err(|error| E::custom(format_args!("{}: {error}", self.field.json)))?;
                Ok(Some(bytes))
            }
        }
    }
}

/// `text` with each half of a surrogate pair, which has no UTF-8, replaced by U+FFFD. Anything else
/// that is not UTF-8 stays for the scan to reject.
fn without_lone_surrogates(text: &[u8]) -> Vec<u8> {
    if std::str::from_utf8(text).is_ok() {
        return text.to_vec();
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    loop {
        match rest {
            [0xed, 0xa0..=0xbf, 0x80..=0xbf, behind @ ..] => {
                out.extend_from_slice("\u{fffd}".as_bytes());
                rest = behind;
            }
            [byte, behind @ ..] => {
                out.push(*byte);
                rest = behind;
            }
            [] => return out,
        }
    }
}
