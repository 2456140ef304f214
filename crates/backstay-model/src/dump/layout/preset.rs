//! The ready layouts: two of our own, and those of five sets of scripts, to the letter.
//!
//! Each of the five says what its scripts wrote: names, format, what lies beside, and how
//! long it stayed. Where the scripts say nothing of a tier's end, everything of it stays.

use jiff::SignedDuration;

use super::super::retention::{DumpKeep, TierKeep};
use super::super::{DumpCipher, DumpCompression, DumpFormat, DumpShape, UnknownWord};
use super::Layout;
use crate::record::EngineKind;

pub(super) const NAMES: [&str; 7] =
    ["plain", "tiers", "grill-stats", "grill-stats-backup", "modulo", "auto-recovery", "save-it-ai"];

const KNOWN: &str = "plain, tiers, grill-stats, grill-stats-backup, modulo, auto-recovery and save-it-ai";

const IN_TIERS: &str = "{tier}/{database}_{time:%Y%m%d_%H%M%S}.{ext}";

/// A layout as it is written here, where a name is text.
struct Written {
    daily: &'static str,
    weekly: Option<&'static str>,
    monthly: Option<&'static str>,
    by_hand: &'static [&'static str],
    pointer: Option<&'static str>,
    sidecar: &'static str,
    reports: &'static str,
    extension: Option<&'static str>,
    shape: DumpShape,
    keep: DumpKeep,
}

impl Written {
    fn new(daily: &'static str, shape: DumpShape, keep: DumpKeep) -> Self {
        Self {
            daily,
            weekly: None,
            monthly: None,
            by_hand: &[],
            pointer: None,
            sidecar: ".meta.json",
            reports: "verification",
            extension: None,
            shape,
            keep,
        }
    }

    fn in_tiers(self, weekly: &'static str, monthly: &'static str) -> Self {
        Self { weekly: Some(weekly), monthly: Some(monthly), ..self }
    }

    fn pointed_to_by(self, pointer: &'static str) -> Self {
        Self { pointer: Some(pointer), ..self }
    }

    fn read(self) -> Option<Layout> {
        Some(Layout {
            daily: self.daily.parse().ok()?,
            weekly: self.weekly.map(str::parse).transpose().ok()?,
            monthly: self.monthly.map(str::parse).transpose().ok()?,
            by_hand: self.by_hand.iter().map(|name| name.parse()).collect::<Result<_, _>>().ok()?,
            pointer: self.pointer.map(str::parse).transpose().ok()?,
            sidecar: self.sidecar.to_owned(),
            reports: self.reports.to_owned(),
            extension: self.extension.map(str::to_owned),
            shape: self.shape,
            keep: self.keep,
        })
    }
}

fn shape(format: DumpFormat, compression: DumpCompression, cipher: DumpCipher) -> DumpShape {
    DumpShape { format, compression, cipher }
}

fn daily_for_days(days: i64) -> DumpKeep {
    let age = SignedDuration::from_hours(24 * days);
    DumpKeep { daily: Some(TierKeep { age: Some(age), count: None }), ..DumpKeep::default() }
}

/// 30 days by age; weeks and months by number, so that none goes because no new ones came.
fn days_weeks_months() -> DumpKeep {
    let of = |count| Some(TierKeep { age: None, count: Some(count) });
    DumpKeep { weekly: of(52), monthly: of(12), ..daily_for_days(30) }
}

pub(super) fn of(name: &str) -> Result<Layout, UnknownWord> {
    written(name).and_then(Written::read).ok_or_else(|| UnknownWord { given: name.to_owned(), known: KNOWN })
}

/// As the same scripts have it for another engine: they name it in their files, and keep its
/// dumps as long as their table says.
pub(super) fn of_engine(name: &str, engine: EngineKind) -> Result<Layout, UnknownWord> {
    let mut layout = of(name)?;
    let word = match engine {
        EngineKind::Postgresql => return Ok(layout),
        EngineKind::Influxdb => "influxdb",
        EngineKind::Redis => "redis",
    };
    let names = [Some(&mut layout.daily), layout.weekly.as_mut(), layout.monthly.as_mut()];
    for name in names.into_iter().flatten() {
        if let Ok(own) = name.to_string().replace("postgresql", word).parse() {
            *name = own;
        }
    }
    if name == "grill-stats-backup" {
        layout.keep = daily_for_days(7);
    }
    if engine == EngineKind::Redis {
        // A snapshot is one file already, which scripts pass through `gzip`. How a house encrypts
        // is the same for all its dumps.
        layout.shape = shape(DumpFormat::Rdb, DumpCompression::Gzip, layout.shape.cipher);
        layout.extension = None;
    }
    Ok(layout)
}

fn written(name: &str) -> Option<Written> {
    use {DumpCipher as Cipher, DumpCompression as Packed, DumpFormat as Format};
    let sql_gz = shape(Format::Plain, Packed::Gzip, Cipher::None);
    Some(match name {
        "plain" => Written::new(
            "{instance}/{database}_{time:%Y%m%d_%H%M%S}.{ext}",
            DumpShape::default(),
            DumpKeep::default(),
        ),
        "tiers" => Written::new(IN_TIERS, DumpShape::default(), days_weeks_months())
            .in_tiers(IN_TIERS, IN_TIERS)
            .pointed_to_by("latest_{database}.{ext}"),
        // `pg_dump -Fc` under the name of a compressed script: `pg_restore` opens it.
        "grill-stats" => Written {
            extension: Some("sql.gz"),
            ..Written::new(IN_TIERS, shape(Format::Custom, Packed::Inside, Cipher::None), days_weeks_months())
                .in_tiers(IN_TIERS, IN_TIERS)
        },
        "grill-stats-backup" => Written::new(
            "postgresql_{time}.{ext}",
            shape(Format::Directory, Packed::Gzip, Cipher::Openssl),
            daily_for_days(30),
        )
        .in_tiers("weekly/postgresql_weekly_{time}.{ext}", "monthly/postgresql_monthly_{time}.{ext}")
        .pointed_to_by("latest_backup.{ext}"),
        "modulo" => Written {
            sidecar: ".meta",
            reports: "logs",
            ..Written::new("full/modulo_full_{time}.{ext}", sql_gz, daily_for_days(7))
        },
        "auto-recovery" => Written::new("backup_{time}.{ext}", sql_gz, daily_for_days(30)),
        // What somebody takes by hand goes to `manual`, where its name has the day as well; a
        // second one of them in a day has the time, which its runbook says nothing of.
        "save-it-ai" => Written {
            by_hand: &["manual/backup-{time:%Y%m%d}.{ext}", "manual/backup-{time:%Y%m%d_%H%M%S}.{ext}"],
            ..Written::new("backup-{time:%Y-%m-%d}.{ext}", sql_gz, daily_for_days(30))
                .pointed_to_by("backup-latest.{ext}")
        },
        _ => return None,
    })
}
