//! Backup: facts → rights → parent → copy → commit.
//!
//! Everything that can be refused is refused before the repository hears of the
//! backup. Invariant: whatever goes wrong before the commit leaves no visible
//! backup, and a backup that is not complete is never committed.

use std::time::Duration;

use backstay_engine::redis::base::RedisBase;
use backstay_model::error::Classified;
use backstay_model::plan::{PassedOver, choose_parent};
use backstay_model::{BackupId, BackupMarks, BackupSummary, ErrorKind, Finding, FindingLevel};
use backstay_repo::writer::{BackupWriter, WriterOptions};

use crate::context::{Context, workers};
use crate::error::{Error, Result};
use crate::future;
use crate::instance::Instance;
use crate::known::Known;

mod asked;
mod beside;
mod saved;
mod source;
mod taken;

use asked::Asked;
use taken::Taken;

/// What a person may say of one backup.
#[derive(Debug, Clone, Copy, Default)]
pub struct BackupOptions {
    /// Compare with no earlier backup: read and store everything.
    pub full: bool,
    /// Level of zstd, or `backstay_repo::frame::UNCOMPRESSED`; [`DEFAULT_COMPRESSION_LEVEL`]
    /// when it is left out.
    pub compression_level: Option<i32>,
}

/// Faster than 3 and, in frames of 128 KiB, smaller too (decision 11).
pub const DEFAULT_COMPRESSION_LEVEL: i32 = 2;

/// Takes a base backup of one instance.
///
/// A parent whose maps turn out to be damaged while they are read costs one more
/// attempt, without a parent: the night's backup must not fail for ever because
/// of an older one.
pub async fn run(context: &Context, instance: &Instance, options: &BackupOptions) -> Result<BackupSummary> {
    run_with(context, instance, options, None).await
}

/// The same of a base of Redis that has begun already, in one attempt: another one would be of another
/// snapshot, which whoever waits for what follows this one did not ask for.
pub(crate) async fn run_on(
    context: &Context,
    instance: &Instance,
    options: &BackupOptions,
    begun: RedisBase,
) -> Result<BackupSummary> {
    run_with(context, instance, options, Some(begun)).await
}

async fn run_with(
    context: &Context,
    instance: &Instance,
    options: &BackupOptions,
    begun: Option<RedisBase>,
) -> Result<BackupSummary> {
    context.progress.enter("ask the server");
    let mut findings = Vec::new();
    let asked = context.unless_cancelled(Asked::server(instance, &mut findings)).await?;

    context.progress.enter("look at earlier backups");
    let mut known = context.unless_cancelled(Known::of(context, &instance.id)).await?;
    // What was lost is no fault of the backup that is made now.
    let lost = known.findings.iter().cloned();
    findings.extend(lost.map(|finding| Finding { level: FindingLevel::Warning, ..finding }));
    let newest = known.newest_first().first().map(|(record, _)| record.clone());
    let parent = if options.full {
        None
    } else {
        let choose = choose_sound_parent(context, instance, &mut known, &asked, &mut findings);
        context.unless_cancelled(choose).await?
    };
    let mut attempt = Attempt {
        context,
        instance,
        asked: &asked,
        options: WriterOptions {
            lanes: workers(),
            compression_level: options.compression_level.unwrap_or(DEFAULT_COMPRESSION_LEVEL),
            verify: true,
            damaged_packs: known.damaged_packs.clone(),
            sequence: known.next_sequence(),
        },
        parent,
        findings,
        begun,
    };
    let is_last = attempt.begun.is_some();
    attempt.findings.extend(newest.and_then(|newest| future::finding(&newest, context.clock.now())));
    match attempt.run().await {
        Err(error) if !is_last && attempt.parent.is_some() && is_of_the_repository(&error) => {
            attempt.give_up_the_parent(&error);
            attempt.run().await
        }
        ended => ended,
    }
}

/// Whether stored data is at fault. What is wrong at the server, or with what it
/// sent, is as wrong without a parent: a second attempt would read everything for
/// the same end.
fn is_of_the_repository(error: &Error) -> bool {
    match error {
        Error::Repo(backstay_repo::Error::Engine(_)) => false,
        Error::Repo(error) => error.kind() == ErrorKind::Corrupt,
        _ => false,
    }
}

struct Attempt<'a> {
    context: &'a Context,
    instance: &'a Instance,
    asked: &'a Asked,
    options: WriterOptions,
    parent: Option<BackupId>,
    findings: Vec<Finding>,
    /// For one attempt alone: what comes of it comes once.
    begun: Option<RedisBase>,
}

