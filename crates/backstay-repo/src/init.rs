//! Making a repository and opening one.
//!
//! `init` first tries what the store does, writes the key slots, and writes
//! `backstay.json` last and create-only: that object is the repository. A crash
//! before it leaves key slots that open nothing.
//!
//! Refuses: a place where a repository is, or lies without its description; a
//! store whose answers are not true.

use backstay_model::Finding;
use backstay_model::RepositoryId;
use bytes::Bytes;
use jiff::Timestamp;

use crate::description::{Description, FORMAT, FRAME_SIZE, PACK_SIZE};
use crate::key::{KeySecret, Keyring, NewSlot, Slots, random};
use crate::layout::{self, Prefix};
use crate::seal::{Cipher, SealKeys};
use crate::store::{Store, StoreError};
use crate::{Error, Result};

mod probe;

/// What a new repository is to be.
#[derive(Debug, Clone)]
pub struct InitOptions {
    /// At least one; or none at all for a repository without encryption.
    pub slots: Vec<NewSlot>,
    pub now: Timestamp,
}

/// A repository whose description is authenticated and whose keys are known.
#[derive(Debug, Clone)]
pub struct OpenRepository {
    pub description: Description,
    pub keyring: Keyring,
}

impl OpenRepository {
    pub fn seal_keys(&self) -> SealKeys {
        self.keyring.seal_keys(self.description.repository, self.description.cipher)
    }
}

/// A new repository, and what a person should know about its store.
#[derive(Debug)]
pub struct NewRepository {
    pub repository: OpenRepository,
    pub findings: Vec<Finding>,
}

pub async fn init(store: &dyn Store, options: &InitOptions) -> Result<NewRepository> {
    let exists = || Error::RepositoryExists { location: store.location().to_owned() };
    if store.exists(&layout::description()).await? {
        return Err(exists());
    }
    refuse_a_used_place(store).await?;
    let facts = probe::probe(store).await?;
    let id = RepositoryId::from_bytes(random()?);
    let (cipher, keyring) = if options.slots.is_empty() {
        (Cipher::None, Keyring::unencrypted(id))
    } else {
        (Cipher::Aes256Gcm, Keyring::generate()?)
    };
    let written = Slots::new(store, id).write_first(&keyring, &options.slots, options.now).await?;
    let description = Description {
        format: FORMAT,
        repository: id,
        created: options.now,
        cipher,
        frame_size: FRAME_SIZE,
        pack_size: PACK_SIZE,
        requires: Vec::new(),
        store: facts,
    };
    let text = description.to_bytes(&keyring)?;
    match store.put_if_absent(&layout::description(), text.clone()).await {
        Ok(()) => {}
        Err(StoreError::AlreadyExists { .. }) => {
            // Another `init` was faster. These slots open nothing of its repository.
            for name in written {
                store.delete(&name).await?;
            }
            return Err(exists());
        }
        // An answer that was lost: it may have arrived all the same, and then this is
        // the repository. Any other error is one, whatever can be seen there.
        Err(error) if !error.is_transient() || !is_there(store, &text).await => return Err(error.into()),
        Err(error) => tracing::debug!(%error, "the description is stored although its answer was lost"),
    }
    let mut findings = Vec::new();
    if !facts.create_if_absent {
        findings.push(Finding::warning(
            store.location(),
            "the store overwrites objects although it is asked not to: only one process may write at a time, and the space of interrupted backups is freed only on the host that ran them",
            "set repository.store to a store that honours create-if-absent",
        ));
    }
    Ok(NewRepository { repository: OpenRepository { description, keyring }, findings })
}

/// Whether exactly this description can be read back. `false` says nothing: the
/// store may still be away.
async fn is_there(store: &dyn Store, text: &Bytes) -> bool {
    let there = store.get(&layout::description(), text.len() as u64).await;
    there.is_ok_and(|there| there == text)
}

/// Without its description a repository must not look like an empty place: a
/// second one on top of it would make the first unreadable for good.
async fn refuse_a_used_place(store: &dyn Store) -> Result<()> {
    let mut found = store.list_directories(&Prefix::root()).await?;
    // Key slots and probes may be left by an `init` that was interrupted.
    found.retain(|directory| !is_left_by_init(directory));
    if found.is_empty() {
        return Ok(());
    }
    Err(Error::PlaceNotEmpty { location: store.location().to_owned(), found })
}

fn is_left_by_init(directory: &str) -> bool {
    directory == layout::key_slots().as_str() || directory == layout::probes().as_str()
}

/// Opens a repository. `secret` is needed exactly when it is encrypted.
pub async fn open(store: &dyn Store, secret: Option<&KeySecret>) -> Result<OpenRepository> {
    let read = Description::read(store).await?;
    let (id, cipher) = (read.claimed().repository, read.claimed().cipher);
    let keyring = match (cipher, secret) {
        (Cipher::None, None) => Keyring::unencrypted(id),
        (Cipher::None, Some(_)) => {
            // Checked first: a description that was made to claim "none" is damage,
            // and no advice to drop the key must follow from it.
            read.authenticate(&Keyring::unencrypted(id))?;
            return Err(Error::KeyNotNeeded);
        }
        (Cipher::Aes256Gcm, None) => return Err(Error::KeyMissing),
        (Cipher::Aes256Gcm, Some(secret)) => Slots::new(store, id).unlock(secret).await?,
    };
    let description = read.authenticate(&keyring)?;
    Ok(OpenRepository { description, keyring })
}
