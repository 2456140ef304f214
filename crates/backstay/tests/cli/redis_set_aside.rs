//! Restores of Redis and Valkey into the directory of a stopped server, whose files are kept; and
//! those that end in the middle of it, as a kill would end them.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use testkit::{Redis, RedisVersion, require_redis, require_tampering, tampered_about, wait_until};

use super::program::{Home, Ran, run};
use super::redis_bases::{digest, fill};

const LIMIT: Duration = Duration::from_secs(60);
const APPENDING: [(&str, &str); 1] = [("appendonly", "yes")];

/// What a server held when it was backed up, and what it held later.
struct Scene {
    server: Redis,
    home: Home,
    taken: String,
    old: String,
}

impl Scene {
    fn of(version: RedisVersion, settings: &[(&str, &str)]) -> Option<Scene> {
        let installation = require_redis(version)?;
        let server = Redis::start_new(&installation, settings).unwrap();
        let home = Home::new();
        home.init();
        home.append(&format!("[instance.cache]\nengine = 'redis'\nurl = '{}'\n", server.url()));
        fill(&mut server.client().unwrap());
        let taken = digest(&server);
        home.run(["backup", "cache", "--quiet"]).good();
        server.run(&["DEL", "list", "session:1"]).unwrap();
        server.run(&["SET", "a mistake", "yes"]).unwrap();
        // The process that sent the snapshot may not have ended yet.
        wait_until(LIMIT, "the server to save", || server.run(&["SAVE"]).is_ok()).unwrap();
        let old = digest(&server);
        Some(Scene { server, home, taken, old })
    }

    fn directory(&self) -> PathBuf {
        self.server.data_directory().to_owned()
    }

    fn words(&self) -> Vec<String> {
        let into = self.directory();
        ["restore", "cache", "--set-aside", "--into", into.to_str().unwrap()].map(str::to_owned).to_vec()
    }

    fn restore(&self) -> Ran {
        self.home.run(self.words())
    }

    /// The restore, whose renamings fail as the rule says: all, or those of some paths.
    fn cut(&self, rule: &str, about: &[&Path]) -> Ran {
        let rule = format!("renameat2:error=EIO{rule}");
        let command = self.home.command(self.words());
        run(&mut tampered_about(&command, "renameat2", &[&rule], about, &self.home.path("calls")))
    }

    fn digest_in(&self, directory: &Path, settings: &[(&str, &str)]) -> String {
        digest(&Redis::start_on(self.server.installation(), directory, settings).unwrap())
    }
}

fn set_aside(directory: &Path) -> Vec<PathBuf> {
    let all = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut aside: Vec<_> = all
        .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("before-restore-"))
        .collect();
    aside.sort();
    aside
}

#[test]
fn the_files_of_a_stopped_server_are_kept_and_those_of_the_backup_take_their_place() {
    for version in RedisVersion::ALL {
        for settings in [&[][..], &APPENDING] {
            let Some(mut scene) = Scene::of(version, settings) else { continue };
            let into = scene.directory();
            scene.restore().refused(4, &["the server at", "stop the server"]);
            // One that does not answer where the instance is looked for.
            let config = std::fs::read_to_string(scene.home.config()).unwrap();
            let elsewhere = config.replace(&scene.server.url(), "redis://127.0.0.1:1");
            std::fs::write(scene.home.config(), &elsewhere).unwrap();
            scene.restore().refused(4, &["is at work in", "process"]);
            std::fs::write(scene.home.config(), &config).unwrap();
            assert!(set_aside(&into).is_empty() && !into.join("backstay-restoring").exists());
            scene.server.stop().unwrap();

            let into_words = ["restore", "cache", "--into", into.to_str().unwrap()];
            scene.home.run(into_words).refused(4, &["is not empty"]);
            std::fs::write(into.join("redis.conf"), "# theirs").unwrap();
            let ran = scene.restore().good();
            let aside = set_aside(&into);
            assert!(aside.len() == 1 && ran.err.contains("before-restore-"), "{ran:#?}");
            assert!(!aside[0].join("unfinished.txt").exists() && into.join("redis.conf").exists());
            for appending in [&[][..], &APPENDING] {
                assert_eq!(scene.digest_in(&into, appending), scene.taken, "{version} {appending:?}");
            }
            assert_eq!(scene.digest_in(&aside[0], settings), scene.old, "{version} {settings:?}");
            // And once more, on top of what was restored, for the user of the server.
            let is_root = rustix::process::geteuid().is_root();
            if is_root {
                std::os::unix::fs::chown(&into, Some(65534), Some(65534)).unwrap();
            }
            scene.restore().good();
            for name in ["dump.rdb", "appendonlydir", "appendonlydir/appendonly.aof.manifest"] {
                let is_given = std::fs::metadata(into.join(name)).unwrap().uid() == 65534;
                assert!(is_given || !is_root, "{name}");
            }
            assert_eq!(scene.digest_in(&into, settings), scene.taken);
        }
    }
}

