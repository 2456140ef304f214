//! Verify: every kind of damage is named with the newest good dump, and nobody is blamed
//! for a pass phrase.

use backstay_model::dump::{DumpCipher, DumpCompression, DumpFormat};
use backstay_model::{Secret, VerifyLevel, VerifyReport};
use backstay_ops::dump::report::DumpState;
use backstay_ops::dump::verify::{self, DumpVerification};
use serde_json::Value;

use crate::shelf::House;

/// The state of each name, newest dumps first.
fn states(seen: &DumpVerification) -> Vec<(&str, DumpState)> {
    seen.dumps.iter().map(|file| (file.path.as_str(), file.state)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn good_dumps_in_the_layouts_of_two_houses_are_sound_and_read_once() {
    for (layout, shape) in [
        ("grill-stats-backup", None),
        ("save-it-ai", Some((DumpFormat::Plain, DumpCompression::Gzip, DumpCipher::Openpgp))),
        ("tiers", None),
        ("grill-stats", None),
        ("modulo", None),
    ] {
        let Some(mut house) = House::build(layout) else { return };
        if let Some((format, compression, cipher)) = shape {
            house = house.shaped(format, compression, cipher);
        }
        let dumped = house.dump("postgres", "2024-09-01T02:00:00Z").await;
        let names = dumped.dumps[0].paths.len();
        let seen = house.verify(VerifyLevel::Digest).await;
        assert_eq!(seen.report.exit_code(), 0, "{layout}: {seen:#?}");
        assert!(seen.report.sound && seen.report.findings.is_empty(), "{layout}: {seen:#?}");
        assert_eq!((seen.dumps.len(), seen.report.objects_read), (names, names as u64));
        // Under several names, and read once.
        assert_eq!(seen.report.bytes_read, dumped.dumps[0].record.stored_bytes, "{layout}");
        assert_eq!(seen.reports.len(), 3, "{layout}: {seen:#?}");
        assert!(house.known().await.summaries()[0].verified_at.is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_byte_and_a_cut_are_found_and_the_newest_good_one_is_named() {
    let Some(house) = House::build("grill-stats-backup") else { return };
    house.dump("postgres", "2024-09-03T02:00:00Z").await;
    house.dump("postgres", "2024-09-04T02:00:00Z").await;
    house.dump("postgres", "2024-09-05T02:00:00Z").await;
    let name = |day: u8| format!("postgresql_2024090{day}_020001.tar.gz.enc");
    let flip = |bytes: &mut Vec<u8>| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    };
    house.change(&name(5), flip, true);
    house.change(&name(3), |bytes| bytes.truncate(bytes.len() - 1), true);
    // Neither the size nor the head of the newest tells of it.
    for (level, newest) in [
        (VerifyLevel::Existence, DumpState::Good),
        (VerifyLevel::Structure, DumpState::Good),
        (VerifyLevel::Digest, DumpState::Damaged),
        // What is known stays known, and is said again.
        (VerifyLevel::Existence, DumpState::Damaged),
        (VerifyLevel::Structure, DumpState::Damaged),
        (VerifyLevel::Digest, DumpState::Damaged),
    ] {
        let seen = house.verify(level).await;
        assert_eq!(seen.report.exit_code(), VerifyReport::EXIT_FINDINGS, "{level}: {seen:#?}");
        let expected = [(5, newest), (4, DumpState::Good), (3, DumpState::Damaged)];
        let expected = expected.map(|(day, state)| (name(day), state));
        let found: Vec<_> = states(&seen).into_iter().map(|(path, state)| (path.to_owned(), state)).collect();
        assert_eq!(found, expected, "{level}");
        if level == VerifyLevel::Digest {
            for seen in seen.dumps.iter().filter(|seen| seen.state == DumpState::Damaged) {
                assert_eq!(seen.newest_good.as_deref(), Some(&*name(4)));
                let finding = &seen.findings[0];
                assert!(
                    finding.subject.ends_with(&seen.path) && finding.remedy.contains(&name(4)),
                    "{finding:?}"
                );
                assert!(finding.message.contains("damaged"), "{finding:?}");
            }
        }
    }
    // The shallow look that came last clears nothing.
    let rows = house.known().await.summaries();
    assert_eq!(rows.iter().map(|row| row.damaged).collect::<Vec<_>>(), [true, false, true]);
    // A good copy in its place does, once it was read.
    house.change(&name(5), flip, true);
    house.verify(VerifyLevel::Digest).await;
    assert!(!house.known().await.summaries()[0].damaged);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_pass_phrase_is_no_damage() {
    for (layout, format, compression, cipher) in [
        ("grill-stats-backup", DumpFormat::Directory, DumpCompression::Gzip, DumpCipher::Openssl),
        ("save-it-ai", DumpFormat::Plain, DumpCompression::Gzip, DumpCipher::Openpgp),
    ] {
        let Some(house) = House::build(layout) else { return };
        let mut house = house.shaped(format, compression, cipher);
        house.dump("postgres", "2024-09-03T02:00:00Z").await;
        house.verify(VerifyLevel::Digest).await;
        for (phrase, words) in [(Some("another one"), "pass phrase is not that"), (None, "no pass phrase")] {
            house.policy.passphrase = phrase.map(Secret::new);
            let seen = house.verify(VerifyLevel::Digest).await;
            assert_eq!(seen.report.exit_code(), VerifyReport::EXIT_UNSEEN, "{seen:#?}");
            assert_eq!(seen.dumps[0].state, DumpState::Unseen);
            let finding = &seen.report.unseen[0];
            assert!(
                finding.message.contains(words) && finding.remedy.contains("dump.passphrase"),
                "{finding:?}"
            );
            // What was known of it before still is.
            let row = house.known().await.summaries().remove(0);
            assert!(!row.damaged && row.verified_at.is_some(), "{row:#?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_read_for_itself_and_a_missing_file_or_authentication_is_told() {
    let Some(house) = House::build("tiers") else { return };
    let house = house.shaped(DumpFormat::Custom, DumpCompression::Zstd, DumpCipher::Openssl);
    let dumped = house.dump("postgres", "2024-09-01T02:00:00Z").await;
    let size = dumped.dumps[0].record.stored_bytes;
    let path = |tier: &str| format!("{tier}/postgres_20240901_020001.dump.zst.enc");
    // No link any more: the same bytes but for one, on another disk perhaps.
    house.change(&path("weekly"), |bytes| bytes[40] ^= 4, false);
    let seen = house.verify(VerifyLevel::Digest).await;
    let expected = [("daily", DumpState::Good), ("weekly", DumpState::Damaged), ("monthly", DumpState::Good)];
    let expected = expected.map(|(tier, state)| (path(tier), state));
    let found: Vec<_> = states(&seen).into_iter().map(|(path, state)| (path.to_owned(), state)).collect();
    assert_eq!(found, expected);
    assert!(seen.report.bytes_read <= 2 * size, "{seen:#?}");
    let row = house.known().await.summaries().remove(0);
    assert!(!row.damaged, "two of three are good");
    assert_eq!(row.tiers.iter().map(|file| file.good).collect::<Vec<_>>(), [true, false, true]);

    std::fs::remove_file(house.place(&path("weekly"))).unwrap();
    std::fs::remove_file(house.place(&format!("{}.hmac", path("monthly")))).unwrap();
    let seen = house.verify(VerifyLevel::Digest).await;
    assert_eq!(seen.report.exit_code(), VerifyReport::EXIT_FINDINGS);
    let told: Vec<_> = seen.dumps.iter().map(|seen| (seen.state, seen.findings.len())).collect();
    assert_eq!(told, [(DumpState::Good, 0), (DumpState::Gone, 1), (DumpState::Good, 1)], "{seen:#?}");
    assert!(seen.dumps[2].findings[0].message.contains("authentication is gone"), "{seen:#?}");
    assert_eq!(seen.dumps[1].newest_good.as_deref(), Some(&*path("daily")));
    // Once in all, although the shelf tells of it too.
    assert_eq!(seen.report.findings.len(), 2, "{:#?}", seen.report.findings);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_whole_as_a_file_and_not_inside_is_found() {
    let Some(house) = House::build("auto-recovery") else { return };
    let house = house.shaped(DumpFormat::Plain, DumpCompression::None, DumpCipher::None);
    let dumped = house.dump("postgres", "2024-09-03T02:00:00Z").await;
    let path = dumped.dumps[0].paths[0].path.clone();
    // A script that was cut before it was described: its digest is its own.
    house.change(&path, |bytes| bytes.truncate(bytes.len() - 300), false);
    let bytes = std::fs::read(house.place(&path)).unwrap();
    let sidecar = format!("{path}.meta.json");
    let digest = sha256(&house.place(&path));
    house.change(
        &sidecar,
        |json| {
            let mut record: Value = serde_json::from_slice(json).unwrap();
            record["sha256"] = digest.into();
            record["stored_bytes"] = bytes.len().into();
            record["raw_bytes"] = bytes.len().into();
            *json = serde_json::to_vec(&record).unwrap();
        },
        false,
    );
    assert_eq!(house.verify(VerifyLevel::Structure).await.report.exit_code(), 0);
    let seen = house.verify(VerifyLevel::Digest).await;
    assert_eq!(seen.dumps[0].state, DumpState::Damaged, "{seen:#?}");
    assert!(seen.dumps[0].findings[0].message.contains("end marker"), "{seen:#?}");
}

fn sha256(path: &std::path::Path) -> String {
    let output = std::process::Command::new("sha256sum").arg(path).output().unwrap();
    String::from_utf8(output.stdout).unwrap().split_whitespace().next().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reports_are_of_the_whole_shelf_and_never_over_those_of_others() {
    let Some(mut house) = House::build("grill-stats-backup") else { return };
    house.dump("postgres", "2024-09-03T02:00:00Z").await;
    let one = house.dump("postgres", "2024-09-04T02:00:00Z").await.dumps.remove(0);
    house.turn_to("2024-09-04T06:00:00Z");
    house.verify(VerifyLevel::Existence).await;
    let mut options = house.options(VerifyLevel::Digest);
    options.dump = Some(one.record.id.clone());
    let seen = verify::run(&house.run(), &house.policy, &house.instance.id, &options).await.unwrap();
    assert_eq!(seen.dumps.len(), 1);
    let json = house.place("verification/verification_report_20240904.json");
    let read = |path| serde_json::from_slice::<Value>(&std::fs::read(path).unwrap()).unwrap();
    let report = read(json.clone());
    assert_eq!(report, read(house.place("verification/latest_verification.json")));
    let levels: Vec<_> = report["files"].as_array().unwrap().iter().map(|file| &file["level"]).collect();
    assert_eq!(levels, ["digest", "existence"], "{report:#}");
    let mut named = report.clone();
    for file in named["files"].as_array_mut().unwrap() {
        for field in ["id", "sha256", "stored_bytes"] {
            assert!(!file[field].is_null(), "{report:#}");
            file[field] = Value::Null;
        }
    }
    named["shelf"] = Value::Null;
    assert_eq!(named, expected_report());
    let text = std::fs::read_to_string(house.place("verification/verification_report_20240904.txt")).unwrap();
    assert!(text.contains("SOUND: 2 files, 2 good, 0 damaged") && !text.contains("NOT SOUND"), "{text}");
    assert!(text.contains("postgresql_20240904_020001.tar.gz.enc"), "{text}");

    // The report that a script of the house wrote the next morning stays.
    house.turn_to("2024-09-05T06:00:00Z");
    let theirs = house.place("verification/verification_report_20240905.json");
    std::fs::write(&theirs, "{\"status\": \"ok\"}").unwrap();
    let seen = house.verify(VerifyLevel::Digest).await;
    assert!(seen.reports.is_empty() && seen.report.exit_code() == 0, "{seen:#?}");
    assert!(seen.report.findings[0].message.contains("made by another program"), "{seen:#?}");
    assert_eq!(std::fs::read_to_string(&theirs).unwrap(), "{\"status\": \"ok\"}");

    house.policy.to = Some(format!("file://{}", house.place("nothing here").display()));
    let seen = house.verify(VerifyLevel::Digest).await;
    assert_eq!((seen.report.exit_code(), seen.dumps.len()), (0, 0), "{seen:#?}");
    assert!(!house.place("nothing here").exists());
}

fn expected_report() -> Value {
    let file = |path: &str, finished: &str, level: &str, verified: &str| {
        serde_json::json!({
            "path": path, "id": null, "instance": "main", "content": "database", "database": "postgres",
            "tier": "daily", "finished_at": finished, "stored_bytes": null, "sha256": null, "state": "good",
            "level": level, "verified_at": verified, "findings": [],
        })
    };
    serde_json::json!({
        "backstay_version": env!("CARGO_PKG_VERSION"),
        "shelf": null,
        "verified_at": "2024-09-04T06:00:02Z",
        "level": "digest",
        "sound": true,
        "files": [
            file("postgresql_20240904_020001.tar.gz.enc", "2024-09-04T02:00:03Z", "digest", "2024-09-04T06:00:02Z"),
            file("postgresql_20240903_020001.tar.gz.enc", "2024-09-03T02:00:03Z", "existence", "2024-09-04T06:00:01Z"),
        ],
        "findings": [],
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verification_that_is_stopped_says_so_and_leaves_no_report() {
    let Some(house) = House::build("tiers") else { return };
    house.dump("postgres", "2024-09-01T02:00:00Z").await;
    let run = house.run();
    run.cancel.cancel();
    let stopped =
        verify::run(&run, &house.policy, &house.instance.id, &house.options(VerifyLevel::Digest)).await;
    assert!(matches!(stopped, Err(backstay_ops::Error::Cancelled)), "{stopped:?}");
    assert!(!house.place("verification").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_that_share_a_shelf_have_one_report_and_their_own_findings() {
    let Some(mut house) = House::build("plain") else { return };
    house.dump("postgres", "2024-09-03T02:00:00Z").await;
    house.instance.id = "other".parse().unwrap();
    let theirs = house.dump("postgres", "2024-09-04T02:00:00Z").await.dumps.remove(0);
    house.verify(VerifyLevel::Digest).await;
    std::fs::remove_file(house.place(&theirs.paths[0].path)).unwrap();
    house.instance.id = "main".parse().unwrap();
    let seen = house.verify(VerifyLevel::Digest).await;
    assert_eq!((seen.report.exit_code(), seen.dumps.len()), (0, 1), "{seen:#?}");
    let latest = std::fs::read(house.place("verification/latest_verification.json")).unwrap();
    let latest: Value = serde_json::from_slice(&latest).unwrap();
    let of: Vec<_> = latest["files"].as_array().unwrap().iter().map(|file| &file["instance"]).collect();
    assert_eq!(of, ["other", "main"], "{latest:#}");
    house.instance.id = "other".parse().unwrap();
    assert_eq!(house.verify(VerifyLevel::Existence).await.report.exit_code(), VerifyReport::EXIT_FINDINGS);
}
