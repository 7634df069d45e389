//! What every bucket must do, whatever is below it: run [`check`] against each provider.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test suite: it fails by panicking")]

use bytes::Bytes;
use clew_model::ErrorKind;
use futures::TryStreamExt;

use crate::bucket::{Bucket, Put, Tail};

/// Checks an empty bucket and leaves it empty.
///
/// # Panics
/// When the bucket does not behave.
pub async fn check(bucket: &Bucket) {
    writes_once(bucket).await;
    reads_exactly(bucket).await;
    lists_by_whole_parts(bucket).await;
    deletes_once_and_again(bucket).await;
    refuses_what_no_store_could_keep(bucket).await;
    assert_eq!(keys(bucket, "").await, Vec::<String>::new(), "the suite leaves nothing");
}

/// Bytes that differ at every place that tests cut at.
fn pattern(length: usize) -> Bytes {
    (0..length).map(|at| u8::try_from(at * 7 % 251).unwrap()).collect()
}

async fn keys(bucket: &Bucket, prefix: &str) -> Vec<String> {
    let listed: Vec<_> = bucket.list(prefix).try_collect().await.unwrap();
    let mut keys: Vec<String> = listed.into_iter().map(|object| object.key).collect();
    keys.sort();
    keys
}

async fn writes_once(bucket: &Bucket) {
    let (key, body) = ("write/once.clew", pattern(70_000));
    assert_eq!(bucket.put_new(key, body.clone()).await.unwrap(), Put::Created);
    assert_eq!(bucket.put_new(key, body.clone()).await.unwrap(), Put::AlreadyExists);
    let mut other = body.to_vec();
    other[69_999] ^= 1;
    for other in [Bytes::from(other), body.slice(1..), Bytes::from_static(b"x")] {
        let error = bucket.put_new(key, other).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    }
    assert_eq!(bucket.get_range(key, 0..70_000).await.unwrap(), body, "the first one stays");
    bucket.delete(key).await.unwrap();
}

async fn reads_exactly(bucket: &Bucket) {
    let (key, size) = ("read/exactly.clew", 300_000_u64);
    let body = pattern(300_000);
    bucket.put_new(key, body.clone()).await.unwrap();
    assert_eq!(bucket.head(key).await.unwrap(), size);
    for range in [0..1, 0..size, 17..4_711, size - 1..size, 5..5, size..size] {
        let cut = |at: u64| usize::try_from(at).unwrap();
        let expected = body.slice(cut(range.start)..cut(range.end));
        assert_eq!(bucket.get_range(key, range).await.unwrap(), expected);
    }
    for range in [0..size + 1, size..size + 1, size + 5..size + 9] {
        let error = bucket.get_range(key, range).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    }
    for length in [1, 100, size, size + 1] {
        let start = usize::try_from(size.saturating_sub(length)).unwrap();
        let expected = Tail { bytes: body.slice(start..), object_size: size };
        assert_eq!(bucket.get_tail(key, length).await.unwrap(), expected);
    }
    let ranges = [290_000..size, 0..10, 5..25, 7..7, 140_000..140_001];
    let read = bucket.get_ranges(key, &ranges).await.unwrap();
    let expected = [290_000..300_000, 0..10, 5..25, 7..7, 140_000..140_001];
    assert_eq!(read, expected.map(|range| body.slice(range)));
    assert_eq!(bucket.get_ranges(key, &[]).await.unwrap(), Vec::<Bytes>::new());
    let past = bucket.get_ranges(key, &[0..1, 5..size + 1]).await.unwrap_err();
    assert_eq!(past.kind(), ErrorKind::Corrupt, "{past}");
    bucket.delete(key).await.unwrap();
    for error in [
        bucket.head(key).await.unwrap_err(),
        bucket.get_range(key, 0..1).await.unwrap_err(),
        bucket.get_tail(key, 1).await.unwrap_err(),
        bucket.get_ranges(key, std::slice::from_ref(&(0..1))).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    }
}

async fn lists_by_whole_parts(bucket: &Bucket) {
    let all = ["list/a/1.clew", "list/a/2.clew", "list/ab/1.clew", "other.clew"];
    for key in all {
        bucket.put_new(key, pattern(key.len())).await.unwrap();
    }
    assert_eq!(keys(bucket, "").await, all);
    assert_eq!(keys(bucket, "list").await, all[..3]);
    assert_eq!(keys(bucket, "list/a").await, all[..2]);
    assert_eq!(keys(bucket, "list/a/").await, all[..2]);
    assert_eq!(keys(bucket, "nothing").await, Vec::<String>::new());
    let listed: Vec<_> = bucket.list("list/ab").try_collect().await.unwrap();
    assert_eq!(listed[0].size, all[2].len() as u64);
    for key in all {
        bucket.delete(key).await.unwrap();
    }
}

async fn deletes_once_and_again(bucket: &Bucket) {
    bucket.delete("delete/never.clew").await.unwrap();
    bucket.put_new("delete/me.clew", pattern(3)).await.unwrap();
    bucket.delete("delete/me.clew").await.unwrap();
    bucket.delete("delete/me.clew").await.unwrap();
}

async fn refuses_what_no_store_could_keep(bucket: &Bucket) {
    let invalid = |kind| assert_eq!(kind, ErrorKind::Invalid);
    invalid(bucket.put_new("empty.clew", Bytes::new()).await.unwrap_err().kind());
    for key in ["", "../escape", "a//b", ".staging/x", "a b"] {
        invalid(bucket.put_new(key, pattern(1)).await.unwrap_err().kind());
        invalid(bucket.get_range(key, 0..1).await.unwrap_err().kind());
        invalid(bucket.get_tail(key, 1).await.unwrap_err().kind());
        invalid(bucket.head(key).await.unwrap_err().kind());
        invalid(bucket.delete(key).await.unwrap_err().kind());
    }
    let listed: Result<Vec<_>, _> = bucket.list("../escape").try_collect().await;
    invalid(listed.unwrap_err().kind());
    invalid(bucket.get_range("a", 0..u64::MAX).await.unwrap_err().kind());
    invalid(bucket.get_tail("a", 0).await.unwrap_err().kind());
    let backwards = std::ops::Range { start: 2, end: 1 };
    invalid(bucket.get_range("a", backwards).await.unwrap_err().kind());
}
