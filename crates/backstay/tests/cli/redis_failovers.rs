//! Failovers of Redis and Valkey, one after the other, while the store is here or away.

use std::time::Instant;

use serde_json::Value;
use testkit::{Redis, RedisInstallation, RedisVersion, Way, require_redis, wait_until};

use super::cut_leashes::Away;
use super::program::Home;
use super::redis_streams::{Archive, LIMIT, instant, offset, on_both, restored, write};

const SETTINGS: &[(&str, &str)] = &[("repl-diskless-sync-delay", "0")];
const GOES_ON: &str = "another server goes on with the stream";

/// An instance `cache` at an address that leads to whichever server is the master.
pub fn home_at(way: &Way, installation: &RedisInstallation) -> Home {
    let home = Home::new();
    home.init();
    home.append(&format!(
        "[instance.cache]\nengine = 'redis'\nurl = 'redis://127.0.0.1:{}'\nbin_directory = '{}'\n\
         policy = {{ rpo = '1s' }}\n[instance.cache.archive]\nspool = '{}'\n",
        way.port,
        installation.bin_directory().display(),
        home.path("spool").display()
    ));
    home
}

/// The next one has everything, and is what the address leads to.
fn fail_over(from: &mut Redis, to: &Redis, way: &Way) {
    let reached = offset(from);
    wait_until(LIMIT, "the replica to have all", || offset(to) >= reached).unwrap();
    from.stop().unwrap();
    to.run(&["REPLICAOF", "NO", "ONE"]).unwrap();
    way.lead_to(to.port());
    way.cut();
}

/// The server was told that all that it has sent is durable here.
pub fn acknowledged(server: &Redis, archive: &Archive<'_>) {
    let end = offset(server);
    let is_told = || {
        let replicas = server.run(&["INFO", "replication"]).unwrap().text();
        let mut own = replicas.lines().filter(|line| line.contains("port=0,"));
        let said = own.find_map(|line| line.split_once("offset=")?.1.split(',').next()?.parse::<u64>().ok());
        said.is_some_and(|said| said >= end)
    };
    wait_until(LIMIT, format!("the archive to have {end}: {}", archive.text()), is_told).unwrap();
}

#[test]
fn a_second_failover_loses_nothing_although_the_store_is_away() {
    for version in RedisVersion::ALL {
        let Some(installation) = require_redis(version) else { continue };
        let mut first = Redis::start_new(&installation, SETTINGS).unwrap();
        let mut second = first.start_replica(SETTINGS).unwrap();
        let third = second.start_replica(SETTINGS).unwrap();
        let way = Way::to(first.port()).unwrap();
        let home = home_at(&way, &installation);
        let archive = Archive::start(&home);
        archive.says("is taken");
        write(&mut first.client().unwrap(), 1);
        acknowledged(&first, &archive);
        fail_over(&mut first, &second, &way);
        archive.says(GOES_ON);
        write(&mut second.client().unwrap(), 2);
        let early = instant(&second, &archive);

        let away = Away::of(&home, "cache");
        write(&mut second.client().unwrap(), 3);
        acknowledged(&second, &archive);
        fail_over(&mut second, &third, &way);
        // Which timeline this is, it knows from before.
        let goes_on_twice = || archive.text().matches(GOES_ON).count() == 2;
        wait_until(LIMIT, "the third server to go on", goes_on_twice).unwrap();
        write(&mut third.client().unwrap(), 4);
        acknowledged(&third, &archive);
        // Somebody cuts it once more before the store is back.
        way.cut();
        write(&mut third.client().unwrap(), 5);
        acknowledged(&third, &archive);
        drop(away);

        let late = instant(&third, &archive);
        archive.stop();
        assert_eq!(home.backups().len(), 1);
        restored(&third, &home, &early.at.to_string(), &early.digest);
        restored(&third, &home, &late.at.to_string(), &late.digest);
        let told: Value = home.run(["status", "cache", "--json"]).good().json();
        assert_eq!(told[0]["holes"].as_array().map(Vec::len), Some(0), "{told}");
        home.run(["verify", "cache", "--level", "digest"]).good();
    }
}

#[test]
fn a_server_is_not_forked_again_and_again_while_nothing_can_be_stored() {
    let settings = [SETTINGS, &[("appendonly", "yes")]].concat();
    on_both(&settings, |server, home| {
        let archive = Archive::start(home);
        archive.says("is taken");
        write(&mut server.client().unwrap(), 1);
        archive.holds(server);
        let away = Away::of(home, "cache");
        // It begins another stream, of which nobody can say where it belongs.
        server.kill9().unwrap();
        server.start().unwrap();
        let forks = || server.info("sync_full").unwrap().parse::<u32>().unwrap();
        wait_until(LIMIT, "the first", || forks() >= 1).unwrap();
        let begun = Instant::now();
        wait_until(LIMIT, format!("the fifth: {}", archive.text()), || forks() >= 5).unwrap();
        // Half a second before the second, and twice as long before each that follows; others try once a
        // second or more often.
        assert!(begun.elapsed().as_secs_f64() > 6.0, "{:?}", begun.elapsed());
        archive.says("was not stored");
        drop(away);
        wait_until(LIMIT, format!("a base: {}", archive.text()), || home.backups().len() == 2).unwrap();
        assert!(forks() <= 8, "{}", forks());
        write(&mut server.client().unwrap(), 2);
        let instant = instant(server, &archive);
        archive.stop();
        restored(server, home, &instant.at.to_string(), &instant.digest);
    });
}
