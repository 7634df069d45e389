//! Layered configuration: defaults, then a YAML file, then `CLEW_…` variables, then `--set`.
//!
//! Keys form one tree (`ingester.flush.age`); unknown keys and wrong values are errors that name
//! the key, what was given and what is allowed. Secrets are wrapped in [`Secret`] and never shown.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The prefix of environment variables that set a key: `CLEW_INGESTER_FLUSH_AGE` sets
/// `ingester.flush.age`. Because keys contain underscores themselves, a variable is matched against
/// the known keys, not split.
pub const ENV_PREFIX: &str = "CLEW_";

/// What is wrong with the configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("the config file {path} cannot be read: {source}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not YAML.
    #[error("the config file {path} is not valid YAML: {source}")]
    Yaml {
        /// The file.
        path: String,
        /// Where and why.
        source: serde_yaml_ng::Error,
    },
    /// A key is unknown or its value is not allowed.
    #[error("config key {key}: {message}")]
    Key {
        /// The key's full path.
        key: String,
        /// What was given and what is allowed.
        message: String,
    },
    /// A `--set` that is not `key=value`.
    #[error("--set takes key=value, not {0}")]
    Set(String),
}

/// A text that is never printed.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The text itself; only for the place that needs it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Secret {
        Secret(text)
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_empty() { "" } else { "<secret>" })
    }
}

impl Serialize for Secret {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(if self.0.is_empty() { "" } else { "<secret>" })
    }
}

/// A duration written as `90s`, `1m30s`, `250ms`, `2h` or `14d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub std::time::Duration);

impl Span {
    /// A whole number of seconds.
    pub const fn seconds(seconds: u64) -> Span {
        Span(std::time::Duration::from_secs(seconds))
    }

    /// A whole number of milliseconds.
    pub const fn millis(millis: u64) -> Span {
        Span(std::time::Duration::from_millis(millis))
    }
}

impl std::fmt::Display for Span {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut millis = self.0.as_millis();
        if millis == 0 {
            return f.write_str("0s");
        }
        for (unit, size) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)] {
            if millis >= size {
                write!(f, "{}{unit}", millis / size)?;
                millis %= size;
            }
        }
        if millis > 0 {
            write!(f, "{millis}ms")?;
        }
        Ok(())
    }
}

/// Parses a duration in the form [`Span`] prints; fractions are allowed (`1.5h`).
pub fn parse_duration(text: &str) -> Option<std::time::Duration> {
    let mut rest = text.trim();
    let mut total = 0f64;
    if rest.is_empty() {
        return None;
    }
    if rest == "0" {
        return Some(std::time::Duration::ZERO);
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let seconds = match &rest[..letters] {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3_600.0,
            "d" => 86_400.0,
            "w" => 604_800.0,
            _ => return None,
        };
        rest = &rest[letters..];
        total += number * seconds;
    }
    std::time::Duration::try_from_secs_f64(total).ok()
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let given = Value::deserialize(deserializer)?;
        given.as_str().and_then(parse_duration).map(Span).ok_or_else(|| {
            serde::de::Error::custom(format!(
                "{given} is no duration, use a form like 30s or 1m30s"
            ))
        })
    }
}

impl Serialize for Span {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A size written as `64MiB`, `1GiB`, `500kB` or a plain number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

const BYTE_UNITS: [(&str, u64); 8] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("KB", 1_000),
    ("B", 1),
];

impl Bytes {
    /// A whole number of mebibytes.
    pub const fn mebi(count: u64) -> Bytes {
        Bytes(count << 20)
    }

    /// The size as a number of bytes in memory.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl std::fmt::Display for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (unit, size) in &BYTE_UNITS[..3] {
            if self.0 >= *size && self.0.is_multiple_of(*size) {
                return write!(f, "{}{unit}", self.0 / size);
            }
        }
        write!(f, "{}", self.0)
    }
}

fn parse_bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    for (unit, size) in BYTE_UNITS {
        if let Some(number) = text.strip_suffix(unit) {
            return number.trim().parse::<u64>().ok()?.checked_mul(size);
        }
    }
    text.parse().ok()
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let given = Value::deserialize(deserializer)?;
        let parsed = match &given {
            Value::Number(number) => number.as_u64(),
            Value::String(text) => parse_bytes(text),
            _ => None,
        };
        parsed.map(Bytes).ok_or_else(|| {
            serde::de::Error::custom(format!("{given} is no size, use a form like 64MiB or 1000"))
        })
    }
}