#[test]
fn what_is_no_directory_of_a_server_stays_as_it_is() {
    for version in RedisVersion::ALL {
        let Some(mut scene) = Scene::of(version, &[]) else { continue };
        scene.server.stop().unwrap();
        let other = scene.home.path("other");
        std::fs::create_dir(&other).unwrap();
        std::fs::write(other.join("somebody"), "s").unwrap();
        let words = ["restore", "cache", "--set-aside", "--into", other.to_str().unwrap()];
        scene.home.run(words).refused(4, &["is no directory of a server", "dump.rdb, appendonlydir"]);
        assert_eq!(std::fs::read_dir(&other).unwrap().count(), 1);
        // Somebody who holds one of its files open is at work there, whatever he is called.
        let file = scene.directory().join("dump.rdb");
        let mut holder = std::process::Command::new("tail");
        let mut holder = holder.arg("-f").arg(&file).stdout(std::process::Stdio::null()).spawn().unwrap();
        let opened = || {
            let files = std::fs::read_dir(format!("/proc/{}/fd", holder.id())).unwrap();
            files.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok()).any(|path| path == file)
        };
        wait_until(LIMIT, "the file to be open", opened).unwrap();
        scene.restore().refused(4, &["tail is at work in"]);
        holder.kill().unwrap();
        holder.wait().unwrap();
        scene.restore().good();
    }
}

#[test]
fn a_restore_that_is_cut_leaves_all_of_the_old_or_all_of_the_new_and_can_be_repeated() {
    if !require_tampering() {
        return;
    }
    for version in RedisVersion::ALL {
        let Some(mut scene) = Scene::of(version, &APPENDING) else { continue };
        scene.server.stop().unwrap();
        let into = scene.directory();
        // The directory gets no name: nothing is touched.
        let left = into.join("backstay-restoring");
        assert_eq!(scene.cut("", &[&left]).code, 6);
        for settings in [&APPENDING[..], &[]] {
            assert_eq!(scene.digest_in(&into, settings), scene.old);
        }
        scene.restore().refused(4, &["rm -r", "backstay-restoring"]);
        std::fs::remove_dir_all(&left).unwrap();
        // One thread renames these, in this order, which may have renamed others before.
        let names = ["beside", "dump.rdb", "appendonlydir"].map(|name| into.join(name));
        let names = names.each_ref().map(PathBuf::as_path);
        for number in 1.. {
            // As a kill: what follows does not come about either.
            let ran = scene.cut(&format!(":when={number}+"), &names);
            if ran.code == 0 {
                assert_eq!(number, names.len() + 1, "not every renaming was hit");
                break;
            }
            assert_eq!(ran.code, 6, "{ran:#?}");
            let found = [&APPENDING[..], &[]].map(|settings| scene.digest_in(&into, settings));
            let known = |digest: &String| [&scene.old, &scene.taken].contains(&digest);
            assert!(found.iter().all(known), "{number}: {found:?}");
            let aside = set_aside(&into).pop().unwrap();
            assert!(aside.join("unfinished.txt").exists(), "{number}");
        }
        for settings in [&APPENDING[..], &[]] {
            assert_eq!(scene.digest_in(&into, settings), scene.taken);
        }
    }
}

#[test]
fn an_error_half_way_takes_the_names_back_that_were_given() {
    if !require_tampering() {
        return;
    }
    for version in RedisVersion::ALL {
        let Some(mut scene) = Scene::of(version, &APPENDING) else { continue };
        scene.server.stop().unwrap();
        // The append-only files cannot be exchanged; the snapshot was before.
        let ran = scene.cut("", &[&scene.directory().join("appendonlydir")]);
        assert_eq!(ran.code, 6, "{ran:#?}");
        for settings in [&APPENDING[..], &[]] {
            assert_eq!(scene.digest_in(&scene.directory(), settings), scene.old);
        }
        scene.restore().good();
        assert_eq!(scene.digest_in(&scene.directory(), &APPENDING), scene.taken);
    }
}

#[test]
fn between_two_names_a_server_finds_one_whole_set_whatever_it_is_told_to_load() {
    if !require_tampering() {
        return;
    }
    for version in RedisVersion::ALL {
        let Some(mut scene) = Scene::of(version, &APPENDING) else { continue };
        scene.server.stop().unwrap();
        let into = scene.directory();
        // The second of the two, and what would take the first back.
        let ran = scene.cut(":when=2+", &[&into.join("dump.rdb"), &into.join("appendonlydir")]);
        assert_eq!(ran.code, 6, "{ran:#?}");
        assert_eq!(scene.digest_in(&into, &APPENDING), scene.old);
        assert_eq!(scene.digest_in(&into, &[]), scene.taken);
        let aside = set_aside(&into).pop().unwrap();
        assert!(aside.join("unfinished.txt").exists());
        assert_eq!(scene.digest_in(&aside, &[]), scene.old, "the old snapshot is lost");
        scene.restore().good();
        assert_eq!(scene.digest_in(&into, &APPENDING), scene.taken);
    }
}

#[test]
fn beside_a_snapshot_alone_the_append_only_files_come_first() {
    if !require_tampering() {
        return;
    }
    for version in RedisVersion::ALL {
        let Some(mut scene) = Scene::of(version, &[]) else { continue };
        scene.server.stop().unwrap();
        let into = scene.directory();
        let ran = scene.cut(":when=2+", &[&into.join("dump.rdb"), &into.join("appendonlydir")]);
        assert_eq!(ran.code, 6, "{ran:#?}");
        // The other way round a server that appends would start empty beside the restored snapshot.
        assert_eq!(scene.digest_in(&into, &[]), scene.old);
        assert_eq!(scene.digest_in(&into, &APPENDING), scene.taken);
    }
}
