//! The settings of portable dumps: `[dump]`, and `[instance.NAME.dump]` over it.

use std::path::PathBuf;

use backstay_model::dump::layout::Layout;
use backstay_model::dump::retention::{DumpKeep, TierKeep};
use backstay_model::dump::{DumpCipher, DumpCompression, DumpFormat, NameTemplate, PointerName};
use jiff::SignedDuration;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::secret::SecretSource;
use super::values::{Address, HumanDuration};

/// How portable dumps are made, where they go and how long they stay.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DumpSettings {
    /// The directory for the dumps, such as `file:///var/backups/orders`. Others may keep files there as well: Backstay
    /// never touches what it did not make or adopt.
    #[serde(default)]
    pub to: Option<Address>,
    /// How that directory is ordered: `"plain"`, `"tiers"` (`daily`, `weekly` and `monthly`), or as a known set of scripts had
    /// it: `"grill-stats"`, `"grill-stats-backup"`, `"modulo"`, `"auto-recovery"`, `"save-it-ai"`. A layout says as
    /// well how dumps are made and kept where nothing below says otherwise.
    #[serde(default, deserialize_with = "layout")]
    pub layout: Option<String>,
    /// The names of the files, over those of the layout, made of `{database}`, `{instance}`, `{tier}`, `{ext}` and
    /// `{time}` or `{time:%Y%m%d_%H%M%S}`: `"{tier}/{database}_{time}.{ext}"`.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub name: Option<NameTemplate>,
    /// The name that leads to the newest dump, over that of the layout, made of `{database}`, `{instance}` and `{ext}`:
    /// `"latest_{database}.{ext}"`; `"none"` for none. It never leads to parts of a database, and without `{database}` only
    /// to dumps of that of `url`. One that has an old name stays as it is: remove it by hand.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub pointer: Option<Pointer>,
    /// `"custom"` (for `pg_restore`), `"plain"` (SQL for `psql`) or `"directory"` (in a tar archive; several sessions at once).
    /// Dumps of Redis are its snapshots.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub format: Option<DumpFormat>,
    /// `"zstd"`, `"gzip"`, `"none"`, or `"inside"` for archives that `pg_dump` compresses itself and `pg_restore` opens
    /// as they are.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub compression: Option<DumpCompression>,
    /// The level of that compression. Without one, gzip takes 6, and zstd whichever of 1 and 3 makes the dump smaller.
    #[serde(default)]
    #[schemars(range(min = 1, max = 19))]
    pub compression_level: Option<i32>,
    /// `"openssl"` (AES-256-CBC, for `openssl enc -d`), `"openpgp"` (AES-256, for `gpg --decrypt`) or `"none"`.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub encryption: Option<DumpCipher>,
    /// The pass phrase of encrypted dumps. Keep a copy of it elsewhere: without it nobody can read them.
    #[serde(default)]
    pub passphrase: Option<SecretSource>,
    /// How many sessions read the database at once, for the directory format, and how many write in a restore.
    #[serde(default)]
    #[schemars(range(min = 1, max = 64))]
    pub jobs: Option<u32>,
    /// Where files lie for a while that a dump in the directory format, or a restore with several jobs, cannot do
    /// without; needs room for the database. Left out, the directory of the dumps.
    #[serde(default)]
    pub spool: Option<PathBuf>,
    /// Which dumps are kept, over what the layout says. Without either every dump is kept.
    #[serde(default)]
    pub keep: Option<DumpKeepSettings>,
    /// How long the reports of verifications stay; the newest stays always. Left out, 90 days.
    #[serde(default)]
    pub keep_reports: Option<HumanDuration>,
}

/// Whether a name leads to the newest dump, and which.
#[derive(Debug, Clone, PartialEq)]
pub enum Pointer {
    None,
    Named(PointerName),
}

const NO_POINTER: &str = "none";

impl<'de> Deserialize<'de> for Pointer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            NO_POINTER => Ok(Pointer::None),
            name => name.parse().map(Pointer::Named).map_err(serde::de::Error::custom),
        }
    }
}

impl Serialize for Pointer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Pointer::None => serializer.serialize_str(NO_POINTER),
            Pointer::Named(name) => serializer.collect_str(name),
        }
    }
}

/// Which dumps are kept in each tier. The newest good dump of each database is kept always.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DumpKeepSettings {
    /// The dumps of every day.
    #[serde(default)]
    pub daily: Option<TierKeepSettings>,
    /// Those of Sundays.
    #[serde(default)]
    pub weekly: Option<TierKeepSettings>,
    /// Those of the first of each month.
    #[serde(default)]
    pub monthly: Option<TierKeepSettings>,
    /// Never fewer good dumps of a database than this.
    #[serde(default)]
    pub minimum: Option<u32>,
}

/// How long the dumps of one tier stay: while either rule keeps them.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TierKeepSettings {
    /// What is younger stays, such as `"30d"`.
    #[serde(default)]
    pub age: Option<HumanDuration>,
    /// The newest so many of each database stay: dumps, of which one day may have several.
    #[serde(default)]
    pub count: Option<u32>,
}

fn layout<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let name = Option::<String>::deserialize(deserializer)?;
    if let Some(name) = &name {
        Layout::preset(name).map_err(serde::de::Error::custom)?;
    }
    Ok(name)
}

impl DumpSettings {
    /// These settings where they say something, else the common ones.
    pub fn over(&self, common: &DumpSettings) -> DumpSettings {
        let own = self.clone();
        DumpSettings {
            to: own.to.or_else(|| common.to.clone()),
            layout: own.layout.or_else(|| common.layout.clone()),
            name: own.name.or_else(|| common.name.clone()),
            pointer: own.pointer.or_else(|| common.pointer.clone()),
            format: own.format.or(common.format),
            compression: own.compression.or(common.compression),
            compression_level: own.compression_level.or(common.compression_level),
            encryption: own.encryption.or(common.encryption),
            passphrase: own.passphrase.or_else(|| common.passphrase.clone()),
            jobs: own.jobs.or(common.jobs),
            spool: own.spool.or_else(|| common.spool.clone()),
            keep: own.keep.or_else(|| common.keep.clone()),
            keep_reports: own.keep_reports.or(common.keep_reports),
        }
    }
}

impl DumpKeepSettings {
    /// In the words of the model.
    pub fn rules(&self) -> DumpKeep {
        let rule = |tier: &Option<TierKeepSettings>| {
            tier.as_ref().map(|keep| TierKeep {
                age: keep.age.map(|age| SignedDuration::try_from(age.0).unwrap_or(SignedDuration::MAX)),
                count: keep.count,
            })
        };
        DumpKeep {
            daily: rule(&self.daily),
            weekly: rule(&self.weekly),
            monthly: rule(&self.monthly),
            minimum: self.minimum.unwrap_or(0),
        }
    }
}
