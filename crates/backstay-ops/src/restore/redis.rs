//! A base of Redis or Valkey into a directory that its server starts on.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use backstay_engine::postgres::starting::{Starting, shell_word};
use backstay_engine::redis::base::{RedisFacts, SETTINGS, SNAPSHOT};
use backstay_engine::redis::facts::Product;
use backstay_engine::redis::place::{self, FileNames, RedisPlace};
use backstay_engine::redis::programs::{self, RedisPrograms};
use backstay_model::drill::{DrillReport, Proof};
use backstay_model::parts::PartTarget;
use backstay_model::plan::RestorePlan;
use backstay_model::plan::restore::Refusal;
use backstay_model::{ErrorKind, Finding, VerifyLevel};
use backstay_repo::manifest::Manifest;
use backstay_repo::reader::{BackupContents, BackupReader, Depth, OnDamage, RestoreOptions as ReadOptions};
use backstay_repo::sliced::{SlicedPlace, SlicedTarget};

use super::stream::Stream;
use super::{RestoreOptions, RestoreReport, damage, failed, redis_proof};
use crate::clock::Stopwatch;
use crate::context::{Context, off_thread, workers};
use crate::error::{Error, Result};
use crate::instance::{EngineSettings, Instance};

mod set_aside;

/// What the plan says of this base, and every reason against it.
pub(super) async fn look(
    context: &Context,
    instance: &Instance,
    manifest: &Manifest,
    options: &RestoreOptions,
    plan: &mut RestorePlan,
) -> Result<()> {
    let facts = RedisFacts::from_json(&manifest.record.facts)?;
    plan.bytes = facts.snapshot_bytes;
    let replayed: u64 = plan.log.iter().map(|range| range.bytes).sum();
    plan.bytes += replayed;
    if options.set_aside {
        set_aside::look(context, instance, manifest, &options.into, plan).await?;
    } else if let Err(error) = place::check(&options.into, plan.bytes) {
        plan.refuse(Refusal::from_error(&error));
    }
    let bin_directory = match &instance.engine {
        EngineSettings::Redis(settings) => settings.bin_directory.as_deref(),
        _ => None,
    };
    match RedisPrograms::find(&facts.server, bin_directory).await {
        Ok(programs) if options.start => plan.findings.extend(programs.finding(&facts.server)),
        Err(error) if options.start => plan.refuse(Refusal::from_error(&error)),
        // The directory may be meant for another machine.
        Err(error) => plan.findings.extend(programs::unfit(&error)),
        Ok(_) => {}
    }
    for (option, is_given) in
        [("--standby", options.standby.is_some()), ("--tablespace", !options.tablespaces.is_empty())]
    {
        if is_given {
            let message = format!("{option} is not for {}", facts.server.product.name());
            let hint = "leave it out: the directory is restored, and the last line says how to start it";
            plan.refuse(Refusal::new(ErrorKind::Unsupported, message, vec![hint.to_owned()]));
        }
    }
    let (product, version, format) = (facts.server.product.name(), &facts.server.version, facts.rdb_version);
    let or_valkey = match facts.server.product == Product::Redis && programs::valkey_reads(&facts.server) {
        true => ", or Valkey,",
        false => "",
    };
    plan.findings.push(Finding::info(
        "the server",
        format!("the snapshot is of {product} {version}, in version {format} of the format"),
        format!(
            "start {product} of this version or a newer one{or_valkey} on it: an older one does not load it"
        ),
    ));
    let (fact, remedy) = match plan.log.is_empty() {
        true => (
            "the directory serves a server with it and one without, and the first start decides: started without and \
             later with it, the server would load the state of this backup again",
            "start it as its own settings say, and change them with `CONFIG SET appendonly yes` while it runs",
        ),
        false => (
            "what the stream made lies in append-only files: a server without them refuses to start on the directory",
            "start it with `--appendonly yes`; for one that shall not append, `CONFIG SET appendonly no` and `SAVE` then",
        ),
    };
    plan.findings.push(Finding::info("`appendonly`", fact, remedy));
    if rustix::process::geteuid().is_root() && !options.set_aside {
        let into = options.into.display();
        plan.findings.push(Finding::info(
            "the owner",
            "the files will belong to root",
            format!(
                "`chown -R {}: {into}` gives them to its user",
                facts.server.product.name().to_lowercase()
            ),
        ));
    }
    Ok(())
}

