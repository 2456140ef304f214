//! Bases of Redis and Valkey: taken over the wire, compared with the one before, and started
//! from again.

use std::time::Duration;

use testkit::redis::Client;
use testkit::{Redis, RedisVersion, require_redis, wait_until};

use super::program::{Home, Ran};

const LIMIT: Duration = Duration::from_secs(60);

/// A server of each fork, and a home whose instance `cache` it is.
fn on_both(test: impl Fn(&Redis, &Home)) {
    for version in RedisVersion::ALL {
        let Some(installation) = require_redis(version) else { continue };
        let server = Redis::start_new(&installation, &[]).unwrap();
        let home = Home::new();
        home.init();
        home.append(&format!("[instance.cache]\nengine = 'redis'\nurl = '{}'\n", server.url()));
        test(&server, &home);
    }
}

/// Values of every type, of every byte, in several databases.
pub fn fill(client: &mut Client) {
    let every_byte: Vec<u8> = (0..=255).collect();
    client.run(&[&b"SET"[..], &every_byte, &every_byte]).unwrap();
    for number in 0..5000 {
        let key = format!("session:{number}");
        client.run(&[b"SET", key.as_bytes(), every_byte.repeat(1 + number % 3).as_slice()]).unwrap();
    }
    for words in [
        "HSET hash one 1 two 2",
        "RPUSH list a b c",
        "SADD set x y z",
        "ZADD sorted 1 a 2.5 b",
        "XADD stream 1-1 field value",
        "PFADD counted a b c",
        // Zeros, as many as several blocks have.
        "CONFIG SET rdbcompression no",
        "SETBIT bitmap 24000000 1",
        "SELECT 9",
        "SET ninth yes",
        "SET fades yes EX 100000",
        "SELECT 0",
        "FUNCTION LOAD #!lua\u{20}name=own\nredis.register_function('one',function()return(1)end)",
    ] {
        let words: Vec<&str> = match words.split_once("LOAD ") {
            Some((_, code)) => vec!["FUNCTION", "LOAD", code],
            None => words.split(' ').collect(),
        };
        client.run(&words).unwrap();
    }
}

pub fn digest(server: &Redis) -> String {
    server.run(&["DEBUG", "DIGEST"]).unwrap().text()
}

#[test]
fn a_base_comes_back_with_every_value_whatever_the_server_is_told_to_load() {
    on_both(|server, home| {
        fill(&mut server.client().unwrap());
        let taken = digest(server);
        server.run(&["CONFIG", "SET", "masterauth", "secret of another"]).unwrap();
        let connected = home.run(["config", "check", "--connect"]).good();
        assert!(connected.out.contains("master, 5010 keys"), "{connected:#?}");
        home.run(["backup", "cache", "--quiet"]).good();
        server.run(&["FLUSHALL"]).unwrap();
        home.run(["verify", "cache", "--level", "digest"]).good();
        // A server that appends ignores the one form, and one that does not the other.
        for (number, settings) in [&[][..], &[("appendonly", "yes")]].into_iter().enumerate() {
            let into = home.path(&format!("restored-{number}"));
            let ran = home.run(["restore", "cache", "--into", into.to_str().unwrap()]).good();
            assert!(ran.out.contains("-server --dir") && ran.out.contains("--appendonly no"), "{ran:#?}");
            assert!(ran.out.contains("the checksum of its source"), "{ran:#?}");
            let restored = Redis::start_on(server.installation(), &into, settings).unwrap();
            assert_eq!(digest(&restored), taken, "{settings:?}");
            let one = restored.run(&["FCALL", "one", "0"]).unwrap().text();
            assert_eq!(one, "1");
            let beside = |name: &str| std::fs::read_to_string(into.join("beside").join(name)).unwrap();
            assert!(beside("users.acl").contains("user default on"));
            let kept = beside("settings.json");
            assert!(kept.contains("maxmemory-policy") && !kept.contains("secret of another"), "{kept}");
        }
    });
}

