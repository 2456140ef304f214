//! Rotating: a new generation of the key in every slot.
//!
//! A rotation is decided by one object (`decision`) and then carried out: a new
//! object is written beside the old one of every slot, and the old ones are deleted
//! last. Nothing is sealed with the new generation before every slot holds it, so a
//! rotation that stopped anywhere leaves every secret opening everything, and the
//! next one finishes it before all else.
//!
//! Refuses: to forget a slot; to draw a second key for a generation that somebody
//! else has decided; to mix two rotations that keep different slots.

use jiff::Timestamp;

use super::decision::Decision;
use super::{NewSlot, SlotInfo, Slots, check_name, off_thread};
use crate::key::Keyring;
use crate::key::slot::SlotDocument;
use crate::{Error, Result};

/// What came of a rotation.
#[derive(Debug, Clone)]
pub struct Rotation {
    pub keyring: Keyring,
    /// When the rotation was decided that was finished in its place: then no key was
    /// drawn.
    pub finished: Option<Timestamp>,
}

impl Slots<'_> {
    /// Draws a new generation and wraps the keyring anew for every slot in `keep`,
    /// whose secrets must open them. A slot that is neither in `keep` nor in
    /// `drop` ends it before anything is written. A rotation that was decided
    /// before and not finished is finished first. Where it was for the same slots
    /// that was all, which the outcome says, unless they all had its key already; and
    /// where it was for others nothing of this one is done (`OtherRotation`).
    pub async fn rotate(&self, keep: &[NewSlot], drop: &[String], now: Timestamp) -> Result<Rotation> {
        let slots = self.list().await?;
        let mut kept: Vec<&NewSlot> = keep.iter().collect();
        kept.sort_by(|a, b| a.slot.cmp(&b.slot));
        kept.dedup_by(|a, b| a.slot == b.slot);
        let names: Vec<&str> = kept.iter().map(|new| new.slot.as_str()).collect();
        refuse_forgotten(&slots, &names, drop)?;
        let mut ring = self.richest(&slots, &kept).await?;
        if let Some(before) = self.decided(&ring).await? {
            let new_before = self.held().await?.at_least(before.generations());
            let had_its_key = before.keeps().all(|kept| new_before.iter().any(|slot| slot == kept));
            ring = self.finish(&before, &kept, drop).await?;
            if !had_its_key {
                return Ok(Rotation { keyring: ring, finished: Some(before.at()) });
            }
        }
        self.held().await?.refuse_newer_than(&ring)?;

        let next = ring.rotated()?;
        let ours = Decision::new(&next, self.wrap(&next, &kept, now).await?, drop, now)?;
        let decided = self.decide(ours.clone(), &ring).await?;
        if !self.counts(&decided).await? {
            // A rotation of this number came and went since we looked.
            self.store.delete(&decided.name()?).await?;
            let held = self.held().await?;
            return Err(Error::OtherRotation { keeps: held.at_least(held.newest()), drops: Vec::new() });
        }
        if decided != ours {
            // Decided since we began, so its key is as new as ours would be.
            let keyring = self.finish(&decided, &kept, drop).await?;
            return Ok(Rotation { keyring, finished: None });
        }
        self.carry_out_named(&decided).await.map(|()| Rotation { keyring: next, finished: None })
    }

    /// Brings somebody's decision to its end.
    async fn finish(&self, decided: &Decision, kept: &[&NewSlot], drop: &[String]) -> Result<Keyring> {
        self.carry_out_named(decided).await?;
        let names: Vec<&str> = kept.iter().map(|new| new.slot.as_str()).collect();
        if !decided.is_what_was_wanted(&names, drop) {
            return Err(decided.other_rotation());
        }
        self.richest(&self.list().await?, kept).await
    }

    /// Like [`carry_out`](Slots::carry_out); an error says how far it came.
    async fn carry_out_named(&self, decision: &Decision) -> Result<()> {
        let mut reached = Vec::new();
        let outcome = self.carry_out(decision, &mut reached).await;
        outcome.map_err(|error| match error {
            later @ Error::OtherRotation { .. } => later,
            error => Error::RotationUnfinished { reached, source: Box::new(error) },
        })
    }

    async fn wrap(&self, next: &Keyring, kept: &[&NewSlot], now: Timestamp) -> Result<Vec<SlotDocument>> {
        let mut wrapped = Vec::with_capacity(kept.len());
        for new in kept {
            check_name(&new.slot)?;
            let (next, repository, new) = (next.clone(), self.repository, (*new).clone());
            let wrap = move || SlotDocument::wrap(&next, repository, &new.slot, &new.secret, now);
            wrapped.push(off_thread(wrap).await?);
        }
        Ok(wrapped)
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
}

fn refuse_forgotten(slots: &[SlotInfo], keep: &[&str], drop: &[String]) -> Result<()> {
    let forgotten: Vec<String> = slots
        .iter()
        .filter(|known| !keep.contains(&known.slot.as_str()) && !drop.contains(&known.slot))
        .map(|known| known.slot.clone())
        .collect();
    if forgotten.is_empty() { Ok(()) } else { Err(Error::SlotsWouldBeLost { slots: forgotten }) }
}
