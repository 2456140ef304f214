//! A base backup as tar archives that need nothing but `tar`.
//!
//! The backup is restored into a private directory first and packed from there. A restore
//! reads every frame once, in the order in which frames lie and by several threads, while
//! a tar archive wants one whole file after the other, and the settings and the manifest
//! of a restored directory are known only when all of it is there. So an export needs
//! room for the database: in `dump.spool`, or else where the export goes. The rows lie
//! there in plain text for as long as it takes, also where the export is encrypted.
//!
//! The archive of the data directory gets its name last: whoever finds it finds all.
//!
//! Nothing of the repository's layers is left in the archives: whole files come out,
//! however many backups they are strewn over.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use backstay_engine::postgres::BackupFacts;
use backstay_engine::postgres::base_tar::{BaseTar, TarOwner};
use backstay_engine::postgres::facts::Tablespace;
use backstay_engine::postgres::place::{PlaceOptions, PlacePlan, PlaceTarget, SealOptions, SpaceNeeded};
use backstay_engine::postgres::rules;
use backstay_model::dump::{DumpCipher, DumpCompression, DumpFormat, DumpShape};
use backstay_model::parts::PartTarget;
use backstay_model::{BackupId, EngineKind, Finding};
use backstay_repo::dump::{DumpError, DumpRecipe};
use backstay_repo::manifest::Manifest;
use backstay_repo::reader::{BackupReader, Depth, OnDamage, RestoreOptions};

use super::destination::{self, Destination, Ready};
use super::outlet::Outlet;
use super::redis;
use super::spool::{Spool, too_small};
use super::{ExportOptions, ExportReport};
use crate::clock::Stopwatch;
use crate::context::{Context, off_thread, workers};
use crate::dump::DumpPolicy;
use crate::error::{Error, Result};
use crate::instance::only_postgres;
use crate::list;

