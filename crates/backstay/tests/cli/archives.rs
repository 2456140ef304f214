//! The log of a server, received by the real program and fetched again.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Child;
use std::time::Duration;

use backstay_model::Lsn;
use rustix::process::{Pid, Signal, kill_process};
use testkit::postgres::{PASSWORD, SUPERUSER, StopMode};
use testkit::{Postgres, PostgresOptions, PostgresVersion, wait_until};

use super::program::{Home, server, server_of};

const LIMIT: Duration = Duration::from_secs(90);
const SEGMENT: u64 = 16 << 20;

/// A server whose log is archived, and a base of it.
fn archived(server: &Postgres) -> Home {
    let home = Home::new();
    home.init();
    home.add("orders", server, SUPERUSER, PASSWORD, true);
    home.append("policy = { rpo = \"200ms\" }\n\n[instance.orders.archive]\nspool = \"spool\"\n");
    home
}

fn end_of_log(server: &Postgres) -> Lsn {
    server.query_value("SELECT pg_current_wal_flush_lsn()").unwrap().parse().unwrap()
}

/// The furthest position that the store has of the first timeline.
fn stored_to(home: &Home) -> u64 {
    let names = home.objects("/log/").into_iter().filter_map(|path| {
        let name = path.file_name()?.to_str()?.to_owned();
        u64::from_str_radix(name.split_once('-')?.1, 16).ok()
    });
    names.max().unwrap_or(0)
}

fn wait_for(home: &Home, end: Lsn) {
    wait_until(LIMIT, format!("the log to {end}"), || stored_to(home) >= end.0).unwrap();
}

fn end(mut archive: Child, signal: Signal) -> std::process::Output {
    kill_process(Pid::from_child(&archive), signal).unwrap();
    let _ = archive.stdin.take();
    archive.wait_with_output().unwrap()
}

fn fetch(home: &Home, server: &Postgres, name: &str) -> (i32, Option<Vec<u8>>) {
    let system = server.query_value("SELECT system_identifier FROM pg_control_system()").unwrap();
    let to = home.path("fetched");
    let _ = fs::remove_file(&to);
    let to_text = to.to_str().unwrap();
    let words = ["wal", "fetch", name, to_text, "--instance", "orders", "--system-identifier", &system];
    let ran = home.run(words);
    (ran.code, fs::read(&to).ok())
}

#[test]
fn every_segment_comes_back_although_the_receiver_and_the_server_were_killed() {
    for version in PostgresVersion::ALL {
        let Some(mut server) = server_of(version, &PostgresOptions::default()) else { return };
        let home = archived(&server);
        server.sql("CREATE TABLE t (n bigserial, x text)").unwrap();
        let insert = "INSERT INTO t (x) SELECT repeat('long ', n % 700) FROM generate_series(1, 20000) n";
        // The slot holds what is written from here on.
        let archive = home.start(["archive"]);
        wait_until(LIMIT, "the first of the log", || stored_to(&home) > 0).unwrap();
        home.run(["backup", "orders", "--quiet"]).good();
        server.sql(insert).unwrap();
        end(archive, Signal::KILL);
        server.sql(insert).unwrap();
        let archive = home.start(["archive", "orders"]);
        server.sql(insert).unwrap();
        wait_for(&home, end_of_log(&server));
        server.kill9().unwrap();
        server.start().unwrap();
        server.sql("INSERT INTO t (x) VALUES ('the last')").unwrap();
        let last = end_of_log(&server);
        wait_for(&home, last);
        let said = end(archive, Signal::INT);
        assert_eq!(said.status.code(), Some(0), "{said:?}");
        let log = fs::read_dir(server.data_directory().join("pg_wal")).unwrap();
        let mut names: Vec<String> =
            log.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.retain(|name| name.len() == 24);
        names.sort();
        let first =
            home.objects("/log/").first().unwrap().file_name().unwrap().to_str().unwrap()[..16].to_owned();
        let first = u64::from_str_radix(&first, 16).unwrap();
        let mut compared = 0;
        for name in &names {
            let number = u64::from_str_radix(&name[8..16], 16).unwrap() * 256
                + u64::from_str_radix(&name[16..], 16).unwrap();
            let start = number * SEGMENT;
            if start < first || start >= last.0 {
                continue;
            }
            let (code, bytes) = fetch(&home, &server, name);
            assert_eq!(code, 0, "{name}");
            let kept = fs::read(server.data_directory().join("pg_wal").join(name)).unwrap();
            let known = SEGMENT.min(last.0 - start) as usize;
            assert!(bytes.unwrap()[..known] == kept[..known], "{name} has other bytes");
            compared += 1;
        }
        assert!(compared >= 3, "{compared} of {names:?}");
        // Behind the end of the archive there is nothing, and that is proven.
        for absent in ["0000000100000000000000F0", "00000002.history", "000000020000000000000001", "nonsense"]
        {
            assert_eq!(fetch(&home, &server, absent), (1, None), "{absent}");
        }
        // Of the log that a backup needs, the other verbs leave every byte.
        let log = home.objects("/log/");
        for words in [&["verify", "orders"][..], &["collect"], &["expire"], &["status"]] {
            home.run(words).good();
        }
        let left = home.objects("/log/");
        assert!(left.iter().all(|object| log.contains(object)) && left.last() == log.last(), "{left:?}");
        home.run(["verify", "orders", "--level", "digest"]).good();
        recovers(&home, &server, &names);
    }
}

