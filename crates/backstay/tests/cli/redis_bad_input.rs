//! What an archive and a backup of Redis are given that they cannot work with: a server that does not let
//! them in, that has lost its master, that gives their connection up, and bytes that changed on their way.
//! One clear error each, and nothing that looks like a backup.

use jiff::Timestamp;
use serde_json::Value;
use testkit::way::Way;
use testkit::{Redis, free_port, wait_for, wait_until};

use super::program::{Home, Ran};
use super::redis_bases::fill;
use super::redis_streams::{Archive, LIMIT, digest, instant, on_both, restored, write};

/// The instance is reached over a way of its own.
fn on_a_way(settings: &[(&str, &str)], test: impl Fn(&Redis, &Home, &Way)) {
    on_both(settings, |server, home| {
        let way = Way::to(server.port()).unwrap();
        let told = std::fs::read_to_string(home.config()).unwrap();
        let url = format!("redis://127.0.0.1:{}", way.port);
        std::fs::write(home.config(), told.replace(&server.url(), &url)).unwrap();
        test(server, home, &way);
    });
}

/// `backstay archive cache`, which is to end by itself.
fn archive_that_ends(home: &Home) -> Ran {
    let mut archive = home.start(["archive", "cache"]);
    let ended = wait_for(LIMIT, "the archive to end", || archive.try_wait().unwrap());
    if ended.is_err() {
        archive.kill().unwrap();
    }
    Ran::from(&archive.wait_with_output().unwrap())
}

fn status(home: &Home) -> Value {
    home.run(["status", "cache", "--json"]).good().json()[0].clone()
}

/// Writes until the server has given up who receives its stream.
fn write_until_given_up(server: &Redis) {
    let value = vec![b'v'; 256 << 10];
    let mut client = server.client().unwrap();
    wait_until(LIMIT, "the server to give the archive up", || {
        client.run(&[&b"SET"[..], b"large", &value]).unwrap();
        server.info("connected_slaves").unwrap() == "0"
    })
    .unwrap();
}

#[test]
fn an_archive_that_is_too_slow_for_a_server_is_a_hole_with_a_base_behind_it() {
    let settings = [
        ("repl-diskless-sync-delay", "0"),
        ("repl-backlog-size", "16kb"),
        ("client-output-buffer-limit", "replica 1mb 256kb 1"),
    ];
    on_a_way(&settings, |server, home, way| {
        let mut client = server.client().unwrap();
        let archive = Archive::start(home);
        archive.says("is taken");
        write(&mut client, 1);
        let before = instant(server, &archive);
        way.stall();
        write_until_given_up(server);
        write(&mut client, 2);
        way.resume();
        archive.says("the server closed the connection over which it sent its stream");
        archive.says("`client-output-buffer-limit replica`");
        archive.says("the server has let go of what follows offset");
        wait_until(LIMIT, "another base", || home.backups().len() == 2).unwrap();
        write(&mut client, 3);
        let after = instant(server, &archive);
        archive.stop();
        restored(server, home, &before.at.to_string(), &before.digest);
        restored(server, home, &after.at.to_string(), &after.digest);
        let told = status(home);
        let holes = told["holes"].as_array().unwrap();
        assert_eq!(holes.len(), 1, "{told}");
        let edge = |name: &str| holes[0][name].as_str().unwrap().parse::<Timestamp>().unwrap();
        let (from, to) = (edge("from"), edge("reachable_from"));
        let within = from + to.duration_since(from) / 2;
        let into = home.path("within");
        home.run(["restore", "cache", "--to", &within.to_string(), "--into", into.to_str().unwrap()])
            .refused(9, &["the stream has a hole, from"]);
        assert!(!into.exists());
        let verified = home.run(["verify", "cache", "--level", "digest", "--json"]);
        assert_eq!(verified.code, 20, "{verified:#?}");
    });
}

#[test]
fn an_archive_that_a_server_gave_up_goes_on_without_a_hole_where_the_backlog_has_it() {
    // The hard limit is never below the backlog; the soft one is.
    let settings = [
        ("repl-diskless-sync-delay", "0"),
        ("repl-backlog-size", "512mb"),
        ("client-output-buffer-limit", "replica 0 256kb 1"),
    ];
    on_a_way(&settings, |server, home, way| {
        let mut client = server.client().unwrap();
        let archive = Archive::start(home);
        archive.says("is taken");
        write(&mut client, 1);
        let before = instant(server, &archive);
        way.stall();
        write_until_given_up(server);
        write(&mut client, 2);
        way.resume();
        archive.says("the server closed the connection over which it sent its stream");
        let after = instant(server, &archive);
        assert!(!archive.text().contains("has let go"), "{}", archive.text());
        archive.stop();
        assert_eq!(home.backups().len(), 1);
        restored(server, home, &before.at.to_string(), &before.digest);
        restored(server, home, &after.at.to_string(), &after.digest);
        let told = status(home);
        assert_eq!(told["holes"].as_array().map(Vec::len), Some(0), "{told}");
    });
}

/// Within the snapshot, and behind all that is asked before it.
const WITHIN: usize = 1 << 20;

