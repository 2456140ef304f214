//! The settings of the file `backstay.toml`. The doc comments are the reference:
//! `backstay config reference` and the JSON Schema are made from them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use backstay_model::{EngineKind, InstanceId};
use backstay_ops::backup::DEFAULT_COMPRESSION_LEVEL;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::archive::{ArchiveSettings, StreamArchiveSettings};
use super::catalogue::CataloguePlace;
use super::dump::DumpSettings;
use super::secret::SecretSource;
use super::values::{Address, HumanDuration, Rate, Schedule};

/// Everything that `backstay.toml` can say.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Where the backups are kept.
    pub repository: RepositorySettings,
    /// One section `[instance.NAME]` for each database server to protect. The name is yours, made of a-z, 0-9, `-`
    /// and `_`; backups are found under it, so it stays when the server moves.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, InstanceSettings>")]
    pub instance: BTreeMap<InstanceId, InstanceSettings>,
    /// What holds for every instance; each may say otherwise in its own section `[instance.NAME.policy]`.
    #[serde(default)]
    pub policy: PolicySettings,
    /// How restore drills are done.
    #[serde(default)]
    pub drill: DrillSettings,
    /// Portable dumps: plain files that open without Backstay. What holds for every instance; each may say otherwise in
    /// its own section `[instance.NAME.dump]`.
    #[serde(default)]
    pub dump: DumpSettings,
}

/// Where the backups are kept.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RepositorySettings {
    /// The store: `file:///var/lib/backstay`.
    pub store: Address,
    /// The key file that opens the repository, written by `backstay init`. Keep a copy of it elsewhere: without a key
    /// nobody can read the backups.
    #[serde(default)]
    pub key: Option<SecretSource>,
    /// A pass phrase that opens the repository, when one was added with `backstay key add --passphrase`; used when `key` is not set.
    #[serde(default)]
    pub passphrase: Option<SecretSource>,
    /// Where the recovery kit lies: `backstay key add`, `remove` and `rotate` write it again there. Left out, the
    /// directory beside this file that is named like it, `backstay.recovery-kit`.
    #[serde(default)]
    pub recovery_kit: Option<PathBuf>,
    /// How what is stored is compressed: `"zstd"`, or `"none"` for databases whose contents are compressed already.
    #[serde(default)]
    pub compression: Compression,
    /// The level of zstd, 1 (fast) to 19 (small). The log of a server is compressed one level higher.
    #[serde(default = "default_compression_level")]
    #[schemars(range(min = 1, max = 19))]
    pub compression_level: i32,
    /// A directory of this machine for the catalogue: what earlier runs read about the backups, sealed with the
    /// repository's key, so that a list does not read every manifest again. It can be deleted at any time; `"none"`
    /// keeps none. Left out, `backstay` in `$XDG_CACHE_HOME` or `~/.cache`, for root `/var/cache/backstay`.
    #[serde(default)]
    pub catalogue: Option<CataloguePlace>,
    /// How much is sent to the store in a second, such as `"20MiB"`; as much as goes when not set.
    #[serde(default)]
    pub max_upload_rate: Option<Rate>,
    /// How much is fetched from the store in a second, for restores, drills and verifications; as much as goes when
    /// not set.
    #[serde(default)]
    pub max_download_rate: Option<Rate>,
}

/// How what is stored is compressed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    #[default]
    Zstd,
    None,
}

impl RepositorySettings {
    /// In the words of the repository.
    pub fn level(&self) -> i32 {
        match self.compression {
            Compression::Zstd => self.compression_level,
            Compression::None => backstay_repo::frame::UNCOMPRESSED,
        }
    }

    /// Of the log: it compresses in large frames, where one level more costs no more time, and
    /// finds the pages that come again.
    pub fn log_level(&self) -> i32 {
        match self.compression {
            Compression::Zstd => (self.compression_level + 1).min(HIGHEST_COMPRESSION_LEVEL),
            Compression::None => self.level(),
        }
    }
}

const HIGHEST_COMPRESSION_LEVEL: i32 = 19;

