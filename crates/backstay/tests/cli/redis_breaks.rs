//! What breaks under an archive of Redis: the server, its disk, the way to it; and what is asked that
//! cannot be had.

use std::path::Path;

use backstay_ops::{Clock, SystemClock};
use serde_json::Value;
use testkit::{Redis, wait_for, wait_until};

use super::cut_leashes::Away;
use super::redis_streams::{Archive, LIMIT, digest, instant, on_both, restored, write};
use super::space::on_small_file_system;

#[test]
fn a_server_that_was_killed_begins_another_stream_and_the_time_between_is_a_hole() {
    on_both(&[("repl-diskless-sync-delay", "0"), ("appendonly", "yes")], |server, home| {
        let mut client = server.client().unwrap();
        let archive = Archive::start(home);
        archive.says("is taken");
        write(&mut client, 1);
        let before = instant(server, &archive);
        server.kill9().unwrap();
        let between = SystemClock.now();
        server.start().unwrap();
        wait_until(LIMIT, "another base", || home.backups().len() == 2).unwrap();
        let mut client = server.client().unwrap();
        write(&mut client, 2);
        let after = instant(server, &archive);
        archive.stop();
        restored(server, home, &before.at.to_string(), &before.digest);
        restored(server, home, &after.at.to_string(), &after.digest);
        let told: Value = home.run(["status", "cache", "--json"]).good().json();
        let holes = told[0]["holes"].as_array().unwrap();
        assert_eq!(holes.len(), 1, "{told}");
        assert!(holes[0]["why"].as_str().unwrap().contains("began another stream"), "{told}");
        let into = home.path("between");
        let refused =
            home.run(["restore", "cache", "--to", &between.to_string(), "--into", into.to_str().unwrap()]);
        assert_eq!(refused.code, 9, "{refused:#?}");
        assert!(refused.err.contains("the nearest are"), "{refused:#?}");
        home.run(["verify", "cache", "--level", "digest"]).good();
    });
}

