//! The leash on bad days: a store that is away, a spool without room, a receiver that is
//! killed between what it does.

use std::path::{Path, PathBuf};
use std::process::Command;

use backstay_model::Lsn;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use testkit::{Postgres, PostgresOptions, PostgresVersion, wait_until};

use super::leash::{
    Archive, gaps, has_slot, held_bytes, leashed, only_the_gap_is_found, remembering, told_in_status,
    wait_for_base,
};
use super::program::{Home, backstay};
use super::windows::{LIMIT, Receiver, SEGMENT, row, spans, status, wait_for_log};

const GAP: &str = "max_lag = \"32MiB\"\non_max_lag = \"gap\"\n";

/// A store that does not take or show anything of the instance, until it is dropped.
pub struct Away {
    store: PathBuf,
    instance: &'static str,
}

impl Away {
    pub fn begin(home: &Home) -> Self {
        Away::of(home, "orders")
    }

    pub fn of(home: &Home, instance: &'static str) -> Self {
        // It leads to itself when it has the other name: whoever opens it meets an error.
        std::os::unix::fs::symlink(instance, home.path("store/away")).unwrap();
        let away = Away { store: home.path("store"), instance };
        away.exchange();
        away
    }

    /// At once: no moment has neither.
    fn exchange(&self) {
        let (one, other) = (self.store.join(self.instance), self.store.join("away"));
        renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).unwrap();
    }
}

impl Drop for Away {
    fn drop(&mut self) {
        self.exchange();
        std::fs::remove_file(self.store.join("away")).unwrap();
    }
}

/// A server whose log is received up to here, and a base.
fn received(server: &Postgres, settings: &str) -> Home {
    let home = leashed(server, settings);
    let receiver = Receiver::start(&home);
    home.run(["backup", "orders", "--quiet"]).good();
    row(server, 1);
    wait_for_log(&home, server);
    receiver.stop();
    home
}

/// Where a gap begins, as its name says.
fn begins(gap: &Path) -> Lsn {
    let name = gap.file_name().unwrap().to_str().unwrap();
    Lsn(u64::from_str_radix(&name[4..20], 16).unwrap())
}

fn stored_to(home: &Home) -> Lsn {
    Lsn(spans(home).iter().map(|(_, _, end)| *end).max().unwrap())
}

/// The server was told that everything is durable.
pub fn wait_until_acknowledged(server: &Postgres) {
    let question = "SELECT count(*) FROM pg_replication_slots \
                    WHERE slot_name = 'backstay_orders' AND restart_lsn >= pg_current_wal_flush_lsn()";
    wait_until(LIMIT, "a server that holds nothing", || server.query_value(question).unwrap() == "1")
        .unwrap();
}

#[test]
fn a_store_that_is_away_lets_the_spool_grow_and_the_server_go() {
    let Some(server) = remembering(PostgresVersion::V17, PostgresOptions::default()) else { return };
    let home = received(&server, "max_lag = \"96MiB\"\non_max_lag = \"gap\"\n");
    let mut archive = Archive::start(&home, &["archive", "orders"]);
    archive.says("receiving timeline");
    row(&server, 2);
    let away = Away::begin(&home);
    for number in 3..=5 {
        row(&server, number);
        wait_until_acknowledged(&server);
    }
    // A new connection finds in the spool where to go on.
    server.sql("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots").unwrap();
    archive.says("waiting: ");
    row(&server, 6);
    wait_until_acknowledged(&server);
    assert!(held_bytes(&server).unwrap() < SEGMENT);
    drop(away);
    wait_for_log(&home, &server);
    archive.stop();
    assert_eq!((gaps(&home).len(), home.backups().len()), (0, 1));
    assert_eq!(status(&home)["holes"].as_array().unwrap().len(), 0);
}

/// An archive whose spool has a file system of its own; nothing where that cannot be made.
fn on_small_spool(home: &Home, mebibytes: u32) -> Option<Archive> {
    let spool = home.path("spool/orders");
    std::fs::create_dir_all(&spool).unwrap();
    super::space::on_small_file_system(&spool, 1, "true")?;
    let program = backstay().get_program().to_owned();
    let script = format!(
        "mount -t tmpfs -o size={mebibytes}m tmpfs '{}' && exec \"$BACKSTAY\" archive orders",
        spool.display()
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script]).env("BACKSTAY", program).env("NO_COLOR", "1");
    command.env("XDG_CACHE_HOME", home.path("caches")).current_dir(home.config().parent().unwrap());
    let mut archive = Archive::of(home, command);
    archive.says("receiving timeline");
    Some(archive)
}

/// Step by step: a server that writes all of it at once may hold too much before the spool is full.
fn fill(server: &Postgres, archive: &mut Archive) {
    row(server, 2);
    wait_until_acknowledged(server);
    row(server, 3);
    archive.says("No space left on device");
    row(server, 4);
    archive.says("the server holds its log until there is room");
}

