//! Restores to points of an archived log, by the real program and real servers: each target
//! gives exactly the rows that were committed by then.

mod attended;
mod clocks;
mod cut_recoveries;
mod refused;
mod segments;
mod standby;
mod timelines;
mod without_backstay;

use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use backstay_model::Lsn;
use jiff::Timestamp;
use rustix::process::{Pid, Signal, kill_process};
use testkit::ownership::server_owner;
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
    xid: String,
    /// By the clock of the server, when it was committed.
    time: String,
    /// Where the log ended after it.
    lsn: String,
}

impl Archived {
    fn new(version: PostgresVersion) -> Option<Archived> {
        Archived::with(version, PostgresOptions::default())
    }

    fn with(version: PostgresVersion, options: PostgresOptions) -> Option<Archived> {
        let mut archived = Archived::without_log_of(version, options)?;
        archived.receive();
        wait_until(LIMIT, "the first of the log", || !archived.home.objects("/log/").is_empty()).unwrap();
        archived.home.run(["backup", "orders", "--quiet"]).good();
        Some(archived)
    }

    fn without_log(version: PostgresVersion) -> Option<Archived> {
        Archived::without_log_of(version, PostgresOptions::default())
    }

    fn without_log_of(version: PostgresVersion, options: PostgresOptions) -> Option<Archived> {
        let server = server_of(version, &options.configure("track_commit_timestamp = on"))?;
        let home = Home::new();
        home.init();
        home.add("orders", &server, SUPERUSER, PASSWORD, true);
        home.append("policy = { rpo = \"200ms\" }\n\n[instance.orders.archive]\nspool = \"spool\"\n");
        server.sql("CREATE TABLE t (n int)").unwrap();
        let places = Workspace::new().unwrap();
        Some(Archived { server, home, archive: None, places, restored: 0 })
    }

    fn receive(&mut self) {
        self.archive = Some(self.home.start(["archive", "orders"]));
    }

