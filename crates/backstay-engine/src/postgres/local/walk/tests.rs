use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;

use backstay_model::FindingLevel;
use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::*;

/// A directory with the given entries: a path ending in `/` is a directory.
fn tree(entries: &[&str]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for entry in entries {
        let path = root.path().join(entry);
        if entry.ends_with('/') {
            fs::create_dir_all(&path).unwrap();
        } else {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, entry).unwrap();
        }
    }
    root
}

fn walk(root: &Path, outcome: &Outcome) -> Walk {
    Walk::new(root, vec![16385], "PG_15_202209061".into(), outcome.clone()).unwrap()
}

fn paths(mut walk: Walk) -> Vec<String> {
    let mut paths = Vec::new();
    while let Some(found) = walk.next().unwrap() {
        paths.push(match found {
            Found::Directory { path, .. } => path + "/",
            Found::File { path, .. } => path,
        });
    }
    paths
}

#[test]
fn paths_come_in_bytewise_order_with_directories_before_their_content() {
    let root = tree(&["base/5/1", "base/5/10", "base/5-x", "base.conf", "base/5.y", "a/b/c/d", "global/1"]);
    let found = paths(walk(root.path(), &Outcome::new()));
    let plain: Vec<&str> = found.iter().map(|path| path.trim_end_matches('/')).collect();
    let mut sorted = plain.clone();
    sorted.sort_unstable();
    assert_eq!(plain, sorted);
    assert_eq!(plain.len(), 13);
}

#[test]
fn emptied_directories_come_without_their_content() {
    let root = tree(&["pg_wal/000000010000000000000001", "pg_replslot/x/state", "PG_VERSION"]);
    assert_eq!(paths(walk(root.path(), &Outcome::new())), ["PG_VERSION", "pg_replslot/", "pg_wal/"]);
}

#[test]
fn the_control_file_temporary_files_and_unlogged_forks_are_left_out() {
    let root = tree(&[
        "global/pg_control",
        "global/1262",
        "base/5/16384",
        "base/5/16384_fsm",
        "base/5/16384_init",
        "base/5/t3_16500",
        "base/pgsql_tmp/pgsql_tmp1.0",
    ]);
    let found = paths(walk(root.path(), &Outcome::new()));
    assert_eq!(found, ["base/", "base/5/", "base/5/16384_init", "global/", "global/1262"]);
}

#[test]
fn only_known_tablespaces_and_our_version_are_entered() {
    let space = tree(&["PG_15_202209061/5/1", "PG_14_202107181/5/2"]);
    let root = tree(&["pg_tblspc/"]);
    symlink(space.path(), root.path().join("pg_tblspc/16385")).unwrap();
    symlink(space.path(), root.path().join("pg_tblspc/99999")).unwrap();
    fs::create_dir_all(root.path().join("pg_tblspc/77777/PG_15_202209061/5")).unwrap();
    let outcome = Outcome::new();
    let found = paths(walk(root.path(), &outcome));
    assert_eq!(warned(&outcome), ["pg_tblspc/77777"], "recovery would stop at it");
    assert_eq!(
        found,
        [
            "pg_tblspc/",
            "pg_tblspc/16385/",
            "pg_tblspc/16385/PG_15_202209061/",
            "pg_tblspc/16385/PG_15_202209061/5/",
            "pg_tblspc/16385/PG_15_202209061/5/1",
        ]
    );
}

#[test]
fn links_are_followed_and_those_without_an_end_are_reported() {
    let elsewhere = tree(&["conf"]);
    let root = tree(&["log/a"]);
    symlink(elsewhere.path().join("conf"), root.path().join("postgresql.conf")).unwrap();
    symlink(root.path(), root.path().join("log/up")).unwrap();
    symlink("/nowhere", root.path().join("dangling")).unwrap();
    let _socket = UnixListener::bind(root.path().join(".s.PGSQL.5432")).unwrap();
    let outcome = Outcome::new();
    assert_eq!(paths(walk(root.path(), &outcome)), ["log/", "log/a", "log/up/", "postgresql.conf"]);
    assert_eq!(warned(&outcome), ["dangling", "log/up"]);
}

/// The subjects of all warnings, in order.
fn warned(outcome: &Outcome) -> Vec<String> {
    let findings = outcome.findings().into_iter();
    let warnings = findings.filter(|found| found.level == FindingLevel::Warning);
    let mut subjects: Vec<String> = warnings.map(|found| found.subject).collect();
    subjects.sort();
    subjects
}

#[test]
fn a_link_that_is_followed_is_told_with_its_target_and_what_a_restore_makes() {
    let elsewhere = tree(&["log/000000010000000000000001", "logs/monday", "conf"]);
    let space = tree(&["PG_15_202209061/5/1"]);
    let root = tree(&["pg_tblspc/", "base/1"]);
    symlink(elsewhere.path().join("log"), root.path().join("pg_wal")).unwrap();
    symlink(elsewhere.path().join("logs"), root.path().join("logs")).unwrap();
    symlink(elsewhere.path().join("conf"), root.path().join("postgresql.conf")).unwrap();
    // The server makes it again where the tablespace then is.
    symlink(space.path(), root.path().join("pg_tblspc/16385")).unwrap();
    let outcome = Outcome::new();
    let found = paths(walk(root.path(), &outcome));
    assert!(found.contains(&"pg_wal/".into()) && found.contains(&"logs/monday".into()), "{found:?}");
    let told: Vec<(FindingLevel, String, String)> =
        outcome.findings().into_iter().map(|found| (found.level, found.subject, found.message)).collect();
    let expected =
        [("logs", "logs", "directory"), ("pg_wal", "log", "directory"), ("postgresql.conf", "conf", "file")];
    let expected = expected.map(|(subject, target, kind)| {
        let target = elsewhere.path().join(target);
        let message =
            format!("is a link to {}: a restore makes an ordinary {kind} in its place", target.display());
        (FindingLevel::Info, subject.to_owned(), message)
    });
    assert_eq!(told, expected);
}

#[test]
fn a_special_file_is_passed_over_with_a_warning_and_never_opened() {
    let root = tree(&["PG_VERSION"]);
    let make = |name: &str| {
        let path = root.path().join(name);
        // Whoever opens one for reading waits for somebody who writes.
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        path
    };
    let pipe = make("pipe");
    symlink(pipe, root.path().join("link to it")).unwrap();
    let outcome = Outcome::new();
    assert_eq!(paths(walk(root.path(), &outcome)), ["PG_VERSION"]);
    assert_eq!(warned(&outcome), ["link to it", "pipe"]);
    let findings = outcome.findings();
    assert_eq!(findings.len(), 2, "{findings:?}");
    for found in findings {
        assert_eq!(found.message, "is neither a file nor a directory and not part of the backup");
    }
}

#[test]
fn what_vanishes_while_we_walk_is_passed_over() {
    let root = tree(&["base/5/1", "base/5/2", "base/6/1", "c"]);
    let mut walk = walk(root.path(), &Outcome::new());
    for _ in 0..3 {
        walk.next().unwrap().unwrap();
    }
    fs::remove_file(root.path().join("base/5/2")).unwrap();
    fs::remove_dir_all(root.path().join("base/6")).unwrap();
    assert_eq!(paths(walk), ["c"]);
}

#[test]
fn a_missing_data_directory_is_an_error() {
    assert!(Walk::new(Path::new("/nowhere"), vec![], String::new(), Outcome::new()).is_err());
}