const fn default_compression_level() -> i32 {
    DEFAULT_COMPRESSION_LEVEL
}

/// One database server.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(tag = "engine", rename_all = "lowercase")]
pub enum InstanceSettings {
    /// PostgreSQL 13 to 18, with or without TimescaleDB.
    Postgresql(PostgresqlSettings),
    /// InfluxDB. This version reaches no such server; it adopts, verifies and gives back what others dumped.
    Influxdb(InfluxdbSettings),
    /// Redis or Valkey, backed up and dumped over the network, as a replica gets its data. Dumps of others are adopted, verified
    /// and given back.
    Redis(RedisSettings),
}

impl InstanceSettings {
    pub fn engine(&self) -> EngineKind {
        match self {
            InstanceSettings::Postgresql(_) => EngineKind::Postgresql,
            InstanceSettings::Influxdb(_) => EngineKind::Influxdb,
            InstanceSettings::Redis(_) => EngineKind::Redis,
        }
    }

    pub fn url(&self) -> Option<&Address> {
        match self {
            InstanceSettings::Postgresql(settings) => Some(&settings.url),
            InstanceSettings::Influxdb(settings) => settings.url.as_ref(),
            InstanceSettings::Redis(settings) => settings.url.as_ref(),
        }
    }

    pub fn environment(&self) -> Option<&str> {
        match self {
            InstanceSettings::Postgresql(settings) => settings.environment.as_deref(),
            InstanceSettings::Influxdb(settings) => settings.environment.as_deref(),
            InstanceSettings::Redis(settings) => settings.environment.as_deref(),
        }
    }

    pub fn dump(&self) -> &DumpSettings {
        match self {
            InstanceSettings::Postgresql(settings) => &settings.dump,
            InstanceSettings::Influxdb(settings) => &settings.dump,
            InstanceSettings::Redis(settings) => &settings.dump,
        }
    }

    pub fn policy(&self) -> &PolicySettings {
        match self {
            InstanceSettings::Postgresql(settings) => &settings.policy,
            InstanceSettings::Influxdb(settings) => &settings.policy,
            InstanceSettings::Redis(settings) => &settings.policy,
        }
    }
}

/// PostgreSQL 13 to 18, with or without TimescaleDB.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PostgresqlSettings {
    /// The server: `postgresql://backstay@db:5432/postgres?sslmode=verify-full`, or
    /// `postgresql://backstay@%2Fvar%2Frun%2Fpostgresql/postgres` for a Unix socket. The password stands in `password`;
    /// `sslmode`, `sslrootcert` and `connect_timeout` are parameters of the address.
    pub url: Address,
    /// The password of the role in `url`.
    #[serde(default)]
    pub password: Option<SecretSource>,
    /// The server's data directory, when this machine can read it: backups are then taken by reading it in parallel.
    /// Left out, they come over the network from the replication protocol.
    #[serde(default)]
    pub data_directory: Option<PathBuf>,
    /// The directory of `postgres` and `initdb`, for restores that start a server and for drills. Left out, the
    /// usual places of the major version are tried.
    #[serde(default)]
    pub bin_directory: Option<PathBuf>,
    /// How much a backup reads from the server in a second, such as `"50MiB"`, so that it leaves the disk and the line
    /// to others; as much as goes when not set.
    #[serde(default)]
    pub max_rate: Option<Rate>,
    /// The certificate of the authority that signed the server's, in PEM, for `sslmode=verify-ca` and `verify-full`.
    #[serde(default)]
    pub ssl_root_certificate: Option<PathBuf>,
    /// What this server is for, such as `"production"` or `"staging"`. Dumps carry it, and restoring one into another
    /// environment must be confirmed.
    #[serde(default)]
    pub environment: Option<String>,
    /// What stops and starts the application around a restore of a dump into this server.
    #[serde(default)]
    pub hooks: HookSettings,
    /// Portable dumps of this instance, over `[dump]`.
    #[serde(default)]
    pub dump: Box<DumpSettings>,
    /// How its log is received.
    #[serde(default)]
    pub archive: Box<ArchiveSettings>,
    /// What holds for this instance alone, over `[policy]`.
    #[serde(default)]
    pub policy: PolicySettings,
}

