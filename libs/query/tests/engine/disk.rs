//! What a reader finds on local disk of what it, or the process before it, had read of the bucket.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clew_block::SpanTable;
use clew_model::{Trace, TraceId};
use clew_node::Deps;
use clew_proto::query::v1::FetchRequest;
use clew_query::{
    BlockCache, BlockReader, BlockRef, DiskCache, DiskCacheOptions, Engine, QueryLimits,
    SpanSource, encode_ids,
};
use clew_storage::faults::{Fault, FaultPlan};
use clew_storage::{Bucket, Operation};

use super::failures::{ids, plan, table};
use super::world::put_block;

struct World {
    folder: tempfile::TempDir,
    deps: Deps,
    faults: FaultPlan,
    bucket: Bucket,
    block: BlockRef,
}

/// What a process answered, and what it read of the bucket for it.
#[derive(Debug, PartialEq, Eq)]
struct Answers {
    found: Vec<u8>,
    traces: usize,
    reads: u64,
}

impl World {
    async fn with(table: &SpanTable) -> World {
        let deps = Deps::system(2);
        let faults = FaultPlan::new();
        let bucket = Bucket::memory(&deps).with_faults(&faults, &deps.clock);
        let block = put_block(&bucket, "block", table).await;
        World { folder: tempfile::tempdir().unwrap(), deps, faults, bucket, block }
    }

    /// A source as in a process that has just started.
    fn start(&self) -> Arc<dyn SpanSource> {
        let options = DiskCacheOptions {
            folder: self.folder.path().to_owned(),
            bytes_max: 1 << 20,
            age_max: Duration::from_secs(3_600),
        };
        let deps = Deps { tasks: self.deps.tasks.clone(), ..Deps::system(2) };
        let disk = DiskCache::open(options, &deps).unwrap();
        let cache = BlockCache::new(1 << 20);
        let reader = BlockReader::new(self.bucket.clone(), cache, deps.tasks);
        Arc::new(reader.with_disk_cache(Some(disk)).source(self.block.clone()))
    }

    /// A search and a trace by id in a new process, which then ends.
    async fn answers(&self) -> Answers {
        let engine = Engine::new(self.deps.tasks.clone(), QueryLimits::default());
        let sources = [self.start()];
        let found = engine.search(&sources, &plan("{ name != `` }", 5)).await.unwrap();
        assert!(found.failed.is_empty(), "{:?}", found.failed);
        let wanted = FetchRequest {
            trace_ids: encode_ids(&[TraceId([7; 16])]).into(),
            ..FetchRequest::default()
        };
        let fetched = engine.fetch(&sources, &wanted).await.unwrap();
        assert!(fetched.failed.is_empty(), "{:?}", fetched.failed);
        self.deps.tasks.finish().await;
        Answers {
            found: ids(&found.response),
            traces: Trace::decode(&fetched.response.traces).unwrap().len(),
            reads: sources[0].reads(),
        }
    }
}

fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(std::fs::read_dir(path).unwrap().map(|file| file.unwrap().path()));
        }
    }
    files
}

#[tokio::test]
async fn a_new_process_reads_nothing_again() {
    let world = World::with(&table(1..120, false)).await;
    let first = world.answers().await;
    assert_eq!(first.found, [119, 118, 117, 116, 115]);
    assert_eq!(first.traces, 1);
    assert!(first.reads > 0, "{first:?}");
    let second = world.answers().await;
    assert_eq!(second, Answers { reads: 0, ..first });
}

#[tokio::test]
async fn damage_of_the_disk_costs_reads_and_changes_no_answer() {
    let world = World::with(&table(1..120, false)).await;
    let first = world.answers().await;
    for file in files(world.folder.path()) {
        let mut bytes = std::fs::read(&file).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 0x55;
        std::fs::write(&file, bytes).unwrap();
    }
    assert_eq!(world.answers().await, first);
    assert_eq!(world.answers().await, Answers { reads: 0, ..first });
}

#[tokio::test]
async fn damage_of_the_bucket_does_not_live_on() {
    // The tail is read first, then the trace table, then all parts of the index together.
    for sound in 0..3 {
        let world = World::with(&table(1..120, false)).await;
        for _ in 0..sound {
            world.faults.inject(Operation::Get, Fault::Stall(Duration::ZERO));
        }
        world.faults.inject(Operation::Get, Fault::Garble);
        let engine = Engine::new(world.deps.tasks.clone(), QueryLimits::default());
        let sources = [world.start()];
        let found = engine.search(&sources, &plan("{ name != `` }", 5)).await.unwrap();
        // It is read again at once.
        assert!(found.failed.is_empty(), "{sound}: {:?}", found.failed);
        assert_eq!(found.response.traces.len(), 5);
        assert_eq!(world.faults.pending(), 0);
        world.deps.tasks.finish().await;
        drop(sources);
        assert_eq!(world.answers().await.found, [119, 118, 117, 116, 115]);
    }
}
