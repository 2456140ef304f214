//! A base backup read from the data directory, beside a session that tells the
//! server when it begins and ends.
//!
//! The order is the whole of its safety: the server's checkpoint, every file, a
//! barrier behind which all of them have been read, `pg_control`, another barrier,
//! the end of the backup, and the log from its start to its stop.
//! The session is open from the first to the last of these; without it there is
//! no backup.
//!
//! What it refuses: a directory that is not the running server's, a standby that
//! was promoted meanwhile, a log with a segment missing.

mod bracket;
mod file;
mod log;
mod walk;

use std::collections::VecDeque;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use backstay_model::parts::{FileShape, FileSpec, PartKind, PartSource, Step};
use backstay_model::{Fault, Finding};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tracing::info;

use self::bracket::{Bracket, Ended};
use self::file::{Content, Extents, HeldBytes, OpenFile, Toll};
use self::log::LogRange;
use self::walk::{Found, Walk};
use super::accounts::Accounts;
use super::connect::Session;
use super::control::ControlFile;
use super::facts::{self, Owner, Privileges, ServerFacts, Tablespace};
use super::included;
use super::outcome::{BackupFacts, Outcome, Way};
use super::page::PageCheck;
use super::recover;
use super::rules;
use super::settings::PostgresSettings;
use super::tablespaces;
use super::throttle::Throttle;
use crate::{Error, Result};

/// A running backup. Dropped before its end, it ends the session, and the server
/// forgets the backup.
pub struct LocalBackup {
    bracket: Bracket,
    runtime: Handle,
    cancel: CancellationToken,
    root: PathBuf,
    facts: ServerFacts,
    owner: Owner,
    label: String,
    walk: Walk,
    check: Arc<PageCheck>,
    outcome: Outcome,
    phase: Phase,
    toll: Option<Toll>,
    /// Of the file that began last.
    extents: Option<Extents>,
    /// The bytes of the file that began last, when they are already here.
    held: Option<HeldBytes>,
}

enum Phase {
    Walking,
    /// Everything but `pg_control` has been read.
    Control,
    /// `pg_control` has begun, and must have been read before the end.
    Barrier,
    Ending,
    /// What the end brought, in the order of its delivery.
    Tail(VecDeque<Tail>, Box<BackupFacts>),
    Done,
}

enum Tail {
    Held { path: String, bytes: Vec<u8> },
    Directory(String),
    Segment(u64),
    History { name: String, real: PathBuf },
}

impl LocalBackup {
    /// Begins a backup: connects, checks rights and directory, and returns when
    /// the server's checkpoint is done. The facts come through the outcome.
    pub async fn start(
        settings: &PostgresSettings,
        label: &str,
        cancel: CancellationToken,
    ) -> Result<(LocalBackup, Outcome)> {
        let Some(root) = settings.data_directory.clone() else {
            return Err(Error::Setting {
                setting: "data_directory",
                reason: "it is not set, and the local way reads from it".to_owned(),
            });
        };
        let work = Self::begin(settings, root, label, cancel.clone());
        tokio::select! {
            () = cancel.cancelled() => Err(Error::Cancelled),
            begun = work => begun,
        }
    }

