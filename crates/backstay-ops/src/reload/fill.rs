//! Fill: a database gets what a dump holds, whole or not at all.

use std::time::{Duration, Instant};

use backstay_engine::postgres::reload::{
    ANALYZE_REMEDY, Archive, DirectoryUnpack, Expected, ReloadInput, ReloadOptions, ReloadRun, ReloadTarget,
    Selection, TimescaleReload, archive,
};
use backstay_model::Finding;
use backstay_model::dump::{DumpContent, DumpWarning};
use backstay_model::error::Classified as _;
use backstay_model::plan::Refusal;
use backstay_model::plan::reload::ReloadChecks;
use backstay_repo::dump::DumpInside;
use bytes::Bytes;

use super::ReloadRequest;
use super::input::{Input, TIMESCALEDB};
use crate::context::off_thread;
use crate::dump::DumpPolicy;
use crate::error::{Error, Result};
use crate::run::Run;

pub(super) mod spool;
mod used;

use spool::{SpoolFile, Spooling};
pub(super) use used::refuse_used;

/// A foreign key of a large table is looked at for as long as a scan of it takes.
const LOOK_LIMIT: Duration = Duration::from_secs(6 * 60 * 60);
/// Of the looks at what was restored, all together.
const CHECK_LIMIT: Duration = Duration::from_secs(10 * 60);
/// A server that restarts, or fails over, answers again before long.
pub(super) const DROP_LIMIT: Duration = Duration::from_secs(30);
const DROP_AGAIN: Duration = Duration::from_millis(500);

pub(super) struct Filling<'a> {
    pub run: &'a Run,
    pub policy: &'a DumpPolicy,
    pub request: &'a ReloadRequest,
    pub target: &'a ReloadTarget,
    pub into: &'a str,
    /// It is made for this, and goes when this fails.
    pub is_new: bool,
    /// Somebody is going to ask it something.
    pub is_for_queries: bool,
    /// Somebody has something in it.
    pub is_used: bool,
    /// It gets another name when it is sound.
    pub is_to_swap: bool,
    /// It goes in any case, and nobody is to work in it.
    pub is_test: bool,
}

pub(super) struct Filled {
    pub raw_bytes: u64,
    pub findings: Vec<Finding>,
    /// What was looked at; nothing where others have things of their own.
    pub checks: Option<ReloadChecks>,
}

/// Whether a database is there that a restore asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Made {
    Surely,
    /// The answer was lost.
    Perhaps,
}

/// Drops what a restore has made that failed; the failure, and that half of it is left
/// where nobody answers any more.
pub(super) async fn let_go(
    target: &ReloadTarget,
    database: &str,
    made: Made,
    failed: Error,
    limit: Duration,
) -> Error {
    match drop_within(target, database, made, limit).await {
        Ok(()) => failed,
        Err(_) => Error::HalfRestored { database: database.to_owned(), source: Box::new(failed) },
    }
}

/// Drops what a restore has made, also when the server takes its time.
pub(super) async fn drop_within(
    target: &ReloadTarget,
    database: &str,
    made: Made,
    limit: Duration,
) -> Result<(), backstay_engine::Error> {
    let deadline = Instant::now() + limit;
    loop {
        let dropped = match made {
            Made::Surely => target.drop_database(database).await,
            Made::Perhaps => target.take_back(database).await,
        };
        match dropped {
            Ok(()) => return Ok(()),
            // A server that lost a process ends all sessions, and is back a moment later.
            Err(error) if error.kind().is_retryable() && Instant::now() < deadline => {
                tracing::debug!(%error, database, "half of a restore cannot be dropped yet");
                tokio::time::sleep(DROP_AGAIN).await;
            }
            Err(error) => {
                tracing::warn!(%error, database, "half of a restore is left");
                return Err(error);
            }
        }
    }
}

