//! Streams of Redis and Valkey that begin while the base beside them does not come to its end, or not
//! at all: what the server writes meanwhile is received all the same.

use std::path::Path;

use serde_json::Value;
use testkit::{Redis, RedisVersion, Way, require_redis, wait_until};

use super::cut_leashes::Away;
use super::program::Home;
use super::redis_failovers::{acknowledged, home_at};
use super::redis_slow_stores::set;
use super::redis_streams::{Archive, LIMIT, instant, on_both, restored, write};

const SETTINGS: &[(&str, &str)] = &[("repl-diskless-sync-delay", "0")];
const RECEIVES: &str = "receiving the stream";
const IS_TAKEN: &str = "is taken";
/// The base takes seconds, although all of its snapshot has room on the way.
const SLOW: &[&str] = &["--set", "repository.max_upload_rate=512KiB"];
/// Of 1 MiB each, and none of them becomes smaller.
const VALUES: u32 = 4;

fn count(archive: &Archive<'_>, words: &str) -> usize {
    archive.text().matches(words).count()
}

fn has_no_base_yet(archive: &Archive<'_>) {
    assert!(!archive.text().contains(IS_TAKEN), "too late to see anything: {}", archive.text());
}

/// What is received now comes back.
fn comes_back(server: &Redis, home: &Home, archive: Archive<'_>) {
    let mut client = server.client().unwrap();
    write(&mut client, 7);
    let instant = instant(server, &archive);
    archive.stop();
    restored(server, home, &instant.at.to_string(), &instant.digest);
    let told: Value = home.run(["status", "cache", "--json"]).good().json();
    assert_eq!(told[0]["holes"].as_array().map(Vec::len), Some(0), "{told}");
    assert_eq!(told[0]["recovery_point_age_seconds"], 0.0, "{told}");
    assert!(home.objects("/intents/").is_empty(), "{:?}", home.objects("/intents/"));
}

#[test]
fn a_connection_that_is_cut_waits_for_no_base() {
    for version in RedisVersion::ALL {
        let Some(installation) = require_redis(version) else { continue };
        let server = Redis::start_new(&installation, SETTINGS).unwrap();
        let way = Way::to(server.port()).unwrap();
        let home = home_at(&way, &installation);
        let mut client = server.client().unwrap();
        (0..VALUES).for_each(|number| set(&mut client, number));
        let archive = Archive::start_with(&home, SLOW);
        archive.says(RECEIVES);
        way.cut();
        write(&mut client, 1);
        wait_until(LIMIT, format!("another connection: {}", archive.text()), || {
            count(&archive, RECEIVES) == 2
        })
        .unwrap();
        acknowledged(&server, &archive);
        has_no_base_yet(&archive);
        archive.says(IS_TAKEN);
        comes_back(&server, &home, archive);
        // The one that was under way was enough.
        assert_eq!(home.backups().len(), 1);
        assert_eq!(server.info("sync_full").unwrap(), "1");
    }
}

#[test]
fn another_stream_begins_while_the_base_of_the_one_before_is_still_stored() {
    let settings = [SETTINGS, &[("appendonly", "yes")]].concat();
    on_both(&settings, |server, home| {
        let mut client = server.client().unwrap();
        (0..VALUES).for_each(|number| set(&mut client, number));
        let archive = Archive::start_with(home, SLOW);
        archive.says(RECEIVES);
        acknowledged(server, &archive);
        server.kill9().unwrap();
        server.start().unwrap();
        archive.says("an earlier base is still being stored");
        wait_until(LIMIT, "the other stream", || count(&archive, RECEIVES) == 2).unwrap();
        write(&mut server.client().unwrap(), 1);
        acknowledged(server, &archive);
        has_no_base_yet(&archive);
        wait_until(LIMIT, format!("both bases: {}", archive.text()), || count(&archive, IS_TAKEN) == 2)
            .unwrap();
        let after = instant(server, &archive);
        archive.stop();
        assert_eq!(home.backups().len(), 2);
        restored(server, home, &after.at.to_string(), &after.digest);
    });
}

/// Whatever is read of it first.
fn spoil(pack: &Path) {
    let mut bytes = std::fs::read(pack).unwrap();
    bytes.iter_mut().step_by(64).for_each(|byte| *byte ^= 1);
    // Stored objects may be read-only.
    std::fs::remove_file(pack).unwrap();
    std::fs::write(pack, bytes).unwrap();
}

#[test]
fn a_damaged_parent_costs_the_stream_no_more_than_another_beginning() {
    // The snapshot of these keys takes seconds, whoever it is for.
    let settings = [SETTINGS, &[("rdb-key-save-delay", "20000")]].concat();
    on_both(&settings, |server, home| {
        let mut client = server.client().unwrap();
        server.run(&["CONFIG", "SET", "rdb-key-save-delay", "0"]).unwrap();
        for number in 0..100 {
            client.run(&["SET", &format!("key:{number}"), "value"]).unwrap();
        }
        home.run(["backup", "cache"]).good();
        home.objects("/packs/").iter().for_each(|pack| spoil(pack));
        server.run(&["CONFIG", "SET", "rdb-key-save-delay", "20000"]).unwrap();
        // Nothing follows the base that there is.
        server.run(&["DEBUG", "CHANGE-REPL-ID"]).unwrap();
        let archive = Archive::start(home);
        archive.says("the base failed");
        archive.says(RECEIVES);
        write(&mut client, 1);
        acknowledged(server, &archive);
        has_no_base_yet(&archive);
        archive.says(IS_TAKEN);
        comes_back(server, home, archive);
        assert_eq!(home.backups().len(), 2);
    });
}

#[test]
fn a_stream_whose_base_was_never_stored_gets_one_when_the_store_is_back() {
    on_both(SETTINGS, |server, home| {
        let mut client = server.client().unwrap();
        (0..VALUES).for_each(|number| set(&mut client, number));
        let archive = Archive::start_with(home, SLOW);
        archive.says(RECEIVES);
        write(&mut client, 1);
        acknowledged(server, &archive);
        has_no_base_yet(&archive);
        let away = Away::of(home, "cache");
        archive.kill();
        let archive = Archive::start_with(home, &["-v"]);
        archive.says(RECEIVES);
        write(&mut client, 2);
        acknowledged(server, &archive);
        // It was looked for in vain.
        archive.says("it is not known whether a base leads to the stream");
        drop(away);
        archive.says(IS_TAKEN);
        assert_eq!(count(&archive, RECEIVES), 1, "{}", archive.text());
        let after = instant(server, &archive);
        archive.stop();
        assert_eq!(home.backups().len(), 1);
        assert_eq!(server.info("sync_full").unwrap(), "2", "the first, and the base beside the stream");
        restored(server, home, &after.at.to_string(), &after.digest);
    });
}