impl Serialize for Bytes {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Loads a configuration: `T::default()`, overlaid by the file, the variables and the settings.
///
/// # Errors
/// [`ConfigError`] naming the file or key.
pub fn load<T>(
    file: Option<&Path>,
    variables: impl IntoIterator<Item = (String, String)>,
    settings: &[String],
) -> Result<T, ConfigError>
where
    T: Default + Serialize + DeserializeOwned,
{
    let mut tree = tree_of(&T::default())?;
    let known = leaves(&tree);
    if let Some(path) = file {
        merge(&mut tree, read_file(path)?);
    }
    for (name, text) in variables {
        let Some(wanted) = name.strip_prefix(ENV_PREFIX) else { continue };
        match known.iter().find(|key| variable_name(key) == wanted) {
            Some(key) => set(&mut tree, key, &text),
            None if is_service_link(wanted) => {}
            None => {
                let message = "no such setting".to_owned();
                return Err(ConfigError::Key { key: name, message });
            }
        }
    }
    for setting in settings {
        let (key, text) =
            setting.split_once('=').ok_or_else(|| ConfigError::Set(setting.clone()))?;
        set(&mut tree, key.trim(), text);
    }
    serde_path_to_error::deserialize(tree).map_err(|error| ConfigError::Key {
        key: error.path().to_string(),
        message: error.inner().to_string(),
    })
}

/// Whether Kubernetes made this variable for a service whose name begins with ours, such as
/// `CLEW_SERVICE_HOST` or `CLEW_QUERIER_PORT_3200_TCP_ADDR`: they are nobody's setting.
fn is_service_link(name: &str) -> bool {
    let name = format!("_{name}");
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.ends_with("_PORT")
        || (name.contains("_PORT_") && (name.contains("_TCP") || name.contains("_UDP")))
}

/// `url` without the password in it, if it has one: `scheme://user:<secret>@host`.
pub fn hide_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let authority = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
    match authority
        .rsplit_once('@')
        .and_then(|(user, _)| user.split_once(':').map(|(u, p)| (u, p.len())))
    {
        Some((user, password)) => {
            let after = &rest[user.len() + 1 + password..];
            format!("{scheme}://{user}:<secret>{after}")
        }
        None => url.to_owned(),
    }
}

/// The tree of settings as it may be shown: no text in it carries a password.
pub fn shown<T: Serialize>(config: &T) -> Result<Value, ConfigError> {
    fn hide(tree: &mut Value) {
        match tree {
            Value::String(text) => *text = hide_password(text),
            Value::Array(items) => items.iter_mut().for_each(hide),
            Value::Object(map) => map.values_mut().for_each(hide),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
    let mut tree = tree_of(config)?;
    hide(&mut tree);
    Ok(tree)
}

/// The environment variable (without prefix) that sets `key`.
fn variable_name(key: &str) -> String {
    key.replace('.', "_").to_ascii_uppercase()
}

fn tree_of<T: Serialize>(value: &T) -> Result<Value, ConfigError> {
    serde_json::to_value(value)
        .map_err(|error| ConfigError::Key { key: "default".to_owned(), message: error.to_string() })
}

fn read_file(path: &Path) -> Result<Value, ConfigError> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: name.clone(), source })?;
    let tree: Value = serde_yaml_ng::from_str(&text)
        .map_err(|source| ConfigError::Yaml { path: name, source })?;
    // An empty file sets nothing.
    Ok(if tree.is_null() { Value::Object(Map::new()) } else { tree })
}

/// The full paths of everything in the tree that is not a mapping.
fn leaves(tree: &Value) -> Vec<String> {
    fn walk(tree: &Value, path: &str, out: &mut Vec<String>) {
        match tree {
            Value::Object(map) if !map.is_empty() => {
                for (key, value) in map {
                    let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                    walk(value, &path, out);
                }
            }
            _ => out.push(path.to_owned()),
        }
    }
    let mut out = Vec::new();
    walk(tree, "", &mut out);
    out
}

fn merge(base: &mut Value, over: Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                merge(base.entry(key).or_insert(Value::Null), value);
            }
        }
        // A section that is named but left empty keeps its defaults.
        (Value::Object(_), Value::Null) => {}
        (base, over) => *base = over,
    }
}

fn set(tree: &mut Value, key: &str, text: &str) {
    let mut place = tree;
    for part in key.split('.') {
        if !place.is_object() {
            *place = Value::Object(Map::new());
        }
        let Value::Object(map) = place else { return };
        place = map.entry(part.to_owned()).or_insert(Value::Null);
    }
    *place = scalar(text, place);
}

