//! A base of Redis or Valkey as the file that its server loads.
//!
//! The slices of a snapshot lie in the order in which they were new, not in its own. So it is put
//! together in the spool, as a restore does it and with the checks of one, and packed from there:
//! an export needs room for the snapshot in `dump.spool`, or else where it goes.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use backstay_engine::redis::base::{RedisFacts, SNAPSHOT};
use backstay_engine::redis::place::{FileNames, RedisPlace};
use backstay_model::dump::{DumpCipher, DumpCompression, DumpFormat, DumpShape};
use backstay_model::parts::PartTarget;
use backstay_model::{EngineKind, Finding};
use backstay_repo::dump::{DumpError, DumpRecipe};
use backstay_repo::manifest::Manifest;
use backstay_repo::reader::{BackupReader, Depth, OnDamage, RestoreOptions};
use backstay_repo::sliced::{SlicedPlace, SlicedTarget};
use bytes::Bytes;

use super::destination::{Destination, Ready};
use super::dump::strangely_named;
use super::outlet::Outlet;
use super::spool::{Spool, too_small};
use super::{ExportOptions, ExportReport};
use crate::clock::Stopwatch;
use crate::context::{Context, off_thread, workers};
use crate::dump::DumpPolicy;
use crate::error::{Error, Result};

const PIECE_BYTES: usize = 1 << 20;

pub(super) async fn run(
    context: &Context,
    policy: &DumpPolicy,
    manifest: Manifest,
    options: &ExportOptions,
) -> Result<ExportReport> {
    let watch = Stopwatch::start();
    let record = manifest.record.clone();
    let facts = RedisFacts::from_json(&record.facts)?;
    let (shape, level) = shape(policy, options)?;
    let recipe = DumpRecipe { shape, level, workers: workers() };
    recipe.check()?;
    if shape.cipher != DumpCipher::None && policy.passphrase.is_none() {
        return Err(backstay_repo::Error::from(DumpError::NoPassphrase).into());
    }
    let time = record.started_at.strftime("%Y%m%d_%H%M%S");
    let own_name = format!("{}_{time}.{}", EngineKind::Redis, shape.extension());
    let (destination, path) = Destination::of_file(&options.to, &own_name)?;
    destination.must_be_free(&path)?;
    let exported = async {
        destination.sweep().await;
        let parent = policy.spool.clone().unwrap_or_else(|| destination.directory().to_owned());
        let spool = Spool::make(&parent)?;
        let snapshot = place(context, manifest, &spool.path.join("data"), facts.snapshot_bytes).await?;
        context.progress.begin("pack", facts.snapshot_bytes);
        let passphrase = policy.passphrase.as_ref();
        let mut outlet = Outlet::begin(&destination, &context.cancel, path, &recipe, passphrase).await?;
        let packed = pack(context, &snapshot, &mut outlet).await;
        let ((), ready): ((), Ready) = outlet.end(packed).await?;
        destination.publish(vec![ready]).await
    }
    .await;
    let files = destination.leave(exported).await?;
    let Some(file) = files.first() else {
        return Err(Error::broken("a base that was exported is a file"));
    };
    let mut findings = facts.findings();
    findings.push(beside());
    findings.extend(strangely_named(&file.path, &shape));
    Ok(ExportReport {
        id: record.id.clone(),
        instance: record.instance.clone(),
        backup_type: "base",
        of: "the whole server".to_owned(),
        shape,
        raw_bytes: file.raw_bytes,
        stored_bytes: file.stored_bytes,
        sha256: file.sha256.clone(),
        duration_seconds: watch.seconds(),
        opened_with: shape.opened_with(),
        files,
        findings,
    })
}

/// What is asked for, else what the policy says, as far as it fits.
fn shape(policy: &DumpPolicy, options: &ExportOptions) -> Result<(DumpShape, Option<i32>)> {
    let (compression, level) = match options.compression {
        Some((DumpCompression::Inside, _)) => {
            return Err(Error::DumpShape {
                reason: "a snapshot of Redis is no archive of `pg_dump`",
                hint: "choose `--compress gzip`, `zstd` or `none`",
            });
        }
        Some(asked) => asked,
        None => match policy.shape.compression {
            DumpCompression::Inside => (DumpCompression::Gzip, None),
            other => (other, policy.level),
        },
    };
    let cipher = options.cipher.unwrap_or(policy.shape.cipher);
    Ok((DumpShape { format: DumpFormat::Rdb, compression, cipher }, level))
}

fn beside() -> Finding {
    Finding::info(
        "users and settings",
        "the file holds the data and the functions of the server, and neither its users nor its settings",
        "`backstay restore … --into DIR` of this backup has them below `beside`",
    )
}

/// Puts the snapshot together, checks it by its own sum, and says where it lies.
async fn place(context: &Context, manifest: Manifest, into: &Path, length: u64) -> Result<PathBuf> {
    let reader = BackupReader::new(Arc::clone(&context.repo), manifest);
    let mut contents = reader.contents().await?;
    let sliced = off_thread(move || Ok(SlicedPlace::read(&mut contents, SNAPSHOT)?)).await?;
    if sliced.length != length {
        return Err(Error::broken("the facts of the backup and its recipe differ"));
    }
    let names = FileNames::default();
    let snapshot = into.join(&names.snapshot);
    let directory = into.to_owned();
    let begin = move || RedisPlace::begin(&directory, names, length).map_err(too_small);
    let begun = off_thread(begin).await?;
    let target = Arc::new(SlicedTarget::new(sliced, begun.snapshot(), begun.beside()));
    context.progress.begin("place", length);
    let reading = RestoreOptions { workers: workers(), on_damage: OnDamage::Stop, depth: Depth::Frames };
    let parts: Arc<dyn PartTarget> = Arc::<SlicedTarget>::clone(&target);
    reader.restore(Some(parts), reading, Arc::clone(&context.progress), &context.cancel).await?;
    context.check_cancelled()?;
    let target = Arc::into_inner(target)
        .ok_or_else(|| Error::broken("the target of a restore is still in use after its end"))?;
    target.finish()?;
    off_thread(move || Ok(begun.settle()?)).await?;
    Ok(snapshot)
}

async fn pack(context: &Context, snapshot: &Path, outlet: &mut Outlet<'_>) -> Result<()> {
    let failed = |path: PathBuf| move |source| Error::from(backstay_engine::Error::Read { path, source });
    let mut file = File::open(snapshot).map_err(failed(snapshot.to_owned()))?;
    loop {
        let failed = failed(snapshot.to_owned());
        let read = off_thread(move || {
            let mut piece = vec![0; PIECE_BYTES];
            let count = file.read(&mut piece).map_err(failed)?;
            piece.truncate(count);
            Ok((file, Bytes::from(piece)))
        });
        let (rest, piece) = read.await?;
        if piece.is_empty() {
            return Ok(());
        }
        file = rest;
        let count = piece.len() as u64;
        outlet.write(piece).await?;
        context.progress.done(count);
    }
}
