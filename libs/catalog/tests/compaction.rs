//! The laws of compaction, retention and deletion under arbitrary interleavings: what is live at any
//! moment holds everything that was flushed and not dropped, once.
#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use clew_catalog::*;
use clew_model::{TenantId, TraceId, UnixNanos};
use proptest::prelude::*;

const TENANTS: [&str; 3] = ["anvil", "bellows", "crucible"];
const SECOND: u64 = 1_000_000_000;

fn tenant(at: usize) -> TenantId {
    TenantId::parse(TENANTS[at % TENANTS.len()]).unwrap()
}

fn options() -> CompactionOptions {
    CompactionOptions {
        fan_in: 3,
        input_bytes_max: 10_000,
        levels: 2,
        window: Duration::from_secs(60),
        settle: Duration::from_secs(5),
        own_object_bytes: 5_000,
        retention: Retention { age: Some(Duration::from_secs(400)), bytes: None },
        deletion_delay: Duration::from_secs(10),
        grace: Duration::from_secs(20),
        horizon: Duration::from_secs(60),
    }
}

/// What one flush brought of one tenant: the smallest thing that can be lost or doubled.
type Piece = (u64, TenantId);

/// The catalog, and what is really in each object.
struct World {
    /// When spans began and ended, if not just before they came.
    spans_at: Option<u64>,
    state: State,
    time: u64,
    flushes: u64,
    contents: BTreeMap<ObjectKey, BTreeSet<Piece>>,
    jobs: Vec<JobSpec>,
    /// What must be live.
    expected: BTreeSet<Piece>,
    called_dead: BTreeSet<ObjectKey>,
}

fn opened() -> State {
    let mut state = State::new();
    let node = NodeId::parse("node-0").unwrap();
    let commands = [
        Command::CreateCluster(CreateCluster { cluster: ClusterId([0; 16]), shard_count: 2 }),
        Command::RegisterNode(RegisterNode {
            node: node.clone(),
            addr: "127.0.0.1:9095".to_owned(),
            zone: String::new(),
            capacity: 1,
            roles: Roles::ALL,
            features: FeatureRange::default(),
        }),
        Command::IssueReplicaId(IssueReplicaId { disk: DiskId([0; 16]), node, holds: None }),
        open(0),
        open(1),
    ];
    for (command, index) in commands.iter().zip(1..) {
        state.apply(index, &command.encode(UnixNanos(index)));
    }
    state
}

fn open(shard: u32) -> Command {
    Command::OpenShardLog(OpenShardLog {
        shard: ShardId(shard),
        replicas: vec![ReplicaId(1)],
        replaces: None,
        request: RequestId([u8::try_from(shard).unwrap() + 1; 16]),
    })
}

impl World {
    fn new() -> World {
        World {
            state: opened(),
            time: 1_000 * SECOND,
            spans_at: None,
            flushes: 0,
            contents: BTreeMap::new(),
            jobs: Vec::new(),
            expected: BTreeSet::new(),
            called_dead: BTreeSet::new(),
        }
    }

    fn apply<R: Request>(&mut self, request: R) -> R::Answer {
        let index = self.state.revision() + 1;
        let bytes = request.into_command().encode(UnixNanos(self.time));
        let before = self.state.encode();
        let outcome = self.state.apply(index, &bytes);
        let mut restored = State::decode(&before).unwrap();
        assert_eq!(restored.apply(index, &bytes), outcome);
        assert_eq!(restored.encode(), self.state.encode(), "a snapshot goes on alike");
        R::answer(outcome).unwrap()
    }

    fn flush(&mut self, shard: u32, members: u8) {
        let shard = ShardId(shard % 2);
        let log = self.state.shard_log(shard).unwrap();
        let (from, incarnation) = (log.watermark.index, log.incarnation);
        self.flushes += 1;
        let number = self.flushes;
        let key = ObjectKey::flush(shard, incarnation, from + 1, number);
        let whose = (0..TENANTS.len()).filter(|at| members & (1 << at) != 0);
        let pieces: BTreeSet<Piece> = whose.map(|at| (number, tenant(at))).collect();
        let object = self.object(key, from, 0, &pieces);
        assert_eq!(self.apply(CommitFlush { object }), FlushOutcome::Applied);
        self.expected.extend(pieces.iter().cloned());
        self.contents.insert(key, pieces);
    }