/// Commands around a restore of a dump, each for `sh -c`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HookSettings {
    /// Before anything is changed, such as `"docker compose stop app"`. When it fails, nothing is.
    #[serde(default)]
    pub before_restore: Option<String>,
    /// After the restore, however it ended, such as `"docker compose start app"`; `BACKSTAY_OUTCOME` is `done` or `failed`.
    #[serde(default)]
    pub after_restore: Option<String>,
    /// How long each may take; 5 minutes when not set.
    #[serde(default)]
    pub limit: Option<HumanDuration>,
}

/// InfluxDB. This version reaches no such server; it adopts, verifies and gives back what others dumped.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InfluxdbSettings {
    /// The server: `http://influx:8086`. Nothing needs it yet.
    #[serde(default)]
    pub url: Option<Address>,
    /// The token or password.
    #[serde(default)]
    pub token: Option<SecretSource>,
    /// What this server is for, such as `"production"`; adopted dumps carry it.
    #[serde(default)]
    pub environment: Option<String>,
    /// Where the dumps of this instance lie and how long they stay, over `[dump]`.
    #[serde(default)]
    pub dump: Box<DumpSettings>,
    /// What holds for this instance alone, over `[policy]`.
    #[serde(default)]
    pub policy: PolicySettings,
}

/// Redis or Valkey, backed up and dumped over the network, as a replica gets its data. Dumps of others are adopted, verified
/// and given back.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RedisSettings {
    /// The server: `redis://backstay@cache:6379`, `rediss://…` with TLS, or `unix:///run/redis/redis.sock`. The user is one
    /// of its access list, and may be left out. A replica serves as well as its master; to a master a backup is one more
    /// replica while it runs, which Sentinels list, with port 0, until `SENTINEL RESET`. Or the Sentinels that know it,
    /// `sentinel://backstay@one:26379,two:26379/mymaster`, and `sentinels://…` with TLS to them and to the servers: a
    /// replica in good order is chosen then, and the master where there is none. Sentinels mostly name servers by their
    /// numbers: certificates must hold these, or `?sslmode=verify-ca` stands behind the name. Adopted dumps need none.
    #[serde(default)]
    pub url: Option<Address>,
    /// The password of the user in `url`, who needs no other rights than `ACL SETUSER backstay on >PASSWORD resetkeys
    /// resetchannels -@all +psync +replconf +ping +info +role +config|get +acl|list +module|list +cluster|shards
    /// +client|setname` gives. A replica has an access list of its own.
    #[serde(default)]
    pub password: Option<SecretSource>,
    /// A replica of the server in `url`, in the same forms: `redis://backstay@replica:6379`. Backups and dumps are taken
    /// from it, so that the fork for a snapshot burdens no primary; from `url` where it does not answer or has lost its
    /// master, which is said then. One that holds other data is refused. The password is that of `url`, and so is the user
    /// where none is named.
    #[serde(default)]
    pub replica: Option<Address>,
    /// The user at the Sentinels in `url`, where they have an access list: `ACL SETUSER backstay on >PASSWORD resetkeys
    /// resetchannels -@all +ping +client|setname +sentinel|get-master-addr-by-name +sentinel|masters +sentinel|replicas`.
    #[serde(default)]
    pub sentinel_user: Option<String>,
    /// The password of the Sentinels in `url`, where they ask for one. That of the servers is not given to them.
    #[serde(default)]
    pub sentinel_password: Option<SecretSource>,
    /// PEM file with the certificates that may sign the server's, for `rediss://`. The operating system's when it is
    /// left out.
    #[serde(default)]
    pub ssl_root_certificate: Option<PathBuf>,
    /// PEM file with the certificate that is shown to the server, and behind it those that lead to its authority. A
    /// server with `tls-auth-clients yes`, which is the default, wants one.
    #[serde(default)]
    pub ssl_certificate: Option<PathBuf>,
    /// PEM file with the key of `ssl_certificate`, without a pass phrase.
    #[serde(default)]
    pub ssl_key: Option<PathBuf>,
    /// The server's data directory, when this machine can read it: bases are then the snapshot that the server saves
    /// there (`BGSAVE`), in the place of the one before; its user needs `+bgsave`. Left out, they come over the network
    /// as to a replica, and nothing is written at the server.
    #[serde(default)]
    pub data_directory: Option<PathBuf>,
    /// The directory of `redis-server` or `valkey-server`, for restores that start a server and for drills. Left out,
    /// `PATH` and the usual places are tried.
    #[serde(default)]
    pub bin_directory: Option<PathBuf>,
    /// What this server is for, such as `"production"`; dumps carry it.
    #[serde(default)]
    pub environment: Option<String>,
    /// How its stream of commands is received.
    #[serde(default)]
    pub archive: StreamArchiveSettings,
    /// Where the dumps of this instance lie and how long they stay, over `[dump]`.
    #[serde(default)]
    pub dump: Box<DumpSettings>,
    /// What holds for this instance alone, over `[policy]`.
    #[serde(default)]
    pub policy: PolicySettings,
}

