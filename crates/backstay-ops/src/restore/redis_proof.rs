//! A private server on a restored copy of Redis, asked whether it holds what its source held.
//!
//! The archive asks the source now and then how full its databases are, and notes at which offset of
//! the stream that was: a copy that ends there has to be exactly as full. Of every other place it is
//! known about how full it has to be.

use std::collections::BTreeMap;

use backstay_engine::redis::RedisSettings;
use backstay_engine::redis::facts::DatabaseFacts;
use backstay_engine::redis::lineage::log_id;
use backstay_engine::redis::prove::{self, Expected, ProveOptions, RedisProof};
use backstay_engine::redis::scratch::{Form, ScratchOptions, ScratchServer};
use backstay_model::LogSpan;
use backstay_model::plan::RestorePlan;

use super::redis::Placed;
use crate::archive::redis::instants::{SpanFacts, Witness};
use crate::context::Context;
use crate::error::{Error, Result};

/// Starts it, and waits until it has loaded everything.
pub(crate) async fn start(
    context: &Context,
    settings: &RedisSettings,
    placed: &Placed,
) -> Result<ScratchServer> {
    context.progress.enter("start a private server");
    let form = if placed.names.appends { Form::AppendOnly } else { Form::Snapshot };
    let bin_directory = settings.bin_directory.clone();
    let options = ScratchOptions { bin_directory, form, ..ScratchOptions::default() };
    let source = &placed.facts.server;
    Ok(ScratchServer::start(&placed.directory, &placed.names, source, &options, &context.cancel).await?)
}

/// The answers. Whoever asked stops the server.
pub(crate) async fn ask(
    context: &Context,
    server: &mut ScratchServer,
    expected: &Expected,
) -> Result<RedisProof> {
    context.progress.enter("prove");
    let options = ProveOptions::default();
    let asked = async { Ok(prove::prove(server, expected, &options).await?) };
    match context.unless_cancelled(asked).await {
        Err(Error::Engine(lost)) if prove::broke_off(&lost) => Err(server.why_lost(lost).await.into()),
        asked => asked,
    }
}

/// What the copy has to hold that a plan makes.
pub(crate) async fn expected_at(context: &Context, plan: &RestorePlan, placed: &Placed) -> Result<Expected> {
    let (Some(recovery), Some(last)) = (&plan.recovery, plan.log.last()) else {
        return Ok(Expected::of(&placed.facts));
    };
    let log = log_id(&recovery.lineage, last.timeline);
    let there = context.repo.timeline_log(&plan.instance, &log).await?;
    let mut newest: Option<Witness> = None;
    // Those of the last objects are enough: they say about how full it has to be.
    let near = there.objects.iter().rev().filter(|object| object.span.start < last.to.0);
    for object in near.take(LOOKS) {
        for witness in witnesses(context, plan, &log, object.span).await? {
            let is_nearer = newest.as_ref().is_none_or(|newest| newest.offset < witness.offset);
            if witness.offset <= last.to.0 && is_nearer {
                newest = Some(witness);
            }
        }
        if newest.is_some() {
            break;
        }
    }
    Ok(match newest {
        Some(Witness { offset, databases }) => {
            Expected { databases: Some(databases), is_exact: offset == last.to.0, digest: None }
        }
        None => {
            // Nobody knows what the stream has made of it: also nothing at all.
            let unknown = BTreeMap::<u32, DatabaseFacts>::new();
            Expected { databases: Some(unknown), is_exact: false, digest: None }
        }
    })
}

/// So many objects are looked at.
pub(crate) const LOOKS: usize = 8;

/// What the source said of itself within an object of the log.
async fn witnesses(
    context: &Context,
    plan: &RestorePlan,
    log: &backstay_model::LogId,
    span: LogSpan,
) -> Result<Vec<Witness>> {
    let there = context.repo.timeline_log(&plan.instance, log).await?;
    let Some(object) = there.objects.iter().find(|object| object.span == span) else { return Ok(Vec::new()) };
    let glance = context.repo.glance_at_log(&plan.instance, log, *object).await?;
    let facts = serde_json::from_value::<SpanFacts>(glance.head.facts);
    Ok(facts.map(|facts| facts.witnesses).unwrap_or_default())
}
