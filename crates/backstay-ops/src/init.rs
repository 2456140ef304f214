//! Init: a key, a repository, a recovery kit.
//!
//! The key file is written first and durably: a repository whose key was lost
//! in a crash could never be read. Refuses to touch a repository or a key file
//! that exists.

use std::path::PathBuf;

use backstay_model::error::Classified;
use backstay_model::{Finding, RepositoryId};
use backstay_repo::init::InitOptions as RepoOptions;
use backstay_repo::key::{NewSlot, create_key_file};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::open;

/// The name of the slot that `init` makes.
pub const FIRST_SLOT: &str = "initial";

#[derive(Debug, Clone)]
pub struct InitOptions {
    /// `file:///var/lib/backstay`
    pub store: String,
    /// Where to write the new key; `None` for a repository without encryption.
    pub key_file: Option<PathBuf>,
    /// An empty or new directory for the recovery kit.
    pub kit: Option<PathBuf>,
}

#[derive(Debug, Clone, Serialize)]
pub struct InitReport {
    pub repository: RepositoryId,
    pub store: String,
    pub encrypted: bool,
    pub key_file: Option<PathBuf>,
    pub kit: Vec<PathBuf>,
    pub findings: Vec<Finding>,
}

pub async fn run(options: &InitOptions, clock: &dyn Clock, cancel: &CancellationToken) -> Result<InitReport> {
    let store = open::store(&options.store, cancel)?;
    // Looked at before the key is written, so that a mistake leaves no stray key.
    if store.exists(&backstay_repo::layout::description()).await.map_err(backstay_repo::Error::from)? {
        return Err(Error::Repo(backstay_repo::Error::RepositoryExists {
            location: store.location().to_owned(),
        }));
    }
    let mut slots = Vec::new();
    if let Some(path) = &options.key_file {
        slots.push(NewSlot { slot: FIRST_SLOT.to_owned(), secret: create_key_file(path)? });
    }
    let made = backstay_repo::init::init(&*store, &RepoOptions { slots, now: clock.now() }).await;
    let made = match made {
        Ok(made) => made,
        Err(error) => {
            if let Some(path) = &options.key_file {
                // Written a moment ago, and nothing was ever sealed with it.
                if let Err(left) = std::fs::remove_file(path) {
                    tracing::warn!(path = %path.display(), error = %left, "left an unused key file behind");
                }
            }
            return Err(Error::Repo(error));
        }
    };
    let mut findings = made.findings;
    let description = made.repository.description;
    let mut kit = Vec::new();
    if let Some(directory) = &options.kit {
        match backstay_repo::kit::write_kit(&*store, &description, directory).await {
            Ok(written) => kit = written,
            Err(error) => findings.push(Finding::warning(
                directory.display().to_string(),
                format!("the repository was made, its recovery kit was not: {error}"),
                error
                    .hints()
                    .into_iter()
                    .next()
                    .unwrap_or_else(|| "`backstay key list` shows the slots".to_owned()),
            )),
        }
    }
    Ok(InitReport {
        repository: description.repository,
        store: store.location().to_owned(),
        encrypted: options.key_file.is_some(),
        key_file: options.key_file.clone(),
        kit,
        findings,
    })
}
