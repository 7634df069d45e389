//! Backups of the catalog: what lies in the bucket so that a metastore that lost its disks can begin
//! again.
//!
//! A backup is, with numbers in little-endian: magic (8 bytes) | length of the summary (4) | hash of
//! the summary (8) | summary (protobuf) | the catalog as [`State::encode`] gives it. The summary holds
//! length and hash of the catalog. Hashes are those of [`clew_ring::hash`]. Reading the first
//! [`BACKUP_HEAD_BYTES`] is enough for the summary of any but very large clusters.

use clew_model::UnixNanos;
use clew_ring::{ShardId, hash};
use prost::Message;

use crate::error::DecodeError;
use crate::ident::{ClusterId, Incarnation, LogPoint};
use crate::state::State;
use crate::wire::{self, PointMessage};

/// How many bytes of a backup to read for its summary.
pub const BACKUP_HEAD_BYTES: u64 = 256 << 10;

/// The version of the format that this release writes.
const BACKUP_VERSION: u32 = 1;

const MAGIC: &[u8; 8] = b"ClewCat1";
const HEAD_BYTES: usize = MAGIC.len() + 4 + 8;

/// The hashes of summary and catalog have seeds of their own, so that one never passes for the other.
const SUMMARY_SEED: u64 = 1;
const STATE_SEED: u64 = 2;

const PREFIX: &str = "catalog/";
const SUFFIX: &str = ".backup";
const REVISION_DIGITS: usize = 20;
const RANDOM_DIGITS: usize = 16;

/// The key of a backup in the bucket: `catalog/<revision>-<random>.backup`.
///
/// Keys order by revision, as their texts do. No two backups have the same, so one that a leader
/// writes that was passed over lies beside a newer one and below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackupKey {
    /// The catalog's revision.
    pub revision: u64,
    /// Tells apart backups of one revision.
    pub random: u64,
}

impl BackupKey {
    /// The prefix of all backups, for listing. Objects below it are never orphans.
    pub const PREFIX: &'static str = PREFIX;

    /// Parses exactly what [`std::fmt::Display`] prints; nothing for any other text.
    pub fn parse(text: &str) -> Option<BackupKey> {
        let name = text.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
        let (revision, random) = name.split_once('-')?;
        let key = BackupKey {
            revision: revision.parse().ok()?,
            random: u64::from_str_radix(random, 16).ok()?,
        };
        (key.to_string() == text).then_some(key)
    }
}

impl std::fmt::Display for BackupKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let BackupKey { revision, random } = self;
        write!(f, "{PREFIX}{revision:0REVISION_DIGITS$}-{random:0RANDOM_DIGITS$x}{SUFFIX}")
    }
}

/// What a backup says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupSummary {
    /// The cluster.
    pub cluster: ClusterId,
    /// The catalog's own incarnation: 1 when created, higher after each restore.
    pub incarnation: u64,
    /// Its revision.
    pub revision: u64,
    /// When it was taken.
    pub at: UnixNanos,
    /// How many objects are live in it.
    pub objects: u64,
    /// The open logs with their watermarks, by shard.
    pub watermarks: Vec<(ShardId, Incarnation, LogPoint)>,
    /// The length of the catalog in bytes.
    pub state_bytes: u64,
    /// The hash of the catalog.
    pub state_hash: u64,
}

#[derive(Clone, PartialEq, Message)]
struct SummaryMessage {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(bytes = "vec", tag = "2")]
    cluster: Vec<u8>,
    #[prost(uint64, tag = "3")]
    incarnation: u64,
    #[prost(uint64, tag = "4")]
    revision: u64,
    #[prost(fixed64, tag = "5")]
    at: u64,
    #[prost(uint64, tag = "6")]
    objects: u64,
    #[prost(message, repeated, tag = "7")]
    watermarks: Vec<WatermarkMessage>,
    #[prost(uint64, tag = "8")]
    state_bytes: u64,
    #[prost(fixed64, tag = "9")]
    state_hash: u64,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct WatermarkMessage {
    #[prost(uint32, tag = "1")]
    shard: u32,
    #[prost(uint64, tag = "2")]
    incarnation: u64,
    #[prost(message, optional, tag = "3")]
    point: Option<PointMessage>,
}

/// A catalog as it was, with what the backup says of it.
#[derive(Debug, Clone)]
pub struct Backup {
    /// What it says of itself.
    pub summary: BackupSummary,
    /// The catalog.
    pub state: State,
}

impl Backup {
    /// The backup of `state`, taken at `at`; nothing before there is a cluster.
    pub fn encode(state: &State, at: UnixNanos) -> Option<Vec<u8>> {
        let cluster = state.cluster()?;
        let encoded = state.encode();
        let watermark = |(shard, log): (ShardId, &crate::ShardLog)| WatermarkMessage {
            shard: shard.0,
            incarnation: log.incarnation.0,
            point: Some(log.watermark.into()),
        };
        let summary = SummaryMessage {
            version: BACKUP_VERSION,
            cluster: cluster.0.to_vec(),
            incarnation: state.incarnation(),
            revision: state.revision(),
            at: at.0,
            objects: state.objects().len() as u64,
            watermarks: state.shard_logs().map(watermark).collect(),
            state_bytes: encoded.len() as u64,
            state_hash: hash::hash(STATE_SEED, &encoded),
        }
        .encode_to_vec();
        let mut bytes = Vec::with_capacity(HEAD_BYTES + summary.len() + encoded.len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&u32::try_from(summary.len()).ok()?.to_le_bytes());
        bytes.extend_from_slice(&hash::hash(SUMMARY_SEED, &summary).to_le_bytes());
        bytes.extend_from_slice(&summary);
        bytes.extend_from_slice(&encoded);
        Some(bytes)
    }

