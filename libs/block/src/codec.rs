//! Reading and writing the small binary structures of a block, with every length checked.

use std::cell::Cell;

use bytes::Bytes;
use clew_model::wire::put_varint;

use crate::error::BlockError;

/// More than this is never decompressed at once: no writer makes a larger piece.
pub(crate) const DECOMPRESSED_BYTES_MAX: usize = 1 << 30;

/// Up to this much is reserved on the word of a stored length.
const TRUSTED_RESERVE_BYTES: usize = 1 << 20;

/// Reads a byte slice from front to back; reading past the end is [`BlockError::Corrupt`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct ByteReader<'a> {
    rest: &'a [u8],
    section: &'static str,
}

impl<'a> ByteReader<'a> {
    pub(crate) const fn new(section: &'static str, bytes: &'a [u8]) -> ByteReader<'a> {
        ByteReader { rest: bytes, section }
    }

    pub(crate) const fn remaining(&self) -> usize {
        self.rest.len()
    }

    pub(crate) const fn corrupt(&self, reason: &'static str) -> BlockError {
        BlockError::corrupt(self.section, reason)
    }

    pub(crate) fn take(&mut self, length: usize) -> Result<&'a [u8], BlockError> {
        match self.rest.split_at_checked(length) {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(taken)
            }
            None => Err(self.corrupt("it ends too early")),
        }
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], BlockError> {
        let taken = self.take(N)?;
        taken.try_into().map_err(|_| self.corrupt("it ends too early"))
    }

    pub(crate) fn u8(&mut self) -> Result<u8, BlockError> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn u16(&mut self) -> Result<u16, BlockError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, BlockError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, BlockError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(crate) fn varint(&mut self) -> Result<u64, BlockError> {
        let mut value = 0u64;
        for at in 0..10 {
            let Some((&byte, rest)) = self.rest.split_first() else {
                return Err(self.corrupt("it ends inside a number"));
            };
            self.rest = rest;
            value |= u64::from(byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.corrupt("a number is too long"))
    }

    pub(crate) fn varint_u32(&mut self) -> Result<u32, BlockError> {
        u32::try_from(self.varint()?).map_err(|_| self.corrupt("a number is too large"))
    }

    /// A count of things that take at least `bytes_each` bytes each in what follows, so that it
    /// can be trusted for an allocation.
    pub(crate) fn count(&mut self, bytes_each: usize) -> Result<usize, BlockError> {
        let count = usize::try_from(self.varint()?).unwrap_or(usize::MAX);
        if count.checked_mul(bytes_each).is_none_or(|bytes| bytes > self.remaining()) {
            return Err(self.corrupt("a count is larger than its data"));
        }
        Ok(count)
    }

    /// Bytes with their length in front.
    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], BlockError> {
        let length = usize::try_from(self.varint()?).unwrap_or(usize::MAX);
        self.take(length)
    }

    /// Text with its length in front.
    pub(crate) fn text(&mut self) -> Result<&'a str, BlockError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| self.corrupt("a text is not UTF-8"))
    }

    /// Fails unless everything was read.
    pub(crate) fn finish(&self) -> Result<(), BlockError> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.corrupt("it has bytes left over")) }
    }
}

/// Appends `bytes` with their length in front.
pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// `value` as a 32-bit number. Callers have checked the bound that makes it fit; a count past it
/// saturates.
pub(crate) fn narrow(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// Makes zstd frames. One that makes several is cheaper than several.
#[derive(Default)]
pub(crate) struct Compressor(Option<zstd::bulk::Compressor<'static>>);

impl Compressor {
    /// Compresses `raw` into one frame.
    pub(crate) fn compress(&mut self, raw: &[u8], level: i32) -> Result<Vec<u8>, BlockError> {
        let failed = BlockError::engine("compression");
        let mut context = match self.0.take() {
            Some(context) => context,
            None => zstd::bulk::Compressor::new(level).map_err(&failed)?,
        };
        context.set_compression_level(level).map_err(&failed)?;
        self.0.insert(context).compress(raw).map_err(failed)
    }
}

impl std::fmt::Debug for Compressor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Compressor")
    }
}

thread_local! {
    /// The context of the last [`Decompressor`] of this thread: memory and nothing else, since each frame
    /// begins anew. A new one asks the processor what it can do, for which a virtual machine may need as long as for
    /// the bytes of a small section; blocks are opened by the thousand.
    static SPARE: Cell<Option<zstd::bulk::Decompressor<'static>>> = const { Cell::new(None) };
}