/// The base and what is fetched, recovered by a server, have every row.
fn recovers(home: &Home, server: &Postgres, names: &[String]) {
    let rows = server.query_value("SELECT count(*) || ' ' || max(n) FROM t").unwrap();
    let log = home.path("log");
    fs::create_dir(&log).unwrap();
    for name in names {
        if let (0, Some(bytes)) = fetch(home, server, name) {
            fs::write(log.join(name), bytes).unwrap();
        }
    }
    let place = testkit::Workspace::new().unwrap();
    let restored = place.path().join("restored");
    let into = restored.to_str().unwrap();
    home.run(["restore", "orders", "--to", "immediate", "--into", into, "--quiet"]).good();
    for name in fs::read_dir(&log).unwrap().flatten() {
        let to = restored.join("pg_wal").join(name.file_name());
        if !to.exists() {
            fs::copy(name.path(), &to).unwrap();
            let owner = fs::metadata(&restored).unwrap();
            std::os::unix::fs::chown(&to, Some(owner.uid()), Some(owner.gid())).unwrap();
        }
    }
    let copy = Postgres::start_on(server.installation(), &restored).unwrap();
    assert_eq!(copy.query_value("SELECT count(*) || ' ' || max(n) FROM t").unwrap(), rows);
}

#[test]
fn a_file_that_cannot_be_fetched_never_passes_for_the_end_of_the_log() {
    let Some(server) = server() else { return };
    let home = archived(&server);
    let archive = home.start(["archive", "orders"]);
    wait_until(LIMIT, "the first of the log", || stored_to(&home) > 0).unwrap();
    server.sql("CREATE TABLE t (n int)").unwrap();
    for _ in 0..3 {
        server.sql("INSERT INTO t VALUES (1)").unwrap();
        server.sql("SELECT pg_switch_wal()").unwrap();
    }
    server.sql("INSERT INTO t VALUES (2)").unwrap();
    let last = end_of_log(&server);
    wait_for(&home, last);
    end(archive, Signal::INT);
    let whole = |object: &std::path::PathBuf| {
        let name = object.file_name().unwrap().to_str().unwrap().to_owned();
        let (start, end) = name.split_once('-').unwrap();
        let position = |digits| u64::from_str_radix(digits, 16).unwrap();
        (position(end) - position(start) == SEGMENT).then(|| (object.clone(), position(start)))
    };
    let segments: Vec<_> = home.objects("/log/").iter().filter_map(whole).collect();
    assert!(segments.len() >= 2, "{:?}", home.objects("/log/"));
    let (object, start) = &segments[0];
    let name = format!("00000001{:016X}", start / SEGMENT);
    let (code, bytes) = fetch(&home, &server, &name);
    assert_eq!((code, bytes.unwrap().len() as u64), (0, SEGMENT));
    // Damage, a hole, a wrong argument, a configuration that is not there.
    super::program::flip_a_bit(object);
    assert_eq!(fetch(&home, &server, &name).0, 126);
    for part in home.objects("/log/") {
        let span = part.file_name().unwrap().to_str().unwrap().to_owned();
        let (from, to) = span.split_once('-').unwrap();
        let (from, to) = (u64::from_str_radix(from, 16).unwrap(), u64::from_str_radix(to, 16).unwrap());
        if from < start + SEGMENT && *start < to {
            fs::remove_file(part).unwrap();
        }
    }
    assert_eq!(fetch(&home, &server, &name).0, 126);
    for words in [
        &["wal", "fetch", &name, "x"][..],
        &["wal", "fetch"],
        &["wal", "fetch", &name, "x", "--instance", "orders", "--system-identifier", "x"],
        &[
            "--config",
            "nowhere.toml",
            "wal",
            "fetch",
            &name,
            "x",
            "--instance",
            "orders",
            "--system-identifier",
            "1",
        ],
    ] {
        assert_eq!(home.run(words).code, 126, "{words:?}");
    }
}

#[test]
fn a_pushed_segment_is_stored_once_and_other_bytes_are_refused() {
    let Some(mut server) = server() else { return };
    let home = archived(&server);
    home.run(["backup", "orders", "--quiet"]).good();
    server.sql("CREATE TABLE t AS SELECT generate_series(1, 1000) n; SELECT pg_switch_wal()").unwrap();
    server.stop(StopMode::Fast).unwrap();
    let log = server.data_directory().join("pg_wal");
    let mut names: Vec<_> = fs::read_dir(&log)
        .unwrap()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.is_file())
        .collect();
    names.retain(|path| path.file_name().unwrap().len() == 24);
    names.sort();
    let segment = names.iter().find(|path| fs::read(path).unwrap()[0] != 0).unwrap();
    let push = |path: &std::path::Path| home.run(["wal", "push", path.to_str().unwrap()]);
    push(segment).good();
    push(segment).good();
    assert_eq!(home.objects("/log/").len(), 1);
    // Another cluster's, a shorter one, one under another name.
    let copy = home.path(segment.file_name().unwrap().to_str().unwrap());
    let mut bytes = fs::read(segment).unwrap();
    let end = bytes.len() - 1;
    bytes[end] ^= 1;
    fs::write(&copy, &bytes).unwrap();
    push(&copy).refused(4, &["other bytes of the log"]);
    bytes[end] ^= 1;
    bytes[24] ^= 1;
    fs::write(&copy, &bytes).unwrap();
    push(&copy).refused(2, &["another cluster"]);
    fs::write(&copy, &fs::read(segment).unwrap()[..8192]).unwrap();
    push(&copy).refused(2, &["8192 bytes"]);
    let other = home.path("0000000100000000000000AA");
    fs::copy(segment, &other).unwrap();
    push(&other).refused(2, &["belongs to"]);
}
