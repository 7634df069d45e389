//! The one hash function of this crate: seeded for tables in memory, with seed zero for bytes
//! that are stored.
//!
//! With seed zero it is part of the block format (trace-id filter, long values) and must never
//! change. `fold(a, b)` is the exclusive or of the high and the low half of the 128-bit product.
//!
//! ```text
//! state = seed ^ fold(length ^ A, B)
//! for each 8-byte little-endian word, the last one filled up with zeros:
//!     state = fold(state ^ word, A)
//! hash = fold(state ^ B, C)
//! ```

const A: u64 = 0x9e37_79b9_7f4a_7c15;
const B: u64 = 0xc2b2_ae3d_27d4_eb4f;
const C: u64 = 0x1656_67b1_9e37_79f9;

#[inline]
#[allow(clippy::cast_possible_truncation, reason = "both halves of the product are used")]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a).wrapping_mul(u128::from(b));
    (product as u64) ^ ((product >> 64) as u64)
}

/// The hash of `bytes` under `seed`.
#[inline]
pub(crate) fn hash64(seed: u64, bytes: &[u8]) -> u64 {
    let mut state = seed ^ fold(bytes.len() as u64 ^ A, B);
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        state = fold(state ^ u64::from_le_bytes(*word), A);
    }
    if !rest.is_empty() {
        let mut word = [0; 8];
        word[..rest.len()].copy_from_slice(rest);
        state = fold(state ^ u64::from_le_bytes(word), A);
    }
    fold(state ^ B, C)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_hashes_never_change() {
        assert_eq!(hash64(0, b""), 0x6ad7_6fae_d696_1fb9);
        assert_eq!(hash64(0, b"clew"), 0xcf3f_6364_ef97_b1b8);
        assert_eq!(hash64(0, &[0xff; 16]), 0xfffb_0666_4a1d_edf4);
    }

    #[test]
    fn length_and_seed_matter() {
        assert_ne!(hash64(0, b"a"), hash64(0, b"a\0"));
        assert_ne!(hash64(0, b"a"), hash64(1, b"a"));
    }
}
