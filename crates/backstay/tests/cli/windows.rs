//! What `status` says of an archived log: windows, holes and the archive itself, of real
//! servers whose log is received by the real program.

use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use backstay_model::Lsn;
use jiff::Timestamp;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use testkit::postgres::{PASSWORD, SUPERUSER, StopMode};
use testkit::{Postgres, PostgresOptions, PostgresVersion, wait_until};

use super::program::{Home, server_of};

pub const LIMIT: Duration = Duration::from_secs(90);
pub const SEGMENT: u64 = 16 << 20;

/// A home of a server whose log is archived, as soon as somebody starts that.
pub fn archived(server: &Postgres) -> Home {
    let home = Home::new();
    home.init();
    home.add("orders", server, SUPERUSER, PASSWORD, true);
    home.append("policy = { rpo = \"200ms\" }\n\n[instance.orders.archive]\nspool = \"spool\"\n");
    home
}

/// A receiver that ends with the test.
pub struct Receiver(Option<Child>);

impl Receiver {
    pub fn start(home: &Home) -> Receiver {
        let receiver = Receiver(Some(home.start(["archive", "orders"])));
        wait_until(LIMIT, "the first of the log", || !spans(home).is_empty()).unwrap();
        receiver
    }

    /// What was received is stored then.
    pub fn stop(mut self) {
        let Some(child) = self.0.take() else { return };
        kill_process(Pid::from_child(&child), Signal::INT).unwrap();
        let ended = child.wait_with_output().unwrap();
        assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The objects of the log, with what they hold.
pub fn spans(home: &Home) -> Vec<(PathBuf, u64, u64)> {
    let span = |path: &Path| {
        let name = path.file_name()?.to_str()?.to_owned();
        let (start, end) = name.split_once('-')?;
        Some((u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?))
    };
    let objects = home.objects("/log/").into_iter();
    objects.filter_map(|path| span(&path).map(|(start, end)| (path, start, end))).collect()
}

pub fn end_of_log(server: &Postgres) -> Lsn {
    server.query_value("SELECT pg_current_wal_flush_lsn()").unwrap().parse().unwrap()
}

pub fn wait_for_log(home: &Home, server: &Postgres) {
    let end = end_of_log(server);
    let stored = || spans(home).iter().map(|(_, _, end)| *end).max().unwrap_or(0);
    wait_until(LIMIT, format!("the log to {end}"), || stored() >= end.0).unwrap();
}

pub fn status(home: &Home) -> Value {
    let told = home.run(["status", "orders", "--json"]).good().json();
    told.as_array().unwrap()[0].clone()
}

fn instant(value: &Value) -> Timestamp {
    value.as_str().unwrap_or_else(|| panic!("{value}")).parse().unwrap()
}

/// A row in a segment of its own, and when it was committed.
pub fn row(server: &Postgres, number: u32) -> Timestamp {
    server.sql(&format!("INSERT INTO t VALUES ({number})")).unwrap();
    let question = format!(
        "SELECT to_char(pg_xact_commit_timestamp(xmin) AT TIME ZONE 'UTC', \
         'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') FROM t WHERE n = {number}"
    );
    let committed = server.query_value(&question).unwrap().parse().unwrap();
    server.sql("SELECT pg_switch_wal()").unwrap();
    committed
}

/// Removes all that holds a byte of this span.
pub fn lose(home: &Home, from: u64, to: u64) {
    for (path, start, end) in spans(home) {
        if start < to && from < end {
            std::fs::remove_file(path).unwrap();
        }
    }
}

pub fn remembering(version: PostgresVersion) -> Option<Postgres> {
    let server = server_of(version, &PostgresOptions::default().configure("track_commit_timestamp = on"))?;
    server.sql("CREATE TABLE t (n int)").unwrap();
    Some(server)
}

#[test]
fn the_window_goes_from_the_base_to_the_last_commit_that_is_stored() {
    for version in PostgresVersion::ALL {
        let Some(mut server) = remembering(version) else { return };
        let home = archived(&server);
        home.run(["backup", "orders", "--quiet"]).good();
        // It should run, and does not.
        let told = status(&home);
        assert_eq!((&told["health"], &told["archive"]["state"]), (&"degraded".into(), &"stopped".into()));
        assert!(told["health_reason"].as_str().unwrap().contains("`backstay archive orders`"), "{told}");
        let receiver = Receiver::start(&home);
        home.run(["backup", "orders", "--quiet"]).good();
        let first = row(&server, 1);
        let last = row(&server, 2);
        wait_for_log(&home, &server);
        wait_until(LIMIT, "an archive that has everything", || status(&home)["archive"]["lag_bytes"] == 0)
            .unwrap();
        let told = status(&home);
        assert_eq!((&told["health"], &told["health_reason"]), (&"ok".into(), &Value::Null), "{told}");
        let archive = &told["archive"];
        assert_eq!(archive["state"], "running");
        assert_eq!(archive["position"], format!("1@{}", end_of_log(&server)));
        assert_eq!(archive["position"], archive["source_position"]);
        assert_eq!(archive["slot"]["name"], "backstay_orders");
        assert_eq!(archive["slot"]["wal_status"], "reserved");
        assert!(archive["slot"]["retained_bytes"].as_u64().unwrap() <= 2 * SEGMENT, "{told}");
        assert_eq!(instant(&archive["newest_commit_at"]), last);
        assert_eq!(told["recovery_point_age_seconds"], 0.0);
        let windows = told["recovery_windows"].as_array().unwrap();
        let window = windows.last().unwrap();
        assert_eq!(instant(&window["to"]), last, "{told}");
        assert!(instant(&window["from"]) < first, "{told}");
        assert_eq!(window["timeline"], 1);
        let text = home.run(["status", "orders"]).good().out;
        assert!(
            text.contains("running; stored up to 1@0/") && text.contains(", all that there is"),
            "{text}"
        );

        receiver.stop();
        let told = status(&home);
        assert_eq!((&told["health"], &told["archive"]["state"]), (&"degraded".into(), &"stopped".into()));
        server.sql("INSERT INTO t SELECT generate_series(1, 1000)").unwrap();
        let told = status(&home);
        assert!(told["archive"]["lag_bytes"].as_u64().unwrap() > 0, "{told}");
        let age = told["recovery_point_age_seconds"].as_f64().unwrap();
        let since = told["archive"]["newest_commit_age_seconds"].as_f64().unwrap();
        assert!(age > 0.0 && (age - since).abs() < 0.001, "{told}");
        // The hour at which somebody asks.
        server.stop(StopMode::Immediate).unwrap();
        let told = status(&home);
        assert_eq!((&told["health"], &told["archive"]["state"]), (&"down".into(), &"unknown".into()));
        assert_eq!(&told["recovery_windows"].as_array().unwrap()[windows.len() - 1], window);
    }
}

#[test]
fn a_lost_object_is_a_hole_with_the_instants_around_it_until_a_base_behind_it() {
    let Some(server) = remembering(PostgresVersion::V15) else { return };
    let home = archived(&server);
    let receiver = Receiver::start(&home);
    home.run(["backup", "orders", "--quiet"]).good();
    let before = row(&server, 1);
    let lost_from = end_of_log(&server).0.next_multiple_of(SEGMENT);
    row(&server, 2);
    let behind = row(&server, 3);
    let last = row(&server, 4);
    wait_for_log(&home, &server);
    let (from, to) = (lost_from, lost_from + SEGMENT);
    lose(&home, from, to);
    let told = status(&home);
    let holes = told["holes"].as_array().unwrap();
    assert_eq!(holes.len(), 1, "{told}");
    let hole = &holes[0];
    assert_eq!(hole["from_position"], format!("1@{}", Lsn(from)));
    assert_eq!(hole["to_position"], format!("1@{}", Lsn(to)));
    assert_eq!((instant(&hole["from"]), instant(&hole["to"])), (before, behind), "{told}");
    assert_eq!((&hole["backup"], &hole["reachable_from"]), (&Value::Null, &Value::Null));
    assert!(hole["why"].as_str().unwrap().contains("gone from the store"), "{told}");
    let windows = told["recovery_windows"].as_array().unwrap();
    assert_eq!(windows.len(), 1, "{told}");
    assert_eq!(instant(&windows[0]["to"]), before, "{told}");
    assert_eq!(told["health"], "degraded");
    let reason = told["health_reason"].as_str().unwrap();
    assert!(reason.contains("is missing") && reason.contains("`backstay backup orders`"), "{reason}");
    let age = told["recovery_point_age_seconds"].as_f64().unwrap();
    let newest = told["archive"]["newest_commit_age_seconds"].as_f64().unwrap();
    let between = last.duration_since(before).as_secs_f64();
    assert!((age - newest - between).abs() < 0.001, "{told}");
    // What status says, a restore does.
    let into = home.path("restored");
    let ran = home.run(["restore", "orders", "--into", into.to_str().unwrap()]);
    assert!(ran.code != 0 && !into.exists(), "{ran:#?}");

    home.run(["backup", "orders", "--quiet"]).good();
    let newest = row(&server, 5);
    wait_for_log(&home, &server);
    let told = status(&home);
    assert_eq!(told["health"], "ok", "{told}");
    assert_eq!(told["holes"][0]["backup"], home.backups()[0].as_str());
    let windows = told["recovery_windows"].as_array().unwrap();
    assert_eq!(windows.len(), 2, "{told}");
    assert_eq!(instant(&windows[1]["to"]), newest);
    assert_eq!(windows[1]["from"], told["holes"][0]["reachable_from"]);
    let text = home.run(["status", "orders"]).good().out;
    assert!(text.contains("gone from the store; again from "), "{text}");
    receiver.stop();
}

#[test]
fn a_promotion_begins_a_window_of_its_own_and_the_old_one_stays() {
    let Some(mut server) = remembering(PostgresVersion::V17) else { return };
    let home = archived(&server);
    let receiver = Receiver::start(&home);
    home.run(["backup", "orders", "--quiet"]).good();
    let first = row(&server, 1);
    wait_for_log(&home, &server);
    server.stop(StopMode::Fast).unwrap();
    server.write_data_file("standby.signal", b"", 0o600).unwrap();
    server.start().unwrap();
    server.promote().unwrap();
    let second = row(&server, 2);
    let is_there = || status(&home)["archive"]["lag_bytes"] == 0;
    wait_until(LIMIT, "the log of the second timeline", is_there).unwrap();
    let told = status(&home);
    assert_eq!((&told["health"], &told["holes"]), (&"ok".into(), &Value::Array(Vec::new())), "{told}");
    assert!(told["archive"]["position"].as_str().unwrap().starts_with("2@"), "{told}");
    let windows = told["recovery_windows"].as_array().unwrap();
    let of = |timeline: u32| windows.iter().find(|window| window["timeline"] == timeline).unwrap();
    assert_eq!(instant(&of(1)["to"]), first, "{told}");
    assert_eq!((instant(&of(2)["from"]), instant(&of(2)["to"])), (first, second), "{told}");
    assert!(home.run(["status"]).good().out.contains("on timeline 2"));
    // Without its history nobody gets onto it.
    for history in home.objects("/log/").iter().filter(|path| path.ends_with("history")) {
        std::fs::remove_file(history).unwrap();
    }
    let told = status(&home);
    assert_eq!(told["health"], "degraded");
    assert!(told["health_reason"].as_str().unwrap().contains("to timeline 2"), "{told}");
    receiver.stop();
}

#[test]
fn a_slot_that_the_server_gave_up_is_told_with_what_it_cost() {
    let options = PostgresOptions::default()
        .configure("max_slot_wal_keep_size = 32MB")
        .configure("min_wal_size = 32MB");
    let Some(server) = server_of(PostgresVersion::V15, &options) else { return };
    server.sql("CREATE TABLE t (n int)").unwrap();
    let home = archived(&server);
    let receiver = Receiver::start(&home);
    home.run(["backup", "orders", "--quiet"]).good();
    wait_for_log(&home, &server);
    receiver.stop();
    let fill = "INSERT INTO t VALUES (1); SELECT pg_switch_wal(); CHECKPOINT";
    server.sql(fill).unwrap();
    server.sql(fill).unwrap();
    let told = status(&home);
    assert_eq!(told["archive"]["slot"]["limit_bytes"], 32 << 20);
    let held = |told: &Value| told["archive"]["slot"]["retained_bytes"].as_u64().unwrap_or(0);
    assert!(held(&told) > 16 << 20, "{told}");
    wait_until(LIMIT, "a server that gives the slot up", || {
        server.sql(fill).unwrap();
        status(&home)["archive"]["slot"]["wal_status"] == "lost"
    })
    .unwrap();
    let told = status(&home);
    assert_eq!(told["health"], "degraded");
    assert!(told["health_reason"].as_str().unwrap().contains("its slot backstay_orders is lost"), "{told}");
    let hole = told["holes"].as_array().unwrap().last().unwrap();
    assert_eq!((&hole["to"], &hole["to_position"]), (&Value::Null, &Value::Null));
    assert_eq!(hole["from_position"], told["archive"]["position"]);
    assert!(hole["why"].as_str().unwrap().contains("slot backstay_orders is lost"), "{told}");
}
