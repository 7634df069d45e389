//! The conformance suite against the buckets that need nothing beside this machine.
#![cfg(feature = "test-support")]
#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use clew_node::Deps;
use clew_storage::simulated::SimulatedStore;
use clew_storage::{Bucket, BucketConfig, conformance};

#[tokio::test]
async fn memory() {
    let deps = Deps::system(2);
    conformance::check(&Bucket::memory(&deps)).await;
    conformance::check(&Bucket::open(&BucketConfig::default(), &deps).unwrap()).await;
}

#[tokio::test]
async fn a_simulation() {
    let deps = Deps::system(1);
    conformance::check(&Bucket::simulated(&SimulatedStore::default(), "test", &deps)).await;
}

#[tokio::test]
async fn local_disk() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bucket");
    for url in [path.display().to_string(), format!("file://{}", path.display())] {
        let bucket = Bucket::open(&BucketConfig::at(url), &Deps::system(2)).unwrap();
        conformance::check(&bucket).await;
    }
}

#[tokio::test]
async fn requests_can_move_between_threads() {
    let deps = Deps::system(1);
    let bucket = Bucket::memory(&deps);
    let task = deps.tasks.run(async move {
        bucket.put_new("a", "abc".into()).await?;
        bucket.get_tail("a", 1).await?;
        bucket.get_ranges("a", &[0..1, 2..3]).await
    });
    assert_eq!(task.await.unwrap().unwrap(), ["a", "c"]);
}
