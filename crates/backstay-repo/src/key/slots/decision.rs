//! What a rotation of the key decided, as one object: the slots that hold the new
//! generation from now on, and those that go.
//!
//! Of several rotations at once the one that creates `rotations/<generations>`
//! first has decided, and before that moment none has changed anything. The object
//! holds every slot as it will be stored, so that whoever comes across it can bring
//! it to its end, without any secret, as often as need be. Then it is deleted: a
//! secret that is removed later must not open anything it left.
//!
//! Invariant: a decision counts while every slot that holds as many generations as
//! it brings is one of its own, byte for byte. One that was made too late, after
//! another of the same number had come and gone, does not, and is deleted.

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::super::Keyring;
use super::super::slot::SlotDocument;
use super::{SLOT_BYTES_MAX, Slots, slot_of};
use crate::layout::{self, ObjectName};
use crate::store::StoreError;
use crate::{Error, Result};

const DECISION_FORMAT: u32 = 1;
/// More slots than people who could keep their secrets.
const DECISION_BYTES_MAX: u64 = 64 * SLOT_BYTES_MAX;

/// `rotations/<generations>`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Decision {
    format: u32,
    at: Timestamp,
    /// Generations that the new keyring has.
    generations: usize,
    slots: Vec<SlotDocument>,
    dropped: Vec<String>,
    /// Over the JSON without it: only who can open a slot may let another one go.
    mac: String,
}

impl Decision {
    /// `slots` hold `next`, and are sorted by name.
    pub fn new(next: &Keyring, slots: Vec<SlotDocument>, dropped: &[String], at: Timestamp) -> Result<Self> {
        let mut dropped = dropped.to_vec();
        dropped.sort();
        dropped.dedup();
        let generations = next.generations().len();
        let mut decision =
            Self { format: DECISION_FORMAT, at, generations, slots, dropped, mac: String::new() };
        decision.mac = decision.mac_under(next)?;
        Ok(decision)
    }

    fn mac_under(&self, ring: &Keyring) -> Result<String> {
        let json = Self { mac: String::new(), ..self.clone() }.to_json()?;
        Ok(blake3::keyed_hash(&ring.description_key(), &json).to_hex().to_string())
    }

    fn to_json(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(|error| Error::broken(error.to_string()))
    }

    /// What can be seen of one without a key.
    fn read(name: &ObjectName, bytes: &[u8]) -> Result<Self> {
        let parsed: serde_json::Result<Self> = serde_json::from_slice(bytes);
        let decision = parsed.map_err(|error| Error::damaged(name, error.to_string()))?;
        if decision.format > DECISION_FORMAT {
            return Err(Error::NewerFormat { found: decision.format, known: DECISION_FORMAT });
        }
        Ok(decision)
    }

    /// Reads one; who has another key for the repository cannot have made it.
    fn parse(name: &ObjectName, bytes: &[u8], ring: &Keyring) -> Result<Self> {
        let decision = Self::read(name, bytes)?;
        if decision.mac_under(ring)? != decision.mac || decision.name()? != *name {
            return Err(Error::damaged(name, "nobody who holds the key has decided this"));
        }
        Ok(decision)
    }

    pub fn name(&self) -> Result<ObjectName> {
        Ok(layout::rotation(self.generations)?)
    }

    pub fn generations(&self) -> usize {
        self.generations
    }

    pub fn at(&self) -> Timestamp {
        self.at
    }

    pub fn keeps(&self) -> impl Iterator<Item = &str> {
        self.slots.iter().map(|slot| slot.slot.as_str())
    }

    /// Whether somebody who wanted this can take it for theirs. Both are sorted.
    pub fn is_what_was_wanted(&self, keep: &[&str], drop: &[String]) -> bool {
        let mut drop: Vec<&String> = drop.iter().collect();
        drop.sort();
        drop.dedup();
        self.keeps().eq(keep.iter().copied()) && self.dropped.iter().eq(drop)
    }

    fn gone_from(&self, there: &[String]) -> Vec<String> {
        self.keeps().map(str::to_owned).filter(|kept| !there.contains(kept)).collect()
    }

    pub fn other_rotation(&self) -> Error {
        Error::OtherRotation { keeps: self.keeps().map(str::to_owned).collect(), drops: self.dropped.clone() }
    }
}

