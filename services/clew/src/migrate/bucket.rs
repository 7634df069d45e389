//! The bucket: several keys of Tempo together are one place of Clew.

use serde_json::{Value, json};

use super::Fate;

/// The bucket's settings, and what became of the keys that they were made from.
#[derive(Default)]
pub(super) struct Place {
    pub(super) settings: Vec<(String, Value)>,
    pub(super) fates: Vec<(String, Fate)>,
}

const TRACE: &str = "storage.trace";
const OTHER_LAYOUT: &str = "a place of its own, since the objects in it are not Tempo's";

impl Place {
    fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.settings.push((key.to_owned(), value.into()));
    }

    fn became(&mut self, path: &str, key: &str, note: &str) {
        let fate = Fate::Set { key: key.to_owned(), note: note.to_owned() };
        self.fates.push((format!("{TRACE}.{path}"), fate));
    }

    fn left(&mut self, path: &str, reason: &str) {
        self.fates.push((format!("{TRACE}.{path}"), Fate::Left(reason.to_owned())));
    }

    fn secret(&mut self, path: &str, variable: &str) {
        self.left(path, &format!("secrets are not copied: set {variable}"));
    }
}

/// Finds out the place that `storage.trace` describes.
pub(super) fn place(tempo: &Value) -> Place {
    let trace = &tempo["storage"]["trace"];
    let mut place = Place::default();
    match trace["backend"].as_str() {
        Some("s3") => s3(&trace["s3"], &mut place),
        Some("gcs") => gcs(&trace["gcs"], &mut place),
        Some("azure") => azure(&trace["azure"], &mut place),
        Some("local") => {
            place.left("local.path", "blocks are in data_dir/bucket, unless bucket.url is set");
        }
        _ => return place,
    }
    place.became("backend", "bucket.url", "by the beginning of the address");
    place
}

fn text<'a>(from: &'a Value, key: &str) -> Option<&'a str> {
    from[key].as_str().filter(|text| !text.is_empty())
}

/// `scheme://bucket/prefix/clew`, a place of its own beside Tempo's blocks, and what the two keys became.
fn url(from: &Value, provider: &str, scheme: &str, bucket: &str, place: &mut Place) {
    let Some(name) = text(from, bucket) else { return };
    let prefix = text(from, "prefix").map(|prefix| format!("/{}", prefix.trim_matches('/')));
    place.set("bucket.url", format!("{scheme}://{name}{}/clew", prefix.unwrap_or_default()));
    place.became(&format!("{provider}.{bucket}"), "bucket.url", OTHER_LAYOUT);
    place.became(&format!("{provider}.prefix"), "bucket.url", "");
}

/// The region that an address of AWS has for itself: `s3.eu-central-1.amazonaws.com`,
/// `s3-us-west-2.amazonaws.com` and `s3.dualstack.eu-central-1.amazonaws.com`. Nothing for others: those
/// of a private network (`vpce`) or of FIPS are places of their own.
fn region_of(endpoint: &str) -> Option<&str> {
    let host = endpoint.strip_suffix(".amazonaws.com")?;
    let region = host.strip_prefix("s3.dualstack.").or(host.strip_prefix("s3."));
    let region = region.or(host.strip_prefix("s3-"))?;
    (region.contains('-') && !region.contains('.') && !region.contains("fips")).then_some(region)
}

fn s3(from: &Value, place: &mut Place) {
    url(from, "s3", "s3", "bucket", place);
    let endpoint = text(from, "endpoint").unwrap_or_default();
    let named = region_of(endpoint);
    if named.is_some() || endpoint.is_empty() || endpoint == "s3.amazonaws.com" {
        if let Some(region) = text(from, "region").or(named) {
            place.set("bucket.region", region);
        }
        place.set("bucket.path_style", from["forcepathstyle"].as_bool().unwrap_or(false));
        place.became("s3.endpoint", "bucket.region", "the address follows from it");
    } else {
        let scheme = if from["insecure"].as_bool() == Some(true) { "http" } else { "https" };
        place.set("bucket.endpoint", format!("{scheme}://{endpoint}"));
        place.became("s3.endpoint", "bucket.endpoint", "");
        if let Some(region) = text(from, "region") {
            place.set("bucket.region", region);
        }
        if let Some(path_style) = from["forcepathstyle"].as_bool() {
            place.set("bucket.path_style", path_style);
        }
    }
    encryption(&from["sse"], place);
    place.became("s3.insecure", "bucket.endpoint", "http:// or https://");
    place.became("s3.region", "bucket.region", "");
    place.became("s3.forcepathstyle", "bucket.path_style", "");
    place.secret("s3.access_key", "CLEW_BUCKET_ACCESS_KEY_ID");
    place.secret("s3.secret_key", "CLEW_BUCKET_SECRET_ACCESS_KEY");
    place.secret("s3.session_token", "CLEW_BUCKET_SESSION_TOKEN");
}

