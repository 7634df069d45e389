//! Feeds the scan of protobuf requests: `cargo fuzz run otlp_scan`.

#![no_main]

mod entry;

libfuzzer_sys::fuzz_target!(|data: &[u8]| entry::otlp_scan(data));
