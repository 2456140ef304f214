//! The reports of verification that lie on a shelf, for people and programs that look
//! there without Backstay, and for `list` and `expire`, which learn from it what is damaged.
//!
//! A report is of the whole shelf: what was not looked at this time stands in it as it was
//! seen last, and a shallow look that found nothing clears nothing that a deeper one
//! found. Refuses to write over a report that another program made.

use backstay_model::dump::{DumpContent, DumpRecord, Layout, Tier};
use backstay_model::{BackupId, Finding, InstanceId, VerifyLevel};
use backstay_repo::shelf::{Shelf, ShelfPath};
use backstay_repo::store::StoreError;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::shelved::failed;
use crate::error::{Error, Result};

mod text;

/// How the names of reports begin.
pub(super) const NAME: &str = "verification_report_";
pub(super) const LATEST: &str = "latest_verification.json";
/// A report of a hundred thousand dumps.
const REPORT_MAX_BYTES: u64 = 64 << 20;

/// What holds of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DumpState {
    Good,
    Damaged,
    /// Its sidecar is there, its bytes are not.
    Gone,
    /// It could not be looked at.
    Unseen,
}

/// What a verification saw of one file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FileVerdict {
    pub path: String,
    pub id: BackupId,
    pub instance: InstanceId,
    #[serde(flatten)]
    pub content: DumpContent,
    pub tier: Tier,
    pub finished_at: Timestamp,
    pub stored_bytes: u64,
    pub sha256: String,
    pub state: DumpState,
    /// How deep this look went.
    pub level: VerifyLevel,
    pub verified_at: Timestamp,
    /// Why it is not good, and what else was noticed.
    pub findings: Vec<Finding>,
    /// For one that is not good: the path of the newest good dump of the same database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest_good: Option<String>,
}

impl FileVerdict {
    fn is_of(&self, path: &str, record: &DumpRecord) -> bool {
        self.path == path && self.id == record.id && self.sha256 == record.sha256
    }

