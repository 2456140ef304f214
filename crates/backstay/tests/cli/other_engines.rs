//! What scripts left of Redis and InfluxDB: files of the real programs, packed with the
//! scripts' own commands, taken in, verified, given back and let go.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::dumps::{PHRASE, shown};
use super::program::{Home, Ran, flip_a_bit, run};

/// An instance of this engine whose dumps lie in `left`.
fn home(engine: &str, layout: &str) -> Home {
    let home = Home::new();
    home.init();
    std::fs::write(home.path("phrase"), PHRASE).unwrap();
    std::fs::create_dir(home.path("gnupg")).unwrap();
    std::fs::create_dir(home.path("left")).unwrap();
    home.append(&format!(
        "[instance.own]\nengine = '{engine}'\nenvironment = 'production'\n[instance.own.dump]\nto = 'file://{}'\n\
         layout = '{layout}'\npassphrase = {{ file = 'phrase' }}\n",
        home.path("left").display()
    ));
    home
}

/// A script with the fixtures as `$RDB`, `$PORTABLE`, `$LEGACY`, `$BROKEN` and `$TOMBSTONE`.
fn shell(home: &Home, script: &str) {
    let mut command = Command::new("bash");
    command.args(["-euo", "pipefail", "-c", script]).current_dir(home.path("left")).stdin(Stdio::null());
    command.env("RDB", testkit::fixture("redis-7.0.15.rdb")).env("GNUPGHOME", home.path("gnupg"));
    for name in ["portable", "legacy", "broken", "tombstone"] {
        command.env(name.to_uppercase(), testkit::fixture(&format!("influxdb-1.6.7-{name}.tar.gz")));
    }
    run(&mut command).good();
}

fn adopt(home: &Home) -> Ran {
    home.run(["adopt", home.path("left").to_str().unwrap(), "--json"])
}

fn fate(told: &serde_json::Value, name: &str) -> String {
    let file = told["files"].as_array().unwrap().iter().find(|file| file["path"] == name);
    file.unwrap_or_else(|| panic!("{name}: {told}"))["fate"].as_str().unwrap().to_owned()
}

fn only_id(told: &serde_json::Value) -> String {
    told["files"][0]["record"]["id"].as_str().unwrap().to_owned()
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = shown(directory)
        .iter()
        .map(|path| path.strip_prefix(directory).unwrap().display().to_string())
        .collect();
    names.sort();
    names
}

/// What comes of a snapshot: for a server that appends, and for one that does not.
const RESTORED: [&str; 3] =
    ["appendonlydir/appendonly.aof.1.base.rdb", "appendonlydir/appendonly.aof.manifest", "dump.rdb"];

const ENC: &str = "openssl enc -aes-256-cbc -salt -pbkdf2 -iter 100000 -pass file:../phrase";
const GPG: &str = "gpg --batch --quiet --pinentry-mode loopback --passphrase-file ../phrase --symmetric --cipher-algo AES256";

