//! Drills that end badly. One that shows that a backup cannot be brought back is
//! remembered; one that could not look leaves what was proved before as it stands.

use std::path::Path;

use serde_json::Value;
use testkit::postgres::{PASSWORD, SUPERUSER};

use super::program::{Home, Ran, flip_a_bit, protected};

/// A drill in a directory of its own, in which nothing may be left.
#[track_caller]
fn drill(home: &Home, words: &[&str]) -> Ran {
    let below = home.path("drills");
    std::fs::create_dir_all(&below).unwrap();
    let directory = format!("drill.directory={}", below.display());
    let ran = home.run(["drill", "--set", &directory].iter().chain(words));
    assert!(is_empty(&below), "{ran:#?}");
    ran
}

fn is_empty(directory: &Path) -> bool {
    std::fs::read_dir(directory).unwrap().count() == 0
}

fn status(home: &Home) -> Value {
    home.run(["status", "orders", "--json", "--set", "policy.rto=1h"]).good().json()[0].clone()
}

fn proofs(home: &Home) -> usize {
    home.objects("/proofs/").len()
}

/// The state that the list shows of the newest backup.
fn listed(home: &Home) -> String {
    home.run(["list", "orders"]).good().out.lines().nth(1).unwrap().to_owned()
}

#[test]
fn a_drill_of_a_damaged_backup_is_remembered_until_one_is_sound_again() {
    let Some((_server, home)) = protected("orders") else { return };
    home.run(["backup"]).good();
    let backup = home.backups()[0].clone();
    drill(&home, &["orders"]).good();
    let before = status(&home);
    assert_eq!((&before["health"], &before["objectives"]["rto_met"]), (&"ok".into(), &true.into()));

    let pack = home.objects("/packs/").remove(0);
    flip_a_bit(&pack);
    let ran = drill(&home, &["orders", "--json"]);
    assert_eq!(ran.code, 20, "{ran:#?}");
    let told = &ran.json()[0];
    assert_eq!((&told["sound"], &told["backup"]), (&false.into(), &backup.as_str().into()), "{told}");
    assert_eq!((&told["instance"], &told["recovery_time_seconds"]), (&"orders".into(), &Value::Null));
    assert_eq!(
        (&told["checks"][0]["name"], &told["checks"][0]["ok"]),
        (&"stored data".into(), &false.into())
    );
    let name = pack.file_name().unwrap().to_str().unwrap();
    assert!(told["findings"][0]["subject"].as_str().unwrap().ends_with(name), "{told}");

    // The older drill, which was sound, stands for nothing any more.
    let after = status(&home);
    assert_eq!((&after["health"], &after["objectives"]["rto_met"]), (&"degraded".into(), &false.into()));
    let (last, at) = (&after["last_drill"], &told["at"]);
    assert_eq!((&last["sound"], &last["backup"], &last["at"]), (&false.into(), &told["backup"], at));
    let shown = home.run(["status", "orders"]).good().out;
    assert!(
        shown.contains("degraded") && shown.contains("was NOT sound") && shown.contains(&backup),
        "{shown}"
    );
    assert!(listed(&home).contains("drill failed"), "{}", listed(&home));
    let document = home.run(["list", "orders", "--json"]).good().json();
    assert_eq!((&document[0]["drilled_at"], &document[0]["drill_sound"]), (at, &false.into()));

    // Again, and in words.
    let again = drill(&home, &["orders"]);
    assert_eq!(again.code, 20, "{again:#?}");
    assert!(again.out.contains("NOT proved") && !again.out.contains("recovery time"), "{again:#?}");

    flip_a_bit(&pack);
    home.run(["verify", "orders"]).good();
    let restore = ["restore", "orders", "--dry-run", "--into", "/srv/restored"];
    let warned = "was NOT sound";
    assert!(home.run(restore).good().out.contains(warned), "whoever restores it is not told");
    let again = drill(&home, &["orders"]).good();
    assert!(!again.out.contains(warned), "{again:#?}");
    assert!(!home.run(restore).good().out.contains(warned));
    assert_eq!(status(&home)["health"], "ok");
    assert!(listed(&home).contains("drilled"), "{}", listed(&home));
}

#[test]
fn a_drill_of_which_every_backup_is_known_to_be_damaged_is_remembered_too() {
    let Some((_server, home)) = protected("orders") else { return };
    home.run(["backup"]).good();
    flip_a_bit(&home.objects("/packs/").remove(0));
    assert_eq!(home.run(["verify", "orders"]).code, 20);
    let ran = drill(&home, &["orders", "--json"]);
    assert_eq!((ran.code, proofs(&home)), (20, 1), "{ran:#?}");
    assert_eq!(ran.json()[0]["backup"], home.backups()[0].as_str());
    let last = &status(&home)["last_drill"];
    assert_eq!((&last["sound"], &last["recovery_time_seconds"]), (&false.into(), &Value::Null), "{last}");
}

