//! Snapshots of state machines in the log database: cut into chunks, so that a big one neither
//! blocks the appends of other groups nor needs one huge value, and switched by a single record, so
//! that a crash leaves the old one or the new one.

use bytes::Bytes;

use super::keys::{self, Record};
use super::{LogStore, Op, Sync};
use crate::codec::{self, SnapshotMetaMsg};
use crate::error::Error;
use crate::ids::GroupId;
use crate::types::SnapshotMeta;

const CHUNK_BYTES: usize = 1 << 20;
const CHUNKS_PER_WRITE: usize = 4;

/// Points to the chunks of the current snapshot.
#[derive(Clone, PartialEq, prost::Message)]
struct SnapshotMsg {
    #[prost(message, optional, tag = "1")]
    meta: Option<SnapshotMetaMsg>,
    #[prost(uint64, tag = "2")]
    generation: u64,
    #[prost(uint32, tag = "3")]
    chunks: u32,
    #[prost(uint64, tag = "4")]
    bytes: u64,
    #[prost(fixed32, tag = "5")]
    crc32c: u32,
}

impl LogStore {
    /// Replaces the group's snapshot; durable when it returns. One call at a time per group.
    pub(crate) async fn save_snapshot(
        &self,
        group: GroupId,
        meta: &SnapshotMeta,
        bytes: &[u8],
    ) -> Result<(), Error> {
        let before = self.snapshot_record(group)?;
        let generation = before.as_ref().map_or(1, |record| record.generation + 1);
        // A crash may have left chunks of an attempt at this generation.
        let (start, end) = (keys::chunk(group, generation, 0), keys::group_range(group).1);
        if self.read(|disk| disk.last(keys::SNAPSHOT, &start, &end))?.is_some() {
            let leftovers = Op::DeleteRange { family: keys::SNAPSHOT, start, end };
            self.write(vec![leftovers], Sync::No).await?;
        }

        let mut chunks: u32 = 0;
        let mut ops = Vec::new();
        for chunk in bytes.chunks(CHUNK_BYTES) {
            let key = keys::chunk(group, generation, chunks);
            ops.push(Op::Put { family: keys::SNAPSHOT, key, value: chunk.to_vec() });
            chunks += 1;
            if ops.len() == CHUNKS_PER_WRITE {
                self.write(std::mem::take(&mut ops), Sync::No).await?;
            }
        }
        let record = SnapshotMsg {
            meta: Some(codec::snapshot_meta_to_msg(meta)),
            generation,
            chunks,
            bytes: bytes.len() as u64,
            crc32c: crc32c::crc32c(bytes),
        };
        ops.push(Op::put_record(group, Record::Snapshot, codec::frame(&record)));
        // One by one: shards make thousands of snapshots of one chunk (see `Op::DeleteRange`).
        let replaced = before.iter().flat_map(|record| {
            let chunk = |number| keys::chunk(group, record.generation, number);
            (0..record.chunks).map(chunk)
        });
        ops.extend(replaced.map(|key| Op::Delete { family: keys::SNAPSHOT, key }));
        self.write(ops, Sync::Yes).await
    }

    /// What the group's snapshot covers, without its content.
    pub(crate) fn snapshot_meta(&self, group: GroupId) -> Result<Option<SnapshotMeta>, Error> {
        let record = self.snapshot_record(group)?;
        let meta = record.map(|record| record.meta.unwrap_or_default());
        meta.map(codec::snapshot_meta_from_msg).transpose()
    }

    /// The group's snapshot, verified.
    pub(crate) fn load_snapshot(
        &self,
        group: GroupId,
    ) -> Result<Option<(SnapshotMeta, Vec<u8>)>, Error> {
        let Some(record) = self.snapshot_record(group)? else { return Ok(None) };
        let meta = codec::snapshot_meta_from_msg(record.meta.clone().unwrap_or_default())?;
        let mut bytes = Vec::new();
        for chunk in 0..record.chunks {
            let key = keys::chunk(group, record.generation, chunk);
            match self.read(|disk| disk.get(keys::SNAPSHOT, &key))? {
                Some(value) => bytes.extend_from_slice(&value),
                None => {
                    let reason = format!("chunk {chunk} is missing");
                    return Err(Error::corrupt("snapshot", reason));
                }
            }
        }
        if bytes.len() as u64 != record.bytes || crc32c::crc32c(&bytes) != record.crc32c {
            return Err(Error::corrupt("snapshot", "checksum mismatch"));
        }
        Ok(Some((meta, bytes)))
    }

    fn snapshot_record(&self, group: GroupId) -> Result<Option<SnapshotMsg>, Error> {
        let record: Option<Bytes> = self.record(group, Record::Snapshot)?;
        record.map(|record| codec::unframe("snapshot record", record)).transpose()
    }
}
