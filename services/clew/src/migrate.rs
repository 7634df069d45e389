//! `clew migrate-config`: turns a configuration of Grafana Tempo 2 or 3 into one of Clew.
//!
//! Every key of the file ends up in the report: with what it became, or with the reason why it became
//! nothing. Secrets are not copied; the report says which variable takes them.

mod bucket;
mod rules;

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Map, Value};

use self::rules::Rule;
use crate::config::Config;

/// What a migration gives.
#[derive(Debug)]
pub(crate) struct Migrated {
    /// The settings that differ from Clew's defaults.
    pub(crate) yaml: String,
    /// What became of each key.
    pub(crate) report: String,
}

/// What became of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Fate {
    /// It is this setting now.
    Set { key: String, note: String },
    /// It is not copied, for this reason.
    Left(String),
    /// Nothing is known of it.
    Unknown,
}

/// Migrates the file.
///
/// # Errors
/// If it cannot be read, is no YAML, or the result is no configuration of Clew.
pub(crate) fn run(file: &Path) -> Result<Migrated, String> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| format!("{} cannot be read: {error}", file.display()))?;
    migrate(&text)
}

fn migrate(text: &str) -> Result<Migrated, String> {
    let tempo: Value =
        serde_yaml_ng::from_str(text).map_err(|error| format!("the file is no YAML: {error}"))?;
    if !tempo.is_object() {
        return Err("the file is no configuration of Tempo: it is no map".to_owned());
    }
    let mut fates = Vec::new();
    let mut settings = Vec::new();
    let place = bucket::place(&tempo);
    settings.extend(place.settings.iter().cloned());
    for (path, value) in leaves(&tempo) {
        let fate = match place.fates.iter().find(|(known, _)| *known == path) {
            Some((_, fate)) => fate.clone(),
            None => apply(&path, &value, &mut settings),
        };
        fates.push((path, value, fate));
    }
    let yaml = render(&settings)?;
    Ok(Migrated { yaml, report: report(&fates) })
}

/// What becomes of one key, by the first rule that fits.
fn apply(path: &str, value: &Value, settings: &mut Vec<(String, Value)>) -> Fate {
    let Some(rule) = rules::find(path) else { return Fate::Unknown };
    match rule {
        Rule::Set { key, convert, note } => match convert(value) {
            Ok(converted) => {
                settings.push(((*key).to_owned(), converted));
                Fate::Set { key: (*key).to_owned(), note: (*note).to_owned() }
            }
            Err(reason) => Fate::Left(format!("{key} takes another form: {reason}")),
        },
        Rule::Left(reason) => Fate::Left((*reason).to_owned()),
    }
}

/// Every value that is no map, with its path; a list is one value.
fn leaves(tree: &Value) -> Vec<(String, Value)> {
    fn walk(tree: &Value, path: &str, out: &mut Vec<(String, Value)>) {
        match tree {
            Value::Object(fields) if !fields.is_empty() => {
                for (key, value) in fields {
                    let below = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                    walk(value, &below, out);
                }
            }
            value => out.push((path.to_owned(), value.clone())),
        }
    }
    let mut out = Vec::new();
    walk(tree, "", &mut out);
    out
}

/// The settings as YAML, after Clew itself has accepted them.
fn render(settings: &[(String, Value)]) -> Result<String, String> {
    let mut tree = Value::Object(Map::new());
    let mut given = Vec::new();
    for (key, value) in settings {
        insert(&mut tree, key, value.clone());
        given.push(format!(
            "{key}={}",
            value.as_str().map_or_else(|| value.to_string(), str::to_owned)
        ));
    }
    let config: Config = clew_node::config::load(None, Vec::new(), &given)
        .map_err(|error| format!("the result is not accepted: {error}"))?;
    config.check().map_err(|error| format!("the result is not accepted: {error}"))?;
    if settings.is_empty() {
        return Ok("{}\n".to_owned());
    }
    serde_yaml_ng::to_string(&tree).map_err(|error| error.to_string())
}

fn insert(tree: &mut Value, key: &str, value: Value) {
    let (mut at, mut rest) = (tree, key);
    while let Some((first, below)) = rest.split_once('.') {
        let Value::Object(fields) = at else { return };
        at = fields.entry(first).or_insert_with(|| Value::Object(Map::new()));
        rest = below;
    }
    if let Value::Object(fields) = at {
        fields.insert(rest.to_owned(), value);
    }
}

