//! Trying what a store does before anything rests on it.
//!
//! An answer of 200 proves nothing: there are servers that accept a condition and
//! overwrite all the same. So each property is tried and looked at.

use bytes::Bytes;
use futures_util::future::join_all;

use crate::description::StoreFacts;
use crate::key::random;
use crate::layout::{self, ObjectName};
use crate::store::{Store, StoreError};
use crate::{Error, Result};

const BODY_BYTES: usize = 4096;
/// Some servers check the condition and then write, which only a race shows.
const RACERS: u8 = 8;

fn body(seed: u8) -> Bytes {
    (0..BODY_BYTES).map(|i| (i as u8).wrapping_mul(31).wrapping_add(seed)).collect::<Vec<u8>>().into()
}

fn unfit(reason: impl Into<String>) -> Error {
    Error::UnfitStore { reason: reason.into() }
}

/// Leaves nothing behind, also when the store failed.
pub(super) async fn probe(store: &dyn Store) -> Result<StoreFacts> {
    let number = u64::from_le_bytes(random()?);
    let (single, raced) = (layout::probe(number, 0), layout::probe(number, 1));
    let outcome = try_out(store, &single, &raced).await;
    for name in [&single, &raced] {
        match (&outcome, store.delete(name).await) {
            (Ok(_), Err(error)) => return Err(error.into()),
            // The first error is the one that says what is wrong.
            (Err(_), Err(_)) | (_, Ok(())) => {}
        }
    }
    let facts = outcome?;
    for name in [&single, &raced] {
        if store.exists(name).await? {
            return Err(unfit(format!("{name} is still there after it was deleted")));
        }
    }
    Ok(facts)
}

async fn try_out(store: &dyn Store, single: &ObjectName, raced: &ObjectName) -> Result<StoreFacts> {
    store.put_if_absent(single, body(0)).await?;
    if store.get(single, 2 * BODY_BYTES as u64).await? != body(0) {
        return Err(unfit("other bytes came back than were stored"));
    }
    let (offset, length) = (1000, 777);
    let range = store.get_range(single, offset, length).await?;
    if range != body(0).slice(offset as usize..(offset + length) as usize) {
        return Err(unfit("a range of an object is not that range"));
    }
    let listed = store.list_all(&layout::probes()).await?;
    if !listed.iter().any(|meta| &meta.name == single && meta.size_bytes == BODY_BYTES as u64) {
        return Err(unfit("an object is not in the listing after it was stored"));
    }
    let again = store.put_if_absent(single, body(1)).await;
    let refused = match again {
        Err(StoreError::AlreadyExists { .. }) => true,
        Ok(()) => false,
        Err(error) => return Err(error.into()),
    };
    let unchanged = store.get(single, 2 * BODY_BYTES as u64).await? == body(0);
    if refused && !unchanged {
        return Err(unfit("an object changed although the store refused to overwrite it"));
    }
    let winners = race(store, raced).await?;
    Ok(StoreFacts { create_if_absent: refused && winners == 1, read_after_write: true })
}

async fn race(store: &dyn Store, name: &ObjectName) -> Result<usize> {
    let mut winners = 0;
    for outcome in join_all((0..RACERS).map(|racer| store.put_if_absent(name, body(racer)))).await {
        match outcome {
            Ok(()) => winners += 1,
            Err(StoreError::AlreadyExists { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(winners)
}
