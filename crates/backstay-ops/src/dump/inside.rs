//! The inside of a dump of whichever engine, looked at while its bytes pass.
//!
//! What a dump holds is told by the code of its engine; this knows which that is.

use std::path::Path;

use backstay_engine::postgres::client_programs::ClientPrograms;
use backstay_engine::postgres::inspect::{InspectKind, Inspection};
use backstay_engine::postgres::reload::{ClusterContents, ClusterScan};
use backstay_engine::redis::aof::{self, AofFacts};
use backstay_engine::snapshot::{self, RdbChecksum, Snapshot, SnapshotFacts, SnapshotKind};
use backstay_model::EngineKind;
use backstay_model::dump::{DumpContent, DumpFormat, DumpWarning};
use backstay_repo::dump::DumpInside;
use backstay_repo::shelf::ShelfPath;
use bytes::Bytes;
use jiff::Timestamp;

use crate::error::{Error, Result};

/// Whose dump it is; `None` where a file may be anything.
pub(crate) fn engine(inside: DumpInside) -> Option<EngineKind> {
    match inside {
        DumpInside::CustomArchive
        | DumpInside::TarArchive
        | DumpInside::DirectoryTar
        | DumpInside::PlainSql
        | DumpInside::PlainCluster => Some(EngineKind::Postgresql),
        DumpInside::Rdb | DumpInside::RdbInTar => Some(EngineKind::Redis),
        DumpInside::InfluxPortable => Some(EngineKind::Influxdb),
        DumpInside::Tar | DumpInside::Unknown => None,
    }
}

/// What looks at it, for a dump of this engine; `None` when it is none.
pub(crate) fn snapshot_kind(inside: DumpInside, engine: EngineKind) -> Option<SnapshotKind> {
    match (inside, engine) {
        (DumpInside::Rdb, EngineKind::Redis) => Some(SnapshotKind::Rdb),
        // The snapshot may come behind what the beginning of an archive shows.
        (DumpInside::RdbInTar | DumpInside::Tar, EngineKind::Redis) => Some(SnapshotKind::RdbInTar),
        (DumpInside::InfluxPortable, EngineKind::Influxdb) => Some(SnapshotKind::InfluxInTar),
        _ => None,
    }
}

/// What a dump is, as far as it decides who looks at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Postgres(InspectKind),
    Snapshot(SnapshotKind),
    /// Whoever asks knows it another way.
    Nothing,
}

/// A dump that is being looked at.
pub(crate) enum Looking {
    Postgres(Box<Inspection>),
    Cluster(Box<(Inspection, ClusterScan)>),
    Snapshot(Snapshot),
    Nothing,
}

/// What was found that nothing else says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    Nothing,
    Cluster(ClusterContents),
    Snapshot(SnapshotFacts),
}

impl Looking {
    pub fn begin(kind: Kind, programs: Option<&ClientPrograms>) -> Result<Self, backstay_engine::Error> {
        Ok(match kind {
            Kind::Postgres(InspectKind::Cluster) => {
                let inspection = Inspection::begin(InspectKind::Cluster, programs)?;
                Looking::Cluster(Box::new((inspection, ClusterScan::default())))
            }
            Kind::Postgres(kind) => Looking::Postgres(Box::new(Inspection::begin(kind, programs)?)),
            Kind::Snapshot(kind) => Looking::Snapshot(Snapshot::check(kind)),
            Kind::Nothing => Looking::Nothing,
        })
    }

    pub async fn write(&mut self, bytes: &Bytes) -> Result<(), backstay_engine::Error> {
        match self {
            Looking::Postgres(inspection) => inspection.write(bytes).await,
            Looking::Cluster(looking) => {
                looking.0.write(bytes).await?;
                looking.1.push(bytes)
            }
            Looking::Snapshot(snapshot) => snapshot.write(bytes.clone()).await,
            Looking::Nothing => Ok(()),
        }
    }

    /// All bytes were handed in, and nothing is wrong with them.
    pub async fn finish(self) -> Result<Found, backstay_engine::Error> {
        match self {
            Looking::Postgres(inspection) => inspection.finish().await.map(|_| Found::Nothing),
            Looking::Cluster(looking) => {
                let (inspection, scan) = *looking;
                inspection.finish().await?;
                Ok(Found::Cluster(scan.finish()?))
            }
            Looking::Snapshot(snapshot) => Ok(Found::Snapshot(snapshot.finish().await?.0)),
            Looking::Nothing => Ok(Found::Nothing),
        }
    }
}

/// What a record says of such a dump.
impl Found {
    pub fn format(&self) -> Option<DumpFormat> {
        match self {
            Found::Nothing => None,
            Found::Cluster(_) => Some(DumpFormat::Plain),
            Found::Snapshot(SnapshotFacts::Rdb(_)) => Some(DumpFormat::Rdb),
            Found::Snapshot(SnapshotFacts::Influx(_)) => Some(DumpFormat::Influxdb),
            Found::Snapshot(SnapshotFacts::AppendOnly(_)) => Some(DumpFormat::AppendOnly),
        }
    }

    pub fn content(&self) -> Option<DumpContent> {
        match self {
            Found::Nothing => None,
            Found::Cluster(cluster) if cluster.databases.is_empty() => Some(DumpContent::Globals),
            Found::Cluster(cluster) => Some(DumpContent::Cluster { databases: cluster.databases.clone() }),
            Found::Snapshot(SnapshotFacts::Rdb(_) | SnapshotFacts::AppendOnly(_)) => {
                Some(DumpContent::Server)
            }
            Found::Snapshot(SnapshotFacts::Influx(facts)) => Some(match facts.databases.as_slice() {
                [] => DumpContent::Server,
                [one] => DumpContent::Database { database: one.clone() },
                several => DumpContent::Cluster { databases: several.to_vec() },
            }),
        }
    }

