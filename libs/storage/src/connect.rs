//! From settings to a backend: the one place that knows each provider's builder.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clew_node::Deps;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::memory::InMemory;
use object_store::{ClientOptions, ObjectStore, RetryConfig};

use crate::backend::Backend;
use crate::config::{BucketConfig, ConfigError, Encryption, Place};
use crate::disk::Disk;
use crate::remote::Remote;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Above every limit of the retry policy, which decides.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(600);

/// How a local directory is opened.
pub(crate) type OpenDisk = fn(&Path, &Deps) -> Result<Disk, ConfigError>;

/// The backend that the settings describe.
pub(crate) fn connect(
    config: &BucketConfig,
    deps: &Deps,
    open_disk: OpenDisk,
) -> Result<Arc<dyn Backend>, ConfigError> {
    config.validate()?;
    let refused = |error: object_store::Error| ConfigError::Provider {
        url: config.url.clone(),
        message: error.to_string(),
    };
    let (store, prefix): (Arc<dyn ObjectStore>, String) = match config.place()? {
        Place::Disk(root) => return Ok(Arc::new(open_disk(&root, deps)?)),
        Place::Memory => (Arc::new(InMemory::new()), String::new()),
        Place::S3 { bucket, prefix } => {
            let builder = encrypted(s3(config, &bucket), config).map_err(refused)?;
            (Arc::new(builder.build().map_err(refused)?), prefix)
        }
        Place::Gs { bucket, prefix } => {
            (Arc::new(gs(config, &bucket).build().map_err(refused)?), prefix)
        }
        Place::Az { container, prefix } => {
            (Arc::new(az(config, &container).build().map_err(refused)?), prefix)
        }
    };
    Ok(Arc::new(Remote::new(store, &prefix)))
}

/// The endpoint with the bucket in its host name, where `object_store` wants it then.
fn with_bucket_in_host(endpoint: &str, bucket: &str) -> String {
    let Some((scheme, host)) = endpoint.split_once("://") else { return endpoint.to_owned() };
    if host.strip_prefix(bucket).is_some_and(|rest| rest.starts_with('.')) {
        return endpoint.to_owned();
    }
    format!("{scheme}://{bucket}.{host}")
}

fn s3(config: &BucketConfig, bucket: &str) -> AmazonS3Builder {
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(bucket)
        .with_virtual_hosted_style_request(!config.path_style)
        .with_retry(no_retries())
        .with_client_options(client(config));
    if !config.endpoint.is_empty() {
        let endpoint = if config.path_style {
            config.endpoint.clone()
        } else {
            with_bucket_in_host(&config.endpoint, bucket)
        };
        builder = builder.with_endpoint(endpoint);
    }
    if !config.region.is_empty() {
        builder = builder.with_region(&config.region);
    }
    if !config.access_key_id.is_empty() {
        builder = builder
            .with_access_key_id(&config.access_key_id)
            .with_secret_access_key(config.secret_access_key.reveal());
    }
    if !config.session_token.reveal().is_empty() {
        builder = builder.with_token(config.session_token.reveal());
    }
    builder
}

/// The builder with the settings of server-side encryption. Those of KMS go with what is written, a
/// customer's key with every request.
fn encrypted(
    mut builder: AmazonS3Builder,
    config: &BucketConfig,
) -> Result<AmazonS3Builder, object_store::Error> {
    let kind = match config.sse {
        Encryption::Default => return Ok(builder),
        Encryption::S3 => "AES256",
        Encryption::Kms => "aws:kms",
        Encryption::KmsDsse => "aws:kms:dsse",
        Encryption::Customer => "sse-c",
    };
    let bucket_key = if config.sse_bucket_key { "true" } else { "" };
    let options = [
        ("aws_server_side_encryption", kind),
        ("aws_sse_kms_key_id", config.sse_kms_key_id.as_str()),
        ("aws_sse_bucket_key_enabled", bucket_key),
        ("aws_sse_customer_key_base64", config.sse_customer_key.reveal()),
    ];
    for (option, value) in options.into_iter().filter(|(_, value)| !value.is_empty()) {
        builder = builder.with_config(option.parse::<AmazonS3ConfigKey>()?, value);
    }
    Ok(builder)
}

fn gs(config: &BucketConfig, bucket: &str) -> GoogleCloudStorageBuilder {
    let mut builder = GoogleCloudStorageBuilder::from_env()
        .with_bucket_name(bucket)
        .with_retry(no_retries())
        .with_client_options(client(config));
    if !config.endpoint.is_empty() {
        builder = builder.with_base_url(config.endpoint.trim_end_matches('/'));
    }
    if config.service_account_path.is_empty() {
        builder
    } else {
        builder.with_service_account_path(&config.service_account_path)
    }
}

fn az(config: &BucketConfig, container: &str) -> MicrosoftAzureBuilder {
    let mut builder = MicrosoftAzureBuilder::from_env()
        .with_container_name(container)
        .with_retry(no_retries())
        .with_client_options(client(config));
    if !config.endpoint.is_empty() {
        builder = builder.with_endpoint(config.endpoint.clone());
    }
    if !config.account_name.is_empty() {
        builder = builder.with_account(&config.account_name);
    }
    if !config.account_key.reveal().is_empty() {
        builder = builder.with_access_key(config.account_key.reveal());
    }
    builder
}

/// Plain HTTP is allowed only where the operator wrote it.
fn client(config: &BucketConfig) -> ClientOptions {
    ClientOptions::new()
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_timeout(REQUEST_TIMEOUT)
        .with_allow_http(config.endpoint.starts_with("http://"))
}

/// Retries are the bucket's, on its own clock, budget and metrics.
fn no_retries() -> RetryConfig {
    RetryConfig { max_retries: 0, ..RetryConfig::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_goes_into_the_host_once() {
        let placed = |endpoint| with_bucket_in_host(endpoint, "traces");
        assert_eq!(placed("https://s3.example:9000"), "https://traces.s3.example:9000");
        assert_eq!(placed("https://traces.s3.example"), "https://traces.s3.example");
        assert_eq!(placed("http://traces2.example"), "http://traces.traces2.example");
    }

    #[test]
    fn cloud_buckets_open_without_being_reached() {
        let deps = Deps::system(1);
        let s3 = BucketConfig {
            endpoint: "http://127.0.0.1:9".to_owned(),
            access_key_id: "id".to_owned(),
            secret_access_key: "secret".to_owned().into(),
            region: "eu-central-1".to_owned(),
            ..BucketConfig::at("s3://traces/prefix")
        };
        assert!(connect(&s3, &deps, Disk::open).is_ok());
        let az = BucketConfig {
            account_name: "account".to_owned(),
            account_key: "c2VjcmV0".to_owned().into(),
            ..BucketConfig::at("az://traces")
        };
        assert!(connect(&az, &deps, Disk::open).is_ok());
        assert!(connect(&BucketConfig::at("gs://traces"), &deps, Disk::open).is_ok());
        let gs = BucketConfig {
            endpoint: "https://storage-private.p.googleapis.com/".to_owned(),
            ..BucketConfig::at("gs://traces")
        };
        assert!(connect(&gs, &deps, Disk::open).is_ok());
        let gs = BucketConfig {
            service_account_path: "/nowhere/at/all.json".to_owned(),
            ..BucketConfig::at("gs://traces")
        };
        let error = connect(&gs, &deps, Disk::open).err().unwrap().to_string();
        assert!(error.starts_with("the object store cannot be set up: gs://traces"), "{error}");
    }
}
