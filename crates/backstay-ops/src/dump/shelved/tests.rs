use backstay_model::dump::Layout;
use backstay_repo::shelf::DiskShelf;

use super::sidecar::Read;
use super::*;
use crate::dump::KEEP_REPORTS;

const RECORD: &str = r#"{
  "id": "20240901T020000Z-7q3f", "instance": "main", "engine": "postgresql", "content": "globals",
  "file": "a.sql", "tier": "weekly", "started_at": "2024-09-01T02:00:00Z", "finished_at": "2024-09-01T02:00:01Z",
  "duration_seconds": 1, "format": "plain", "compression": "none", "cipher": "none", "raw_bytes": 7,
  "stored_bytes": 7, "compression_ratio": 1.0, "sha256": "aa", "database_bytes": null, "position": null,
  "system_identifier": "18446744073709551615", "server_version": null, "tool_version": null,
  "backstay_version": "9.9", "of_a_later_version": {"n": 1.5}, "held_until": "2025-01-01T00:00:00Z"
}"#;

fn policy(layout: &str, directory: &std::path::Path) -> DumpPolicy {
    let layout = Layout::preset(layout).unwrap();
    DumpPolicy {
        to: Some(directory.display().to_string()),
        shape: layout.shape,
        keep: layout.keep,
        layout,
        database: None,
        level: None,
        passphrase: None,
        older_passphrases: Vec::new(),
        jobs: 1,
        spool: None,
        keep_reports: KEEP_REPORTS,
    }
}

fn path(text: &str) -> ShelfPath {
    text.parse().unwrap()
}

#[tokio::test]
async fn a_sidecar_is_ours_a_strangers_or_broken() {
    let place = tempfile::tempdir().unwrap();
    let shelf = DiskShelf::new(place.path());
    let write = |bytes: &str| std::fs::write(place.path().join("a.sql.meta.json"), bytes).unwrap();
    let beside = path("a.sql.meta.json");
    assert!(matches!(sidecar::read(&shelf, &beside).await.unwrap(), Read::Gone));
    write(RECORD);
    let Read::Ours(found) = sidecar::read(&shelf, &beside).await.unwrap() else { unreachable!() };
    assert_eq!(found.record.system_identifier.as_deref(), Some("18446744073709551615"));
    assert_eq!(found.held_until, Some("2025-01-01T00:00:00Z".parse().unwrap()));
    for (bytes, is_broken) in [
        (&RECORD[..RECORD.len() - 2], true),
        (&RECORD.replace("2025-01-01T", "some day "), true),
        ("{\"size\": 7}", false),
        ("SIZE=7\n", false),
        ("", false),
    ] {
        write(bytes);
        let found = sidecar::read(&shelf, &beside).await.unwrap();
        assert_eq!(matches!(found, Read::Damaged { .. }), is_broken, "{bytes}");
        assert_eq!(matches!(found, Read::NotOurs), !is_broken, "{bytes}");
    }
}

#[tokio::test]
async fn a_mark_changes_nothing_else_and_nobody_elses() {
    let place = tempfile::tempdir().unwrap();
    let shelf = DiskShelf::new(place.path());
    let beside = path("a.sql.meta.json");
    let at = Some("2025-02-01T00:00:00Z".parse().unwrap());
    let id: BackupId = "20240901T020000Z-7q3f".parse().unwrap();
    let alone = shelf.lock().await.unwrap();
    assert!(!mark(&shelf, &alone, &beside, &id, at).await.unwrap(), "it is gone");
    std::fs::write(place.path().join(beside.as_str()), RECORD).unwrap();
    let other = "20240902T020000Z-7q3f".parse().unwrap();
    assert!(!mark(&shelf, &alone, &beside, &other, at).await.unwrap(), "it is another's");
    let read = || {
        let bytes = std::fs::read(place.path().join(beside.as_str())).unwrap();
        serde_json::from_slice::<serde_json::Value>(&bytes).unwrap()
    };
    let earlier = Some("2024-10-01T00:00:00Z".parse().unwrap());
    assert!(!mark(&shelf, &alone, &beside, &id, earlier).await.unwrap(), "it is held");
    assert!(mark(&shelf, &alone, &beside, &id, at).await.unwrap());
    let mut marked = read();
    assert_eq!(marked.as_object_mut().unwrap().remove("expired_at").unwrap(), "2025-02-01T00:00:00Z");
    assert_eq!(marked, serde_json::from_str::<serde_json::Value>(RECORD).unwrap());
    assert!(mark(&shelf, &alone, &beside, &id, None).await.unwrap());
    assert_eq!(read(), marked);
}

#[tokio::test]
async fn a_dump_that_was_described_twice_is_one() {
    let place = tempfile::tempdir().unwrap();
    let policy = policy("modulo", place.path());
    for (name, bytes) in [("a.sql", "content"), ("a.sql.meta", RECORD), ("a.sql.meta.json", RECORD)] {
        std::fs::write(place.path().join(name), bytes).unwrap();
    }
    // What the scripts of that house leave beside their own dumps is no broken sidecar.
    std::fs::write(place.path().join("b.sql.meta"), "Backup: b.sql\n").unwrap();
    let shelved = look_at(&policy.place().unwrap(), &policy, None).await.unwrap();
    assert_eq!((shelved.files.len(), shelved.foreign_files), (1, 1), "{shelved:#?}");
    assert!(shelved.findings.is_empty() && shelved.unseen.is_empty(), "{shelved:#?}");
    assert_eq!(shelved.files[0].sidecars.len(), 2);
    assert_eq!(shelved.files[0].dump.tier, backstay_model::dump::Tier::Weekly);
}

#[tokio::test]
async fn a_file_that_went_while_somebody_read_was_let_go_when_its_sidecar_says_so() {
    let place = tempfile::tempdir().unwrap();
    let policy = policy("plain", place.path());
    for (name, bytes) in [("a.sql", "content"), ("a.sql.meta.json", RECORD)] {
        std::fs::write(place.path().join(name), bytes).unwrap();
    }
    let shelf = policy.place().unwrap();
    let file = look_at(&shelf, &policy, None).await.unwrap().files.remove(0);
    std::fs::remove_file(place.path().join("a.sql")).unwrap();
    assert!(!was_let_go(&*shelf.shelf, &file).await.unwrap());
    let at = Some("2025-02-01T00:00:00Z".parse().unwrap());
    let alone = shelf.shelf.lock().await.unwrap();
    assert!(mark(&*shelf.shelf, &alone, &path("a.sql.meta.json"), &file.record().id, at).await.unwrap());
    assert!(was_let_go(&*shelf.shelf, &file).await.unwrap());
    std::fs::remove_file(place.path().join("a.sql.meta.json")).unwrap();
    assert!(was_let_go(&*shelf.shelf, &file).await.unwrap());
}

#[test]
fn reports_are_known_by_their_names() {
    let policy = policy("tiers", std::path::Path::new("/srv"));
    for (name, is) in [
        ("verification/verification_report_20240901.json", true),
        ("verification/latest_verification.json", true),
        ("verification/notes.txt", false),
        ("verification_report_20240901.json", false),
        ("verification2/verification_report_20240901.json", false),
    ] {
        assert_eq!(is_report(&policy, &path(name)), is, "{name}");
    }
}
