//! A catalog that is lost in the middle of its life comes back from a backup and the bucket, or from
//! the bucket alone: every span is read, and once, or what is missing is named.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at what it did not expect")]

use std::collections::{BTreeMap, BTreeSet};

use clew_catalog::*;
use clew_model::{TenantId, UnixNanos};
use proptest::prelude::*;

const SHARDS: u32 = 2;

/// An entry of a log.
type Entry = (ShardId, Incarnation, u64);

/// An object in the bucket as its bytes tell.
#[derive(Debug, Clone)]
struct Stored {
    found: FoundObject,
    /// What is in it.
    entries: BTreeSet<Entry>,
}

/// A cluster: its catalog, its bucket, and what its logs have purged.
#[derive(Debug, Clone)]
struct World {
    state: State,
    bucket: BTreeMap<ObjectKey, Stored>,
    random: u64,
    backup: Option<State>,
}

fn at(state: &State) -> UnixNanos {
    UnixNanos(state.now().0 + 1)
}

impl World {
    fn new() -> World {
        let mut world =
            World { state: State::new(), bucket: BTreeMap::new(), random: 0, backup: None };
        let node = NodeId::parse("node-0").unwrap();
        let create = CreateCluster { cluster: ClusterId([1; 16]), shard_count: SHARDS };
        world.apply(Command::CreateCluster(create));
        world.apply(Command::RegisterNode(RegisterNode {
            node: node.clone(),
            addr: "127.0.0.1:9095".to_owned(),
            zone: String::new(),
            capacity: 1,
            roles: Roles::ALL,
            features: FeatureRange::OURS,
        }));
        let disk = DiskId([1; 16]);
        world.apply(Command::IssueReplicaId(IssueReplicaId { disk, node, holds: None }));
        for shard in 0..SHARDS {
            world.open(ShardId(shard));
        }
        world
    }

    fn apply(&mut self, command: Command) -> Outcome {
        let index = self.state.revision() + 1;
        self.state.apply(index, &command.encode(at(&self.state)))
    }

    fn next_random(&mut self) -> u64 {
        self.random += 1;
        self.random
    }

    fn open(&mut self, shard: ShardId) {
        let replaces = self.state.shard_log(shard).map(|log| log.incarnation);
        let request = RequestId([u8::try_from(self.next_random() % 250).unwrap() + 1; 16]);
        let replicas = vec![ReplicaId(1)];
        let open = OpenShardLog { shard, replicas, replaces, request };
        let outcome = self.apply(Command::OpenShardLog(open));
        assert!(matches!(outcome, Outcome::Open(OpenOutcome::Opened { .. })), "{outcome:?}");
    }

    fn store(&mut self, object: &ObjectMeta, found: FoundObject, entries: BTreeSet<Entry>) {
        self.bucket.insert(object.key, Stored { found, entries });
    }

    /// A leader flushes so many entries; one that was passed over may have put an object into the
    /// bucket that is never registered.
    fn flush(&mut self, shard: ShardId, length: u64, orphan: u64) {
        let log = self.state.shard_log(shard).unwrap().clone();
        let from = log.watermark.index;
        for (length, registers) in [(orphan, false), (length, true)] {
            if length == 0 {
                continue;
            }
            let through = from + length;
            let random = self.next_random();
            let object = ObjectMeta {
                key: ObjectKey::flush(shard, log.incarnation, through, random),
                size: 100,
                from,
                through: LogPoint { term: 1, leader: 1, index: through },
                level: 0,
                created_at: UnixNanos(0),
                data_at: UnixNanos(7),
                revision: 0,
                tenants: vec![block(length)],
            };
            let mut described = object.clone();
            described.through = LogPoint { index: through, ..LogPoint::default() };
            let (replaces, covers) = Default::default();
            let found = FoundObject { object: described, replaces, covers, objects_of_merge: 0 };
            let entries = (from + 1..=through).map(|n| (shard, log.incarnation, n)).collect();
            self.store(&object, found, entries);
            if registers {
                let outcome = self.apply(Command::CommitFlush(CommitFlush { object }));
                assert_eq!(outcome, Outcome::Flush(FlushOutcome::Applied));
            }
        }
    }

