//! The sidecar of a dump as it lies on a shelf: its record, and what happened to the dump
//! since: until when it is held, and that its removal began.

use std::ffi::OsStr;

use backstay_engine::postgres::starting::shell_word;
use backstay_model::dump::DumpRecord;
use backstay_model::{BackupId, Finding, Hold};
use backstay_repo::shelf::{Shelf, ShelfLock, ShelfPath};
use backstay_repo::store::StoreError;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::failed;
use crate::error::{Error, Result};

/// The record of a dump names a thousand tables at most, each with two names.
const SIDECAR_MAX_BYTES: u64 = 4 << 20;
/// A word that only our sidecars have, also when they do not read any more.
const OURS: &[u8] = b"\"backstay_version\"";
const EXPIRED_AT: &str = "expired_at";
const HELD_UNTIL: &str = "held_until";
const HOLD_REASON: &str = "hold_reason";

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Sidecar {
    #[serde(flatten)]
    pub record: DumpRecord,
    /// Whoever must keep a dump writes this into its sidecar.
    #[serde(default)]
    pub held_until: Option<Timestamp>,
    #[serde(default)]
    pub hold_reason: Option<String>,
    #[serde(default)]
    pub expired_at: Option<Timestamp>,
}

pub enum Read {
    Ours(Box<Sidecar>),
    /// A program of somebody else writes files of that name too.
    NotOurs,
    Damaged {
        reason: String,
    },
    /// Nobody could look.
    Unread {
        reason: String,
    },
    Gone,
}

pub async fn read(shelf: &dyn Shelf, path: &ShelfPath) -> Result<Read> {
    let bytes = match shelf.get(path, SIDECAR_MAX_BYTES).await {
        Ok(bytes) => bytes,
        Err(StoreError::NotFound { .. }) => return Ok(Read::Gone),
        Err(StoreError::TooLarge { .. }) => return Ok(Read::NotOurs),
        // One that cannot be read hides no other: its dump is nobody's as long as it lasts.
        Err(error @ (StoreError::Denied { .. } | StoreError::Io { .. } | StoreError::WrongRange { .. })) => {
            return Ok(Read::Unread { reason: with_causes(&error) });
        }
        Err(error) => return Err(failed(shelf, error)),
    };
    Ok(match serde_json::from_slice(&bytes) {
        Ok(sidecar) => Read::Ours(sidecar),
        Err(error) if bytes.windows(OURS.len()).any(|window| window == OURS) => {
            Read::Damaged { reason: error.to_string() }
        }
        Err(_) => Read::NotOurs,
    })
}

