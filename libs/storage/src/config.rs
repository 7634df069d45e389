//! Where the bucket is and how to get in: settings only, checked before anything is opened.

use std::path::PathBuf;

use clew_node::config::Secret;
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

/// Where the bucket is. Empty texts mean: not given; credentials then come from the provider's usual
/// chain (environment, instance or workload identity).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BucketConfig {
    /// A path or `file:///path`, `s3://bucket/prefix`, `gs://bucket/prefix`,
    /// `az://container/prefix`, or `memory://` for tests.
    pub url: String,
    /// `s3` and `az`: the address of a compatible store, as `https://host:port`.
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
    /// `gs`: the file with the service account's key.
    pub service_account_path: String,
    /// `az`: the storage account.
    pub account_name: String,
    /// `az`: the storage account's key.
    pub account_key: Secret,
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
            service_account_path: String::new(),
            account_name: String::new(),
            account_key: Secret::default(),
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
            ("endpoint", !self.endpoint.is_empty(), is_s3 || is_az, "s3 and az"),
            ("region", !self.region.is_empty(), is_s3, "s3"),
            ("access_key_id", !self.access_key_id.is_empty(), is_s3, "s3"),
            ("secret_access_key", hidden(&self.secret_access_key), is_s3, "s3"),
            ("session_token", hidden(&self.session_token), is_s3, "s3"),
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
    fn secrets_are_not_printed() {
        let secret_access_key = "hush".to_owned().into();
        let config = BucketConfig { secret_access_key, ..BucketConfig::at("s3://traces") };
        assert!(!format!("{config:?}").contains("hush"));
    }
}
