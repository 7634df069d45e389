//! The hash function of every placement decision, fixed for ever: two processes of different
//! releases must send the same trace to the same shard.
//!
//! Definition, all arithmetic modulo 2^64 and all words little endian:
//! `mix` is the 64-bit finaliser of MurmurHash3. `hash(seed, bytes)` starts with
//! `h = mix(seed + GOLDEN)`; for each full word of eight bytes, `h = mix(h ^ word) + GOLDEN`; the
//! last one to seven bytes, if any, form one more word padded with zeros on the right; the result is
//! `mix(h ^ length)`. It is not keyed and gives no protection against chosen inputs: whoever chooses
//! trace ids can choose their shard.

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The 64-bit finaliser of MurmurHash3, a bijection whose every input bit reaches every output bit.
pub const fn mix(mut word: u64) -> u64 {
    word ^= word >> 33;
    word = word.wrapping_mul(0xff51_afd7_ed55_8ccd);
    word ^= word >> 33;
    word = word.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    word ^ (word >> 33)
}

/// The stable hash of `bytes` under `seed`.
pub fn hash(seed: u64, bytes: &[u8]) -> u64 {
    let mut state = mix(seed.wrapping_add(GOLDEN));
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        state = mix(state ^ u64::from_le_bytes(*word)).wrapping_add(GOLDEN);
    }
    if !rest.is_empty() {
        let mut last = [0u8; 8];
        last[..rest.len()].copy_from_slice(rest);
        state = mix(state ^ u64::from_le_bytes(last)).wrapping_add(GOLDEN);
    }
    mix(state ^ bytes.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers_never_change() {
        let answers: Vec<u64> = [&b""[..], b"a", b"12345678", b"123456789", b"0123456789abcdef"]
            .iter()
            .map(|bytes| hash(7, bytes))
            .collect();
        assert_eq!(
            answers,
            [
                0x9137_e86b_b776_a7ec,
                0x98e1_7727_d58f_4b46,
                0x711a_0174_d12b_101f,
                0x2bf4_b9dc_69f4_2fdf,
                0xce1a_a098_0f7a_faf7,
            ]
        );
    }

    #[test]
    fn padding_is_not_mistaken_for_content() {
        assert_ne!(hash(0, b"a"), hash(0, b"a\0"));
        assert_ne!(hash(0, b""), hash(0, b"\0"));
        assert_ne!(hash(0, b"a"), hash(1, b"a"));
    }
}
