//! Restores of Redis and Valkey that end while they give their files names: a server has all of it
//! or refuses to start, whether it appends or not.
//!
//! They end with a renaming that fails, and nothing is taken back, so that what lies there is what a
//! kill would leave.

use std::fs;
use std::path::{Path, PathBuf};

use testkit::{Redis, RedisVersion, require_redis, require_tampering, tampered_about};

use super::program::{Home, Ran, run};
use super::redis_append_only_sets::{copy, rewrite};
use super::redis_bases::{digest, fill};
use super::redis_dumps::{dumping, on_both};

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

/// The names that a restore gives, in their order.
const NAMES: [&str; 4] = [
    "appendonlydir/appendonly.aof.manifest",
    "beside",
    "dump.rdb",
    "appendonlydir/appendonly.aof.1.base.rdb",
];

/// A restore that ends instead of giving its nth name, of these. What it gave before stays, as after
/// a kill: it cannot be taken back.
fn cut(home: &Home, into: &Path, words: &[&str], names: &[&str], number: usize) -> Ran {
    let command = home.command(words.iter().copied());
    // One thread gives these, which may have given others before.
    let rules = [&format!("renameat2:error=EIO:when={number}"), "?unlink,unlinkat:error=EIO"];
    let names: Vec<PathBuf> = names.iter().map(|name| into.join(name)).collect();
    let names: Vec<&Path> = names.iter().map(PathBuf::as_path).collect();
    let calls = "renameat2,?unlink,unlinkat";
    run(&mut tampered_about(&command, calls, &rules, &names, &home.path("calls")))
}

/// What a server of each kind does with what lies there, and changes nothing of it: it has all, or it
/// refuses to start. Empty it is only where nothing lies there that it would look for, and no byte of
/// the data has a name that another one would look for. Which of them have all.
fn never_empty(server: &Redis, home: &Home, into: &Path, taken: &str) -> [bool; 2] {
    let append_only = into.join("appendonlydir");
    let named = |suffix: &str| {
        let files = fs::read_dir(&append_only).into_iter().flatten();
        files.filter_map(Result::ok).any(|file| file.file_name().to_str().unwrap().ends_with(suffix))
    };
    let is_data_named = into.join("dump.rdb").exists() || [".rdb", ".aof"].into_iter().any(named);
    [("yes", is_data_named || named(".manifest")), ("no", is_data_named)].map(|(appends, must_be_whole)| {
        let copied = home.path("started");
        let _ = fs::remove_dir_all(&copied);
        copy(into, &copied);
        match Redis::start_on(server.installation(), &copied, &[("appendonly", appends)]) {
            Err(_) => {
                assert!(must_be_whole, "{appends}: it does not start on what is no data");
                false
            }
            Ok(started) if must_be_whole => {
                assert_eq!(digest(&started), taken, "appendonly {appends}: {:?}", names(into));
                true
            }
            Ok(started) => {
                assert_eq!(started.run(&["DBSIZE"]).unwrap().text(), "0");
                false
            }
        }
    })
}

fn names(directory: &Path) -> Vec<PathBuf> {
    super::dumps::shown(directory)
}

#[test]
fn a_server_on_what_a_cut_restore_left_has_all_or_does_not_start() {
    if !require_tampering() {
        return;
    }
    on_both_backed_up(|server, home, taken| {
        for number in 1.. {
            let into = home.path(&format!("restored-{number}"));
            let words = ["restore", "cache", "--into", into.to_str().unwrap(), "--quiet"];
            let ran = cut(home, &into, &words, &NAMES, number);
            let whole = never_empty(server, home, &into, taken);
            if ran.code == 0 {
                assert_eq!((number, whole), (NAMES.len() + 1, [true, true]), "not every renaming was hit");
                assert!(!into.join("backstay-restoring").exists());
                break;
            }
            assert_eq!(ran.code, 6, "{ran:#?}");
            // Behind the snapshot only the base is missing.
            assert_eq!(whole, [false, number > 3], "{number}: {:?}", names(&into));
            assert!(into.join("backstay-restoring").is_dir());
            home.run(words).refused(4, &["is not empty"]);
        }
    });
}

/// Of adopted files, with something behind their base and without, and of a snapshot.
#[test]
fn a_server_on_what_a_cut_restore_of_a_dump_left_has_all_or_does_not_start() {
    if !require_tampering() {
        return;
    }
    for is_followed in [true, false] {
        on_both(&[("appendonly", "yes")], |server, _| {
            if is_followed {
                server.run(&["SET", "behind the base", "yes"]).unwrap();
            }
            let taken = digest(server);
            if !is_followed {
                rewrite(server);
            }
            server.stop().unwrap();
            let home = dumping(server, "plain");
            copy(&server.data_directory().join("appendonlydir"), &home.path("dumps/set"));
            home.run(["adopt", home.path("dumps").to_str().unwrap(), "--instance", "cache"]).good();
            cuts_of_a_dump(server, &home, &taken, [false, !is_followed]);
        });
    }
    on_both(&[], |server, taken| {
        let home = dumping(server, "plain");
        home.run(["dump", "cache", "--quiet"]).good();
        cuts_of_a_dump(server, &home, taken, [false, true]);
    });
}

/// An end at each of the names that a restore gives; what a server has once the snapshot has its own.
fn cuts_of_a_dump(server: &Redis, home: &Home, taken: &str, behind_snapshot: [bool; 2]) {
    let whole = home.path("whole");
    home.run(["restore", "cache", "--into", whole.to_str().unwrap(), "--quiet"]).good();
    let all = names(&whole);
    let all: Vec<&str> =
        all.iter().map(|path| path.strip_prefix(&whole).unwrap().to_str().unwrap()).collect();
    for number in 1.. {
        let into = home.path(&format!("restored-{number}"));
        let words = ["restore", "cache", "--into", into.to_str().unwrap(), "--quiet"];
        let ran = cut(home, &into, &words, &all, number);
        let found = never_empty(server, home, &into, taken);
        if ran.code == 0 {
            assert_eq!(
                (number, found),
                (all.len() + 1, [true, behind_snapshot[1]]),
                "not every name was hit"
            );
            break;
        }
        assert_eq!((ran.code, names(&into).len()), (6, number - 1), "{ran:#?}");
        let expected = if number > 2 { behind_snapshot } else { [false, false] };
        assert_eq!(found, expected, "{number} of {all:?}: {:?}", names(&into));
    }
}
