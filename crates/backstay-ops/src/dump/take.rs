//! One dump: from the server's tool to a file with a sidecar, in each of its tiers.

use backstay_engine::postgres::reload::ScriptNames;
use backstay_model::dump::{DumpCompression, DumpContent, DumpFormat, DumpRecord, DumpWarning, Tier};
use backstay_model::{BackupId, Finding};
use backstay_repo::dump::{DumpRecipe, DumpWriter, DumpWritten, FinishedDump, HMAC_SUFFIX};
use backstay_repo::shelf::ShelfPath;
use backstay_repo::store::StoreError;
use bytes::Bytes;
use jiff::Timestamp;

use super::complete::{FirstName, give};
use super::names::{self, Named, Naming};
use super::needed::{self, Needed};
use super::policy::Place;
use super::source::{Known, Noticed, Server, Source};
use super::{DumpPolicy, DumpRequest, DumpedFile, TierPath};
use crate::clock::Stopwatch;
use crate::context::workers;
use crate::error::{Error, Result};
use crate::instance::Instance;
use crate::run::Run;

/// How often a dump is begun that loses deadlocks.
const ATTEMPTS: u32 = 3;

/// All bytes of a dump, which has no name yet.
struct Copied {
    started_at: Timestamp,
    watch: Stopwatch,
    noticed: Noticed,
    finished: FinishedDump,
    needed: Option<ScriptNames>,
}

pub(super) struct Taking<'a> {
    pub run: &'a Run,
    pub instance: &'a Instance,
    /// The one that all files of a set come from.
    pub server: Server<'a>,
    pub policy: &'a DumpPolicy,
    pub place: &'a Place,
    pub request: &'a DumpRequest,
    /// When the run began, as the names of its dumps and their ids have it.
    pub at: Timestamp,
    pub id: BackupId,
    pub set: Option<BackupId>,
}

