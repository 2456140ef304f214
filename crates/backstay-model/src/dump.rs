//! Portable dumps: what one is made of, and what its sidecar says of it.
//!
//! A dump is a plain file that opens without Backstay. Its shape (who wrote it, how it
//! is compressed, how it is encrypted) decides its extension, and the extension tells a
//! person which programs open it. Never a base backup: nothing can be recovered on it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::{Classified, ErrorKind};
use crate::id::{BackupId, InstanceId};
use crate::record::EngineKind;

pub mod layout;
pub mod retention;
pub mod template;
pub mod tier;

pub use layout::Layout;
pub use retention::{DumpExpirePlan, DumpKeep, DumpOnShelf, TierKeep, plan_expire_dumps};
pub use template::{Fields, Matched, NameTemplate, PointerName};
pub use tier::Tier;

/// A word that is none of those that a setting or an option can be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is none of {known}")]
pub struct UnknownWord {
    pub given: String,
    pub known: &'static str,
}

impl Classified for UnknownWord {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }
}

/// How `pg_dump` writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DumpFormat {
    /// An archive for `pg_restore`.
    #[default]
    Custom,
    /// Statements for `psql`.
    Plain,
    /// One file for each table, in a tar archive; written by several sessions at once.
    Directory,
    /// Not of `pg_dump`: a snapshot of Redis or Valkey.
    Rdb,
    /// Not of `pg_dump`: a backup set of InfluxDB. Only adopted.
    Influxdb,
    /// Not of `pg_dump`: the append-only files of Redis or Valkey with their manifest. Only adopted.
    #[serde(rename = "append-only")]
    AppendOnly,
}

impl DumpFormat {
    pub fn is_of_pg_dump(self) -> bool {
        matches!(self, DumpFormat::Custom | DumpFormat::Plain | DumpFormat::Directory)
    }
}

/// What is laid over the bytes of `pg_dump`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DumpCompression {
    None,
    /// By `pg_dump` itself, inside its archive: slower, and `pg_restore` opens the file
    /// as it is. Not for plain dumps.
    Inside,
    Gzip,
    #[default]
    Zstd,
}

/// How the bytes are encrypted, in formats that other programs open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DumpCipher {
    #[default]
    None,
    /// `openssl enc -aes-256-cbc -pbkdf2 -iter 100000`.
    Openssl,
    /// `gpg --symmetric --cipher-algo AES256`.
    Openpgp,
}

macro_rules! words {
    ($type:ident, $known:literal, $($variant:ident = $word:literal),+) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(match self { $($type::$variant => $word),+ })
            }
        }

        impl FromStr for $type {
            type Err = UnknownWord;

            fn from_str(text: &str) -> Result<Self, UnknownWord> {
                match text {
                    $($word => Ok($type::$variant),)+
                    other => Err(UnknownWord { given: other.to_owned(), known: $known }),
                }
            }
        }
    };
}

words!(
    DumpFormat,
    "custom, plain and directory",
    Custom = "custom",
    Plain = "plain",
    Directory = "directory",
    Rdb = "rdb",
    Influxdb = "influxdb",
    AppendOnly = "append-only"
);
words!(
    DumpCompression,
    "none, inside, gzip and zstd",
    None = "none",
    Inside = "inside",
    Gzip = "gzip",
    Zstd = "zstd"
);
words!(DumpCipher, "none, openssl and openpgp", None = "none", Openssl = "openssl", Openpgp = "openpgp");

/// What a dump's bytes are, from the inside out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DumpShape {
    pub format: DumpFormat,
    pub compression: DumpCompression,
    pub cipher: DumpCipher,
}

impl DumpShape {
    /// `sql.gz`, `dump.zst.enc`: read from the right, it names the programs that open it.
    pub fn extension(&self) -> String {
        let inner = match self.format {
            DumpFormat::Custom => "dump",
            DumpFormat::Plain => "sql",
            DumpFormat::Directory | DumpFormat::Influxdb => "tar",
            DumpFormat::Rdb => "rdb",
            DumpFormat::AppendOnly => "aof",
        };
        let packed = match self.compression {
            DumpCompression::None | DumpCompression::Inside => "",
            DumpCompression::Gzip => ".gz",
            DumpCompression::Zstd => ".zst",
        };
        let sealed = match self.cipher {
            DumpCipher::None => "",
            DumpCipher::Openssl => ".enc",
            DumpCipher::Openpgp => ".gpg",
        };
        format!("{inner}{packed}{sealed}")
    }

    /// The programs that open it one after the other, without Backstay.
    pub fn opened_with(&self) -> String {
        self.opened_before(match self.format {
            DumpFormat::Custom => "pg_restore",
            DumpFormat::Plain => "psql",
            DumpFormat::Directory => "tar -x and pg_restore --format=directory",
            DumpFormat::Rdb => "redis-server",
            DumpFormat::Influxdb => "tar -x and influxd restore",
            DumpFormat::AppendOnly => "redis-server --appendonly yes",
        })
    }

