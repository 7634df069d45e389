//! What a block tells about where it comes from, so that a catalog can be made anew from the blocks
//! alone. It stands at the end of the footer; a block without it has the default.
//!
//! Stored as varints: level, arrival, objects of the merge, number of covered stretches, then of each
//! incarnation, start and length. More may follow.

use clew_model::wire::put_varint;

use crate::codec::ByteReader;
use crate::error::BlockError;

/// The highest level a footer may state; a higher one is taken for damage.
const LEVEL_MAX: u64 = 64;

/// The entries of one incarnation of a shard's log in (`from`, `through`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cover {
    /// The incarnation.
    pub incarnation: u64,
    /// The index before the first entry.
    pub from: u64,
    /// The last entry.
    pub through: u64,
}

/// See the [module](self).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Heritage {
    /// How often its spans were merged: 0 as flushed.
    pub level: u32,
    /// When its youngest spans arrived, nanoseconds since the epoch; 0 if it is not told.
    pub arrived: u64,
    /// In the last object of a merge: how many objects the merge made. So whoever finds that many
    /// knows that none is missing. 0 in all others.
    pub objects: u32,
    /// Which parts of its shard's log were merged into the objects of the merge, ascending, not
    /// touching each other. Empty as flushed: the origin tells.
    pub covers: Vec<Cover>,
}

impl Heritage {
    /// The stretches of `covers` with those that touch or overlap joined, ascending.
    pub fn joined(mut covers: Vec<Cover>) -> Vec<Cover> {
        covers.retain(|cover| cover.from < cover.through);
        covers.sort_unstable();
        let mut joined: Vec<Cover> = Vec::with_capacity(covers.len());
        for cover in covers {
            match joined.last_mut() {
                Some(last)
                    if last.incarnation == cover.incarnation && cover.from <= last.through =>
                {
                    last.through = last.through.max(cover.through);
                }
                _ => joined.push(cover),
            }
        }
        joined
    }

    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        if *self == Heritage::default() {
            return;
        }
        for number in [u64::from(self.level), self.arrived, u64::from(self.objects)] {
            put_varint(out, number);
        }
        put_varint(out, self.covers.len() as u64);
        for Cover { incarnation, from, through } in &self.covers {
            for number in [*incarnation, *from, through.saturating_sub(*from)] {
                put_varint(out, number);
            }
        }
    }

    pub(crate) fn read(reader: &mut ByteReader<'_>) -> Result<Heritage, BlockError> {
        if reader.remaining() == 0 {
            return Ok(Heritage::default());
        }
        let level = reader.varint()?;
        if level > LEVEL_MAX {
            return Err(reader.corrupt("its level is out of bounds"));
        }
        let arrived = reader.varint()?;
        let objects = u32::try_from(reader.varint()?);
        let objects = objects.map_err(|_| reader.corrupt("its objects are out of bounds"))?;
        let count = reader.count(3)?;
        let mut covers = Vec::with_capacity(count);
        for _ in 0..count {
            let (incarnation, from) = (reader.varint()?, reader.varint()?);
            let through = from.checked_add(reader.varint()?);
            let through = through.ok_or_else(|| reader.corrupt("a stretch is out of bounds"))?;
            covers.push(Cover { incarnation, from, through });
        }
        let level = u32::try_from(level).unwrap_or(u32::MAX);
        Ok(Heritage { level, arrived, objects, covers })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cover(incarnation: u64, from: u64, through: u64) -> Cover {
        Cover { incarnation, from, through }
    }

    #[test]
    fn stretches_that_touch_are_one() {
        let covers = vec![cover(2, 0, 5), cover(1, 10, 20), cover(1, 0, 10), cover(1, 25, 30)];
        let joined = vec![cover(1, 0, 20), cover(1, 25, 30), cover(2, 0, 5)];
        assert_eq!(Heritage::joined(covers), joined);
        assert_eq!(Heritage::joined(vec![cover(1, 5, 5)]), vec![]);
    }

    proptest! {
        #[test]
        fn heritage_round_trips(
            (level, arrived, objects) in (0..9u32, any::<u64>(), any::<u32>()),
            covers in prop::collection::vec((any::<u64>(), 0..u64::MAX / 2, 1..1_000u64), 0..5),
            rest in prop::collection::vec(any::<u8>(), 0..5),
        ) {
            let covers = covers.into_iter().map(|(i, from, n)| cover(i, from, from + n)).collect();
            let heritage = Heritage { level, arrived, objects, covers };
            let mut bytes = Vec::new();
            heritage.put(&mut bytes);
            if !bytes.is_empty() {
                // What a later release adds is left alone.
                bytes.extend(rest);
            }
            prop_assert_eq!(Heritage::read(&mut ByteReader::new("footer", &bytes)).unwrap(), heritage);
        }
    }
}