impl Taking<'_> {
    pub async fn take(&self, named: Named) -> Result<(DumpedFile, Vec<Finding>)> {
        self.take_it(named).await.map_err(|error| match error {
            // Its hints would name the store of the repository, which has nothing to do with this.
            Error::Repo(backstay_repo::Error::Store(source)) => {
                Error::Shelf { shelf: self.place.shelf.location().to_owned(), source }
            }
            other => other,
        })
    }

    async fn take_it(&self, named: Named) -> Result<(DumpedFile, Vec<Finding>)> {
        let mut named = named;
        let (_, path) = first(&named)?;
        let (copied, deadlocks) = self.copy_in_the_end(&named, &path).await?;
        let Copied { started_at, watch, noticed, finished, needed } = copied;
        let Noticed { known, mut warnings, findings } = noticed;
        let shelf = &*self.place.shelf;
        self.run.progress.enter("name the dump");
        let listed = known.tables.len() as u64;
        if known.tables_in_all > listed {
            let message = format!("of {} tables, the {listed} largest are listed", known.tables_in_all);
            let harmless = Some("all of them are in the dump".to_owned());
            warnings.push(DumpWarning { message, harmless });
        }
        let written = self.publish(finished, &mut named).await?;
        let (tier, path) = first(&named)?;
        let record = DumpRecord {
            id: self.id.clone(),
            instance: self.instance.id.clone(),
            environment: self.instance.environment.clone(),
            engine: self.server.engine(),
            content: named.content.clone(),
            set: self.set.clone(),
            file: path.file_name().to_owned(),
            tier,
            started_at,
            finished_at: self.run.clock.now(),
            duration_seconds: watch.seconds(),
            shape: named.shape,
            raw_bytes: written.raw_bytes,
            stored_bytes: written.stored_bytes,
            compression_ratio: ratio(&named, &known, &written),
            sha256: written.sha256.clone(),
            database_bytes: known.database_bytes,
            position: known.position,
            system_identifier: known.system_identifier,
            server_version: known.server_version,
            tool_version: known.tool_version,
            backstay_version: env!("CARGO_PKG_VERSION").to_owned(),
            extensions: known.extensions,
            tables: known.tables,
            timescaledb: known.timescaledb,
            needs: needed::of(needed, &named.content),
            members: Vec::new(),
            warnings,
            adopted: false,
            safety: self.request.safety,
            guessed: false,
        };
        self.describe(&record, &path, written.hmac.as_ref()).await?;
        // It is a dump by now: what else is to be named after it fails beside it.
        let mut missing = Vec::new();
        if let Some(pointer) = named.pointer.as_ref().filter(|_| !self.request.safety)
            && let Err(error) = shelf.point(pointer, &path).await
        {
            missing.push(unnamed(pointer, &error));
        }
        missing.extend(self.give_other_names(&record, &named, written.hmac.as_ref()).await);
        let paths = named.paths.iter();
        let paths = paths.map(|(tier, path)| TierPath { tier: *tier, path: path.to_string() }).collect();
        let dumped = DumpedFile { shelf: shelf.location().to_owned(), paths, record };
        missing.extend(findings);
        missing.extend((deadlocks > 0).then(|| taken_again(&named.content, deadlocks)));
        Ok((dumped, missing))
    }

    /// From the start, and from the start again where the server ended it because others
    /// waited for it and it for them: jobs of TimescaleDB lock in an order of their own. With
    /// how often that was.
    async fn copy_in_the_end(&self, named: &Named, path: &ShelfPath) -> Result<(Copied, u32)> {
        let mut deadlocks = 0;
        loop {
            match self.copy_once(named, path).await {
                Ok(copied) => return Ok((copied, deadlocks)),
                Err(Error::Engine(error)) if error.is_deadlock() => {
                    deadlocks += 1;
                    if deadlocks == ATTEMPTS {
                        return Err(Error::DumpDeadlocks { times: deadlocks, source: Box::new(error) });
                    }
                    tracing::warn!(%error, attempt = deadlocks, "the dump begins again");
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// All bytes, in a file without a name.
    async fn copy_once(&self, named: &Named, path: &ShelfPath) -> Result<Copied> {
        let (started_at, watch) = (self.run.clock.now(), Stopwatch::start());
        let title = format!("dump {}", names::described(&named.content));
        self.run.progress.enter(&title);
        let (known, mut source) = self.open(named).await?;
        self.run.progress.begin(&title, source.estimated_bytes(&known));
        let recipe = DumpRecipe { shape: named.shape, level: self.level(named), workers: workers() };
        let passphrase = self.policy.passphrase.as_ref();
        let mut writer = DumpWriter::begin(&*self.place.shelf, path, &recipe, passphrase).await?;
        let copied = async {
            let needed = self.copy(named, &mut source, &mut writer).await?;
            Ok((needed, source.noticed(known, &named.content)?))
        };
        match copied.await {
            Ok((needed, noticed)) => {
                let finished = writer.finish().await?;
                Ok(Copied { started_at, watch, noticed, finished, needed })
            }
            Err(error) => {
                // Nothing of it has a name; what else went wrong is no news.
                let _ = writer.abandon().await;
                Err(error)
            }
        }
    }

    /// The level is for what we compress; `pg_dump` gets its own.
    fn level(&self, named: &Named) -> Option<i32> {
        self.policy.level.filter(|_| named.shape == self.policy.shape)
    }

    /// What the statements of a plain dump need, when all of it was copied.
    async fn copy(
        &self,
        named: &Named,
        source: &mut Source,
        writer: &mut DumpWriter,
    ) -> Result<Option<ScriptNames>> {
        let is_read = named.shape.format == DumpFormat::Plain && named.content.database().is_some();
        let mut needed = is_read.then(Needed::begin);
        while let Some(bytes) = source.next(self.run).await? {
            let count = bytes.len() as u64;
            let handed_on = async {
                if let Some(needed) = &mut needed {
                    needed.push(&bytes).await;
                }
                writer.write(bytes).await
            };
            tokio::select! {
                biased;
                () = self.run.cancel.cancelled() => return Err(Error::Cancelled),
                written = handed_on => written?,
            }
            self.run.progress.done(count);
        }
        Ok(needed.map(Needed::finish))
    }

    /// Under the name that it was taken for, or the next one by hand: another run may have
    /// been faster, and what took hours is not thrown away for a name.
    async fn publish(&self, mut finished: FinishedDump, named: &mut Named) -> Result<DumpWritten> {
        let (_, path) = first(named)?;
        if let Some(written) = committed(&mut finished).await? {
            return Ok(written);
        }
        let (run, instance) = (self.run, &self.instance.id);
        let (layout, database) = (&self.policy.layout, self.policy.database.as_deref());
        let naming = Naming { run, layout, database, instance, shelf: &*self.place.shelf };
        for other in naming.instead(named, self.at).await? {
            finished.rename(&first(&other)?.1).await?;
            if let Some(written) = committed(&mut finished).await? {
                *named = other;
                return Ok(written);
            }
        }
        let shelf = self.place.shelf.location().to_owned();
        Err(Error::DumpNameTaken { path: path.to_string(), shelf })
    }

    /// The authentication, and last the sidecar: with it the file is a dump of ours.
    async fn describe(&self, record: &DumpRecord, path: &ShelfPath, hmac: Option<&Bytes>) -> Result<()> {
        let shelf = &*self.place.shelf;
        let failed = |error: StoreError| backstay_repo::Error::from(error);
        let beside = |suffix: &str| path.beside(suffix).map_err(backstay_repo::Error::from);
        if let Some(hmac) = hmac {
            shelf.put_if_absent(&beside(HMAC_SUFFIX)?, hmac.clone()).await.map_err(failed)?;
        }
        let mut json = serde_json::to_vec_pretty(record).map_err(|error| Error::broken(error.to_string()))?;
        json.push(b'\n');
        let sidecar = beside(&self.policy.layout.sidecar)?;
        Ok(shelf.put_if_absent(&sidecar, json.into()).await.map_err(failed)?)
    }

    /// The same bytes among the weeks and the months, each with a sidecar of its own.
    async fn give_other_names(
        &self,
        record: &DumpRecord,
        named: &Named,
        hmac: Option<&Bytes>,
    ) -> Vec<Finding> {
        let mut missing = Vec::new();
        let Some(((_, first), others)) = named.paths.split_first() else { return missing };
        for (tier, path) in others {
            let record = DumpRecord { tier: *tier, file: path.file_name().to_owned(), ..record.clone() };
            let given = async {
                let layout = &self.policy.layout;
                let described = [first.beside(&layout.sidecar).map_err(backstay_repo::Error::from)?];
                let first = FirstName { path: first, sidecars: &described };
                give(self.run, self.place, layout, first, (path, &record), hmac).await
            }
            .await;
            if let Err(error) = given {
                missing.push(unnamed(path, &error));
            }
        }
        missing
    }
}

fn first(named: &Named) -> Result<(Tier, ShelfPath)> {
    let first = named.paths.first().cloned();
    first.ok_or_else(|| Error::broken("a layout has a name for the dump of a day"))
}

/// `None` where the name is taken.
async fn committed(finished: &mut FinishedDump) -> Result<Option<DumpWritten>> {
    match finished.commit().await {
        Ok(written) => Ok(Some(written.clone())),
        Err(backstay_repo::Error::Store(StoreError::AlreadyExists { .. })) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn taken_again(content: &DumpContent, deadlocks: u32) -> Finding {
    let times = if deadlocks == 1 { "once".to_owned() } else { format!("{deadlocks} times") };
    Finding::info(
        names::described(content),
        format!("the dump lost a deadlock with others {times}, was begun again from the start, and is whole"),
        "run `backstay dump` when no `ALTER TABLE` and no job of TimescaleDB is at work",
    )
}

fn unnamed(path: &ShelfPath, error: &dyn std::error::Error) -> Finding {
    Finding::error(
        path.as_str(),
        format!("could not be given to this dump as a further name: {}", crate::status::with_causes(error)),
        "clear the name, and run `backstay dump` again",
    )
}

/// How many bytes became one. Where `pg_dump` packs by itself, what it had before is only known
/// of a whole database.
fn ratio(named: &Named, known: &Known, written: &DumpWritten) -> f64 {
    let is_whole = matches!(named.content, DumpContent::Database { .. });
    let inside = named.shape.compression == DumpCompression::Inside;
    let raw_bytes = known.database_bytes.filter(|_| is_whole && inside).unwrap_or(written.raw_bytes);
    raw_bytes as f64 / written.stored_bytes.max(1) as f64
}
