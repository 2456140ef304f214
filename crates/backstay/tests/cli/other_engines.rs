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
        assert_eq!(names(&into), ["dump.rdb"]);
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
        for verb in [
            &["backup", "own"][..],
            &["dump", "own"],
            &["restore", "own", "--into-database", "x"],
            &["restore", "own", "--swap", "x"],
        ] {
            let said = format!("{name} servers cannot be reached by this version");
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
