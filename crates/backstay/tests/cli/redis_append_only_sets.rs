//! Append-only files that somebody copied from a server of Redis or Valkey: one dump to every verb,
//! and given back as a directory that a server starts on with every value.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use serde_json::Value;
use testkit::{Redis, wait_until};

use super::dumps::shown;
use super::program::{Home, flip_a_bit, run};
use super::redis_bases::digest;
use super::redis_dumps::{dumping, on_both};

const LIMIT: Duration = Duration::from_secs(60);
pub const APPENDS: [(&str, &str); 1] = [("appendonly", "yes")];
pub const MANIFEST: &str = "appendonly.aof.manifest";
const HEAD: &str = "saved/appendonlydir/appendonly.aof.manifest";

/// A new base, and nothing left of the one before.
pub fn rewrite(server: &Redis) {
    server.run(&["BGREWRITEAOF"]).unwrap();
    let set = server.data_directory().join("appendonlydir");
    wait_until(LIMIT, "the rewrite", || {
        let info = server.run(&["INFO", "persistence"]).unwrap().text();
        let is_done = info.contains("aof_rewrites:1") && info.contains("aof_rewrite_in_progress:0");
        is_done && names(&set).iter().all(|name| !name.contains(".1."))
    })
    .unwrap();
}

/// What comes behind the base; the state then.
pub fn write_more(server: &Redis) -> String {
    let mut client = server.client().unwrap();
    let every_byte: Vec<u8> = (0..=255).collect();
    client.run(&[&b"SET"[..], b"later", &every_byte.repeat(3)]).unwrap();
    for words in ["SELECT 9", "MULTI", "RPUSH list a b", "INCR count", "EXEC", "SELECT 0", "DEL session:1"] {
        client.run(&words.split(' ').collect::<Vec<_>>()).unwrap();
    }
    digest(server)
}

/// With all that is below; one that was made for nothing may be gone again.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).into_iter().flatten() {
        let path = entry.unwrap().path();
        let to = to.join(path.file_name().unwrap());
        if path.is_dir() { copy(&path, &to) } else { fs::copy(&path, &to).map(drop).unwrap() }
    }
}

/// A home with what a person copied from the stopped server, under this name.
fn copied(server: &mut Redis, name: &str) -> Home {
    server.stop().unwrap();
    let home = dumping(server, "plain");
    copy(&server.data_directory().join("appendonlydir"), &home.path("dumps").join(name));
    home
}

pub fn adopt(home: &Home) -> super::program::Ran {
    home.run(["adopt", home.path("dumps").to_str().unwrap(), "--instance", "cache", "--json"])
}

pub fn names(directory: &Path) -> Vec<String> {
    let below = |path: &PathBuf| path.strip_prefix(directory).unwrap().display().to_string();
    let mut names: Vec<String> = shown(directory).iter().map(below).collect();
    names.sort();
    names
}

/// It starts with append-only files, and everything is there.
fn starts_with(server: &Redis, directory: &Path, more: &[(&str, &str)], expected: &str) {
    // Nothing that is torn is left to be forgiven.
    let settings = [&APPENDS[..], &[("aof-load-truncated", "no")], more].concat();
    let restored = Redis::start_on(server.installation(), directory, &settings).unwrap();
    assert_eq!(digest(&restored), expected, "{settings:?}");
}

pub fn only(told: &Value) -> &Value {
    let files = told["files"].as_array().unwrap();
    assert_eq!(files.len(), 1, "{told:#}");
    &files[0]
}

fn comes_back(server: &Redis, home: &Home, more: &[(&str, &str)], expected: &str) {
    let told = adopt(home).good().json();
    let file = only(&told);
    assert_eq!((&file["fate"], &told["others"]), (&"adopted".into(), &0.into()), "{told:#}");
    let record = &file["record"];
    assert_eq!(
        (&record["format"], &record["content"]),
        (&"append-only".into(), &"server".into()),
        "{told:#}"
    );
    assert_eq!(only(&adopt(home).good().json())["fate"], "known");
    home.run(["verify", "cache"]).good();
    let into = home.path("restored");
    home.run(["restore", "cache", "--into", into.to_str().unwrap()]).good();
    starts_with(server, &into, more, expected);
    // As it was copied, it is still there.
    assert!(home.path("dumps").join(file["path"].as_str().unwrap()).exists());
}