    fn object(
        &self,
        key: ObjectKey,
        from: u64,
        level: u32,
        pieces: &BTreeSet<Piece>,
    ) -> ObjectMeta {
        let whose: BTreeSet<&TenantId> = pieces.iter().map(|(_, tenant)| tenant).collect();
        let block = |(at, tenant): (u64, &TenantId)| TenantBlock {
            tenant: tenant.clone(),
            offset: at * 100,
            length: 100,
            footer_length: 10,
            min_time: UnixNanos(self.spans_at.unwrap_or(self.time - SECOND)),
            max_time: UnixNanos(self.spans_at.unwrap_or(self.time)),
            spans: pieces.iter().filter(|(_, other)| other == tenant).count() as u64,
            traces: 1,
            splits: 0,
            ids: None,
        };
        let tenants: Vec<TenantBlock> = (0..).zip(whose).map(block).collect();
        ObjectMeta {
            key,
            size: 100 * tenants.len().max(1) as u64,
            from,
            through: LogPoint { term: 1, leader: 1, index: from + 1 },
            level,
            created_at: UnixNanos(0),
            data_at: UnixNanos(0),
            revision: 0,
            tenants,
        }
    }

    fn begin(&mut self, request: u8) {
        let now = UnixNanos(self.time);
        let Some(PlannedJob { inputs, level }) = self.state.plan_job(&options(), now) else {
            return;
        };
        let begin = BeginJob {
            inputs,
            level,
            worker: "w".to_owned(),
            request: RequestId([request; 16]),
            expires_at: UnixNanos(self.time + 30 * SECOND),
        };
        if let JobOutcome::Begun { job } = self.apply(begin) {
            let spec = self.state.job_spec(job, &options()).unwrap();
            assert_eq!(JobSpec::decode(&spec.encode()).unwrap(), spec);
            // A repeated request gives the job that runs.
            if self.jobs.iter().all(|known| known.job != job) {
                self.jobs.push(spec);
            }
        }
    }

    /// What an honest worker registers, though it may come too late.
    fn commit(&mut self, which: usize) {
        if self.jobs.is_empty() {
            return;
        }
        let spec = self.jobs.remove(which % self.jobs.len());
        let pieces: BTreeSet<Piece> = spec
            .inputs
            .iter()
            .flat_map(|input| {
                let held = self.contents[&input.key].iter();
                held.filter(|(_, tenant)| input.block(tenant).is_some()).cloned()
            })
            .collect();
        let key = ObjectKey::compacted(spec.shard, spec.job, self.time);
        let outputs = match pieces.is_empty() {
            true => vec![],
            false => vec![self.object(key, 0, spec.level, &pieces)],
        };
        self.contents.insert(key, pieces);
        let commit = CommitJob { job: spec.job, outputs, kept: vec![], removed: vec![] };
        let live = spec.inputs.iter().all(|input| self.state.object(&input.key).is_some());
        let runs = self.state.jobs().any(|job| job.job == spec.job);
        let outcome = self.apply(commit.clone());
        assert_eq!(outcome == JobOutcome::Committed, live && runs);
        assert_eq!(self.apply(commit), outcome, "a repeated commit says the same");
    }

    fn abandon(&mut self, which: usize) {
        if self.jobs.is_empty() {
            return;
        }
        let spec = self.jobs.remove(which % self.jobs.len());
        self.apply(AbandonJob { job: spec.job, strikes: vec![] });
    }

    fn drop_expired(&mut self) {
        let now = UnixNanos(self.time);
        let Some(drops) = self.state.plan_drops(&options(), now) else { return };
        for key in &drops.objects {
            let object = self.state.object(key).unwrap();
            assert!(object.data_at.0 + 400 * SECOND <= self.time);
            let pieces = &self.contents[key];
            self.expected.retain(|piece| !pieces.contains(piece));
        }
        for (key, tenant) in &drops.blocks {
            let pieces = &self.contents[key];
            self.expected.retain(|piece| piece.1 != *tenant || !pieces.contains(piece));
        }
        self.apply(drops);
        assert_eq!(self.state.plan_drops(&options(), now), None);
    }