#[test]
fn a_spool_that_fills_up_keeps_what_it_has_and_takes_the_rest_when_there_is_room() {
    on_both(&[("repl-diskless-sync-delay", "0"), ("repl-backlog-size", "64mb")], |server, home| {
        let spool = home.path("spool");
        let log = home.path("archive.log");
        let value = home.path("value");
        // Not in one command, for what had room is kept at its end.
        let noise: Vec<u8> =
            (0..9_000_000u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        std::fs::write(&value, &noise).unwrap();
        let script = format!(
            "says() {{ timeout 60 sh -c \"until grep -q '$1' '{log}'; do :; done\" || {{ cat '{log}'; kill $pid; exit 101; }}; }}
             \"$BACKSTAY\" --config '{config}' archive cache 2>'{log}' & pid=$!
             says 'is taken'
             dd if=/dev/zero of='{spool}/ballast' bs=64k 2>/dev/null
             for number in 1 2 3; do '{cli}' -s '{socket}' -x SET \"key:$number\" <'{value}' >/dev/null; done
             says 'No space left'
             rm '{spool}/ballast'
             says 'has room again'
             '{cli}' -s '{socket}' SET behind yes >/dev/null
             timeout 60 sh -c \"until $BACKSTAY --config '{config}' status cache --json | tr -d ' ' | grep -q lag_bytes.:0,; do :; done\"
             kill -INT $pid; wait $pid; echo \"code=$?\"",
            config = home.config().display(),
            log = log.display(),
            spool = spool.display(),
            cli = cli_of(server).display(),
            socket = server.socket().display(),
            value = value.display(),
        );
        let Some(ran) = on_small_file_system(&spool, 48, &script) else { return };
        assert_eq!(ran.out, "code=0\n", "{ran:#?}");
        assert_eq!(
            home.backups().len(),
            1,
            "the stream was lost: {}",
            std::fs::read_to_string(&log).unwrap()
        );
        restored(server, home, "latest", &digest(server));
        home.run(["verify", "cache", "--level", "digest"]).good();
    });
}

fn cli_of(server: &Redis) -> std::path::PathBuf {
    Path::new(server.cli().get_program()).to_owned()
}

#[test]
fn a_store_that_is_away_keeps_the_stream_in_the_spool() {
    on_both(&[("repl-diskless-sync-delay", "0")], |server, home| {
        let mut client = server.client().unwrap();
        let archive = Archive::start(home);
        archive.says("is taken");
        let away = Away::of(home, "cache");
        (1..4).for_each(|round| write(&mut client, round));
        archive.kill();
        drop(away);
        let archive = Archive::start(home);
        archive.says("receiving the stream");
        let instant = instant(server, &archive);
        archive.stop();
        assert_eq!(home.backups().len(), 1);
        restored(server, home, &instant.at.to_string(), &instant.digest);
    });
}

#[test]
fn what_cannot_be_had_is_one_error_with_what_can() {
    on_both(&[("repl-diskless-sync-delay", "0")], |server, home| {
        let mut client = server.client().unwrap();
        let archive = Archive::start(home);
        archive.says("is taken");
        write(&mut client, 1);
        let known = instant(server, &archive);
        archive.stop();
        let into = home.path("into");
        let into = into.to_str().unwrap();
        for (words, code, told) in [
            (&["--to", "2020-01-01T00:00:00Z"][..], 9, "before the end of the first backup"),
            (&["--to", "2099-01-01T00:00:00Z"], 9, "the log ends at"),
            (&["--to", "2026-05-03 14:30:00"], 2, "has no offset from UTC"),
            (&["--to", "offset:99999999"], 9, "the log ends at"),
            (&["--to", "lsn:0/100"], 2, "is a target of PostgreSQL"),
            (&["--to", "xid:5"], 2, "is a target of PostgreSQL"),
            (&["--to", "latest", "--exclusive"], 2, "--exclusive is not for"),
            (&["--target-timeline", "1"], 2, "--target-timeline is not for"),
            (&["--standby"], 7, "--standby is not for"),
        ] {
            let ran = home.run([&["restore", "cache", "--into", into], words].concat());
            assert_eq!(ran.code, code, "{words:?}: {ran:#?}");
            assert!(ran.err.contains(told), "{words:?}: {ran:#?}");
            assert!(!Path::new(into).exists(), "{words:?}");
        }
        // Within a transaction: what had not come to its end is left out, and that is said.
        let ran =
            home.run(["restore", "cache", "--to", &format!("offset:{}", known.offset - 3), "--into", into]);
        assert_eq!(ran.good().code, 0);
        // A second archive with the same spool is refused.
        let archive = Archive::start(home);
        archive.says("receiving the stream");
        let second = home.run(["archive", "cache"]);
        assert_ne!(second.code, 0, "{second:#?}");
        assert!(second.err.contains("in use"), "{second:#?}");
        archive.stop();
        let wrong = home.run(["--set", "instance.cache.password=x", "archive", "cache"]);
        assert_ne!(wrong.code, 0, "{wrong:#?}");
    });
}

#[test]
fn a_server_that_still_loads_is_told_and_waited_for_by_the_archive() {
    // Each key takes two milliseconds, and between a few of them it answers.
    let settings = [
        ("repl-diskless-sync-delay", "0"),
        ("key-load-delay", "2000"),
        ("loading-process-events-interval-bytes", "1024"),
    ];
    on_both(&settings, |server, home| {
        let mut client = server.client().unwrap();
        for number in 0..1500 {
            client.run(&["SET", &format!("key:{number}"), "value"]).unwrap();
        }
        client.run(&["SAVE"]).unwrap();
        server.kill9().unwrap();
        server.launch().unwrap();
        let ran = wait_for(LIMIT, "a server that loads", || {
            let ran = home.run(["backup", "cache"]);
            (!ran.err.contains("connect to")).then_some(ran)
        })
        .unwrap();
        assert!(ran.code != 0 && ran.err.contains("LOADING") && ran.err.contains("hint: "), "{ran:#?}");
        let archive = Archive::start(home);
        archive.says("waiting: ");
        archive.says("is taken");
        archive.stop();
        assert_eq!(home.backups().len(), 1);
    });
}

#[test]
fn a_node_of_a_cluster_is_backed_up_alone_with_the_slots_of_all_and_says_so() {
    on_both(&[("repl-diskless-sync-delay", "0"), ("cluster-enabled", "yes")], |server, home| {
        server.run(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]).unwrap();
        wait_until(LIMIT, "the cluster", || {
            server.run(&["SET", "a", "b"]).is_ok_and(|reply| reply.text() == "OK")
        })
        .unwrap();
        let ran = home.run(["backup", "cache"]).good();
        assert!(
            ran.err.contains("no instant in common") || ran.out.contains("no instant in common"),
            "{ran:#?}"
        );
        let into = home.path("restored");
        home.run(["restore", "cache", "--into", into.to_str().unwrap()]).good();
        let shards: Value =
            serde_json::from_slice(&std::fs::read(into.join("beside/shards.json")).unwrap()).unwrap();
        assert!(shards.to_string().contains("16383"), "{shards}");
    });
}

#[test]
fn a_source_with_more_databases_is_started_with_as_many() {
    on_both(&[("repl-diskless-sync-delay", "0"), ("databases", "64")], |server, home| {
        let mut client = server.client().unwrap();
        let archive = Archive::start(home);
        archive.says("is taken");
        client.run(&["SELECT", "40"]).unwrap();
        client.run(&["SET", "far", "away"]).unwrap();
        archive.holds(server);
        archive.stop();
        let into = home.path("restored");
        let ran = home.run(["restore", "cache", "--into", into.to_str().unwrap()]).good();
        assert!(ran.out.contains(" --appendonly yes --databases 64"), "{ran:#?}");
    });
}