#[test]
fn a_copied_set_is_one_dump_and_comes_back_with_every_value() {
    on_both(&APPENDS, |server, _| {
        rewrite(server);
        let taken = write_more(server);
        let home = copied(server, "saved/appendonlydir");
        let all = names(&home.path("dumps"));
        let total: u64 = shown(&home.path("dumps")).iter().map(|path| path.metadata().unwrap().len()).sum();
        let planned = home.run(["adopt", home.path("dumps").to_str().unwrap(), "--dry-run"]).good();
        assert!(planned.out.contains("append-only files of Redis, in 3 files"), "{planned:#?}");
        assert!(planned.out.contains("1 dump would be adopted, 0 files are no dumps"), "{planned:#?}");
        assert_eq!(names(&home.path("dumps")), all);
        comes_back(server, &home, &[], &taken);
        assert!(home.path("dumps").join(format!("{HEAD}.meta.json")).exists());

        let listed = home.run(["list", "--type", "dump", "--json"]).good().json();
        assert_eq!(listed.as_array().unwrap().len(), 1, "{listed:#}");
        assert_eq!((&listed[0]["damaged"], &listed[0]["stored_bytes"]), (&false.into(), &total.into()));
        let id = listed[0]["id"].as_str().unwrap();
        let detail = home.run(["show", id]).good();
        assert!(detail.out.contains("append-only"), "{detail:#?}");
        // What `show` says does it without Backstay.
        let by_hand = home.path("by-hand");
        fs::create_dir(&by_hand).unwrap();
        let line = detail.out.lines().find(|line| line.contains("mkdir appendonlydir")).unwrap();
        run(Command::new("sh").args(["-ec", line]).current_dir(&by_hand).stdin(Stdio::null())).good();
        fs::remove_file(by_hand.join("appendonlydir/appendonly.aof.manifest.meta.json")).unwrap();
        starts_with(server, &by_hand, &[], &taken);

        // A server that would not look at them does not start empty instead.
        let into = home.path("again");
        let ran = home.run(["restore", "cache", "--backup", id, "--into", into.to_str().unwrap()]).good();
        assert!(ran.out.contains("--appendonly yes") && ran.err.contains("appendonly no"), "{ran:#?}");
        assert_eq!(names(&into).len(), 4, "{:?}", names(&into));
        let refused = Redis::start_on(server.installation(), &into, &[("appendonly", "no")]).unwrap_err();
        assert!(refused.to_string().contains("Wrong signature"), "{refused:#}");
        let restore = ["restore", "cache", "--backup", id, "--into", into.to_str().unwrap()];
        home.run(restore).refused(4, &["not empty"]);
    });
}

#[test]
fn a_base_alone_serves_a_server_that_does_not_append_as_well() {
    on_both(&APPENDS, |server, taken| {
        rewrite(server);
        let home = copied(server, "appendonlydir");
        comes_back(server, &home, &[], taken);
        let restored =
            Redis::start_on(server.installation(), &home.path("restored"), &[("appendonly", "no")]).unwrap();
        assert_eq!(digest(&restored), taken);
    });
}

