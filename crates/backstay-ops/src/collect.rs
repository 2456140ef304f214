//! Collect: delete what nothing refers to.
//!
//! The decision is the repository's plan, and only its remover deletes. A dry run
//! shows the plan and touches nothing.

use backstay_model::error::Classified;
use backstay_model::{ErrorKind, Finding, FindingLevel};
use backstay_repo::description::Description;
use backstay_repo::protocol::{
    CollectOptions as RepoOptions, Collection, CollectionPlan, Deletion, EndedSession, ProcessIdentity,
};
use serde::Serialize;

use crate::context::Context;
use crate::error::{Error, Result};
use crate::notes;

pub(crate) mod log;

pub use log::LogDeletion;

/// What a person may say of one collection.
#[derive(Debug, Clone, Copy, Default)]
pub struct CollectOptions {
    pub dry_run: bool,
    /// Allow more than the usual share of all objects to go at once.
    pub max_share_percent: Option<u8>,
    /// Go on although a backup vanished that nobody condemned.
    pub accept_loss: bool,
}

#[derive(Debug, Serialize)]
pub struct CollectReport {
    /// `false` for a dry run: then the rest is what would be done.
    pub executed: bool,
    /// Packs and maps that no backup needs.
    pub deleted_objects: u64,
    pub freed_bytes: u64,
    /// Sessions that were declared dead.
    pub ended_sessions: Vec<EndedSession>,
    /// Every object, and why.
    pub deletions: Vec<Deletion>,
    /// Log that no backup needs, and how many objects and bytes that is.
    pub log: Vec<LogDeletion>,
    pub deleted_log_objects: u64,
    pub freed_log_bytes: u64,
    /// Notes of verifications and drills that are old and say nothing any more.
    pub deleted_notes: u64,
    pub findings: Vec<Finding>,
    /// Why an instance was left alone, when the work on the others is done: whoever
    /// asked is told the report, and then this.
    #[serde(skip)]
    pub failure: Option<Error>,
}

pub async fn run(context: &Context, options: &CollectOptions) -> Result<CollectReport> {
    context.progress.enter("look for what nothing refers to");
    // It was authenticated when the repository was opened, and is never written again.
    let store = Description::read(&**context.repo.store()).await?.claimed().store;
    let mut with = RepoOptions::new(store, ProcessIdentity::current(), context.clock.now());
    with.accept_loss = options.accept_loss;
    if let Some(percent) = options.max_share_percent {
        with.max_share_percent = percent;
    }
    let collection = Collection::new(&context.repo, with, context.cancel.clone());
    if options.dry_run {
        let (plan, failure) = collection.preview_with_failure().await?;
        let mut planned = report(plan, false);
        planned.failure = failure.map(Error::Repo);
        planned.look_after_log(context).await?;
        planned.look_after_notes(context).await?;
        return Ok(planned);
    }
    let remover = collection.prepare().await?;
    let mut planned = report(remover.plan().clone(), true);
    context.progress.enter("delete");
    let done = match remover.execute().await {
        Ok(done) => done,
        Err(error) if planned.leaves_alone(&error) => {
            planned.failure = Some(Error::Repo(error));
            planned.look_after_log(context).await?;
            planned.look_after_notes(context).await?;
            return Ok(planned);
        }
        Err(error) => return Err(Error::Repo(error)),
    };
    let mut report = CollectReport {
        deleted_objects: done.deleted_objects,
        freed_bytes: done.freed_bytes,
        ended_sessions: done.ended,
        findings: done.findings,
        ..planned
    };
    report.look_after_log(context).await?;
    report.look_after_notes(context).await?;
    Ok(report)
}

impl CollectReport {
    /// Behind the data: sessions that died have ended by now. An instance that is damaged
    /// was named already, and keeps its log.
    async fn look_after_log(&mut self, context: &Context) -> Result<()> {
        for instance in context.repo.instances().await? {
            context.check_cancelled()?;
            let planned = async {
                let mut plan = log::plan(context, &instance).await?;
                if self.executed {
                    log::carry_out(context, &instance, &mut plan).await?;
                }
                Ok::<_, Error>(plan)
            };
            let plan = match planned.await {
                Ok(plan) => plan,
                Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported) => {
                    log::left(&instance, &error.to_string())
                }
                Err(error) => return Err(error),
            };
            self.log.extend(plan.deletions);
            self.findings.extend(plan.findings);
        }
        self.deleted_log_objects = self.log.iter().map(|deletion| deletion.objects).sum();
        self.freed_log_bytes = self.log.iter().map(|deletion| deletion.freed_bytes).sum();
        Ok(())
    }

    /// The collection is done by now, or its plan made: what keeps the notes from being
    /// looked at is told and loses nobody the report. To be asked to stop is no such thing.
    async fn look_after_notes(&mut self, context: &Context) -> Result<()> {
        let looked = match self.executed {
            true => notes::prune(context).await,
            false => notes::outdated(context).await.map(|outdated| outdated.len() as u64),
        };
        match looked {
            Ok(notes) => self.deleted_notes = notes,
            Err(error) if error.kind() == ErrorKind::Cancelled => return Err(error),
            Err(error) => self.findings.push(Finding::info(
                context.repo.store().location(),
                format!("old notes of verifications and drills were left: {error}"),
                "`backstay collect` tries again",
            )),
        }
        Ok(())
    }

    /// Whether the error is what an instance was left alone for, and says nothing of
    /// the deletions: those only call the store, and damage is found by reading.
    fn leaves_alone(&self, error: &backstay_repo::Error) -> bool {
        let damage = matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported);
        damage && self.findings.iter().any(|finding| finding.level == FindingLevel::Error)
    }
}

fn report(plan: CollectionPlan, executed: bool) -> CollectReport {
    CollectReport {
        executed,
        deleted_objects: plan.unreferenced_objects(),
        freed_bytes: plan.freed_bytes(),
        ended_sessions: plan.ended,
        deletions: plan.deletions,
        log: Vec::new(),
        deleted_log_objects: 0,
        freed_log_bytes: 0,
        deleted_notes: 0,
        findings: plan.findings,
        failure: None,
    }
}