/// Exports a base backup by its id.
pub async fn run(
    context: &Context,
    policy: &DumpPolicy,
    id: &BackupId,
    options: &ExportOptions,
) -> Result<ExportReport> {
    let watch = Stopwatch::start();
    let (record, _) = list::find(context, id).await?;
    let manifest = context.repo.manifest(&record.instance, id).await?;
    if record.engine == EngineKind::Redis {
        return redis::run(context, policy, manifest, options).await;
    }
    only_postgres(&record)?;
    let facts = BackupFacts::from_json(&record.facts)?;
    let (shape, level) = shape(policy, options)?;
    let recipe = DumpRecipe { shape, level, workers: workers() };
    recipe.check()?;
    if shape.cipher != DumpCipher::None && policy.passphrase.is_none() {
        return Err(backstay_repo::Error::from(DumpError::NoPassphrase).into());
    }
    let is_moved = |space: &&Tablespace| space.location.starts_with('/');
    let spaces: Vec<&Tablespace> = facts.server.tablespaces.iter().filter(is_moved).collect();
    let is_file = single(&options.to).is_some();
    if !is_file && !destination::is_directory(&options.to) {
        return Err(Error::ExportPlace {
            path: options.to.clone(),
            reason: "no directory of that name is there, and that of one archive ends with .tar, .tar.gz or \
                     .tar.zst, and .enc or .gpg after it"
                .to_owned(),
        });
    }
    if is_file && !spaces.is_empty() {
        return Err(Error::ExportPlace {
            path: options.to.clone(),
            reason: "the backup has tablespaces, each of which is an archive of its own".to_owned(),
        });
    }
    let extension = shape.extension();
    let (destination, first) = match is_file {
        true => Destination::of_file(&options.to, "")?,
        false => {
            let destination = Destination::of(&options.to)?;
            let first = destination.name(&format!("base.{extension}"))?;
            (destination, first)
        }
    };
    let mut archives = vec![(PathBuf::from("data"), first)];
    for Tablespace { oid, .. } in &spaces {
        archives.push((PathBuf::from(oid.to_string()), destination.name(&format!("{oid}.{extension}"))?));
    }
    for (_, path) in &archives {
        destination.must_be_free(path)?;
    }
    let exported = async {
        destination.sweep().await;
        let parent = policy.spool.clone().unwrap_or_else(|| destination.directory().to_owned());
        let spool = Spool::make(&parent)?;
        let (owner, findings) = place(context, manifest, &facts, &spool.path).await?;
        context.progress.begin("pack", record.statistics.logical_bytes);
        let mut ready: Vec<Ready> = Vec::new();
        for (directory, path) in archives {
            let passphrase = policy.passphrase.as_ref();
            let mut outlet = Outlet::begin(&destination, &context.cancel, path, &recipe, passphrase).await?;
            let filled = async {
                let mut tar = BaseTar::of(&spool.path.join(directory), owner);
                while let Some(chunk) = tar.next().await? {
                    let count = chunk.len() as u64;
                    outlet.write(chunk).await?;
                    context.progress.done(count);
                }
                Ok(())
            }
            .await;
            let ((), written) = outlet.end(filled).await?;
            ready.push(written);
        }
        Ok((destination.publish(ready).await?, findings))
    }
    .await;
    let (files, mut findings) = destination.leave(exported).await?;
    let of_space = |oid: u32| {
        let archive = files.iter().find(|file| file.path.ends_with(&format!("/{oid}.{extension}")));
        archive.map_or_else(String::new, |file| file.path.clone())
    };
    findings.extend(spaces.iter().map(|space| leads_to_the_source(space, &of_space(space.oid))));
    findings.extend(facts.late_tablespaces.iter().filter(is_moved).map(comes_out_of_the_log));
    let sha256 = files.first().map(|file| file.sha256.clone()).unwrap_or_default();
    Ok(ExportReport {
        id: id.clone(),
        instance: record.instance.clone(),
        backup_type: "base",
        of: "the whole server".to_owned(),
        shape,
        raw_bytes: files.iter().map(|file| file.raw_bytes).sum(),
        stored_bytes: files.iter().map(|file| file.stored_bytes).sum(),
        sha256,
        files,
        duration_seconds: watch.seconds(),
        opened_with: shape.opened_before("tar -x"),
        findings,
    })
}

/// A copy that is started where the source lives shares its tablespaces, and writes there.
fn leads_to_the_source(space: &Tablespace, archive: &str) -> Finding {
    Finding::warning(
        archive,
        format!(
            "`tablespace_map` leads tablespace {} to {}: a copy that is started beside the server that was \
             backed up writes into that server's own files",
            space.name, space.location
        ),
        format!(
            "unpack it into a new directory, and name that one in the line of {} in `tablespace_map` before the \
             first start",
            space.oid
        ),
    )
}

/// The log makes it at the first start, at its old place.
fn comes_out_of_the_log(space: &Tablespace) -> Finding {
    Finding::warning(
        space.location.as_str(),
        format!(
            "tablespace {} was made while the backup was taken: a copy that is started makes it there, also where \
             the server that was backed up has its own files",
            space.name
        ),
        "start the copy on another machine, or `backstay restore` this backup, which takes care of it",
    )
}

/// The compression and the cipher that a name of one archive promises.
fn single(to: &Path) -> Option<(DumpCompression, DumpCipher)> {
    if destination::is_directory(to) {
        return None;
    }
    let name = to.file_name()?.to_str()?;
    let (name, cipher) = match name.rsplit_once('.') {
        Some((rest, "enc")) => (rest, DumpCipher::Openssl),
        Some((rest, "gpg")) => (rest, DumpCipher::Openpgp),
        _ => (name, DumpCipher::None),
    };
    let (name, compression) = match name.rsplit_once('.') {
        Some((rest, "gz")) => (rest, DumpCompression::Gzip),
        Some((rest, "zst")) => (rest, DumpCompression::Zstd),
        _ => (name, DumpCompression::None),
    };
    name.strip_suffix(".tar").filter(|stem| !stem.is_empty()).map(|_| (compression, cipher))
}

