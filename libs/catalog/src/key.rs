//! Object keys: names in the bucket that tell who wrote an object, and so whether the catalog can
//! ever come to refer to it.

use clew_ring::{SHARDS_MAX, ShardId};

use crate::ident::{Incarnation, JobId};

const FLUSH_PREFIX: &str = "flush/";
const COMPACTED_PREFIX: &str = "compacted/";
const SUFFIX: &str = ".clew";
const SHARD_DIGITS: usize = 5;
const INDEX_DIGITS: usize = 20;
const RANDOM_DIGITS: usize = 16;

/// A text that is not the key of an object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an object key: '{}'", key.escape_debug())]
pub struct KeyError {
    /// The text, cut to its first characters.
    pub key: String,
}

/// The key of an object that a shard leader flushed: the spans of its log up to an index.
///
/// Keys order by shard, incarnation and index, as their texts do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlushKey {
    /// The shard.
    pub shard: ShardId,
    /// The incarnation of its log.
    pub incarnation: Incarnation,
    /// The last log index whose spans it holds.
    pub through: u64,
    /// Tells apart the objects of several leaders or attempts.
    pub random: u64,
}

/// The key of an object that a compaction made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CompactedKey {
    /// The shard whose objects were merged.
    pub shard: ShardId,
    /// The job, which is the only one that can ever register it.
    pub job: JobId,
    /// Tells apart the objects of one job.
    pub random: u64,
}

/// The key of an object in the bucket, below the bucket's own prefix. Never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ObjectKey {
    /// `flush/<shard>/<incarnation>/<through>-<random>.clew`
    Flush(FlushKey),
    /// `compacted/<shard>/<job>-<random>.clew`
    Compacted(CompactedKey),
}

impl ObjectKey {
    /// The prefix of all flushed objects, for listing.
    pub const FLUSH_PREFIX: &'static str = FLUSH_PREFIX;

    /// The prefix of all objects that compactions made, for listing.
    pub const COMPACTED_PREFIX: &'static str = COMPACTED_PREFIX;

    /// The lowest of all keys.
    pub(crate) const LOWEST: ObjectKey = ObjectKey::Flush(FlushKey {
        shard: ShardId(0),
        incarnation: Incarnation(0),
        through: 0,
        random: 0,
    });

    /// The key of a flush of `shard` through log index `through`; `random` must be fresh.
    pub fn flush(shard: ShardId, incarnation: Incarnation, through: u64, random: u64) -> ObjectKey {
        ObjectKey::Flush(FlushKey { shard, incarnation, through, random })
    }

    /// The key of an object that `job` makes of objects of `shard`; `random` must be fresh.
    pub fn compacted(shard: ShardId, job: JobId, random: u64) -> ObjectKey {
        ObjectKey::Compacted(CompactedKey { shard, job, random })
    }

    /// Parses exactly what [`std::fmt::Display`] prints, so that a key has one spelling.
    ///
    /// # Errors
    /// [`KeyError`] for any other text, for instance one with missing digits or a `..`.
    pub fn parse(key: &str) -> Result<ObjectKey, KeyError> {
        parse_flush(key)
            .map(ObjectKey::Flush)
            .or_else(|| parse_compacted(key).map(ObjectKey::Compacted))
            .ok_or_else(|| KeyError { key: key.chars().take(128).collect() })
    }

    /// The shard whose spans the object holds.
    pub fn shard(&self) -> ShardId {
        match self {
            ObjectKey::Flush(flush) => flush.shard,
            ObjectKey::Compacted(compacted) => compacted.shard,
        }
    }

    /// The incarnation of the log that the object was flushed from; nothing for a compacted one.
    pub fn incarnation(&self) -> Option<Incarnation> {
        match self {
            ObjectKey::Flush(flush) => Some(flush.incarnation),
            ObjectKey::Compacted(_) => None,
        }
    }

    /// The incarnation and the last entry of the log that the object was flushed from; nothing for a
    /// compacted one.
    pub fn flushed(&self) -> Option<(Incarnation, u64)> {
        match self {
            ObjectKey::Flush(flush) => Some((flush.incarnation, flush.through)),
            ObjectKey::Compacted(_) => None,
        }
    }
}

fn parse_flush(key: &str) -> Option<FlushKey> {
    let rest = key.strip_prefix(FLUSH_PREFIX)?.strip_suffix(SUFFIX)?;
    let mut parts = rest.split('/');
    let (shard, incarnation, name) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let (through, random) = name.split_once('-')?;
    Some(FlushKey {
        shard: shard_of(shard)?,
        incarnation: Incarnation(plain(incarnation)?),
        through: fixed(through, INDEX_DIGITS)?.parse().ok()?,
        random: random_of(random)?,
    })
}

fn parse_compacted(key: &str) -> Option<CompactedKey> {
    let rest = key.strip_prefix(COMPACTED_PREFIX)?.strip_suffix(SUFFIX)?;
    let (shard, name) = rest.split_once('/')?;
    let (job, random) = name.split_once('-')?;
    Some(CompactedKey {
        shard: shard_of(shard)?,
        job: JobId(fixed(job, INDEX_DIGITS)?.parse().ok()?),
        random: random_of(random)?,
    })
}