#[test]
fn a_snapshot_of_redis_under_every_layer_is_taken_in_and_comes_back() {
    for (name, script) in [
        ("daily/redis_20240101_040000.rdb.gz", "mkdir daily; gzip -c $RDB > $F".to_owned()),
        ("dump.rdb", "cp $RDB $F".to_owned()),
        ("dump.rdb.zst", "zstd -q -c $RDB > $F".to_owned()),
        ("dump.rdb.gz.enc", format!("gzip -c $RDB | {ENC} > $F")),
        ("dump.rdb.gpg", format!("{GPG} -o $F $RDB")),
        (
            "redis_20240101_040000.tar.gz.enc",
            format!("mkdir ../d; cp $RDB ../d/dump.rdb; tar -czf - -C ../d . | {ENC} > $F"),
        ),
    ] {
        let layout = if name.contains("daily") { "grill-stats" } else { "grill-stats-backup" };
        let home = home("redis", layout);
        shell(&home, &script.replace("$F", name));
        let told = adopt(&home).good().json();
        assert_eq!(fate(&told, name), "adopted", "{told}");
        let record = &told["files"][0]["record"];
        assert_eq!((&record["engine"], &record["content"]), (&"redis".into(), &"server".into()), "{name}");
        assert_eq!(
            (&record["format"], &record["server_version"]),
            (&"rdb".into(), &"7.0.15".into()),
            "{name}"
        );
        let day = record["finished_at"].as_str().unwrap();
        // By the name where the layout reads it, else by what the snapshot says of itself.
        assert!(
            day.starts_with(if name.contains("2024") { "2024-01-01T04" } else { "2026-11-21" }),
            "{name}: {day}"
        );
        assert_eq!(fate(&adopt(&home).good().json(), name), "known");
        assert!(home.run(["list", "--type", "dump"]).good().out.contains("own"));
        home.run(["show", &only_id(&told)]).good();
        home.run(["verify", "own"]).good();

        let into = home.path("restored");
        let planned = home.run(["restore", "own", "--into", into.to_str().unwrap(), "--dry-run"]).good();
        assert!(planned.out.contains("dump.rdb") && !into.exists(), "{planned:#?}");
        let ran = home.run(["restore", "own", "--into", into.to_str().unwrap()]).good();
        assert!(ran.out.contains("--appendonly no") && ran.err.contains("appendonly yes"), "{ran:#?}");
        let rdb = into.join("dump.rdb");
        assert_eq!(
            std::fs::read(&rdb).unwrap(),
            std::fs::read(testkit::fixture("redis-7.0.15.rdb")).unwrap()
        );
        assert_eq!(names(&into), RESTORED);
        home.run(["restore", "own", "--into", into.to_str().unwrap()]).refused(4, &["not empty"]);
    }
}

#[test]
fn a_snapshot_that_is_damaged_is_not_taken_in_and_one_that_became_so_is_not_given_back() {
    let home = home("redis", "plain");
    shell(
        &home,
        "cp $RDB good.rdb; head -c 290 $RDB > cut.rdb; cp $RDB flipped.rdb; gzip -c $RDB | head -c 100 > cut.rdb.gz",
    );
    let mut bytes = std::fs::read(home.path("left/flipped.rdb")).unwrap();
    bytes[200] ^= 1;
    std::fs::write(home.path("left/flipped.rdb"), bytes).unwrap();
    let ran = adopt(&home);
    assert_eq!(ran.code, 20, "{ran:#?}");
    let told = ran.json();
    for (name, expected) in [
        ("good.rdb", "adopted"),
        ("cut.rdb", "damaged"),
        ("flipped.rdb", "damaged"),
        ("cut.rdb.gz", "damaged"),
    ] {
        assert_eq!(fate(&told, name), expected, "{told}");
    }
    flip_a_bit(&home.path("left/good.rdb"));
    let into = home.path("restored");
    let restore = ["restore", "own", "--into", into.to_str().unwrap()];
    let ran = home.run(restore);
    assert_eq!((ran.code, into.exists()), (8, false), "{ran:#?}");
    let ran = home.run(["verify", "own"]);
    assert_eq!(ran.code, 20, "{ran:#?}");
    home.run(restore).refused(8, &["damaged"]);
}