    /// A compaction of some objects of a shard that gets as far as `how`.
    fn merge(&mut self, shard: ShardId, count: usize, outputs: u64, how: Merging) {
        let of_shard = self.state.objects().filter(|object| object.shard() == shard);
        let inputs: Vec<ObjectKey> = of_shard.map(|object| object.key).take(count).collect();
        self.merge_these(shard, inputs, outputs, how);
    }

    fn merge_these(&mut self, shard: ShardId, inputs: Vec<ObjectKey>, outputs: u64, how: Merging) {
        if inputs.is_empty() {
            return;
        }
        let request = RequestId(self.next_random().to_be_bytes().repeat(2).try_into().unwrap());
        let begin = BeginJob {
            inputs: inputs.clone(),
            level: 1,
            worker: "compactor".to_owned(),
            request,
            expires_at: UnixNanos(0),
        };
        let Outcome::Job(JobOutcome::Begun { job }) = self.apply(Command::BeginJob(begin)) else {
            return;
        };
        let arrived = inputs.iter().map(|key| self.state.object(key).unwrap().data_at).max();
        let mut entries = BTreeSet::new();
        let mut covers = Vec::new();
        for input in &inputs {
            let stored = self.bucket.get(input).unwrap();
            entries.extend(stored.entries.iter().copied());
            covers.extend(stored.found.covers.iter().copied());
            if let Some(incarnation) = input.incarnation() {
                let object = &stored.found.object;
                let (from, through) = (object.from, object.through.index);
                covers.push(LogRange { incarnation, from, through });
            }
        }
        // Entries go to the objects in turn, as the traces of a tenant do.
        let outputs = outputs.min(entries.len() as u64);
        let mut made = Vec::new();
        for number in 0..outputs {
            let part = entries.iter().zip(0u64..).filter(|(_, place)| place % outputs == number);
            let part: BTreeSet<Entry> = part.map(|(entry, _)| *entry).collect();
            let random = self.next_random();
            let object = ObjectMeta {
                key: ObjectKey::compacted(shard, job, random),
                size: 100,
                from: 0,
                through: LogPoint::default(),
                level: 1,
                created_at: UnixNanos(0),
                data_at: arrived.unwrap(),
                revision: 0,
                tenants: vec![block(part.len() as u64)],
            };
            let is_last = number + 1 == outputs;
            let found = FoundObject {
                object: object.clone(),
                replaces: inputs.iter().copied().collect(),
                covers: covers.clone(),
                objects_of_merge: if is_last { u32::try_from(outputs).unwrap() } else { 0 },
            };
            if is_last && how == Merging::Dies {
                break;
            }
            self.store(&object, found, part);
            made.push(object);
        }
        if how == Merging::Commits || how == Merging::Deletes {
            let (kept, removed) = (vec![], vec![]);
            let commit = CommitJob { job, outputs: made, kept, removed };
            let outcome = self.apply(Command::CommitJob(commit));
            assert_eq!(outcome, Outcome::Job(JobOutcome::Committed));
        }
        if how == Merging::Deletes {
            let dead: Vec<ObjectKey> = self.state.dead().map(|dead| dead.object.key).collect();
            for key in &dead {
                self.bucket.remove(key);
            }
            self.apply(Command::ConfirmDeleted(ConfirmDeleted { objects: dead }));
        }
    }

    fn last_object(&self) -> ObjectKey {
        self.state.objects().last().unwrap().key
    }

    /// What can never be registered is taken out of the bucket, as compactors do now and then.
    fn collect_orphans(&mut self) {
        let state = &self.state;
        self.bucket.retain(|key, _| state.liveness(key) != Liveness::Dead);
    }

    fn listing(&self, base: Option<&State>) -> Listing {
        let wanted = |key: &ObjectKey| base.is_none_or(|state| state.must_read(key));
        let found = self.bucket.iter().filter(|(key, _)| wanted(key));
        Listing {
            present: self.bucket.keys().copied().collect(),
            found: found.map(|(_, stored)| stored.found.clone()).collect(),
            unreadable: vec![],
        }
    }

