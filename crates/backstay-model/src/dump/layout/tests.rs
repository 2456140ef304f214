use jiff::SignedDuration;

use super::super::retention::TierKeep;
use super::super::{DumpCipher, DumpCompression, DumpFormat};
use super::*;

fn instance() -> InstanceId {
    "main".parse().unwrap()
}

/// What a layout calls the files of one dump of its own shape.
struct Files {
    layout: Layout,
    database: &'static str,
    instance: InstanceId,
}

fn files(preset: &str, database: &'static str) -> Files {
    Files { layout: Layout::preset(preset).unwrap(), database, instance: instance() }
}

impl Files {
    fn with<T>(&self, tier: Tier, time: &str, ask: impl Fn(&Fields<'_>) -> T) -> T {
        let ext = self.layout.extension(&self.layout.shape);
        let time = time.parse().unwrap();
        ask(&Fields { database: Some(self.database), instance: &self.instance, tier, ext: &ext, time })
    }

    /// The path in every tier to which the layout gives a dump of this time.
    fn paths(&self, time: &str) -> Vec<String> {
        let path = |tier| self.with(tier, time, |fields| self.layout.path(fields).unwrap());
        self.layout.tiers(time.parse().unwrap()).into_iter().map(path).collect()
    }

    fn pointer(&self) -> Option<String> {
        self.with(Tier::Daily, "2024-01-01T02:00:00Z", |fields| self.layout.pointer_path(fields))
    }
}

fn shape(format: DumpFormat, compression: DumpCompression, cipher: DumpCipher) -> DumpShape {
    DumpShape { format, compression, cipher }
}

fn days(days: i64) -> Option<TierKeep> {
    Some(TierKeep { age: Some(SignedDuration::from_hours(24 * days)), count: None })
}

fn newest(count: u32) -> Option<TierKeep> {
    Some(TierKeep { age: None, count: Some(count) })
}

const SQL_GZ: DumpShape =
    DumpShape { format: DumpFormat::Plain, compression: DumpCompression::Gzip, cipher: DumpCipher::None };

#[test]
fn grill_stats_keeps_what_pg_restore_opens_under_the_name_of_a_script() {
    let shelf = files("grill-stats", "grill_stats");
    // A first of the month that is a Sunday.
    assert_eq!(
        shelf.paths("2023-10-01T01:00:00Z"),
        [
            "daily/grill_stats_20231001_010000.sql.gz",
            "weekly/grill_stats_20231001_010000.sql.gz",
            "monthly/grill_stats_20231001_010000.sql.gz",
        ]
    );
    assert_eq!(shelf.paths("2023-10-02T01:00:00Z"), ["daily/grill_stats_20231002_010000.sql.gz"]);
    let layout = shelf.layout;
    assert_eq!(layout.shape, shape(DumpFormat::Custom, DumpCompression::Inside, DumpCipher::None));
    assert_eq!(
        layout.keep,
        DumpKeep { daily: days(30), weekly: newest(52), monthly: newest(12), minimum: 0 }
    );
}

#[test]
fn grill_stats_backup_seals_tarballs_and_points_to_the_newest() {
    let shelf = files("grill-stats-backup", "grill_stats");
    assert_eq!(
        shelf.paths("2024-01-01T02:00:00Z"),
        ["postgresql_20240101_020000.tar.gz.enc", "monthly/postgresql_monthly_20240101_020000.tar.gz.enc"]
    );
    assert_eq!(shelf.paths("2024-01-07T02:00:00Z")[1], "weekly/postgresql_weekly_20240107_020000.tar.gz.enc");
    assert_eq!(shelf.pointer().as_deref(), Some("latest_backup.tar.gz.enc"));
    let layout = shelf.layout;
    assert_eq!(layout.shape, shape(DumpFormat::Directory, DumpCompression::Gzip, DumpCipher::Openssl));
    assert_eq!(layout.keep, DumpKeep { daily: days(30), ..DumpKeep::default() });
    let reports = layout.report_paths("2024-01-01T06:00:00Z".parse().unwrap());
    assert_eq!(reports.json, "verification/verification_report_20240101.json");
    assert_eq!(reports.text, "verification/verification_report_20240101.txt");
    assert_eq!(reports.latest, "verification/latest_verification.json");
}

#[test]
fn grill_stats_backup_keeps_redis_and_influxdb_for_a_week_under_their_own_names() {
    for (engine, name, ext) in
        [(EngineKind::Redis, "redis", "rdb.gz.enc"), (EngineKind::Influxdb, "influxdb", "tar.gz.enc")]
    {
        let layout = Layout::preset_of_engine("grill-stats-backup", engine).unwrap();
        let shelf = Files { layout, database: "0", instance: instance() };
        let paths = shelf.paths("2024-01-07T03:00:00Z");
        assert_eq!(paths[0], format!("{name}_20240107_030000.{ext}"));
        assert_eq!(paths[1], format!("weekly/{name}_weekly_20240107_030000.{ext}"));
        assert_eq!(shelf.layout.keep, DumpKeep { daily: days(7), ..DumpKeep::default() });
    }
    let postgresql = Layout::preset_of_engine("grill-stats-backup", EngineKind::Postgresql).unwrap();
    assert_eq!(Ok(postgresql), Layout::preset("grill-stats-backup"));
    // The others say nothing of engines.
    for name in Layout::PRESETS.into_iter().filter(|name| *name != "grill-stats-backup") {
        assert_eq!(Layout::preset_of_engine(name, EngineKind::Influxdb), Layout::preset(name));
    }
}

#[test]
fn a_dump_of_redis_is_a_packed_snapshot_in_every_layout() {
    for name in Layout::PRESETS {
        let layout = Layout::preset_of_engine(name, EngineKind::Redis).unwrap();
        let cipher = Layout::preset(name).unwrap().shape.cipher;
        assert_eq!(layout.shape, shape(DumpFormat::Rdb, DumpCompression::Gzip, cipher), "{name}");
        assert!(layout.extension(&layout.shape).starts_with("rdb.gz"), "{name}");
        assert_eq!(layout.check(), Ok(()), "{name}");
        // What scripts left under other extensions is found as before.
        let old = "redis_20240107_030000.tar.gz.enc";
        assert!(name != "grill-stats-backup" || layout.locate(old).is_some());
    }
}

#[test]
fn modulo_has_its_full_dumps_and_short_sidecars() {
    let shelf = files("modulo", "modulodb");
    // No second name for weeks and months, although this is a first and a Sunday.
    let paths = shelf.paths("2024-09-01T02:00:00Z");
    assert_eq!(paths, ["full/modulo_full_20240901_020000.sql.gz"]);
    assert_eq!(shelf.paths("2024-01-01T02:00:00Z"), ["full/modulo_full_20240101_020000.sql.gz"]);
    assert_eq!(shelf.pointer(), None);
    let layout = shelf.layout;
    assert_eq!(layout.sidecar_path(&paths[0]), "full/modulo_full_20240901_020000.sql.gz.meta");
    assert_eq!(layout.dump_of_sidecar("full/a.sql.gz.meta"), Some("full/a.sql.gz"));
    assert_eq!(layout.dump_of_sidecar("full/a.sql.gz"), None);
    assert_eq!(layout.dump_of_sidecar("full/.meta"), None);
    assert_eq!((layout.shape, layout.keep.daily), (SQL_GZ, days(7)));
}

#[test]
fn auto_recovery_has_all_its_dumps_in_one_directory() {
    let shelf = files("auto-recovery", "app");
    assert_eq!(shelf.paths("2025-06-13T18:00:02Z"), ["backup_20250613_180002.sql.gz"]);
    assert_eq!(
        shelf.layout.sidecar_path("backup_20250613_180002.sql.gz"),
        "backup_20250613_180002.sql.gz.meta.json"
    );
    assert_eq!((shelf.layout.shape, shelf.layout.keep.daily), (SQL_GZ, days(30)));
}

#[test]
fn save_it_ai_names_its_dumps_by_the_day() {
    let shelf = files("save-it-ai", "saveit");
    assert_eq!(shelf.paths("2024-01-24T02:00:00Z"), ["backup-2024-01-24.sql.gz"]);
    assert_eq!(shelf.pointer().as_deref(), Some("backup-latest.sql.gz"));
    assert_eq!((shelf.layout.shape, shelf.layout.keep.daily), (SQL_GZ, days(30)));
    // What is taken by hand, with the day and then with the time.
    let by_hand = |layout: &Layout| {
        shelf.with(Tier::Daily, "2024-01-24T15:04:05Z", |fields| layout.path(fields).unwrap())
    };
    let names: Vec<String> = shelf.layout.layouts_by_hand().map(|layout| by_hand(&layout)).collect();
    assert_eq!(names, ["manual/backup-20240124.sql.gz", "manual/backup-20240124_150405.sql.gz"]);
    for name in &names {
        let found = shelf.layout.locate(name).unwrap();
        assert_eq!(
            (found.tier, found.time.strftime("%F").to_string().as_str()),
            (Some(Tier::Daily), "2024-01-24")
        );
    }
    // Sealed with `gpg --symmetric`, where somebody asks for it.
    let sealed = DumpShape { cipher: DumpCipher::Openpgp, ..SQL_GZ };
    assert_eq!(shelf.layout.extension(&sealed), "sql.gz.gpg");
}

#[test]
fn the_plain_layout_keeps_everything_and_nobody_meets_in_it() {
    let shelf = files("plain", "orders");
    assert_eq!(shelf.paths("2024-09-01T02:00:00Z"), ["main/orders_20240901_020000.dump.zst"]);
    let layout = shelf.layout;
    assert!(layout.daily.tells_databases_apart() && layout.daily.tells_instances_apart());
    assert_eq!((layout.shape, layout.keep), (DumpShape::default(), DumpKeep::default()));
    assert!(Tier::ALL.iter().all(|tier| layout.keep.rule(*tier).is_none()));
}

#[test]
fn the_layout_in_tiers_gives_a_dump_a_name_in_each() {
    let shelf = files("tiers", "orders");
    assert_eq!(
        shelf.paths("2024-09-01T02:00:00Z"),
        [
            "daily/orders_20240901_020000.dump.zst",
            "weekly/orders_20240901_020000.dump.zst",
            "monthly/orders_20240901_020000.dump.zst",
        ]
    );
    assert_eq!(shelf.pointer().as_deref(), Some("latest_orders.dump.zst"));
}

#[test]
fn every_preset_is_sound_and_finds_its_own_dumps_again() {
    for name in Layout::PRESETS {
        let shelf = files(name, "orders");
        let layout = &shelf.layout;
        assert_eq!(layout.check(), Ok(()), "{name}");
        for time in ["2024-09-01T02:00:00Z", "2024-01-07T02:00:00Z", "2024-02-29T00:00:00Z"] {
            for (tier, path) in layout.tiers(time.parse().unwrap()).into_iter().zip(shelf.paths(time)) {
                let found = layout.locate(&path).unwrap_or_else(|| panic!("{name}: {path}"));
                assert_eq!(found.tier, Some(tier), "{name}: {path}");
                let day = found.time.strftime("%F").to_string();
                assert!(time.starts_with(&day), "{name}: {path} is not of {day}");
                for beside in [layout.sidecar_path(&path), format!("{path}.hmac")] {
                    assert_eq!(layout.locate(&beside), None, "{name}: {beside}");
                }
            }
        }
        assert_eq!(shelf.pointer().and_then(|pointer| layout.locate(&pointer)), None, "{name}");
    }
}

#[test]
fn the_dump_of_a_week_is_not_read_as_one_of_the_days() {
    let layout = Layout {
        weekly: Some("{database}_weekly_{time}.{ext}".parse().unwrap()),
        daily: "{database}_{time}.{ext}".parse().unwrap(),
        ..Layout::preset("plain").unwrap()
    };
    let found = layout.locate("orders_weekly_20240107_020000.sql").unwrap();
    assert_eq!((found.tier, found.database.as_deref()), (Some(Tier::Weekly), Some("orders")));
    assert_eq!(layout.locate("orders_20240107_020000.sql").unwrap().tier, Some(Tier::Daily));
    // In tiers by `{tier}`, the word in the path decides.
    let tiers = Layout::preset("tiers").unwrap();
    for tier in Tier::ALL {
        let found = tiers.locate(&format!("{tier}/orders_20240107_020000.sql")).unwrap();
        assert_eq!(found.tier, Some(tier));
    }
}

#[test]
fn an_unknown_preset_names_those_that_there_are() {
    let error = Layout::preset("grill").unwrap_err().to_string();
    for name in Layout::PRESETS {
        assert!(error.contains(name), "{name} is not in {error}");
    }
}

#[test]
fn a_layout_in_which_files_would_meet_is_refused() {
    let plain = || Layout::preset("plain").unwrap();
    let wrong = [
        Layout { weekly: Some(plain().daily), ..plain() },
        Layout {
            weekly: Some("w/{time}.{ext}".parse().unwrap()),
            monthly: Some("w/{time}.{ext}".parse().unwrap()),
            ..plain()
        },
        Layout { pointer: Some("main/orders_20240901_020000.{ext}".parse().unwrap()), ..plain() },
        Layout { sidecar: String::new(), ..plain() },
        Layout { sidecar: "meta.json".to_owned(), ..plain() },
        Layout { sidecar: ".a/b".to_owned(), ..plain() },
        Layout { sidecar: ".hmac".to_owned(), ..plain() },
        Layout { reports: "../reports".to_owned(), ..plain() },
        Layout { reports: "/reports".to_owned(), ..plain() },
        Layout { reports: "reports/".to_owned(), ..plain() },
        Layout { extension: Some(".sql".to_owned()), ..plain() },
        Layout { extension: Some("sql/gz".to_owned()), ..plain() },
    ];
    let errors: Vec<_> = wrong.iter().map(|layout| layout.check().unwrap_err()).collect();
    assert_eq!(
        errors[0].to_string(),
        "the daily and the weekly dump of one day would both be called \"main/orders_20240901_020000.dump.zst\""
    );
    assert!(matches!(errors[1], LayoutError::TiersMeet { one: Tier::Weekly, other: Tier::Monthly, .. }));
    let kind = |error: &LayoutError| match error {
        LayoutError::TiersMeet { .. } => "tiers",
        LayoutError::PointerMeets(_) => "pointer",
        LayoutError::Sidecar(_) => "sidecar",
        LayoutError::Reports(_) => "reports",
        LayoutError::Extension(_) => "extension",
    };
    assert_eq!(
        errors.iter().map(kind).collect::<Vec<_>>(),
        [
            "tiers",
            "tiers",
            "pointer",
            "sidecar",
            "sidecar",
            "sidecar",
            "sidecar",
            "reports",
            "reports",
            "reports",
            "extension",
            "extension",
        ]
    );
    for error in errors {
        assert!(error.hints().iter().all(|hint| hint.contains('`') && !hint.ends_with('.')), "{error}");
    }
}

#[test]
fn a_pointer_is_known_by_its_name_and_no_dump_is_taken_for_one() {
    let tiers = Layout::preset("tiers").unwrap();
    for (path, is_pointer) in [
        ("latest_orders.dump.zst", true),
        ("latest_backup.dump", true),
        ("latest_.dump", false),
        ("latest_orders", false),
        ("daily/latest_orders.dump", false),
        ("daily/orders_20240901_020000.dump.zst", false),
    ] {
        assert_eq!(tiers.is_pointer(path), is_pointer, "{path}");
    }
    assert!(!Layout::preset("plain").unwrap().is_pointer("latest_orders.dump"));
}