/// What lies in a directory.
pub(crate) struct Placed {
    pub directory: PathBuf,
    pub names: FileNames,
    pub facts: RedisFacts,
    /// Of the snapshot, and of what is replayed behind it.
    pub bytes: u64,
    /// The source appends: a server without append-only files is served as well where it does not.
    source_appends: bool,
}

pub(super) async fn run(
    context: &Context,
    instance: &Instance,
    manifest: Manifest,
    options: &RestoreOptions,
    mut plan: RestorePlan,
) -> Result<RestoreReport> {
    let clock = Stopwatch::start();
    let way = if options.set_aside { Standing::SetAside } else { Standing::Empty };
    let placing = place(context, manifest.clone(), &options.into, way, &mut plan).await;
    let mut placed = match placing {
        Ok(placed) => placed,
        Err(error) => return Err(failed(context, options, &manifest, plan.recovery.is_some(), error).await),
    };
    let (mut proof, mut recovery_time_seconds) = (None, None);
    if options.start {
        let EngineSettings::Redis(settings) = &instance.engine else {
            return Err(Error::broken("a base of Redis is of another engine's instance"));
        };
        let expected = redis_proof::expected_at(context, &plan, &placed).await?;
        let mut server = redis_proof::start(context, settings, &placed).await?;
        recovery_time_seconds = Some(clock.seconds());
        let found = redis_proof::ask(context, &mut server, &expected).await?;
        let is_sound = found.is_sound();
        // A snapshot that another product writes is its own, and what wrote the data may not load it.
        let is_same = server.product() == placed.facts.server.product;
        if is_sound && plan.recovery.is_some() && !placed.source_appends && is_same {
            context.progress.enter("write the snapshot");
            let writing = async { Ok(server.write_snapshot(SNAPSHOT_LIMIT).await?) };
            context.unless_cancelled(writing).await?;
            placed.names.appends = false;
        }
        server.stop().await?;
        plan.findings.extend(found.findings);
        let sound = DrillReport::judge(&found.checks, &plan.findings);
        proof = Some(Proof { at: context.clock.now(), sound, checks: found.checks });
    }
    Ok(RestoreReport {
        plan,
        restored_bytes: placed.bytes,
        duration_seconds: clock.seconds(),
        recovery_time_seconds,
        proof,
        can_be_proved: true,
        is_summed_up: placed.facts.has_checksum,
        starting: Some(starting(&options.into, &placed.names, &placed.facts)),
    })
}

/// What may lie in a directory before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    Empty,
    /// The files of a stopped server, which are kept.
    SetAside,
}

/// Puts a base into a directory, with what the plan says of the stream. Stored data of the base that
/// turns out to be damaged is noted.
pub(crate) async fn place(
    context: &Context,
    manifest: Manifest,
    into: &Path,
    standing: Standing,
    plan: &mut RestorePlan,
) -> Result<Placed> {
    let placed = put(context, manifest.clone(), into, standing, plan).await;
    if let Err(error) = &placed
        && let Some(seen) = damage::seen_in(error, &manifest)
        // What the stream lacks is no damage of the base.
        && !seen.damaged_objects.is_empty()
    {
        damage::note(context, &manifest.record.instance, VerifyLevel::Digest, seen).await;
    }
    placed
}

