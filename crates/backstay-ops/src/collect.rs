//! Collect: delete what nothing refers to.
//!
//! The decision is the repository's plan, and only its remover deletes. A dry run
//! shows the plan and touches nothing.

use backstay_model::Finding;
use backstay_repo::description::Description;
use backstay_repo::protocol::{
    CollectOptions as RepoOptions, Collection, CollectionPlan, Deletion, EndedSession, ProcessIdentity,
};
use serde::Serialize;

use crate::context::Context;
use crate::error::Result;

/// What a person may say of one collection.
#[derive(Debug, Clone, Copy, Default)]
pub struct CollectOptions {
    pub dry_run: bool,
    /// Allow more than the usual share of all objects to go at once.
    pub max_share_percent: Option<u8>,
    /// Go on although a backup vanished that nobody condemned.
    pub accept_loss: bool,
}

#[derive(Debug, Clone, Serialize)]
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
    pub findings: Vec<Finding>,
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
        return Ok(report(collection.preview().await?, false));
    }
    let remover = collection.prepare().await?;
    let planned = report(remover.plan().clone(), true);
    context.progress.enter("delete");
    let done = remover.execute().await?;
    Ok(CollectReport {
        deleted_objects: done.deleted_objects,
        freed_bytes: done.freed_bytes,
        ended_sessions: done.ended,
        findings: done.findings,
        ..planned
    })
}

fn report(plan: CollectionPlan, executed: bool) -> CollectReport {
    CollectReport {
        executed,
        deleted_objects: plan.unreferenced_objects(),
        freed_bytes: plan.freed_bytes(),
        ended_sessions: plan.ended,
        deletions: plan.deletions,
        findings: plan.findings,
    }
}