    fn remove_tenant(&mut self, whose: usize, request: u8) {
        let tenant = tenant(whose);
        let known = self.state.deletions().any(|d| d.request == RequestId([request; 16]));
        self.apply(RemoveTenant { tenant: tenant.clone(), request: RequestId([request; 16]) });
        if !known {
            self.expected.retain(|piece| piece.1 != tenant);
        }
    }

    fn collect_garbage(&mut self) {
        let objects = self.state.garbage(options().grace, UnixNanos(self.time), 100);
        for key in &objects {
            assert!(self.state.object(key).is_none(), "a live object is never garbage");
        }
        self.apply(ConfirmDeleted { objects });
        let dead = self.contents.keys().filter(|key| self.state.liveness(key) == Liveness::Dead);
        self.called_dead.extend(dead.copied());
    }

    fn check(&self) {
        assert_eq!(self.state.view(&[]).unsound(), []);
        let mut live = BTreeSet::new();
        for object in self.state.objects() {
            for piece in &self.contents[&object.key] {
                if object.block(&piece.1).is_some() {
                    assert!(live.insert(piece.clone()), "{piece:?} is read twice");
                }
            }
            assert!(!self.called_dead.contains(&object.key), "what was called dead lives");
        }
        assert_eq!(live, self.expected);
        let mut held = BTreeSet::new();
        for job in self.state.jobs() {
            assert!(job.inputs.iter().all(|key| held.insert(*key)), "two jobs hold an object");
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Flush(u32, u8),
    Begin(u8),
    Commit(usize),
    Abandon(usize),
    Drop,
    Remove(usize, u8),
    Collect,
    Wait(u64),
    Silent,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..2u32, 1..8u8).prop_map(|(shard, members)| Step::Flush(shard, members)),
        6 => (0..255u8).prop_map(Step::Begin),
        4 => (0..4usize).prop_map(Step::Commit),
        1 => (0..4usize).prop_map(Step::Abandon),
        1 => Just(Step::Drop),
        1 => (0..3usize, 0..255u8).prop_map(|(whose, request)| Step::Remove(whose, request)),
        2 => Just(Step::Collect),
        4 => (1..60u64).prop_map(Step::Wait),
        1 => Just(Step::Silent),
    ]
}

proptest! {
    #[test]
    fn nothing_is_lost_or_doubled(steps in prop::collection::vec(any_step(), 0..80)) {
        let mut world = World::new();
        let mut view = world.state.view(&[]);
        let mut own = world.state.view(&[tenant(1)]);
        for step in steps {
            match step {
                Step::Flush(shard, members) => world.flush(shard, members),
                Step::Begin(request) => world.begin(request),
                Step::Commit(which) => world.commit(which),
                Step::Abandon(which) => world.abandon(which),
                Step::Drop => world.drop_expired(),
                Step::Remove(whose, request) => world.remove_tenant(whose, request),
                Step::Collect => world.collect_garbage(),
                Step::Wait(seconds) => world.time += seconds * SECOND,
                Step::Silent => {
                    for job in world.state.silent_jobs(UnixNanos(world.time)) {
                        world.apply(AbandonJob { job, strikes: vec![] });
                    }
                }
            }
            world.check();
            for (followed, scope) in [(&mut view, vec![]), (&mut own, vec![tenant(1)])] {
                let changes = world.state.changes_since(followed.revision).unwrap();
                let changes = decode_changes(&encode_changes(&changes)).unwrap();
                followed.advance(world.state.revision(), &changes);
                let fresh = world.state.view(&scope);
                let blocks = |view: &View| -> Vec<_> {
                    view.tenants()
                        .flat_map(|t| view.blocks(t).map(|(o, b)| (o.key, o.revision, b.clone())))
                        .collect()
                };
                prop_assert_eq!(blocks(followed), blocks(&fresh));
                let deletions =
                    |view: &View| view.deletions().map(|deletion| deletion.id).collect::<Vec<_>>();
                prop_assert_eq!(deletions(followed), deletions(&fresh));
            }
        }
    }
}