impl Filling<'_> {
    pub async fn fill(&self, input: Input) -> Result<Filled> {
        if !self.is_new {
            return self.put(input).await;
        }
        let shape = input.archive.as_ref().and_then(Archive::database_shape);
        if let Err(error) = self.target.create_database(self.into, shape.as_ref()).await {
            let is_in_doubt = matches!(
                error,
                backstay_engine::Error::ConnectionLost { .. } | backstay_engine::Error::Timeout { .. }
            );
            return Err(match is_in_doubt {
                true => let_go(self.target, self.into, Made::Perhaps, error.into(), DROP_LIMIT).await,
                false => error.into(),
            });
        }
        match self.put(input).await {
            Ok(filled) => Ok(filled),
            Err(error) => Err(let_go(self.target, self.into, Made::Surely, error, DROP_LIMIT).await),
        }
    }

    async fn put(&self, mut input: Input) -> Result<Filled> {
        let spool = self.policy.spool()?;
        // A directory says what it holds only when it lies somewhere.
        let unpacked = match input.is_packed() {
            true => Some(self.unpack(&mut input, &spool).await?),
            false => None,
        };
        if let Some((_, path)) = &unpacked {
            let path = path.clone();
            input.archive = Some(off_thread(move || Ok(archive::read_lying(&path)?)).await?);
            let needs = input.needs(self.request)?;
            let looked = self.target.preflight(Some(self.into), &needs).await?;
            if let Some(refusal) = all_in_one(looked.refusals) {
                return Err(Error::Refused { refusal });
            }
        }
        let timescale = self.timescale(&mut input).await?;
        match self.rows(input, unpacked, &spool, timescale.is_some()).await {
            Ok((said, raw_bytes, expected)) => {
                let mut filled = self.settle(timescale, &expected).await?;
                filled.findings.splice(0..0, said.into_iter().map(of_child));
                Ok(Filled { raw_bytes, ..filled })
            }
            Err(error) => {
                // What was made goes as a whole; what somebody else made is as it was.
                if let Some(timescale) = timescale.filter(|_| !self.is_new)
                    && let Err(error) = timescale.give_up(self.target).await
                {
                    tracing::warn!(%error, database = self.into, "TimescaleDB was not told that nothing came");
                }
                Err(error)
            }
        }
    }

    /// All that the dump holds. What was said, how much it was, and what is there now.
    async fn rows(
        &self,
        mut input: Input,
        unpacked: Option<(DirectoryUnpack, std::path::PathBuf)>,
        spool: &std::path::Path,
        has_timescaledb: bool,
    ) -> Result<(Vec<DumpWarning>, u64, Expected)> {
        let (run, raw_bytes) = (self.run, input.chosen.record.raw_bytes);
        let jobs = if has_timescaledb { 1 } else { self.request.jobs };
        let options = self.options(&input).await?;
        let expected = Expected::of_record(&input.chosen.record);
        let expected = match &input.archive {
            Some(archive) => expected.and_archive(archive, options.entries.as_deref()),
            None => expected,
        };
        let mut file = None;
        let from = match (&unpacked, input.inside) {
            (Some((_, path)), _) => ReloadInput::Lying { path: path.clone(), jobs },
            // Of chosen entries, `pg_restore` is done before the file ends: it would commit
            // before the last byte was checked.
            (None, DumpInside::CustomArchive) if jobs > 1 || self.request.is_of_parts() => {
                let spooled = self.spool(&mut input, spool).await?;
                let path = spooled.path().to_owned();
                file = Some(spooled);
                ReloadInput::Lying { path, jobs }
            }
            (None, _) if input.is_statements() => ReloadInput::Statements,
            (None, _) => ReloadInput::Archive,
        };
        let options = ReloadOptions { input: from, ..options };
        run.progress.begin("restore", raw_bytes);
        let (said, raw_bytes) = match options.input {
            ReloadInput::Archive | ReloadInput::Statements => self.stream(input, &options).await?,
            // Nothing is put anywhere before the last look at the file.
            ReloadInput::Lying { .. } => {
                let raw_bytes = input.finish().await?;
                let child = ReloadRun::start(self.target, self.into, &options, &run.cancel).await?;
                (child.finish().await?, raw_bytes)
            }
        };
        drop((unpacked, file));
        Ok((said, raw_bytes, expected))
    }

    async fn timescale(&self, input: &mut Input) -> Result<Option<TimescaleReload>> {
        if self.request.is_of_parts() || matches!(input.chosen.record.content, DumpContent::Parts { .. }) {
            return Ok(None);
        }
        let known = input.timescaledb();
        let has = match known {
            Some(has) => has,
            // Of what others took, no sidecar says it.
            None => input.is_statements() && input.makes_extension(TIMESCALEDB).await?,
        };
        if !has {
            return Ok(None);
        }
        if self.is_used {
            return Err(Error::Refused { refusal: refuse_used(self.into) });
        }
        let version = input.timescaledb_version();
        Ok(Some(TimescaleReload::begin(self.target, self.into, version).await?))
    }

    async fn options(&self, input: &Input) -> Result<ReloadOptions> {
        let request = self.request;
        let entries = match (&input.archive, request.is_of_parts()) {
            (Some(archive), true) => {
                let selection = self.selection().await?;
                let entries = archive.select(&request.tables, &request.schemas, selection)?;
                Some(entries.into_iter().map(|entry| entry.id).collect())
            }
            (None, true) => return Err(Error::broken("what is chosen from has a table of contents")),
            (_, false) => None,
        };
        Ok(ReloadOptions {
            tool_major: input.archive.as_ref().and_then(Archive::tool_major),
            entries,
            triggers_off: request.triggers_off,
            owners: request.owners,
            privileges: request.privileges,
            ..ReloadOptions::default()
        })
    }

    /// Tables that are there get rows; tables that are not are made.
    async fn selection(&self) -> Result<Selection> {
        if self.is_new {
            return Ok(Selection::WithNeeds);
        }
        let tables = &self.request.tables;
        if tables.is_empty() {
            return Ok(Selection::Whole);
        }
        match self.target.count_tables(self.into, tables).await? {
            0 => Ok(Selection::Whole),
            there if there >= tables.len() => Ok(Selection::RowsOnly),
            _ => Err(Error::SomeTablesThere { database: self.into.to_owned() }),
        }
    }

    /// The last bytes are held back until every check of the file was good: without them
    /// no child has all that it would commit.
    async fn stream(&self, mut input: Input, options: &ReloadOptions) -> Result<(Vec<DumpWarning>, u64)> {
        let mut child = ReloadRun::start(self.target, self.into, options, &self.run.cancel).await?;
        let fed = async {
            let mut held: Option<Bytes> = None;
            while let Some(bytes) = input.next().await? {
                let count = bytes.len() as u64;
                if let Some(before) = held.replace(bytes) {
                    child.write(&before).await?;
                }
                self.run.progress.done(count);
            }
            let raw_bytes = input.finish().await?;
            if let Some(last) = held {
                child.write(&last).await?;
            }
            Ok(raw_bytes)
        };
        match fed.await {
            Ok(raw_bytes) => Ok((child.finish().await?, raw_bytes)),
            Err(error) => {
                child.abandon().await;
                Err(error)
            }
        }
    }

    async fn unpack(
        &self,
        input: &mut Input,
        spool: &std::path::Path,
    ) -> Result<(DirectoryUnpack, std::path::PathBuf)> {
        self.run.progress.begin("unpack the dump", input.chosen.record.raw_bytes);
        let mut unpack = DirectoryUnpack::begin(spool, input.chosen.record.raw_bytes)?;
        while let Some(bytes) = input.next().await? {
            self.run.check_cancelled()?;
            let count = bytes.len() as u64;
            unpack.write(bytes).await?;
            self.run.progress.done(count);
        }
        let path = unpack.finish().await?;
        Ok((unpack, path))
    }

    async fn spool(&self, input: &mut Input, spool: &std::path::Path) -> Result<SpoolFile> {
        if let Some(taken_out) = input.taken_out.take() {
            return Ok(taken_out);
        }
        self.run.progress.begin("unpack the dump", input.chosen.record.raw_bytes);
        let mut spooling = Spooling::begin(spool, input.chosen.record.raw_bytes)?;
        spooling.find_rows(input.archive.as_ref());
        while let Some(bytes) = input.next().await? {
            self.run.check_cancelled()?;
            let count = bytes.len() as u64;
            spooling = spooling.append(bytes).await?;
            self.run.progress.done(count);
        }
        spooling.finish()
    }

    /// What a restore leaves to others, and what it looks at. The rows are there by now: what
    /// cannot be done or looked at any more is told beside them, and never as if nothing had
    /// happened.
    async fn settle(&self, timescale: Option<TimescaleReload>, expected: &Expected) -> Result<Filled> {
        let (run, request) = (self.run, self.request);
        let mut filled = Filled { raw_bytes: 0, findings: Vec::new(), checks: None };
        let is_unlike = request.is_of_parts() || request.triggers_off;
        if is_unlike {
            run.progress.enter("set the sequences");
            let set = self.target.set_sequences(self.into, &request.tables).await;
            let set = set.map(|set| set.findings);
            filled.findings.extend(self.unless_failed(set, "the sequences were not set right")?);
        }
        // TimescaleDB's tables are analysed when it has been told that they are whole.
        let jobs = if timescale.is_some() { 1 } else { self.request.jobs };
        let analysed = async {
            match jobs > 1 {
                true => self.analyse(jobs).await,
                false => Ok(Vec::new()),
            }
        };
        let (looked, analysed) = tokio::join!(self.look(expected), analysed);
        let (checks, found) = looked?;
        filled.checks = checks;
        filled.findings.extend(found);
        filled.findings.extend(analysed?);
        if let Some(timescale) = timescale.filter(|_| !self.is_test) {
            run.progress.enter("tell TimescaleDB");
            let told = timescale.finish(self.target, !self.is_to_swap).await;
            let told = self.unless_failed(told, "TimescaleDB was not told that the restore is over")?;
            filled.findings.extend(told);
        }
        if is_unlike {
            run.progress.enter("look at the foreign keys");
            let looked = self.target.check_foreign_keys(self.into, &request.tables, LOOK_LIMIT, &run.cancel);
            let found = self.unless_failed(looked.await, "the foreign keys were not looked at")?;
            filled.findings.extend(found);
        }
        if jobs <= 1 {
            filled.findings.extend(self.analyse(jobs).await?);
        }
        Ok(filled)
    }

    async fn look(&self, expected: &Expected) -> Result<(Option<ReloadChecks>, Vec<Finding>)> {
        if self.is_used {
            return Ok((None, Vec::new()));
        }
        self.run.progress.enter("look at what was restored");
        // Before jobs of TimescaleDB change it.
        let looked = self.target.check_sound(self.into, expected, CHECK_LIMIT, &self.run.cancel).await;
        let mut checks = None;
        let looked = looked.map(|sound| {
            checks = Some(sound.checks);
            sound.findings
        });
        let found = self.unless_failed(looked, "what was restored was not looked at to the end")?;
        Ok((checks, found))
    }

    async fn analyse(&self, jobs: u32) -> Result<Vec<Finding>> {
        if !self.is_for_queries {
            return Ok(Vec::new());
        }
        self.run.progress.enter("analyse");
        let analysed = self.target.analyze(self.into, jobs, LOOK_LIMIT, &self.run.cancel).await;
        match analysed {
            Err(backstay_engine::Error::Cancelled) if self.is_new => Err(Error::Cancelled),
            Ok(findings) => Ok(findings),
            Err(error) => Ok(vec![Finding::warning(
                self.into,
                format!("could not be analysed: {error}"),
                ANALYZE_REMEDY,
            )]),
        }
    }

    /// A failure after the rows have come. A database that was made for them goes when
    /// somebody asks to stop; one that others use has them already.
    fn unless_failed(
        &self,
        done: Result<Vec<Finding>, backstay_engine::Error>,
        what: &str,
    ) -> Result<Vec<Finding>> {
        match done {
            Ok(findings) => Ok(findings),
            Err(backstay_engine::Error::Cancelled) if self.is_new => Err(Error::Cancelled),
            Err(error) => {
                let reason = crate::status::with_causes(&error);
                let remedy =
                    "the rows are there: do not restore them again; see to what is named here by hand";
                Ok(vec![Finding::error(self.into, format!("{what}: {reason}"), remedy)])
            }
        }
    }
}

/// Everything that is lacking: whoever mends it one by one would unpack it as often.
pub(super) fn all_in_one(refusals: Vec<Refusal>) -> Option<Refusal> {
    refusals.into_iter().reduce(|mut all, next| {
        all.message = format!("{}; {}", all.message, next.message);
        all.hints.extend(next.hints);
        all
    })
}

fn of_child(said: DumpWarning) -> Finding {
    Finding::warning("pg_restore", said.message, "look whether what it names is as it should be")
}