/// A value from a command line or variable: YAML, so that numbers, booleans and lists work. What was a
/// text stays one, also if it is empty or looks like something else: a zone may be called `1`, and a
/// secret may be all digits.
fn scalar(text: &str, before: &Value) -> Value {
    match serde_yaml_ng::from_str(text) {
        Ok(parsed @ Value::String(_)) => parsed,
        Ok(parsed) if !before.is_string() => parsed,
        _ => Value::String(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        http_addr: String,
        flush: Flush,
        token: Secret,
    }

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Flush {
        max_age: Span,
        max_bytes: Bytes,
    }

    impl Default for Sample {
        fn default() -> Self {
            Sample {
                http_addr: "0.0.0.0:3200".to_owned(),
                flush: Flush { max_age: Span::seconds(60), max_bytes: Bytes::mebi(64) },
                token: Secret::default(),
            }
        }
    }

    fn load_text(yaml: &str, env: &[(&str, &str)], set: &[&str]) -> Result<Sample, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("clew.yaml");
        std::fs::write(&path, yaml).unwrap();
        let env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        let set: Vec<String> = set.iter().map(|s| (*s).to_owned()).collect();
        load(Some(&path), env, &set)
    }

    #[test]
    fn later_layers_win() {
        let yaml = "flush:\n  max_age: 2m\n  max_bytes: 1MiB\n";
        let env = [("CLEW_FLUSH_MAX_AGE", "90s"), ("HOME", "/x")];
        let sample = load_text(yaml, &env, &["http_addr=[::]:1", "flush.max_bytes=77"]).unwrap();
        assert_eq!(sample.flush.max_age, Span::seconds(90));
        assert_eq!(sample.flush.max_bytes, Bytes(77));
        assert_eq!(sample.http_addr, "[::]:1");
    }

    #[test]
    fn an_empty_file_or_section_keeps_the_defaults() {
        assert_eq!(load_text("", &[], &[]).unwrap(), Sample::default());
        assert_eq!(load_text("flush:\n", &[], &[]).unwrap(), Sample::default());
    }

    #[test]
    fn errors_name_the_key_and_what_is_allowed() {
        let unknown = load_text("flush:\n  max_agee: 2m\n", &[], &[]).unwrap_err().to_string();
        assert!(unknown.contains("flush.max_agee") || unknown.contains("max_agee"), "{unknown}");
        assert!(unknown.contains("max_age"), "{unknown}");
        let wrong = load_text("", &[], &["flush.max_age=soon"]).unwrap_err().to_string();
        assert!(wrong.contains("flush.max_age") && wrong.contains("30s"), "{wrong}");
        let variable = load_text("", &[("CLEW_FLUSH_AGE", "1s")], &[]).unwrap_err().to_string();
        assert!(variable.contains("CLEW_FLUSH_AGE"), "{variable}");
        let size = load_text("", &[], &["flush.max_bytes=-1"]).unwrap_err().to_string();
        assert!(size.contains("flush.max_bytes") && size.contains("64MiB"), "{size}");
    }

    #[test]
    fn texts_stay_texts_whatever_they_look_like() {
        for text in ["", "1", "0123", "true", "null", "~", "1e5", "[a]"] {
            let sample = load_text("", &[("CLEW_HTTP_ADDR", text)], &[]).unwrap();
            assert_eq!(sample.http_addr, text);
            let setting = format!("token={text}");
            assert_eq!(load_text("", &[], &[setting.as_str()]).unwrap().token.reveal(), text);
        }
        let quoted = load_text("", &[], &["http_addr='1'"]).unwrap();
        assert_eq!(quoted.http_addr, "1");
    }

    #[test]
    fn service_links_of_kubernetes_are_passed_over() {
        let links = [
            ("CLEW_SERVICE_HOST", "10.0.0.1"),
            ("CLEW_SERVICE_PORT_HTTP", "3200"),
            ("CLEW_PORT", "tcp://10.0.0.1:3200"),
            ("CLEW_QUERIER_PORT_3200_TCP_ADDR", "10.0.0.1"),
        ];
        assert_eq!(load_text("", &links, &[]).unwrap(), Sample::default());
    }

    #[test]
    fn secrets_are_not_printed() {
        let sample = load_text("token: canary", &[], &[]).unwrap();
        assert_eq!(sample.token.reveal(), "canary");
        let shown = format!("{sample:?} {}", serde_json::to_string(&sample).unwrap());
        assert!(!shown.contains("canary"), "{shown}");
    }

    #[test]
    fn passwords_in_urls_are_hidden() {
        for (url, shown) in [
            ("s3://user:pa:ss@bucket/a", "s3://user:<secret>@bucket/a"),
            ("https://:p@host", "https://:<secret>@host"),
            ("https://user@host/a:b@c", "https://user@host/a:b@c"),
            ("https://host:80/x", "https://host:80/x"),
            ("/a/folder:x@y", "/a/folder:x@y"),
            ("://", "://"),
        ] {
            assert_eq!(hide_password(url), shown);
        }
    }

    #[test]
    fn durations_and_sizes_print_as_they_parse() {
        for text in ["0s", "250ms", "1m30s", "14d", "2h"] {
            let span = Span(parse_duration(text).unwrap());
            assert_eq!(span.to_string(), text);
        }
        assert_eq!(parse_duration("1.5h"), Some(std::time::Duration::from_secs(5400)));
        assert_eq!(parse_duration("5"), None);
        assert_eq!(parse_duration("5 parsecs"), None);
        assert_eq!(Bytes(3 << 20).to_string(), "3MiB");
        assert_eq!(parse_bytes("18446744073709551615GiB"), None);
    }
}