#[test]
fn backups_of_influxdb_in_archives_and_in_directories_are_taken_in_and_come_back() {
    for (name, script, content, next) in [
        (
            "influxdb_20240101_030000.tar.gz.enc",
            format!("{ENC} -in $PORTABLE -out $F"),
            "cluster",
            "influxd restore -portable",
        ),
        (
            "influxdb_20240101_030000.tar.gz",
            "cp $TOMBSTONE $F".to_owned(),
            "database",
            "influxd restore -portable",
        ),
        (
            "influxdb_20240101_030000.tar.gz",
            "cp $LEGACY $F".to_owned(),
            "database",
            "influxd restore -online -db grill_stats",
        ),
        (
            "day/20261121T210443Z.manifest",
            "mkdir day; tar -xzf $PORTABLE -C day".to_owned(),
            "cluster",
            "influxd restore -portable",
        ),
        (
            "day/meta.00",
            "mkdir day; tar -xzf $LEGACY -C day".to_owned(),
            "database",
            "influxd restore -online -db grill_stats",
        ),
    ] {
        let home = home("influxdb", "grill-stats-backup");
        shell(&home, &script.replace("$F", name));
        let told = adopt(&home).good().json();
        assert_eq!(fate(&told, name), "adopted", "{told}");
        assert_eq!(told["files"].as_array().unwrap().len(), 1, "{told}");
        let record = &told["files"][0]["record"];
        assert_eq!((&record["engine"], &record["content"]), (&"influxdb".into(), &content.into()), "{told}");
        let warns = record["warnings"].to_string().contains("comes back");
        assert_eq!(warns, script.contains("TOMBSTONE"), "{record}");
        home.run(["verify", "own"]).good();
        let listed = home.run(["list", "--type", "dump", "--json"]).good().json();
        assert_eq!(listed[0]["damaged"], false, "{listed}");

        let into = home.path("restored");
        let ran = home.run(["restore", "own", "--into", into.to_str().unwrap()]).good();
        assert!(ran.out.contains(next) && ran.out.contains(into.to_str().unwrap()), "{ran:#?}");
        let kind = if content == "cluster" {
            "PORTABLE"
        } else if script.contains("LEGACY") {
            "LEGACY"
        } else {
            "TOMBSTONE"
        };
        shell(
            &home,
            &format!("mkdir ../expected; tar -xzf ${kind} -C ../expected; diff -r ../expected ../restored"),
        );

        // A file of it is damaged, or gone.
        if name.starts_with("day/") {
            let member = shown(&home.path("left/day")).into_iter().find(|path| {
                let name = path.file_name().unwrap().to_string_lossy();
                name.ends_with(".s1.tar.gz") || name.ends_with(".00001.00")
            });
            let member: PathBuf = member.unwrap();
            flip_a_bit(&member);
            assert_eq!(home.run(["verify", "own"]).code, 20);
            let again = home.path("again");
            assert_eq!(home.run(["restore", "own", "--into", again.to_str().unwrap()]).code, 8);
            assert!(!again.exists());
            std::fs::remove_file(member).unwrap();
            assert_eq!(home.run(["verify", "own"]).code, 20);
        }
    }
}

#[test]
fn a_backup_of_influxdb_that_is_not_whole_is_told() {
    let home = home("influxdb", "plain");
    shell(
        &home,
        "cp $BROKEN broken.tar.gz; mkdir gone; tar -xzf $PORTABLE -C gone; rm gone/*.s2.tar.gz
         mkdir other; echo x > other/x; tar -czf other.tar.gz other; mkdir bad; echo '{' > bad/20240101T000000Z.manifest",
    );
    let ran = adopt(&home);
    assert_eq!(ran.code, 20, "{ran:#?}");
    let told = ran.json();
    assert_eq!(fate(&told, "broken.tar.gz"), "damaged");
    assert_eq!(fate(&told, "gone/20261121T210443Z.manifest"), "damaged");
    assert_eq!(fate(&told, "bad/20240101T000000Z.manifest"), "damaged");
    assert_eq!(fate(&told, "other.tar.gz"), "later");
    assert!(!names(&home.path("left")).iter().any(|name| name.ends_with(".meta.json")));
}