fn encryption(sse: &Value, place: &mut Place) {
    let kind = match text(sse, "type") {
        Some("SSE-S3") => "s3",
        Some("SSE-KMS") => "kms",
        Some("SSE-C") => {
            place.left("s3.sse.type", "set bucket.sse=customer, with its key");
            place.secret("s3.sse.encryption_key", "CLEW_BUCKET_SSE_CUSTOMER_KEY");
            return;
        }
        _ => return,
    };
    place.set("bucket.sse", kind);
    place.became("s3.sse.type", "bucket.sse", "");
    if let Some(key) = text(sse, "kms_key_id") {
        place.set("bucket.sse_kms_key_id", key);
        place.became("s3.sse.kms_key_id", "bucket.sse_kms_key_id", "");
    }
    place.left("s3.sse.kms_encryption_context", "there is no such setting");
}

fn gcs(from: &Value, place: &mut Place) {
    url(from, "gcs", "gs", "bucket_name", place);
    let endpoint = text(from, "endpoint").unwrap_or_default();
    let (scheme, rest) = endpoint.split_once("://").unwrap_or(("https", endpoint));
    // Tempo asks the JSON API below a path, Clew the XML API at the root.
    let host = rest.split('/').next().unwrap_or_default();
    if !host.is_empty() && host != "storage.googleapis.com" {
        place.set("bucket.endpoint", format!("{scheme}://{host}"));
    }
    place.became("gcs.endpoint", "bucket.endpoint", "without a path; Google's own needs none");
    place.left("gcs.insecure", "an emulator: a service account with disable_oauth");
}

fn azure(from: &Value, place: &mut Place) {
    url(from, "azure", "az", "container_name", place);
    if let Some(account) = text(from, "storage_account_name") {
        place.set("bucket.account_name", account);
    }
    place.became("azure.storage_account_name", "bucket.account_name", "");
    place.secret("azure.storage_account_key", "CLEW_BUCKET_ACCOUNT_KEY");
    if let Some(suffix) = text(from, "endpoint_suffix").filter(|s| *s != "blob.core.windows.net") {
        let account = text(from, "storage_account_name").unwrap_or_default();
        place.set("bucket.endpoint", json!(format!("https://{account}.{suffix}")));
    }
    place.became("azure.endpoint_suffix", "bucket.endpoint", "");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(trace: Value) -> Vec<(String, Value)> {
        place(&json!({"storage": {"trace": trace}})).settings
    }

    #[test]
    fn each_provider_has_an_address() {
        let s3 = settings(json!({"backend": "s3", "s3": {
            "bucket": "traces", "endpoint": "s3.dualstack.eu-central-1.amazonaws.com"}}));
        assert!(s3.contains(&("bucket.url".to_owned(), json!("s3://traces/clew"))));
        assert!(s3.contains(&("bucket.region".to_owned(), json!("eu-central-1"))));
        let old = settings(json!({"backend": "s3", "s3": {
            "bucket": "traces", "endpoint": "s3-us-west-2.amazonaws.com",
            "sse": {"type": "SSE-KMS", "kms_key_id": "alias/traces"}}}));
        for (key, value) in [
            ("bucket.region", "us-west-2"),
            ("bucket.sse", "kms"),
            ("bucket.sse_kms_key_id", "alias/traces"),
        ] {
            assert!(old.contains(&(key.to_owned(), json!(value))), "{key}: {old:?}");
        }
        for private in
            ["bucket.vpce-1a2b.s3.eu-west-1.vpce.amazonaws.com", "s3-fips.us-east-1.amazonaws.com"]
        {
            let kept = settings(json!({"backend": "s3", "s3": {
                "bucket": "traces", "region": "eu-west-1", "endpoint": private}}));
            assert!(
                kept.contains(&("bucket.endpoint".to_owned(), json!(format!("https://{private}"))))
            );
        }
        let gcs = settings(json!({"backend": "gcs", "gcs": {
            "bucket_name": "traces", "prefix": "/a/"}}));
        assert_eq!(gcs, [("bucket.url".to_owned(), json!("gs://traces/a/clew"))]);
        for (endpoint, expected) in [
            ("https://storage.googleapis.com/storage/v1/", None),
            (
                "https://storage-me.p.googleapis.com/storage/v1/",
                Some("https://storage-me.p.googleapis.com"),
            ),
            ("gcs:4443", Some("https://gcs:4443")),
        ] {
            let gcs = settings(json!({"backend": "gcs", "gcs": {
                "bucket_name": "traces", "endpoint": endpoint}}));
            let found = gcs.iter().find(|(key, _)| key == "bucket.endpoint");
            assert_eq!(found.and_then(|(_, value)| value.as_str()), expected);
        }
        let azure = settings(json!({"backend": "azure", "azure": {
            "container_name": "traces", "storage_account_name": "account"}}));
        assert!(azure.contains(&("bucket.account_name".to_owned(), json!("account"))));
        assert!(settings(json!({"backend": "local", "local": {"path": "/x"}})).is_empty());
        assert!(settings(json!({})).is_empty());
    }
}