#[test]
fn a_set_of_commands_and_one_that_began_as_a_single_file_come_back() {
    on_both(&[("appendonly", "yes"), ("aof-use-rdb-preamble", "no")], |server, _| {
        rewrite(server);
        let taken = write_more(server);
        let home = copied(server, "appendonlydir");
        assert!(home.path("dumps/appendonlydir/appendonly.aof.2.base.aof").exists());
        comes_back(server, &home, &[], &taken);
    });
    on_both(&APPENDS, |server, _| {
        rewrite(server);
        write_more(server);
        server.stop().unwrap();
        // As servers before 7.0 wrote it, and a newer one takes it over: a snapshot, and commands behind it.
        let set = server.data_directory().join("appendonlydir");
        let old = server.workspace().path().join("old");
        fs::create_dir(&old).unwrap();
        let part = |name: &str| fs::read(set.join(format!("appendonly.aof.2.{name}"))).unwrap();
        fs::write(old.join("appendonly.aof"), [part("base.rdb"), part("incr.aof")].concat()).unwrap();
        let mut newer = Redis::start_on(server.installation(), &old, &APPENDS).unwrap();
        newer.run(&["SET", "newer", "yes"]).unwrap();
        let taken = digest(&newer);
        newer.stop().unwrap();
        let home = dumping(server, "plain");
        copy(&old.join("appendonlydir"), &home.path("dumps/appendonlydir"));
        assert!(home.path("dumps/appendonlydir/appendonly.aof").exists());
        comes_back(server, &home, &[], &taken);
    });
}

#[test]
fn a_set_with_another_name_keeps_it() {
    const NAMED: [(&str, &str); 2] = [("appendonly", "yes"), ("appendfilename", "our own.log")];
    on_both(&NAMED, |server, _| {
        let taken = write_more(server);
        let home = copied(server, "appendonlydir");
        comes_back(server, &home, &NAMED[1..], &taken);
        let into = home.path("again");
        let ran = home.run(["restore", "cache", "--into", into.to_str().unwrap()]).good();
        assert!(ran.out.contains("--appendfilename 'our own.log'"), "{ran:#?}");
    });
}

/// The last increment.
pub fn increment(set: &Path) -> PathBuf {
    let mut all = shown(set).into_iter();
    all.rfind(|path| path.to_string_lossy().ends_with(".incr.aof")).unwrap()
}

#[test]
fn a_torn_end_is_told_and_a_restore_leaves_out_what_a_server_would() {
    on_both(&APPENDS, |server, _| {
        rewrite(server);
        server.run(&["SET", "before", "the end"]).unwrap();
        let whole = digest(server);
        let length = increment(&server.data_directory().join("appendonlydir")).metadata().unwrap().len();
        server.run(&["SET", "torn", "yes"]).unwrap();
        let home = copied(server, "saved/appendonlydir");
        let last = increment(&home.path("dumps/saved/appendonlydir"));
        fs::File::options().write(true).open(&last).unwrap().set_len(length + 13).unwrap();

        let told = adopt(&home).good().json();
        let file = only(&told);
        assert_eq!(file["fate"], "adopted", "{told:#}");
        assert!(file["record"]["warnings"].to_string().contains("the last 13 bytes"), "{told:#}");
        let verified = home.run(["verify", "cache"]).good();
        assert!(verified.out.contains("sound") && verified.out.contains("13 bytes"), "{verified:#?}");
        let into = home.path("restored");
        let ran = home.run(["restore", "cache", "--into", into.to_str().unwrap()]).good();
        assert!(ran.err.contains("13 bytes"), "{ran:#?}");
        assert_eq!(increment(&into).metadata().unwrap().len(), length);
        starts_with(server, &into, &[], &whole);
        // The copy is as it was.
        assert_eq!(last.metadata().unwrap().len(), length + 13);
    });
}

#[test]
fn the_files_of_a_server_at_work_are_not_taken_in() {
    on_both(&APPENDS, |server, _| {
        let home = dumping(server, "plain");
        let before = names(server.data_directory());
        let ran = home.run(["adopt", server.data_directory().to_str().unwrap(), "--json"]);
        assert_eq!(ran.code, 20, "{ran:#?}");
        let told = ran.json();
        assert_eq!(only(&told)["fate"], "closed", "{told:#}");
        let reason = only(&told)["reason"].as_str().unwrap();
        assert!(reason.contains("has files of it open") && reason.contains("copy the directory"), "{reason}");
        assert_eq!(names(server.data_directory()), before);
        server.stop().unwrap();
        let told = home.run(["adopt", server.data_directory().to_str().unwrap(), "--json"]).good().json();
        assert_eq!(only(&told)["fate"], "adopted", "{told:#}");
    });
}

