//! The stream of Redis and Valkey: archived as it comes, and restored to any instant.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use backstay_ops::{Clock, SystemClock};
use jiff::Timestamp;
use serde_json::Value;
use testkit::redis::Client;
use testkit::{Redis, RedisVersion, require_redis, wait_for, wait_until};

use super::program::{Home, Ran};

pub const LIMIT: Duration = Duration::from_secs(60);

/// A server of each fork, and a home whose instance `cache` it is.
pub fn on_both(settings: &[(&str, &str)], test: impl Fn(&mut Redis, &Home)) {
    for version in RedisVersion::ALL {
        let Some(installation) = require_redis(version) else { continue };
        let mut server = Redis::start_new(&installation, settings).unwrap();
        let home = Home::new();
        home.init();
        let text = format!(
            "[instance.cache]\nengine = 'redis'\nurl = '{}'\nbin_directory = '{}'\npolicy = {{ rpo = '1s' }}\n\
             [instance.cache.archive]\nspool = '{}'\n",
            server.url(),
            installation.bin_directory().display(),
            home.path("spool").display()
        );
        home.append(&text);
        test(&mut server, &home);
    }
}

/// `backstay archive cache` in the background.
pub struct Archive<'a> {
    child: Child,
    home: &'a Home,
    log: std::path::PathBuf,
}

