//! Sections on disk come back as they were or not at all, within their bytes, whatever the disk does.

use std::path::Path;

use clew_node::clock::ManualTime;

use super::*;

const OBJECT: &str = "compacted/00001/7-00ff.clew";

struct World {
    folder: tempfile::TempDir,
    time: ManualTime,
}

/// A cache in the folder of a world, and what it was opened with.
struct Opened {
    deps: Deps,
    cache: DiskCache,
}

impl World {
    fn new() -> World {
        let time = ManualTime::at(UnixNanos::from_seconds(1));
        World { folder: tempfile::tempdir().unwrap(), time }
    }

    /// As a process that has just started.
    fn open(&self, bytes_max: u64) -> Opened {
        let deps = Deps { clock: self.time.clock(), ..Deps::system(2) };
        let options = DiskCacheOptions {
            folder: self.folder.path().join("cache"),
            bytes_max,
            age_max: Duration::from_secs(3_600),
        };
        let cache = DiskCache::open(options, &deps).unwrap();
        Opened { deps, cache }
    }

    /// The files of sections with their sizes.
    fn files(&self) -> Vec<(std::path::PathBuf, u64)> {
        let mut files = Vec::new();
        for folder in std::fs::read_dir(self.folder.path().join("cache")).unwrap() {
            let folder = folder.unwrap().path();
            if !folder.is_dir() {
                continue;
            }
            for file in std::fs::read_dir(folder).unwrap() {
                let file = file.unwrap();
                match file.metadata() {
                    Ok(known) => files.push((file.path(), known.len())),
                    // Another thread may remove it just now.
                    Err(error) => assert_eq!(error.kind(), io::ErrorKind::NotFound),
                }
            }
        }
        files
    }
}

impl Opened {
    /// Keeps a section and waits until it is written.
    async fn put(&self, range: Range<u64>, bytes: Bytes) {
        self.cache.put(OBJECT, &range, bytes);
        self.deps.tasks.finish().await;
    }

    fn metric(&self, line: &str) -> bool {
        let line = format!("clew_querier_disk_cache_{line}");
        self.deps.metrics.render().unwrap().lines().any(|l| l == line)
    }
}

fn body(length: usize) -> Bytes {
    (0..length).map(|at| u8::try_from(at * 7 % 251).unwrap()).collect()
}

#[tokio::test]
async fn sections_outlive_the_process() {
    let world = World::new();
    let first = world.open(1 << 20);
    assert_eq!(first.cache.get(OBJECT, &(10..15)).await, None);
    first.put(10..15, Bytes::from_static(b"spans")).await;
    assert_eq!(first.cache.get(OBJECT, &(10..15)).await.unwrap(), "spans");
    assert!(first.metric("reads_total{outcome=\"hit\"} 1"));
    assert!(first.metric("reads_total{outcome=\"miss\"} 1"));
    assert!(first.metric("read_bytes_total 5") && first.metric("written_bytes_total 5"));
    drop(first);
    let second = world.open(1 << 20);
    assert!(second.metric("bytes 4096") && second.metric("files 1"));
    assert_eq!(second.cache.get(OBJECT, &(10..15)).await.unwrap(), "spans");
    assert_eq!(second.cache.get(OBJECT, &(10..14)).await, None);
    assert_eq!(second.cache.get("compacted/00001/8-00ff.clew", &(10..15)).await, None);
}

#[tokio::test]
async fn damage_is_a_miss_and_goes() {
    let world = World::new();
    let opened = world.open(1 << 20);
    opened.put(0..5, Bytes::from_static(b"spans")).await;
    let path = world.files()[0].0.clone();
    let mut whole = std::fs::read(&path).unwrap();
    *whole.last_mut().unwrap() ^= 1;
    std::fs::write(&path, whole).unwrap();
    assert_eq!(opened.cache.get(OBJECT, &(0..5)).await, None);
    assert!(opened.metric("reads_total{outcome=\"damaged\"} 1"));
    assert!(!path.exists() && opened.metric("files 0"));
    opened.put(0..5, Bytes::from_static(b"spans")).await;
    assert_eq!(opened.cache.get(OBJECT, &(0..5)).await.unwrap(), "spans");
    // A file that somebody removed.
    std::fs::remove_file(&path).unwrap();
    assert_eq!(opened.cache.get(OBJECT, &(0..5)).await, None);
    assert!(opened.metric("files 0"));
}

#[tokio::test]
async fn the_bound_holds_and_what_is_used_stays() {
    let world = World::new();
    let bytes_max = 16 * 8_192;
    let opened = world.open(bytes_max);
    let range = |at: u64| at * 8_000..(at + 1) * 8_000;
    opened.put(range(0), body(8_000)).await;
    for at in 1..100 {
        for _ in 0..3 {
            assert_eq!(opened.cache.get(OBJECT, &range(0)).await, Some(body(8_000)), "{at}");
        }
        opened.put(range(at), body(8_000)).await;
        let files = world.files();
        let taken: u64 = files.iter().map(|(_, length)| length.div_ceil(4_096) * 4_096).sum();
        assert!(taken <= bytes_max && files.len() <= 16, "{taken} bytes in {} files", files.len());
    }
    assert!(opened.metric("files 16") && opened.metric("bytes 131072"));
    drop(opened);
    // A smaller one afterwards.
    let opened = world.open(bytes_max / 2);
    assert_eq!(world.files().len(), 8);
    assert!(opened.metric("files 8"));
}

