//! Hold: a backup or a dump stays, whatever retention says.
//!
//! A dump's hold stands in its sidecars, a backup's is an object of its own beside it. A
//! new hold takes the place of the old one; between the two both are there, and the
//! longer counts. A backup that is held keeps all that it is made of, for its manifest
//! names every pack: its parents may go.
//!
//! Refuses to hold what is gone, and to take a hold that does not open for none.

use std::collections::HashMap;

use backstay_model::error::Classified as _;
use backstay_model::{BackupId, ErrorKind, Finding, Hold, InstanceId};
use backstay_repo::layout::{InstanceLayout, ObjectName};
use backstay_repo::store::StoreError;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::deletion;
use crate::dump::DumpPolicy;
use crate::dump::shelved::{self, Presence, ShelvedFile};
use crate::error::{Error, Result};
use crate::list;
use crate::run::Run;

/// Of the documents that are made here.
const FORMAT: u32 = 1;
/// Two persons at once draw different numbers; more is nobody's intent.
const TRIES: u32 = 16;

/// `holds/<session>-<n>`
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    format: u32,
    at: Timestamp,
    #[serde(flatten)]
    hold: Hold,
}

/// What `hold` tells.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HoldReport {
    pub id: BackupId,
    pub instance: InstanceId,
    /// `dump` or `base`.
    #[serde(rename = "type")]
    pub backup_type: &'static str,
    /// Until when it may not expire; `null` when it is not held any more.
    pub hold: Option<Timestamp>,
    pub hold_reason: Option<String>,
    /// It was held before.
    pub was_held: bool,
    pub findings: Vec<Finding>,
}

/// The holds of an instance's backups.
#[derive(Debug, Default)]
pub(crate) struct Held {
    /// The longest of each, be it over or not.
    pub backups: HashMap<BackupId, Hold>,
    /// Holds that do not open.
    pub findings: Vec<Finding>,
}

pub(crate) async fn of(context: &Context, instance: &InstanceId) -> Result<Held> {
    let mut held = Held::default();
    for (id, name) in names(context, instance).await? {
        let document = match context.repo.get_document(&name).await {
            Ok(json) => serde_json::from_slice::<Note>(&json).map_err(|error| error.to_string()),
            Err(backstay_repo::Error::Store(StoreError::NotFound { .. })) => continue,
            Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported) => {
                Err(error.to_string())
            }
            Err(error) => return Err(error.into()),
        };
        let hold = match document {
            Ok(note) => note.hold,
            Err(reason) => {
                held.findings.push(Finding::warning(
                    name.as_str(),
                    format!("until when the backup is held is not known, and it stays: {reason}"),
                    format!("`backstay hold add {id}` says it anew, `backstay hold remove {id}` lets it go"),
                ));
                Hold::new(None, None)
            }
        };
        let longest = held.backups.entry(id).or_insert_with(|| hold.clone());
        if hold.until > longest.until {
            *longest = hold;
        }
    }
    Ok(held)
}

async fn names(context: &Context, instance: &InstanceId) -> Result<Vec<(BackupId, ObjectName)>> {
    let layout = InstanceLayout::new(instance.clone());
    let listed = context.repo.store().list_all(&layout.holds()).await.map_err(backstay_repo::Error::from)?;
    let holds = listed.into_iter().filter_map(|meta| Some((layout.hold_of(&meta.name)?, meta.name)));
    Ok(holds.map(|(object, name)| (object.session, name)).collect())
}

fn must_be_to_come(hold: Option<&Hold>, now: Timestamp) -> Result<()> {
    match hold.filter(|hold| !hold.is_in_force(now)) {
        Some(hold) => Err(Error::HoldOver { until: hold.until }),
        None => Ok(()),
    }
}

