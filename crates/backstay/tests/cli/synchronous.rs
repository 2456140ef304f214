//! Commits that wait for the archive: none that was confirmed is lost with the server, and
//! the server is never held up by it otherwise.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use testkit::postgres::StopMode;
use testkit::{Postgres, PostgresOptions, PostgresVersion, require_tampering, tampered, wait_until};

use super::takeovers::Moving;
use super::windows::LIMIT;

const SYNCHRONOUS: &str = "synchronous = true";
/// Far more than a checkpoint takes, and less than any time-out of a server.
const IN_TIME: Duration = Duration::from_secs(20);

fn waited_for(version: PostgresVersion) -> Option<Moving> {
    let moving = Moving::new(version, &PostgresOptions::default(), SYNCHRONOUS)?;
    moving.server.append_configuration(&["synchronous_standby_names = 'backstay'"]).unwrap();
    moving.server.reload().unwrap();
    is_counted(&moving.server);
    Some(moving)
}

fn is_counted(server: &Postgres) {
    let question = "SELECT count(*) FROM pg_stat_replication WHERE application_name = 'backstay' \
                    AND state = 'streaming' AND sync_state = 'sync'";
    wait_until(LIMIT, "an archive that commits wait for", || {
        server.query_value(question).is_ok_and(|count| count == "1")
    })
    .unwrap();
}

/// A commit that is begun and not waited for.
fn begin_row(server: &Postgres, number: u32) -> Child {
    let mut psql = server.tool("psql");
    psql.args(["--no-psqlrc", "--quiet", "--command"]).arg(format!("INSERT INTO t VALUES ({number})"));
    psql.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn wait_for_a_waiting_commit(server: &Postgres) {
    let question = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    wait_until(LIMIT, "a commit that waits", || server.query_value(question).unwrap() != "0").unwrap();
}

/// How much each file of the log in a spool holds.
fn spooled_bytes(directory: &Path) -> Vec<u64> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap().flatten() {
        if entry.path().is_dir() {
            found.extend(spooled_bytes(&entry.path()));
        } else if entry.file_name().len() == 16 {
            found.push(entry.metadata().unwrap().len());
        }
    }
    found
}

#[test]
fn a_confirmed_commit_survives_the_server_and_a_kill_of_both() {
    for version in PostgresVersion::ALL {
        let Some(mut moving) = waited_for(version) else { return };
        for number in 1..=40 {
            moving.row(number);
        }
        moving.server.kill9().unwrap();
        moving.kill_archive();
        std::fs::remove_dir_all(moving.server.data_directory()).unwrap();
        // What lies in the spool goes to the store, although there is no server.
        moving.receive();
        let rows: Vec<String> = (1..=40).map(|number| number.to_string()).collect();
        let mut archive = moving.archive.take().unwrap();
        let lines = BufReader::new(archive.stderr.take().unwrap());
        let waits = lines.lines().map_while(Result::ok).any(|line| line.contains("waiting: "));
        assert!(waits, "the archive ended");
        kill_process(Pid::from_child(&archive), Signal::INT).unwrap();
        assert_eq!(archive.wait().unwrap().code(), Some(0));
        assert_eq!(moving.rows(&[]), rows.join(" "));
    }
}