    /// The backup in `bytes`, verified.
    ///
    /// # Errors
    /// [`DecodeError`] when they are not a whole backup, or one of a later release.
    pub fn decode(bytes: &[u8]) -> Result<Backup, DecodeError> {
        let (summary, encoded) = split(bytes)?;
        let is_whole = encoded.len() as u64 == summary.state_bytes
            && hash::hash(STATE_SEED, encoded) == summary.state_hash;
        if !is_whole {
            return Err(DecodeError::Inconsistent { what: "backup" });
        }
        let state = State::decode(encoded)?;
        if state.cluster() != Some(summary.cluster) || state.revision() != summary.revision {
            return Err(DecodeError::Inconsistent { what: "backup summary" });
        }
        Ok(Backup { summary, state })
    }
}

impl BackupSummary {
    /// The summary in the first bytes of a backup.
    ///
    /// # Errors
    /// [`DecodeError`] when they are not the beginning of a backup, or of one of a later release.
    pub fn decode(head: &[u8]) -> Result<BackupSummary, DecodeError> {
        Ok(split(head)?.0)
    }
}

/// The summary, and what follows it.
fn split(bytes: &[u8]) -> Result<(BackupSummary, &[u8]), DecodeError> {
    let rest = bytes.strip_prefix(MAGIC).ok_or(DecodeError::Malformed)?;
    let (length, rest) = rest.split_first_chunk::<4>().ok_or(DecodeError::Malformed)?;
    let (expected, rest) = rest.split_first_chunk::<8>().ok_or(DecodeError::Malformed)?;
    let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
    let (summary, rest) = rest.split_at_checked(length).ok_or(DecodeError::Malformed)?;
    if hash::hash(SUMMARY_SEED, summary) != u64::from_le_bytes(*expected) {
        return Err(DecodeError::Inconsistent { what: "backup summary" });
    }
    let message = SummaryMessage::decode(summary)?;
    if message.version != BACKUP_VERSION {
        return Err(DecodeError::Unsupported { version: message.version });
    }
    let watermark = |message: &WatermarkMessage| {
        let shard = wire::shard(message.shard)?;
        Ok((shard, Incarnation(message.incarnation), wire::point(message.point)))
    };
    let summary = BackupSummary {
        cluster: ClusterId(wire::id16(&message.cluster)?),
        incarnation: message.incarnation,
        revision: message.revision,
        at: UnixNanos(message.at),
        objects: message.objects,
        watermarks: message.watermarks.iter().map(watermark).collect::<Result<_, DecodeError>>()?,
        state_bytes: message.state_bytes,
        state_hash: message.state_hash,
    };
    Ok((summary, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::command::{Command, CreateCluster};

    fn state() -> State {
        let mut state = State::new();
        let create = CreateCluster { cluster: ClusterId([7; 16]), shard_count: 2 };
        state.apply(5, &Command::CreateCluster(create).encode(UnixNanos(9)));
        state
    }

    #[test]
    fn a_backup_is_read_back_and_its_head_is_enough_to_know_it() {
        let bytes = Backup::encode(&state(), UnixNanos(11)).unwrap();
        let backup = Backup::decode(&bytes).unwrap();
        assert_eq!(backup.state, state());
        let head = &bytes[..bytes.len() - 3];
        let summary = BackupSummary::decode(head).unwrap();
        assert_eq!(summary, backup.summary);
        assert_eq!((summary.revision, summary.at), (5, UnixNanos(11)));
        assert_eq!(Backup::encode(&State::new(), UnixNanos(11)), None);
        // What is pinned: magic, and that a summary comes first.
        assert_eq!(&bytes[..8], b"ClewCat1");
        assert!(matches!(Backup::decode(head), Err(DecodeError::Inconsistent { .. })));
    }

    #[test]
    fn keys_have_one_spelling_and_order_by_revision() {
        let key = BackupKey { revision: 4_711, random: 0xbeef };
        let text = "catalog/00000000000000004711-000000000000beef.backup";
        assert_eq!(key.to_string(), text);
        assert_eq!(BackupKey::parse(text), Some(key));
        for other in [
            "",
            "catalog/",
            "catalog/4711-000000000000beef.backup",
            "catalog/00000000000000004711-000000000000BEEF.backup",
            "catalog/+0000000000000004711-000000000000beef.backup",
            "catalog/../00000000000000004711-000000000000beef.backup",
            "flush/00000000000000004711-000000000000beef.backup",
        ] {
            assert_eq!(BackupKey::parse(other), None, "{other}");
        }
        assert!(key < BackupKey { revision: 4_712, random: 0 });
    }

    proptest! {
        #[test]
        fn a_changed_byte_is_noticed(at in any::<prop::sample::Index>(), x in 1u8..) {
            let mut bytes = Backup::encode(&state(), UnixNanos(11)).unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= x;
            prop_assert!(Backup::decode(&bytes).is_err());
        }

        #[test]
        fn any_bytes_are_a_backup_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Backup::decode(&bytes).is_err());
            prop_assert!(BackupSummary::decode(&[MAGIC.as_slice(), &bytes].concat()).is_err());
        }
    }
}
