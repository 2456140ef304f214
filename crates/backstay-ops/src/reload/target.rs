//! The server that a dump goes to.

use backstay_engine::postgres::PostgresSettings;
use backstay_engine::postgres::reload::ReloadTarget;
use backstay_model::dump::DumpRecord;
use backstay_model::plan::reload::TargetFacts;

use super::ReloadRequest;
use crate::error::{Error, Result};
use crate::instance::Instance;
use crate::run::Run;

/// Which server.
#[derive(Debug, Clone, Default)]
pub enum Server {
    /// The instance's own.
    #[default]
    Own,
    /// Another, and what the configuration says it is for.
    Other { settings: Box<PostgresSettings>, environment: Option<String> },
}

impl Server {
    pub(super) fn settings(&self, instance: &Instance) -> Result<PostgresSettings> {
        let own = instance.postgres()?;
        Ok(match self {
            Server::Own => own.clone(),
            Server::Other { settings, .. } => {
                let settings = (**settings).clone();
                // The clients are this machine's, whichever server they speak to.
                let known = || own.bin_directory.clone();
                PostgresSettings { bin_directory: settings.bin_directory.clone().or_else(known), ..settings }
            }
        })
    }

    pub(super) fn environment<'a>(&'a self, instance: &'a Instance) -> Option<&'a str> {
        match self {
            Server::Own => instance.environment.as_deref(),
            Server::Other { environment, .. } => environment.as_deref(),
        }
    }
}

pub(super) async fn open(run: &Run, settings: &PostgresSettings) -> Result<ReloadTarget> {
    let address = settings.address()?;
    tokio::select! {
        biased;
        () = run.cancel.cancelled() => Err(Error::Cancelled),
        opened = ReloadTarget::open(&address, settings.bin_directory.as_deref()) => Ok(opened?),
    }
}

pub(super) async fn look(
    run: &Run,
    target: &ReloadTarget,
    settings: &PostgresSettings,
    request: &ReloadRequest,
    instance: &Instance,
    record: &DumpRecord,
    name: &str,
) -> Result<TargetFacts> {
    run.check_cancelled()?;
    let is_there = target.has_database(name).await?;
    let is_used = is_there && !target.is_empty(name).await?;
    let here = target.system_identifier().await?.map(|number| number.to_string());
    let is_source = match (&record.system_identifier, here) {
        (Some(dumped), Some(here)) => *dumped == here,
        // Not known: the instance's own server is taken for the source, to be on the safe side.
        _ => matches!(request.server, Server::Own) && record.instance == instance.id,
    };
    Ok(TargetFacts {
        server: settings.address()?.describe(),
        environment: request.server.environment(instance).map(str::to_owned),
        is_source,
        is_there,
        is_used,
    })
}
