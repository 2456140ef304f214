//! The engine's side of a backup, begun on either way in.

use backstay_engine::postgres::connect::{Session, column};
use backstay_engine::postgres::local::LocalBackup;
use backstay_engine::postgres::remote::{IncrementParent, RemoteBackup, RemoteOptions};
use backstay_engine::postgres::{BackupFacts, Outcome};
use backstay_model::Finding;
use backstay_model::parts::PartSource;
use backstay_repo::reader::BackupReader;
use backstay_repo::writer::BackupWriter;

use crate::context::Context;
use crate::error::Result;
use crate::instance::Instance;
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
