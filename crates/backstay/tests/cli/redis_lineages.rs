//! Streams of Redis and Valkey that end and begin: their bases, and which of them is meant.

use std::fs;
use std::time::{Duration, Instant};

use testkit::{Redis, wait_until};

use super::program::Home;
use super::redis_streams::{Archive, LIMIT, digest, instant, offset, on_both, restored, write};

const SETTINGS: &[(&str, &str)] = &[("appendonly", "yes")];

#[test]
fn a_stream_without_a_base_gets_one_from_the_next_archive() {
    on_both(SETTINGS, |server, home| {
        let mut client = server.client().unwrap();
        let archive = Archive::start(home);
        archive.says("is taken");
        write(&mut client, 1);
        archive.holds(server);
        archive.kill();
        // As where it was killed before the base had ended.
        let id = home.backups().remove(0);
        for path in home.objects(&id) {
            fs::remove_file(path).unwrap();
        }
        // It knows what was there.
        fs::remove_dir_all(home.path("caches")).unwrap();
        assert_eq!(home.backups(), [""; 0]);
        let archive = Archive::start(home);
        wait_until(LIMIT, "another base", || home.backups().len() == 1).unwrap();
        write(&mut client, 2);
        let instant = instant(server, &archive);
        archive.stop();
        restored(server, home, &instant.at.to_string(), &instant.digest);
    });
}

#[test]
fn an_offset_of_two_streams_is_not_guessed() {
    on_both(SETTINGS, |server, home| {
        let archive = Archive::start(home);
        archive.says("is taken");
        let mut states = Vec::new();
        for _ in 0..2 {
            // Both count from nothing.
            write(&mut server.client().unwrap(), 1);
            write(&mut server.client().unwrap(), 2);
            states.push(instant(server, &archive));
            server.kill9().unwrap();
            server.start().unwrap();
            let count = states.len() + 1;
            wait_until(LIMIT, "a base of the other stream", || home.backups().len() == count).unwrap();
        }
        archive.stop();
        let bases = home.backups();
        let shared = states.iter().map(|state| state.offset).min().unwrap();
        let to = format!("offset:{shared}");
        let into = home.path("guessed");
        let words = ["restore", "cache", "--to", &to, "--into", into.to_str().unwrap()];
        home.run(words).refused(2, &["lies in more than one stream", "--backup"]);
        assert!(!into.exists());
        // Newest first: the last one is that of the stream in which nothing was written.
        for (state, base) in states.iter().zip(bases.iter().rev()) {
            brought_from(server, home, base, state.offset, &state.digest);
        }
    });
}

fn brought_from(server: &Redis, home: &Home, base: &str, offset: u64, wanted: &str) {
    let into = home.path(&format!("of-{base}"));
    let to = format!("offset:{offset}");
    home.run(["restore", "cache", "--to", &to, "--backup", base, "--into", into.to_str().unwrap()]).good();
    let settings = [("appendonly", "yes"), ("replicaof", "127.0.0.1 1")];
    let other = Redis::start_on(server.installation(), &into, &settings).unwrap();
    assert_eq!(digest(&other), wanted, "{base}");
}

#[test]
fn a_server_that_stops_does_not_wait_for_its_own_words() {
    on_both(&[("repl-ping-replica-period", "1")], |server, home| {
        let archive = Archive::start(home);
        archive.says("is taken");
        let before = offset(server);
        wait_until(LIMIT, "words of the server", || offset(server) > before + 40).unwrap();
        let begun = Instant::now();
        server.stop().unwrap();
        assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
        archive.stop();
    });
}
