//! Rotating: a new generation of the key in every slot.
//!
//! A new object is written beside the old one of every slot, and the old ones are
//! deleted last. Nothing is sealed with the new generation before every slot holds
//! it, so a rotation that stopped anywhere leaves every secret opening everything,
//! and the next one finishes it.
//!
//! Refuses: to forget a slot; to draw a generation on top of a rotation that is
//! not finished; to take back an object that somebody may have opened.

use jiff::Timestamp;

use super::{NewSlot, SlotInfo, Slots};
use crate::key::Keyring;
use crate::layout::ObjectName;
use crate::{Error, Result};

impl Slots<'_> {
    /// Draws a new generation and wraps the keyring anew for every slot in `keep`,
    /// whose secrets must open them. A slot that is neither in `keep` nor in
    /// `drop` ends it before anything is written. After a rotation that was
    /// interrupted it draws none, and finishes that one.
    pub async fn rotate(&self, keep: &[NewSlot], drop: &[String], now: Timestamp) -> Result<Keyring> {
        let slots = self.list().await?;
        let mut kept: Vec<&NewSlot> = keep.iter().collect();
        // In one order by all: two rotations at once meet at the first slot.
        kept.sort_by(|a, b| a.slot.cmp(&b.slot));
        kept.dedup_by(|a, b| a.slot == b.slot);
        refuse_forgotten(&slots, &kept, drop)?;
        let ring = self.richest(&slots, &kept).await?;
        self.held().await?.refuse_newer_than(&ring)?;

        let whole = slots.iter().all(|known| {
            self.object(&known.slot, &ring).is_ok_and(|current| known.objects.as_slice() == [current])
        });
        let next = if whole { ring.rotated()? } else { ring };
        let mut reached = Vec::new();
        let outcome = self.carry(&next, &slots, &kept, drop, now, &mut reached).await;
        match outcome {
            Ok(()) => Ok(next),
            // Somebody else was faster, and we have left nothing.
            Err(error @ Error::SlotTaken { .. }) if reached.is_empty() => Err(error),
            Err(error) => Err(Error::RotationUnfinished { reached, source: Box::new(error) }),
        }
    }

    /// The keyring with the most generations: a rotation that was interrupted
    /// reached some slots only.
    async fn richest(&self, slots: &[SlotInfo], kept: &[&NewSlot]) -> Result<Keyring> {
        let mut ring: Option<Keyring> = None;
        for new in kept {
            if !slots.iter().any(|known| known.slot == new.slot) {
                return Err(Error::NoSuchSlot { slot: new.slot.clone() });
            }
            let opened = self.open_any(&new.secret, Some(&new.slot)).await?;
            let opened = opened.ok_or(Error::WrongKey { secret: new.secret.kind().as_str() })?;
            if ring.as_ref().is_none_or(|known| opened.generations().len() > known.generations().len()) {
                ring = Some(opened);
            }
        }
        ring.ok_or_else(|| {
            let slot = slots.first().map(|known| known.slot.clone()).unwrap_or_default();
            Error::LastSlot { slot }
        })
    }

    /// Brings the keyring to every slot that lacks it, then deletes what it replaces.
    async fn carry(
        &self,
        next: &Keyring,
        slots: &[SlotInfo],
        kept: &[&NewSlot],
        drop: &[String],
        now: Timestamp,
        reached: &mut Vec<String>,
    ) -> Result<()> {
        let mut current: Vec<ObjectName> = Vec::new();
        for new in kept {
            let name = self.object(&new.slot, next)?;
            if !slots.iter().any(|known| known.objects.contains(&name)) {
                self.carry_to(next, new, now).await?;
            }
            current.push(name);
            reached.push(new.slot.clone());
        }
        // A slot that was added meanwhile keeps the old keyring needed.
        refuse_forgotten(&self.list().await?, kept, drop)?;
        for old in slots.iter().flat_map(|known| &known.objects) {
            if !current.contains(old) {
                self.store.delete(old).await?;
            }
        }
        Ok(())
    }

    async fn carry_to(&self, next: &Keyring, new: &NewSlot, now: Timestamp) -> Result<()> {
        match self.write(next, new, now).await {
            Err(taken @ Error::SlotTaken { .. }) => {
                // Another process finishes the same rotation, or has begun its own.
                let there = self.open_any(&new.secret, Some(&new.slot)).await?;
                if there.is_some_and(|there| there.generations() == next.generations()) {
                    Ok(())
                } else {
                    Err(taken)
                }
            }
            other => other.map(std::mem::drop),
        }
    }
}

fn refuse_forgotten(slots: &[SlotInfo], kept: &[&NewSlot], drop: &[String]) -> Result<()> {
    let is_kept = |known: &SlotInfo| kept.iter().any(|kept| kept.slot == known.slot);
    let forgotten: Vec<String> = slots
        .iter()
        .filter(|known| !is_kept(known) && !drop.contains(&known.slot))
        .map(|known| known.slot.clone())
        .collect();
    if forgotten.is_empty() { Ok(()) } else { Err(Error::SlotsWouldBeLost { slots: forgotten }) }
}
