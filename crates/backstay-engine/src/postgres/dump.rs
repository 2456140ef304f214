//! A portable dump: `pg_dump` as a child, beside a session that holds the snapshot it
//! reads from and that said beforehand what there is.
//!
//! Everything that can be known before the first byte is asked before it: whether what
//! was chosen exists, whether our role may read it, whether the clients are there. What
//! comes out is handed on as it comes, never through a temporary file, save for the
//! directory format, whose files several sessions write at once (`docs/decisions/0014`).
//!
//! Invariant: the end of the bytes is told only after the child has ended well. A child
//! that failed at its very end is an error, however much came out of it before.

mod chosen;
mod globals;
mod look;
mod pack;
mod rights;
mod spool;
mod stream;
mod warnings;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use backstay_model::dump::{DumpFormat, DumpedTable, TimescaleCounts};
use tokio_util::sync::CancellationToken;

pub use self::chosen::RelationName;
pub(super) use self::chosen::{SEVERAL, without_wildcards};
pub use self::globals::{databases, globals};
pub(super) use self::pack::CONTENTS;
pub(super) use self::spool::Spool;
pub use self::stream::DumpRun;

use self::chosen::Chosen;
use super::client_programs::{Child, ClientPrograms};
use super::connect::{Session, column};
use super::settings::Address;
use crate::{Error, Result};

/// What is dumped, and how.
#[derive(Debug, Clone)]
pub struct DumpOptions {
    pub format: DumpFormat,
    /// Compressed by `pg_dump` itself (`compression = "inside"`), at a level of its own
    /// choice or this one.
    pub inside: Option<Inside>,
    /// These relations and nothing else; all when it is empty. Partitions and children
    /// come along with their parents.
    pub tables: Vec<RelationName>,
    /// These schemas with everything in them. Not together with `tables`: `pg_dump`
    /// would leave out all but the tables.
    pub schemas: Vec<String>,
    /// The definitions of everything, and the rows of what was chosen: an archive to choose
    /// from, which knows what the chosen need. No name has to match then.
    pub all_definitions: bool,
    /// Sessions that write a directory at once; other formats have one.
    pub jobs: u32,
    /// Where a directory comes to lie while it is written. Only for the directory format.
    pub spool: Option<PathBuf>,
    pub bin_directory: Option<PathBuf>,
    /// How long a lock that somebody holds is waited for: whoever comes behind us waits
    /// as long.
    pub lock_limit: Duration,
}

/// Compression by `pg_dump`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Inside {
    pub level: Option<u32>,
}

impl Default for DumpOptions {
    fn default() -> Self {
        Self {
            format: DumpFormat::Custom,
            inside: None,
            tables: Vec::new(),
            schemas: Vec::new(),
            all_definitions: false,
            jobs: 1,
            spool: None,
            bin_directory: None,
            lock_limit: Duration::from_secs(600),
        }
    }
}

/// What the server said of the database when the snapshot was taken.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DumpFacts {
    pub database: String,
    /// `15.18`.
    pub server_version: String,
    pub version_number: u32,
    /// Of `pg_dump`.
    pub tool_version: String,
    /// Where our role may know it.
    pub system_identifier: Option<u64>,
    /// The end of the log.
    pub position: Option<String>,
    pub database_bytes: Option<u64>,
    /// It is a standby, which has no rows of unlogged tables.
    pub in_recovery: bool,
    pub extensions: BTreeMap<String, String>,
    /// The largest of those that are dumped, [`TABLES_NAMED`] at most.
    pub tables: Vec<DumpedTable>,
    /// Of a whole database.
    pub timescaledb: Option<TimescaleCounts>,
    /// How many are dumped in all.
    pub tables_in_all: u64,
}

impl DumpFacts {
    pub fn major(&self) -> u32 {
        self.version_number / 10_000
    }
}

/// A sidecar names so many tables at most.
pub const TABLES_NAMED: usize = 1000;

/// A database that is ready to be dumped as it is now, however long that takes.
pub struct DumpSource {
    /// Holds the snapshot; `pg_dump` reads from it as long as this lives.
    session: Session,
    address: Address,
    options: DumpOptions,
    programs: ClientPrograms,
    snapshot: String,
    chosen: Chosen,
    facts: DumpFacts,
    cancel: CancellationToken,
}

/// A transaction in which everything is as it is now.
struct Began {
    session: Session,
    address: Address,
    version_number: u32,
    programs: ClientPrograms,
}

