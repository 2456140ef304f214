//! A server that is gone, and another in its place: what an archive makes of machines that
//! do not say goodbye, and of standbys that lack what their primary had sent.

use std::process::Child;

use backstay_model::Lsn;
use testkit::postgres::{PASSWORD, SUPERUSER};
use testkit::{Postgres, PostgresOptions, PostgresVersion, Way, Workspace, wait_until};

use super::cut_leashes::{Away, wait_until_acknowledged};
use super::program::{Home, server_of};
use super::windows::{LIMIT, end_of_log, spans, status};

pub const SLOT: &str = "SELECT pg_create_physical_replication_slot('backstay_orders', true)";

/// A server behind a way, whose log is archived while this lives, and a base of it.
pub struct Moving {
    pub server: Postgres,
    pub way: Way,
    pub home: Home,
    pub archive: Option<Child>,
}

impl Moving {
    pub fn new(version: PostgresVersion, options: &PostgresOptions, archive: &str) -> Option<Moving> {
        let server = server_of(version, options)?;
        server.sql("CREATE TABLE t (n int)").unwrap();
        let way = Way::to(server.port()).unwrap();
        let home = Home::new();
        home.init();
        home.add("orders", &server, SUPERUSER, PASSWORD, false);
        let text = std::fs::read_to_string(home.config()).unwrap();
        let (direct, through) = (format!(":{}/", server.port()), format!(":{}/", way.port));
        std::fs::write(home.config(), text.replace(&direct, &through)).unwrap();
        home.append(&format!(
            "policy = {{ rpo = \"200ms\" }}\n\n[instance.orders.archive]\nspool = \"spool\"\n{archive}\n"
        ));
        let mut moving = Moving { server, way, home, archive: None };
        moving.receive();
        wait_until(LIMIT, "the first of the log", || !spans(&moving.home).is_empty()).unwrap();
        moving.home.run(["backup", "orders", "--quiet"]).good();
        Some(moving)
    }

    pub fn receive(&mut self) {
        self.archive = Some(self.home.start(["archive", "orders"]));
    }

    pub fn kill_archive(&mut self) {
        if let Some(mut archive) = self.archive.take() {
            archive.kill().unwrap();
            archive.wait().unwrap();
        }
    }

    pub fn row(&self, number: u32) {
        self.server.sql(&format!("INSERT INTO t VALUES ({number})")).unwrap();
    }

    /// Until the store has all that the server wrote, on whatever timeline.
    #[track_caller]
    pub fn wait_for_store(&self) {
        let end = end_of_log(&self.server);
        let there = || spans(&self.home).iter().any(|(_, _, stored)| *stored >= end.0);
        wait_until(LIMIT, format!("the log to {end}"), there).unwrap();
    }

    /// The standby goes on in the place of the server, which is gone.
    pub fn take_over(&mut self, standby: Postgres) {
        standby.promote().unwrap();
        self.way.lead_to(standby.port());
        self.way.cut();
        self.server = standby;
    }

    /// The rows after a restore with these words.
    #[track_caller]
    pub fn rows(&self, words: &[&str]) -> String {
        let place = Workspace::new().unwrap();
        let into = place.path().join("restored");
        let all = [&["restore", "orders", "--start", "--into", into.to_str().unwrap()], words].concat();
        self.home.run(all).good();
        let copy = Postgres::start_on(self.server.installation(), &into).unwrap();
        copy.query_value("SELECT coalesce(string_agg(n::text, ' ' ORDER BY n), '-') FROM t").unwrap()
    }
}

impl Drop for Moving {
    fn drop(&mut self) {
        self.kill_archive();
    }
}

#[test]
fn a_server_that_does_not_answer_any_more_is_given_up_and_found_again() {
    let options = PostgresOptions::default().configure("wal_sender_timeout = 2s");
    let Some(moving) = Moving::new(PostgresVersion::V17, &options, "") else { return };
    moving.row(1);
    moving.wait_for_store();
    // As when its machine is gone: nothing comes of what there is, and nothing ends.
    moving.way.strand();
    moving.row(2);
    moving.wait_for_store();
    assert_eq!(moving.rows(&[]), "1 2");
}

#[test]
fn an_idle_server_is_not_given_up() {
    let options = PostgresOptions::default().configure("wal_sender_timeout = 1s");
    let Some(moving) = Moving::new(PostgresVersion::V15, &options, "") else { return };
    moving.wait_for_store();
    let pid = "SELECT active_pid FROM pg_replication_slots WHERE slot_name = 'backstay_orders'";
    let before = moving.server.query_value(pid).unwrap();
    let later =
        "SELECT pg_sleep(3.5), active_pid FROM pg_replication_slots WHERE slot_name = 'backstay_orders'";
    assert_eq!(moving.server.query_value(later).unwrap(), format!("|{before}"));
    assert!(!before.is_empty());
}

