//! The trace-id filter: says for certain that a trace is not there, and with one error in 256
//! that it is.
//!
//! Stored form: version 1, then a kind. Kind 0 is a sorted list of hashes, for few ids, which a
//! fuse filter does not handle well. Kind 1 is a binary fuse filter with 8-bit fingerprints:
//! seed (8 bytes), segment length and segment count length (4 bytes each), fingerprints. Numbers
//! are little-endian. A key is `hash64` of the id with seed zero, so ids need not be random.

use clew_model::TraceId;
use clew_model::wire::put_varint;
use xorf::{BinaryFuse8, Descriptor, Filter};

use crate::codec::ByteReader;
use crate::error::BlockError;
use crate::hash::hash64;

const VERSION: u8 = 1;
const KIND_LIST: u8 = 0;
const KIND_FUSE: u8 = 1;

/// Up to so many ids are kept as a list.
const LIST_MAX: usize = 32;

/// The longest segment the construction uses.
const SEGMENT_LENGTH_MAX: u32 = 1 << 18;

/// See the [module](self).
#[derive(Debug, Clone)]
pub struct TraceFilter(Form);

#[derive(Debug, Clone)]
enum Form {
    List(Vec<u64>),
    Fuse(BinaryFuse8),
}

impl TraceFilter {
    /// The filter of a set of trace ids; repeated ids do no harm.
    pub fn build<'a>(ids: impl IntoIterator<Item = &'a TraceId>) -> TraceFilter {
        let mut hashes: Vec<u64> = ids.into_iter().map(key).collect();
        hashes.sort_unstable();
        hashes.dedup();
        if hashes.len() <= LIST_MAX {
            return TraceFilter(Form::List(hashes));
        }
        match BinaryFuse8::try_from(&hashes) {
            Ok(fuse) => TraceFilter(Form::Fuse(fuse)),
            // Construction is retried a thousand times inside; a list is larger but always works.
            Err(_) => TraceFilter(Form::List(hashes)),
        }
    }

    /// Whether the set may hold the id. Never false for an id that is in it.
    pub fn contains(&self, id: &TraceId) -> bool {
        let key = key(id);
        match &self.0 {
            Form::List(hashes) => hashes.binary_search(&key).is_ok(),
            Form::Fuse(fuse) => fuse.contains(&key),
        }
    }

    /// About how many bytes of memory it takes.
    pub fn memory_bytes(&self) -> usize {
        match &self.0 {
            Form::List(hashes) => hashes.len() * 8,
            Form::Fuse(fuse) => fuse.fingerprints.len(),
        }
    }

    /// The stored form.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        match &self.0 {
            Form::List(hashes) => {
                out.push(KIND_LIST);
                put_varint(&mut out, hashes.len() as u64);
                for hash in hashes {
                    out.extend_from_slice(&hash.to_le_bytes());
                }
            }
            Form::Fuse(fuse) => {
                out.push(KIND_FUSE);
                out.extend_from_slice(&fuse.descriptor.seed.to_le_bytes());
                out.extend_from_slice(&fuse.descriptor.segment_length.to_le_bytes());
                out.extend_from_slice(&fuse.descriptor.segment_count_length.to_le_bytes());
                out.extend_from_slice(&fuse.fingerprints);
            }
        }
        out
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// [`BlockError::Corrupt`] when it is none, [`BlockError::UnsupportedVersion`] when it is of
    /// a newer release.
    pub fn from_bytes(bytes: &[u8]) -> Result<TraceFilter, BlockError> {
        let mut reader = ByteReader::new("filter", bytes);
        let version = reader.u8()?;
        if version != VERSION {
            return Err(BlockError::UnsupportedVersion { version: u16::from(version) });
        }
        match reader.u8()? {
            KIND_LIST => {
                let count = reader.count(8)?;
                let hashes = (0..count).map(|_| reader.u64()).collect::<Result<Vec<_>, _>>()?;
                reader.finish()?;
                if !hashes.is_sorted_by(|a, b| a < b) {
                    return Err(reader.corrupt("its keys are not sorted"));
                }
                Ok(TraceFilter(Form::List(hashes)))
            }
            KIND_FUSE => {
                let seed = reader.u64()?;
                let segment_length = reader.u32()?;
                let segment_count_length = reader.u32()?;
                let fingerprints = reader.take(reader.remaining())?;
                // What a probe relies on so as not to read outside the fingerprints.
                let slots = u64::from(segment_count_length) + 2 * u64::from(segment_length);
                if !segment_length.is_power_of_two()
                    || segment_length > SEGMENT_LENGTH_MAX
                    || segment_count_length == 0
                    || segment_count_length % segment_length != 0
                    || slots != fingerprints.len() as u64
                {
                    return Err(reader.corrupt("its shape is impossible"));
                }
                let descriptor = Descriptor {
                    seed,
                    segment_length,
                    segment_length_mask: segment_length - 1,
                    segment_count_length,
                };
                Ok(TraceFilter(Form::Fuse(BinaryFuse8 {
                    descriptor,
                    fingerprints: fingerprints.into(),
                })))
            }
            _ => Err(reader.corrupt("its kind is unknown")),
        }
    }
}

fn key(id: &TraceId) -> u64 {
    hash64(0, &id.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(number: u64) -> TraceId {
        let mut id = [0; 16];
        id[8..].copy_from_slice(&number.to_be_bytes());
        TraceId(id)
    }

    fn of(numbers: impl Iterator<Item = u64>) -> TraceFilter {
        let ids: Vec<_> = numbers.map(id).collect();
        TraceFilter::build(&ids)
    }

    proptest! {
        #[test]
        fn nothing_is_ever_denied_that_is_there(count in 0u64..3_000, step in 1u64..1_000_000) {
            let filter = of((0..count).map(|n| n * step));
            let stored = TraceFilter::from_bytes(&filter.to_bytes()).unwrap();
            for n in 0..count {
                prop_assert!(filter.contains(&id(n * step)));
                prop_assert!(stored.contains(&id(n * step)));
            }
        }

        #[test]
        fn any_bytes_are_a_filter_or_an_error(mut bytes: Vec<u8>, probe: u64) {
            if let [version, kind, ..] = bytes.as_mut_slice() {
                *version = VERSION;
                *kind %= 2;
            }
            if let Ok(filter) = TraceFilter::from_bytes(&bytes) {
                let _ = filter.contains(&id(probe));
            }
        }

        #[test]
        fn a_damaged_shape_never_reads_outside(
            at in 10usize..18, value: u8, cut in 0usize..4, probe: u64,
        ) {
            let mut bytes = of(0..200).to_bytes();
            bytes[at] = value;
            bytes.truncate(bytes.len() - cut);
            if let Ok(filter) = TraceFilter::from_bytes(&bytes) {
                let _ = filter.contains(&id(probe));
            }
        }
    }

    #[test]
    fn few_strangers_pass() {
        let filter = of(0..10_000);
        let passed = (10_000..110_000).filter(|n| filter.contains(&id(*n))).count();
        assert!(passed < 600, "{passed} of 100,000");
        assert!(filter.memory_bytes() < 13_000);
    }

    #[test]
    fn an_empty_filter_holds_nothing() {
        let filter = of(0..0);
        assert!((0..100).all(|n| !filter.contains(&id(n))));
        assert!(TraceFilter::from_bytes(&filter.to_bytes()).is_ok());
    }
}