impl Began {
    async fn new(address: &Address, options: &DumpOptions) -> Result<Began> {
        if !options.format.is_of_pg_dump() {
            let reason = format!("`pg_dump` writes no dump in the format {}", options.format);
            return Err(Error::Setting { setting: "format", reason });
        }
        if options.format == DumpFormat::Plain && options.inside.is_some() {
            let reason = "`inside` is for archives; a plain dump has nothing to be inside of".to_owned();
            return Err(Error::Setting { setting: "compression", reason });
        }
        let address = address.settled().await?;
        let session = Session::open(&address).await?;
        let version_number = super::facts::version(&session).await?;
        let programs = ClientPrograms::find(version_number / 10_000, options.bin_directory.as_deref())?;
        session.hold(version_number).await?;
        let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY";
        session.execute("begin the transaction of the dump", begin).await?;
        Ok(Began { session, address, version_number, programs })
    }
}

impl DumpSource {
    /// Takes the snapshot of the address's database, and refuses what could not end well.
    pub async fn open(
        address: &Address,
        options: &DumpOptions,
        cancel: &CancellationToken,
    ) -> Result<DumpSource> {
        let opened = async {
            let began = Began::new(address, options).await?;
            let Began { session, address, version_number, programs } = began;
            let row =
                session.row("take the snapshot of the dump", "SELECT pg_export_snapshot()", &[]).await?;
            let snapshot: String = column(&row, 0)?;
            let chosen = chosen::resolve(&session, options).await?;
            rights::require(&session, &chosen, version_number).await?;
            let facts = look::look(&session, address.database(), version_number, &programs, &chosen).await?;
            let (options, cancel) = (options.clone(), cancel.clone());
            Ok(DumpSource { session, address, options, programs, snapshot, chosen, facts, cancel })
        };
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(Error::Cancelled),
            opened = opened => opened,
        }
    }

    /// Refuses what [`DumpSource::open`] would, and begins nothing: for the last database of a
    /// set before the first one is dumped.
    pub async fn check(address: &Address, options: &DumpOptions, cancel: &CancellationToken) -> Result<()> {
        let checked = async {
            let began = Began::new(address, options).await?;
            let chosen = chosen::resolve(&began.session, options).await?;
            rights::require(&began.session, &chosen, began.version_number).await
        };
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(Error::Cancelled),
            checked = checked => checked,
        }
    }

    pub fn facts(&self) -> &DumpFacts {
        &self.facts
    }

    /// Starts `pg_dump`.
    pub async fn run(self) -> Result<DumpRun> {
        let spool = match self.options.format {
            DumpFormat::Directory => Some(self.spool()?),
            _ => None,
        };
        let mut command = self.programs.connected(PROGRAM, &self.address, None)?;
        command.args(self.arguments());
        match &spool {
            Some(spool) => {
                command.arg("--format=directory").arg("--no-sync");
                command.arg(format!("--jobs={}", self.options.jobs.max(1)));
                command.arg("--file").arg(spool.directory());
                command.stdout(std::process::Stdio::null());
            }
            None => {
                let format = match self.options.format {
                    DumpFormat::Plain => "plain",
                    _ => "custom",
                };
                command.arg(format!("--format={format}")).stdout(std::process::Stdio::piped());
            }
        }
        let child = Child::spawn(PROGRAM, command)?;
        Ok(DumpRun::of(child, spool, self.chosen.warnings, Some(self.session), self.address, self.cancel))
    }

    fn arguments(&self) -> Vec<String> {
        let mut arguments = vec![
            format!("--snapshot={}", self.snapshot),
            format!("--lock-wait-timeout={}", self.options.lock_limit.as_millis().max(1)),
        ];
        match self.options.inside {
            None => arguments.push("--compress=0".to_owned()),
            Some(Inside { level: Some(level) }) => arguments.push(format!("--compress={level}")),
            Some(Inside { level: None }) => {}
        }
        if self.facts.in_recovery {
            // A standby refuses to read them.
            arguments.push("--no-unlogged-table-data".to_owned());
        }
        arguments.extend(self.chosen.patterns());
        arguments
    }

    fn spool(&self) -> Result<Spool> {
        let parent = self.options.spool.as_deref().ok_or_else(|| Error::Setting {
            setting: "spool",
            reason: "is not set, and a dump in the directory format needs one".to_owned(),
        })?;
        let needed = match self.chosen.is_everything() {
            true => self.facts.database_bytes.unwrap_or(0),
            false => self.facts.tables.iter().map(|table| table.bytes).sum(),
        };
        Spool::make(parent, needed)
    }
}

const PROGRAM: &str = "pg_dump";