async fn put(
    context: &Context,
    manifest: Manifest,
    into: &Path,
    standing: Standing,
    plan: &mut RestorePlan,
) -> Result<Placed> {
    let facts = RedisFacts::from_json(&manifest.record.facts)?;
    let reader = BackupReader::new(Arc::clone(&context.repo), manifest);
    let mut contents = reader.contents().await?;
    let read = move || {
        let names = names_in(&mut contents)?;
        Ok((SlicedPlace::read(&mut contents, SNAPSHOT)?, names))
    };
    let (sliced, mut names) = off_thread(read).await?;
    if sliced.length != facts.snapshot_bytes {
        return Err(Error::broken("the facts of the backup and its recipe differ"));
    }
    context.check_cancelled()?;
    let (directory, called, length) = (into.to_owned(), names.clone(), sliced.length);
    let aside = set_aside::name(context.clock.now());
    let begin = move || match standing {
        Standing::Empty => Ok(RedisPlace::begin(&directory, called, length)?),
        Standing::SetAside => Ok(RedisPlace::begin_beside(&directory, called, length, aside)?),
    };
    let begun = off_thread(begin).await?;
    let target = Arc::new(SlicedTarget::new(sliced, begun.snapshot(), begun.beside()));
    context.progress.begin("place", length);
    let reading = ReadOptions { workers: workers(), on_damage: OnDamage::Stop, depth: Depth::Frames };
    let parts: Arc<dyn PartTarget> = Arc::<SlicedTarget>::clone(&target);
    reader.restore(Some(parts), reading, Arc::clone(&context.progress), &context.cancel).await?;
    context.check_cancelled()?;
    let target = Arc::into_inner(target)
        .ok_or_else(|| Error::broken("the target of a restore is still in use after its end"))?;
    target.finish()?;
    let source_appends = names.appends;
    let (begun, replayed) = match &plan.recovery {
        Some(recovery) => {
            names.appends = true;
            let stream =
                Stream { context, instance: &plan.instance, recovery, ranges: &plan.log, facts: &facts };
            let (begun, written) = stream.write(begun).await?;
            plan.findings.extend(written.finding);
            let position = plan.reached.as_mut().and_then(|reached| reached.position.as_mut());
            if let Some((id, said)) =
                position.and_then(|said| Some((said.rsplit_once('@')?.0.to_owned(), said)))
            {
                *said = format!("{id}@{}", written.offset);
            }
            (begun, written.bytes)
        }
        None => (begun, 0),
    };
    context.progress.enter("make it durable");
    let aside = off_thread(move || Ok(begun.settle()?)).await?;
    plan.findings.extend(aside.map(|aside| set_aside::told(&aside)));
    Ok(Placed { directory: into.to_owned(), names, facts, bytes: length + replayed, source_appends })
}

/// As the settings in a backup say it.
fn names_in(contents: &mut BackupContents) -> Result<FileNames> {
    Ok(contents.read(SETTINGS)?.map(|settings| FileNames::of(&settings)).unwrap_or_default())
}

/// So long a server may take to write all that it holds.
const SNAPSHOT_LIMIT: Duration = Duration::from_secs(3600);

/// The server is started as its own user, whose directory it has to be.
fn starting(directory: &Path, called: &FileNames, facts: &RedisFacts) -> Starting {
    let program = facts.server.product.name().to_lowercase();
    let directory: PathBuf = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
    Starting::Command(format!(
        "{program}-server --dir {} --dbfilename {} --appenddirname {} --appendfilename {} --appendonly {}{}",
        shell_word(directory.as_os_str()),
        shell_word(OsStr::new(&called.snapshot)),
        shell_word(OsStr::new(&called.append_only_directory)),
        shell_word(OsStr::new(&called.append_only)),
        if called.appends { "yes" } else { "no" },
        databases(&directory).map(|count| format!(" --databases {count}")).unwrap_or_default(),
    ))
}

/// Where the source had more than a server has by itself: one that replays commands of a database that
/// it does not have would run them in another one.
fn databases(directory: &Path) -> Option<u32> {
    let settings = std::fs::read(directory.join(SETTINGS)).ok()?;
    let settings: serde_json::Value = serde_json::from_slice(&settings).ok()?;
    settings["databases"].as_str()?.parse().ok().filter(|count| *count > USUAL_DATABASES)
}

/// Of Redis and Valkey.
const USUAL_DATABASES: u32 = 16;
