//! All slots of a repository: opening, adding, removing, rotating.
//!
//! An object's name says how many generations it holds, so what a slot holds is
//! seen in a listing. A slot may have several objects, and the one with the most
//! generations counts; the newest generation that every slot holds seals.

use std::collections::BTreeMap;

use backstay_model::RepositoryId;
use bytes::Bytes;
use jiff::Timestamp;

use super::slot::SlotDocument;
use super::{KeyKind, KeySecret, Keyring};
use crate::layout::{self, ObjectName};
use crate::store::{Store, StoreError};
use crate::{Error, Result};

mod decision;
mod rotate;

pub use rotate::Rotation;

/// More generations than a daily rotation draws in ten years.
const GENERATIONS_MAX: usize = 4096;
/// A slot is a few hundred bytes for each generation.
const SLOT_BYTES_MAX: u64 = 1 << 20;
const SLOT_NAME_MAX: usize = 32;

/// A secret and the name of the slot it is to open.
#[derive(Debug, Clone)]
pub struct NewSlot {
    pub slot: String,
    pub secret: KeySecret,
}

/// What can be said of a slot without opening it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotInfo {
    pub slot: String,
    pub kind: KeyKind,
    pub created: Timestamp,
    /// More than one after a rotation that was interrupted.
    pub objects: Vec<ObjectName>,
}

/// The slots of one repository.
#[derive(Debug, Clone, Copy)]
pub struct Slots<'s> {
    store: &'s dyn Store,
    repository: RepositoryId,
}

fn check_name(slot: &str) -> Result<()> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
    let good = (1..=SLOT_NAME_MAX).contains(&slot.len())
        && slot.bytes().all(allowed)
        && slot.as_bytes()[0].is_ascii_alphanumeric();
    if good { Ok(()) } else { Err(Error::BadSlotName { slot: slot.to_owned() }) }
}

/// The slot in the name of an object.
fn slot_of(object: &ObjectName) -> &str {
    object.file_name().rsplit_once('-').map_or(object.file_name(), |(slot, _)| slot)
}

/// How many generations each slot holds, by the names of its objects.
#[derive(Debug, Default)]
struct Held(BTreeMap<String, usize>);

impl Held {
    fn newest(&self) -> usize {
        self.0.values().copied().max().unwrap_or(0)
    }

    fn by_every_slot(&self) -> usize {
        self.0.values().copied().min().unwrap_or(0)
    }

    /// The slots that hold at least so many.
    fn at_least(&self, count: usize) -> Vec<String> {
        self.0.iter().filter(|(_, held)| **held >= count).map(|(slot, _)| slot.clone()).collect()
    }

    /// Fails when a slot holds more than this keyring: whoever has it would work
    /// with yesterday's key.
    fn refuse_newer_than(&self, ring: &Keyring) -> Result<()> {
        let slots = self.at_least(ring.generations().len() + 1);
        if slots.is_empty() { Ok(()) } else { Err(Error::NewerGeneration { slots }) }
    }
}

/// Argon2 takes a quarter of a second of one core: not on a thread that serves others.
async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(join) if join.is_cancelled() => Err(Error::Cancelled),
        Err(join) => Err(Error::broken(join.to_string())),
    }
}

impl<'s> Slots<'s> {
    pub fn new(store: &'s dyn Store, repository: RepositoryId) -> Self {
        Self { store, repository }
    }

    async fn stored(&self) -> Result<Vec<(ObjectName, Result<SlotDocument>)>> {
        let mut listed = self.store.list_all(&layout::key_slots()).await?;
        listed.sort_by(|a, b| a.name.cmp(&b.name));
        let mut stored = Vec::with_capacity(listed.len());
        for meta in listed {
            let bytes = match self.store.get(&meta.name, SLOT_BYTES_MAX).await {
                Ok(bytes) => bytes,
                // Removed between the listing and the look.
                Err(StoreError::NotFound { .. }) => continue,
                Err(error) => return Err(error.into()),
            };
            let document = SlotDocument::parse(&meta.name, &bytes);
            stored.push((meta.name, document));
        }
        Ok(stored)
    }

    /// Every slot; one that cannot be read is an error, since a list without it
    /// would lead a person to remove the others.
    pub async fn list(&self) -> Result<Vec<SlotInfo>> {
        let mut slots: Vec<SlotInfo> = Vec::new();
        for (name, document) in self.stored().await? {
            let document = document?;
            match slots.iter_mut().find(|known| known.slot == document.slot) {
                Some(known) => {
                    known.created = known.created.max(document.created);
                    known.objects.push(name);
                }
                None => slots.push(SlotInfo {
                    slot: document.slot,
                    kind: document.kind,
                    created: document.created,
                    objects: vec![name],
                }),
            }
        }
        Ok(slots)
    }

    /// Opens the keyring with a secret: of all slots that it opens, the one with
    /// the most generations. A damaged slot is an error only when no other opens.
    pub async fn unlock(&self, secret: &KeySecret) -> Result<Keyring> {
        let found = self.open_any(secret, None).await?;
        let ring = found.ok_or(Error::WrongKey { secret: secret.kind().as_str() })?;
        // Listed after the keyring was read: a slot only ever gains generations.
        Ok(ring.sealing_with(self.held().await?.by_every_slot()))
    }

    /// An object whose name is not understood holds nothing that could be relied on.
    async fn held(&self) -> Result<Held> {
        let mut held = Held::default();
        for meta in self.store.list_all(&layout::key_slots()).await? {
            let generations = self.generations_of(&meta.name);
            let of_slot = held.0.entry(slot_of(&meta.name).to_owned()).or_default();
            *of_slot = generations.max(*of_slot);
        }
        Ok(held)
    }