#[test]
fn dumps_of_another_engine_are_named_and_left_alone() {
    for (engine, own, other) in [
        (
            "redis",
            "a.rdb",
            ("b.tar.gz", "a backup of InfluxDB, under gzip; adopt it for an instance of engine influxdb"),
        ),
        ("influxdb", "b.tar.gz", ("a.rdb", "a snapshot of Redis; adopt it for an instance of engine redis")),
    ] {
        let home = home(engine, "plain");
        shell(&home, "cp $RDB a.rdb; cp $PORTABLE b.tar.gz; printf 'PGDMP\\1\\16' > c.dump");
        let told = adopt(&home).good().json();
        assert_eq!(fate(&told, own), "adopted", "{told}");
        assert_eq!((fate(&told, other.0), fate(&told, "c.dump")), ("later".into(), "later".into()), "{told}");
        assert!(told.to_string().contains(other.1), "{told}");
    }
}

#[test]
fn what_needs_the_server_says_in_one_line_that_it_is_not_reached() {
    for (engine, name) in [("redis", "Redis"), ("influxdb", "InfluxDB")] {
        let home = home(engine, "plain");
        home.run(["config", "check"]).good();
        match engine {
            "redis" => {
                home.run(["backup", "own"]).refused(2, &["`url`", "not set"]);
                home.run(["dump", "own"]).refused(2, &["`url`", "not set"]);
            }
            _ => {
                home.run(["backup", "own"]).refused(7, &[name, "backstay adopt"]);
                home.run(["dump", "own"]).refused(7, &[name, "backstay restore own --into DIR"]);
            }
        };
        for verb in [&["restore", "own", "--into-database", "x"][..], &["restore", "own", "--swap", "x"]] {
            let said = format!("does not work with {name} servers");
            home.run(verb).refused(7, &[&said, "backstay restore own --into DIR"]);
        }
        let into = home.path("x");
        let restore = ["restore", "own", "--into", into.to_str().unwrap()];
        home.run(restore).refused(3, &["there is no dump of own", "backstay adopt"]);
        home.run([&restore[..], &["--start"]].concat()).refused(2, &["--start"]);
    }
}

