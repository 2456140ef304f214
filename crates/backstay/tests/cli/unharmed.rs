//! What has to be as it was after a run that failed: the databases, who may connect to
//! them, the shelf, and every corner in which something could be left.

use std::path::{Path, PathBuf};
use std::time::Duration;

use testkit::{Postgres, wait_until};

use super::dumps::shown;
use super::program::Home;

const LIMIT: Duration = Duration::from_secs(60);

/// Everything that a failed run must not have changed.
#[derive(Debug, PartialEq, Eq)]
pub struct State {
    /// With whether they let connections in, and how many.
    databases: String,
    /// Of `shop`.
    rows: String,
    /// The files of the shelf with their sizes.
    files: Vec<(PathBuf, u64)>,
}

pub fn state(server: &Postgres, home: &Home) -> State {
    let all = "SELECT string_agg(concat_ws(' ', datname, datallowconn, datconnlimit), ', ' ORDER BY datname) \
               FROM pg_database";
    let rows = "SELECT concat_ws('|', count(*), min(x), max(x), sum(id)) FROM orders";
    let size = |path: PathBuf| {
        let size = std::fs::metadata(&path).unwrap().len();
        (path, size)
    };
    State {
        databases: server.query_value(all).unwrap(),
        rows: server.query_value_in("shop", rows).unwrap(),
        files: shown(&home.path("dumps")).into_iter().map(size).collect(),
    }
}

/// Fails unless all is as it was, nothing hidden lies about, and no session of ours lives.
#[track_caller]
pub fn unharmed(server: &Postgres, home: &Home, before: &State, what: &str) {
    no_sessions(server, what);
    assert_eq!(&state(server, home), before, "{what}");
    assert_eq!(strays(&home.path("dumps")), Vec::<PathBuf>::new(), "{what}");
    assert_eq!(strays(&home.path("spool")), Vec::<PathBuf>::new(), "{what}");
}

/// Nobody of us is connected any more: a server ends a session when it notices that its
/// client is gone.
#[track_caller]
pub fn no_sessions(server: &Postgres, what: &str) {
    let ours = "SELECT string_agg(query, '; ') FROM pg_stat_activity \
                WHERE application_name IN ('backstay', 'pg_dump', 'pg_restore', 'psql') \
                AND pid <> pg_backend_pid()";
    let gone = wait_until(LIMIT, "our sessions to end", || {
        server.query_value(ours).is_ok_and(|queries| queries.is_empty())
    });
    assert!(gone.is_ok(), "{what}: {:?}", server.query_value(ours));
}

/// Hidden files and directories with something in them: what was on its way and stayed.
pub fn strays(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        let is_hidden = entry.file_name().to_string_lossy().starts_with('.');
        // The place of the unfinished stays, empty but for the lock of a shelf.
        let is_empty_place = entry.file_name() == ".unfinished"
            && std::fs::read_dir(&path)
                .is_ok_and(|entries| entries.flatten().all(|entry| entry.file_name() == "lock"));
        match path.is_dir() {
            _ if is_hidden && !is_empty_place => found.push(path),
            true => found.extend(strays(&path)),
            false => {}
        }
    }
    found
}
