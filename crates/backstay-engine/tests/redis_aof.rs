//! Sets of append-only files of real servers: read to their end, to a second, and where they break.
#![allow(clippy::unwrap_used, reason = "a test reports by panicking, also in its helpers")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use backstay_engine::Error;
use backstay_engine::redis::aof::{self, AofFacts};
use jiff::Timestamp;
use testkit::{Redis, RedisInstallation, RedisVersion, require_redis, wait_for, wait_until};
use tokio_util::sync::CancellationToken;

const LIMIT: Duration = Duration::from_secs(60);
const MANIFEST: &str = "appendonly.aof.manifest";

fn on_both(test: impl Fn(&RedisInstallation)) {
    RedisVersion::ALL.into_iter().filter_map(require_redis).for_each(|installation| test(&installation));
}

fn read(directory: &Path, until: Option<Timestamp>) -> Result<AofFacts, Error> {
    aof::read(directory, MANIFEST, until, &CancellationToken::new())
}

fn digest(server: &Redis) -> String {
    server.run(&["DEBUG", "DIGEST"]).unwrap().text()
}

/// The second that the server's clock shows, once it is another one.
fn next_second(server: &Redis, before: i64) -> i64 {
    wait_for(LIMIT, "the next second", || {
        let second: i64 = server.run(&["INFO", "server"]).unwrap().text().lines().find_map(|line| {
            Some(line.strip_prefix("server_time_usec:")?.trim().parse::<i64>().ok()? / 1_000_000)
        })?;
        (second > before).then_some(second)
    })
    .unwrap()
}

fn write(server: &Redis, round: usize) {
    let mut client = server.client().unwrap();
    let every_byte: Vec<u8> = (0..=255).collect();
    client.run(&[b"SET", format!("#TS:{round}").as_bytes(), &every_byte]).unwrap();
    for words in ["SELECT 9", "MULTI", "RPUSH list a #TS:1 b", "INCR count", "EXEC", "SET fades yes PX 5"] {
        client.run(&words.split(' ').collect::<Vec<_>>()).unwrap();
    }
}

/// A copy of the set, cut where the facts say, as its own server loads it.
fn digest_of_copy(server: &Redis, name: &str, facts: &AofFacts) -> String {
    let copy = server.workspace().path().join(name);
    let (from, to) = (server.data_directory().join("appendonlydir"), copy.join("appendonlydir"));
    fs::create_dir_all(&to).unwrap();
    let manifest = fs::read_to_string(from.join(MANIFEST)).unwrap();
    let is_kept = |line: &&str| {
        line.contains("type b") || facts.replayed.iter().any(|(name, _)| line.contains(name.as_str()))
    };
    let kept: String = manifest.lines().filter(is_kept).map(|line| format!("{line}\n")).collect();
    fs::write(to.join(MANIFEST), &kept).unwrap();
    for name in kept.lines().filter_map(|line| line.split(' ').nth(1)) {
        fs::copy(from.join(name), to.join(name)).unwrap();
    }
    for (name, length) in &facts.replayed {
        fs::File::options().write(true).open(to.join(name)).unwrap().set_len(*length).unwrap();
    }
    let settings = [("appendonly", "yes"), ("aof-load-truncated", "no"), ("replicaof", "127.0.0.1 1")];
    digest(&Redis::start_on(server.installation(), &copy, &settings).unwrap())
}

#[test]
fn a_set_is_read_to_its_end_and_cut_to_the_second_as_its_server_loads_it() {
    on_both(|installation| {
        let settings = [("appendonly", "yes"), ("aof-timestamp-enabled", "yes"), ("appendfsync", "always")];
        let mut server = Redis::start_new(installation, &settings).unwrap();
        let mut seen = Vec::new();
        let mut second = next_second(&server, 0);
        for round in 0..4 {
            write(&server, round);
            let mut client = server.client().unwrap();
            client.run(&["SELECT", "9"]).unwrap();
            let mut has_faded = || client.run(&["EXISTS", "fades"]).unwrap().text() == "0";
            wait_until(LIMIT, "the key to fade", &mut has_faded).unwrap();
            let state = digest(&server);
            // The server looks at its clock ten times a second: what comes at the beginning of a second
            // may be annotated with the one before.
            let written = next_second(&server, second);
            second = next_second(&server, next_second(&server, written));
            seen.push((written, state));
            if round == 1 {
                server.run(&["BGREWRITEAOF"]).unwrap();
                wait_until(LIMIT, "the rewrite", || {
                    let info = server.run(&["INFO", "persistence"]).unwrap().text();
                    info.contains("aof_rewrites:1") && info.contains("aof_rewrite_in_progress:0")
                })
                .unwrap();
                // It begins with this state, and nothing before it is there any more.
                seen.clear();
            }
        }
        let end = digest(&server);
        server.stop().unwrap();
        let set = server.data_directory().join("appendonlydir");
        let facts = read(&set, None).unwrap();
        assert!(facts.snapshot.is_some() && facts.torn_bytes == 0 && !facts.is_cut, "{facts:?}");
        assert_eq!(digest_of_copy(&server, "all", &facts), end);
        for (second, state) in &seen {
            let facts = read(&set, Some(Timestamp::from_second(*second).unwrap())).unwrap();
            assert!(facts.last_at.unwrap().as_second() <= *second);
            assert_eq!(&digest_of_copy(&server, &format!("at-{second}"), &facts), state, "{facts:?}");
        }
        let before = facts.made_at.unwrap() - Duration::from_secs(5);
        let error = read(&set, Some(before)).unwrap_err().to_string();
        assert!(error.contains("its base was made at"), "{error}");
    });
}

