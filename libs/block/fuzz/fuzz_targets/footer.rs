//! Opens any bytes as the tail of a block and as a trace-id filter: an error is fine, a panic is
//! not. The last bytes are made those of a block, or hardly any input would get past them.
#![no_main]

use bytes::Bytes;
use clew_block::{Block, Footer, TraceFilter};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = TraceFilter::from_bytes(data);
    let _ = Footer::parse(data);
    let mut tail = data.to_vec();
    tail.extend_from_slice(b"ClewBlk1");
    if let Ok(block) = Block::open(&Bytes::from(tail)) {
        let _ = block.search_ranges();
    }
});