/// An empty directory that somebody cleared away at the source: its server does not
/// miss it before its next start, and no server starts on a copy without it.
#[test]
fn a_copy_that_does_not_start_is_told_from_one_that_nobody_could_look_at() {
    let Some((server, home)) = protected("orders") else { return };
    home.run(["backup"]).good();
    home.add("maimed", &server, SUPERUSER, PASSWORD, true);
    home.add("unseen", &server, SUPERUSER, PASSWORD, true);
    home.run(["backup", "unseen"]).good();
    std::fs::remove_dir(server.data_directory().join("pg_twophase")).unwrap();
    home.run(["backup", "maimed"]).good();
    std::fs::create_dir(home.path("no programs")).unwrap();

    let elsewhere = format!("instance.unseen.bin_directory={}", home.path("no programs").display());
    let ran = drill(&home, &["--json", "--set", &elsewhere]);
    assert_eq!(ran.code, 20, "known damage outweighs what nobody has seen: {ran:#?}");
    let told = ran.json();
    let of = |name: &str| {
        let one = told.as_array().unwrap().iter().find(|one| one["instance"] == name);
        one.unwrap_or_else(|| panic!("no {name} in {told}"))
    };
    assert_eq!(of("orders")["sound"], true);
    let maimed = of("maimed");
    assert_eq!(
        (&maimed["sound"], &maimed["checks"][0]["name"]),
        (&false.into(), &"recovery".into()),
        "{maimed}"
    );
    assert!(maimed["findings"][0]["message"].as_str().unwrap().contains("pg_twophase"), "{maimed}");
    assert!(maimed["place_seconds"].is_f64() && maimed["recovery_time_seconds"].is_null(), "{maimed}");
    let unseen = of("unseen");
    assert_eq!(
        (&unseen["sound"], &unseen["error"]["kind"]),
        (&Value::Null, &"unsupported".into()),
        "{unseen}"
    );
    assert_eq!(ran.err.lines().count(), 1, "one error document: {ran:#?}");
    assert!(home.objects("/maimed/proofs/").len() == 1 && home.objects("/unseen/proofs/").is_empty());

    let shown = drill(&home, &["maimed"]);
    assert_eq!(shown.code, 20, "{shown:#?}");
    assert!(shown.out.contains("NOT proved") && shown.out.contains("pg_twophase"), "{shown:#?}");
    let reason = home.run(["status", "maimed"]).good().out;
    assert!(reason.contains("degraded: the drill of backup") && reason.contains("pg_twophase"), "{reason}");

    // What was to be kept can be looked at.
    let below = home.path("kept");
    std::fs::create_dir(&below).unwrap();
    let directory = format!("drill.directory={}", below.display());
    let kept = home.run(["drill", "maimed", "--keep", "--json", "--set", &directory]);
    assert_eq!(kept.code, 20, "{kept:#?}");
    assert!(Path::new(kept.json()[0]["kept_at"].as_str().unwrap()).join("PG_VERSION").exists());
}

#[test]
fn a_drill_that_could_not_look_says_so_and_the_last_real_one_stands() {
    let Some((_server, home)) = protected("orders") else { return };
    let ran = home.run(["drill", "orders", "--json"]);
    assert_eq!(
        (ran.code, &ran.json()[0]["error"]["kind"]),
        (3, &"not-found".into()),
        "no backup yet: {ran:#?}"
    );
    home.run(["backup"]).good();
    drill(&home, &["orders"]).good();
    let before = status(&home);

    std::fs::create_dir(home.path("no programs")).unwrap();
    let stranger = Home::new();
    stranger.init();
    std::fs::copy(stranger.path("backstay.key"), home.path("other.key")).unwrap();
    let programs = format!("instance.orders.bin_directory={}", home.path("no programs").display());
    let absent = format!("drill.directory={}", home.path("absent").display());
    for (setting, word) in [
        (programs.as_str(), "postgresql-15"),
        (absent.as_str(), "drill.directory"),
        ("repository.key.file=other.key", "repository.key"),
    ] {
        home.run(["drill", "orders", "--set", setting]).refused(21, &[word]);
        let ran = home.run(["drill", "orders", "--json", "--set", setting]);
        let told = &ran.json()[0];
        assert_eq!(
            (ran.code, &told["instance"], &told["sound"]),
            (21, &"orders".into(), &Value::Null),
            "{ran:#?}"
        );
        let error: Value = serde_json::from_str(&ran.err).unwrap();
        assert_eq!(told["error"], error["error"]);
    }
    let (mut before, mut after) = (before, status(&home));
    // The one number that grows by itself.
    for told in [&mut before, &mut after] {
        told["recovery_point_age_seconds"] = Value::Null;
    }
    assert_eq!(after, before);
    assert_eq!((&after["health"], &after["objectives"]["rto_met"]), (&"ok".into(), &true.into()));
    assert_eq!(proofs(&home), 1);
}
