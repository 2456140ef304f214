//! Place: the files of a backup into empty directories, `pg_control` last.

use std::path::PathBuf;
use std::sync::Arc;

use backstay_engine::postgres::BackupFacts;
use backstay_engine::postgres::facts::Owner;
use backstay_engine::postgres::place::{PlaceOptions, PlacePlan, PlaceTarget, SealOptions, SpaceNeeded};
use backstay_model::parts::PartTarget;
use backstay_model::{BackupRecord, Finding};
use backstay_repo::manifest::Manifest;
use backstay_repo::reader::{BackupReader, Depth, OnDamage, RestoreOptions};

use crate::clock::Stopwatch;
use crate::context::{Context, off_thread, workers};
use crate::error::{Error, Result};

/// Where the files go.
#[derive(Debug, Clone)]
pub(crate) struct Where {
    pub directory: PathBuf,
    /// `OLD=NEW` of tablespaces.
    pub moved: Vec<(String, PathBuf)>,
}

/// A directory that can be started.
pub(crate) struct Placed {
    pub directory: PathBuf,
    pub record: BackupRecord,
    pub facts: BackupFacts,
    pub bytes: u64,
    pub seconds: f64,
    /// What a person should know before the server takes up work.
    pub findings: Vec<Finding>,
}

/// Whether the directories are fit, without writing anything.
pub(crate) async fn check(context: &Context, manifest: Manifest, place: &Where) -> Result<()> {
    let facts = BackupFacts::from_json(&manifest.record.facts)?;
    let reader = BackupReader::new(Arc::clone(&context.repo), manifest);
    fit(&reader, &facts, place).await.map(drop)
}

async fn fit(reader: &BackupReader, facts: &BackupFacts, place: &Where) -> Result<PlacePlan> {
    let mut files = reader.files().await?;
    let options = PlaceOptions {
        directory: place.directory.clone(),
        tablespaces: facts.server.tablespaces.clone(),
        late_tablespaces: facts.late_tablespaces.clone(),
        moved: place.moved.clone(),
        owner: owner(facts),
    };
    off_thread(move || {
        let needed = SpaceNeeded::of(&mut files)?;
        Ok(PlacePlan::check(&options, &needed)?)
    })
    .await
}

/// The owner of the source's directory, where we may give files away at all.
fn owner(facts: &BackupFacts) -> Option<Owner> {
    if rustix::process::geteuid().is_root() { facts.owner } else { None }
}

pub(crate) async fn run(context: &Context, manifest: Manifest, place: &Where) -> Result<Placed> {
    let watch = Stopwatch::start();
    let record = manifest.record.clone();
    let facts = BackupFacts::from_json(&record.facts)?;
    let reader = BackupReader::new(Arc::clone(&context.repo), manifest);
    let plan = fit(&reader, &facts, place).await?;
    context.check_cancelled()?;
    let target = Arc::new(off_thread(move || Ok(plan.begin()?)).await?);

    context.progress.begin("place", record.statistics.logical_bytes);
    let options = RestoreOptions { workers: workers(), on_damage: OnDamage::Stop, depth: Depth::Frames };
    let parts: Arc<dyn PartTarget> = Arc::<PlaceTarget>::clone(&target);
    reader.restore(Some(parts), options, Arc::clone(&context.progress), &context.cancel).await?;

    context.progress.enter("make it durable");
    context.check_cancelled()?;
    let mut files = reader.files().await?;
    let target = Arc::into_inner(target)
        .ok_or_else(|| Error::broken("the target of a restore is still in use after its end"))?;
    let sealing = facts.clone();
    let sealed = off_thread(move || Ok(target.seal(&mut files, &sealing, &SealOptions::default())?)).await?;
    let seconds = watch.seconds();
    let (directory, bytes, findings) = (sealed.directory, sealed.bytes, sealed.findings);
    Ok(Placed { directory, record, facts, bytes, seconds, findings })
}