/// Decompresses zstd frames.
#[derive(Default)]
pub(crate) struct Decompressor(Option<zstd::bulk::Decompressor<'static>>);

impl Drop for Decompressor {
    fn drop(&mut self) {
        if let Some(context) = self.0.take() {
            // A thread that ends keeps nothing.
            let _ = SPARE.try_with(|spare| spare.set(Some(context)));
        }
    }
}

impl Decompressor {
    /// Decompresses one frame that must yield exactly `raw_length` bytes. Memory follows what comes
    /// out, not what is claimed.
    pub(crate) fn decompress(
        &mut self,
        section: &'static str,
        packed: &[u8],
        raw_length: usize,
    ) -> Result<Bytes, BlockError> {
        if raw_length > DECOMPRESSED_BYTES_MAX {
            return Err(BlockError::corrupt(section, "its raw length is out of bounds"));
        }
        let wrong = |_| BlockError::corrupt(section, "it does not decompress");
        let raw = if raw_length <= TRUSTED_RESERVE_BYTES {
            self.context()?.decompress(packed, raw_length).map_err(wrong)?
        } else {
            let mut raw = Vec::with_capacity(TRUSTED_RESERVE_BYTES);
            let decoder = zstd::stream::read::Decoder::with_buffer(packed).map_err(wrong)?;
            let mut limited = std::io::Read::take(decoder, raw_length as u64 + 1);
            std::io::Read::read_to_end(&mut limited, &mut raw).map_err(wrong)?;
            raw
        };
        if raw.len() == raw_length {
            Ok(Bytes::from(raw))
        } else {
            Err(BlockError::corrupt(section, "its raw length is not the one stated"))
        }
    }

    fn context(&mut self) -> Result<&mut zstd::bulk::Decompressor<'static>, BlockError> {
        let context = match self.0.take().or_else(|| SPARE.try_with(Cell::take).ok().flatten()) {
            Some(context) => context,
            None => zstd::bulk::Decompressor::new()
                .map_err(BlockError::engine("starting a decompressor"))?,
        };
        Ok(self.0.insert(context))
    }
}

/// Fails unless the CRC-32C of `bytes` is `expected`.
pub(crate) fn verify(section: &'static str, bytes: &[u8], expected: u32) -> Result<(), BlockError> {
    if crc32c::crc32c(bytes) == expected {
        Ok(())
    } else {
        Err(BlockError::corrupt(section, "checksum mismatch"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Contexts that are used again make what new ones make, also after a failure.
        #[test]
        fn frames_round_trip_one_after_the_other(raws: Vec<Vec<u8>>) {
            let (mut zstd, mut compressor) = (Decompressor::default(), Compressor::default());
            for (raw, level) in raws.iter().zip((1..4).cycle()) {
                let packed = compressor.compress(raw, level).unwrap();
                prop_assert_eq!(&packed, &Compressor::default().compress(raw, level).unwrap());
                prop_assert!(zstd.decompress("test", &packed, raw.len() + 1).is_err());
                if let Some(less) = raw.len().checked_sub(1) {
                    prop_assert!(zstd.decompress("test", &packed, less).is_err());
                }
                prop_assert_eq!(zstd.decompress("test", &packed, raw.len()).unwrap(), &raw[..]);
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let mut reader = ByteReader::new("test", &bytes);
            while reader.remaining() > 0 {
                let before = reader.remaining();
                if reader.bytes().is_err() {
                    break;
                }
                prop_assert!(reader.remaining() < before);
            }
        }
    }

    #[test]
    fn a_large_frame_round_trips_and_a_lying_length_is_refused() {
        let raw = vec![7u8; 3 << 20];
        let packed = Compressor::default().compress(&raw, 1).unwrap();
        let mut zstd = Decompressor::default();
        assert_eq!(zstd.decompress("test", &packed, raw.len()).unwrap(), raw);
        assert!(zstd.decompress("test", &packed, raw.len() - 1).is_err());
        assert!(zstd.decompress("test", &packed, DECOMPRESSED_BYTES_MAX + 1).is_err());
    }

    #[test]
    fn counts_larger_than_the_data_are_refused() {
        let mut bytes = Vec::new();
        put_varint(&mut bytes, u64::MAX);
        assert!(ByteReader::new("test", &bytes).count(8).is_err());
        assert!(ByteReader::new("test", &bytes).bytes().is_err());
    }
}
