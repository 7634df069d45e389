//! Where the bucket is and how to get in: settings only, checked before anything is opened.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use clew_node::config::{Secret, Span};
use serde::{Deserialize, Serialize};

use crate::key;

/// A storage setting that does not describe a usable bucket.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A value that is not allowed.
    #[error("storage setting {key}: allowed is {allowed}, not '{value}'")]
    Value {
        /// The setting.
        key: &'static str,
        /// What was given; never a secret.
        value: String,
        /// What is allowed.
        allowed: String,
    },
    /// A setting that the provider of the URL does not have.
    #[error("storage setting {key}: only for {providers} URLs, not for '{url}'")]
    OtherProvider {
        /// The setting.
        key: &'static str,
        /// The schemes that have it.
        providers: &'static str,
        /// The URL given.
        url: String,
    },
    /// A setting that needs another one.
    #[error("storage setting {key}: needs {needs} as well")]
    Incomplete {
        /// The setting given.
        key: &'static str,
        /// The setting missing.
        needs: &'static str,
    },
    /// The provider's own library refuses the settings.
    #[error("the object store cannot be set up: {url}: {message}")]
    Provider {
        /// The URL given.
        url: String,
        /// Its words.
        message: String,
    },
}

/// How a store encrypts what is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Encryption {
    /// As the bucket is set up.
    #[default]
    Default,
    /// With keys of S3 (SSE-S3).
    S3,
    /// With a key of KMS (SSE-KMS).
    Kms,
    /// Twice, with a key of KMS (DSSE-KMS).
    KmsDsse,
    /// With a key that every request brings along (SSE-C).
    Customer,
}

/// The length of a key of [`Encryption::Customer`], in bytes.
const CUSTOMER_KEY_BYTES: usize = 32;

/// The longest name of a key of KMS, as its API has it, in bytes.
const KMS_KEY_ID_BYTES_MAX: usize = 2_048;

/// Where the bucket is. Empty texts mean: not given; credentials then come from the provider's usual
/// chain (environment, instance or workload identity).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BucketConfig {
    /// A path or `file:///path`, `s3://bucket/prefix`, `gs://bucket/prefix`,
    /// `az://container/prefix`, or `memory://` for tests.
    pub url: String,
    /// `s3`, `gs` and `az`: the address of a compatible store or of a private one, as `https://host:port`.
    pub endpoint: String,
    /// `s3`: the region.
    pub region: String,
    /// `s3`: whether the bucket is in the path, not in the host name.
    pub path_style: bool,
    /// `s3`: the access key id.
    pub access_key_id: String,
    /// `s3`: the secret access key.
    pub secret_access_key: Secret,
    /// `s3`: the token of temporary credentials.
    pub session_token: Secret,
    /// `s3`: how the store encrypts what is written: `default` (as the bucket is set up), `s3` (with its own
    /// keys, SSE-S3), `kms` (SSE-KMS), `kms-dsse` (DSSE-KMS), or `customer` (SSE-C).
    pub sse: Encryption,
    /// `s3` with `kms` or `kms-dsse`: the key's id, ARN or alias; empty is the account's key for S3.
    pub sse_kms_key_id: String,
    /// `s3` with `kms`: one data key for many objects (S3 bucket key), which asks KMS less often.
    pub sse_bucket_key: bool,
    /// `s3` with `customer`: 32 bytes in base64. What was written with another key cannot be read.
    pub sse_customer_key: Secret,
    /// `gs`: the file with the service account's key.
    pub service_account_path: String,
    /// `az`: the storage account.
    pub account_name: String,
    /// `az`: the storage account's key.
    pub account_key: Secret,
    /// `s3`, `gs` and `az`: a read that takes longer, and the time that its bytes need, is made a second
    /// time, and the first good answer counts. At most one in ten reads. 0 for never.
    pub hedge_after: Span,
}

impl Default for BucketConfig {
    fn default() -> Self {
        BucketConfig {
            url: "memory://".to_owned(),
            endpoint: String::new(),
            region: String::new(),
            path_style: true,
            access_key_id: String::new(),
            secret_access_key: Secret::default(),
            session_token: Secret::default(),
            sse: Encryption::Default,
            sse_kms_key_id: String::new(),
            sse_bucket_key: false,
            sse_customer_key: Secret::default(),
            service_account_path: String::new(),
            account_name: String::new(),
            account_key: Secret::default(),
            hedge_after: Span::millis(500),
        }
    }
}

