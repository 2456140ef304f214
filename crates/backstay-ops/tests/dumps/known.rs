//! What is known of a shelf, and of whom.

use std::os::unix::fs::symlink;

use backstay_model::FindingLevel;
use backstay_model::dump::Tier;
use backstay_ops::dump::shelved::{self, Presence};

use crate::shelf::House;

#[tokio::test(flavor = "multi_thread")]
async fn one_row_tells_of_a_dump_under_all_its_names_and_strangers_are_counted() {
    let Some(house) = House::build("tiers") else { return };
    let first = house.dump("postgres", "2024-09-01T02:00:00Z").await;
    let second = house.dump("postgres", "2024-09-02T02:00:00Z").await;
    for foreign in
        ["notes.txt", "daily/orders_20230101_020000.sql.gz", "daily/theirs.meta.json", "daily/a.hmac"]
    {
        std::fs::write(house.place(foreign), "{}").unwrap();
    }
    let known = house.known().await;
    assert_eq!((known.files.len(), known.foreign_files), (4, 4), "{known:#?}");
    let told: Vec<_> = known.findings.iter().map(|finding| (finding.level, &finding.subject)).collect();
    let theirs = house.place("daily/theirs.meta.json").display().to_string();
    assert_eq!(told, [(FindingLevel::Info, &theirs)]);

    let rows = known.summaries();
    let ids: Vec<_> = rows.iter().map(|row| &row.id).collect();
    assert_eq!(ids, [&second.dumps[0].record.id, &first.dumps[0].record.id]);
    let tiers: Vec<_> = rows[1].tiers.iter().map(|file| (file.tier, file.path.as_str(), file.good)).collect();
    assert_eq!(
        tiers,
        [
            (Tier::Daily, "daily/postgres_20240901_020001.dump.zst", true),
            (Tier::Weekly, "weekly/postgres_20240901_020001.dump.zst", true),
            (Tier::Monthly, "monthly/postgres_20240901_020001.dump.zst", true),
        ]
    );
    let row = serde_json::to_value(&rows[1]).unwrap();
    assert_eq!(
        (&row["type"], &row["database"], &row["files"], &row["damaged"], &row["parent"]),
        (&"dump".into(), &"postgres".into(), &3.into(), &false.into(), &serde_json::Value::Null)
    );
    assert_eq!(row["logical_bytes"], first.dumps[0].record.raw_bytes);

    let other = "other".parse().unwrap();
    let others = shelved::look(&house.run(), &house.policy, Some(&other)).await.unwrap();
    assert!(others.files.is_empty() && others.foreign_files == 4, "{others:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_alone_a_broken_one_and_one_of_another_file_are_told_of() {
    let Some(house) = House::build("save-it-ai") else { return };
    for day in 2..=6 {
        house.dump("postgres", &format!("2024-09-0{day}T02:00:00Z")).await;
    }
    let day = |day: u8| format!("backup-2024-09-0{day}.sql.gz");
    std::fs::remove_file(house.place(&day(2))).unwrap();
    house.change(&format!("{}.meta.json", day(3)), |json| json.truncate(json.len() - 40), false);
    // Renamed with its sidecar: who knows what it is now.
    for suffix in ["", ".meta.json"] {
        let renamed = house.place(&format!("older.sql.gz{suffix}"));
        std::fs::copy(house.place(&format!("{}{suffix}", day(4))), &renamed).unwrap();
        std::fs::remove_file(house.place(&format!("{}{suffix}", day(4)))).unwrap();
    }
    // Moved to a larger disk, with a link in its place.
    let elsewhere = house.workspace.path().join("elsewhere.sql.gz");
    std::fs::copy(house.place(&day(5)), &elsewhere).unwrap();
    std::fs::remove_file(house.place(&day(5))).unwrap();
    symlink(&elsewhere, house.place(&day(5))).unwrap();

    let known = house.known().await;
    let mut told: Vec<_> = known
        .findings
        .iter()
        .map(|finding| {
            let name = finding.subject.rsplit('/').next().unwrap().to_owned();
            (name, finding.level, finding.message.as_str(), finding.remedy.as_str())
        })
        .collect();
    told.sort();
    assert_eq!(told.len(), 3, "{told:#?}");
    assert!(told[0].0 == day(2) && told[0].2.contains("is gone"), "{told:#?}");
    assert!(told[0].3.contains(&day(6)), "the newest good one is not named: {told:#?}");
    assert!(
        told[1].0 == format!("{}.meta.json", day(3)) && told[1].2.contains("nothing is done with its dump")
    );
    assert!(told[2].0 == "older.sql.gz.meta.json" && told[2].2.contains(&day(4)), "{told:#?}");
    let there: Vec<_> = known.files.iter().map(|file| (file.dump.path.clone(), file.presence)).collect();
    assert_eq!(there.len(), 3);
    assert!(matches!(there[0], (_, Presence::File { .. })) && matches!(there[1], (_, Presence::Link { .. })));
    assert_eq!(there[2].1, Presence::Gone);
    // What nobody describes is a stranger's: the file of the broken sidecar, and the renamed pair.
    assert_eq!(known.foreign_files, 3, "{:#?}", house.shown());
}
