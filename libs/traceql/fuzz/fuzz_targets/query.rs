//! Feeds bytes to the parser: no text may break it, and what parses must print and parse again.
#![no_main]

#[path = "../../tests/laws/entry.rs"]
mod entry;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes) {
        entry::check_text(text);
    }
});
