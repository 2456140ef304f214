//! Recoveries that lose what they need half-way: what was restored goes on where it stopped,
//! and never opens with less.

use std::path::{Path, PathBuf};
use std::process::{Child, Output};

use rustix::process::{Pid, Signal, kill_process};
use testkit::ownership::server_owner;
use testkit::{Postgres, PostgresVersion, wait_for, wait_until};

use super::super::cut_leashes::Away;
use super::super::space::on_small_file_system;
use super::standby::move_away;
use super::{Archived, LIMIT, ROWS};

/// So slow that the end of the log is seconds away when the server starts.
const SLOWLY: &str = "repository.max_download_rate=1MiB";

/// A restore whose private server has begun to replay.
fn recovering(version: PostgresVersion) -> Option<(Archived, Child, Pid, PathBuf)> {
    let mut archived = Archived::new(version)?;
    let bulk = "SELECT md5(random()::text) AS x FROM generate_series(1, 150000)";
    archived.server.sql(&format!("CREATE TABLE bulk AS {bulk}")).unwrap();
    archived.insert(1);
    archived.stop_receiving();
    server_owner().unwrap().take_all(&archived.home.path("")).unwrap();
    let into = archived.place();
    let words = ["restore", "orders", "--start", "--set", SLOWLY, "--into", into.to_str().unwrap()];
    let mut restore = archived.home.start(words);
    let server = wait_for(LIMIT, "the private server", || {
        assert!(restore.try_wait().unwrap().is_none(), "it ended before it was cut short");
        let text = std::fs::read_to_string(into.join("postmaster.pid")).ok()?;
        text.lines().next().and_then(|line| line.parse().ok()).and_then(Pid::from_raw)
    })
    .unwrap();
    Some((archived, restore, server, into))
}

/// Whoever starts it by hand gets everything.
fn goes_on(archived: &Archived, into: &Path) {
    let copy = Postgres::start_on(archived.server.installation(), into).unwrap();
    let all = |copy: &Postgres| {
        copy.query_value(&format!("SELECT ({ROWS}) || ' of ' || (SELECT count(*) FROM bulk)"))
    };
    let expected = "1 of 150000";
    wait_until(LIMIT, "all rows", || all(&copy).is_ok_and(|found| found == expected)).unwrap();
    wait_until(LIMIT, "the server to open", || {
        copy.query_value("SELECT pg_is_in_recovery()").is_ok_and(|is_recovering| is_recovering == "f")
    })
    .unwrap();
}

fn ended(restore: Child) -> Output {
    restore.wait_with_output().unwrap()
}

#[test]
fn a_recovery_whose_log_vanishes_is_no_proof_although_the_server_opened() {
    let Some((archived, restore, _, into)) = recovering(PostgresVersion::V17) else { return };
    let object = archived.home.objects("/log/").remove(0);
    let log = object.ancestors().find(|path| path.ends_with("log")).unwrap().to_owned();
    // To the server it is as if the archive ended: nothing is listed any more.
    move_away(&log, &archived.home.path("away"));
    let said = ended(restore);
    let (text, report) = (String::from_utf8_lossy(&said.stderr), String::from_utf8_lossy(&said.stdout));
    assert_eq!(said.status.code(), Some(20), "{text}{report}");
    assert!(report.contains("replayed to") && report.contains("WRONG"), "{text}{report}");
    assert!(!into.join("postmaster.pid").exists(), "{text}");
}

#[test]
fn a_restore_that_is_killed_takes_its_server_along_and_leaves_what_goes_on() {
    let Some((archived, restore, server, into)) = recovering(PostgresVersion::V15) else { return };
    kill_process(Pid::from_child(&restore), Signal::KILL).unwrap();
    assert_eq!(ended(restore).status.code(), None);
    wait_until(LIMIT, "the end of the private server", || {
        rustix::process::test_kill_process(server).is_err()
    })
    .unwrap();
    goes_on(&archived, &into);
}

#[test]
fn a_recovery_whose_store_dies_is_an_error_and_goes_on_when_it_is_back() {
    let Some((archived, restore, _, into)) = recovering(PostgresVersion::V15) else { return };
    let away = Away::begin(&archived.home);
    let said = ended(restore);
    let text = String::from_utf8_lossy(&said.stderr);
    assert!(!said.status.success(), "{text}");
    assert!(text.contains("error: ") && text.contains("os error 40"), "{text}");
    assert!(!into.join("postmaster.pid").exists(), "{text}");
    // Nobody opened it with less.
    assert!(!into.join("pg_wal/00000002.history").exists(), "{text}");
    drop(away);
    goes_on(&archived, &into);
}

#[test]
fn a_recovery_whose_disk_fills_up_is_an_error_and_leaves_the_archive_as_it_was() {
    let Some(mut archived) = Archived::new(PostgresVersion::V17) else { return };
    let bulk = "SELECT md5(random()::text) AS x FROM generate_series(1, 600000)";
    archived.server.sql(&format!("CREATE TABLE bulk AS {bulk}")).unwrap();
    archived.insert(1);
    archived.stop_receiving();
    server_owner().unwrap().take_all(&archived.home.path("")).unwrap();
    let place = archived.place();
    let script = format!(
        "\"$BACKSTAY\" --config '{}' restore orders --start --into '{}'; echo \"code=$?\"",
        archived.home.config().display(),
        place.join("restored").display()
    );
    // The base has its place, and what is replayed has not.
    let Some(ran) = on_small_file_system(&place, 72, &script) else { return };
    assert_eq!(ran.out, "code=6\n", "{ran:#?}");
    assert!(ran.err.contains("No space left on device") && ran.err.contains("df -h"), "{ran:#?}");
    assert_eq!(archived.rows(&[]), "1");
}