#[test]
fn the_log_goes_on_with_a_standby_that_lacked_what_its_primary_had_sent() {
    for version in PostgresVersion::ALL {
        let Some(mut moving) = Moving::new(version, &PostgresOptions::default(), "") else { return };
        moving.row(1);
        let standby = moving.server.standby().unwrap();
        standby.sql(SLOT).unwrap();
        standby.wait_for_replay_of(&moving.server).unwrap();
        standby.sql("ALTER SYSTEM SET primary_conninfo = ''").unwrap();
        standby.reload().unwrap();
        let connected = "SELECT count(*) FROM pg_stat_wal_receiver";
        wait_until(LIMIT, "a standby without its primary", || standby.query_value(connected).unwrap() == "0")
            .unwrap();
        moving.row(2);
        moving.wait_for_store();
        moving.server.kill9().unwrap();
        moving.take_over(standby);
        moving.row(3);
        wait_until(LIMIT, "the log of the second timeline", || {
            let told = status(&moving.home);
            told["archive"]["lag_bytes"] == 0
                && told["archive"]["position"].as_str().is_some_and(|at| at.starts_with("2@"))
        })
        .unwrap();
        assert_eq!(status(&moving.home)["holes"], serde_json::json!([]));
        assert_eq!(moving.rows(&[]), "1 3");
        assert_eq!(moving.rows(&["--target-timeline", "1"]), "1 2");
    }
}

#[test]
fn a_store_that_is_away_keeps_no_archive_from_a_server_on_a_new_timeline() {
    for version in PostgresVersion::ALL {
        let Some(mut moving) = Moving::new(version, &PostgresOptions::default(), "") else { return };
        moving.row(1);
        moving.wait_for_store();
        let standby = moving.server.standby().unwrap();
        standby.sql(SLOT).unwrap();
        let away = Away::begin(&moving.home);
        moving.row(2);
        wait_until_acknowledged(&moving.server);
        standby.wait_for_replay_of(&moving.server).unwrap();
        moving.server.kill9().unwrap();
        moving.take_over(standby);
        // Nothing but what lies in the spool says where it goes on.
        moving.kill_archive();
        moving.receive();
        moving.row(3);
        wait_until_acknowledged(&moving.server);
        moving.kill_archive();
        moving.receive();
        moving.row(4);
        wait_until_acknowledged(&moving.server);
        drop(away);
        moving.wait_for_store();
        assert_eq!(status(&moving.home)["holes"], serde_json::json!([]));
        assert_eq!(moving.rows(&[]), "1 2 3 4");
    }
}

#[test]
fn a_standby_that_takes_over_without_the_log_that_was_missed_leaves_a_gap_that_is_told() {
    for version in PostgresVersion::ALL {
        let options =
            PostgresOptions::default().configure("wal_keep_size = 0").configure("min_wal_size = 32MB");
        let Some(mut moving) = Moving::new(version, &options, "on_max_lag = \"gap\"") else { return };
        moving.row(1);
        moving.wait_for_store();
        moving.kill_archive();
        let missed_from = end_of_log(&moving.server);
        for _ in 0..3 {
            moving.row(2);
            moving.server.sql("SELECT pg_switch_wal(); CHECKPOINT").unwrap();
        }
        // It begins behind what nobody received.
        let standby = moving.server.standby().unwrap();
        standby.sql(SLOT).unwrap();
        moving.row(3);
        standby.wait_for_replay_of(&moving.server).unwrap();
        moving.server.kill9().unwrap();
        moving.take_over(standby);
        moving.row(4);
        moving.receive();
        wait_until(LIMIT, "a base behind the gap", || moving.home.backups().len() >= 2).unwrap();
        moving.row(5);
        moving.wait_for_store();
        assert_eq!(moving.rows(&[]), "1 2 2 2 3 4 5");
        let told = status(&moving.home);
        let holes = told["holes"].as_array().unwrap();
        assert_eq!(holes.len(), 1, "{told:#}");
        assert!(holes[0]["given_up_at"].is_string(), "{told:#}");
        let into = moving.home.path("within");
        let to = format!("lsn:{}", Lsn(missed_from.0 + (20 << 20)));
        let words = ["restore", "orders", "--to", &to, "--into", into.to_str().unwrap()];
        moving.home.run(words).refused(9, &["the nearest are"]);
        assert!(!into.exists());
        moving.home.run(["verify", "orders", "--level", "structure"]).good();
    }
}
