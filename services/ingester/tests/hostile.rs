//! Bytes of the log that are not what was written: counted and passed over, never a panic.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../fuzz/entry.rs"]
mod entry;

use bytes::Bytes;
use clew_ingester::read_entry;
use clew_model::wire::put_bytes_field;
use clew_proto::shard::v1::{Batch, LogEntry};
use proptest::prelude::*;
use prost::Message;

fn good_entry() -> Vec<u8> {
    let mut span = Vec::new();
    put_bytes_field(&mut span, 1, &[7; 16]);
    put_bytes_field(&mut span, 2, &[8; 8]);
    let (mut scope, mut resource, mut traces) = (Vec::new(), Vec::new(), Vec::new());
    put_bytes_field(&mut scope, 2, &span);
    put_bytes_field(&mut resource, 2, &scope);
    put_bytes_field(&mut traces, 1, &resource);
    let batch = Batch {
        tenant: "a".to_owned(),
        raw_bytes: traces.len() as u64,
        traces: Bytes::from(zstd::bulk::compress(&traces, 1).unwrap()),
        ..Batch::default()
    };
    LogEntry { batches: vec![batch.clone(), batch] }.encode_to_vec()
}

#[test]
fn a_good_entry_is_read() {
    assert_eq!(read_entry(&Bytes::from(good_entry())), (2, 0));
}

#[test]
fn a_batch_that_claims_to_be_huge_is_refused_before_it_is_decompressed() {
    let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 1).unwrap();
    for raw_bytes in [u64::MAX, 1 << 40, 64] {
        let batch = Batch {
            tenant: "a".to_owned(),
            raw_bytes,
            traces: Bytes::from(bomb.clone()),
            ..Batch::default()
        };
        let entry = LogEntry { batches: vec![batch] }.encode_to_vec();
        assert_eq!(read_entry(&Bytes::from(entry)), (0, 1));
    }
}

#[test]
fn an_entry_cut_at_any_byte_is_no_panic() {
    let entry = good_entry();
    for end in 0..entry.len() {
        entry::log_entry(&entry[..end]);
    }
}

proptest! {
    #[test]
    fn any_bytes_are_passed_over(data: Vec<u8>) {
        entry::log_entry(&data);
    }

    #[test]
    fn a_changed_byte_is_passed_over(at: prop::sample::Index, to: u8) {
        let mut entry = good_entry();
        let at = at.index(entry.len());
        entry[at] = to;
        entry::log_entry(&entry);
    }
}
