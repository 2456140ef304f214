//! Spools of a stream that are not what they were: an old copy, lines that rotted, lines that are gone.

use std::path::{Path, PathBuf};
use std::process::Command;

use testkit::{RedisVersion, Way, require_redis};

use super::cut_leashes::Away;
use super::program::Home;
use super::redis_failovers::{GOES_ON, SETTINGS, acknowledged, fail_over, home_at};
use super::redis_streams::{Archive, digest, instant, on_both, restored, write};

fn copied(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

/// The file of the two that is there.
fn lines(home: &Home) -> PathBuf {
    let both = ["instants-a", "instants-b"].map(|name| home.path("spool/cache").join(name));
    both.into_iter().find(|path| path.exists()).unwrap()
}

fn spooled(home: &Home) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    let mut open = vec![home.path("spool/cache")];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => open.push(path),
                false => found.push((path.clone(), path.metadata().unwrap().len())),
            }
        }
    }
    found.sort();
    found
}

#[test]
fn an_archive_with_an_old_spool_goes_on_where_another_one_ended() {
    for version in RedisVersion::ALL {
        let Some(installation) = require_redis(version) else { continue };
        let mut first = testkit::Redis::start_new(&installation, SETTINGS).unwrap();
        let second = first.start_replica(SETTINGS).unwrap();
        let way = Way::to(first.port()).unwrap();
        let home = home_at(&way, &installation);
        let archive = Archive::start(&home);
        archive.says("is taken");
        write(&mut first.client().unwrap(), 1);
        archive.holds(&first);
        archive.stop();
        let (spool, old) = (home.path("spool"), home.path("old"));
        copied(&spool, &old);

        let archive = Archive::start(&home);
        write(&mut first.client().unwrap(), 2);
        archive.holds(&first);
        fail_over(&mut first, &second, &way);
        archive.says(GOES_ON);
        write(&mut second.client().unwrap(), 3);
        let early = instant(&second, &archive);
        archive.stop();

        // It knows of no failover: what the store has is further.
        std::fs::remove_dir_all(&spool).unwrap();
        copied(&old, &spool);
        let archive = Archive::start(&home);
        write(&mut second.client().unwrap(), 4);
        let late = instant(&second, &archive);
        assert!(!archive.text().contains(GOES_ON), "{}", archive.text());
        archive.stop();
        for instant in [&early, &late] {
            restored(&second, &home, &instant.at.to_string(), &instant.digest);
        }
        home.run(["backup", "cache", "--quiet"]).good();
        let last = digest(&second);
        restored(&second, &home, "latest", &last);
        home.run(["verify", "cache", "--level", "digest"]).good();
    }
}

#[test]
fn what_was_acknowledged_is_not_given_up_for_a_line_that_rotted() {
    on_both(&[SETTINGS, &[("appendonly", "yes")]].concat(), |server, home| {
        let archive = Archive::start(home);
        archive.says("is taken");
        write(&mut server.client().unwrap(), 1);
        archive.holds(server);
        let away = Away::of(home, "cache");
        for number in 2..6 {
            write(&mut server.client().unwrap(), number);
            acknowledged(server, &archive);
        }
        archive.kill();
        let path = lines(home);
        let mut bytes = std::fs::read(&path).unwrap();
        let ends: Vec<usize> =
            bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at).collect();
        // One of those in the middle, of those that came with the store away.
        let before_last = ends[ends.len() - 2] - 40;
        bytes[before_last] ^= 0x04;
        std::fs::write(&path, &bytes).unwrap();
        drop(away);
        let archive = Archive::start(home);
        let late = instant(server, &archive);
        archive.stop();
        assert_eq!(home.backups().len(), 1, "a base was taken, as if something had been lost");
        restored(server, home, &late.at.to_string(), &late.digest);
    });
}

#[test]
fn a_stream_whose_lines_are_gone_is_kept_and_told() {
    on_both(&[SETTINGS, &[("appendonly", "yes")]].concat(), |server, home| {
        let archive = Archive::start(home);
        archive.says("is taken");
        write(&mut server.client().unwrap(), 1);
        archive.holds(server);
        let away = Away::of(home, "cache");
        write(&mut server.client().unwrap(), 2);
        acknowledged(server, &archive);
        archive.kill();
        drop(away);
        std::fs::remove_file(lines(home)).unwrap();
        let is_stream =
            |(path, _): &(PathBuf, u64)| !path.file_name().unwrap().to_str().unwrap().starts_with("instants");
        let streams = |home: &Home| spooled(home).into_iter().filter(is_stream).collect::<Vec<_>>();
        let before = streams(home);
        let spool = home.path("spool/cache");
        let hint = format!("`mv {0} {0}.kept`", spool.display());
        home.run(["archive", "cache"]).refused(8, &["nothing in it says", &hint]);
        assert_eq!(streams(home), before);
        assert!(Command::new("mv").arg(&spool).arg(home.path("spool.kept")).status().unwrap().success());
        let archive = Archive::start(home);
        write(&mut server.client().unwrap(), 3);
        let late = instant(server, &archive);
        archive.stop();
        restored(server, home, &late.at.to_string(), &late.digest);
    });
}
