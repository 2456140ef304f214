//! The engine's side of a backup, begun on either way in.

use std::collections::BTreeMap;

use backstay_engine::postgres::connect::{Session, column};
use backstay_engine::postgres::local::LocalBackup;
use backstay_engine::postgres::remote::{IncrementParent, RemoteBackup, RemoteOptions};
use backstay_engine::postgres::schema::Schemas;
use backstay_engine::postgres::{BackupFacts, Outcome};
use backstay_engine::redis::base::{RedisBase, SNAPSHOT};
use backstay_engine::redis::settings::Address;
use backstay_model::Finding;
use backstay_model::parts::PartSource;
use backstay_repo::reader::BackupReader;
use backstay_repo::sliced::{SlicedParent, SlicedSource};
use backstay_repo::writer::BackupWriter;

use super::asked::Asked;
use super::beside::Beside;
use super::saved;
use super::taken::Taken;
use super::unless_stopped;
use crate::context::{Context, off_thread};
use crate::error::{Error, Result};
use crate::instance::{EngineSettings, Instance};
use crate::way::Way;

/// About how many bytes the databases have, for the progress alone: zero, which
/// means unknown, when the server does not say.
pub(super) async fn size_bytes(session: &Session) -> u64 {
    const STATEMENT: &str = "SELECT coalesce(sum(pg_database_size(oid)), 0)::int8 FROM pg_database \
                             WHERE has_database_privilege(oid, 'CONNECT')";
    let size = match session.row("ask for the size of the databases", STATEMENT, &[]).await {
        Ok(row) => column::<i64>(&row, 0).unwrap_or(0),
        Err(_) => 0,
    };
    u64::try_from(size).unwrap_or(0)
}

/// Begins the backup at the server. The last value is the server's own estimate
/// of the bytes to come, where it makes one.
pub(super) async fn start(
    context: &Context,
    instance: &Instance,
    asked: &Asked,
    writer: &mut BackupWriter,
    begun: Option<RedisBase>,
) -> Result<(Box<dyn PartSource>, Taken, Option<u64>)> {
    let way = match asked {
        Asked::Postgresql { way, .. } => *way,
        Asked::Redis { address, .. } => return start_redis(context, instance, address, writer, begun).await,
    };
    let address = instance.postgres()?.address()?;
    let before = writer.keep_alive(unless_stopped(context, Schemas::look(&address))).await;
    context.progress.enter("wait for the checkpoint");
    let (source, outcome, estimated) = start_postgres(context, instance, way, writer).await?;
    let taken = Taken::Postgresql { outcome, address: Box::new(address), before, schemas: BTreeMap::new() };
    Ok((source, taken, estimated))
}

/// A snapshot comes as one stream, and is compared slice by slice.
async fn start_redis(
    context: &Context,
    instance: &Instance,
    address: &Address,
    writer: &mut BackupWriter,
    begun: Option<RedisBase>,
) -> Result<(Box<dyn PartSource>, Taken, Option<u64>)> {
    let EngineSettings::Redis(settings) = &instance.engine else {
        return Err(Error::broken("another engine was asked"));
    };
    // What has to be stored again must not be carried on as it is.
    let parent = match writer.parent().filter(|_| !writer.wants_rebase()) {
        Some(parent) => {
            let manifest = context.repo.manifest(&parent.instance, &parent.id).await?;
            let reader = BackupReader::new(context.repo.clone(), manifest);
            let open = async {
                let contents = reader.contents().await?;
                off_thread(move || Ok(SlicedParent::open(SNAPSHOT, contents)?)).await
            };
            // Before the server is asked for a snapshot: it would wait for us meanwhile, and not for long.
            Some(writer.keep_alive(context.unless_cancelled(open)).await?)
        }
        None => None,
    };
    context.progress.enter("wait for the snapshot");
    let begin = async {
        match begun {
            Some(begun) => Ok(begun),
            None => saved::begin(address, instance, settings, context.cancel.clone()).await,
        }
    };
    let base = writer.keep_alive(context.unless_cancelled(begin)).await?;
    let keys = context.repo.seal_keys().clone();
    let sliced = SlicedSource::new(SNAPSHOT, base.snapshot, keys, parent);
    let taken = Taken::Redis { outcome: base.outcome, given_up: sliced.given_up() };
    let source = Beside { first: Some(base.beside), then: Box::new(sliced) };
    Ok((Box::new(source), taken, Some(base.estimated_bytes)))
}

async fn start_postgres(
    context: &Context,
    instance: &Instance,
    way: Way,
    writer: &mut BackupWriter,
) -> Result<(Box<dyn PartSource>, Outcome, Option<u64>)> {
    let settings = instance.postgres()?;
    // The server's log and `pg_stat_replication` then say whose it is.
    let label = format!("backstay {}", writer.id());
    match way {
        Way::Local => {
            // The server may spread its checkpoint over longer than the lease.
            let begin = LocalBackup::start(settings, &label, context.cancel.clone());
            let (source, outcome) = writer.keep_alive(begin).await?;
            Ok((Box::new(source), outcome, None))
        }
        Way::Remote => {
            let outcome = Outcome::new();
            let parent = increment_parent(context, writer, &outcome).await?;
            let options = RemoteOptions { label, parent };
            let address = settings.address()?;
            let begin = RemoteBackup::start(&address, options, outcome.clone(), context.cancel.clone());
            let source = writer.keep_alive(begin).await?;
            let estimated = source.estimated_bytes();
            Ok((Box::new(source), outcome, Some(estimated)))
        }
    }
}

/// What the server may build on. Nothing when blocks of the parent have to be
/// stored again: then they must travel. Nor when the parent holds pages that were
/// wrong: the server sends again only what changed, so nobody would look at them
/// again, and the backup that took them over would look clean.
async fn increment_parent(
    context: &Context,
    writer: &BackupWriter,
    outcome: &Outcome,
) -> Result<Option<IncrementParent>> {
    let Some(parent) = writer.parent() else { return Ok(None) };
    if writer.wants_rebase() {
        return Ok(None);
    }
    let facts = BackupFacts::from_json(&parent.facts)?;
    if !parent.is_clean() {
        // Without summaries no increment is asked for, and there is nothing to explain.
        if facts.server.settings.get("summarize_wal").is_some_and(|on| on == "on") {
            outcome.find(Finding::info(
                parent.id.as_str(),
                "wrong pages were found while this backup was taken, so all blocks were read again \
                 instead of the changed ones",
                format!("`backstay show {}` names the pages", parent.id),
            ));
        }
        return Ok(None);
    }
    let manifest = context.repo.manifest(&parent.instance, &parent.id).await?;
    let files = BackupReader::new(context.repo.clone(), manifest).files().await?;
    Ok(Some(IncrementParent::new(&facts, Box::new(files))))
}
