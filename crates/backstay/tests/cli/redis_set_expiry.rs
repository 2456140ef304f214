//! Append-only files that retention lets go: the whole of a set that is nobody's, or nothing of it.

use std::fs;
use std::os::unix::fs::lchown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use testkit::{Redis, wait_until};

use super::program::{Home, Ran, run};
use super::redis_append_only_sets::{
    APPENDS, MANIFEST, adopt, copy, increment, names, only, rewrite, write_more, written_before,
};
use super::redis_bases::digest;
use super::redis_dumps::{dumping, on_both};

const LIMIT: Duration = Duration::from_secs(60);

/// A home with an adopted set in `old`, which retention lets go for that in `new`.
fn outlived(server: &mut Redis) -> Home {
    rewrite(server);
    write_more(server);
    server.stop().unwrap();
    let home = dumping(server, "plain");
    home.append("[instance.cache.dump]\nkeep = { daily = { count = 1 } }\n");
    let set = server.data_directory().join("appendonlydir");
    let old = home.path("dumps/old/appendonlydir");
    copy(&set, &old);
    fs::File::options()
        .append(true)
        .open(increment(&old))
        .and_then(|mut file| std::io::Write::write_all(&mut file, b"*1\r\n$4\r\nPING\r\n"))
        .unwrap();
    names(&old).iter().for_each(|name| written_before(&old.join(name)));
    copy(&set, &home.path("dumps/new"));
    let told = adopt(&home).good().json();
    assert_eq!(told["files"].as_array().unwrap().len(), 2, "{told:#}");
    home
}

/// Everything below the directory of a set, byte by byte.
fn all_of(directory: &Path) -> Vec<(String, Vec<u8>)> {
    names(directory).into_iter().map(|name| (name.clone(), fs::read(directory.join(name)).unwrap())).collect()
}

fn expire(home: &Home) -> Ran {
    home.run(["expire", "cache"]).good()
}

#[test]
fn a_set_that_a_server_works_with_stays_whatever_retention_says() {
    on_both(&APPENDS, |server, _| {
        let home = outlived(server);
        let (old, set) = (home.path("dumps/old"), home.path("dumps/old/appendonlydir"));
        let stays = |word: &str| {
            let before = all_of(&set);
            let ran = expire(&home);
            assert!(ran.out.contains("and it stays") && ran.out.contains(word), "{word}: {ran:#?}");
            assert!(all_of(&set) == before, "{word}: {ran:#?}");
        };
        // It has written nothing yet.
        let mut worker = Redis::start_on(server.installation(), &old, &APPENDS).unwrap();
        stays("has files of it open");
        worker.run(&["SET", "of the server", "yes"]).unwrap();
        stays("incr.aof is not what was taken in");
        // No file that was taken in is there any more, but for the manifest, which is another.
        worker.run(&["BGREWRITEAOF"]).unwrap();
        // The manifest is written once more when the old files are gone.
        wait_until(LIMIT, "the rewrite", || {
            let manifest = fs::read_to_string(set.join(MANIFEST)).unwrap();
            !manifest.contains(".2.") && names(&set).iter().all(|name| !name.contains(".2."))
        })
        .unwrap();
        stays("manifest is not what was taken in");
        let held = digest(&worker);
        worker.stop().unwrap();
        stays("manifest is not what was taken in");
        assert_eq!(digest(&Redis::start_on(server.installation(), &old, &APPENDS).unwrap()), held);
    });
}

#[test]
fn a_set_that_a_server_let_go_as_it_was_goes() {
    on_both(&APPENDS, |server, _| {
        let home = outlived(server);
        let set = home.path("dumps/old/appendonlydir");
        let mut worker = Redis::start_on(server.installation(), &home.path("dumps/old"), &APPENDS).unwrap();
        worker.stop().unwrap();
        let ran = expire(&home);
        assert_eq!(names(&set), Vec::<String>::new(), "{ran:#?}");
        assert!(home.path("dumps/new").join(MANIFEST).exists());
    });
}

#[test]
fn a_set_beside_a_sidecar_that_does_not_read_stays_as_a_whole() {
    on_both(&APPENDS, |server, _| {
        let home = outlived(server);
        let set = home.path("dumps/old/appendonlydir");
        let own = set.join(format!("{MANIFEST}.meta.json"));
        let sidecar = fs::read_to_string(&own).unwrap();
        let broken = set.join("another.rdb.meta.json");
        fs::write(&broken, &sidecar[..sidecar.len() - 3]).unwrap();
        let before = all_of(&set);
        let ran = expire(&home);
        assert!(ran.out.contains("beside it does not read"), "{ran:#?}");
        assert!(all_of(&set) == before, "{ran:#?}");

        // A removal that began before it did not read: what tells of the rest stays with the rest.
        let mut began: Value = serde_json::from_str(&sidecar).unwrap();
        began["expired_at"] = "2026-01-01T00:00:00Z".into();
        fs::write(&own, began.to_string()).unwrap();
        fs::remove_file(set.join(MANIFEST)).unwrap();
        let before = all_of(&set);
        let ran = expire(&home);
        assert!(ran.out.contains("beside it does not read"), "{ran:#?}");
        assert!(all_of(&set) == before, "{ran:#?}");
        fs::remove_file(&broken).unwrap();
        let ran = expire(&home);
        assert_eq!(names(&set), Vec::<String>::new(), "{ran:#?}");
    });
}

fn give_to_nobody(path: &Path) {
    lchown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    for entry in fs::read_dir(path).into_iter().flatten() {
        give_to_nobody(&entry.unwrap().path());
    }
}

const NOBODY: u32 = 65534;

/// Whoever may not look into a server does not know that nothing is open.
#[test]
fn of_a_server_of_another_user_a_set_is_neither_taken_nor_let_go() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root can be another user");
        return;
    }
    on_both(&APPENDS, |server, _| {
        let home = outlived(server);
        let (old, set) = (home.path("dumps/old"), home.path("dumps/old/appendonlydir"));
        let _worker = Redis::start_on(server.installation(), &old, &APPENDS).unwrap();
        give_to_nobody(&home.path("."));
        let as_nobody = |words: &[&str]| run(home.command(words).uid(NOBODY).gid(NOBODY));
        let before = all_of(&set);
        let ran = as_nobody(&["expire", "cache"]).good();
        assert!(ran.out.contains("cannot be seen") && ran.out.contains("run it as root"), "{ran:#?}");
        assert!(all_of(&set) == before, "{ran:#?}");
        let sidecar: PathBuf = set.join(format!("{MANIFEST}.meta.json"));
        fs::remove_file(&sidecar).unwrap();
        let ran = as_nobody(&["adopt", old.to_str().unwrap(), "--instance", "cache", "--json"]);
        assert_eq!((ran.code, &only(&ran.json())["fate"]), (20, &"closed".into()), "{ran:#?}");
        assert!(ran.out.contains("cannot be seen") && !sidecar.exists(), "{ran:#?}");
    });
}