fn with_causes(error: &StoreError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

pub fn damaged(shelf: &str, path: &ShelfPath, reason: &str) -> Finding {
    let (subject, directory) = (super::full(shelf, path.as_str()), super::full(shelf, ""));
    let directory = directory.trim_end_matches('/');
    let word = |text: &str| shell_word(OsStr::new(text)).into_owned();
    let (sidecar, aside, directory) = (word(&subject), word(&format!("{subject}.damaged")), word(directory));
    // Nobody's sidecar is written over, not even a damaged one.
    let remedy = format!(
        "put back a copy of it, or describe the dump anew: `mv {sidecar} {aside}`, then `backstay adopt {directory}`"
    );
    let message = format!("the sidecar cannot be read, and nothing is done with its dump: {reason}");
    Finding::error(subject, message, remedy)
}

pub fn unread(subject: String, reason: &str) -> Finding {
    Finding::warning(
        subject,
        format!("the sidecar could not be read, and nothing is done with its dump: {reason}"),
        "give backstay the right to read everything in the directory of `dump.to`",
    )
}

pub fn not_ours(subject: String) -> Finding {
    Finding::info(
        subject,
        "this is not a sidecar of Backstay's, so the file beside it is taken for somebody else's",
        "`backstay adopt` describes a dump anew when its sidecar is lost",
    )
}

pub fn of_another(subject: String, file: &str) -> Finding {
    Finding::warning(
        subject,
        format!("this sidecar describes {file}, so the file beside it is taken for somebody else's"),
        format!("give the dump its name {file} back with `mv`, its sidecar too, or set `file` in it"),
    )
}

/// Says in the sidecar that its dump is being removed, or takes that back. `false` when it
/// is gone, is another's, or is held since.
pub async fn mark(
    shelf: &dyn Shelf,
    alone: &ShelfLock,
    path: &ShelfPath,
    id: &BackupId,
    expired_at: Option<Timestamp>,
) -> Result<bool> {
    change(shelf, alone, path, id, |fields| {
        let held_until = fields.get(HELD_UNTIL).and_then(Value::as_str).and_then(|text| text.parse().ok());
        match (expired_at, held_until) {
            (Some(at), Some(until)) if at < until => return false,
            (Some(at), _) => fields.insert(EXPIRED_AT.to_owned(), Value::String(at.to_string())),
            (None, _) => fields.remove(EXPIRED_AT),
        };
        true
    })
    .await
}

/// Says in the sidecar that its dump is held, or takes that back. `false` when it is gone
/// or is another's.
pub async fn hold(
    shelf: &dyn Shelf,
    alone: &ShelfLock,
    path: &ShelfPath,
    id: &BackupId,
    hold: Option<&Hold>,
) -> Result<bool> {
    change(shelf, alone, path, id, |fields| {
        fields.remove(HELD_UNTIL);
        fields.remove(HOLD_REASON);
        if let Some(hold) = hold {
            put_hold(fields, hold);
        }
        true
    })
    .await
}

/// Whether the sidecar still says that its dump is being removed, and nobody holds it. On
/// a file system without locks somebody may have written since.
pub async fn is_going(shelf: &dyn Shelf, path: &ShelfPath, id: &BackupId, now: Timestamp) -> Result<bool> {
    Ok(match read(shelf, path).await? {
        Read::Ours(sidecar) => {
            let is_held = sidecar.held_until.is_some_and(|until| now < until);
            sidecar.record.id == *id && sidecar.expired_at.is_some() && !is_held
        }
        _ => false,
    })
}

/// The fields of the hold that lasts longest, for the sidecar of one more name.
pub async fn held(
    shelf: &dyn Shelf,
    _alone: &ShelfLock,
    sidecars: &[ShelfPath],
) -> Result<Map<String, Value>> {
    let mut longest = None;
    for path in sidecars {
        if let Read::Ours(sidecar) = read(shelf, path).await?
            && sidecar.held_until > longest.as_ref().and_then(|(until, _)| *until)
        {
            longest = Some((sidecar.held_until, sidecar.hold_reason));
        }
    }
    let mut fields = Map::new();
    if let Some((Some(until), reason)) = longest {
        put_hold(&mut fields, &Hold { until, reason });
    }
    Ok(fields)
}

fn put_hold(fields: &mut Map<String, Value>, hold: &Hold) {
    fields.insert(HELD_UNTIL.to_owned(), Value::String(hold.until.to_string()));
    if let Some(reason) = &hold.reason {
        fields.insert(HOLD_REASON.to_owned(), Value::String(reason.clone()));
    }
}

/// Changes some fields; everything else in the sidecar stays, also what a newer version
/// wrote. Between the reading and the writing nobody else may do the same.
async fn change(
    shelf: &dyn Shelf,
    _alone: &ShelfLock,
    path: &ShelfPath,
    id: &BackupId,
    edit: impl FnOnce(&mut Map<String, Value>) -> bool,
) -> Result<bool> {
    let bytes = match shelf.get(path, SIDECAR_MAX_BYTES).await {
        Ok(bytes) => bytes,
        Err(StoreError::NotFound { .. }) => return Ok(false),
        Err(error) => return Err(failed(shelf, error)),
    };
    let Ok(mut fields) = serde_json::from_slice::<Map<String, Value>>(&bytes) else { return Ok(false) };
    if fields.get("id").and_then(Value::as_str) != Some(id.as_str()) || !edit(&mut fields) {
        return Ok(false);
    }
    let mut json = serde_json::to_vec_pretty(&fields).map_err(|error| Error::broken(error.to_string()))?;
    json.push(b'\n');
    shelf.replace(path, json.into()).await.map_err(|error| failed(shelf, error))?;
    Ok(true)
}
