//! What somebody must keep: backups and dumps that stay whatever retention says.

use std::path::Path;
use std::process::Command;

use super::dumps::dumping;
use super::program::{Home, flip_a_bit, protected, server};

const PAST: &str = "2020-01-01T00:00:00Z";
const TO_COME: &str = "2096-01-01T00:00:00Z";
const LATER: &str = "2096-02-01T00:00:00Z";

/// The line of `expire` about this backup or file.
fn decision(home: &Home, part: &str, words: &[&str]) -> String {
    let ran = home.run([&["expire", "--dry-run"], words].concat()).good();
    ran.out
        .lines()
        .find(|line| line.contains(part))
        .unwrap_or_else(|| panic!("no {part} in {ran:#?}"))
        .to_owned()
}

/// Retention keeps the newest, and deletes what it let go at its next run.
pub fn keep_one(home: &Home) {
    let text = std::fs::read_to_string(home.config()).unwrap();
    let keep = text.lines().find(|line| line.starts_with("keep = ")).unwrap();
    std::fs::write(home.config(), text.replace(keep, "keep = { last = 1 }\ngrace = \"0s\"")).unwrap();
}

#[test]
fn a_backup_that_is_held_stays_with_all_it_needs_until_it_is_let_go_or_its_time_comes() {
    let Some((server, home)) = protected("orders") else { return };
    keep_one(&home);
    server.sql("CREATE TABLE t AS SELECT g FROM generate_series(1, 20000) g").unwrap();
    home.run(["backup", "--full"]).good();
    server.sql("INSERT INTO t SELECT g FROM generate_series(1, 500) g").unwrap();
    home.run(["backup"]).good();
    server.sql("INSERT INTO t SELECT g FROM generate_series(1, 500) g").unwrap();
    home.run(["backup", "--full"]).good();
    let [_, increment, full] = home.backups().try_into().unwrap();
    assert!(decision(&home, &increment, &[]).contains("goes"));

    home.run(["hold", "add", &increment, "--until", PAST]).refused(2, &[PAST, "--until"]);
    home.run(["hold", "add", "20200101T000000Z-7q3f"]).refused(3, &["backstay list"]);
    let ran = home.run(["hold", "add", &increment, "--until", TO_COME, "--reason", "audit of May"]).good();
    assert!(ran.out.contains("held until 2096-01-01 00:00:00Z (audit of May)"), "{ran:#?}");
    for words in [&["list"][..], &["show", &increment]] {
        let ran = home.run(words).good();
        assert!(ran.out.contains("held until 2096-01-01 00:00:00Z (audit of May)"), "{ran:#?}");
    }
    let listed = home.run(["list", "--json"]).good().json();
    assert_eq!((&listed[1]["hold"], &listed[1]["hold_reason"]), (&TO_COME.into(), &"audit of May".into()));
    let why = decision(&home, &increment, &[]);
    assert!(why.contains("stays: held until 2096-01-01T00:00:00Z (audit of May)"), "{why}");
    assert!(decision(&home, &increment, &["--as-of", LATER]).contains("goes"));
    assert!(decision(&home, &full, &[]).contains("goes"));

    // With a new key as well.
    home.run(["key", "rotate"]).good();
    home.run(["expire"]).good();
    home.run(["expire"]).good();
    home.run(["collect", "--max-share", "100"]).good();
    assert!(!home.backups().contains(&full), "{:?}", home.backups());
    home.run(["verify", &increment]).good();
    let back = home.path("back");
    home.run(["restore", "orders", "--backup", &increment, "--into", back.to_str().unwrap(), "--start"])
        .good();

    // One that does not open holds all the same.
    let hold = home.objects("/holds/").remove(0);
    let whole = std::fs::read(&hold).unwrap();
    flip_a_bit(&hold);
    let ran = home.run(["expire"]).good();
    assert!(
        ran.out.contains("is not known, and it stays") && ran.out.contains("held until the hold"),
        "{ran:#?}"
    );
    home.run(["list"]).refused(8, &["holds/", "is not known, and it stays"]);
    assert!(home.run(["show", &increment]).good().out.contains("held"));
    std::fs::write(&hold, whole).unwrap();

    // Another word takes the place of the first.
    let ran = home.run(["hold", "add", &increment]).good();
    assert!(ran.out.trim_end().ends_with(": held"), "{ran:#?}");
    assert_eq!(home.objects("/holds/").len(), 1);
    let ran = home.run(["hold", "remove", &increment, "--json"]).good().json();
    assert_eq!((&ran["was_held"], &ran["hold"]), (&true.into(), &serde_json::Value::Null), "{ran}");
    assert!(home.run(["hold", "remove", &increment]).good().out.contains("was not held"));
    assert_eq!(home.objects("/holds/"), Vec::<std::path::PathBuf>::new());
    home.run(["expire"]).good();
    home.run(["expire"]).good();
    assert!(!home.backups().contains(&increment));
}

