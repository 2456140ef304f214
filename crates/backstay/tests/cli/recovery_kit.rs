//! The recovery kit after the keys changed: with a key of today it opens the repository
//! of today, without this program.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::program::{Home, Ran, protected, run};

fn files(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_str().unwrap().to_owned())
        .collect();
    names.sort();
    names
}

/// A repository whose own keys and description are lost: those of the kit are put back.
fn put_back(home: &Home, kit: &Path, name: &str) -> PathBuf {
    let copy = home.path(name);
    let copied = Command::new("cp").arg("-a").arg(home.path("store")).arg(&copy).status().unwrap();
    assert!(copied.success());
    std::fs::remove_file(copy.join("backstay.json")).unwrap();
    std::fs::remove_dir_all(copy.join("keys")).unwrap();
    std::fs::copy(kit.join("backstay.json"), copy.join("backstay.json")).unwrap();
    std::fs::create_dir(copy.join("keys")).unwrap();
    for slot in files(&kit.join("keys")) {
        std::fs::copy(kit.join("keys").join(&slot), copy.join("keys").join(&slot)).unwrap();
    }
    copy
}

fn rescue(python: &Path, kit: &Path, repository: &Path, key: &Path, words: &[&str]) -> Ran {
    let mut command = Command::new(python);
    command.arg(kit.join("backstay-rescue.py")).arg("--repository").arg(repository).arg("--key").arg(key);
    run(command.args(words))
}

#[test]
fn after_a_rotation_the_kit_and_the_new_key_restore_what_was_taken_since() {
    let Some(python) = testkit::require_rescue_python() else { return };
    let Some((_server, home)) = protected("orders") else { return };
    home.run(["backup"]).good();
    let (kit, new) = (home.path("backstay.recovery-kit"), home.path("new.key"));
    std::fs::write(kit.join("notes of ours.txt"), "the key is in the safe").unwrap();
    let before = files(&kit.join("keys"));

    let added = home.run(["key", "add", "new", "--file", new.to_str().unwrap()]).good();
    assert!(added.err.contains("wrote the recovery kit again"), "{added:#?}");
    assert_eq!(files(&kit.join("keys")).len(), 2, "the new slot is not in the kit");
    let named = format!("new={}", new.display());
    let rotated = home.run(["key", "rotate", "--key", &named, "--drop", "initial"]).good();
    assert!(rotated.out.contains("wrote the recovery kit again"), "{rotated:#?}");
    let after = files(&kit.join("keys"));
    assert!(after.len() == 1 && after != before, "{after:?}, before {before:?}");
    assert_eq!(after, files(&home.path("store/keys")));
    assert!(kit.join("notes of ours.txt").exists(), "a file of somebody else is gone");
    assert!(!kit.join(".new").exists());

    let text = std::fs::read_to_string(home.config()).unwrap();
    let line = text.lines().find(|line| line.starts_with("key = ")).unwrap();
    let text = text.replace(line, &format!("key = {{ file = \"{}\" }}", new.display()));
    std::fs::write(home.config(), text).unwrap();
    home.run(["backup"]).good();

    let repository = put_back(&home, &kit, "found again");
    let into = home.path("rescued");
    let words = ["restore", "orders", into.to_str().unwrap()];
    let rescued = rescue(&python, &kit, &repository, &new, &words);
    assert_eq!(rescued.code, 0, "{rescued:#?}");
    assert!(into.join("global/pg_control").exists());
    let old = rescue(&python, &kit, &repository, &home.path("backstay.key"), &["list"]);
    assert_ne!(old.code, 0, "the key that was given up opens the kit: {old:#?}");
}

#[test]
fn a_kit_that_lies_elsewhere_is_told_and_can_be_written_there() {
    let home = Home::new();
    home.init();
    let (kit, away) = (home.path("backstay.recovery-kit"), home.path("media/kit"));
    assert!(Command::new("mv").arg(&kit).arg(home.path("taken away")).status().unwrap().success());
    let second = home.path("second.key");
    let added = home.run(["key", "add", "second", "--file", second.to_str().unwrap()]).good();
    assert!(
        added.err.contains("is not there") && added.err.contains("backstay key kit --to DIR"),
        "{added:#?}"
    );
    assert!(!kit.exists(), "a kit was made where nobody looks for it");

    let written = home.run(["key", "kit", "--to", away.to_str().unwrap(), "--json"]).good().json();
    assert_eq!(written["recovery_kit"], away.to_str().unwrap());
    assert_eq!(files(&away.join("keys")), files(&home.path("store/keys")));

    // Where the configuration says it lies it is renewed, and a rotation says so.
    let place = format!("repository.recovery_kit={}", away.display());
    let rotated = home.run(["key", "rotate", "--drop", "second", "--json", "--set", &place]).good().json();
    assert_eq!(rotated["recovery_kit"], away.to_str().unwrap(), "{rotated:#}");
    assert_eq!(files(&away.join("keys")), files(&home.path("store/keys")));

    // The one that was taken away is renewed in its place, and no other directory is touched.
    home.run(["key", "kit", "--to", home.path("taken away").to_str().unwrap()]).good();
    assert_eq!(files(&home.path("taken away/keys")), files(&home.path("store/keys")));
    let other = Home::new();
    other.init();
    let theirs = other.path("backstay.recovery-kit");
    home.run(["key", "kit", "--to", theirs.to_str().unwrap()]).refused(4, &["recovery-kit"]);
    assert_eq!(files(&theirs.join("keys")), files(&other.path("store/keys")));
}