impl Attempt<'_> {
    async fn run(&mut self) -> Result<BackupSummary> {
        let (context, instance) = (self.context, self.instance);
        context.check_cancelled()?;
        // Not dropped when somebody asks to stop: every call of the store ends by itself
        // then, and an intent that is stored already is taken back.
        let (parent, options) = (self.parent.clone(), self.options.clone());
        let begin = context.repo.begin_backup(&instance.id, parent, context.clock.now(), options);
        let mut writer = begin.await?;
        let begun = self.begun.take();
        let drafted = match self.copy(&mut writer, begun).await {
            Ok(taken) => taken.draft(context.clock.now(), self.findings.clone()),
            Err(error) => Err(error),
        };
        let draft = match drafted {
            Ok(draft) => draft,
            Err(error) => {
                abandon(context, writer).await;
                return Err(error);
            }
        };
        context.progress.enter("commit");
        let record = writer.commit(draft).await?;
        Ok(BackupSummary::new(&record, BackupMarks::default()))
    }

    async fn copy(&self, writer: &mut BackupWriter, begun: Option<RedisBase>) -> Result<Taken> {
        let context = self.context;
        let (source, mut taken, estimated) =
            source::start(context, self.instance, self.asked, writer, begun).await?;
        context.progress.begin("copy", estimated.unwrap_or_else(|| self.asked.size_bytes()));
        let copied = writer.copy(source, context.progress.clone(), &context.cancel).await;
        copied.map_err(|error| taken.blame(error.into()))?;
        taken.settle(context, writer).await;
        Ok(taken)
    }

    fn give_up_the_parent(&mut self, error: &Error) {
        let Some(parent) = self.parent.take() else { return };
        let facts = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
        let facts: Vec<String> = facts.map(ToString::to_string).collect();
        self.findings.push(Finding::warning(
            parent.as_str(),
            format!(
                "nothing could be compared with this backup, so everything was read again: {}",
                facts.join(": ")
            ),
            format!("`backstay verify {parent}` names what is damaged"),
        ));
    }
}

/// Nothing, as soon as somebody asks to stop: what follows says so.
async fn unless_stopped<T: Default>(context: &Context, work: impl Future<Output = T>) -> T {
    tokio::select! {
        biased;
        () = context.cancel.cancelled() => T::default(),
        done = work => done,
    }
}

/// How long somebody who asked to stop waits for a store that does not answer.
const PARTING_LIMIT: Duration = Duration::from_secs(5);

/// Takes the intent back. It is only a courtesy to others: a collector finds out by
/// itself that nobody is behind it.
async fn abandon(context: &Context, writer: BackupWriter) {
    let id = writer.id().clone();
    let parting = writer.abandon();
    if !context.cancel.is_cancelled() {
        parting.await;
    } else if tokio::time::timeout(PARTING_LIMIT, parting).await.is_err() {
        tracing::warn!(session = %id, "the store does not answer, so the intent stays until a collection");
    }
}

/// The backup to compare with. Those that had to be passed over are told, because
/// a backup that is suddenly full is a question at breakfast.
///
/// A record may be all that is left of a backup whose manifest does not open any
/// more: then the next one is taken, so that one damaged object stops no backup.
async fn choose_sound_parent(
    context: &Context,
    instance: &Instance,
    known: &mut Known,
    asked: &Asked,
    findings: &mut Vec<Finding>,
) -> Result<Option<BackupId>> {
    loop {
        let (parent, passed_over) = choose_parent(&known.backups, |record| asked.is_of_the_same(record));
        let parent = parent.map(|record| record.id.clone());
        if let Some(parent) = &parent
            && !known.confirm(context, &instance.id, parent).await?
        {
            continue;
        }
        findings.extend(passed_over.into_iter().filter_map(|(id, reason)| passed_over_finding(&id, reason)));
        return Ok(parent);
    }
}

fn passed_over_finding(id: &BackupId, reason: PassedOver) -> Option<Finding> {
    match reason {
        PassedOver::Condemned => None,
        PassedOver::Damaged => Some(Finding::warning(
            id.as_str(),
            "this backup is damaged, so nothing new builds on it",
            format!("`backstay verify {id}` names what is damaged"),
        )),
        PassedOver::OtherCluster => Some(Finding::warning(
            id.as_str(),
            "this backup is of another cluster: its system identifier, block size or major version differs",
            "if that is not meant, see whether `url` of the instance leads to the right server",
        )),
    }
}

#[cfg(test)]
mod tests {
    use backstay_model::Fault;

    use super::*;

    #[test]
    fn only_damage_of_what_is_stored_is_a_reason_to_try_again_without_a_parent() {
        let damaged = || backstay_repo::Error::Damaged {
            object: "orders/maps/a/0".into(),
            reason: "its tag is wrong".into(),
        };
        assert!(is_of_the_repository(&Error::Repo(damaged())));
        // The server's data is wrong: by way of the pipeline, or before it.
        let malformed =
            || backstay_engine::Error::Malformed { path: "base/1/2".into(), reason: "cut off".into() };
        assert_eq!(malformed().kind(), ErrorKind::Corrupt);
        let carried = backstay_repo::Error::Engine(Fault::new(malformed()));
        assert!(!is_of_the_repository(&Error::Repo(carried)));
        assert!(!is_of_the_repository(&Error::Engine(malformed())));
        assert!(!is_of_the_repository(&Error::Repo(backstay_repo::Error::Cancelled)));
    }
}
