//! What is wrong before a server is asked: the configuration, the keys, the repository.

use super::program::{Home, flip_a_bit, protected, run};

#[test]
fn an_unknown_key_names_its_line_and_the_nearest_key() {
    let home = Home::new();
    home.init();
    home.append("[drill]\ndirektory = '/tmp'\n");
    let lines = std::fs::read_to_string(home.config()).unwrap().lines().count();
    home.run(["list"]).refused(
        2,
        &[&format!("backstay.toml line {lines}: unknown key `direktory` in [drill]"), "is `directory`"],
    );
}

#[test]
fn without_a_configuration_the_hint_is_how_to_make_one() {
    let home = Home::new();
    home.run(["list", "--config", "none.toml"]).refused(2, &["none.toml", "backstay init"]);
    let ran = home.run(["backup", "--json", "--config", "none.toml"]);
    assert_eq!((ran.code, ran.out.as_str()), (2, ""));
    let told: serde_json::Value = serde_json::from_str(&ran.err).unwrap();
    assert_eq!(told["error"]["kind"], "invalid");
    assert!(told["error"]["hints"][0].as_str().unwrap().contains("backstay init"));
}

#[test]
fn a_missing_key_file_is_named() {
    let home = Home::new();
    home.init();
    std::fs::remove_file(home.path("backstay.key")).unwrap();
    let ran = home.run(["list"]);
    assert!([2, 3].contains(&ran.code), "{ran:#?}");
    let code = ran.code;
    ran.refused(code, &["backstay.key"]);
}

#[test]
fn a_key_of_another_repository_does_not_open_this_one() {
    let (home, other) = (Home::new(), Home::new());
    home.init();
    other.init();
    std::fs::copy(other.path("backstay.key"), home.path("backstay.key")).unwrap();
    home.run(["list"]).refused(5, &["key"]);
}

#[test]
fn a_file_that_is_no_key_is_told_apart_from_a_wrong_key() {
    let home = Home::new();
    home.init();
    std::fs::write(home.path("backstay.key"), "hello\n").unwrap();
    home.run(["list"]).refused(2, &["backstay.key"]);
}

#[test]
fn a_repository_is_never_initialised_twice() {
    let home = Home::new();
    home.init();
    let before = std::fs::read(home.config()).unwrap();
    home.run(["init", "--store", &home.store_url()]).refused(4, &["backstay.toml", "exists already"]);
    home.run(["init", "--store", &home.store_url(), "--config", "second.toml"]).refused(4, &["repository"]);
    assert_eq!(std::fs::read(home.config()).unwrap(), before);
    for left in ["second.toml", "second.key", "second.recovery-kit"] {
        assert!(!home.path(left).exists(), "{left} was left behind");
    }
    home.run(["list"]).good();
}

#[test]
fn a_repository_that_is_not_there_is_not_made_by_looking() {
    let home = Home::new();
    home.init();
    std::fs::remove_dir_all(home.path("store")).unwrap();
    home.run(["list"]).refused(3, &["repository"]);
    assert!(!home.path("store").exists());
}

#[test]
fn a_repository_of_a_newer_format_is_refused() {
    let home = Home::new();
    home.init();
    let description = home.path("store/backstay.json");
    let mut json: serde_json::Value = serde_json::from_slice(&std::fs::read(&description).unwrap()).unwrap();
    json["format"] = 2.into();
    std::fs::remove_file(&description).unwrap();
    std::fs::write(&description, json.to_string()).unwrap();
    home.run(["list"]).refused(7, &["format"]);
}

#[test]
fn a_damaged_description_is_damage_and_verify_could_not_look() {
    let home = Home::new();
    home.init();
    let description = home.path("store/backstay.json");
    let text = std::fs::read_to_string(&description).unwrap();
    let changed = text.replacen("frame_size\": 131072", "frame_size\": 131073", 1);
    let changed = if changed == text {
        text.replacen("frame_size\":131072", "frame_size\":131073", 1)
    } else {
        changed
    };
    assert_ne!(changed, text);
    std::fs::remove_file(&description).unwrap();
    std::fs::write(&description, changed).unwrap();
    home.run(["list"]).refused(8, &["backstay.json"]);
    home.run(["verify"]).refused(21, &["backstay.json"]);
}

#[test]
fn a_store_that_this_version_cannot_reach_is_unsupported() {
    let home = Home::new();
    home.run(["init", "--store", "s3://bucket/prefix"]).refused(7, &["s3://bucket/prefix"]);
    assert!(!home.config().exists());
}

