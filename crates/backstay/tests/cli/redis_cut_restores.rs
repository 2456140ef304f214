//! Restores of Redis and Valkey that end while they give their files names: a server finds a whole
//! set there, or nothing that it would take for one.
//!
//! They end with a renaming that fails. Nothing is taken back then, so that what lies there is what
//! a kill would leave.

use std::path::{Path, PathBuf};

use testkit::{Redis, RedisVersion, require_redis, require_tampering, tampered_about};

use super::program::{Home, run};
use super::redis_bases::{digest, fill};

/// A server that holds something and is backed up, and a home whose instance `cache` it is.
fn on_both_backed_up(test: impl Fn(&mut Redis, &Home, &str)) {
    for version in RedisVersion::ALL {
        let Some(installation) = require_redis(version) else { continue };
        let mut server = Redis::start_new(&installation, &[]).unwrap();
        let home = Home::new();
        home.init();
        home.append(&format!("[instance.cache]\nengine = 'redis'\nurl = '{}'\n", server.url()));
        fill(&mut server.client().unwrap());
        let taken = digest(&server);
        home.run(["backup", "cache", "--quiet"]).good();
        test(&mut server, &home, &taken);
    }
}

/// The names that a restore gives, in their order: the files beside it, the snapshot, the append-only
/// files.
const NAMES: [&str; 3] = ["beside", "dump.rdb", "appendonlydir"];

/// A restore that ends instead of giving its nth name; whether it came so far.
fn cut_at_name(home: &Home, into: &Path, words: &[&str], number: u32) -> bool {
    let rule = format!("renameat2:error=EIO:when={number}");
    let command = home.command(words.iter().copied());
    // One thread gives these, which may have given others before.
    let names = NAMES.map(|name| into.join(name));
    let names = names.each_ref().map(PathBuf::as_path);
    let ran = run(&mut tampered_about(&command, "renameat2", &[&rule], &names, &home.path("calls")));
    assert!([0, 6].contains(&ran.code), "{ran:#?}");
    ran.code != 0
}

/// A server that appends takes what is in this directory for all that there is.
fn has_no_base_without_manifest(directory: &Path) {
    let append_only = directory.join("appendonlydir");
    if append_only.exists() {
        let names = ["appendonly.aof.1.base.rdb", "appendonly.aof.manifest"];
        assert!(names.iter().all(|name| append_only.join(name).exists()), "{}", append_only.display());
    }
}

#[test]
fn a_restore_that_is_cut_leaves_all_of_the_append_only_files_or_none() {
    if !require_tampering() {
        return;
    }
    on_both_backed_up(|server, home, taken| {
        let mut number = 0;
        loop {
            number += 1;
            let into = home.path(&format!("restored-{number}"));
            let words = ["restore", "cache", "--into", into.to_str().unwrap(), "--quiet"];
            let is_cut = cut_at_name(home, &into, &words, number);
            has_no_base_without_manifest(&into);
            if !is_cut {
                break;
            }
            assert!(into.join("backstay-restoring").is_dir());
            home.run(words).refused(4, &["is not empty"]);
            for (name, settings) in [("appendonlydir", &[("appendonly", "yes")][..]), ("dump.rdb", &[])] {
                if into.join(name).exists() {
                    let restored = Redis::start_on(server.installation(), &into, settings).unwrap();
                    assert_eq!(digest(&restored), taken, "{name} after {number}");
                }
            }
        }
        assert_eq!(number as usize, NAMES.len() + 1, "not every renaming was hit");
        let into = home.path("restored-4");
        let restored = Redis::start_on(server.installation(), &into, &[("appendonly", "yes")]).unwrap();
        assert_eq!(digest(&restored), taken);
        assert!(!into.join("backstay-restoring").exists());
    });
}