fn increment(set: &Path) -> PathBuf {
    let all = fs::read_dir(set).unwrap().map(|entry| entry.unwrap().path());
    all.into_iter().find(|path| path.to_string_lossy().ends_with("incr.aof")).unwrap()
}

#[test]
fn a_torn_end_is_told_and_anything_else_that_is_broken_is_refused() {
    on_both(|installation| {
        let mut server =
            Redis::start_new(installation, &[("appendonly", "yes"), ("appendfsync", "always")]).unwrap();
        server.run(&["SET", "whole", "yes"]).unwrap();
        let whole = digest(&server);
        write(&server, 1);
        server.stop().unwrap();
        let set = server.data_directory().join("appendonlydir");
        let file = increment(&set);
        let bytes = fs::read(&file).unwrap();
        let length = read(&set, None).unwrap().replayed[0].1;
        assert_eq!(length, bytes.len() as u64);
        // Nothing says when anything came.
        let later = read(&set, None).unwrap().made_at.unwrap() + Duration::from_secs(3600);
        let error = read(&set, Some(later)).unwrap_err().to_string();
        assert!(error.contains("aof-timestamp-enabled"), "{error}");

        let place = |word: &[u8]| bytes.windows(word.len()).position(|part| part == word).unwrap();
        fs::write(&file, &bytes[..place(b"INCR") + 2]).unwrap();
        let facts = read(&set, None).unwrap();
        assert!(facts.torn_bytes > 0 && facts.replayed[0].1 < place(b"MULTI") as u64, "{facts:?}");
        let cut = place(b"*3\r\n$3\r\nSET\r\n$5\r\n#TS:1");
        fs::write(&file, &bytes[..cut]).unwrap();
        let facts = read(&set, None).unwrap();
        assert_eq!((facts.torn_bytes, digest_of_copy(&server, "cut", &facts)), (0, whole));

        // Nothing has its name before it is all there, and nothing stays of what was given up.
        let into = server.workspace().path().join("restored");
        let (copied, placed) = aof::copy(&set, MANIFEST, &into, &CancellationToken::new()).unwrap();
        assert_eq!(copied, facts);
        let named =
            || fs::read_dir(into.join("appendonlydir")).unwrap().map(|entry| entry.unwrap().file_name());
        assert!(named().count() == 3 && named().all(|name| name.to_string_lossy().ends_with(".unfinished")));
        drop(placed);
        assert!(!into.exists());
        let placed = aof::copy(&set, MANIFEST, &into, &CancellationToken::new()).unwrap().1;
        let names = placed.commit().unwrap();
        assert!(names[0].ends_with(MANIFEST) && names[1].ends_with("dump.rdb"), "{names:?}");
        assert!(matches!(
            aof::copy(&set, MANIFEST, &into, &CancellationToken::new()).map(drop),
            Err(Error::TargetNotEmpty { .. })
        ));

        let manifest = fs::read_to_string(set.join(MANIFEST)).unwrap();
        let torn = file.file_name().unwrap().to_str().unwrap();
        fs::write(&file, &bytes[..bytes.len() - 3]).unwrap();
        fs::copy(&file, set.join("second")).unwrap();
        fs::write(set.join(MANIFEST), format!("{manifest}file second seq 9 type i\n")).unwrap();
        let error = read(&set, None).unwrap_err();
        assert!(error.to_string().contains(torn) && error.to_string().contains("not the last"), "{error}");
        fs::write(set.join(MANIFEST), &manifest).unwrap();
        fs::write(&file, [b"x", &bytes[..]].concat()).unwrap();
        assert!(matches!(read(&set, None), Err(Error::Malformed { .. })));
        fs::write(&file, &bytes).unwrap();
        let base = set.join("appendonly.aof.1.base.rdb");
        let mut broken = fs::read(&base).unwrap();
        *broken.last_mut().unwrap() ^= 1;
        fs::write(&base, &broken).unwrap();
        let error = read(&set, None).unwrap_err().to_string();
        assert!(error.contains("base.rdb") && error.contains("its sum is another"), "{error}");
        fs::remove_file(&base).unwrap();
        let error = read(&set, None).unwrap_err().to_string();
        assert!(error.contains("names appendonly.aof.1.base.rdb, which is not there"), "{error}");
    });
}