pub fn edit(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

#[test]
fn what_is_not_whole_is_one_finding_and_nothing_of_it_is_touched() {
    on_both(&APPENDS, |server, _| {
        rewrite(server);
        write_more(server);
        let home = copied(server, "../sound");
        let (sound, set) = (home.path("sound"), home.path("dumps/saved/appendonlydir"));
        let base = "appendonly.aof.2.base.rdb";
        let spoils: [(&str, &dyn Fn()); 8] = [
            ("names appendonly.aof.2.base.rdb, which is not there", &|| {
                fs::remove_file(set.join(base)).unwrap();
            }),
            ("../other, which it names, is no file beside it", &|| {
                fs::write(set.join(MANIFEST), "file ../other seq 1 type b\n").unwrap();
            }),
            ("no file is listed", &|| fs::write(set.join(MANIFEST), "# nothing\n").unwrap()),
            ("names notes.txt, which no server calls", &|| {
                edit(&set.join(MANIFEST), |bytes| bytes.extend(b"file notes.txt seq 9 type i\n"));
            }),
            ("its sum is another", &|| flip_a_bit(&set.join(base))),
            ("a command was to begin", &|| edit(&increment(&set), |bytes| bytes.insert(0, b'x'))),
            ("a command was to begin", &|| edit(&increment(&set), |bytes| bytes.push(b'x'))),
            ("is not the last", &|| {
                let torn = fs::read(increment(&set)).unwrap();
                fs::write(increment(&set), &torn[..torn.len() - 3]).unwrap();
                fs::write(set.join("appendonly.aof.9.incr.aof"), "").unwrap();
                edit(&set.join(MANIFEST), |bytes| {
                    bytes.extend(b"file appendonly.aof.9.incr.aof seq 9 type i\n");
                });
            }),
        ];
        for (words, spoil) in spoils {
            let _ = fs::remove_dir_all(&set);
            copy(&sound, &set);
            spoil();
            let before: Vec<_> =
                names(&set).into_iter().map(|name| fs::read(set.join(&name)).unwrap()).collect();
            let ran = adopt(&home);
            assert_eq!(ran.code, 20, "{words}: {ran:#?}");
            let told = ran.json();
            assert_eq!(
                (only(&told)["path"].as_str(), only(&told)["fate"].as_str()),
                (Some(HEAD), Some("damaged"))
            );
            assert!(only(&told)["reason"].as_str().unwrap().contains(words), "{words}: {told:#}");
            let after: Vec<_> =
                names(&set).into_iter().map(|name| fs::read(set.join(&name)).unwrap()).collect();
            assert!(before == after, "{words}: {:?}", names(&set));
        }
    });
}

#[test]
fn damage_behind_the_adoption_is_named_and_nothing_is_restored() {
    on_both(&APPENDS, |server, _| {
        rewrite(server);
        write_more(server);
        let home = copied(server, "saved/appendonlydir");
        adopt(&home).good();
        let set = home.path("dumps/saved/appendonlydir");
        let into = home.path("restored");
        let restore = ["restore", "cache", "--into", into.to_str().unwrap()];
        let base = set.join("appendonly.aof.2.base.rdb");
        // The first is another value that is as good to a server.
        for (path, word) in
            [(increment(&set), "incr.aof"), (base, "base.rdb"), (set.join(MANIFEST), "manifest")]
        {
            let sound = fs::read(&path).unwrap();
            match word {
                "incr.aof" => edit(&path, |bytes| {
                    let at = bytes.windows(5).position(|part| part == b"later").unwrap();
                    bytes[at] = b'k';
                }),
                "base.rdb" => flip_a_bit(&path),
                _ => edit(&path, |bytes| bytes[0] = b'#'),
            }
            let ran = home.run(restore);
            assert_eq!((ran.code, into.exists()), (8, false), "{word}: {ran:#?}");
            let ran = home.run(["verify", "cache"]);
            assert!(ran.code == 20 && ran.out.contains(word), "{word}: {ran:#?}");
            fs::write(&path, sound).unwrap();
            home.run(["verify", "cache"]).good();
        }
        fs::remove_file(increment(&set)).unwrap();
        let listed = home.run(["list", "--type", "dump", "--json"]).json();
        assert_eq!(listed[0]["damaged"], true, "{listed:#}");
        home.run(restore).refused(8, &["damaged"]);
        for level in ["existence", "structure", "digest"] {
            let ran = home.run(["verify", "cache", "--level", level]);
            assert!(ran.code == 20 && ran.out.contains("is gone"), "{level}: {ran:#?}");
        }
    });
}

#[test]
fn what_waits_for_its_deletion_is_neither_a_part_of_a_set_nor_a_dump() {
    on_both(&APPENDS, |server, _| {
        rewrite(server);
        let taken = write_more(server);
        let home = copied(server, "saved/appendonlydir");
        let set = home.path("dumps/saved/appendonlydir");
        let base = set.join("appendonly.aof.2.base.rdb");
        fs::copy(&base, set.join("appendonly.aof.1.base.rdb")).unwrap();
        // Of a rewrite that was under way.
        fs::copy(&base, set.join("appendonly.aof.3.base.rdb")).unwrap();
        edit(&set.join(MANIFEST), |bytes| {
            bytes.extend(
                b"file appendonly.aof.1.base.rdb seq 1 type h\nfile appendonly.aof.1.incr.aof seq 1 type h\n",
            );
        });
        let told = adopt(&home).good().json();
        assert_eq!((&only(&told)["fate"], &told["others"]), (&"adopted".into(), &2.into()), "{told:#}");
        assert_eq!(only(&told)["record"]["members"].as_array().unwrap().len(), 2, "{told:#}");
        let into = home.path("restored");
        home.run(["restore", "cache", "--into", into.to_str().unwrap()]).good();
        let manifest = fs::read_to_string(into.join("appendonlydir").join(MANIFEST)).unwrap();
        assert!(manifest.lines().count() == 2 && !manifest.contains("type h"), "{manifest}");
        starts_with(server, &into, &[], &taken);
    });
}

/// In 2023.
pub fn written_before(path: &Path) {
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)).unwrap();
}