fn shard_of(digits: &str) -> Option<ShardId> {
    let shard: u32 = fixed(digits, SHARD_DIGITS)?.parse().ok()?;
    (shard < SHARDS_MAX).then_some(ShardId(shard))
}

fn random_of(digits: &str) -> Option<u64> {
    let lower_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    let is_random = digits.len() == RANDOM_DIGITS && digits.bytes().all(lower_hex);
    is_random.then(|| u64::from_str_radix(digits, 16).ok()).flatten()
}

/// `digits` if it is that many decimal digits.
fn fixed(digits: &str, count: usize) -> Option<&str> {
    (digits.len() == count && digits.bytes().all(|b| b.is_ascii_digit())).then_some(digits)
}

/// A decimal number without sign and leading zeros.
fn plain(digits: &str) -> Option<u64> {
    let number: u64 = fixed(digits, digits.len())?.parse().ok()?;
    (digits == "0" || !digits.starts_with('0')).then_some(number)
}

impl std::fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ObjectKey::Flush(FlushKey { shard, incarnation, through, random }) => write!(
                f,
                "{FLUSH_PREFIX}{:0SHARD_DIGITS$}/{incarnation}/{through:0INDEX_DIGITS$}-\
                 {random:0RANDOM_DIGITS$x}{SUFFIX}",
                shard.0
            ),
            ObjectKey::Compacted(CompactedKey { shard, job, random }) => write!(
                f,
                "{COMPACTED_PREFIX}{:0SHARD_DIGITS$}/{:0INDEX_DIGITS$}-\
                 {random:0RANDOM_DIGITS$x}{SUFFIX}",
                shard.0, job.0
            ),
        }
    }
}

impl std::str::FromStr for ObjectKey {
    type Err = KeyError;

    fn from_str(key: &str) -> Result<ObjectKey, KeyError> {
        ObjectKey::parse(key)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_have_one_spelling() {
        let key = ObjectKey::flush(ShardId(7), Incarnation(12), 4_711, 0xbeef);
        let text = "flush/00007/12/00000000000000004711-000000000000beef.clew";
        assert_eq!(key.to_string(), text);
        assert_eq!(ObjectKey::parse(text), Ok(key));
        let key = ObjectKey::compacted(ShardId(7), JobId(4_711), 0xbeef);
        let text = "compacted/00007/00000000000000004711-000000000000beef.clew";
        assert_eq!(key.to_string(), text);
        assert_eq!(ObjectKey::parse(text), Ok(key));
    }

    #[test]
    fn hostile_keys_are_refused() {
        for text in [
            "",
            "flush/",
            "flush/7/12/00000000000000004711-000000000000beef.clew",
            "flush/+0007/12/00000000000000004711-000000000000beef.clew",
            "flush/99999/12/00000000000000004711-000000000000beef.clew",
            "flush/00007/012/00000000000000004711-000000000000beef.clew",
            "flush/00007/-1/00000000000000004711-000000000000beef.clew",
            "flush/00007/12/99999999999999999999-000000000000beef.clew",
            "flush/00007/12/00000000000000004711-000000000000BEEF.clew",
            "flush/00007/12/00000000000000004711-+00000000000beef.clew",
            "flush/00007/12/00000000000000004711-000000000000beef.clew/",
            "flush/00007/12/../00000000000000004711-000000000000beef.clew",
            "flush/00007//00000000000000004711-000000000000beef.clew",
            "flush/00007/12/0000000000000000471é-000000000000beef.clew",
            "/flush/00007/12/00000000000000004711-000000000000beef.clew",
            "compacted/7/00000000000000004711-000000000000beef.clew",
            "compacted/00007/4711-000000000000beef.clew",
            "compacted/00007/12/00000000000000004711-000000000000beef.clew",
            "compacted/00007/../00000000000000004711-000000000000beef.clew",
            "compacted/00007/99999999999999999999-000000000000beef.clew",
        ] {
            assert!(ObjectKey::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn keys_round_trip_and_order(
            a in (0..SHARDS_MAX, 0..100u64, any::<u64>(), any::<u64>()),
            b in (0..SHARDS_MAX, 0..100u64, any::<u64>(), any::<u64>()),
        ) {
            let key = |(s, i, t, r)| ObjectKey::flush(ShardId(s), Incarnation(i), t, r);
            let (a, b) = (key(a), key(b));
            prop_assert_eq!(ObjectKey::parse(&a.to_string()), Ok(a));
            if a.incarnation() == b.incarnation() {
                prop_assert_eq!(a.cmp(&b), a.to_string().cmp(&b.to_string()));
            }
        }

        #[test]
        fn any_text_is_parsed_or_refused(text in ".{0,80}") {
            if let Ok(key) = ObjectKey::parse(&text) {
                prop_assert_eq!(key.to_string(), text);
            }
        }
    }
}
