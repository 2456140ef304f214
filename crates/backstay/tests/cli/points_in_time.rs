//! Restores to points of an archived log, by the real program and real servers: each target
//! gives exactly the rows that were committed by then.

use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use backstay_model::Lsn;
use rustix::process::{Pid, Signal, kill_process};
use testkit::postgres::{PASSWORD, SUPERUSER, StopMode};
use testkit::{Postgres, PostgresOptions, PostgresVersion, Workspace, wait_until};

use super::program::{Home, Ran, server_of};

const LIMIT: Duration = Duration::from_secs(90);

/// A server whose log is archived while this lives, and a base at its beginning.
struct Archived {
    server: Postgres,
    home: Home,
    archive: Option<Child>,
    places: Workspace,
    restored: u32,
}

/// A row, and where its transaction stands in the log.
#[derive(Debug, Clone)]
struct Marker {
    row: u32,
    xid: String,
    /// By the clock of the server, when it was committed.
    time: String,
    /// Where the log ended after it.
    lsn: String,
}

impl Archived {
    fn new(version: PostgresVersion) -> Option<Archived> {
        let options = PostgresOptions::default().configure("track_commit_timestamp = on");
        let server = server_of(version, &options)?;
        let home = Home::new();
        home.init();
        home.add("orders", &server, SUPERUSER, PASSWORD, true);
        home.append("policy = { rpo = \"200ms\" }\n\n[instance.orders.archive]\nspool = \"spool\"\n");
        server.sql("CREATE TABLE t (n int)").unwrap();
        let places = Workspace::new().unwrap();
        let mut archived = Archived { server, home, archive: None, places, restored: 0 };
        archived.receive();
        wait_until(LIMIT, "the first of the log", || !archived.home.objects("/log/").is_empty()).unwrap();
        archived.home.run(["backup", "orders", "--quiet"]).good();
        Some(archived)
    }

    fn receive(&mut self) {
        self.archive = Some(self.home.start(["archive", "orders"]));
    }

    fn insert(&self, row: u32) -> Marker {
        self.server.sql(&format!("INSERT INTO t VALUES ({row})")).unwrap();
        let value = |question: &str| self.server.query_value(question).unwrap();
        Marker {
            row,
            xid: value(&format!("SELECT xmin FROM t WHERE n = {row}")),
            time: value(&format!(
                "SELECT to_char(pg_xact_commit_timestamp(xmin) AT TIME ZONE 'UTC', \
                 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') FROM t WHERE n = {row}"
            )),
            lsn: value("SELECT pg_current_wal_lsn()"),
        }
    }

    fn end_of_log(&self) -> Lsn {
        self.server.query_value("SELECT pg_current_wal_flush_lsn()").unwrap().parse().unwrap()
    }

    /// Waits until the store has all there is, and stops receiving.
    fn stop_receiving(&mut self) {
        let end = self.end_of_log();
        wait_until(LIMIT, format!("the log to {end}"), || stored_to(&self.home) >= end.0).unwrap();
        self.end_archive(Signal::INT);
    }

    fn end_archive(&mut self, signal: Signal) {
        let Some(archive) = self.archive.take() else { return };
        kill_process(Pid::from_child(&archive), signal).unwrap();
        archive.wait_with_output().unwrap();
    }

    fn place(&mut self) -> PathBuf {
        self.restored += 1;
        self.places.path().join(format!("restored-{}", self.restored))
    }

    /// A restore with these words, which is started and proved.
    fn restore(&mut self, words: &[&str]) -> (Ran, PathBuf) {
        let into = self.place();
        let begin = ["restore", "orders", "--start", "--into", into.to_str().unwrap()];
        (self.home.run(begin.iter().chain(words)), into)
    }

    /// The rows after a restore with these words.
    #[track_caller]
    fn rows(&mut self, words: &[&str]) -> String {
        let (ran, into) = self.restore(words);
        assert_eq!(ran.code, 0, "{words:?}: {ran:#?}");
        self.rows_in(&into)
    }

    fn rows_in(&self, directory: &Path) -> String {
        let copy = Postgres::start_on(self.server.installation(), directory).unwrap();
        let rows = copy.query_value(ROWS).unwrap();
        drop(copy);
        std::fs::remove_dir_all(directory).unwrap();
        rows
    }
}

impl Drop for Archived {
    fn drop(&mut self) {
        if let Some(archive) = &mut self.archive {
            let _ = archive.kill();
            let _ = archive.wait();
        }
    }
}

const ROWS: &str = "SELECT coalesce(string_agg(n::text, ' ' ORDER BY n), '-') FROM t";

/// The furthest position that the store has on any timeline.
fn stored_to(home: &Home) -> u64 {
    let names = home.objects("/log/").into_iter().filter_map(|path| {
        let name = path.file_name()?.to_str()?.to_owned();
        u64::from_str_radix(name.split_once('-')?.1, 16).ok()
    });
    names.max().unwrap_or(0)
}

#[test]
fn the_latest_state_and_a_time_come_back_with_exactly_their_rows() {
    for version in PostgresVersion::ALL {
        let Some(mut archived) = Archived::new(version) else { return };
        let first = archived.insert(1);
        archived.insert(2);
        let third = archived.insert(3);
        archived.server.sql("SELECT pg_switch_wal()").unwrap();
        archived.insert(4);
        archived.stop_receiving();
        assert_eq!(archived.rows(&["--to", &third.time]), "1 2 3");
        assert_eq!(archived.rows(&["--to", &third.time, "--exclusive"]), "1 2");
        assert_eq!(archived.rows(&["--to", &first.time]), "1");
        // The unfinished segment is served from what was received.
        archived.server.stop(StopMode::Immediate).unwrap();
        assert_eq!(archived.rows(&[]), "1 2 3 4");
    }
}