#[test]
fn a_spool_without_room_waits_and_tells_and_goes_on_when_there_is_some() {
    for version in PostgresVersion::ALL {
        let Some(server) = remembering(version, PostgresOptions::default()) else { return };
        let home = received(&server, "max_lag = \"48MiB\"\n");
        let Some(mut archive) = on_small_spool(&home, 20) else { return };
        let away = Away::begin(&home);
        fill(&server, &mut archive);
        archive.says("warning: the server holds ");
        for number in 5..=6 {
            row(&server, number);
        }
        archive.says("and archive.max_lag is 48.0 MiB: it goes on holding");
        let walsender = "SELECT count(*) FROM pg_replication_slots WHERE active";
        assert_eq!(server.query_value(walsender).unwrap(), "1", "the connection was given up");
        assert!(held_bytes(&server).unwrap() >= 48 << 20);
        drop(away);
        archive.says("the spool has room again");
        archive.says("all is well again");
        wait_for_log(&home, &server);
        assert_eq!(archive.said().matches("receiving timeline").count(), 1, "{}", archive.said());
        archive.stop();
        assert_eq!((gaps(&home).len(), home.backups().len()), (0, 1));
        assert_eq!(status(&home)["holes"].as_array().unwrap().len(), 0);
        home.run(["verify", "orders", "--level", "digest"]).good();
    }
}

#[test]
fn a_full_spool_before_a_store_that_is_away_costs_the_server_no_more_than_it_may() {
    for version in PostgresVersion::ALL {
        let Some(server) = remembering(version, PostgresOptions::default()) else { return };
        let home = received(&server, GAP);
        let Some(mut archive) = on_small_spool(&home, 20) else { return };
        let away = Away::begin(&home);
        fill(&server, &mut archive);
        row(&server, 5);
        archive.says("its slot backstay_orders was dropped");
        wait_until(LIMIT, "a server without the slot", || !has_slot(&server)).unwrap();
        // The word lies in the spool, which has no room for anything else.
        let note = home.path("spool/orders/note");
        let note = Path::new("/proc")
            .join(archive.pid().as_raw_nonzero().to_string())
            .join("root")
            .join(note.strip_prefix("/").unwrap());
        assert!(String::from_utf8(std::fs::read(note).unwrap()).unwrap().contains("max-lag"));
        row(&server, 6);
        assert!(!has_slot(&server), "it would hold log again, with no room for it");
        drop(away);
        archive.says("is taken: restores reach every instant");
        wait_for_base(&home, 2);
        let newest = row(&server, 7);
        wait_for_log(&home, &server);
        archive.stop();
        assert_eq!(gaps(&home).len(), 1);
        let from = begins(&gaps(&home)[0]);
        let told = told_in_status(&home, from, "archive.max_lag");
        assert_eq!(told["recovery_windows"][1]["to"], newest.to_string(), "{told}");
        // What the spool had taken before is in the store.
        assert!(told["recovery_windows"][0]["to_position"] == format!("1@{from}"), "{told}");
        only_the_gap_is_found(&home, "digest");
    }
}

#[test]
fn a_receiver_that_is_killed_on_the_way_over_a_gap_loses_nothing_in_silence() {
    for version in PostgresVersion::ALL {
        let Some(server) = remembering(version, PostgresOptions::default()) else { return };
        let home = received(&server, GAP);
        // What is received lies in the spool only.
        let mut archive = Archive::start(&home, &["archive", "orders"]);
        archive.says("receiving timeline");
        let away = Away::begin(&home);
        row(&server, 2);
        wait_until_acknowledged(&server);
        archive.kill();
        for number in 3..=5 {
            row(&server, number);
        }
        // Between the drop and everything behind it.
        let mut archive = Archive::start(&home, &["archive", "orders"]);
        archive.says("its slot backstay_orders was dropped");
        archive.kill();
        assert!(!has_slot(&server));
        let mut archive = Archive::start(&home, &["archive", "orders"]);
        archive.says("waiting: ");
        assert!(!has_slot(&server), "nobody knows yet why log is missing");
        archive.kill();
        drop(away);
        assert_eq!(gaps(&home).len(), 0);
        // Between the new slot and the base.
        let mut archive = Archive::start(&home, &["archive", "orders"]);
        archive.says("taking a base behind the gap");
        archive.kill();
        assert_eq!((gaps(&home).len(), home.backups().len()), (1, 1), "it was not killed on the way");
        let mut archive = Archive::start(&home, &["archive", "orders"]);
        archive.says("taking a base behind the gap");
        wait_for_base(&home, 2);
        let newest = row(&server, 6);
        wait_for_log(&home, &server);
        archive.stop();
        let from = begins(&gaps(&home)[0]);
        let told = told_in_status(&home, from, "archive.max_lag");
        assert_eq!(told["recovery_windows"][1]["to"], newest.to_string(), "{told}");
        assert!(stored_to(&home) > from);
        only_the_gap_is_found(&home, "digest");
    }
}

#[test]
fn no_slot_is_dropped_where_nobody_would_know_why_log_is_missing() {
    let Some(server) = remembering(PostgresVersion::V15, PostgresOptions::default()) else { return };
    let home = received(&server, GAP);
    // Nothing lies in the spool any more, so nobody can tell that the server is the right one.
    std::fs::remove_dir_all(home.path("spool")).unwrap();
    for number in 2..=4 {
        row(&server, number);
    }
    let away = Away::begin(&home);
    let mut archive = Archive::start(&home, &["archive", "orders"]);
    archive.says("waiting: log cannot be given up");
    assert!(has_slot(&server));
    drop(away);
    archive.says("its slot backstay_orders was dropped");
    wait_for_base(&home, 2);
    archive.stop();
    assert_eq!(gaps(&home).len(), 1);
}
