//! The leash: a server that holds too much log for its archive, or has let go of it. Told
//! or given up, as it was chosen, and never in silence.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use backstay_model::Lsn;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use testkit::postgres::{PASSWORD, SUPERUSER};
use testkit::{Postgres, PostgresOptions, PostgresVersion, wait_until};

use super::program::{Home, server_of};
use super::windows::{LIMIT, Receiver, SEGMENT, end_of_log, row, spans, status, wait_for_log};

/// An archive whose words go to a file.
pub struct Archive {
    child: Child,
    said: PathBuf,
}

impl Archive {
    pub fn start(home: &Home, words: &[&str]) -> Archive {
        Archive::of(home, home.command(words))
    }

    pub fn of(home: &Home, mut command: Command) -> Archive {
        let said = home.path("said");
        let to = File::create(&said).unwrap();
        let child = command.stdout(Stdio::null()).stderr(to).spawn().unwrap();
        Archive { child, said }
    }

    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.said).unwrap()
    }

    pub fn says(&mut self, word: &str) {
        let waited =
            wait_until(LIMIT, format!("an archive that says {word:?}"), || self.said().contains(word));
        waited.unwrap_or_else(|error| panic!("{error:?}: {}", self.said()));
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// With what it ends by itself.
    pub fn ends(mut self) -> (i32, String) {
        wait_until(LIMIT, "an archive that ends", || self.child.try_wait().unwrap().is_some()).unwrap();
        (self.child.wait().unwrap().code().unwrap_or(-1), self.said())
    }

    pub fn stop(self) {
        kill_process(self.pid(), Signal::INT).unwrap();
        let (code, said) = self.ends();
        assert_eq!(code, 0, "{said}");
    }
}