    fn restored(&self) -> Restored {
        let base = self.backup.clone().unwrap();
        let listing = self.listing(Some(&base));
        restore(Ok(base), &listing, at(&self.state)).unwrap()
    }

    fn rebuilt(&self) -> Restored {
        let rebuilding = Rebuilding { cluster: ClusterId([2; 16]), shard_count: Some(SHARDS) };
        restore(Err(rebuilding), &self.listing(None), at(&self.state)).unwrap()
    }

    /// How often each entry is read, by a catalog.
    fn read(&self, state: &State) -> BTreeMap<Entry, usize> {
        let mut read = BTreeMap::new();
        for object in state.objects() {
            let stored = self.bucket.get(&object.key);
            for entry in stored.into_iter().flat_map(|stored| &stored.entries) {
                *read.entry(*entry).or_default() += 1;
            }
        }
        read
    }
}

fn block(spans: u64) -> TenantBlock {
    TenantBlock {
        tenant: TenantId::parse("anvil").unwrap(),
        offset: 0,
        length: 100,
        footer_length: 10,
        min_time: UnixNanos(5),
        max_time: UnixNanos(9),
        spans,
        traces: 1,
        splits: 0,
        ids: None,
    }
}

/// How far a compaction gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Merging {
    /// Its last object is never put.
    Dies,
    /// Everything is put, nothing is committed.
    Stops,
    Commits,
    /// What it replaced is deleted, too.
    Deletes,
}

#[derive(Debug, Clone)]
enum Step {
    Flush(u32, u64, u64),
    Merge(u32, usize, u64, Merging),
    Reopen(u32),
    BackUp,
}

fn any_step() -> impl Strategy<Value = Step> {
    let how = prop_oneof![
        Just(Merging::Dies),
        Just(Merging::Stops),
        Just(Merging::Commits),
        Just(Merging::Deletes)
    ];
    prop_oneof![
        6 => (0..SHARDS, 1..9u64, prop_oneof![Just(0), 0..9u64])
            .prop_map(|(shard, length, orphan)| Step::Flush(shard, length, orphan)),
        4 => (0..SHARDS, 1..5usize, 1..4u64, how)
            .prop_map(|(shard, count, outputs, how)| Step::Merge(shard, count, outputs, how)),
        1 => (0..SHARDS).prop_map(Step::Reopen),
        1 => Just(Step::BackUp),
    ]
}

fn live(steps: &[Step]) -> World {
    let mut world = World::new();
    world.backup = Some(world.state.clone());
    for step in steps {
        match *step {
            Step::Flush(shard, length, orphan) => world.flush(ShardId(shard), length, orphan),
            Step::Merge(shard, count, outputs, how) => {
                world.merge(ShardId(shard), count, outputs, how);
            }
            Step::Reopen(shard) => world.open(ShardId(shard)),
            Step::BackUp => world.backup = Some(world.state.clone()),
        }
    }
    world
}

/// Every entry that the lost catalog had is read, and once unless the report says otherwise. What it had
/// not registered may be read, too: it was committed to a log and uploaded.
fn check_reads(world: &World, restored: &Restored) -> Result<(), TestCaseError> {
    let (before, after) = (world.read(&world.state), world.read(&restored.state));
    prop_assert_eq!(&restored.report.gaps, &[]);
    for (entry, count) in &after {
        prop_assert!(*count == 1 || !restored.report.doubtful.is_empty(), "{:?} twice", entry);
    }
    for entry in before.keys() {
        prop_assert!(after.contains_key(entry), "{:?} is lost", entry);
    }
    Ok(())
}

