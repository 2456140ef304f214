//! A restore into the directory of a stopped server: the old files are kept in it.
//!
//! Refuses where a server is at work in it: one that this machine shows, or the one of the instance,
//! if it answers and says that this is its directory. A file that a server writes behind the back
//! of a restore would be lost with its next save.

use std::path::Path;
use std::sync::Arc;

use backstay_engine::redis::connection::Connection;
use backstay_engine::redis::error::RedisError;
use backstay_engine::redis::{place, saved};
use backstay_model::Finding;
use backstay_model::error::Classified;
use backstay_model::plan::RestorePlan;
use backstay_model::plan::restore::Refusal;
use backstay_repo::manifest::Manifest;
use backstay_repo::reader::BackupReader;
use jiff::Timestamp;

use super::names_in;
use crate::context::{Context, off_thread};
use crate::error::{Error, Result};
use crate::instance::{EngineSettings, Instance};
use crate::status::with_causes;

/// What the plan says of it, and every reason against it.
pub(super) async fn look(
    context: &Context,
    instance: &Instance,
    manifest: &Manifest,
    into: &Path,
    plan: &mut RestorePlan,
) -> Result<()> {
    match context.unless_cancelled(ask(instance, into, plan)).await {
        Err(Error::Engine(error)) => {
            plan.refuse(Refusal::from_error(&error));
            return Ok(());
        }
        asked => asked?,
    }
    let reader = BackupReader::new(Arc::clone(&context.repo), manifest.clone());
    let mut contents = reader.contents().await?;
    let (directory, needed) = (into.to_owned(), plan.bytes);
    let looked = off_thread(move || {
        let names = names_in(&mut contents)?;
        Ok(place::check_stopped(&directory, &names, needed)?)
    });
    match looked.await {
        Err(Error::Engine(error)) => plan.refuse(Refusal::from_error(&error)),
        looked => looked?,
    }
    let into = into.display();
    if let Some(first) = plan.steps.first_mut() {
        *first = format!("check that no server works in {into}, and that there is room beside what it has");
    }
    plan.steps.push(format!(
        "let what lies in {into} under these names change places with it, and keep it in {into}/before-restore-<time>"
    ));
    Ok(())
}

/// The server of the instance should be away, or have another directory.
async fn ask(instance: &Instance, into: &Path, plan: &mut RestorePlan) -> Result<()> {
    let EngineSettings::Redis(settings) = &instance.engine else { return Ok(()) };
    if settings.url.is_empty() {
        return Ok(());
    }
    let address = settings.address()?;
    let mut doubt = |error: &backstay_engine::Error| {
        plan.findings.push(Finding::warning(
            "the server",
            format!("it answers, and does not say which directory is its own: {}", with_causes(error)),
            "make sure that it is stopped, or works elsewhere",
        ));
    };
    let mut connection = match Connection::open(&address).await {
        Ok(connection) => connection,
        Err(error) if error.kind() == backstay_model::ErrorKind::Unavailable => return Ok(()),
        Err(error) => {
            doubt(&error);
            return Ok(());
        }
    };
    match saved::find(&mut connection, into).await {
        Ok(_) => {
            let server = address.endpoint.to_string();
            let error = RedisError::Answers { server, directory: into.to_owned() };
            Err(backstay_engine::Error::from(error).into())
        }
        Err(backstay_engine::Error::Redis(RedisError::DirectoryOfOther { .. })) => Ok(()),
        Err(error) => {
            doubt(&error);
            Ok(())
        }
    }
}

/// Where the old files go.
pub(super) fn name(now: Timestamp) -> String {
    format!("before-restore-{}", now.strftime("%Y%m%dT%H%M%SZ"))
}

pub(super) fn told(aside: &Path) -> Finding {
    let aside = aside.display();
    Finding::info(
        "the old files",
        format!("what lay there under these names is in {aside} now, as it was"),
        format!("`rm -r {aside}` when the restored server has proved itself"),
    )
}