impl Drop for Archive {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A home whose server may hold that much.
pub fn leashed(server: &Postgres, settings: &str) -> Home {
    let home = Home::new();
    home.init();
    home.add("orders", server, SUPERUSER, PASSWORD, true);
    home.append(&format!(
        "policy = {{ rpo = \"200ms\" }}\n\n[instance.orders.archive]\nspool = \"spool\"\n{settings}"
    ));
    home
}

pub fn remembering(version: PostgresVersion, options: PostgresOptions) -> Option<Postgres> {
    let server = server_of(version, &options.configure("track_commit_timestamp = on"))?;
    server.sql("CREATE TABLE t (n int)").unwrap();
    Some(server)
}

fn forgetful() -> PostgresOptions {
    PostgresOptions::default()
        .configure("max_slot_wal_keep_size = 32MB")
        .configure("wal_keep_size = 0")
        .configure("min_wal_size = 32MB")
}

/// The server writes on until it gives the slot up.
fn lose_the_slot(server: &Postgres) {
    let question = "SELECT wal_status FROM pg_replication_slots";
    wait_until(LIMIT, "a server that gives the slot up", || {
        server.sql("INSERT INTO t VALUES (0); SELECT pg_switch_wal(); CHECKPOINT").unwrap();
        server.query_value(question).unwrap() == "lost"
    })
    .unwrap();
}

pub fn held_bytes(server: &Postgres) -> Option<u64> {
    let question = "SELECT coalesce((SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::text \
                    FROM pg_replication_slots WHERE NOT temporary), 'none')";
    server.query_value(question).unwrap().parse().ok()
}

pub fn has_slot(server: &Postgres) -> bool {
    server.query_value("SELECT count(*) FROM pg_replication_slots WHERE NOT temporary").unwrap() == "1"
}

pub fn gaps(home: &Home) -> Vec<PathBuf> {
    home.objects("/gap-")
}

pub fn wait_for_base(home: &Home, count: usize) {
    wait_until(LIMIT, "a base behind the gap", || home.backups().len() >= count).unwrap();
}

/// One hole with a reason, the base behind it, and windows on both sides.
pub fn told_in_status(home: &Home, from: Lsn, word: &str) -> Value {
    let told = status(home);
    let holes = told["holes"].as_array().unwrap();
    assert_eq!(holes.len(), 1, "{told}");
    assert_eq!(holes[0]["from_position"], format!("1@{from}"), "{told}");
    assert!(holes[0]["why"].as_str().unwrap().contains(word), "{told}");
    assert!(holes[0]["given_up_at"].is_string(), "{told}");
    assert_eq!(holes[0]["backup"], home.backups()[0].as_str(), "{told}");
    assert_eq!(told["recovery_windows"].as_array().unwrap().len(), 2, "{told}");
    let text = home.run(["status", "orders"]).good().out;
    assert!(text.contains(word) && text.contains("; again from "), "{text}");
    told
}

/// What lies in the hole cannot be restored to, and both sides are named.
fn refused_within(home: &Home, at: Lsn, word: &str) {
    let into = home.path("restored");
    let to = format!("lsn:{at}");
    let ran = home.run(["restore", "orders", "--to", &to, "--into", into.to_str().unwrap()]);
    let ran = ran.refused(9, &["has a hole", word, "the nearest are"]);
    assert!(ran.err.contains(&home.backups()[0]) && !into.exists(), "{ran:#?}");
}

/// A hole that somebody decided, with a base behind it, is told and is no damage.
pub fn only_the_gap_is_found(home: &Home, level: &str) {
    let ran = home.run(["verify", "orders", "--level", level, "--json"]).good();
    let findings = ran.json()["findings"].as_array().unwrap().clone();
    assert_eq!(findings.len(), 1, "{findings:#?}");
    assert_eq!(findings[0]["level"], "info", "{findings:#?}");
    assert!(findings[0]["message"].as_str().unwrap().contains("is missing"), "{findings:#?}");
}

#[test]
fn a_slot_that_the_server_gave_up_is_told_and_a_person_goes_on_behind_it() {
    for version in PostgresVersion::ALL {
        let Some(server) = remembering(version, forgetful()) else { return };
        let home = leashed(&server, "");
        let receiver = Receiver::start(&home);
        home.run(["backup", "orders", "--quiet"]).good();
        row(&server, 1);
        wait_for_log(&home, &server);
        receiver.stop();
        let from = Lsn(spans(&home).iter().map(|(_, _, end)| *end).max().unwrap());
        lose_the_slot(&server);
        let told = status(&home);
        assert!(told["health_reason"].as_str().unwrap().contains("`backstay archive orders --accept-gap`"));
        // By itself it gives nothing up.
        let (code, said) = Archive::start(&home, &["archive"]).ends();
        assert_eq!(code, 9, "{said}");
        assert!(
            said.contains("has given up the replication slot") && said.contains("--accept-gap"),
            "{said}"
        );
        assert!(gaps(&home).is_empty());
        assert_eq!(home.run(["archive", "--accept-gap"]).code, 2, "nobody said whose");

        let mut archive = Archive::start(&home, &["archive", "orders", "--accept-gap"]);
        archive.says("let go of the slot backstay_orders");
        archive.says("is taken: restores reach every instant");
        wait_for_base(&home, 2);
        let newest = row(&server, 2);
        wait_for_log(&home, &server);
        let told = told_in_status(&home, from, "let go of the slot backstay_orders");
        assert_eq!(told["health"], "ok", "{told}");
        let windows = told["recovery_windows"].as_array().unwrap();
        assert_eq!(windows[1]["to"], newest.to_string(), "{told}");
        refused_within(&home, Lsn(from.0 + 100), "let go of the slot");
        only_the_gap_is_found(&home, "structure");
        let into = testkit::Workspace::new().unwrap();
        let into = into.path().join("restored");
        let latest = ["restore", "orders", "--start", "--into", into.to_str().unwrap(), "--quiet"];
        home.run(latest).good();
        archive.stop();
        // Neither another gap nor another base the next time.
        let receiver = Receiver::start(&home);
        row(&server, 3);
        wait_for_log(&home, &server);
        receiver.stop();
        assert_eq!((gaps(&home).len(), home.backups().len()), (1, 2));
    }
}

#[test]
fn a_slot_that_the_server_gave_up_is_made_again_where_that_was_chosen() {
    let Some(server) = remembering(PostgresVersion::V17, forgetful()) else { return };
    let home = leashed(&server, "on_max_lag = \"gap\"\n");
    let receiver = Receiver::start(&home);
    home.run(["backup", "orders", "--quiet"]).good();
    wait_for_log(&home, &server);
    receiver.stop();
    let from = Lsn(spans(&home).iter().map(|(_, _, end)| *end).max().unwrap());
    lose_the_slot(&server);
    let archive = Archive::start(&home, &["archive", "orders"]);
    wait_for_base(&home, 2);
    row(&server, 2);
    wait_for_log(&home, &server);
    told_in_status(&home, from, "let go of the slot backstay_orders");
    // Once more, with the slot taken away by hand and the log gone.
    archive.stop();
    let from = Lsn(spans(&home).iter().map(|(_, _, end)| *end).max().unwrap());
    server.sql("SELECT pg_drop_replication_slot('backstay_orders')").unwrap();
    let next = server.query_value(&format!("SELECT pg_walfile_name('{from}'::pg_lsn + 1)")).unwrap();
    wait_until(LIMIT, "log that is gone", || {
        server.sql("INSERT INTO t VALUES (0); SELECT pg_switch_wal(); CHECKPOINT").unwrap();
        !server.data_directory().join("pg_wal").join(&next).exists()
    })
    .unwrap();
    let mut archive = Archive::start(&home, &["archive", "orders"]);
    archive.says("the server had let go of log that nobody had received");
    wait_for_base(&home, 3);
    assert_eq!(gaps(&home).len(), 2);
    let told = status(&home);
    assert!(
        told["holes"][1]["why"].as_str().unwrap().contains("let go of log that nobody had received"),
        "{told}"
    );
    archive.stop();
}

#[test]
fn a_server_that_holds_too_much_is_told_and_keeps_every_byte() {
    let Some(server) = remembering(PostgresVersion::V15, PostgresOptions::default()) else { return };
    let home = leashed(&server, "max_lag = \"48MiB\"\n");
    let receiver = Receiver::start(&home);
    home.run(["backup", "orders", "--quiet"]).good();
    wait_for_log(&home, &server);
    receiver.stop();
    let reason = |told: &Value| told["health_reason"].as_str().unwrap_or_default().to_owned();
    for number in 1..=2 {
        row(&server, number);
    }
    let told = status(&home);
    assert_eq!(told["archive"]["max_lag"]["max_bytes"], 48 << 20);
    assert!(reason(&told).contains("does not run"), "{told}");
    for number in 3..=4 {
        row(&server, number);
    }
    let told = status(&home);
    assert!(reason(&told).contains("archive.max_lag is 48.0 MiB: it goes on holding"), "{told}");
    let mut archive = Archive::start(&home, &["archive", "orders"]);
    archive.says("error: the server holds ");
    archive.says("all is well again");
    wait_for_log(&home, &server);
    wait_until(LIMIT, "a server that holds nothing", || held_bytes(&server).unwrap() < SEGMENT).unwrap();
    archive.stop();
    let told = status(&home);
    assert_eq!((&told["holes"], gaps(&home).len()), (&Value::Array(Vec::new()), 0), "{told}");
    assert_eq!(home.backups().len(), 1);
}

#[test]
fn a_server_that_held_too_much_while_nobody_received_is_freed_where_that_was_chosen() {
    for version in PostgresVersion::ALL {
        let Some(server) = remembering(version, PostgresOptions::default()) else { return };
        let home = leashed(&server, "max_lag = \"32MiB\"\non_max_lag = \"gap\"\n");
        let receiver = Receiver::start(&home);
        home.run(["backup", "orders", "--quiet"]).good();
        row(&server, 1);
        wait_for_log(&home, &server);
        receiver.stop();
        let from = end_of_log(&server);
        for number in 2..=4 {
            row(&server, number);
        }
        assert!(held_bytes(&server).unwrap() > 32 << 20);
        let told = status(&home);
        assert!(told["health_reason"].as_str().unwrap().contains("drops its slot"), "{told}");
        let mut archive = Archive::start(&home, &["archive", "orders"]);
        archive.says("its slot backstay_orders was dropped");
        wait_for_base(&home, 2);
        let newest = row(&server, 5);
        wait_for_log(&home, &server);
        assert!(held_bytes(&server).unwrap() < 32 << 20);
        let stored = spans(&home);
        let from = Lsn(stored.iter().map(|(_, _, end)| *end).filter(|end| *end <= from.0).max().unwrap());
        let told = told_in_status(&home, from, "at most 32.0 MiB were allowed (archive.max_lag)");
        assert_eq!(told["recovery_windows"][1]["to"], newest.to_string(), "{told}");
        refused_within(&home, Lsn(from.0 + 100), "archive.max_lag");
        archive.stop();
        // A damaged word about a gap hides nothing.
        super::program::flip_a_bit(&gaps(&home)[0]);
        let told = status(&home);
        assert_eq!(told["holes"].as_array().unwrap().len(), 1, "{told}");
        let verified = home.run(["verify", "orders"]);
        assert!(verified.out.contains("why log was given up is not known"), "{verified:#?}");
    }
}

#[test]
fn the_word_about_a_gap_goes_with_the_log_before_it() {
    let Some(server) = remembering(PostgresVersion::V15, PostgresOptions::default()) else { return };
    let home = leashed(&server, "max_lag = \"32MiB\"\non_max_lag = \"gap\"\n");
    super::holds::keep_one(&home);
    let receiver = Receiver::start(&home);
    home.run(["backup", "orders", "--quiet"]).good();
    row(&server, 0);
    wait_for_log(&home, &server);
    receiver.stop();
    for number in 1..=3 {
        row(&server, number);
    }
    let archive = Archive::start(&home, &["archive", "orders"]);
    wait_for_base(&home, 2);
    row(&server, 4);
    wait_for_log(&home, &server);
    archive.stop();
    assert_eq!(gaps(&home).len(), 1);
    home.run(["collect"]).good();
    assert_eq!(gaps(&home).len(), 1);
    home.run(["expire"]).good();
    home.run(["expire"]).good();
    home.run(["collect", "--max-share", "100"]).good();
    assert_eq!((home.backups().len(), gaps(&home).len()), (1, 0));
    assert!(has_slot(&server));
}