    async fn begin(
        settings: &PostgresSettings,
        root: PathBuf,
        label: &str,
        cancel: CancellationToken,
    ) -> Result<(LocalBackup, Outcome)> {
        let outcome = Outcome::new();
        let address = settings.address()?;
        let session = Session::open(&address).await?;
        let privileges = Privileges::read(&session).await?;
        privileges.require_local()?;
        let mut facts = facts::read(&session, &address).await?;
        tablespaces::refuse_inside(&facts.tablespaces)?;
        refuse_foreign(&root, &facts)?;
        let metadata = fs::metadata(&root).map_err(|source| Error::Read { path: root.clone(), source })?;
        if let Some(finding) = included::left_out(&facts) {
            outcome.find(finding);
        }
        let bracket = Bracket::begin(session, &address, &facts, &privileges, label, &outcome).await?;
        // A copy of a cluster has its identifier too, but not its last checkpoint.
        let (_, control) = ControlFile::read(&root.join(rules::CONTROL_FILE))?;
        if control.redo < bracket.start_lsn {
            return Err(Error::StaleDirectory { path: root });
        }
        facts.timeline = bracket.timeline;
        // The server's own map of them is made after the checkpoint.
        facts.tablespaces = bracket.tablespaces().await?;
        tablespaces::refuse_inside(&facts.tablespaces)?;
        info!(start = %bracket.start_lsn, timeline = %bracket.timeline, "the backup has begun");
        let tablespaces = facts.tablespaces.iter().map(|space| space.oid).collect();
        let version_directory = format!("PG_{}_{}", facts.major(), control.catalog_version);
        let walk = Walk::new(&root, tablespaces, version_directory, outcome.clone())?;
        let check = Arc::new(PageCheck::new(
            facts.data_checksums,
            facts.block_size,
            facts.segment_blocks,
            bracket.start_lsn,
            outcome.clone(),
        ));
        let runtime = Handle::current();
        let toll = Throttle::new(settings.max_rate, &cancel)
            .map(|throttle| Toll { throttle, runtime: runtime.clone() });
        let backup = LocalBackup {
            bracket,
            runtime,
            cancel,
            root,
            owner: Owner {
                user_id: metadata.uid(),
                group_id: metadata.gid(),
                mode: metadata.mode() & 0o7777,
                account: Accounts::of_this_machine().name_of(metadata.uid()),
            },
            facts,
            label: label.to_owned(),
            walk,
            check,
            outcome: outcome.clone(),
            phase: Phase::Walking,
            toll,
            extents: None,
            held: None,
        };
        Ok((backup, outcome))
    }

    /// The server's facts, known from the beginning.
    pub fn server(&self) -> &ServerFacts {
        &self.facts
    }

    fn step(&mut self) -> Result<Option<Step>> {
        if self.cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        if let Some(extent) = self.held.as_mut().and_then(HeldBytes::next) {
            return Ok(Some(extent));
        }
        self.held = None;
        if let Some(extent) = self.extents.as_mut().and_then(Extents::next) {
            return Ok(Some(extent));
        }
        self.extents = None;
        loop {
            match &mut self.phase {
                Phase::Walking => {
                    self.refuse_lost_session()?;
                    match self.walk.next()? {
                        Some(found) => return Ok(Some(self.begin_found(found))),
                        // A copy from a standby is consistent where `pg_control` says, so
                        // it must be read after every page, not only begun after them.
                        None => {
                            self.phase = Phase::Control;
                            return Ok(Some(Step::Barrier));
                        }
                    }
                }
                Phase::Control => {
                    self.phase = Phase::Barrier;
                    let path = self.root.join(rules::CONTROL_FILE);
                    let (bytes, _) = ControlFile::read(&path)?;
                    return self.begin_held(rules::CONTROL_FILE.to_owned(), bytes).map(Some);
                }
                Phase::Barrier => {
                    self.phase = Phase::Ending;
                    return Ok(Some(Step::Barrier));
                }
                Phase::Ending => self.end()?,
                Phase::Tail(tail, _) => match tail.pop_front() {
                    Some(part) => return self.begin_tail(part).map(Some),
                    None => self.finish(),
                },
                Phase::Done => return Ok(None),
            }
        }
    }

    /// A session that is gone has taken the backup with it: there is no use in
    /// reading a terabyte first.
    fn refuse_lost_session(&self) -> Result<()> {
        if !self.bracket.is_lost() {
            return Ok(());
        }
        let source = Box::from("the server closed the session of the backup");
        let error = Error::ConnectionLost { action: "read the data directory", source };
        Err(self.runtime.block_on(self.bracket.explain(error)))
    }