fn check_watermarks(world: &World, restored: &Restored) -> Result<(), TestCaseError> {
    for (shard, log) in restored.state.shard_logs() {
        let lost = world.state.shard_log(shard).unwrap();
        prop_assert!(log.awaits && log.lead.is_none());
        if log.incarnation == lost.incarnation {
            prop_assert!(log.watermark.index >= lost.watermark.index);
        } else {
            // It has flushed nothing yet: its leader tells of it.
            prop_assert_eq!(lost.watermark.index, 0);
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn a_backup_and_the_bucket_give_back_every_span_once(
        steps in prop::collection::vec(any_step(), 0..30),
    ) {
        let world = live(&steps);
        let restored = world.restored();
        check_reads(&world, &restored)?;
        check_watermarks(&world, &restored)?;
        // It is a catalog like any other, and behind everything that was issued.
        let again = State::decode(&restored.state.encode()).unwrap();
        prop_assert_eq!(&again, &restored.state);
        prop_assert!(again.revision() > world.state.revision());
        prop_assert!(again.incarnation() > world.state.incarnation());
        // Only flushes behind the watermark may still come.
        for found in world.listing(Some(&again)).found {
            let is_flush = matches!(found.object.key, ObjectKey::Flush(_));
            prop_assert!(is_flush, "{}", found.object.key);
        }
    }

    #[test]
    fn the_bucket_alone_gives_back_every_span_once(
        steps in prop::collection::vec(any_step(), 0..30),
    ) {
        let world = live(&steps);
        let rebuilt = world.rebuilt();
        check_reads(&world, &rebuilt)?;
        check_watermarks(&world, &rebuilt)?;
    }

    #[test]
    fn a_flush_that_is_gone_is_named(
        lengths in prop::collection::vec(1..9u64, 2..8),
        gone in any::<prop::sample::Index>(),
    ) {
        let mut world = World::new();
        world.backup = Some(world.state.clone());
        for length in &lengths {
            world.flush(ShardId(0), *length, 0);
        }
        let keys: Vec<ObjectKey> = world.bucket.keys().copied().collect();
        // The last one alone would not be missed here: then the shard's log is ahead, and tells.
        let gone = gone.index(keys.len() - 1);
        let lost = world.bucket.remove(&keys[gone]).unwrap().found.object;
        let restored = world.restored();
        prop_assert_eq!(restored.report.gaps.len(), 1);
        let gap = &restored.report.gaps[0];
        prop_assert_eq!((gap.shard, gap.from, gap.through), (ShardId(0), lost.from, lost.through.index));
        prop_assert_eq!(&restored.state.view(&[]).gaps, &restored.report.gaps);
        prop_assert!(restored.report.needs_consent());
        prop_assert!(restored.state.unsettled().is_some());
    }

    #[test]
    fn hostile_objects_never_panic(
        steps in prop::collection::vec(any_step(), 0..12),
        covers in prop::collection::vec((0..9u64, any::<u64>(), any::<u64>()), 0..4),
        (from, objects) in (any::<u64>(), any::<u32>()),
    ) {
        let mut world = live(&steps);
        world.merge(ShardId(0), 3, 2, Merging::Stops);
        for stored in world.bucket.values_mut() {
            stored.found.covers = covers
                .iter()
                .map(|(i, from, through)| LogRange {
                    incarnation: Incarnation(*i),
                    from: *from,
                    through: *through,
                })
                .collect();
            stored.found.objects_of_merge = objects;
            let end = stored.found.object.through.index;
            stored.found.object.from = from.min(end.saturating_sub(1));
        }
        let restored = world.restored();
        prop_assert!(State::decode(&restored.state.encode()).is_ok());
        let rebuilt = world.rebuilt();
        prop_assert!(State::decode(&rebuilt.state.encode()).is_ok());
        prop_assert!(!rebuilt.report.to_string().is_empty());
    }
}

#[test]
fn a_life_without_accidents_leaves_no_doubt() {
    let mut world = World::new();
    world.backup = Some(world.state.clone());
    for round in 0..6 {
        for shard in 0..SHARDS {
            world.flush(ShardId(shard), 3 + round, round);
        }
        world.merge(ShardId(0), 2, 2, Merging::Deletes);
        world.merge(ShardId(1), 3, 1, Merging::Commits);
        // A worker dies each round, and its job is done again. What it left is collected once it cannot
        // be registered any more; until then what was done again tells that it was in vain.
        world.merge(ShardId(1), 2, 2, Merging::Dies);
        leaves_no_doubt(&world);
        world.collect_orphans();
        leaves_no_doubt(&world);
    }
}

fn leaves_no_doubt(world: &World) {
    for restored in [world.restored(), world.rebuilt()] {
        assert!(!restored.report.needs_consent(), "{}", restored.report);
        let read = world.read(&restored.state);
        assert_eq!(read.keys().max(), world.read(&world.state).keys().max());
        assert!(read.values().all(|count| *count == 1));
    }
}

#[test]
fn objects_of_a_job_in_vain_are_doubtful_once_nothing_tells_what_came_of_its_inputs() {
    let mut world = World::new();
    world.backup = Some(world.state.clone());
    world.flush(ShardId(0), 4, 0);
    world.merge(ShardId(0), 1, 1, Merging::Stops);
    world.merge(ShardId(0), 1, 1, Merging::Commits);
    assert_eq!(world.restored().report.doubtful, []);
    world.merge(ShardId(0), 1, 1, Merging::Deletes);
    let restored = world.restored();
    assert_eq!(restored.report.doubtful.len(), 1);
    assert!(restored.report.needs_consent());
}

/// Why what is left of a job can be doubtful though nothing went wrong: two lives leave the same.
#[test]
fn what_a_dead_worker_left_looks_like_what_was_not_merged_on() {
    let life = |dies: bool| {
        let mut world = World::new();
        world.backup = Some(world.state.clone());
        world.flush(ShardId(0), 4, 0);
        if dies {
            world.merge(ShardId(0), 1, 2, Merging::Dies);
            // Nothing, at the revision at which the other life commits.
            world.apply(Command::ForgetGaps(ForgetGaps { shard: None }));
        } else {
            world.merge(ShardId(0), 1, 2, Merging::Commits);
        }
        // Of what the job made the last object is merged on, or its input once more.
        let again = world.last_object();
        world.merge_these(ShardId(0), vec![again], 1, Merging::Commits);
        let again = world.last_object();
        world.merge_these(ShardId(0), vec![again], 1, Merging::Deletes);
        world
    };
    let (in_vain, merged_on) = (life(true), life(false));
    let told = |world: &World| -> Vec<_> {
        let told = world.listing(None).found.into_iter();
        told.map(|f| (f.object.key, f.replaces.len(), f.covers, f.objects_of_merge)).collect()
    };
    assert_eq!(told(&in_vain), told(&merged_on));
    for world in [&in_vain, &merged_on] {
        for restored in [world.restored(), world.rebuilt()] {
            assert_eq!(restored.report.doubtful.len(), 1);
            assert_eq!(world.read(&restored.state).len(), 4, "a span is lost");
        }
    }
    let once = merged_on.read(&merged_on.restored().state);
    assert!(once.values().all(|count| *count == 1));
    // Once it is collected there is no doubt.
    let mut collected = in_vain;
    collected.collect_orphans();
    assert!(!collected.restored().report.needs_consent());
}

/// A life in which an object of the backup was merged by way of one that is gone, too.
fn merged_unseen(outputs: u64) -> World {
    let mut world = World::new();
    world.flush(ShardId(0), 6, 0);
    world.merge(ShardId(0), 1, outputs, Merging::Commits);
    world.backup = Some(world.state.clone());
    world.merge(ShardId(0), 1, 1, Merging::Commits);
    let made = world.last_object();
    world.merge_these(ShardId(0), vec![made], 1, Merging::Deletes);
    world
}

#[test]
fn an_object_that_was_merged_by_way_of_one_that_is_gone_is_not_missed() {
    for outputs in 1..3 {
        let world = merged_unseen(outputs);
        let restored = world.restored();
        assert!(!restored.report.needs_consent(), "{}", restored.report);
        assert_eq!(world.read(&restored.state), world.read(&world.state));
    }
}

#[test]
fn an_object_that_is_gone_is_missed_though_another_of_its_job_was_merged_on() {
    let mut world = merged_unseen(2);
    // One of the job's two went into what is read, the other is lost.
    let backup = world.backup.clone().unwrap();
    world.bucket.retain(|key, _| backup.object(key).is_none());
    let restored = world.restored();
    // Which of them cannot be told.
    assert_eq!(restored.report.gaps.len(), 2, "{}", restored.report);
}

#[test]
fn an_object_that_is_gone_is_missed_though_others_that_came_later_were_merged() {
    let mut world = World::new();
    world.flush(ShardId(0), 3, 0);
    world.merge(ShardId(0), 1, 1, Merging::Commits);
    world.flush(ShardId(0), 3, 0);
    world.backup = Some(world.state.clone());
    let lost = world.last_object();
    // What the backup has flushed, and what came after it, by way of an object that is gone.
    world.flush(ShardId(0), 5, 0);
    world.merge(ShardId(0), 2, 1, Merging::Commits);
    let made = world.last_object();
    assert_ne!(made, lost);
    world.merge_these(ShardId(0), vec![made], 1, Merging::Deletes);
    assert!(!world.restored().report.needs_consent());
    world.bucket.remove(&lost).unwrap();
    let restored = world.restored();
    assert_eq!(restored.report.gaps.len(), 1);
    assert_eq!(restored.report.gaps[0].object, Some(lost));
}

#[test]
fn of_a_merge_that_lost_an_object_both_sides_are_read_and_it_is_said() {
    let mut world = World::new();
    world.backup = Some(world.state.clone());
    world.flush(ShardId(0), 5, 0);
    world.flush(ShardId(0), 5, 0);
    world.merge(ShardId(0), 2, 2, Merging::Commits);
    let keys: Vec<ObjectKey> = world.bucket.keys().copied().collect();
    let flush = keys.iter().find(|key| matches!(key, ObjectKey::Flush(_))).unwrap();
    let merged = keys.iter().rfind(|key| matches!(key, ObjectKey::Compacted(_))).unwrap();
    world.bucket.remove(flush);
    world.bucket.remove(merged);
    let restored = world.restored();
    assert_eq!(restored.report.doubtful.len(), 1);
    assert!(restored.report.needs_consent());
    assert!(restored.report.to_string().contains("may show twice"));
}

#[test]
fn an_object_of_the_backup_that_is_gone_is_named_with_its_times() {
    let mut world = World::new();
    world.flush(ShardId(1), 5, 0);
    world.backup = Some(world.state.clone());
    let key = *world.bucket.keys().next().unwrap();
    world.bucket.clear();
    let restored = world.restored();
    let gap = &restored.report.gaps[0];
    assert_eq!((gap.object, gap.min_time, gap.max_time), (Some(key), UnixNanos(5), UnixNanos(9)));
    assert_eq!(restored.state.object(&key), None);
    assert_eq!(restored.state.shard_log(ShardId(1)).unwrap().watermark.index, 5);
}

#[test]
fn an_object_that_cannot_be_read_is_a_gap_and_is_not_collected() {
    let mut world = World::new();
    world.backup = Some(world.state.clone());
    world.flush(ShardId(0), 5, 0);
    let base = world.backup.clone().unwrap();
    let mut listing = world.listing(Some(&base));
    let found = listing.found.remove(0);
    listing.unreadable.push((found.object.key, "checksum mismatch".to_owned()));
    let restored = restore(Ok(base), &listing, UnixNanos(99)).unwrap();
    assert!(restored.report.to_string().contains("checksum mismatch"));
    assert_eq!(restored.report.gaps[0].object, Some(found.object.key));
    let mut state = restored.state;
    for shard in 0..SHARDS {
        note_lead(&mut state, ShardId(shard), LogPoint::default());
    }
    assert!(state.unsettled().unwrap().contains(&found.object.key.to_string()));
    propose(&mut state, Command::ForgetGaps(ForgetGaps { shard: None }));
    assert_eq!(state.unsettled(), None);
}

#[test]
fn a_bucket_without_objects_needs_the_number_of_shards() {
    let none = Rebuilding { cluster: ClusterId([2; 16]), shard_count: None };
    assert!(restore(Err(none), &Listing::default(), UnixNanos(1)).is_err());
    let two = Rebuilding { shard_count: Some(2), ..none };
    let rebuilt = restore(Err(two), &Listing::default(), UnixNanos(1)).unwrap();
    assert_eq!(rebuilt.state.shard_logs().count(), 2);
    assert_eq!(rebuilt.state.generations().len(), 1);
    let mut world = World::new();
    world.flush(ShardId(1), 5, 0);
    let one = Rebuilding { shard_count: Some(1), ..none };
    assert!(restore(Err(one), &world.listing(None), UnixNanos(1)).is_err());
    // Whether there were always as many shards is not known: nobody may rely on it.
    let guessed = restore(Err(none), &world.listing(None), UnixNanos(1)).unwrap();
    assert_eq!(guessed.state.generations().len(), 2);
    assert!(guessed.state.view(&[]).map_guessed && !rebuilt.state.view(&[]).map_guessed);
    assert!(View::decode(&guessed.state.view(&[]).encode()).unwrap().map_guessed);
}

fn propose(state: &mut State, command: Command) -> Outcome {
    let index = state.revision() + 1;
    state.apply(index, &command.encode(at(state)))
}

fn note_lead(state: &mut State, shard: ShardId, flushed: LogPoint) -> Outcome {
    let incarnation = state.shard_log(shard).unwrap().incarnation;
    let lead = ShardLead {
        term: 9,
        leader: ReplicaId(1),
        members_index: 3,
        voters: vec![ReplicaId(1)],
        learners: vec![],
    };
    propose(state, Command::NoteLead(NoteLead { shard, incarnation, lead, flushed }))
}

#[test]
fn a_log_that_was_purged_beyond_the_backup_is_noticed_and_goes_on_when_told_to() {
    let mut world = World::new();
    world.flush(ShardId(0), 5, 0);
    world.backup = Some(world.state.clone());
    world.flush(ShardId(0), 7, 0);
    // The object of the second flush is lost with the catalog.
    world.bucket.retain(|_, stored| stored.found.object.from == 0);
    let restored = world.restored();
    assert!(!restored.report.needs_consent(), "nothing in the bucket tells of it");
    let mut state = restored.state;
    let (shard, incarnation) = (ShardId(0), Incarnation(1));
    let flushed = LogPoint { term: 1, leader: 1, index: 12 };
    assert_eq!(note_lead(&mut state, shard, flushed), Outcome::Lead(LeadOutcome::Noted));
    let log = state.shard_log(shard).unwrap();
    assert_eq!((log.ahead, log.watermark.index, log.awaits), (Some(flushed), 5, false));
    assert_eq!(log.placed, [ReplicaId(1)]);
    // Nothing that the catalog does not know may be called dead now.
    assert!(state.unsettled().is_some());
    // A replica that has not heard of the last purge does not hide it.
    note_lead(&mut state, shard, LogPoint { index: 5, ..flushed });
    assert_eq!(state.shard_log(shard).unwrap().ahead, Some(flushed));
    let accept = Command::AcceptGap(AcceptGap { shard, incarnation });
    let view = state.view(&[]);
    assert_eq!(propose(&mut state, accept.clone()), Outcome::Gap(GapOutcome::Done));
    assert_eq!(propose(&mut state, accept), Outcome::Gap(GapOutcome::None));
    let log = state.shard_log(shard).unwrap();
    assert_eq!((log.ahead, log.watermark), (None, flushed));
    let mut followed = view;
    followed.advance(state.revision(), &state.changes_since(followed.revision).unwrap());
    assert_eq!(followed, state.view(&[]));
    assert_eq!(View::decode(&followed.encode()).unwrap().gaps, followed.gaps);
    let gap = &followed.gaps[0];
    assert_eq!((gap.shard, gap.incarnation, gap.from, gap.through), (shard, incarnation, 5, 12));
    assert_eq!(gap.to_string(), "shard 0, incarnation 1: entries 6 to 12");
    propose(&mut state, Command::ForgetGaps(ForgetGaps { shard: Some(ShardId(1)) }));
    assert_eq!(state.gaps().len(), 1);
    propose(&mut state, Command::ForgetGaps(ForgetGaps { shard: Some(shard) }));
    assert_eq!(state.gaps(), []);
}

#[test]
fn logs_disks_and_shards_that_the_backup_does_not_know_are_taken_up() {
    let mut world = World::new();
    world.backup = Some(world.state.clone());
    // After the backup: another disk, a shard opened anew, more shards.
    let node = NodeId::parse("node-0").unwrap();
    let disk = DiskId([2; 16]);
    let issue = |disk, holds| {
        let node = node.clone();
        Command::IssueReplicaId(IssueReplicaId { disk, node, holds })
    };
    assert_eq!(world.apply(issue(disk, None)), Outcome::Replica(ReplicaId(2)));
    world.apply(Command::AddGeneration(AddGeneration { after: 1, shard_count: 4 }));
    world.open(ShardId(1));
    world.open(ShardId(3));
    world.flush(ShardId(3), 4, 0);
    let mut state = world.restored().state;
    // The map is as large as the objects show, and nobody relies on its last generation alone.
    assert_eq!(state.shard_map().newest().unwrap().shards().len(), 4);
    assert!(state.view(&[]).map_guessed);
    assert_eq!(state.shard_log(ShardId(3)).unwrap().watermark.index, 4);
    assert_eq!(state.shard_log(ShardId(2)).unwrap().incarnation, Incarnation(0));
    // A disk keeps the id of its logs; another one does not get it.
    let refused = propose(&mut state, issue(disk, Some(ReplicaId(1))));
    assert!(matches!(refused, Outcome::Refused(Refusal::Invalid { .. })), "{refused:?}");
    let kept = propose(&mut state, issue(disk, Some(ReplicaId(2))));
    assert_eq!(kept, Outcome::Replica(ReplicaId(2)));
    let Outcome::Replica(fresh) = propose(&mut state, issue(DiskId([3; 16]), None)) else {
        panic!("no replica")
    };
    assert!(fresh.0 > 1_000, "{fresh} may have been issued after the backup");
    // A later log is taken up, an earlier one and one that cannot be are not.
    let claim = |shard: u32, incarnation: u64| {
        let (shard, incarnation) = (ShardId(shard), Incarnation(incarnation));
        Command::ClaimLog(ClaimLog { shard, incarnation, replica: ReplicaId(2) })
    };
    let claimed = Outcome::Claim(ClaimOutcome::Claimed);
    assert_eq!(propose(&mut state, claim(1, 3)), claimed);
    assert_eq!(propose(&mut state, claim(1, 3)), claimed);
    assert_eq!(state.shard_log(ShardId(1)).unwrap().incarnation, Incarnation(3));
    let closed = Outcome::Claim(ClaimOutcome::Closed { current: Incarnation(3) });
    assert_eq!(propose(&mut state, claim(1, 2)), closed);
    let unknown = Outcome::Claim(ClaimOutcome::UnknownShard);
    assert_eq!(propose(&mut state, claim(1, u64::MAX)), unknown);
    assert_eq!(propose(&mut state, claim(9, 1)), unknown);
    // Once it is led it stays what it is.
    note_lead(&mut state, ShardId(1), LogPoint::default());
    let closed = propose(&mut state, claim(1, 5));
    assert!(matches!(closed, Outcome::Claim(ClaimOutcome::Closed { .. })), "{closed:?}");
    // New incarnations are beyond all that the lost catalog can have issued.
    let replaces = Some(Incarnation(3));
    let (shard, replicas, request) = (ShardId(1), vec![ReplicaId(2)], RequestId([77; 16]));
    let open = OpenShardLog { shard, replicas, replaces, request };
    let Outcome::Open(OpenOutcome::Opened { incarnation }) =
        propose(&mut state, Command::OpenShardLog(open))
    else {
        panic!("not opened")
    };
    assert!(incarnation.0 > 1_000);
}

#[test]
fn a_tenant_that_was_removed_does_not_come_back_with_a_merge_that_began_before() {
    let mut world = World::new();
    world.flush(ShardId(0), 5, 0);
    let tenant = TenantId::parse("anvil").unwrap();
    world.backup = Some(world.state.clone());
    world.merge(ShardId(0), 1, 1, Merging::Stops);
    // The backup knows of the removal, the job began before it.
    let job = world.state.jobs().next().unwrap().job;
    let mut base = world.state.clone();
    let remove = RemoveTenant { tenant: tenant.clone(), request: RequestId([9; 16]) };
    propose(&mut base, Command::RemoveTenant(remove));
    assert!(base.deletions().next_back().unwrap().id.0 > job.0);
    world.backup = Some(base);
    let restored = world.restored();
    assert_eq!(restored.state.view(&[]).blocks(&tenant).count(), 0);
}