/// A checked URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    Memory,
    Disk(PathBuf),
    S3 { bucket: String, prefix: String },
    Gs { bucket: String, prefix: String },
    Az { container: String, prefix: String },
}

impl BucketConfig {
    /// The settings of a bucket at `url` with nothing else given.
    pub fn at(url: impl Into<String>) -> BucketConfig {
        BucketConfig { url: url.into(), ..BucketConfig::default() }
    }

    /// Checks the settings without opening anything.
    ///
    /// # Errors
    /// [`ConfigError`] names the setting, the value and what is allowed.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let place = self.place()?;
        let is_s3 = matches!(place, Place::S3 { .. });
        let is_az = matches!(place, Place::Az { .. });
        let is_gs = matches!(place, Place::Gs { .. });
        let hidden = |secret: &Secret| !secret.reveal().is_empty();
        let settings = [
            ("endpoint", !self.endpoint.is_empty(), is_s3 || is_gs || is_az, "s3, gs and az"),
            ("region", !self.region.is_empty(), is_s3, "s3"),
            ("access_key_id", !self.access_key_id.is_empty(), is_s3, "s3"),
            ("secret_access_key", hidden(&self.secret_access_key), is_s3, "s3"),
            ("session_token", hidden(&self.session_token), is_s3, "s3"),
            ("sse", self.sse != Encryption::Default, is_s3, "s3"),
            ("sse_kms_key_id", !self.sse_kms_key_id.is_empty(), is_s3, "s3"),
            ("sse_bucket_key", self.sse_bucket_key, is_s3, "s3"),
            ("sse_customer_key", hidden(&self.sse_customer_key), is_s3, "s3"),
            ("service_account_path", !self.service_account_path.is_empty(), is_gs, "gs"),
            ("account_name", !self.account_name.is_empty(), is_az, "az"),
            ("account_key", hidden(&self.account_key), is_az, "az"),
        ];
        for (key, given, fits, providers) in settings {
            if given && !fits {
                let url = self.url.clone();
                return Err(ConfigError::OtherProvider { key, providers, url });
            }
        }
        let is_url = self.endpoint.starts_with("http://") || self.endpoint.starts_with("https://");
        if !self.endpoint.is_empty() && !is_url {
            return Err(ConfigError::Value {
                key: "endpoint",
                value: self.endpoint.clone(),
                allowed: "http://host:port or https://host:port".to_owned(),
            });
        }
        let pairs = [
            ("access_key_id", !self.access_key_id.is_empty(), "secret_access_key"),
            ("secret_access_key", hidden(&self.secret_access_key), "access_key_id"),
        ];
        if let [(key, true, needs), (_, false, _)] | [(_, false, _), (key, true, needs)] = pairs {
            return Err(ConfigError::Incomplete { key, needs });
        }
        if hidden(&self.account_key) && self.account_name.is_empty() {
            return Err(ConfigError::Incomplete { key: "account_key", needs: "account_name" });
        }
        self.validate_encryption()
    }

    fn validate_encryption(&self) -> Result<(), ConfigError> {
        let incomplete = |key, needs| Err(ConfigError::Incomplete { key, needs });
        let is_kms = matches!(self.sse, Encryption::Kms | Encryption::KmsDsse);
        if !self.sse_kms_key_id.is_empty() && !is_kms {
            return incomplete("sse_kms_key_id", "sse=kms or sse=kms-dsse");
        }
        // What goes into a header.
        let is_id = self.sse_kms_key_id.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_id || self.sse_kms_key_id.len() > KMS_KEY_ID_BYTES_MAX {
            return Err(ConfigError::Value {
                key: "sse_kms_key_id",
                value: self.sse_kms_key_id.clone(),
                allowed: "the id, ARN or alias of a key".to_owned(),
            });
        }
        if self.sse_bucket_key && self.sse != Encryption::Kms {
            return incomplete("sse_bucket_key", "sse=kms");
        }
        let key = self.sse_customer_key.reveal();
        match (self.sse == Encryption::Customer, key.is_empty()) {
            (false, true) => return Ok(()),
            (false, false) => return incomplete("sse_customer_key", "sse=customer"),
            (true, true) => return incomplete("sse", "sse_customer_key"),
            (true, false) => {}
        }
        if BASE64.decode(key).map_or(0, |key| key.len()) != CUSTOMER_KEY_BYTES {
            return Err(ConfigError::Value {
                key: "sse_customer_key",
                value: "<secret>".to_owned(),
                allowed: format!("{CUSTOMER_KEY_BYTES} bytes in base64"),
            });
        }
        if self.endpoint.starts_with("http://") && !is_this_machine(&self.endpoint) {
            return Err(ConfigError::Value {
                key: "endpoint",
                value: self.endpoint.clone(),
                allowed: "https:// with sse=customer, for every request carries the key".to_owned(),
            });
        }
        Ok(())
    }

    /// The URL, taken apart.
    pub(crate) fn place(&self) -> Result<Place, ConfigError> {
        let wrong = |allowed: &str| ConfigError::Value {
            key: "url",
            value: self.url.clone(),
            allowed: allowed.to_owned(),
        };
        const SCHEMES: &str = "a path, file:///path, s3://bucket/prefix, gs://bucket/prefix, \
                               az://container/prefix or memory://";
        let Some((scheme, rest)) = self.url.split_once("://") else {
            if self.url.is_empty() {
                return Err(wrong(SCHEMES));
            }
            return Ok(Place::Disk(PathBuf::from(&self.url)));
        };
        match scheme {
            "memory" if rest.is_empty() => Ok(Place::Memory),
            "memory" => Err(wrong("memory:// with nothing behind it")),
            // A path with escapes could be meant either way; as a plain path it is clear.
            "file" if rest.starts_with('/') && !rest.contains(['%', '?', '#']) => {
                Ok(Place::Disk(PathBuf::from(rest)))
            }
            "file" => Err(wrong("file:// and an absolute path without %, ? and #")),
            "s3" | "gs" | "az" | "azure" => {
                let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
                let prefix = prefix.trim_end_matches('/').to_owned();
                let in_bucket = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
                if bucket.is_empty() || bucket.len() > 255 || !bucket.chars().all(in_bucket) {
                    return Err(wrong("a bucket name of letters, digits and - _ ."));
                }
                if !prefix.is_empty() && key::check(&prefix).is_err() {
                    return Err(wrong(
                        "a prefix of letters, digits and - _ . = / without dot parts",
                    ));
                }
                let bucket = bucket.to_owned();
                Ok(match scheme {
                    "s3" => Place::S3 { bucket, prefix },
                    "gs" => Place::Gs { bucket, prefix },
                    _ => Place::Az { container: bucket, prefix },
                })
            }
            _ => Err(wrong(SCHEMES)),
        }
    }
}

