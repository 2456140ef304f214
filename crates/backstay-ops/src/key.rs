//! Key: the slots that open the repository.
//!
//! Adding and removing touches no data. A rotation adds a generation that new
//! packs are sealed with from then on; what is stored stays readable.

use backstay_repo::key::{KeyKind, KeySecret, NewSlot, Slots};
use backstay_repo::layout::ObjectName;
use jiff::Timestamp;
use serde::Serialize;

use crate::context::Context;
use crate::error::{Error, Result};

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeySlot {
    pub name: String,
    /// `key-file` or `passphrase`
    pub kind: String,
    pub created: Timestamp,
}

/// What a rotation left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RotateReport {
    /// The number of the newest generation.
    pub generation: u32,
    /// When a rotation was begun that was not at its end: it was finished instead,
    /// and no key was drawn.
    pub finished: Option<Timestamp>,
    pub slots: Vec<KeySlot>,
    /// The objects that went: of dropped slots, and of kept ones as they were before.
    #[serde(skip)]
    pub gone: Vec<ObjectName>,
}

pub async fn list(context: &Context) -> Result<Vec<KeySlot>> {
    let slots = slots(context)?.list().await?;
    Ok(slots
        .into_iter()
        .map(|slot| KeySlot { name: slot.slot, kind: slot.kind.as_str().to_owned(), created: slot.created })
        .collect())
}

/// `unlock` is a secret that opens the repository now.
pub async fn add(context: &Context, unlock: &KeySecret, slot: NewSlot) -> Result<()> {
    let slots = slots(context)?;
    let ring = slots.unlock(unlock).await?;
    Ok(slots.add(&ring, &slot, context.clock.now()).await?)
}

/// Removes a slot and says which objects went with it.
pub async fn remove(context: &Context, name: &str) -> Result<Vec<ObjectName>> {
    let slots = slots(context)?;
    let there = slots.list().await?.into_iter().filter(|slot| slot.slot == name);
    let objects = there.flat_map(|slot| slot.objects).collect();
    slots.remove(name).await?;
    Ok(objects)
}

/// `keep` are the slots whose secrets are known, `drop` those to be given up.
/// Every slot must be in one of them.
pub async fn rotate(context: &Context, keep: &[NewSlot], drop: &[String]) -> Result<RotateReport> {
    let slots = slots(context)?;
    let objects = async || -> Result<Vec<ObjectName>> {
        Ok(slots.list().await?.into_iter().flat_map(|slot| slot.objects).collect())
    };
    let before = objects().await?;
    let rotation = slots.rotate(keep, drop, context.clock.now()).await?;
    let after = objects().await?;
    let gone = before.into_iter().filter(|name| !after.contains(name)).collect();
    let generation =
        rotation.keyring.generations().iter().map(|generation| generation.number).max().unwrap_or(0);
    Ok(RotateReport { generation, finished: rotation.finished, slots: list(context).await?, gone })
}

/// Which slot a secret opens, for a rotation whose secret comes from the settings.
pub async fn slots_of_kind(context: &Context, kind: KeyKind) -> Result<Vec<String>> {
    let slots = slots(context)?.list().await?;
    Ok(slots.into_iter().filter(|slot| slot.kind == kind).map(|slot| slot.slot).collect())
}

fn slots(context: &Context) -> Result<Slots<'_>> {
    if context.repo.is_encrypted() {
        Ok(Slots::new(&**context.repo.store(), context.repo.id()))
    } else {
        Err(Error::NoKeys)
    }
}