#[tokio::test]
async fn a_section_must_leave_room_for_others() {
    let world = World::new();
    let opened = world.open(1 << 20);
    opened.put(0..200_000, body(200_000)).await;
    assert_eq!(world.files(), []);
    assert!(opened.metric("unwritten_total{reason=\"large\"} 1"));
}

/// Stands for a full disk: no file can be made in any folder.
fn refuse_writes(root: &Path) {
    for number in 0..=0xff {
        std::fs::write(root.join(format!("{number:02x}")), b"no folder").unwrap();
    }
}

#[tokio::test]
async fn a_disk_that_takes_nothing_is_left_alone_for_a_while() {
    let world = World::new();
    let opened = world.open(1 << 20);
    refuse_writes(&world.folder.path().join("cache"));
    opened.put(0..5, Bytes::from_static(b"spans")).await;
    assert!(opened.metric("unwritten_total{reason=\"failed\"} 1") && opened.metric("files 0"));
    assert_eq!(opened.cache.get(OBJECT, &(0..5)).await, None);
    assert!(opened.metric("reads_total{outcome=\"paused\"} 1"));
    opened.put(0..5, Bytes::from_static(b"spans")).await;
    assert!(opened.metric("unwritten_total{reason=\"paused\"} 1"));
    for number in 0..=0xff {
        std::fs::remove_file(world.folder.path().join(format!("cache/{number:02x}"))).unwrap();
    }
    world.time.advance(PAUSE);
    opened.put(0..5, Bytes::from_static(b"spans")).await;
    assert_eq!(opened.cache.get(OBJECT, &(0..5)).await.unwrap(), "spans");
}

#[tokio::test]
async fn a_disk_that_hangs_is_not_waited_for() {
    let world = World::new();
    let opened = world.open(1 << 20);
    opened.put(0..5, Bytes::from_static(b"spans")).await;
    // Opening it waits until somebody writes.
    let path = world.files()[0].0.clone();
    std::fs::remove_file(&path).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    let mut read = Box::pin(opened.cache.get(OBJECT, &(0..5)));
    for _ in 0..10 {
        assert!(futures::poll!(&mut read).is_pending());
        tokio::task::yield_now().await;
    }
    world.time.advance(READ_TIME_MAX);
    assert_eq!(read.await, None);
    assert!(opened.metric("reads_total{outcome=\"slow\"} 1"));
    assert_eq!(opened.cache.get(OBJECT, &(0..5)).await, None);
    assert!(opened.metric("reads_total{outcome=\"paused\"} 1"));
    drop(std::fs::File::options().write(true).open(&path).unwrap());
    opened.deps.tasks.finish().await;
    world.time.advance(PAUSE);
    opened.put(0..5, Bytes::from_static(b"spans")).await;
    assert_eq!(opened.cache.get(OBJECT, &(0..5)).await.unwrap(), "spans");
}

#[tokio::test]
async fn old_sections_are_removed() {
    let world = World::new();
    let opened = world.open(1 << 20);
    opened.put(0..5, Bytes::from_static(b"spans")).await;
    world.time.advance(Duration::from_secs(3_000));
    opened.put(5..10, Bytes::from_static(b"newer")).await;
    world.time.advance(Duration::from_secs(601));
    assert_eq!(opened.cache.get(OBJECT, &(0..5)).await, None);
    assert_eq!(opened.cache.get(OBJECT, &(5..10)).await.unwrap(), "newer");
    let stop = Stop::new();
    let mut upkeep = {
        let (cache, stop) = (opened.cache.clone(), stop.clone());
        Box::pin(async move { cache.run(stop).await })
    };
    assert!(futures::poll!(&mut upkeep).is_pending());
    assert_eq!(world.files().len(), 2);
    world.time.advance(UPKEEP_INTERVAL);
    while world.files().len() > 1 {
        assert!(futures::poll!(&mut upkeep).is_pending());
        tokio::task::yield_now().await;
    }
    stop.stop();
    upkeep.await;
    drop(opened);
    // The files say when they were written, which is decades after this clock's time.
    let later = World { time: ManualTime::at(UnixNanos(u64::MAX)), ..world };
    later.open(1 << 20);
    assert_eq!(later.files(), []);
}

#[tokio::test]
async fn what_waits_to_be_written_is_bounded() {
    let world = World::new();
    let opened = world.open(1 << 40);
    // Nothing is written meanwhile, as this test has one thread and does not wait.
    let section = body(1 << 20);
    for at in 0..40_u64 {
        opened.cache.put(OBJECT, &(at << 20..(at + 1) << 20), section.clone());
    }
    assert!(opened.metric("unwritten_total{reason=\"busy\"} 7"));
    opened.deps.tasks.finish().await;
    assert_eq!(world.files().len(), 33);
}
