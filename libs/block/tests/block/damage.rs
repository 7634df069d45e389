//! Damaged blocks are errors, never panics and never other answers.

use bytes::Bytes;
use clew_block::{Block, BlockError, Footer, SpanTable, TableRows, write_block};
use clew_model::ErrorKind;
use clew_model::trace::Trace;
use clew_traceql::plan::{Condition, Field, Intrinsic, Scope, Test};
use proptest::prelude::*;

use crate::golden::small_batches;
use crate::round_trip::{OPTIONS, meta, open};
use crate::spans::traces_data;

fn block() -> Bytes {
    let mut table = SpanTable::new(1);
    table.push(&traces_data(&small_batches())).unwrap();
    let rows = [TableRows { table: &table, rows_max: u32::MAX }];
    Bytes::from(write_block(&rows, &OPTIONS, meta()).unwrap())
}

/// Everything a reader can get out of a block.
fn read_all(bytes: &Bytes) -> Result<(Vec<Trace>, String), BlockError> {
    let opened = open(bytes)?;
    let mut traces = Vec::new();
    for entry in opened.search.traces().entries() {
        traces.extend(opened.trace(&entry.id)?);
    }
    let mut answers =
        format!("{:?} {:?}", opened.block.split_ids(), opened.search.tag_names(None)?);
    for field in [
        Field::Attribute(Scope::Span, "http.status_code".into()),
        Field::Attribute(Scope::Resource, "service.name".into()),
        Field::Intrinsic(Intrinsic::Name),
    ] {
        let condition = Condition { field: field.clone(), test: Test::Exists };
        answers += &format!("{:?}", opened.search.lookup(&condition)?);
        opened.search.tag_values(&field, None, &mut |value| {
            answers += &format!("{value:?}");
            std::ops::ControlFlow::Continue(())
        })?;
    }
    for row in 0..opened.search.row_count() {
        answers += &format!("{:?}", opened.search.row_start_end(row));
        answers += &format!("{:?}", opened.search.columns().parent(row));
    }
    Ok((traces, answers))
}

fn same_or_error(damaged: &Bytes, sound: &(Vec<Trace>, String)) {
    match read_all(damaged) {
        Ok(read) => assert_eq!(&read, sound),
        Err(error) => {
            assert!(matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Internal), "{error}")
        }
    }
}

#[test]
fn every_flipped_byte_is_noticed() {
    let sound = block();
    let expected = read_all(&sound).unwrap();
    assert!(!expected.0.is_empty());
    for at in 0..sound.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut damaged = sound.to_vec();
            damaged[at] ^= flip;
            same_or_error(&Bytes::from(damaged), &expected);
        }
    }
}

#[test]
fn every_truncation_is_noticed() {
    let sound = block();
    for length in 0..sound.len() {
        assert!(read_all(&sound.slice(..length)).is_err(), "{length}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_refused(bytes: Vec<u8>) {
        prop_assert!(Footer::parse(&bytes).is_err());
        prop_assert!(Block::open(&Bytes::from(bytes)).is_err());
    }

    /// Sections with right checksums and wrong content, as no accident makes them.
    #[test]
    fn forged_footers_are_refused_or_read(
        at in 0usize..400, value: u8, cut in 0usize..40,
    ) {
        let sound = block();
        let mut bytes = sound.to_vec();
        let footer = Footer::parse(&sound).unwrap();
        let start = usize::try_from(footer.footer_start).unwrap();
        let trailer = bytes.len() - clew_block::TRAILER_BYTES;
        let at = start + at % (trailer - start);
        bytes[at] = value;
        bytes.drain(trailer - cut.min(trailer - start)..trailer);
        let trailer = bytes.len() - clew_block::TRAILER_BYTES;
        let length = u32::try_from(trailer - start).unwrap();
        bytes[trailer..trailer + 4].copy_from_slice(&length.to_le_bytes());
        let tail: [u8; 4] = bytes[trailer + 12..trailer + 16].try_into().unwrap();
        let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[start..trailer + 8]), &tail);
        bytes[trailer + 8..trailer + 12].copy_from_slice(&crc.to_le_bytes());
        let bytes = Bytes::from(bytes);
        if let Ok(block) = Block::open(&bytes) {
            let _ = block.search_ranges();
        }
    }
}