    /// How many generations an object says it holds; 0 where its name says nothing.
    fn generations_of(&self, object: &ObjectName) -> usize {
        let tag = object.file_name().rsplit_once('-').map_or("", |(_, tag)| tag);
        let Ok(tag) = u64::from_str_radix(tag, 16) else { return 0 };
        (1..=GENERATIONS_MAX).find(|generations| self.tag(*generations) == tag).unwrap_or(0)
    }

    async fn open_any(&self, secret: &KeySecret, only: Option<&str>) -> Result<Option<Keyring>> {
        let (mut best, mut damage): (Option<Keyring>, Option<Error>) = (None, None);
        for (name, document) in self.stored().await? {
            let outcome = match document {
                Err(error) => Err(error),
                Ok(document) if only.is_some_and(|slot| slot != document.slot) => continue,
                Ok(document) => {
                    let (repository, secret) = (self.repository, secret.clone());
                    off_thread(move || document.unwrap(&name, repository, &secret)).await
                }
            };
            match outcome {
                Ok(Some(ring)) => {
                    let better = |known: &Keyring| ring.generations().len() > known.generations().len();
                    if best.as_ref().is_none_or(better) {
                        best = Some(ring);
                    }
                }
                Ok(None) => {}
                Err(error) => damage = Some(error),
            }
        }
        match (best, damage) {
            (None, Some(error)) => Err(error),
            (best, _) => Ok(best),
        }
    }

    /// The object of a slot for a keyring. The tag follows from the repository and
    /// the number of generations: two that add at the same time meet at the same
    /// name, and only one of them can create it.
    fn object(&self, slot: &str, ring: &Keyring) -> Result<ObjectName> {
        Ok(layout::key_slot(slot, self.tag(ring.generations().len()))?)
    }

    fn tag(&self, generations: usize) -> u64 {
        let mut hash = blake3::Hasher::new();
        hash.update(self.repository.as_bytes());
        hash.update(&(generations as u64).to_le_bytes());
        let mut tag = [0; 8];
        tag.copy_from_slice(&hash.finalize().as_bytes()[..8]);
        u64::from_le_bytes(tag)
    }

    async fn write(&self, ring: &Keyring, new: &NewSlot, created: Timestamp) -> Result<ObjectName> {
        check_name(&new.slot)?;
        let name = self.object(&new.slot, ring)?;
        let (wrapped_ring, repository, new) = (ring.clone(), self.repository, new.clone());
        let document = off_thread(move || {
            SlotDocument::wrap(&wrapped_ring, repository, &new.slot, &new.secret, created)
        })
        .await?;
        match self.store.put_if_absent(&name, Bytes::from(document.to_json()?)).await {
            Ok(()) => Ok(name),
            Err(StoreError::AlreadyExists { .. }) => Err(Error::SlotTaken { slot: document.slot }),
            Err(error) => Err(error.into()),
        }
    }

    /// Adds a slot. Its name must be free, and the keyring the newest: a rotation
    /// that runs meanwhile does not know of the slot and cannot carry it along.
    pub async fn add(&self, ring: &Keyring, new: &NewSlot, now: Timestamp) -> Result<()> {
        if self.list().await?.iter().any(|known| known.slot == new.slot) {
            return Err(Error::SlotTaken { slot: new.slot.clone() });
        }
        self.may_add(ring).await?;
        let name = self.write(ring, new, now).await?;
        // A rotation decides before it looks at the slots, so one of us sees the other.
        if let Err(error) = self.may_add(ring).await {
            self.store.delete(&name).await?;
            return Err(error);
        }
        Ok(())
    }

    async fn may_add(&self, ring: &Keyring) -> Result<()> {
        self.held().await?.refuse_newer_than(ring)?;
        self.refuse_during_rotation().await
    }

    /// Removes a slot; never the last one, also when two are removed at once, and
    /// not the only one that a rotation has reached.
    pub async fn remove(&self, slot: &str) -> Result<()> {
        let slots = self.list().await?;
        let Some(found) = slots.iter().find(|known| known.slot == slot) else {
            return Err(Error::NoSuchSlot { slot: slot.to_owned() });
        };
        if slots.len() == 1 {
            return Err(Error::LastSlot { slot: slot.to_owned() });
        }
        let held = self.held().await?;
        if held.at_least(held.newest()) == [slot] {
            return Err(Error::OnlyNewest { slot: slot.to_owned() });
        }
        self.refuse_during_rotation().await?;
        let mut removed = Vec::new();
        for name in &found.objects {
            removed.push((name, self.store.get(name, SLOT_BYTES_MAX).await?));
            self.store.delete(name).await?;
        }
        let left = self.list().await?;
        if left.iter().any(|known| known.slot == slot) {
            // A rotation that was decided meanwhile brought it back.
            return Err(Error::RotationUnderWay);
        }
        if !left.is_empty() {
            return self.refuse_during_rotation().await;
        }
        // Somebody removed the others meanwhile: ours goes back.
        for (name, bytes) in removed {
            self.store.put_if_absent(name, bytes).await?;
        }
        Err(Error::LastSlot { slot: slot.to_owned() })
    }

    /// Writes the first slots of a new repository and says their names.
    pub(crate) async fn write_first(
        &self,
        ring: &Keyring,
        slots: &[NewSlot],
        now: Timestamp,
    ) -> Result<Vec<ObjectName>> {
        let mut written = Vec::new();
        for new in slots {
            written.push(self.write(ring, new, now).await?);
        }
        Ok(written)
    }
}