    /// The same where another program reads what comes out at last.
    pub fn opened_before(&self, last: &str) -> String {
        let mut programs = Vec::new();
        match self.cipher {
            DumpCipher::None => {}
            DumpCipher::Openssl => {
                programs.push("openssl enc -d -aes-256-cbc -pbkdf2 -iter 100000 -pass file:…");
            }
            DumpCipher::Openpgp => programs.push("gpg --decrypt"),
        }
        match self.compression {
            DumpCompression::None | DumpCompression::Inside => {}
            DumpCompression::Gzip => programs.push("gunzip"),
            DumpCompression::Zstd => programs.push("zstd -d"),
        }
        programs.push(last);
        programs.join(" | ")
    }
}

/// What a dump holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "content")]
pub enum DumpContent {
    /// One database, whole.
    Database { database: String },
    /// Parts of one database, as they were asked for.
    Parts {
        database: String,
        /// Not `tables`: in a sidecar those are all that the dump holds, with their sizes.
        #[serde(rename = "chosen_tables")]
        tables: Vec<String>,
        #[serde(rename = "chosen_schemas")]
        schemas: Vec<String>,
    },
    /// Roles, their memberships and the tablespaces of a server.
    Globals,
    /// Several databases of a server in one file, as `pg_dumpall` and `influxd backup` write it.
    Cluster { databases: Vec<String> },
    /// All that a server holds, which has no databases with names.
    Server,
}

impl DumpContent {
    pub fn database(&self) -> Option<&str> {
        match self {
            DumpContent::Database { database } | DumpContent::Parts { database, .. } => Some(database),
            DumpContent::Globals | DumpContent::Cluster { .. } | DumpContent::Server => None,
        }
    }

    /// All of which it holds something.
    pub fn databases(&self) -> Vec<&str> {
        match self {
            DumpContent::Cluster { databases } => databases.iter().map(String::as_str).collect(),
            one => one.database().into_iter().collect(),
        }
    }

    /// Whether the whole of this database can be restored from it.
    pub fn has_whole(&self, database: &str) -> bool {
        match self {
            DumpContent::Database { database: own } => own == database,
            DumpContent::Cluster { databases } => databases.iter().any(|own| own == database),
            DumpContent::Parts { .. } | DumpContent::Globals | DumpContent::Server => false,
        }
    }
}

/// One table when the dump was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DumpedTable {
    pub schema: String,
    pub name: String,
    /// As the server's statistics had it; `None` for a table that nobody analysed.
    pub estimated_rows: Option<u64>,
    pub bytes: u64,
}

/// How much TimescaleDB has in its catalogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimescaleCounts {
    pub hypertables: u64,
    /// Dropped ones that the catalogue keeps, too.
    pub chunks: u64,
    /// Without its own.
    pub jobs: u64,
}

/// A file that belongs to a dump and lies in the directory of its own file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DumpMember {
    /// Without directories.
    pub file: String,
    pub stored_bytes: u64,
    /// In hexadecimal digits.
    pub sha256: String,
}

/// A line that `pg_dump` wrote beside the dump.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DumpWarning {
    pub message: String,
    /// Why it is harmless, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub harmless: Option<String>,
}

/// What statements name that a server has to have, because nothing in them makes it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatementNeeds {
    /// Owners, and those whom something is granted or denied.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub roles: BTreeSet<String>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub tablespaces: BTreeSet<String>,
    /// Those that are made.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub extensions: BTreeSet<String>,
    /// Of those extensions whose rows say it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub versions: BTreeMap<String, String>,
}

