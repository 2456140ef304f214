//! Init: a key, a repository, a recovery kit.
//!
//! The key file is written first and durably: a repository whose key was lost
//! in a crash could never be read. For the same reason it is taken back only when
//! the store says that no repository came to be. Refuses to touch a repository or
//! a key file that exists.

use std::path::{Path, PathBuf};

use backstay_model::error::Classified;
use backstay_model::{Finding, RepositoryId};
use backstay_repo::init::InitOptions as RepoOptions;
use backstay_repo::key::{NewSlot, create_key_file};
use backstay_repo::store::Store;
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
    make(&*store, options, clock).await
}

async fn make(store: &dyn Store, options: &InitOptions, clock: &dyn Clock) -> Result<InitReport> {
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
    let made = backstay_repo::init::init(store, &RepoOptions { slots, now: clock.now() }).await;
    let made = match made {
        Ok(made) => made,
        Err(error) => {
            if let Some(path) = &options.key_file {
                take_back_key(store, path).await;
            }
            return Err(Error::Repo(error));
        }
    };
    let mut findings = made.findings;
    let description = made.repository.description;
    let mut kit = Vec::new();
    if let Some(directory) = &options.kit {
        match backstay_repo::kit::write_kit(store, &description, directory).await {
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

/// Removes the key file that was written a moment ago, if nothing was ever sealed
/// with it. An error of `init` does not say that: the description may be stored
/// and its answer lost.
async fn take_back_key(store: &dyn Store, path: &Path) {
    match store.exists(&backstay_repo::layout::description()).await {
        Ok(false) => {
            if let Err(left) = std::fs::remove_file(path) {
                tracing::warn!(path = %path.display(), error = %left, "left an unused key file behind");
            }
        }
        Ok(true) => {
            tracing::warn!(path = %path.display(), "keep this key file: there is a repository, and it may open it");
        }
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "keep this key file: it is not known whether the repository was made");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use backstay_repo::key::read_key_file;
    use backstay_repo::store::faulty::{FaultyStore, Injection, unavailable};
    use backstay_repo::store::{MemoryStore, Operation};

    use super::*;
    use crate::clock::SystemClock;

    fn options(key_file: &Path) -> InitOptions {
        InitOptions { store: "file:///srv/backstay".into(), key_file: Some(key_file.to_owned()), kit: None }
    }

    /// The store is away from the moment at which the description is written, which
    /// arrives or does not.
    fn away_from_the_description_on(memory: &MemoryStore, arrives: bool, comes_back: bool) -> FaultyStore {
        let away = AtomicBool::new(false);
        FaultyStore::new(Arc::new(memory.clone()), move |call| {
            if call.operation == Operation::Put && call.object == "backstay.json" {
                away.store(!comes_back, Ordering::SeqCst);
                let lost = || Injection::Fail(unavailable(call, "connection reset"));
                return if arrives { Injection::LoseAnswer } else { lost() };
            }
            if away.load(Ordering::SeqCst) {
                return Injection::Fail(unavailable(call, "no route to host"));
            }
            Injection::Pass
        })
    }

    #[tokio::test]
    async fn the_key_stays_while_it_is_not_known_that_no_repository_was_made() {
        let place = tempfile::tempdir().unwrap();
        for arrives in [true, false] {
            let memory = MemoryStore::new();
            let key_file = place.path().join(format!("{arrives}.key"));
            let store = away_from_the_description_on(&memory, arrives, false);
            make(&store, &options(&key_file), &SystemClock).await.unwrap_err();
            let (secret, _) = read_key_file(&key_file).unwrap();
            let opened = backstay_repo::init::open(&memory, Some(&secret)).await;
            assert_eq!(opened.is_ok(), arrives, "{opened:?}");
        }
    }

    #[tokio::test]
    async fn the_key_of_a_repository_that_was_not_made_is_taken_back() {
        let place = tempfile::tempdir().unwrap();
        let (memory, key_file) = (MemoryStore::new(), place.path().join("repository.key"));
        let store = away_from_the_description_on(&memory, false, true);
        make(&store, &options(&key_file), &SystemClock).await.unwrap_err();
        assert!(!key_file.exists());
        // And the same call again makes it.
        make(&memory, &options(&key_file), &SystemClock).await.unwrap();
        let (secret, _) = read_key_file(&key_file).unwrap();
        backstay_repo::init::open(&memory, Some(&secret)).await.unwrap();
    }
}