    fn begin_found(&mut self, found: Found) -> Step {
        match found {
            Found::Directory { path, metadata } => Step::Begin(spec(path, &metadata, PartKind::Directory)),
            Found::File { path, file, metadata } => {
                let size = metadata.len();
                self.check.note_size(&path, size);
                let content = match rules::has_pages(&path) {
                    true => Content::Relation(Arc::clone(&self.check)),
                    false => Content::Opaque,
                };
                let block_size = rules::unit_of(&path, size, self.facts.block_size);
                let shape = FileShape { size, block_size };
                let begin = spec(path.clone(), &metadata, PartKind::File(shape));
                let real = self.root.join(&path);
                let file = OpenFile { file, path, real, size, content };
                self.extents = Some(Extents::of(file).with_toll(self.toll.clone()));
                Step::Begin(begin)
            }
        }
    }

    /// A small file whose bytes are here.
    fn begin_held(&mut self, path: String, bytes: Vec<u8>) -> Result<Step> {
        let shape = FileShape {
            size: bytes.len() as u64,
            block_size: rules::unit_of(&path, bytes.len() as u64, self.facts.block_size),
        };
        let modified = match fs::metadata(self.root.join(rules::CONTROL_FILE)) {
            Ok(metadata) => metadata.mtime(),
            Err(source) => return Err(Error::Read { path: self.root.clone(), source }),
        };
        self.held = Some(HeldBytes::new(bytes));
        Ok(Step::Begin(FileSpec {
            path,
            kind: PartKind::File(shape),
            mode: self.owner.mode & 0o666,
            user_id: self.owner.user_id,
            group_id: self.owner.group_id,
            modified,
        }))
    }

    fn end(&mut self) -> Result<()> {
        let ended = self.runtime.block_on(self.bracket.end(&self.cancel))?;
        info!(stop = %ended.stop_lsn, "the backup has ended");
        let facts = BackupFacts {
            way: Way::Local,
            from_standby: self.facts.in_recovery,
            start_lsn: self.bracket.start_lsn,
            stop_lsn: ended.stop_lsn,
            timeline: self.bracket.timeline,
            label: self.label.clone(),
            owner: Some(self.owner.clone()),
            server: self.facts.clone(),
            late_tablespaces: late_tablespaces(&ended)?,
        };
        if let Some(finding) = tablespaces::finding(&facts.late_tablespaces) {
            self.outcome.find(finding);
        }
        let range = log_range(&facts);
        let mut tail = VecDeque::new();
        tail.push_back(Tail::Held { path: "backup_label".to_owned(), bytes: ended.label_file });
        if !ended.tablespace_map.is_empty() {
            let path = "tablespace_map".to_owned();
            tail.push_back(Tail::Held { path, bytes: ended.tablespace_map });
        }
        tail.extend(self.outside_configuration());
        tail.extend(
            rules::wal_directories(self.facts.major()).iter().map(|path| Tail::Directory((*path).to_owned())),
        );
        if facts.timeline.0 > 1 {
            let histories = range.histories(&self.pg_wal())?;
            tail.extend(histories.into_iter().map(|(name, real)| Tail::History { name, real }));
        }
        tail.extend(range.segments().map(Tail::Segment));
        self.phase = Phase::Tail(tail, Box::new(facts));
        Ok(())
    }

    /// Files of settings that the walk could not meet: the log says nothing of
    /// them either, and a server does not start without them.
    fn outside_configuration(&self) -> Vec<Tail> {
        let mut found = Vec::new();
        for (name, real) in &self.facts.outside_configuration {
            if self.root.join(name).exists() {
                continue;
            }
            match included::read_file(real) {
                Ok(bytes) => found.push(Tail::Held { path: name.clone(), bytes }),
                Err(error) => self.outcome.find(Finding::warning(
                    real.display().to_string(),
                    format!("lies outside of the data directory and cannot be read: {error}"),
                    "run `backstay backup` as the server's user, or keep a copy of the file elsewhere",
                )),
            }
        }
        found
    }

