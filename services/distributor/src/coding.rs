//! Undoing compression without trusting it: output is bounded, and counted while it grows.

use std::io::{ErrorKind, Read};

use bytes::Bytes;

use crate::admission::Hold;
use crate::refusal::{Refusal, shorten};

/// Output is counted against the bytes in flight in steps of this size.
const STEP_BYTES: usize = 256 << 10;

/// The largest window of a zstd frame, as a power of two: 8 MiB, what RFC 8878 section 3.1.1.1.2
/// recommends to support. A frame may ask for terabytes.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// The longest name of an unknown coding shown to the client, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coding {
    Identity,
    Gzip,
    Zstd,
}

impl Coding {
    /// The coding called `name` in `Content-Encoding` or `grpc-encoding`.
    ///
    /// # Errors
    /// [`Refusal::UnknownCoding`] for all but gzip, zstd and identity.
    pub(crate) fn from_name(name: &[u8]) -> Result<Coding, Refusal> {
        let name = name.trim_ascii();
        let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
        if name.is_empty() || is(b"identity") {
            Ok(Coding::Identity)
        } else if is(b"gzip") || is(b"x-gzip") {
            Ok(Coding::Gzip)
        } else if is(b"zstd") {
            Ok(Coding::Zstd)
        } else {
            let name = String::from_utf8_lossy(name).into_owned();
            Err(Refusal::UnknownCoding(shorten(name, NAME_BYTES_MAX)))
        }
    }

    /// The body without compression. Its memory is counted in `hold`, that of `raw` no longer.
    ///
    /// # Errors
    /// [`Refusal::TooLarge`] as soon as there are more than `bytes_max` bytes, [`Refusal::Coding`]
    /// when they are damaged, [`Refusal::Busy`] when they do not fit into memory now.
    pub(crate) fn decode(
        self,
        raw: Bytes,
        bytes_max: usize,
        hold: &mut Hold,
    ) -> Result<Bytes, Refusal> {
        let decoded = match self {
            Coding::Identity if raw.len() > bytes_max => return Err(too_large(bytes_max)),
            Coding::Identity => return Ok(raw),
            Coding::Gzip => {
                let reader = flate2::bufread::MultiGzDecoder::new(&raw[..]);
                read_bounded(reader, "gzip", bytes_max, hold)?
            }
            Coding::Zstd => {
                let reader = zstd_reader(&raw).map_err(|error| damaged("zstd", &error))?;
                read_bounded(reader, "zstd", bytes_max, hold)?
            }
        };
        hold.shrink(raw.len());
        Ok(decoded.into())
    }
}

fn zstd_reader(raw: &[u8]) -> std::io::Result<impl Read> {
    let mut reader = zstd::stream::read::Decoder::with_buffer(raw)?;
    reader.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
    Ok(reader)
}

fn read_bounded(
    mut reader: impl Read,
    coding: &'static str,
    bytes_max: usize,
    hold: &mut Hold,
) -> Result<Vec<u8>, Refusal> {
    let mut out = Vec::new();
    loop {
        // One byte more than allowed tells "full" from "too much".
        let step = STEP_BYTES.min(bytes_max + 1 - out.len());
        hold.grow(step)?;
        let before = out.len();
        match reader.by_ref().take(step as u64).read_to_end(&mut out) {
            Ok(read) if out.len() > bytes_max => {
                tracing::debug!(read, bytes_max, "a body grew too large in decompression");
                return Err(too_large(bytes_max));
            }
            Ok(read) if read == step => {}
            Ok(_) => {
                hold.shrink(step - (out.len() - before));
                return Ok(out);
            }
            Err(error) => return Err(damaged(coding, &error)),
        }
    }
}

fn too_large(bytes_max: usize) -> Refusal {
    Refusal::TooLarge { form: "after decompression", bytes_max }
}

