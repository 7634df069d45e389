//! Hostile bytes: whatever comes in, nothing panics, and what is accepted can be read.

#[path = "../../fuzz/entry.rs"]
mod entry;

use proptest::prelude::*;

use crate::generate::{otlp_json, protobuf, request};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes(bytes: Vec<u8>) {
        entry::otlp_scan(&bytes);
        entry::otlp_json(&bytes);
    }

    #[test]
    fn a_request_cut_off_anywhere(request in request()) {
        let bytes = protobuf(&request);
        // Every byte of a short request, some of a long one.
        let step = (bytes.len() / 200).max(1);
        for end in (0..=bytes.len()).step_by(step) {
            entry::otlp_scan(&bytes[..end]);
        }
        let json = otlp_json(&request).to_string().into_bytes();
        let step = (json.len() / 200).max(1);
        for end in (0..=json.len()).step_by(step) {
            entry::otlp_json(&json[..end]);
        }
        entry::otlp_json(&json);
    }

    #[test]
    fn a_request_with_damaged_bytes(
        request in request(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        for mut bytes in [protobuf(&request), otlp_json(&request).to_string().into_bytes()] {
            if bytes.is_empty() {
                continue;
            }
            for (at, byte) in &damage {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
                entry::otlp_scan(&bytes);
                entry::otlp_json(&bytes);
            }
        }
    }
}