impl<'a> Archive<'a> {
    pub fn start(home: &'a Home) -> Archive<'a> {
        Archive::start_with(home, &[])
    }

    pub fn start_with(home: &'a Home, words: &[&str]) -> Archive<'a> {
        Archive::run(home, home.command([&["archive", "cache"], words].concat()))
    }

    /// With what its command is to have around it.
    pub fn run(home: &'a Home, mut command: Command) -> Archive<'a> {
        let log = home.path("archive.log");
        let file = std::fs::File::create(&log).unwrap();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file).spawn().unwrap();
        Archive { child, home, log }
    }

    pub fn says(&self, words: &str) {
        let said = wait_until(LIMIT, format!("the archive to say {words:?}"), || self.text().contains(words));
        said.unwrap_or_else(|late| panic!("{late}: {}", self.text()));
    }

    pub fn text(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn stop(mut self) {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, rustix::process::Signal::INT).unwrap();
        let ended = wait_for(LIMIT, "the archive to end", || self.child.try_wait().unwrap()).unwrap();
        assert_eq!(ended.code(), Some(0), "{}", self.text());
        assert!(
            self.text().contains("stopping: what was received goes to the store first"),
            "{}",
            self.text()
        );
    }

    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Everything that the server has sent lies in the store.
    pub fn holds(&self, server: &Redis) {
        let end = offset(server);
        wait_until(LIMIT, format!("the stream to {end}: {}", self.text()), || {
            stored(self.home, server) >= end
        })
        .unwrap();
    }
}

impl Drop for Archive<'_> {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// How far the store has the stream of this server.
fn stored(home: &Home, server: &Redis) -> u64 {
    let told: Value = home.run(["status", "cache", "--json"]).good().json();
    let position = told[0]["archive"]["position"].as_str().and_then(|position| position.split_once('@'));
    let id = info(server, "master_replid");
    position.filter(|(of, _)| id.starts_with(of)).map_or(0, |(_, offset)| offset.parse().unwrap())
}

fn info(server: &Redis, field: &str) -> String {
    let text = server.run(&["INFO"]).unwrap().text();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{field}:")));
    line.unwrap_or_else(|| panic!("no {field} in {text}")).trim().to_owned()
}

pub fn offset(server: &Redis) -> u64 {
    info(server, "master_repl_offset").parse().unwrap()
}

pub fn digest(server: &Redis) -> String {
    server.run(&["DEBUG", "DIGEST"]).unwrap().text()
}

pub fn restored(server: &Redis, home: &Home, to: &str, digest_of: &str) -> Ran {
    let into = home.path(&format!("restored-{}", to.replace(':', "-")));
    let ran = home.run(["restore", "cache", "--to", to, "--into", into.to_str().unwrap()]).good();
    let appends = ran.out.contains("--appendonly yes");
    if appends {
        let manifest = into.join("appendonlydir/appendonly.aof.manifest");
        let checked = server.installation().tool("check-aof").arg(&manifest).output().unwrap();
        let said = String::from_utf8_lossy(&checked.stdout).into_owned();
        assert!(checked.status.success() && said.contains("All AOF files and manifest are valid"), "{said}");
    }
    let settings: &[(&str, &str)] = if appends {
        &[("appendonly", "yes"), ("replicaof", "127.0.0.1 1")]
    } else {
        &[("replicaof", "127.0.0.1 1")]
    };
    let other = Redis::start_on(server.installation(), &into, settings).unwrap();
    assert_eq!(digest(&other), digest_of, "{to}: {ran:#?}");
    ran
}

/// What came by then, and how the data were: with nothing in between.
pub struct Instant {
    pub at: Timestamp,
    pub offset: u64,
    pub digest: String,
}

pub fn instant(server: &Redis, archive: &Archive<'_>) -> Instant {
    // Nothing is written, and nothing expires, until both are known.
    server.run(&["CLIENT", "PAUSE", "60000", "WRITE"]).unwrap();
    let (offset, digest) = (offset(server), digest(server));
    // What was sent has come by now; what follows comes later, and shows that the stream goes on.
    archive.holds(server);
    let at = SystemClock.now();
    server.run(&["CLIENT", "UNPAUSE"]).unwrap();
    server.run(&["SET", "later", "yes"]).unwrap();
    archive.holds(server);
    Instant { at, offset, digest }
}

pub fn write(client: &mut Client, number: u32) {
    let every_byte: Vec<u8> = (0..=255).collect();
    let key = format!("key:{number}");
    client.run(&[b"SET", key.as_bytes(), &every_byte]).unwrap();
    for words in [
        "SELECT 9",
        "INCRBYFLOAT half 1.25",
        "MULTI",
        "SADD members a b c",
        "SELECT 3",
        "SPOP members",
        "SADD members x y z",
        "EXEC",
        "SET fades soon PX 40",
        "PERSIST fades",
        "APPEND fades !",
        "SELECT 0",
        "XADD stream * number 1",
        "SETEX short 1 gone",
    ] {
        client.run(&words.split(' ').collect::<Vec<_>>()).unwrap();
    }
    let script =
        "redis.call('INCR','scripted') redis.call('SELECT',2) redis.call('INCR','scripted') return 1";
    client.run(&["EVAL", script, "0"]).unwrap();
}

#[test]
fn any_instant_of_the_stream_comes_back_with_every_value() {
    on_both(&[("repl-diskless-sync-delay", "0")], |server, home| {
        let mut client = server.client().unwrap();
        (0..50).for_each(|number| write(&mut client, number));
        let archive = Archive::start(home);
        archive.says("is taken");
        let mut instants = Vec::new();
        for number in 50..53 {
            write(&mut client, number);
            instants.push(instant(server, &archive));
        }
        client.run(&["FLUSHALL"]).unwrap();
        let last = digest(server);
        archive.holds(server);
        archive.stop();
        for instant in &instants {
            restored(server, home, &instant.at.to_string(), &instant.digest);
            restored(server, home, &format!("offset:{}", instant.offset), &instant.digest);
        }
        let ran = restored(server, home, "latest", &last);
        assert!(ran.err.contains("lies in append-only files"), "{ran:#?}");
        let told: Value = home.run(["status", "cache", "--json"]).good().json();
        let status = &told[0];
        assert_eq!(status["holes"].as_array().map(Vec::len), Some(0), "{status}");
        assert_eq!(status["recovery_windows"].as_array().map(Vec::len), Some(1), "{status}");
        // One who does not append is not started empty.
        let into = home.path("restored-latest");
        let other = Redis::start_on(server.installation(), &into, &[]);
        assert!(other.is_err(), "it started without what was restored");
    });
}

#[test]
fn an_archive_that_was_killed_goes_on_where_it_ended() {
    on_both(&[("repl-diskless-sync-delay", "0")], |server, home| {
        let mut client = server.client().unwrap();
        let archive = Archive::start(home);
        archive.says("is taken");
        for round in 0..4 {
            write(&mut client, round);
            if round % 2 == 0 {
                archive.holds(server);
            }
        }
        archive.kill();
        (4..9).for_each(|round| write(&mut client, round));
        let archive = Archive::start(home);
        write(&mut client, 10);
        let instant = instant(server, &archive);
        archive.stop();
        assert_eq!(home.backups().len(), 1);
        restored(server, home, &instant.at.to_string(), &instant.digest);
        let told: Value = home.run(["status", "cache", "--json"]).good().json();
        assert_eq!(told[0]["holes"].as_array().map(Vec::len), Some(0), "{told}");
        home.run(["verify", "cache", "--level", "structure"]).good();
        home.run(["verify", "cache", "--level", "digest"]).good();
    });
}

#[test]
fn what_the_server_has_forgotten_is_a_hole_with_a_base_behind_it() {
    on_both(&[("repl-diskless-sync-delay", "0"), ("repl-backlog-size", "16kb")], |server, home| {
        let mut client = server.client().unwrap();
        let archive = Archive::start(home);
        archive.says("is taken");
        write(&mut client, 1);
        let before = instant(server, &archive);
        archive.stop();
        let value = vec![b'v'; 100_000];
        client.run(&[&b"SET"[..], b"large", &value]).unwrap();
        let lost = SystemClock.now();
        (2..5).for_each(|round| write(&mut client, round));
        let archive = Archive::start(home);
        wait_until(LIMIT, "another base", || home.backups().len() == 2).unwrap();
        write(&mut client, 6);
        let after = instant(server, &archive);
        archive.stop();
        restored(server, home, &before.at.to_string(), &before.digest);
        restored(server, home, &after.at.to_string(), &after.digest);
        let told: Value = home.run(["status", "cache", "--json"]).good().json();
        assert_eq!(told[0]["holes"].as_array().map(Vec::len), Some(1), "{told}");
        let into = home.path("within");
        let refused =
            home.run(["restore", "cache", "--to", &lost.to_string(), "--into", into.to_str().unwrap()]);
        assert_eq!(refused.code, 9, "{refused:#?}");
        assert!(refused.err.contains("the stream has a hole, from"), "{refused:#?}");
        assert!(!into.exists());
    });
}

#[test]
fn a_drill_is_as_full_as_the_source_was_and_start_proves_and_serves_either_kind() {
    on_both(&[("repl-diskless-sync-delay", "0")], |server, home| {
        let mut client = server.client().unwrap();
        (0..20).for_each(|number| write(&mut client, number));
        let archive = Archive::start(home);
        archive.says("is taken");
        (20..40).for_each(|number| write(&mut client, number));
        // It asks the server as soon as it is connected.
        wait_until(LIMIT, "a count of the source in the store", || {
            client.run(&["INCR", "waiting"]).unwrap();
            archive.holds(server);
            has_witness(home)
        })
        .unwrap();
        // What expires meanwhile would not be in the digest of the source.
        client.run(&["DEL", "short"]).unwrap();
        archive.holds(server);
        archive.stop();
        let ran = home.run(["drill", "cache", "--json"]).good().json();
        let report = &ran[0];
        assert_eq!(report["sound"], true, "{report:#}");
        assert!(report["target"].as_str().unwrap().starts_with("offset:"), "{report:#}");
        let names: Vec<&str> = report["checks"]
            .as_array()
            .unwrap()
            .iter()
            .map(|check| check["name"].as_str().unwrap())
            .collect();
        for name in ["keys in database 0", "keys in database 9", "sample of keys", "sum over all data"] {
            assert!(names.contains(&name), "{names:?}");
        }
        // For a source that does not append, one is written that a server without it loads.
        let taken = digest(server);
        let into = home.path("started");
        let ran = home.run(["restore", "cache", "--start", "--into", into.to_str().unwrap()]).good();
        assert!(ran.out.contains("proved") && ran.out.contains("--appendonly no"), "{ran:#?}");
        for settings in
            [&[("replicaof", "127.0.0.1 1")][..], &[("appendonly", "yes"), ("replicaof", "127.0.0.1 1")]]
        {
            let other = Redis::start_on(server.installation(), &into, settings).unwrap();
            assert_eq!(digest(&other), taken, "{settings:?}");
        }
    });
}

/// Whether an object of the log says how full the source was.
fn has_witness(home: &Home) -> bool {
    let ran = home.run(["drill", "cache", "--json"]);
    ran.code == 0 && ran.json()[0]["target"].as_str().is_some_and(|target| target.starts_with("offset:"))
}

#[test]
fn a_replica_that_takes_over_goes_on_with_the_stream() {
    for version in RedisVersion::ALL {
        let Some(installation) = require_redis(version) else { continue };
        let settings = [("repl-diskless-sync-delay", "0")];
        let mut first = Redis::start_new(&installation, &settings).unwrap();
        let second = Redis::start_new(&installation, &settings).unwrap();
        let port = first.port().to_string();
        second.run(&["REPLICAOF", "127.0.0.1", &port]).unwrap();
        wait_until(LIMIT, "the replica to be one", || {
            info(&second, "role") == "slave" && info(&second, "master_link_status") == "up"
        })
        .unwrap();
        let home = Home::new();
        home.init();
        // Of the replica, which becomes the master.
        let text = format!(
            "[instance.cache]\nengine = 'redis'\nurl = '{}'\n[instance.cache.archive]\nspool = '{}'\n",
            second.url(),
            home.path("spool").display()
        );
        home.append(&text);
        let mut client = first.client().unwrap();
        write(&mut client, 1);
        let archive = Archive::start(&home);
        archive.says("is taken");
        write(&mut client, 2);
        let reached = offset(&first);
        wait_until(LIMIT, "the replica to have all", || offset(&second) >= reached).unwrap();
        first.stop().unwrap();
        second.run(&["REPLICAOF", "NO", "ONE"]).unwrap();
        let mut client = second.client().unwrap();
        write(&mut client, 3);
        archive.says("another server goes on with the stream");
        let instant = instant(&second, &archive);
        archive.stop();
        assert_eq!(home.backups().len(), 1);
        restored(&second, &home, &instant.at.to_string(), &instant.digest);
        let told: Value = home.run(["status", "cache", "--json"]).good().json();
        assert_eq!(told[0]["holes"].as_array().map(Vec::len), Some(0), "{told}");
        home.run(["verify", "cache", "--level", "digest"]).good();
    }
}