#[test]
fn a_snapshot_that_is_damaged_on_its_way_is_no_backup_and_the_next_one_is() {
    on_a_way(&[("repl-diskless-sync-delay", "0")], |server, home, way| {
        fill(&mut server.client().unwrap());
        way.spoil(WITHIN);
        home.run(["backup", "cache", "--quiet"]).refused(8, &["its sum is another"]);
        assert!(way.has_spoiled() && home.backups().is_empty());
        let told = status(home);
        assert_eq!(told["recovery_windows"].as_array().map(Vec::len), Some(0), "{told}");
        home.run(["backup", "cache", "--quiet"]).good();
        let into = home.path("restored");
        home.run(["restore", "cache", "--into", into.to_str().unwrap()]).good();
        let other = Redis::start_on(server.installation(), &into, &[]).unwrap();
        assert_eq!(digest(&other), digest(server));
    });
}

#[test]
fn a_stream_behind_a_damaged_snapshot_has_no_window_before_a_whole_one() {
    on_a_way(&[("repl-diskless-sync-delay", "0")], |server, home, way| {
        let mut client = server.client().unwrap();
        fill(&mut client);
        way.spoil(WITHIN);
        let archive = Archive::start(home);
        archive.says("the base failed, and is tried again");
        archive.says("its sum is another");
        assert!(way.has_spoiled());
        archive.says("is taken");
        assert_eq!(home.backups().len(), 1);
        write(&mut client, 1);
        let known = instant(server, &archive);
        archive.stop();
        restored(server, home, &known.at.to_string(), &known.digest);
        let told = status(home);
        assert_eq!(told["recovery_windows"].as_array().map(Vec::len), Some(1), "{told}");
        home.run(["verify", "cache", "--level", "digest"]).good();
    });
}

#[test]
fn a_password_that_is_wrong_or_missing_is_one_error_of_a_backup_and_of_an_archive() {
    on_both(&[("requirepass", "right")], |_, home| {
        let wrong = home.path("wrong");
        std::fs::write(&wrong, "guessed").unwrap();
        let without = std::fs::read_to_string(home.config()).unwrap();
        let with = without.replace("engine = 'redis'", "engine = 'redis'\npassword = { file = 'wrong' }");
        for (text, code, word) in [(&without, "NOAUTH", "password = {"), (&with, "WRONGPASS", "`password`")] {
            std::fs::write(home.config(), text).unwrap();
            let backup = home.run(["backup", "cache", "--quiet"]).refused(5, &[code, word]);
            let archive = archive_that_ends(home).refused(5, &[code, word]);
            assert!(!format!("{backup:?}{archive:?}").contains("guessed"), "{backup:#?}\n{archive:#?}");
        }
        std::fs::write(home.config(), &with).unwrap();
        std::fs::write(&wrong, "right").unwrap();
        assert!(home.backups().is_empty());
        let archive = Archive::start(home);
        archive.says("is taken");
        archive.stop();
    });
}

#[test]
fn a_user_without_the_right_to_the_stream_is_told_which_rights_to_give() {
    on_both(&[], |server, home| {
        let rules = backstay_engine::redis::rights::STATEMENT;
        let words: Vec<&str> = rules.split(' ').collect();
        let weak: Vec<&str> = words.iter().copied().filter(|word| *word != "+psync").collect();
        assert_eq!(weak.len() + 1, words.len(), "{rules}");
        server.run(&weak).unwrap();
        server.run(&["ACL", "SETUSER", "backstay", "nopass"]).unwrap();
        let told = std::fs::read_to_string(home.config()).unwrap();
        let url = server.url().replace("redis://", "redis://backstay@");
        std::fs::write(home.config(), told.replace(&server.url(), &url)).unwrap();
        home.run(["backup", "cache", "--quiet"]).refused(5, &["NOPERM", "psync", "ACL SETUSER backstay"]);
        archive_that_ends(home).refused(5, &["NOPERM", "psync", "ACL SETUSER backstay"]);
        assert!(home.backups().is_empty());
        server.run(&["ACL", "SETUSER", "backstay", "+psync"]).unwrap();
        home.run(["backup", "cache", "--quiet"]).good();
    });
}

#[test]
fn a_replica_that_has_lost_its_master_is_told_and_waited_for_by_the_archive() {
    on_both(&[("repl-diskless-sync-delay", "0")], |server, home| {
        server.run(&["SET", "a", "b"]).unwrap();
        let nobody = free_port().unwrap().to_string();
        server.run(&["REPLICAOF", "127.0.0.1", &nobody]).unwrap();
        home.run(["backup", "cache", "--quiet"]).refused(6, &["NOMASTERLINK", "`INFO replication`"]);
        let archive = Archive::start(home);
        archive.says("waiting: ");
        archive.says("NOMASTERLINK");
        archive.says("`INFO replication`");
        assert!(home.backups().is_empty());
        server.run(&["REPLICAOF", "NO", "ONE"]).unwrap();
        archive.says("is taken");
        archive.stop();
        assert_eq!(home.backups().len(), 1);
    });
}

#[test]
fn a_server_that_dies_while_an_archive_takes_its_snapshot_is_asked_again() {
    on_both(&[("rdb-key-save-delay", "1000")], |server, home| {
        fill(&mut server.client().unwrap());
        let archive = Archive::start(home);
        archive.says("taking a base");
        server.kill9().unwrap();
        archive.says("the base failed, and is tried again: ");
        archive.says("hint: ");
        assert!(home.backups().is_empty());
        server.start().unwrap();
        server.run(&["CONFIG", "SET", "rdb-key-save-delay", "0"]).unwrap();
        archive.says("is taken");
        let known = instant(server, &archive);
        archive.stop();
        restored(server, home, &known.at.to_string(), &known.digest);
    });
}