    /// When it was taken, where it says so.
    pub fn taken_at(&self) -> Option<Timestamp> {
        match self {
            Found::Snapshot(SnapshotFacts::Rdb(facts)) => {
                Timestamp::from_second(facts.saved_at_seconds?).ok()
            }
            Found::Snapshot(SnapshotFacts::Influx(facts)) => stamp(facts.heads.last()?),
            // Not when the base was made: what stands behind it is of later.
            Found::Snapshot(SnapshotFacts::AppendOnly(facts)) => facts.last_at,
            Found::Nothing | Found::Cluster(_) => None,
        }
    }

    pub fn server_version(&self) -> Option<String> {
        match self {
            Found::Cluster(cluster) => cluster.server_version.clone(),
            Found::Snapshot(SnapshotFacts::Rdb(facts)) => facts.server_version.clone(),
            Found::Snapshot(SnapshotFacts::AppendOnly(facts)) => {
                facts.snapshot.as_ref()?.server_version.clone()
            }
            Found::Nothing | Found::Snapshot(SnapshotFacts::Influx(_)) => None,
        }
    }

    pub fn tool_version(&self) -> Option<String> {
        match self {
            Found::Cluster(cluster) => cluster.tool_version.clone(),
            Found::Nothing | Found::Snapshot(_) => None,
        }
    }

    /// What a person should know who restores it.
    pub fn warnings(&self) -> Vec<DumpWarning> {
        let mut messages = Vec::new();
        match self {
            Found::Snapshot(SnapshotFacts::Rdb(facts)) => {
                if facts.checksum == RdbChecksum::Disabled {
                    messages.push(
                        "its server wrote no sum into it: only its end is known to be there".to_owned(),
                    );
                }
                if facts.has_append_only {
                    messages.push(
                        "an append-only file lies beside it in the archive, and may have newer data"
                            .to_owned(),
                    );
                }
            }
            Found::Snapshot(SnapshotFacts::Influx(facts)) => {
                if facts.tombstones > 0 {
                    messages.push(format!(
                        "{} of its files hold deletions, which a restore of InfluxDB leaves out: what was deleted comes back",
                        facts.tombstones
                    ));
                }
                if facts.shards == 0 {
                    messages.push("there is no shard in it: nothing comes back from it".to_owned());
                }
            }
            Found::Snapshot(SnapshotFacts::AppendOnly(facts)) => messages.extend(of_append_only(facts)),
            Found::Nothing | Found::Cluster(_) => {}
        }
        messages.into_iter().map(|message| DumpWarning { message, harmless: None }).collect()
    }
}

/// What is not all there in files that a server would load all the same.
pub(crate) fn of_append_only(facts: &AofFacts) -> Vec<String> {
    let mut messages = Vec::new();
    if facts.snapshot.as_ref().is_some_and(|base| base.checksum == RdbChecksum::Disabled) {
        messages.push(
            "its server wrote no sum into its base: only the end of it is known to be there".to_owned(),
        );
    }
    if facts.torn_bytes > 0 {
        messages.push(format!(
            "its last file ends within a command or a transaction: the last {} bytes are of no use, and a server \
             leaves them out, as a restore does",
            facts.torn_bytes
        ));
    }
    messages
}

/// Whether a file of this name may belong to a dump of several files whose head has that name.
pub(crate) fn may_be_member(format: DumpFormat, head: &str, name: &str) -> bool {
    match format {
        DumpFormat::AppendOnly => aof::may_be_member(head, name),
        _ => snapshot::may_be_member(name),
    }
}

/// `20261121T020000Z.manifest`.
fn stamp(head: &Path) -> Option<Timestamp> {
    let name = head.file_name()?.to_str()?;
    let (stamp, _) = name.split_once('.')?;
    jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", stamp)
        .ok()?
        .to_zoned(jiff::tz::TimeZone::UTC)
        .ok()
        .map(|at| at.timestamp())
}

/// What it is, in words.
pub(crate) fn described(inside: DumpInside) -> &'static str {
    match inside {
        DumpInside::CustomArchive => "an archive of pg_dump",
        DumpInside::TarArchive => "a tar archive of pg_dump",
        DumpInside::DirectoryTar => "a directory of pg_dump in a tar archive",
        DumpInside::PlainSql => "statements of pg_dump",
        DumpInside::PlainCluster => "statements of pg_dumpall",
        DumpInside::Rdb => "a snapshot of Redis",
        DumpInside::RdbInTar => "a snapshot of Redis in a tar archive",
        DumpInside::InfluxPortable => "a backup of InfluxDB",
        DumpInside::Tar => "some tar archive",
        DumpInside::Unknown => "unknown",
    }
}

/// A thing that cannot be put back by this verb, and what can.
pub(crate) fn not_reloadable(file: &ShelfPath, inside: DumpInside) -> Error {
    Error::NotReloadable { file: file.to_string(), what: format!("it is {}", described(inside)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_of_influxdb_says_in_its_name_when_it_was_taken() {
        let at = stamp(Path::new("all/20261121T210443Z.manifest"));
        assert_eq!(at, "2026-11-21T21:04:43Z".parse().ok());
        assert_eq!(stamp(Path::new("meta.00")), None);
    }
}