fn damaged(coding: &'static str, error: &std::io::Error) -> Refusal {
    let message = match error.kind() {
        ErrorKind::UnexpectedEof => "it is truncated".to_owned(),
        _ => error.to_string(),
    };
    Refusal::Coding { coding, message }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    fn hold(bytes_max: u64) -> Hold {
        crate::admission::alone(bytes_max).enter().unwrap()
    }

    fn gzip(plain: &[u8]) -> Bytes {
        let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        writer.write_all(plain).unwrap();
        writer.finish().unwrap().into()
    }

    fn zstd(plain: &[u8]) -> Bytes {
        zstd::encode_all(plain, 3).unwrap().into()
    }

    #[test]
    fn names_are_known_in_any_case() {
        assert_eq!(Coding::from_name(b" GZip"), Ok(Coding::Gzip));
        assert_eq!(Coding::from_name(b"zstd"), Ok(Coding::Zstd));
        assert_eq!(Coding::from_name(b""), Ok(Coding::Identity));
        for name in [&b"br"[..], b"gzip, gzip", b"deflate", &[0xff; 5_000]] {
            assert!(matches!(Coding::from_name(name), Err(Refusal::UnknownCoding(_))));
        }
    }

    #[test]
    fn exactly_the_limit_passes_and_one_byte_more_does_not() {
        for size in [0, 1, STEP_BYTES - 1, STEP_BYTES, STEP_BYTES + 1, 3 * STEP_BYTES] {
            let plain = vec![7; size];
            for (coding, raw) in [(Coding::Gzip, gzip(&plain)), (Coding::Zstd, zstd(&plain))] {
                let decoded = coding.decode(raw.clone(), size, &mut hold(1 << 30)).unwrap();
                assert_eq!(decoded, plain);
                if size > 0 {
                    let refused = coding.decode(raw, size - 1, &mut hold(1 << 30)).unwrap_err();
                    assert_eq!(refused, too_large(size - 1));
                }
            }
        }
    }

    #[test]
    fn a_bomb_is_refused_within_the_memory_allowed() {
        let plain = vec![0; 64 << 20];
        for (coding, raw) in [(Coding::Gzip, gzip(&plain)), (Coding::Zstd, zstd(&plain))] {
            // The hold refuses more than two steps above the limit, so it was not read on.
            let limit = 1 << 20;
            let refused = coding.decode(raw.clone(), limit, &mut hold((limit + 1) as u64));
            assert_eq!(refused.unwrap_err(), too_large(limit));
            let refused = coding.decode(raw, limit, &mut hold(1 << 19));
            assert!(matches!(refused, Err(Refusal::Busy { .. })));
        }
    }

    #[test]
    fn a_zstd_window_beyond_the_limit_is_refused() {
        // Magic number, a frame header that asks for a window of 2^31 bytes, one empty raw block.
        let window_descriptor = (31 - 10) << 3;
        let frame = [0x28, 0xb5, 0x2f, 0xfd, 0, window_descriptor, 1, 0, 0];
        let refused =
            Coding::Zstd.decode(Bytes::copy_from_slice(&frame), 1_000, &mut hold(1_000_000));
        assert!(matches!(refused, Err(Refusal::Coding { coding: "zstd", .. })), "{refused:?}");
    }

    #[test]
    fn a_truncated_body_is_damaged_at_every_length() {
        let plain: Vec<u8> = (0..4_000u32).flat_map(|n| (n * n).to_le_bytes()).collect();
        for (coding, raw) in [(Coding::Gzip, gzip(&plain)), (Coding::Zstd, zstd(&plain))] {
            for cut in 1..raw.len() {
                let refused = coding.decode(raw.slice(..cut), 1 << 20, &mut hold(1 << 30));
                assert!(matches!(refused, Err(Refusal::Coding { .. })), "{coding:?} cut at {cut}");
            }
        }
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(raw in prop::collection::vec(any::<u8>(), 0..200)) {
            let raw = Bytes::from(raw);
            let _ = Coding::Gzip.decode(raw.clone(), 1_000, &mut hold(1 << 30));
            let _ = Coding::Zstd.decode(raw, 1_000, &mut hold(1 << 30));
        }
    }
}
