//! Feeds the OTLP/JSON reader: `cargo fuzz run otlp_json`.

#![no_main]

mod entry;

libfuzzer_sys::fuzz_target!(|data: &[u8]| entry::otlp_json(data));