#[test]
fn a_set_goes_as_a_whole_and_never_in_part() {
    on_both(&APPENDS, |server, _| {
        rewrite(server);
        let taken = write_more(server);
        let home = copied(server, "new");
        home.append("[instance.cache.dump]\nkeep = { daily = { count = 1 } }\n");
        let (old, new) = (home.path("dumps/old"), home.path("dumps/new"));
        let base = "appendonly.aof.2.base.rdb";
        // Somebody was not done with the copy, and the base is a snapshot like others.
        fs::create_dir_all(home.path("copying")).unwrap();
        copy(&new, &home.path("copying"));
        fs::remove_dir_all(&new).unwrap();
        fs::create_dir_all(&new).unwrap();
        fs::copy(home.path("copying").join(base), new.join(base)).unwrap();
        let told = adopt(&home).good().json();
        assert_eq!(only(&told)["record"]["format"], "rdb", "{told:#}");
        for name in names(&home.path("copying")).iter().filter(|name| *name != base) {
            fs::copy(home.path("copying").join(name), new.join(name)).unwrap();
        }
        copy(&home.path("copying"), &old);
        fs::write(old.join("notes.txt"), "mine").unwrap();
        edit(&increment(&old), |bytes| bytes.extend(b"*1\r\n$4\r\nPING\r\n"));
        shown(&old).iter().for_each(|path| written_before(path));

        let told = adopt(&home).good().json();
        assert_eq!((told["files"].as_array().unwrap().len(), &told["others"]), (2, &1.into()), "{told:#}");
        let before = names(&new);
        let ran = home.run(["expire", "cache"]).good();
        assert_eq!(names(&old), ["notes.txt"], "{ran:#?}");
        assert_eq!(names(&new), before, "{ran:#?}");
        assert!(ran.out.contains("is not whole without it"), "{ran:#?}");
        home.run(["verify", "cache"]).good();
        let into = home.path("restored");
        home.run(["restore", "cache", "--into", into.to_str().unwrap()]).good();
        starts_with(server, &into, &[], &taken);
    });
}