fn shape(policy: &DumpPolicy, options: &ExportOptions) -> Result<(DumpShape, Option<i32>)> {
    let promised = single(&options.to);
    let (compression, level) = match (options.compression, promised) {
        (Some((DumpCompression::Inside, _)), _) => {
            return Err(Error::DumpShape {
                reason: "a base backup is no archive of `pg_dump`",
                hint: "choose `--compress zstd`, `gzip` or `none`",
            });
        }
        (Some(asked), _) => asked,
        (None, Some((compression, _))) => (compression, None),
        (None, None) => match policy.shape.compression {
            DumpCompression::Inside => (DumpCompression::Zstd, None),
            other => (other, policy.level),
        },
    };
    let of_name = promised.map(|(_, cipher)| cipher);
    let cipher = options.cipher.or(of_name).unwrap_or(policy.shape.cipher);
    if promised.is_some_and(|promised| promised != (compression, cipher)) {
        return Err(Error::DumpShape {
            reason: "the name of the file says that it is packed in another way",
            hint: "let the name in `--to` end as the file is packed, such as `.tar.zst`, or name a directory",
        });
    }
    Ok((DumpShape { format: DumpFormat::Directory, compression, cipher }, level))
}

/// Restores into the spool; whose the files are, and what a person should know.
async fn place(
    context: &Context,
    manifest: Manifest,
    facts: &BackupFacts,
    spool: &Path,
) -> Result<(Option<TarOwner>, Vec<Finding>)> {
    let reader = BackupReader::new(Arc::clone(&context.repo), manifest);
    let total = reader.manifest().record.statistics.logical_bytes;
    // Those that were made meanwhile come out of the log, at their own places.
    let facts = BackupFacts { late_tablespaces: Vec::new(), ..facts.clone() };
    let moved = facts.server.tablespaces.iter().filter(|space| space.location.starts_with('/'));
    let options = PlaceOptions {
        directory: spool.join("data"),
        tablespaces: facts.server.tablespaces.clone(),
        late_tablespaces: Vec::new(),
        moved: moved.map(|space| (space.oid.to_string(), spool.join(space.oid.to_string()))).collect(),
        owner: facts.owner.clone().filter(|_| rustix::process::geteuid().is_root()),
    };
    let mut files = reader.files().await?;
    let begin = move || {
        let needed = SpaceNeeded::of(&mut files)?;
        let plan = PlacePlan::check(&options, &needed).map_err(too_small)?;
        Ok(plan.begin()?)
    };
    let target = Arc::new(off_thread(begin).await?);
    context.progress.begin("place", total);
    let options = RestoreOptions { workers: workers(), on_damage: OnDamage::Stop, depth: Depth::Frames };
    let parts: Arc<dyn PartTarget> = Arc::<PlaceTarget>::clone(&target);
    reader.restore(Some(parts), options, Arc::clone(&context.progress), &context.cancel).await?;
    context.check_cancelled()?;
    let target = Arc::into_inner(target)
        .ok_or_else(|| Error::broken("the target of a restore is still in use after its end"))?;
    let (mut files, mut again) = (reader.files().await?, reader.files().await?);
    off_thread(move || {
        let sealing = SealOptions { keep_tablespace_map: true, ..SealOptions::default() };
        let sealed = target.seal(&mut files, &facts, &sealing)?;
        let mut owner = None;
        while let Some(record) = again.next_record()? {
            if record.spec.path == rules::CONTROL_FILE {
                owner = Some(TarOwner { user_id: record.spec.user_id, group_id: record.spec.group_id });
            }
        }
        // Of the spool nobody has to know.
        let of_spool = sealed.directory.display().to_string();
        let told =
            |finding: &Finding| ![&finding.subject, &finding.message].iter().any(|t| t.contains(&of_spool));
        Ok((owner, sealed.findings.into_iter().filter(told).collect()))
    })
    .await
}