/// The sidecar of a dump, `<file>.meta.json`: a dump of ours exists when it has one.
/// Holds no secret. Fields are only added.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DumpRecord {
    pub id: BackupId,
    pub instance: InstanceId,
    /// `production`, `staging`: what the instance was called when the dump was taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    pub engine: EngineKind,
    #[serde(flatten)]
    pub content: DumpContent,
    /// The first of the dumps that were taken together, this one among them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<BackupId>,
    /// The name of the file beside which this lies, without directories.
    pub file: String,
    pub tier: Tier,
    pub started_at: Timestamp,
    pub finished_at: Timestamp,
    pub duration_seconds: f64,
    #[serde(flatten)]
    pub shape: DumpShape,
    /// What was read from the server's tool, before compression.
    pub raw_bytes: u64,
    /// The size of the file.
    pub stored_bytes: u64,
    /// How much smaller the file is: raw over stored.
    pub compression_ratio: f64,
    /// Of the file as it lies there, in hexadecimal digits.
    pub sha256: String,
    /// Of the database, by the server.
    pub database_bytes: Option<u64>,
    /// The end of the server's log when the dump's snapshot was taken.
    pub position: Option<String>,
    /// As text: it is larger than what some readers of JSON take for a number.
    pub system_identifier: Option<String>,
    pub server_version: Option<String>,
    pub tool_version: Option<String>,
    pub backstay_version: String,
    #[serde(default)]
    pub extensions: BTreeMap<String, String>,
    #[serde(default)]
    pub tables: Vec<DumpedTable>,
    /// Of a whole database with TimescaleDB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timescaledb: Option<TimescaleCounts>,
    /// Of a dump in statements, for each database in it; an archive says it itself. Of one
    /// that is not named here it is not known.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub needs: BTreeMap<String, StatementNeeds>,
    #[serde(default)]
    pub warnings: Vec<DumpWarning>,
    /// The other files of a dump that is several, as InfluxDB and a Redis that appends write it: the
    /// record is beside the one that names them. They come and go with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<DumpMember>,
    /// Taken in from what others left, rather than made by Backstay.
    #[serde(default)]
    pub adopted: bool,
    /// Whose dump it is was nowhere to be read, neither in the file nor in its name: it is
    /// restored only when it is named.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub guessed: bool,
    /// Taken of what a restore was about to change: it may hold the very state that
    /// somebody wanted to be rid of, so it is restored only when it is named.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub safety: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_extension_names_what_opens_a_dump_from_the_outside_in() {
        let shape = |format, compression, cipher| DumpShape { format, compression, cipher }.extension();
        use {DumpCipher as Cipher, DumpCompression as Packed, DumpFormat as Format};
        for (format, compression, cipher, extension) in [
            (Format::Custom, Packed::Inside, Cipher::None, "dump"),
            (Format::Custom, Packed::Zstd, Cipher::Openssl, "dump.zst.enc"),
            (Format::Plain, Packed::Gzip, Cipher::Openpgp, "sql.gz.gpg"),
            (Format::Directory, Packed::None, Cipher::None, "tar"),
        ] {
            assert_eq!(shape(format, compression, cipher), extension);
        }
    }

    #[test]
    fn the_sidecar_of_chosen_tables_reads_back() {
        let written = r#"{
            "id": "20261121T020000Z-7q3f", "instance": "orders", "engine": "postgresql", "content": "parts",
            "database": "shop", "chosen_tables": ["t"], "chosen_schemas": [], "file": "shop.dump", "tier": "daily",
            "started_at": "2026-11-21T02:00:00Z", "finished_at": "2026-11-21T02:00:00Z", "duration_seconds": 1.0,
            "format": "custom", "compression": "zstd", "cipher": "none", "raw_bytes": 2, "stored_bytes": 1,
            "compression_ratio": 2.0, "sha256": "", "backstay_version": "0.1.0",
            "tables": [{ "schema": "public", "name": "t", "estimated_rows": 1, "bytes": 8192 }]
        }"#;
        let record: DumpRecord = serde_json::from_str(written).unwrap();
        assert_eq!((record.tables.len(), record.content.database()), (1, Some("shop")));
        let again = serde_json::to_string(&record).unwrap();
        assert_eq!(again.matches("\"tables\"").count(), 1, "{again}");
        assert!(record.needs.is_empty() && !again.contains("needs"), "{again}");
        assert_eq!(serde_json::from_str::<DumpRecord>(&again).unwrap(), record);
    }

    #[test]
    fn what_statements_need_is_in_the_sidecar_where_it_is_known() {
        let roles = ["app".to_owned(), "Big \"Role\"".to_owned()].into();
        let needs = StatementNeeds { roles, ..Default::default() };
        let json = serde_json::to_string(&needs).unwrap();
        assert_eq!(json, r#"{"roles":["Big \"Role\"","app"]}"#);
        assert_eq!(serde_json::from_str::<StatementNeeds>(&json).unwrap(), needs);
        assert_eq!(serde_json::from_str::<StatementNeeds>("{}").unwrap(), StatementNeeds::default());
    }

    #[test]
    fn the_sidecar_of_a_whole_server_says_its_databases() {
        let cluster = DumpContent::Cluster { databases: vec!["a b".into(), "shop".into()] };
        let json = serde_json::to_string(&cluster).unwrap();
        assert_eq!(json, r#"{"content":"cluster","databases":["a b","shop"]}"#);
        assert_eq!(serde_json::from_str::<DumpContent>(&json).unwrap(), cluster);
        assert!(cluster.has_whole("shop") && !cluster.has_whole("Shop") && cluster.database().is_none());
        assert_eq!(serde_json::to_string(&DumpContent::Server).unwrap(), r#"{"content":"server"}"#);
    }

    #[test]
    fn every_word_reads_back_and_a_strange_one_names_the_known() {
        for format in [DumpFormat::Custom, DumpFormat::Plain, DumpFormat::Directory] {
            assert_eq!(format.to_string().parse(), Ok(format));
        }
        for cipher in [DumpCipher::None, DumpCipher::Openssl, DumpCipher::Openpgp] {
            assert_eq!(cipher.to_string().parse(), Ok(cipher));
        }
        let error = "lz4".parse::<DumpCompression>().unwrap_err();
        assert_eq!(error.to_string(), "\"lz4\" is none of none, inside, gzip and zstd");
    }
}