/// Holds a base backup, or with no hold leaves it to retention again.
pub async fn on_base(context: &Context, id: &BackupId, hold: Option<&Hold>) -> Result<HoldReport> {
    let now = context.clock.now();
    must_be_to_come(hold, now)?;
    let (record, marks) = list::find(context, id).await?;
    let instance = record.instance;
    let before: Vec<ObjectName> = names(context, &instance)
        .await?
        .into_iter()
        .filter_map(|(held, name)| (held == *id).then_some(name))
        .collect();
    let mut report = HoldReport {
        id: id.clone(),
        instance: instance.clone(),
        backup_type: "base",
        hold: hold.map(|hold| hold.until),
        hold_reason: hold.and_then(|hold| hold.reason.clone()),
        was_held: !before.is_empty(),
        findings: Vec::new(),
    };
    let Some(hold) = hold else {
        delete(context, &before).await?;
        return Ok(report);
    };
    let new = put(context, &instance, id, now, hold).await?;
    // Retention may be about to delete it without having seen the hold, or have done it.
    if let Some(since) = deletion::waited_for(context, &instance, id).await? {
        return Err(Error::BeingDeleted { backup: id.clone(), since });
    }
    match context.repo.manifest(&instance, id).await {
        Ok(_) | Err(backstay_repo::Error::Damaged { .. }) => {}
        Err(backstay_repo::Error::NoSuchBackup { .. }) => {
            delete(context, &[new]).await?;
            return Err(Error::NoSuchBackup { backup: id.clone() });
        }
        Err(error) => return Err(error.into()),
    }
    delete(context, &before).await?;
    if marks.condemned.is_some() {
        report.findings.push(Finding::info(
            id.as_str(),
            "retention had let it go: it stays and can be restored, and no new backup builds on it",
            "`backstay show` says all that is known of it",
        ));
    }
    Ok(report)
}

async fn put(
    context: &Context,
    instance: &InstanceId,
    id: &BackupId,
    at: Timestamp,
    hold: &Hold,
) -> Result<ObjectName> {
    let layout = InstanceLayout::new(instance.clone());
    let note = Note { format: FORMAT, at, hold: hold.clone() };
    let json = serde_json::to_vec(&note).map_err(|error| Error::broken(error.to_string()))?;
    let taken = names(context, instance).await?;
    let taken = taken.iter().filter_map(|(_, name)| layout.hold_of(name)).filter(|hold| hold.session == *id);
    let next = taken.map(|hold| hold.number.saturating_add(1)).max().unwrap_or(0);
    for number in next..next.saturating_add(TRIES) {
        let name = layout.hold(id, number);
        match context.repo.put_document(&name, &json).await {
            Ok(()) => return Ok(name),
            Err(backstay_repo::Error::Store(StoreError::AlreadyExists { .. })) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Error::broken(format!("{TRIES} holds of one backup were made at once")))
}

async fn delete(context: &Context, names: &[ObjectName]) -> Result<()> {
    for name in names {
        context.repo.store().delete(name).await.map_err(backstay_repo::Error::from)?;
    }
    Ok(())
}

/// Holds a dump under all its names, or with no hold leaves it to retention again; `None`
/// when the shelf has none of it.
pub async fn on_dump(
    run: &Run,
    policy: &DumpPolicy,
    id: &BackupId,
    hold: Option<&Hold>,
) -> Result<Option<HoldReport>> {
    must_be_to_come(hold, run.clock.now())?;
    let place = policy.place()?;
    let mut was_held = None;
    for round in 0..TRIES {
        let shelved = shelved::look(run, policy, None).await?;
        let names: Vec<_> = shelved.files.iter().filter(|file| file.record().id == *id).collect();
        // `expire` may have been faster.
        let Some(first) = names.first() else { return Ok(None) };
        let is_there = |file: &&&ShelvedFile| hold.is_none() || file.presence != Presence::Gone;
        let there: Vec<_> = names.iter().filter(is_there).collect();
        if there.is_empty() {
            let file = first.path().to_string();
            return Err(Error::DumpNotGood { file, fault: "gone", instead: None });
        }
        let was_held = *was_held.get_or_insert(names.iter().any(|file| file.dump.hold.is_some()));
        // What was written is looked at once more, and no name came to it meanwhile.
        if round > 0 && there.iter().all(|file| file.dump.hold.as_ref() == hold) {
            return Ok(Some(HoldReport {
                id: id.clone(),
                instance: first.record().instance.clone(),
                backup_type: "dump",
                hold: hold.map(|hold| hold.until),
                hold_reason: hold.and_then(|hold| hold.reason.clone()),
                was_held,
                findings: Vec::new(),
            }));
        }
        let alone = shelved::alone(run, &*place.shelf).await?;
        for sidecar in there.iter().flat_map(|file| &file.sidecars) {
            shelved::hold(&*place.shelf, &alone, sidecar, id, hold).await?;
        }
    }
    Err(Error::broken(format!("what holds dump {id} was changed {TRIES} times by others")))
}