fn report(fates: &[(String, Value, Fate)]) -> String {
    let mut out = String::new();
    // Writing into a string does not fail.
    let count = |wanted: fn(&Fate) -> bool| fates.iter().filter(|(_, _, f)| wanted(f)).count();
    let set = count(|fate| matches!(fate, Fate::Set { .. }));
    let left = count(|fate| matches!(fate, Fate::Left(_)));
    let unknown = count(|fate| matches!(fate, Fate::Unknown));
    let _ = writeln!(
        out,
        "{} keys: {set} have become settings, {left} have no use here, {unknown} are not known\n",
        fates.len()
    );
    for (path, value, fate) in fates {
        match fate {
            Fate::Set { key, note } => {
                let space = if note.is_empty() { "" } else { "; " };
                let _ = writeln!(out, "set      {path} -> {key}{space}{note}");
            }
            Fate::Left(reason) => {
                let _ = writeln!(out, "left     {path}: {reason}");
            }
            Fate::Unknown => {
                let _ =
                    writeln!(out, "unknown  {path}: no setting of Tempo 2 or 3 that is known here");
            }
        }
        if value.as_str().is_some_and(|text| text.contains("${")) {
            let _ = writeln!(
                out,
                "         the value has a variable in it; Clew does not replace those in its file, \
                 set the CLEW_... variable of the setting instead"
            );
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEMPO: &str = "
multitenancy_enabled: true
http_api_prefix: /tempo
server: {http_listen_port: 3100, log_level: warn}
distributor:
  receivers:
    otlp: {protocols: {grpc: {endpoint: '0.0.0.0:14317'}, http: {}}}
    jaeger: {protocols: {thrift_http: {}}}
storage:
  trace:
    backend: s3
    s3:
      bucket: traces
      prefix: prod
      endpoint: minio:9000
      insecure: true
      access_key: id
      secret_key: canary
overrides:
  defaults:
    ingestion: {rate_limit_bytes: 1000000, burst_size_bytes: 2000000}
memberlist: {join_members: [a, b]}
no_such_thing: 1
";

    #[test]
    fn a_tempo_file_becomes_ours_and_every_key_is_told_of() {
        let migrated = migrate(TEMPO).unwrap();
        let yaml: Value = serde_yaml_ng::from_str(&migrated.yaml).unwrap();
        assert_eq!(yaml["multitenancy_enabled"], true);
        assert_eq!(yaml["http_addr"], "0.0.0.0:3100");
        assert_eq!(yaml["otlp_grpc_addr"], "0.0.0.0:14317");
        assert_eq!(yaml["querier"]["http_api_prefix"], "/tempo");
        assert_eq!(yaml["bucket"]["url"], "s3://traces/prod/clew");
        assert_eq!(yaml["bucket"]["endpoint"], "http://minio:9000");
        assert_eq!(yaml["distributor"]["tenant_rate_bytes"], 1_000_000);
        assert!(!migrated.yaml.contains("canary") && !migrated.report.contains("canary"));
        let tempo: Value = serde_yaml_ng::from_str(TEMPO).unwrap();
        for (path, _) in leaves(&tempo) {
            assert!(migrated.report.contains(&path), "{path} is not in\n{}", migrated.report);
        }
        assert!(migrated.report.contains("unknown  no_such_thing"), "{}", migrated.report);
        assert!(migrated.report.contains("CLEW_BUCKET_SECRET_ACCESS_KEY"));
    }

    #[test]
    fn what_is_no_configuration_is_refused() {
        for text in ["", "- a\n", "a: [", "just text"] {
            assert!(migrate(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_value_of_another_form_is_told_of_and_left() {
        let migrated = migrate("query_frontend: {search: {max_duration: soon}}\n").unwrap();
        assert!(migrated.report.contains("takes another form"), "{}", migrated.report);
        assert_eq!(migrated.yaml, "{}\n");
    }

    #[test]
    fn a_later_key_for_the_same_setting_counts() {
        let text = "overrides:\n  ingestion_rate_limit_bytes: 5\n";
        let yaml: Value = serde_yaml_ng::from_str(&migrate(text).unwrap().yaml).unwrap();
        assert_eq!(yaml["distributor"]["tenant_rate_bytes"], 5);
    }
}