/// What is promised, how often, and how long it is kept.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicySettings {
    /// When a base backup is taken, in the five fields of cron. Until the scheduler exists, cron or a systemd timer
    /// runs `backstay backup`.
    #[serde(default)]
    pub base: Option<Schedule>,
    /// Which backups are kept. Without it every backup is kept.
    #[serde(default)]
    pub keep: Option<KeepSettings>,
    /// How long a backup that retention lets go can still be restored, before it is deleted; 7 days when not set.
    #[serde(default)]
    pub grace: Option<HumanDuration>,
    /// When a restore drill is done, in the five fields of cron. Until the scheduler exists, cron or a systemd timer
    /// runs `backstay drill`.
    #[serde(default)]
    pub drill: Option<Schedule>,
    /// How much may be lost: `status` measures against it.
    #[serde(default)]
    pub rpo: Option<HumanDuration>,
    /// How long a restore may take: `status` compares the last drill with it.
    #[serde(default)]
    pub rto: Option<HumanDuration>,
}

/// How many backups are kept for each span of time. An instance's own `keep` replaces the common one as a whole.
/// The last sound backup is kept always.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KeepSettings {
    /// The newest backups, whatever their time.
    #[serde(default)]
    pub last: Option<u32>,
    /// One for each of the last hours that have a backup.
    #[serde(default)]
    pub hourly: Option<u32>,
    /// One for each of the last days that have a backup.
    #[serde(default)]
    pub daily: Option<u32>,
    /// One for each of the last weeks that have a backup.
    #[serde(default)]
    pub weekly: Option<u32>,
    /// One for each of the last months that have a backup.
    #[serde(default)]
    pub monthly: Option<u32>,
    /// One for each of the last years that have a backup.
    #[serde(default)]
    pub yearly: Option<u32>,
    /// Everything needed for any point of the last so many days.
    #[serde(default)]
    pub within_days: Option<u32>,
    /// Never fewer sound backups than this, whatever the others say.
    #[serde(default)]
    pub minimum: Option<u32>,
}

/// How restore drills are done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DrillSettings {
    /// Where drills restore to; needs room for the largest instance. Left out, the directory for temporary files.
    #[serde(default)]
    pub directory: Option<PathBuf>,
}

impl PolicySettings {
    /// This policy where it says something, else the common one.
    pub fn over(&self, common: &PolicySettings) -> PolicySettings {
        let own = self.clone();
        PolicySettings {
            base: own.base.or_else(|| common.base.clone()),
            keep: own.keep.or_else(|| common.keep.clone()),
            grace: own.grace.or(common.grace),
            drill: own.drill.or_else(|| common.drill.clone()),
            rpo: own.rpo.or(common.rpo),
            rto: own.rto.or(common.rto),
        }
    }
}
