//! The direction of dependencies (docs/architecture.md): arrows point down only, pure crates stay
//! pure, and an engine's types stay inside the crate that owns it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// From the bottom up: a crate may depend on those in layers before its own.
const LAYERS: [&[&str]; 7] = [
    &["clew-model"],
    &["clew-traceql", "clew-ring", "clew-node", "clew-proto"],
    &["clew-catalog", "clew-block", "clew-storage"],
    &["clew-raft"],
    &["clew-query"],
    &[
        "clew-compactor",
        "clew-distributor",
        "clew-ingester",
        "clew-loadtest",
        "clew-metastore",
        "clew-querier",
    ],
    &["clew", "clew-sim"],
];

/// Crates without clock, I/O or async runtime, and what they must not touch.
const PURE: [&str; 5] = ["clew-model", "clew-traceql", "clew-catalog", "clew-ring", "clew-block"];
const IMPURE: [&str; 7] = ["tokio", "tonic", "object_store", "hyper", "axum", "rand", "clew-node"];

/// Engines, each with the one crate that may use it.
const OWNERS: [(&str, &str); 6] = [
    ("openraft", "clew-raft"),
    ("rocksdb", "clew-raft"),
    ("tantivy", "clew-block"),
    ("object_store", "clew-storage"),
    ("consistent_hash", "clew-ring"),
    ("rustls", "clew-node"),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Every crate of the workspace with its direct dependencies, those for tests left out.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline", "--locked"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    packages
        .iter()
        .map(|package| {
            let name = package["name"].as_str().unwrap().to_owned();
            let all = package["dependencies"].as_array().unwrap();
            let direct = all.iter().filter(|dependency| dependency["kind"].as_str() != Some("dev"));
            (name, direct.map(|d| d["name"].as_str().unwrap().to_owned()).collect())
        })
        .collect()
}

fn layer(name: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&name))
}

#[test]
fn arrows_point_down() {
    let dependencies = dependencies();
    for (name, direct) in &dependencies {
        let own = layer(name).unwrap_or_else(|| panic!("{name} has no layer"));
        for dependency in direct.iter().filter(|dependency| dependencies.contains_key(*dependency))
        {
            let below = layer(dependency).unwrap();
            assert!(below < own, "{name} must not depend on {dependency}");
        }
    }
}

#[test]
fn pure_crates_stay_pure() {
    let dependencies = dependencies();
    for name in PURE {
        for forbidden in IMPURE {
            assert!(!dependencies[name].contains(forbidden), "{name} uses {forbidden}");
        }
    }
}

#[test]
fn engines_have_one_owner() {
    for (name, direct) in dependencies() {
        for (engine, owner) in OWNERS {
            assert!(name == owner || !direct.contains(engine), "{name} uses {engine}");
        }
    }
}

/// Lines of a source file before its inline tests.
fn lines_without_tests(text: &str) -> usize {
    text.lines().take_while(|line| line.trim() != "#[cfg(test)]").count()
}

fn sources(folder: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, out);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            out.push(path);
        }
    }
}

#[test]
fn files_are_short_and_say_what_they_are_for() {
    let mut files = Vec::new();
    sources(&root().join("libs"), &mut files);
    sources(&root().join("services"), &mut files);
    sources(&root().join("loadtest"), &mut files);
    assert!(files.len() > 50);
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let shown = file.display();
        let first = text.lines().next().unwrap_or_default();
        let opens = first.starts_with("//!") || first.starts_with("#!");
        assert!(opens, "{shown} does not begin by saying what it is for");
        let is_test = file.components().any(|part| part.as_os_str() == "tests")
            || file.file_stem().is_some_and(|stem| stem.to_string_lossy().ends_with("tests"));
        assert!(is_test || lines_without_tests(&text) <= 800, "{shown} is too long");
        assert!(file.file_name().unwrap() != "mod.rs", "{shown}: use a file beside the folder");
    }
}
