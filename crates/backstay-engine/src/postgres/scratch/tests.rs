use std::collections::BTreeMap;

use super::super::facts::facts_of_a_server;
use super::*;

fn facts(version_number: u32, preloaded: &str) -> ServerFacts {
    ServerFacts {
        version: "17.2".into(),
        version_number,
        settings: BTreeMap::from([("shared_preload_libraries".to_owned(), preloaded.to_owned())]),
        ..facts_of_a_server()
    }
}

#[test]
fn what_would_act_on_the_world_is_not_loaded() {
    let private = Path::new("/private");
    let settings =
        settings(private, &facts(170_002, "pg_cron, timescaledb,pgaudit"), &ScratchOptions::default());
    assert!(settings.contains(&"shared_preload_libraries=timescaledb".to_owned()));
    assert!(settings.contains(&"timescaledb.max_background_workers=0".to_owned()));
    for setting in [
        "archive_mode=off",
        "listen_addresses=",
        "ssl=off",
        "event_triggers=off",
        "fsync=off",
        "max_logical_replication_workers=0",
    ] {
        assert!(settings.iter().any(|found| found == setting), "{setting}");
    }
}

#[test]
fn every_origin_of_the_source_has_its_place() {
    let slots = |version_number: u32, of_source: &str| {
        let mut facts = facts(version_number, "");
        for name in ["max_replication_slots", "max_active_replication_origins"] {
            facts.settings.insert(name.to_owned(), of_source.to_owned());
        }
        let settings = settings(Path::new("/private"), &facts, &ScratchOptions::default());
        settings
            .into_iter()
            .filter(|setting| setting.contains("slots") || setting.contains("origins"))
            .collect()
    };
    let seen: Vec<String> = slots(170_002, "100");
    assert_eq!(seen, ["max_replication_slots=100"]);
    let seen: Vec<String> = slots(180_000, "0");
    assert_eq!(seen, ["max_replication_slots=64", "max_active_replication_origins=64"]);
}

#[test]
fn a_server_with_large_segments_keeps_two_of_them() {
    for (mebibytes, expected) in [
        (1, vec![]),
        (32, vec![]),
        (64, vec!["min_wal_size=128MB"]),
        (1024, vec!["min_wal_size=2048MB", "max_wal_size=2048MB"]),
    ] {
        let facts = ServerFacts { wal_segment_size: mebibytes << 20, ..facts(170_002, "") };
        let settings = settings(Path::new("/private"), &facts, &ScratchOptions::default());
        let sizes: Vec<String> = settings.into_iter().filter(|one| one.contains("_wal_size=")).collect();
        assert_eq!(sizes, expected, "{mebibytes}");
    }
}

#[test]
fn settings_a_version_does_not_know_are_not_given_to_it() {
    let private = Path::new("/private");
    let options = ScratchOptions { durable: true, ..ScratchOptions::default() };
    let settings = settings(private, &facts(130_020, ""), &options);
    for word in ["timescaledb", "event_triggers", "summarize_wal", "fsync"] {
        assert!(!settings.iter().any(|found| found.starts_with(word)), "{word}");
    }
}
