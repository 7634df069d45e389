//! Any bytes as a log entry: the head passes over them without a panic.

#![no_main]

mod entry;

libfuzzer_sys::fuzz_target!(|data: &[u8]| entry::log_entry(data));
