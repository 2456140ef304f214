//! The walls between the crates, checked over `cargo metadata`: who may use whom,
//! and which crate owns each dependency from outside (`ARCHITECTURE.md`).
//!
//! A new dependency fails here until somebody has decided whose it is.
#![allow(clippy::unwrap_used, reason = "a test reports by panicking, also in its helpers")]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// Which crates of the workspace each crate may use. `engine` and `repo` do not
/// know each other; `daemon` reaches both only through `ops`.
const WALLS: &[(&str, &[&str])] = &[
    ("backstay-model", &[]),
    ("backstay-engine", &["backstay-model"]),
    ("backstay-repo", &["backstay-model"]),
    ("backstay-ops", &["backstay-model", "backstay-engine", "backstay-repo"]),
    ("backstay-daemon", &["backstay-model", "backstay-ops"]),
    ("backstay", &["backstay-model", "backstay-engine", "backstay-repo", "backstay-ops", "backstay-daemon"]),
    ("testkit", &[]),
    ("xtask", &["testkit"]),
];

/// Vocabulary, not capability: every crate but `model` may use these.
const BASICS: &[&str] = &[
    "async-trait",
    "bytes",
    "crc-fast",
    "futures-util",
    "jiff",
    "rustix",
    "serde",
    "serde_json",
    "thiserror",
    "tokio",
    "tokio-util",
    "tracing",
];

/// `model` does no input or output, so it has nothing that could.
const BASICS_OF_MODEL: &[&str] = &["jiff", "serde", "serde_json", "thiserror"];

/// Every other dependency and the crates that alone may use it.
const OWNERS: &[(&str, &[&str])] = &[
    // The database's protocol and files.
    ("fallible-iterator", &["backstay-engine"]),
    ("memchr", &["backstay-engine"]),
    ("postgres-protocol", &["backstay-engine"]),
    ("rustls", &["backstay-engine"]),
    ("rustls-native-certs", &["backstay-engine"]),
    ("sha2", &["backstay-engine"]),
    ("tar", &["backstay-engine"]),
    ("tokio-postgres", &["backstay-engine"]),
    ("tokio-rustls", &["backstay-engine"]),
    // Compression, ciphers, hashes, keys.
    ("argon2", &["backstay-repo"]),
    ("aws-lc-rs", &["backstay-repo"]),
    ("base64", &["backstay-repo"]),
    ("blake3", &["backstay-repo"]),
    ("bzip2", &["backstay-repo"]),
    ("fastcdc", &["backstay-repo"]),
    ("flate2", &["backstay-repo", "backstay-engine"]),
    ("getrandom", &["backstay-repo", "backstay-engine", "backstay-ops"]),
    ("hex", &["backstay-repo"]),
    ("libdeflater", &["backstay-repo"]),
    ("liblzma", &["backstay-repo"]),
    ("pgp", &["backstay-repo"]),
    ("rand_core", &["backstay-repo"]),
    ("zeroize", &["backstay-repo"]),
    ("zstd", &["backstay-repo"]),
    // The terminal and the configuration file.
    ("clap", &["backstay", "xtask"]),
    ("clap_complete", &["backstay"]),
    ("clap_mangen", &["backstay"]),
    ("comfy-table", &["backstay"]),
    ("indicatif", &["backstay"]),
    ("schemars", &["backstay"]),
    ("serde_path_to_error", &["backstay"]),
    ("toml", &["backstay"]),
    ("tracing-subscriber", &["backstay"]),
    // Where an error is only ever shown to a developer.
    ("anyhow", &["testkit", "xtask"]),
    ("tempfile", &["testkit", "xtask"]),
];

/// In tests a crate may have these as well, and anything that somebody owns.
const FOR_TESTS: &[&str] = &["insta", "proptest", "rcgen", "tempfile", "testkit"];

struct Dependency {
    from: String,
    to: String,
    for_tests: bool,
}

fn dependencies() -> (BTreeSet<String>, Vec<Dependency>) {
    let output = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut members = BTreeSet::new();
    let mut found = Vec::new();
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        members.insert(name.to_owned());
        for dependency in package["dependencies"].as_array().unwrap() {
            found.push(Dependency {
                from: name.to_owned(),
                to: dependency["name"].as_str().unwrap().to_owned(),
                for_tests: dependency["kind"].as_str() == Some("dev"),
            });
        }
    }
    (members, found)
}

fn broken_walls(members: &BTreeSet<String>, dependencies: &[Dependency]) -> Vec<String> {
    let row = |table: &'static [(&str, &[&str])], name: &str| {
        table.iter().find(|(key, _)| *key == name).map(|(_, allowed)| *allowed)
    };
    let mut broken = Vec::new();
    for member in members {
        if row(WALLS, member).is_none() {
            broken.push(format!("{member} has no row in WALLS"));
        }
    }
    for Dependency { from, to, for_tests } in dependencies {
        let allowed = if members.contains(to) {
            (to == "testkit" && (*for_tests || from == "xtask"))
                || row(WALLS, from).is_some_and(|row| to != "testkit" && row.contains(&to.as_str()))
        } else {
            let basics = if from == "backstay-model" { BASICS_OF_MODEL } else { BASICS };
            basics.contains(&to.as_str())
                || row(OWNERS, to).is_some_and(|row| *for_tests || row.contains(&from.as_str()))
                || (*for_tests && FOR_TESTS.contains(&to.as_str()))
        };
        if !allowed {
            broken.push(format!("{from} must not depend on {to}"));
        }
    }
    broken
}

#[test]
fn every_dependency_keeps_to_the_walls() {
    let (members, dependencies) = dependencies();
    assert!(members.len() >= 8 && dependencies.len() > 50, "the metadata is not that of this workspace");
    let broken = broken_walls(&members, &dependencies);
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn no_row_outlives_its_dependency() {
    let (_, dependencies) = dependencies();
    let used: BTreeSet<&str> = dependencies.iter().map(|dependency| dependency.to.as_str()).collect();
    let rows = OWNERS.iter().map(|(name, _)| *name);
    let stale: Vec<&str> = rows.chain(BASICS.iter().copied()).filter(|name| !used.contains(name)).collect();
    assert!(stale.is_empty(), "nobody uses {stale:?}");
}

#[test]
fn each_kind_of_broken_wall_is_seen() {
    let members: BTreeSet<String> = WALLS.iter().map(|(name, _)| (*name).to_owned()).collect();
    for (from, to, for_tests, allowed) in [
        ("backstay-engine", "backstay-repo", false, false),
        ("backstay-engine", "backstay-repo", true, false),
        ("backstay-daemon", "backstay-repo", false, false),
        ("backstay-model", "tokio", false, false),
        ("backstay-repo", "tokio-postgres", false, false),
        ("backstay-ops", "left-pad", false, false),
        ("backstay-ops", "testkit", false, false),
        ("backstay-ops", "testkit", true, true),
        ("backstay-ops", "backstay-repo", false, true),
        ("backstay-engine", "zstd", true, true),
    ] {
        let dependency = Dependency { from: from.to_owned(), to: to.to_owned(), for_tests };
        let broken = broken_walls(&members, &[dependency]);
        assert_eq!(broken.is_empty(), allowed, "{from} -> {to}: {broken:?}");
    }
}