    fn begin_tail(&mut self, part: Tail) -> Result<Step> {
        match part {
            Tail::Held { path, bytes } => self.begin_held(path, bytes),
            Tail::Directory(path) => {
                let real = self.pg_wal();
                let metadata = fs::metadata(&real).map_err(|source| Error::Read { path: real, source })?;
                Ok(Step::Begin(spec(path, &metadata, PartKind::Directory)))
            }
            Tail::History { name, real } => {
                let bytes = fs::read(&real).map_err(|source| Error::Read { path: real, source })?;
                self.begin_held(format!("pg_wal/{name}"), bytes)
            }
            Tail::Segment(segment) => {
                let Phase::Tail(_, facts) = &self.phase else { return self.out_of_order() };
                let open = log_range(facts).open(&self.pg_wal(), segment)?;
                let metadata =
                    open.file.metadata().map_err(|source| Error::Read { path: open.real.clone(), source })?;
                let block_size = rules::unit_of(&open.path, open.size, self.facts.block_size);
                let shape = FileShape { size: open.size, block_size };
                let begin = spec(open.path.clone(), &metadata, PartKind::File(shape));
                self.extents = Some(Extents::of(open).with_toll(self.toll.clone()));
                Ok(Step::Begin(begin))
            }
        }
    }

    fn out_of_order(&self) -> Result<Step> {
        Err(Error::Protocol { reason: "a segment before the end of the backup".to_owned() })
    }

    fn finish(&mut self) {
        if let Phase::Tail(_, facts) = std::mem::replace(&mut self.phase, Phase::Done) {
            self.check.conclude(facts.stop_lsn);
            self.outcome.finish(*facts);
        }
    }

    fn pg_wal(&self) -> PathBuf {
        self.root.join("pg_wal")
    }
}

impl PartSource for LocalBackup {
    /// Called from threads that may block and do not drive the runtime.
    fn next(&mut self) -> Result<Option<Step>, Fault> {
        self.step().map_err(Fault::new)
    }
}

/// Refuses a directory that another cluster's server runs on.
pub fn refuse_foreign(root: &Path, server: &ServerFacts) -> Result<()> {
    let (_, control) = ControlFile::read(&root.join(rules::CONTROL_FILE))?;
    if control.system_identifier != server.system_identifier {
        return Err(Error::ForeignDirectory {
            path: root.to_owned(),
            found: control.system_identifier,
            expected: server.system_identifier,
        });
    }
    Ok(())
}

/// How many bytes a backup of this directory has to read, for a progress bar:
/// what the files are now, without the log.
pub fn measure(root: &Path, facts: &ServerFacts) -> Result<u64> {
    let (_, control) = ControlFile::read(&root.join(rules::CONTROL_FILE))?;
    let tablespaces = facts.tablespaces.iter().map(|space| space.oid).collect();
    let version_directory = format!("PG_{}_{}", facts.major(), control.catalog_version);
    let mut walk = Walk::new(root, tablespaces, version_directory, Outcome::new())?;
    let mut bytes = 0;
    while let Some(found) = walk.next()? {
        if let Found::File { metadata, .. } = found {
            bytes += metadata.len();
        }
    }
    Ok(bytes)
}

/// The server's map says which it began with.
fn late_tablespaces(ended: &Ended) -> Result<Vec<Tablespace>> {
    // Only the numbers are of interest, whatever the encoding of the places.
    let text = String::from_utf8_lossy(&ended.tablespace_map);
    let Some(map) = recover::parse_tablespace_map(&text) else {
        return Err(Error::Protocol { reason: "its tablespace map is not one".to_owned() });
    };
    let noted: Vec<u32> = map.iter().map(|space| space.oid).collect();
    tablespaces::late(ended.tablespaces.clone(), &noted)
}

fn log_range(facts: &BackupFacts) -> LogRange {
    LogRange {
        timeline: facts.timeline,
        start: facts.start_lsn,
        stop: facts.stop_lsn,
        segment_size: facts.server.wal_segment_size,
        from_standby: facts.from_standby,
    }
}

fn spec(path: String, metadata: &Metadata, kind: PartKind) -> FileSpec {
    FileSpec {
        path,
        kind,
        mode: metadata.mode() & 0o7777,
        user_id: metadata.uid(),
        group_id: metadata.gid(),
        modified: metadata.mtime(),
    }
}