#[test]
fn a_backup_that_was_let_go_and_is_held_then_is_not_deleted() {
    let Some((_server, home)) = protected("orders") else { return };
    keep_one(&home);
    home.run(["backup", "--full"]).good();
    home.run(["backup", "--full"]).good();
    let old = home.backups().remove(1);
    let listed = || home.run(["list"]).good().out;
    // Condemned and deleted are two steps, be the grace as short as it may.
    let config = std::fs::read_to_string(home.config()).unwrap();
    std::fs::write(home.config(), config.replace("grace = \"0s\"", "grace = \"7d\"")).unwrap();
    home.run(["expire"]).good();
    assert!(listed().contains("condemned"), "{}", listed());
    let ran = home.run(["hold", "add", &old]).good();
    assert!(ran.out.contains("retention had let it go"), "{ran:#?}");
    std::fs::write(home.config(), config).unwrap();
    home.run(["expire"]).good();
    home.run(["expire"]).good();
    assert!(home.backups().contains(&old));
    home.run(["hold", "remove", &old]).good();
    home.run(["expire"]).good();
    assert!(!home.backups().contains(&old));
}

#[test]
fn a_dump_that_is_held_stays_under_all_its_names_until_it_is_let_go() {
    let Some(server) = server() else { return };
    let home = dumping(&server);
    home.append("[dump.keep]\ndaily = { count = 1 }\nweekly = { count = 1 }\nmonthly = { count = 1 }\n");
    let take = || {
        let words = ["dump", "orders", "--json", "--database", "postgres"];
        let told = home.run(words).good().json();
        let dump = &told["dumps"][0];
        (dump["id"].as_str().unwrap().to_owned(), dump["paths"][0]["path"].as_str().unwrap().to_owned())
    };
    let (old, path) = take();
    let file = home.path("dumps").join(&path);
    let renamed = older(&file);
    take();
    let name = renamed.rsplit('/').next().unwrap().to_owned();
    assert!(decision(&home, &name, &[]).contains("goes"));
    home.run(["hold", "add", &old, "--until", PAST]).refused(2, &[PAST, "--until"]);
    home.run(["hold", "add", &old, "--until", TO_COME, "--reason", "audit"]).good();
    let words = "held until 2096-01-01 00:00:00Z (audit)";
    for asked in [&["list"][..], &["show", &old]] {
        let ran = home.run(asked).good();
        assert!(ran.out.contains(words), "{ran:#?}");
    }
    assert!(decision(&home, &name, &[]).contains("stays: held until 2096-01-01T00:00:00Z (audit)"));
    assert!(decision(&home, &name, &["--as-of", LATER]).contains("goes"));
    home.run(["expire"]).good();
    assert!(Path::new(&renamed).exists());
    home.run(["verify"]).good();
    assert!(home.run(["hold", "remove", &old]).good().out.contains("not held any more"));
    home.run(["expire"]).good();
    assert!(!Path::new(&renamed).exists());
}

/// Gives a dump the name of an earlier second, with all that lies beside it.
fn older(file: &Path) -> String {
    let name = file.file_name().unwrap().to_str().unwrap();
    let new = name.replacen("postgres_20", "postgres_19", 1);
    for suffix in ["", ".hmac"] {
        let old = format!("{}{suffix}", file.display());
        if Path::new(&old).exists() {
            let to = format!("{}{suffix}", file.with_file_name(&new).display());
            assert!(Command::new("mv").args([&old, &to]).status().unwrap().success());
        }
    }
    let beside = format!("{}.meta.json", file.display());
    let text = std::fs::read_to_string(&beside).unwrap().replace(name, &new);
    let renamed = file.with_file_name(&new).display().to_string();
    std::fs::write(format!("{renamed}.meta.json"), text).unwrap();
    std::fs::remove_file(beside).unwrap();
    renamed
}