#[test]
fn other_engines_are_read_and_refused_clearly() {
    let home = Home::new();
    home.init();
    home.append("[instance.points]\nengine = 'influxdb'\nurl = 'http://points:8086'\n");
    home.append("[instance.sessions]\nengine = 'redis'\nurl = 'redis://127.0.0.1:1'\n");
    home.run(["config", "check"]).good();
    home.run(["backup", "points"]).refused(7, &["does not work with InfluxDB servers", "points", "--into"]);
    home.run(["backup", "sessions"]).refused(6, &["connect to the server at 127.0.0.1:1", "`url`"]);
}

#[test]
fn an_unknown_instance_or_backup_is_not_found() {
    let Some((_server, home)) = protected("orders") else { return };
    home.run(["backup", "ordres"]).refused(3, &["ordres", "`orders`"]);
    home.run(["list", "ordres"]).refused(3, &["ordres", "`orders`"]);
    home.run(["backup"]).good();
    home.run(["show", "20261121T024300Z-7q3f"]).refused(3, &["20261121T024300Z-7q3f", "backstay list"]);
    home.run(["show", "newest"]).refused(2, &["newest", "backstay list"]);
    let into = home.path("restored");
    let into = into.to_str().unwrap();
    home.run(["restore", "orders", "--into", into, "--backup", "20261121T024300Z-7q3f"])
        .refused(3, &["20261121T024300Z-7q3f"]);
    home.run(["restore", "orders", "--into", into, "--to", "2026-05-03 14:30:00"]).refused(2, &["offset"]);
    assert!(!home.path("restored").exists());
    home.run(["verify", "20261121T024300Z-7q3f"]).refused(3, &["20261121T024300Z-7q3f"]);
}

#[test]
fn a_damaged_object_is_found_named_and_not_restored() {
    let Some((server, home)) = protected("orders") else { return };
    server.sql("CREATE TABLE t AS SELECT g, md5(g::text) FROM generate_series(1, 50000) g").unwrap();
    home.run(["backup"]).good();
    let older = home.backups()[0].clone();
    let before: Vec<_> = home.objects("/packs/");
    server.sql("INSERT INTO t SELECT g, md5(g::text) FROM generate_series(1, 50000) g").unwrap();
    home.run(["backup"]).good();
    let newer = home.backups()[0].clone();
    let pack = home.objects("/packs/").into_iter().find(|pack| !before.contains(pack)).unwrap();
    flip_a_bit(&pack);

    let found = home.run(["verify", "orders"]);
    assert_eq!(found.code, 20, "{found:#?}");
    let name = pack.file_name().unwrap().to_str().unwrap();
    assert!(found.out.contains(name) && found.out.contains("remedy:"), "{found:#?}");
    let listed = home.run(["list"]).good().out;
    assert!(listed.lines().find(|line| line.starts_with(&newer)).unwrap().contains("damaged"), "{listed}");

    // The one before is offered, and taken only by name or as the newest sound one, said aloud.
    let into = home.path("restored");
    let planned = home.run(["restore", "orders", "--into", into.to_str().unwrap(), "--dry-run"]);
    assert!(format!("{}{}", planned.out, planned.err).contains(&older), "{planned:#?}");
    assert!(format!("{}{}", planned.out, planned.err).contains(&newer), "{planned:#?}");
    let forced = home.run(["restore", "orders", "--backup", &newer, "--into", into.to_str().unwrap()]);
    assert_eq!(forced.code, 8, "{forced:#?}");
    assert!(!into.join("global/pg_control").exists(), "a half-restored server can start");

    let chosen = home.path("chosen");
    home.run(["restore", "orders", "--backup", &older, "--into", chosen.to_str().unwrap(), "--start"]).good();

    // The next backup stores the damaged blocks again.
    home.run(["backup"]).good();
    let mended = home.backups()[0].clone();
    home.run(["verify", &mended]).good();
}

#[test]
fn no_colour_reaches_a_pipe_unless_asked_for() {
    let home = Home::new();
    let plain = home.run(["list", "--config", "none.toml"]);
    assert!(!plain.err.contains('\u{1b}'));
    let mut command = home.command(["list", "--config", "none.toml", "--color", "always"]);
    assert!(run(command.env_remove("NO_COLOR")).err.contains('\u{1b}'));
}