    fn insert(&self, row: u32) -> Marker {
        self.server.sql(&format!("INSERT INTO t VALUES ({row})")).unwrap();
        let value = |question: &str| self.server.query_value(question).unwrap();
        Marker {
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

    /// Until the store has all there is.
    fn wait_until_stored(&self) {
        let end = self.end_of_log();
        wait_until(LIMIT, format!("the log to {end}"), || stored_to(&self.home) >= end.0).unwrap();
    }

    /// Waits until the store has all there is, and stops receiving.
    fn stop_receiving(&mut self) {
        self.wait_until_stored();
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
        assert!(!ran.err.contains("the clock of"), "nobody set a clock: {ran:#?}");
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
fn every_kind_of_target_brings_exactly_its_rows() {
    for version in PostgresVersion::ALL {
        let Some(mut archived) = Archived::new(version) else { return };
        let first = archived.insert(1);
        let second = archived.insert(2);
        archived.server.sql("SELECT pg_create_restore_point('before deploy')").unwrap();
        let third = archived.insert(3);
        archived.server.sql("SELECT pg_switch_wal()").unwrap();
        archived.insert(4);
        archived.stop_receiving();
        let (xid, lsn) = (format!("xid:{}", third.xid), format!("lsn:{}", second.lsn));
        for (words, rows) in [
            (&["--to", &third.time][..], "1 2 3"),
            (&["--to", &third.time, "--exclusive"], "1 2"),
            (&["--to", &first.time], "1"),
            (&["--to", &xid], "1 2 3"),
            (&["--to", &xid, "--exclusive"], "1 2"),
            (&["--to", &lsn], "1 2"),
            (&["--to", &lsn, "--exclusive"], "1 2"),
            (&["--to", "name:before deploy"], "1 2"),
            (&["--to", "immediate"], "-"),
        ] {
            assert_eq!(archived.rows(words), rows, "{words:?} on {version:?}");
        }
        // The unfinished segment is served from what was received.
        archived.server.stop(StopMode::Immediate).unwrap();
        assert_eq!(archived.rows(&[]), "1 2 3 4");
    }
}

#[test]
fn a_base_that_is_older_than_the_archive_brings_what_that_does_not_have() {
    for version in PostgresVersion::ALL {
        let Some(mut archived) = Archived::without_log(version) else { return };
        archived.home.run(["backup", "orders", "--quiet"]).good();
        archived.server.sql("CHECKPOINT").unwrap();
        archived.receive();
        wait_until(LIMIT, "the first of the log", || stored_to(&archived.home) > 0).unwrap();
        archived.insert(1);
        let second = archived.insert(2);
        archived.insert(3);
        archived.stop_receiving();
        assert_eq!(archived.rows(&[]), "1 2 3");
        assert_eq!(archived.rows(&["--to", &second.time]), "1 2");
    }
}

#[test]
fn a_server_that_is_started_by_hand_fetches_its_log_itself_and_pauses_where_it_was_told() {
    for version in PostgresVersion::ALL {
        let Some(mut archived) = Archived::new(version) else { return };
        archived.insert(1);
        let second = archived.insert(2);
        archived.insert(3);
        archived.stop_receiving();
        // It calls the program as its own user, who must be able to read what that reads.
        server_owner().unwrap().take_all(&archived.home.path("")).unwrap();
        let into = archived.place();
        let to = format!("xid:{}", second.xid);
        let words =
            ["restore", "orders", "--to", &to, "--target-action", "pause", "--into", into.to_str().unwrap()];
        archived.home.run(words).good();
        let copy = Postgres::start_on(archived.server.installation(), &into).unwrap();
        let paused = "SELECT pg_is_in_recovery() AND pg_is_wal_replay_paused()";
        wait_until(LIMIT, "the server to pause", || copy.query_value(paused).is_ok_and(|is| is == "t"))
            .unwrap();
        assert_eq!(copy.query_value(ROWS).unwrap(), "1 2");
        for (setting, value) in [
            ("archive_mode", "off"),
            ("primary_conninfo", ""),
            ("primary_slot_name", ""),
            ("synchronous_standby_names", ""),
        ] {
            assert_eq!(copy.query_value(&format!("SHOW {setting}")).unwrap(), value, "{setting}");
        }
        copy.sql("SELECT pg_wal_replay_resume()").unwrap();
        wait_until(LIMIT, "the server to open", || copy.sql("INSERT INTO t VALUES (20)").is_ok()).unwrap();
        drop(copy);
        // Proved at its target, it waits there again for whoever starts it.
        let (proved, into) = archived.restore(&["--to", &to, "--target-action", "pause"]);
        let proved = proved.good();
        assert!(proved.out.contains("paused"), "{proved:#?}");
        let copy = Postgres::start_on(archived.server.installation(), &into).unwrap();
        wait_until(LIMIT, "the server to pause", || copy.query_value(paused).is_ok_and(|is| is == "t"))
            .unwrap();
        assert_eq!(copy.query_value(ROWS).unwrap(), "1 2");
    }
}

#[test]
fn a_drill_of_a_time_proves_that_it_came_there() {
    for version in PostgresVersion::ALL {
        let Some(mut archived) = Archived::new(version) else { return };
        let first = archived.insert(1);
        // The schema of the backup is not that of the target.
        archived.server.sql("CREATE TABLE later (n int); CREATE DATABASE later").unwrap();
        archived.stop_receiving();
        for to in [&first.time[..], "latest"] {
            let ran = archived.home.run(["drill", "orders", "--to", to, "--json"]).good();
            let report = &ran.json()[0];
            assert_eq!(report["sound"], true, "{report:#}");
            let checks = report["checks"].as_array().unwrap();
            for name in ["replayed to", "last transaction"] {
                assert!(checks.iter().any(|check| check["name"] == name), "{report:#}");
            }
        }
    }
}

#[test]
fn a_drill_goes_to_an_instant_of_the_log_that_nobody_chose() {
    for version in PostgresVersion::ALL {
        let Some(mut archived) = Archived::new(version) else { return };
        let first = archived.insert(1);
        archived.insert(2);
        archived.insert(3);
        archived.stop_receiving();
        let status = archived.home.run(["status", "orders", "--json"]).good().json();
        let window = &status[0]["recovery_windows"][0];
        let end = window["to"].as_str().unwrap().parse::<Timestamp>().unwrap();
        let drill = || {
            let ran = archived.home.run(["drill", "orders", "--json"]).good();
            let report = ran.json()[0].clone();
            assert_eq!(report["sound"], true, "{report:#}");
            let checks = report["checks"].as_array().unwrap();
            assert!(checks.iter().any(|check| check["name"] == "replayed to"), "{report:#}");
            report["target"].as_str().unwrap().parse::<Timestamp>().unwrap()
        };
        let (one, other) = (drill(), drill());
        assert!(one != other && one < end && other < end, "{one} and {other} of {status:#}");
        // It is where the proof stands as well.
        let status = archived.home.run(["status", "orders", "--json"]).good().json();
        assert_eq!(status[0]["last_drill"]["target"].as_str().map(|at| at.parse().unwrap()), Some(other));
        let said = archived.home.run(["drill", "orders", "--to", &first.time]).good();
        assert!(said.out.contains("restored to"), "{said:#?}");
    }
}