impl Slots<'_> {
    /// Whether a rotation was decided and is not at its end. A decision that cannot
    /// be read is named, since no rotation will ever finish it.
    pub(super) async fn refuse_during_rotation(&self) -> Result<()> {
        for meta in self.store.list_all(&layout::rotations()).await? {
            match self.store.get(&meta.name, DECISION_BYTES_MAX).await {
                Ok(bytes) => Decision::read(&meta.name, &bytes)?,
                Err(StoreError::NotFound { .. }) => continue,
                Err(error) => return Err(error.into()),
            };
            return Err(Error::RotationUnderWay);
        }
        Ok(())
    }

    /// Makes the decision, unless another of the same number was made. Then that
    /// one comes back.
    pub(super) async fn decide(&self, ours: Decision, ring: &Keyring) -> Result<Decision> {
        let name = ours.name()?;
        match self.store.put_if_absent(&name, Bytes::from(ours.to_json()?)).await {
            Ok(()) => Ok(ours),
            // Another's, or ours when the answer to an earlier attempt was lost.
            Err(StoreError::AlreadyExists { .. }) => match self.read_decision(&name, ring).await? {
                Some(there) => Ok(there),
                None => Err(Error::RotationUnderWay),
            },
            Err(error) => Err(error.into()),
        }
    }

    async fn read_decision(&self, name: &ObjectName, ring: &Keyring) -> Result<Option<Decision>> {
        match self.store.get(name, DECISION_BYTES_MAX).await {
            Ok(bytes) => Decision::parse(name, &bytes, ring).map(Some),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The decision that counts and is not at its end; those that do not count go.
    pub(super) async fn decided(&self, ring: &Keyring) -> Result<Option<Decision>> {
        let mut found = None;
        for meta in self.store.list_all(&layout::rotations()).await? {
            let Some(decision) = self.read_decision(&meta.name, ring).await? else { continue };
            if self.counts(&decision).await? {
                found = Some(decision);
            } else {
                self.store.delete(&meta.name).await?;
            }
        }
        Ok(found)
    }

    pub(super) async fn counts(&self, decision: &Decision) -> Result<bool> {
        for meta in self.store.list_all(&layout::key_slots()).await? {
            if self.generations_of(&meta.name) < decision.generations {
                continue;
            }
            let Some(ours) = decision.slots.iter().find(|slot| slot.slot == slot_of(&meta.name)) else {
                return Ok(false);
            };
            match self.store.get(&meta.name, SLOT_BYTES_MAX).await {
                Ok(bytes) if bytes == ours.to_json()? => {}
                // Gone since the listing: a later rotation has replaced it.
                Ok(_) | Err(StoreError::NotFound { .. }) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    /// Fails when somebody finished the decision and changed the keys again before
    /// `created` was written, and takes it back where that is certain. A rotation
    /// under way looks after a slot that it keeps or drops: without the old object it
    /// would take it for removed. And where only a slot is missing, `created` may have
    /// come before that, and be the last that there is.
    async fn give_way_to_later(&self, decision: &Decision, created: &ObjectName) -> Result<()> {
        let mut held = self.held().await?;
        let is_later = held.newest() > decision.generations;
        if !is_later && decision.keeps().all(|kept| held.0.contains_key(kept)) {
            return Ok(());
        }
        let under_way = self.store.list_all(&layout::rotations()).await?;
        let own = decision.name()?;
        if is_later && under_way.iter().all(|meta| meta.name == own) {
            self.store.delete(created).await?;
            held = self.held().await?;
        }
        Err(Error::OtherRotation { keeps: held.at_least(0), drops: decision.gone_from(&held.at_least(0)) })
    }

    /// Brings a decision that counts to its end: the new slots, then the old ones
    /// and the dropped go. All of it may have been done by somebody else, who then
    /// removed one of the slots: it is not written again.
    pub(super) async fn carry_out(&self, decision: &Decision, reached: &mut Vec<String>) -> Result<()> {
        for slot in &decision.slots {
            let name = layout::key_slot(&slot.slot, self.tag(decision.generations))?;
            let held = self.held().await?.0.get(&slot.slot).copied();
            if held.is_none_or(|generations| generations > decision.generations) {
                continue;
            }
            match self.store.put_if_absent(&name, Bytes::from(slot.to_json()?)).await {
                Ok(()) => {
                    self.give_way_to_later(decision, &name).await?;
                    reached.push(slot.slot.clone());
                }
                Err(StoreError::AlreadyExists { .. }) => reached.push(slot.slot.clone()),
                Err(error) => return Err(error.into()),
            }
        }
        let mut added_meanwhile = Vec::new();
        for meta in self.store.list_all(&layout::key_slots()).await? {
            let slot = slot_of(&meta.name);
            let is_old = self.generations_of(&meta.name) < decision.generations;
            if decision.keeps().any(|kept| kept == slot) || decision.dropped.iter().any(|gone| gone == slot) {
                if is_old {
                    self.store.delete(&meta.name).await?;
                }
            } else if is_old {
                added_meanwhile.push(slot.to_owned());
            }
        }
        self.store.delete(&decision.name()?).await?;
        // Such a slot opens all that there is, and keeps the new generation from sealing.
        if added_meanwhile.is_empty() {
            Ok(())
        } else {
            Err(Error::SlotsWouldBeLost { slots: added_meanwhile })
        }
    }
}