/// Whether an `http://` address is one that no network carries.
fn is_this_machine(endpoint: &str) -> bool {
    let host = endpoint.trim_start_matches("http://");
    ["127.0.0.1", "[::1]", "localhost"].iter().any(|local| {
        host.strip_prefix(local).is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '/']))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let place = |url| BucketConfig::at(url).place();
        assert_eq!(place("memory://"), Ok(Place::Memory));
        assert_eq!(place("data/bucket"), Ok(Place::Disk("data/bucket".into())));
        assert_eq!(place("file:///var/clew"), Ok(Place::Disk("/var/clew".into())));
        let (bucket, prefix) = ("traces".to_owned(), "a/b".to_owned());
        assert_eq!(place("s3://traces/a/b/"), Ok(Place::S3 { bucket, prefix }));
        let (bucket, prefix) = ("traces".to_owned(), String::new());
        assert_eq!(place("gs://traces"), Ok(Place::Gs { bucket, prefix }));
        let (container, prefix) = ("traces".to_owned(), String::new());
        assert_eq!(place("azure://traces/"), Ok(Place::Az { container, prefix }));
    }

    #[test]
    fn wrong_settings_are_named_with_what_is_allowed() {
        let message = |change: fn(&mut BucketConfig)| {
            let mut config = BucketConfig::at("s3://traces");
            change(&mut config);
            config.validate().unwrap_err().to_string()
        };
        for (url, part) in [
            ("", "a path, file:///path"),
            ("ftp://x", "s3://bucket/prefix"),
            ("s3://", "a bucket name"),
            ("s3://a b", "a bucket name"),
            ("s3://a/../b", "a prefix"),
            ("file://relative", "an absolute path"),
            ("file:///a%20b", "an absolute path"),
            ("memory://x", "nothing behind it"),
        ] {
            let text = BucketConfig::at(url).validate().unwrap_err().to_string();
            assert!(text.contains("setting url") && text.contains(part), "{url}: {text}");
        }
        assert_eq!(
            message(|c| c.account_name = "x".to_owned()),
            "storage setting account_name: only for az URLs, not for 's3://traces'"
        );
        assert_eq!(
            message(|c| c.endpoint = "minio:9000".to_owned()),
            "storage setting endpoint: allowed is http://host:port or https://host:port, \
             not 'minio:9000'"
        );
        assert_eq!(
            message(|c| c.access_key_id = "x".to_owned()),
            "storage setting access_key_id: needs secret_access_key as well"
        );
        assert_eq!(
            message(|c| c.secret_access_key = "hush".to_owned().into()),
            "storage setting secret_access_key: needs access_key_id as well"
        );
    }

    #[test]
    fn encryption_is_checked() {
        let message = |change: fn(&mut BucketConfig)| {
            let mut config = BucketConfig::at("s3://traces");
            change(&mut config);
            config.validate().unwrap_err().to_string()
        };
        let key = "storage setting sse_customer_key: ";
        assert_eq!(
            message(|c| c.sse_kms_key_id = "alias/clew".to_owned()),
            "storage setting sse_kms_key_id: needs sse=kms or sse=kms-dsse as well"
        );
        assert_eq!(
            message(|c| c.sse = Encryption::Customer),
            "storage setting sse: needs sse_customer_key as well"
        );
        assert_eq!(
            message(|c| c.sse_customer_key = "hush".to_owned().into()),
            format!("{key}needs sse=customer as well")
        );
        let with_key = |c: &mut BucketConfig, key: &str| {
            c.sse = Encryption::Customer;
            c.sse_customer_key = key.to_owned().into();
        };
        for wrong in ["hush", "aHVzaA==", &"A".repeat(44), &"A".repeat(64)] {
            let mut config = BucketConfig::at("s3://traces");
            with_key(&mut config, wrong);
            let error = config.validate().unwrap_err().to_string();
            assert_eq!(error, format!("{key}allowed is 32 bytes in base64, not '<secret>'"));
        }
        let mut config = BucketConfig::at("s3://traces");
        with_key(&mut config, &BASE64.encode([7; 32]));
        assert_eq!(config.validate(), Ok(()));
        config.endpoint = "http://127.0.0.1:9000".to_owned();
        assert_eq!(config.validate(), Ok(()));
        for open in ["http://minio:9000", "http://127.0.0.1.example.org"] {
            config.endpoint = open.to_owned();
            let error = config.validate().unwrap_err().to_string();
            assert!(error.contains("setting endpoint: allowed is https://"), "{error}");
        }
        let kms = |c: &mut BucketConfig| c.sse = Encryption::Kms;
        let mut config = BucketConfig::at("s3://traces");
        kms(&mut config);
        config.sse_bucket_key = true;
        config.sse_kms_key_id = "arn:aws:kms:eu-central-1:111122223333:key/1234".to_owned();
        assert_eq!(config.validate(), Ok(()));
        config.sse = Encryption::KmsDsse;
        let error = config.validate().unwrap_err().to_string();
        assert_eq!(error, "storage setting sse_bucket_key: needs sse=kms as well");
        config.sse_bucket_key = false;
        config.sse_kms_key_id = "a\r\nx-other: header".to_owned();
        assert!(config.validate().unwrap_err().to_string().contains("setting sse_kms_key_id"));
        let gs = BucketConfig { sse: Encryption::S3, ..BucketConfig::at("gs://traces") };
        let error = gs.validate().unwrap_err().to_string();
        assert_eq!(error, "storage setting sse: only for s3 URLs, not for 'gs://traces'");
    }

    #[test]
    fn secrets_are_not_printed() {
        let secret_access_key = "hush".to_owned().into();
        let config = BucketConfig { secret_access_key, ..BucketConfig::at("s3://traces") };
        assert!(!format!("{config:?}").contains("hush"));
    }
}
