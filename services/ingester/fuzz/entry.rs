//! What the fuzz target and the tests run.

/// Reads `data` as a log entry.
pub(crate) fn log_entry(data: &[u8]) {
    let (spans, damaged) = clew_ingester::read_entry(&bytes::Bytes::copy_from_slice(data));
    assert!(spans <= data.len() as u64 * 1_000, "an entry gave more spans than it can hold");
    assert!(damaged <= data.len() as u64);
}
