//! The settings of a scratch server, all on its command line.
//!
//! Invariant: no value is of the source's choice but one number. It listens nowhere but on its
//! socket, writes nothing by itself, and passes nothing over that it cannot load.

use std::fs;
use std::path::Path;

use super::Form;
use super::view;
use crate::redis::base::SETTINGS;
use crate::redis::facts::ServerFacts;

/// Room for as many databases costs less than a MiB; the source tells where it has more.
const DATABASES_AT_LEAST: u32 = 1024;

/// How many databases the server must have room for: it refuses data of a higher one.
pub(super) fn databases(directory: &Path, source: &ServerFacts) -> u32 {
    let beside = fs::read(directory.join(SETTINGS)).unwrap_or_default();
    let beside: serde_json::Value = serde_json::from_slice(&beside).unwrap_or_default();
    let told = beside["databases"].as_str().and_then(|told| told.parse().ok());
    let seen = source.databases.keys().last().map_or(0, |last| last.saturating_add(1));
    DATABASES_AT_LEAST.max(told.unwrap_or(0)).max(seen)
}

/// Each setting with its values.
pub(super) fn of(view: &str, socket: &str, form: Form, databases: u32) -> Vec<(&'static str, Vec<String>)> {
    let appends = if form == Form::AppendOnly { "yes" } else { "no" };
    let databases = databases.to_string();
    let settings: [(&str, &[&str]); 22] = [
        ("port", &["0"]),
        ("unixsocket", &[socket]),
        ("unixsocketperm", &["700"]),
        ("dir", &[view]),
        ("dbfilename", &[view::SNAPSHOT]),
        ("appendonly", &[appends]),
        ("appenddirname", &[view::APPEND_ONLY_DIRECTORY]),
        ("appendfilename", &[view::APPEND_ONLY]),
        // What is cut is to be said, and not to be passed over.
        ("aof-load-truncated", &["no"]),
        ("auto-aof-rewrite-percentage", &["0"]),
        ("save", &[""]),
        ("rdbchecksum", &["yes"]),
        ("databases", &[&databases]),
        ("replicaof", &["127.0.0.1", "0"]),
        ("replica-serve-stale-data", &["yes"]),
        ("replica-read-only", &["yes"]),
        // For the sum over all data.
        ("enable-debug-command", &["local"]),
        // For the one snapshot that may be asked for.
        ("enable-protected-configs", &["local"]),
        ("maxmemory", &["0"]),
        ("loglevel", &["notice"]),
        ("daemonize", &["no"]),
        ("set-proc-title", &["no"]),
    ];
    let owned = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect();
    settings.into_iter().map(|(name, values)| (name, owned(values))).collect()
}