#[test]
fn a_commit_waits_until_the_disk_of_the_spool_has_it() {
    let Some(mut moving) = waited_for(PostgresVersion::V17) else { return };
    if !require_tampering() {
        return;
    }
    moving.row(1);
    moving.wait_for_store();
    moving.kill_archive();
    std::fs::remove_dir_all(moving.home.path("spool")).unwrap();
    let mut commit = begin_row(&moving.server, 2);
    wait_for_a_waiting_commit(&moving.server);
    assert!(commit.try_wait().unwrap().is_none(), "a commit did not wait for an archive that is gone");
    // An archive whose disk takes the bytes and fails to keep them.
    let command = moving.home.command(["archive", "orders"]);
    let log = moving.home.path("calls");
    let failing =
        tampered(&command, "fdatasync,ftruncate", &["fdatasync:error=EIO"], None, &log).output().unwrap();
    assert_eq!(failing.status.code(), Some(6), "{failing:?}");
    assert!(String::from_utf8_lossy(&failing.stderr).contains("Input/output error"), "{failing:?}");
    assert!(commit.try_wait().unwrap().is_none(), "a commit was confirmed that no disk has");
    // What can still be read of it would be believed.
    let spooled = spooled_bytes(&moving.home.path("spool"));
    assert!(spooled.len() == 1 && spooled[0] == 0, "{spooled:?}");
    moving.receive();
    wait_until(LIMIT, "the commit", || commit.try_wait().unwrap().is_some()).unwrap();
    moving.wait_for_store();
    assert_eq!(moving.rows(&[]), "1 2");
}

#[test]
fn a_server_stops_and_moves_in_time_although_commits_wait_for_the_archive() {
    for version in PostgresVersion::ALL {
        let Some(mut moving) = waited_for(version) else { return };
        moving.server.pgbench_init(1).unwrap();
        let load = moving.server.pgbench_load().unwrap();
        let begun = Instant::now();
        moving.server.stop(StopMode::Fast).unwrap();
        assert!(begun.elapsed() < IN_TIME, "{:?}", begun.elapsed());
        load.stop();
        moving.server.start().unwrap();
        is_counted(&moving.server);
        moving.row(1);
        // As Patroni does it: the primary stops in order, then its standby takes over.
        let standby = moving.server.standby().unwrap();
        standby.sql("SELECT pg_create_physical_replication_slot('backstay_orders', true)").unwrap();
        let load = moving.server.pgbench_load().unwrap();
        let begun = Instant::now();
        moving.server.stop(StopMode::Fast).unwrap();
        moving.take_over(standby);
        moving.row(2);
        assert!(begun.elapsed() < IN_TIME, "{:?}", begun.elapsed());
        load.stop();
        moving.wait_for_store();
        assert_eq!(moving.rows(&[]), "1 2");
    }
}

#[test]
fn a_commit_that_was_received_before_its_confirmation_is_confirmed_to_the_next_connection() {
    let Some(mut moving) = waited_for(PostgresVersion::V15) else { return };
    // The commit arrives and is kept, and nothing that is said of it.
    moving.way.silence();
    let mut commit = begin_row(&moving.server, 1);
    wait_for_a_waiting_commit(&moving.server);
    moving.wait_for_store();
    moving.kill_archive();
    assert!(commit.try_wait().unwrap().is_none(), "nobody confirmed it");
    let begun = Instant::now();
    moving.receive();
    wait_until(LIMIT, "the commit", || commit.try_wait().unwrap().is_some()).unwrap();
    // Without waiting for something else to say.
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
}

#[test]
fn an_archive_says_whether_commits_wait_for_it() {
    for (names, settings, words) in [
        ("", SYNCHRONOUS, "warning: orders: no commit waits for this archive"),
        ("backstay", SYNCHRONOUS, "orders: every commit waits until it is durable here"),
        ("*", "", "warning: orders: every commit waits up to a quarter of a second"),
    ] {
        let Some(mut moving) = Moving::new(PostgresVersion::V15, &PostgresOptions::default(), settings)
        else {
            return;
        };
        moving.kill_archive();
        moving.server.append_configuration(&[&format!("synchronous_standby_names = '{names}'")]).unwrap();
        moving.server.reload().unwrap();
        moving.receive();
        let mut archive = moving.archive.take().unwrap();
        let lines = BufReader::new(archive.stderr.take().unwrap());
        let said = lines.lines().map_while(Result::ok).find(|line| line.contains("commit"));
        archive.kill().unwrap();
        archive.wait().unwrap();
        assert!(said.as_ref().is_some_and(|line| line.contains(words)), "{said:?} for {names:?}");
    }
}