#[test]
fn old_ones_are_let_go_with_every_file_that_belongs_to_them() {
    let home = home("influxdb", "plain");
    home.append("[dump.keep]\ndaily = { count = 1 }\n");
    shell(
        &home,
        "mkdir a b; tar -xzf $PORTABLE -C a; echo mine > b/notes.txt; tar -xzf $PORTABLE -C b; cd b
         for f in 2*; do mv $f 20261120${f#20261121}; done; sed -i s/20261121/20261120/ *.manifest",
    );
    let told = adopt(&home).good().json();
    assert_eq!(told["files"].as_array().unwrap().len(), 2, "{told}");
    let before = names(&home.path("left/a"));
    let planned = home.run(["expire", "own", "--dry-run"]).good();
    assert!(planned.out.contains("b/20261120T210443Z.manifest"), "{planned:#?}");
    let ran = home.run(["expire", "own"]).good();
    assert_eq!(names(&home.path("left/b")), ["notes.txt"], "{planned:#?} {ran:#?}");
    assert_eq!(names(&home.path("left/a")), before);
    home.run(["verify", "own"]).good();
}

fn change(path: &Path, edit: impl FnOnce(&mut serde_json::Value)) {
    let mut json = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    edit(&mut json);
    std::fs::write(path, json.to_string()).unwrap();
}

#[test]
fn older_backups_that_share_a_directory_are_not_taken_in_and_share_nothing_that_goes() {
    let home = home("influxdb", "plain");
    home.append("[dump.keep]\ndaily = { count = 1 }\n");
    shell(
        &home,
        "mkdir day two; tar -xzf $LEGACY -C day; tar -xzf $LEGACY -C two; cp two/meta.00 two/meta.01",
    );
    let ran = adopt(&home).good();
    let told = ran.json();
    assert_eq!(told["files"].as_array().unwrap().len(), 3, "{told}");
    assert_eq!(fate(&told, "day/meta.00"), "adopted");
    for name in ["two/meta.00", "two/meta.01"] {
        assert_eq!(fate(&told, name), "later", "{told}");
    }
    assert!(told.to_string().contains("into a directory of its own"), "{told}");

    // Taken in when that was not looked at: another's record names the same files, and one of
    // ours a file that is no part of any backup.
    shell(
        &home,
        "rm -r two; cp day/meta.00 day/meta.01; cp day/meta.00.meta.json day/meta.01.meta.json; echo mine > day/notes.txt",
    );
    change(&home.path("left/day/meta.01.meta.json"), |record| {
        record["file"] = "meta.01".into();
        record["id"] = "20230101T000000Z-7q3f".into();
        record["instance"] = "another".into();
    });
    change(&home.path("left/day/meta.00.meta.json"), |record| {
        let mut notes = record["members"][0].clone();
        (notes["file"], notes["stored_bytes"]) = ("notes.txt".into(), 5.into());
        record["members"].as_array_mut().unwrap().push(notes);
    });
    shell(&home, "mkdir new; tar -xzf $LEGACY -C new; touch -d 2024-01-01 new/meta.00");
    assert_eq!(fate(&adopt(&home).json(), "new/meta.00"), "adopted");
    change(&home.path("left/day/meta.00.meta.json"), |record| {
        record["id"] = "20230102T000000Z-7q3f".into();
        for time in ["started_at", "finished_at"] {
            record[time] = "2023-01-02T00:00:00Z".into();
        }
    });
    let before = names(&home.path("left/day"));
    let ran = home.run(["expire", "own"]).good();
    let left: Vec<String> = before.into_iter().filter(|name| !name.starts_with("meta.00")).collect();
    assert_eq!(names(&home.path("left/day")), left, "{ran:#?}");
    assert!(left.iter().any(|name| name.ends_with(".00001.00")) && left.contains(&"notes.txt".to_owned()));
}

#[test]
fn a_set_without_one_of_its_files_is_no_good_one_to_anybody() {
    for spoil in ["rm $OLD/*.s1.tar.gz", "truncate -s 10 $OLD/*.s1.tar.gz"] {
        let home = home("influxdb", "plain");
        home.append("[dump.keep]\ndaily = { count = 1 }\n");
        shell(
            &home,
            "mkdir a b; tar -xzf $PORTABLE -C a; tar -xzf $PORTABLE -C b; cd b
             for f in 2*; do mv $f 20261120${f#20261121}; done; sed -i s/20261121/20261120/ *.manifest",
        );
        adopt(&home).good();
        // The newest is not whole any more: the other is the last good one.
        shell(&home, &spoil.replace("$OLD", "a"));
        let ran = home.run(["expire", "own", "--dry-run"]).good();
        assert!(ran.out.contains("the last good one") && ran.out.contains("nothing goes"), "{ran:#?}");
        home.run(["expire", "own"]).good();
        assert!(home.path("left/b/20261120T210443Z.manifest").exists());
        let listed = home.run(["list", "--type", "dump", "--json"]).json();
        let damaged: Vec<_> = listed.as_array().unwrap().iter().map(|dump| &dump["damaged"]).collect();
        assert_eq!(damaged, [true, false], "{listed}");
        for level in ["existence", "structure", "digest"] {
            let ran = home.run(["verify", "own", "--level", level]);
            assert_eq!(ran.code, 20, "{level}: {ran:#?}");
        }
    }
}

#[test]
fn two_sets_are_told_apart_by_all_their_files_though_their_heads_are_one() {
    let home = home("influxdb", "plain");
    shell(
        &home,
        "mkdir a b c; for d in a b c; do tar -xzf $LEGACY -C $d; done; ln -f a/meta.00 b/meta.00
         rm b/*.00001.00; cp b/*.00002.00 b/grill_stats.autogen.00001.00",
    );
    let told = adopt(&home).good().json();
    let id = |name: &str| {
        let file = told["files"].as_array().unwrap().iter().find(|file| file["path"] == name).unwrap();
        file["record"]["id"].as_str().unwrap().to_owned()
    };
    assert_ne!(id("a/meta.00"), id("b/meta.00"), "{told}");
    assert_eq!(id("a/meta.00"), id("c/meta.00"), "{told}");
    flip_a_bit(&home.path("left/b/grill_stats.autogen.00001.00"));
    let ran = home.run(["verify", "own", "--json"]);
    let states = ran.json();
    let state = |path: &str| {
        let dumps = states["dumps"].as_array().unwrap();
        dumps.iter().find(|dump| dump["path"] == path).unwrap()["state"].as_str().unwrap().to_owned()
    };
    assert_eq!([state("a/meta.00"), state("b/meta.00")], ["good", "damaged"], "{ran:#?}");
}

#[test]
fn what_is_run_next_keeps_what_the_server_has() {
    let home = home("redis", "plain");
    shell(&home, "cp $RDB dump.rdb");
    adopt(&home).good();
    let into = home.path("restored");
    let told = home.run(["restore", "own", "--into", into.to_str().unwrap(), "--json"]).good().json();
    let next: Vec<&str> =
        told["next"].as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect();
    let at = |start: &str| {
        next.iter().position(|line| line.starts_with(start)).unwrap_or_else(|| panic!("{start}: {next:?}"))
    };
    let order = [
        "redis-cli CONFIG GET dir",
        "redis-cli CONFIG GET dbfilename",
        "redis-cli SAVE",
        "redis-cli SHUTDOWN",
        "mv ",
        "install ",
    ];
    let places: Vec<usize> = order.iter().map(|start| at(start)).collect();
    assert!(places.is_sorted(), "{next:?}");
}

#[test]
fn one_head_that_cannot_be_read_does_not_end_the_look_at_the_others() {
    if !testkit::require_tampering() {
        return;
    }
    let home = home("influxdb", "plain");
    shell(&home, "mkdir a b; tar -xzf $PORTABLE -C a; tar -xzf $PORTABLE -C b");
    let head = home.path("left/a/20261121T210443Z.manifest");
    let command = home.command(["adopt", home.path("left").to_str().unwrap(), "--json"]);
    let mut command =
        testkit::tampered(&command, "openat", &["openat:error=EIO"], Some(&head), &home.path("calls"));
    let ran = run(&mut command);
    assert_eq!(ran.code, 20, "{ran:#?}");
    let told = ran.json();
    assert_eq!(fate(&told, "a/20261121T210443Z.manifest"), "closed", "{told}");
    assert_eq!(fate(&told, "b/20261121T210443Z.manifest"), "adopted", "{told}");
    assert_eq!(told["files"].as_array().unwrap().len(), 2, "{told}");
}

#[test]
fn a_directory_without_hard_links_takes_what_is_restored() {
    if !testkit::require_tampering() {
        return;
    }
    let home = home("redis", "plain");
    shell(&home, "cp $RDB dump.rdb");
    adopt(&home).good();
    let into = home.path("restored");
    let command = home.command(["restore", "own", "--into", into.to_str().unwrap()]);
    let rules = ["linkat:error=EPERM", "link:error=EPERM"];
    run(&mut testkit::tampered(&command, "linkat,link", &rules, None, &home.path("calls"))).good();
    assert_eq!(names(&into), RESTORED);
}

#[test]
fn only_dumps_of_postgresql_are_exported() {
    for (engine, script) in [("redis", "cp $RDB dump.rdb"), ("influxdb", "cp $PORTABLE b.tar.gz")] {
        let home = home(engine, "plain");
        shell(&home, script);
        let id = only_id(&adopt(&home).good().json());
        let to = home.path("exported");
        let said = format!("backstay restore own --backup {id} --into DIR");
        home.run(["export", &id, "--to", to.to_str().unwrap()]).refused(7, &["no dump of PostgreSQL", &said]);
        assert!(!to.exists());
    }
}
