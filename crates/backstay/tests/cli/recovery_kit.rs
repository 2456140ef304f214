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
    assert!(!files(&kit).iter().any(|name| name.starts_with(".new")), "{:?}", files(&kit));

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
    // What it has from before this verb did not take away, so a person decides about it.
    let before = files(&home.path("taken away/keys"));
    let written = home.run(["key", "kit", "--to", home.path("taken away").to_str().unwrap()]).good();
    assert!(written.err.contains(&before[0]) && written.err.contains("rotated away"), "{written:#?}");
    let mut both = [before, files(&home.path("store/keys"))].concat();
    both.sort();
    assert_eq!(files(&home.path("taken away/keys")), both);
    let other = Home::new();
    other.init();
    let theirs = other.path("backstay.recovery-kit");
    home.run(["key", "kit", "--to", theirs.to_str().unwrap()]).refused(4, &["recovery-kit"]);
    assert_eq!(files(&theirs.join("keys")), files(&other.path("store/keys")));
}

fn slot_file(keys: &Path, slot: &str) -> PathBuf {
    let name = files(keys).into_iter().find(|name| name.starts_with(slot)).unwrap();
    keys.join(name)
}

/// The store's slot `second` is as bad as it can be; the kit's is the last good one.
#[test]
fn a_slot_that_the_store_spoilt_or_lost_stays_whole_in_the_kit() {
    for (bad, verb) in [
        (Some(&b"\0\0\0\0"[..]), "kit"),
        (Some(&b""[..]), "kit"),
        (None, "kit"),
        (None, "add"),
        (None, "rotate"),
    ] {
        let home = Home::new();
        home.init();
        let (second, third) = (home.path("second.key"), home.path("third.key"));
        home.run(["key", "add", "second", "--file", second.to_str().unwrap()]).good();
        let kit = home.path("backstay.recovery-kit");
        let (ours, stored) =
            (slot_file(&kit.join("keys"), "second"), slot_file(&home.path("store/keys"), "second"));
        let good = std::fs::read(&ours).unwrap();
        std::fs::remove_file(&stored).unwrap();
        if let Some(bytes) = bad {
            std::fs::write(&stored, bytes).unwrap();
        }
        let name = ours.file_name().unwrap().to_str().unwrap();
        let third = third.to_str().unwrap();
        let words: &[&str] = match verb {
            "add" => &["key", "add", "third", "--file", third],
            "rotate" => &["key", "rotate"],
            _ => &["key", "kit"],
        };
        // Quiet or not, what concerns the last copy of a slot is told.
        let ran = home.run([words, &["--quiet"]].concat());
        if bad.is_some() {
            assert_ne!(ran.code, 0, "{ran:#?}");
        } else {
            assert_eq!(ran.code, 0, "{ran:#?}");
        }
        assert!(ran.err.contains(name), "{verb} {bad:?}: {ran:#?}");
        assert_eq!(std::fs::read(&ours).unwrap(), good, "{verb} {bad:?}");
    }
}

#[test]
fn the_repository_is_no_place_for_its_kit_and_a_foreign_file_in_a_kit_stays() {
    let home = Home::new();
    home.init();
    let store = home.path("store");
    let before = files(&store);
    for inside in [store.clone(), store.join("kit"), store.join("keys/kit")] {
        home.run(["key", "kit", "--to", inside.to_str().unwrap()]).refused(4, &["lies in the repository"]);
    }
    // By another path, as of a mount.
    let copy = home.path("mounted");
    assert!(Command::new("cp").arg("-a").arg(&store).arg(&copy).status().unwrap().success());
    home.run(["key", "kit", "--to", copy.join("kit").to_str().unwrap()])
        .refused(4, &["lies in the repository"]);
    assert_eq!(files(&store), before);

    let kit = home.path("backstay.recovery-kit");
    std::fs::create_dir(kit.join(".new")).unwrap();
    std::fs::write(kit.join(".new/mine"), "mine").unwrap();
    let note = kit.join("keys/mynote-0123456789abcdef");
    std::fs::write(&note, "mine").unwrap();
    home.run(["key", "rotate"]).good();
    assert!(note.exists() && kit.join(".new/mine").exists());
    assert_eq!(files(&kit.join("keys")).len(), 2, "the slot from before the rotation is still there");

    // Only a description: somebody's copy of it, and no kit.
    let lone = home.path("lone");
    std::fs::create_dir(&lone).unwrap();
    std::fs::copy(kit.join("backstay.json"), lone.join("backstay.json")).unwrap();
    assert_ne!(home.run(["key", "kit", "--to", lone.to_str().unwrap()]).code, 0);
    assert_eq!(files(&lone), ["backstay.json"]);
}

#[test]
fn a_stale_kit_is_told_with_quiet_and_as_a_document_with_json() {
    let home = Home::new();
    home.init();
    let (kit, away) = (home.path("backstay.recovery-kit"), home.path("taken away"));
    assert!(Command::new("mv").arg(&kit).arg(&away).status().unwrap().success());
    let second = home.path("second.key");
    let added = home.run(["key", "add", "second", "--quiet", "--file", second.to_str().unwrap()]).good();
    assert!(added.err.contains("is not there"), "{added:#?}");
    for words in [&["key", "remove", "second", "--json"][..], &["key", "rotate", "--json"]] {
        let ran = home.run(words).good();
        let told: serde_json::Value = serde_json::from_str(&ran.err).unwrap();
        assert!(told["warnings"][0]["message"].as_str().unwrap().contains("is not there"), "{ran:#?}");
    }
}