#[test]
fn a_second_base_stores_what_is_new() {
    on_both(|server, home| {
        let mut client = server.client().unwrap();
        fill(&mut client);
        home.run(["backup", "cache", "--quiet"]).good();
        let first = home.backups().remove(0);
        for number in (0..5000).step_by(250) {
            client.run(&["SET", &format!("session:{number}"), "another value"]).unwrap();
        }
        home.run(["backup", "cache", "--quiet"]).good();
        let second = home.backups().into_iter().find(|id| *id != first).unwrap();
        let listed = home.run(["list", "--json"]).good().json();
        let new = |id: &str| {
            let all = listed.as_array().unwrap().iter();
            all.filter(|one| one["id"] == id).find_map(|one| one["new_bytes"].as_f64()).unwrap()
        };
        let share = new(&second) / new(&first);
        assert!(share < 0.25, "{share}: {listed:#}");
        let into = home.path("restored");
        home.run(["restore", "cache", "--into", into.to_str().unwrap()]).good();
        let taken = digest(server);
        let restored = Redis::start_on(server.installation(), &into, &[]).unwrap();
        assert_eq!(digest(&restored), taken);
    });
}

#[test]
fn what_cannot_be_is_refused_before_the_first_byte() {
    on_both(|server, home| {
        server.run(&["SET", "a", "b"]).unwrap();
        home.run(["backup", "cache", "--quiet"]).good();
        let used = home.path("used");
        std::fs::create_dir(&used).unwrap();
        std::fs::write(used.join("somebody"), "s").unwrap();
        for (words, code, why) in [
            (&["--into", used.to_str().unwrap()][..], 4, "is not empty"),
            (&["--into", "new", "--standby"], 7, "--standby is not for"),
            (&["--into", "new", "--start"], 7, "find the program"),
            (&["--into", "new", "--to", "2020-01-01T00:00:00Z"], 9, "cannot be reached"),
        ] {
            let ran = home.run(["restore", "cache"].iter().chain(words));
            assert!(ran.code == code && ran.err.contains(why), "{words:?}: {ran:#?}");
        }
        assert_eq!(std::fs::read_dir(&used).unwrap().count(), 1);
        // Where nobody can see what there is, no dump is taken in its place.
        let settings = std::fs::read_to_string(home.config()).unwrap();
        std::fs::write(home.config(), settings.replace(&home.store_url(), "file:///nowhere/at/all")).unwrap();
        let ran = home.run(["restore", "cache", "--into", "new"]);
        assert!(
            ran.code != 0 && ran.err.contains("/nowhere/at/all") && !ran.err.contains("no dump"),
            "{ran:#?}"
        );
        std::fs::write(home.config(), settings).unwrap();
        let told = home.run(["status", "cache", "--json"]).good().json();
        assert_eq!(told[0]["health"], "ok", "{told:#}");
        // What this version cannot do with it leaves nothing that looks like a finding.
        home.run(["drill", "cache"]).refused(21, &["find the program", "bin_directory"]);
        let id = home.backups().remove(0);
        let shown = home.run(["show", &id]).good();
        assert!(!shown.out.contains("NOT"), "{shown:#?}");
        server.run(&["CONFIG", "SET", "requirepass", "secret"]).unwrap();
        let ran = home.run(["backup", "cache", "--quiet"]);
        assert!(ran.code == 5 && ran.err.contains("NOAUTH") && ran.err.contains("password"), "{ran:#?}");
    });
}

#[test]
fn a_server_that_dies_while_it_is_backed_up_leaves_no_backup_and_no_obstacle() {
    for version in RedisVersion::ALL {
        let Some(installation) = require_redis(version) else { continue };
        let mut server = Redis::start_new(&installation, &[("rdb-key-save-delay", "1000")]).unwrap();
        let home = Home::new();
        home.init();
        home.append(&format!("[instance.cache]\nengine = 'redis'\nurl = '{}'\n", server.url()));
        fill(&mut server.client().unwrap());
        let backup = home.start(["backup", "cache"]);
        wait_until(LIMIT, "the snapshot to be on its way", || {
            server.run(&["INFO", "persistence"]).unwrap().text().contains("rdb_bgsave_in_progress:1")
        })
        .unwrap();
        server.kill9().unwrap();
        let ran = Ran::from(&backup.wait_with_output().unwrap());
        assert!(ran.code == 6 && ran.err.contains("its snapshot"), "{ran:#?}");
        assert!(home.backups().is_empty());
        server.start().unwrap();
        home.run(["backup", "cache", "--quiet"]).good();
    }
}