    /// What is known after a later look.
    fn then(self, later: FileVerdict) -> FileVerdict {
        let keeps = match later.state {
            DumpState::Damaged | DumpState::Gone => false,
            DumpState::Good => self.state == DumpState::Damaged && self.level > later.level,
            DumpState::Unseen => self.state != DumpState::Gone,
        };
        if keeps { self } else { later }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VerificationReport {
    pub backstay_version: String,
    pub shelf: String,
    /// When the last verification ended.
    pub verified_at: Timestamp,
    pub level: VerifyLevel,
    /// Every file was seen, and is good.
    pub sound: bool,
    /// Newest dumps first.
    pub files: Vec<FileVerdict>,
    /// What is not of one dump.
    pub findings: Vec<Finding>,
}

impl VerificationReport {
    pub(super) fn of(&self, path: &str, record: &DumpRecord) -> Option<&FileVerdict> {
        self.files.iter().find(|seen| seen.is_of(path, record))
    }

    pub(super) fn says_damaged(&self, path: &str, record: &DumpRecord) -> bool {
        self.of(path, record).is_some_and(|seen| seen.state == DumpState::Damaged)
    }

    /// Puts what was seen now over what was seen before, for the files that are there.
    pub(super) fn renewed(
        mut self,
        before: Option<&VerificationReport>,
        there: &[(&str, &DumpRecord)],
    ) -> Self {
        let mut seen = std::mem::take(&mut self.files);
        for (path, record) in there {
            let earlier = before.and_then(|report| report.of(path, record)).cloned();
            let now = seen.iter().position(|now| now.is_of(path, record)).map(|at| seen.swap_remove(at));
            let holds = match (earlier, now) {
                (Some(earlier), Some(now)) => Some(earlier.then(now)),
                (earlier, now) => now.or(earlier),
            };
            self.files.extend(holds);
        }
        let is_good = |seen: &FileVerdict| seen.state == DumpState::Good;
        self.sound = self.files.len() == there.len() && self.files.iter().all(is_good);
        self
    }
}

/// What the newest report is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Last {
    /// There is none, or it is another program's.
    None,
    Ours(Box<VerificationReport>),
    /// It was one of ours.
    Unreadable {
        path: String,
        reason: String,
    },
}

pub(super) async fn read_last(shelf: &dyn Shelf, layout: &Layout) -> Result<Last> {
    let path = parsed(&format!("{}/{LATEST}", layout.reports))?;
    read(shelf, &path).await
}

fn parsed(path: &str) -> Result<ShelfPath> {
    Ok(path.parse::<ShelfPath>().map_err(backstay_repo::Error::from)?)
}

async fn read(shelf: &dyn Shelf, path: &ShelfPath) -> Result<Last> {
    let bytes = match shelf.get(path, REPORT_MAX_BYTES).await {
        Ok(bytes) => bytes,
        Err(StoreError::NotFound { .. }) => return Ok(Last::None),
        Err(StoreError::Unavailable { operation, object, cause }) => {
            return Err(failed(shelf, StoreError::Unavailable { operation, object, cause }));
        }
        Err(error) => return Ok(Last::Unreadable { path: path.to_string(), reason: error.to_string() }),
    };
    const OURS: &[u8] = b"\"backstay_version\"";
    match serde_json::from_slice(&bytes) {
        Ok(report) => Ok(Last::Ours(Box::new(report))),
        Err(error) if bytes.windows(OURS.len()).any(|window| window == OURS) => {
            Ok(Last::Unreadable { path: path.to_string(), reason: error.to_string() })
        }
        Err(_) => Ok(Last::None),
    }
}

/// Writes the reports of the day and points to them; the paths, or why there are none.
pub(super) async fn write(
    shelf: &dyn Shelf,
    layout: &Layout,
    report: &VerificationReport,
) -> Result<Vec<String>, String> {
    let paths = layout.report_paths(report.verified_at);
    let written = async {
        let (json, text, latest) = (parsed(&paths.json)?, parsed(&paths.text)?, parsed(&paths.latest)?);
        if is_anothers(shelf, &json).await? {
            return Ok(Err(format!("{json} was made by another program, and stays as it is")));
        }
        let mut bytes =
            serde_json::to_vec_pretty(report).map_err(|error| Error::broken(error.to_string()))?;
        bytes.push(b'\n');
        let failed = |error| failed(shelf, error);
        shelf.replace(&json, bytes.into()).await.map_err(failed)?;
        shelf.replace(&text, text::of(report).into()).await.map_err(failed)?;
        match shelf.point(&latest, &json).await {
            Ok(()) => Ok(Ok(vec![json.to_string(), text.to_string(), latest.to_string()])),
            Err(StoreError::AlreadyExists { .. }) => {
                Ok(Err(format!("{latest} is a file and no link, and stays as it is")))
            }
            Err(error) => Err(failed(error)),
        }
    };
    match written.await {
        Ok(written) => written,
        Err(error @ Error::Shelf { .. }) => Err(told(&error)),
        Err(error) => Err(error.to_string()),
    }
}

/// The reports of ours whose day is before that of `before`, oldest first. The newest is
/// none of them, and neither is what another program made or nobody could read.
pub(super) async fn outlived(
    shelf: &dyn Shelf,
    layout: &Layout,
    before: Timestamp,
) -> Result<Vec<ShelfPath>> {
    let under = parsed(&layout.reports)?;
    let listed = shelf.list_all(Some(&under)).await.map_err(|error| failed(shelf, error))?;
    let day = before.strftime("%Y%m%d").to_string();
    let mut outlived = Vec::new();
    let mut newest_first: Vec<(&ShelfPath, &str)> =
        listed.iter().filter_map(|file| Some((&file.path, day_of(&file.path, &under)?))).collect();
    newest_first.sort_by(|a, b| b.1.cmp(a.1));
    let mut has_newer = false;
    for (json, of) in newest_first {
        let is_old = of < day.as_str();
        if (has_newer && !is_old) || !matches!(read(shelf, json).await?, Last::Ours(_)) {
            continue;
        }
        if has_newer && is_old {
            let text = parsed(&format!("{}.txt", json.as_str().trim_end_matches(".json")))?;
            outlived.extend(listed.iter().any(|file| file.path == text).then_some(text));
            outlived.push(json.clone());
        }
        has_newer = true;
    }
    outlived.reverse();
    Ok(outlived)
}

/// `20240901` of `verification/verification_report_20240901.json`.
fn day_of<'a>(path: &'a ShelfPath, under: &ShelfPath) -> Option<&'a str> {
    let name = path.as_str().strip_prefix(under.as_str())?.strip_prefix('/')?;
    let day = name.strip_prefix(NAME)?.strip_suffix(".json")?;
    (day.len() == 8 && day.bytes().all(|byte| byte.is_ascii_digit())).then_some(day)
}

/// Removes them; those that are gone.
pub(super) async fn let_go(shelf: &dyn Shelf, outlived: Vec<ShelfPath>) -> Result<Vec<String>> {
    for path in &outlived {
        shelf.delete(path).await.map_err(|error| failed(shelf, error))?;
    }
    Ok(outlived.iter().map(ToString::to_string).collect())
}

fn told(error: &Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => crate::status::with_causes(source),
        None => error.to_string(),
    }
}

async fn is_anothers(shelf: &dyn Shelf, path: &ShelfPath) -> Result<bool> {
    match shelf.head(path).await {
        Ok(_) => Ok(matches!(read(shelf, path).await?, Last::None)),
        Err(StoreError::NotFound { .. }) => Ok(false),
        Err(error) => Err(failed(shelf, error)),
    }
}

#[cfg(test)]
mod tests;
