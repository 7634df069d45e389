//! Comparison of attribute names and values with those that were sent.

use std::collections::BTreeSet;

use http::StatusCode;
use serde::Deserialize;

use super::{Differences, parse_json};
use crate::expect::Tags;

#[derive(Deserialize)]
struct NamesAnswer {
    #[serde(default)]
    scopes: Vec<FoundScope>,
}

#[derive(Deserialize)]
struct FoundScope {
    name: String,
    #[serde(default)]
    tags: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ValuesAnswer {
    #[serde(default)]
    tag_values: Vec<FoundValue>,
}

#[derive(Deserialize)]
struct FoundValue {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    value: String,
}

/// What is wrong with the answer of `/api/v2/search/tags`; empty if nothing is. With `closed` there
/// must be no other names than the expected ones.
pub fn compare_names(tags: &Tags, closed: bool, status: StatusCode, body: &[u8]) -> Vec<String> {
    let answer: NamesAnswer = match parse_json(status, body) {
        Ok(answer) => answer,
        Err(reason) => return vec![reason],
    };
    let mut differences = Differences::default();
    for (scope, wanted) in tags.names.iter().filter(|(_, wanted)| !wanted.is_empty()) {
        let found = answer.scopes.iter().filter(|found| found.name == *scope);
        let found: Vec<&String> = found.flat_map(|found| &found.tags).collect();
        compare(scope, wanted.iter(), &found, closed, &mut differences);
    }
    differences.into_lines()
}

/// What is wrong with the answer of `/api/v2/search/tag/{tag}/values`; empty if nothing is.
pub fn compare_values(
    wanted: &BTreeSet<(&'static str, String)>,
    closed: bool,
    status: StatusCode,
    body: &[u8],
) -> Vec<String> {
    let answer: ValuesAnswer = match parse_json(status, body) {
        Ok(answer) => answer,
        Err(reason) => return vec![reason],
    };
    let mut differences = Differences::default();
    let wanted: Vec<String> =
        wanted.iter().map(|(kind, value)| format!("{kind} {value}")).collect();
    let found: Vec<String> =
        answer.tag_values.iter().map(|found| format!("{} {}", found.kind, found.value)).collect();
    let found: Vec<&String> = found.iter().collect();
    compare("values", wanted.iter(), &found, closed, &mut differences);
    differences.into_lines()
}

fn compare<'a>(
    what: &str,
    wanted: impl Iterator<Item = &'a String>,
    found: &[&String],
    closed: bool,
    differences: &mut Differences,
) {
    let wanted: BTreeSet<&String> = wanted.collect();
    let mut seen = BTreeSet::new();
    for name in found {
        if !seen.insert(*name) {
            differences.add(format!("{what}: {name} is there more than once"));
        }
        if closed && !wanted.contains(name) {
            differences.add(format!("{what}: {name} should not be there"));
        }
    }
    for name in wanted.difference(&seen) {
        differences.add(format!("{what}: {name} is missing"));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_are_compared_by_scope() {
        let mut tags = Tags::default();
        tags.names.insert("span", BTreeSet::from(["a".to_owned(), "b".to_owned()]));
        let compare = |names: &[&str], closed| {
            let intrinsic = json!({ "name": "intrinsic", "tags": ["duration"] });
            let body = json!({ "scopes": [{ "name": "span", "tags": names }, intrinsic] });
            compare_names(&tags, closed, StatusCode::OK, body.to_string().as_bytes())
        };
        assert_eq!(compare(&["b", "a"], true), Vec::<String>::new());
        assert_eq!(compare(&["a", "b", "c"], true).len(), 1);
        assert_eq!(compare(&["a", "b", "c"], false).len(), 0);
        assert_eq!(compare(&["a", "b", "b"], true).len(), 1);
        assert_eq!(compare(&["a"], true).len(), 1);
    }

    #[test]
    fn values_have_types() {
        let wanted = BTreeSet::from([("int", "200".to_owned())]);
        let compare = |kind: &str| {
            let body = json!({ "tagValues": [{ "type": kind, "value": "200" }] });
            compare_values(&wanted, true, StatusCode::OK, body.to_string().as_bytes())
        };
        assert_eq!(compare("int"), Vec::<String>::new());
        assert_eq!(compare("string").len(), 2);
        assert_eq!(compare_values(&wanted, true, StatusCode::OK, b"{").len(), 1);
    }
}