/// A world with so many flushes of all tenants.
fn flushed(count: u64) -> World {
    let mut world = World::new();
    for _ in 0..count {
        world.flush(0, 7);
        world.time += SECOND;
    }
    world
}

#[test]
fn a_day_ends_up_in_few_objects() {
    let mut world = World::new();
    for _ in 0..200 {
        world.flush(0, 7);
        world.time += SECOND;
        while world.state.plan_job(&options(), UnixNanos(world.time)).is_some() {
            world.begin(u8::try_from(world.time % 251).unwrap());
            world.commit(0);
            world.check();
        }
    }
    world.time += 120 * SECOND;
    for request in 0..50 {
        world.begin(request);
        world.commit(0);
    }
    // Four windows of a minute, each merged to the second level.
    assert!(world.state.objects().len() <= 40, "{} objects", world.state.objects().len());
    assert_eq!(world.state.plan_job(&options(), UnixNanos(world.time)), None);
    world.check();
}

#[test]
fn what_is_larger_than_its_share_of_a_job_is_not_merged_again() {
    let mut world = flushed(9);
    for request in 0..3 {
        world.begin(request);
        world.commit(0);
    }
    let now = UnixNanos(world.time);
    assert_eq!(world.state.plan_job(&options(), now).unwrap().level, 2);
    // Each of the three has 300 bytes.
    let tight = CompactionOptions { input_bytes_max: 3 * 299, ..options() };
    assert_eq!(world.state.plan_job(&tight, now), None);
}

#[test]
fn a_job_whose_lease_ended_is_fenced_off() {
    let mut world = flushed(3);
    world.begin(1);
    let first = world.jobs[0].clone();
    world.time += 31 * SECOND;
    world.begin(2);
    assert_eq!(world.jobs.len(), 2);
    assert_ne!(world.jobs[1].job, first.job);
    let late = CommitJob { job: first.job, outputs: vec![], kept: vec![], removed: vec![] };
    assert_eq!(world.apply(late), JobOutcome::Superseded);
    let orphan = ObjectKey::compacted(first.shard, first.job, 7);
    assert_eq!(world.state.liveness(&orphan), Liveness::Dead);
    let awaited = ObjectKey::compacted(first.shard, world.jobs[1].job, 7);
    assert_eq!(world.state.liveness(&awaited), Liveness::MayRegister);
    world.commit(1);
    world.check();
}

#[test]
fn a_poisonous_object_is_left_alone() {
    let mut world = flushed(3);
    let poison = world.state.objects().next().unwrap().key;
    for request in 0..3 {
        world.begin(request);
        let spec = world.jobs.pop().unwrap();
        assert!(spec.inputs.iter().any(|input| input.key == poison));
        let reason = "checksum mismatch".to_owned();
        let strike = Striking { object: poison, count: STRIKES_OF_FAILURE, reason };
        let abandon = AbandonJob { job: spec.job, strikes: vec![strike] };
        assert_eq!(world.apply(abandon), JobOutcome::Abandoned);
    }
    world.begin(9);
    assert!(world.jobs.is_empty(), "too few are left to merge");
    let (key, strikes) = world.state.strikes().next().unwrap();
    assert_eq!((*key, strikes.is_parked()), (poison, true));
    world.flush(0, 7);
    world.begin(10);
    assert!(world.jobs[0].inputs.iter().all(|input| input.key != poison));
    world.check();
    // Somebody has restored it: it is merged again, and a failure counts from the beginning.
    world.apply(RaiseFeatureLevel { to: FeatureLevel::LEVELS_ARE_KEPT });
    let unpark = Unpark { objects: vec![poison] };
    assert_eq!(world.apply(unpark.clone()), 1);
    assert_eq!(world.state.strikes().count(), 0);
    assert_eq!(world.apply(unpark), 0, "once is enough");
    let job = world.jobs.remove(0);
    world.apply(AbandonJob { job: job.job, strikes: vec![] });
    world.begin(11);
    assert!(world.jobs[0].inputs.iter().any(|input| input.key == poison));
    world.check();
}

