//! What an S3 is told about encryption: requests of a bucket as a server receives them.
#![allow(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use std::collections::BTreeMap;
use std::sync::Arc;

use clew_node::Deps;
use clew_node::config::Span;
use clew_storage::{Bucket, BucketConfig, Encryption};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The headers of encryption of a request, and what they all begin with.
const PREFIX: &str = "x-amz-server-side-encryption";

/// 32 bytes of the letter k.
const KEY: &str = "a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s=";

/// The MD5 of those bytes.
const KEY_MD5: &str = "mT2HRsMGJ5IX5C+0rreZ8Q==";

type Headers = BTreeMap<String, String>;

/// Requests with the method they began with and their headers of encryption.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<(String, Headers)>>>);

/// Answers every PUT with success, every HEAD with a size and every other request with five bytes.
async fn serve(listener: TcpListener, seen: Seen) {
    while let Ok((stream, _)) = listener.accept().await {
        answer(stream, &seen).await;
    }
}

async fn answer(mut stream: TcpStream, seen: &Seen) {
    let mut request = Vec::new();
    let mut part = [0; 4_096];
    let head = loop {
        let length = stream.read(&mut part).await.unwrap();
        request.extend_from_slice(&part[..length]);
        let text = String::from_utf8_lossy(&request).into_owned();
        let end = text.find("\r\n\r\n");
        // The body is five bytes too.
        let whole = end.is_some_and(|end| !text.starts_with("PUT") || text.len() >= end + 4 + 5);
        if whole || length == 0 {
            break text;
        }
    };
    let method = head.split(' ').next().unwrap_or_default().to_owned();
    let headers = head.lines().filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_lowercase(), value.to_owned()));
    let headers = headers.filter(|(name, _)| name.starts_with(PREFIX));
    seen.0.lock().push((method.clone(), headers.collect()));
    let body = match method.as_str() {
        "PUT" => "Content-Length: 0\r\n\r\n",
        "HEAD" => "Content-Length: 5\r\n\r\n",
        _ => "Content-Range: bytes 0-4/5\r\nContent-Length: 5\r\n\r\nspans",
    };
    let status = if method == "GET" { "206 Partial Content" } else { "200 OK" };
    let more = "ETag: \"1\"\r\nLast-Modified: Wed, 01 Jan 2025 00:00:00 GMT\r\nConnection: close";
    let answer = format!("HTTP/1.1 {status}\r\n{more}\r\n{body}");
    stream.write_all(answer.as_bytes()).await.unwrap();
}

/// The headers of a write and of a read.
async fn headers_of(change: impl FnOnce(&mut BucketConfig)) -> [Headers; 2] {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = BucketConfig {
        endpoint: format!("http://{}", listener.local_addr().unwrap()),
        region: "eu-central-1".to_owned(),
        access_key_id: "id".to_owned(),
        secret_access_key: "secret".to_owned().into(),
        // However slow this machine is, one request each.
        hedge_after: Span::seconds(0),
        ..BucketConfig::at("s3://traces")
    };
    change(&mut config);
    let (deps, seen) = (Deps::system(1), Seen::default());
    deps.tasks.spawn(serve(listener, seen.clone()));
    let bucket = Bucket::open(&config, &deps).unwrap();
    bucket.put_new("a", "spans".into()).await.unwrap();
    assert_eq!(bucket.get_range("a", 0..5).await.unwrap(), "spans");
    let seen = std::mem::take(&mut *seen.0.lock());
    let methods: Vec<&str> = seen.iter().map(|(method, _)| method.as_str()).collect();
    assert_eq!(methods, ["PUT", "HEAD", "GET"]);
    let [(_, put), (_, head), (_, get)] = <[_; 3]>::try_from(seen).unwrap();
    assert_eq!(head, get, "both need what it takes to read");
    [put, get]
}

fn headers<const N: usize>(expected: [(&str, &str); N]) -> Headers {
    expected.iter().map(|(name, value)| (format!("{PREFIX}{name}"), (*value).to_owned())).collect()
}

#[tokio::test]
async fn by_default_the_bucket_decides() {
    assert_eq!(headers_of(|_| {}).await, [Headers::new(), Headers::new()]);
}

#[tokio::test]
async fn keys_of_the_store_are_asked_for_when_writing() {
    let seen = headers_of(|config| config.sse = Encryption::S3).await;
    assert_eq!(seen, [headers([("", "AES256")]), Headers::new()]);
    let seen = headers_of(|config| config.sse = Encryption::Kms).await;
    assert_eq!(seen, [headers([("", "aws:kms")]), Headers::new()]);
    let seen = headers_of(|config| {
        config.sse = Encryption::Kms;
        config.sse_kms_key_id = "alias/clew".to_owned();
        config.sse_bucket_key = true;
    })
    .await;
    let expected =
        [("", "aws:kms"), ("-aws-kms-key-id", "alias/clew"), ("-bucket-key-enabled", "true")];
    assert_eq!(seen, [headers(expected), Headers::new()]);
    let seen = headers_of(|config| {
        config.sse = Encryption::KmsDsse;
        config.sse_kms_key_id = "1234".to_owned();
    })
    .await;
    let expected = [("", "aws:kms:dsse"), ("-aws-kms-key-id", "1234")];
    assert_eq!(seen, [headers(expected), Headers::new()]);
}

#[tokio::test]
async fn a_customers_key_goes_with_every_request() {
    let seen = headers_of(|config| {
        config.sse = Encryption::Customer;
        config.sse_customer_key = KEY.to_owned().into();
    })
    .await;
    let expected = headers([
        ("-customer-algorithm", "AES256"),
        ("-customer-key", KEY),
        ("-customer-key-md5", KEY_MD5),
    ]);
    assert_eq!(seen, [expected.clone(), expected]);
}