#[test]
fn deleted_traces_are_gone_at_once_and_later_from_the_bucket() {
    let mut world = flushed(3);
    let (a, b) = (TraceId([1; 16]), TraceId([2; 16]));
    let delete = DeleteTraces {
        tenant: tenant(0),
        ids: vec![b, a, b],
        query: "{ }".to_owned(),
        request: RequestId([9; 16]),
    };
    let DeletionOutcome::Accepted { deletion } = world.apply(delete.clone());
    assert_eq!(world.apply(delete), DeletionOutcome::Accepted { deletion });
    let view = world.state.view(&[tenant(0)]);
    let view = View::decode(&view.encode()).unwrap();
    for (object, _) in view.blocks(&tenant(0)) {
        assert_eq!(view.deleted(&tenant(0), object.revision), [a, b]);
    }
    assert_eq!(view.deleted(&tenant(1), 0), []);
    // A flush that is registered later brings new spans of the same trace.
    world.flush(0, 1);
    let later = world.state.objects().last().unwrap().revision;
    assert_eq!(world.state.view(&[]).deleted(&tenant(0), later), []);
    world.time += 11 * SECOND;
    world.begin(1);
    let spec = world.jobs[0].clone();
    assert_eq!(spec.deletions.len(), 1);
    let kept = spec.inputs[0].key;
    let outputs = {
        let rest = &spec.inputs[1..];
        let pieces = rest.iter().flat_map(|i| world.contents[&i.key].clone()).collect();
        let key = ObjectKey::compacted(spec.shard, spec.job, 1);
        let object = world.object(key, 0, 1, &pieces);
        world.contents.insert(key, pieces);
        vec![object]
    };
    let removed = vec![Removed { deletion, traces: 2, spans: 5 }];
    let commit = CommitJob { job: spec.job, outputs, kept: vec![kept], removed };
    assert_eq!(world.apply(commit), JobOutcome::Committed);
    world.check();
    let record = |world: &World| world.state.deletions().next().unwrap().clone();
    assert_eq!(record(&world).done_at, None, "the bytes are still there");
    world.time += 60 * SECOND;
    world.collect_garbage();
    let record = record(&world);
    assert_eq!((record.traces, record.spans, record.named), (2, 5, 2));
    assert_eq!(record.done_at, Some(UnixNanos(world.time)));
    assert!(record.ids().is_empty());
    assert!(world.state.view(&[]).deletions().next().is_none());
}

#[test]
fn a_tenant_removed_during_a_job_does_not_come_back() {
    let mut world = flushed(3);
    world.begin(1);
    world.remove_tenant(1, 7);
    world.commit(0);
    world.check();
    let removed = tenant(1);
    assert!(world.state.view(std::slice::from_ref(&removed)).blocks(&removed).next().is_none());
}

#[test]
fn tenants_keep_their_spans_as_long_as_they_want() {
    let mut world = flushed(2);
    let settings = TenantSettings { age: Some(Duration::ZERO), bytes: None };
    world.apply(SetTenant { tenant: tenant(0), settings });
    let settings = TenantSettings { age: None, bytes: Some(100) };
    world.apply(SetTenant { tenant: tenant(1), settings });
    let drops = world.state.plan_drops(&options(), UnixNanos(world.time)).unwrap();
    assert!(drops.objects.is_empty());
    let first = world.state.objects().next().unwrap().key;
    assert_eq!(drops.blocks, [(first, tenant(1))], "the oldest goes first");
    world.time += 500 * SECOND;
    let drops = world.state.plan_drops(&options(), UnixNanos(world.time)).unwrap();
    assert!(drops.blocks.iter().all(|(_, whose)| *whose != tenant(0)));
    assert_eq!(drops.blocks.len(), 4);
    world.drop_expired();
    world.check();
    assert!(world.state.objects().all(|object| object.dead_bytes() > 0));
    world.begin(1);
    assert_eq!(world.jobs[0].inputs.len(), 2, "dead bytes are a reason to write anew");
}

#[test]
fn age_counts_from_arrival_whatever_the_times_of_the_spans() {
    for time in [0, u64::MAX] {
        let mut world = World { spans_at: Some(time), ..World::new() };
        world.flush(0, 7);
        world.time += 300 * SECOND;
        world.drop_expired();
        assert_eq!(world.state.objects().len(), 1);
        world.time += 200 * SECOND;
        world.drop_expired();
        assert_eq!(world.state.objects().len(), 0);
    }
}
