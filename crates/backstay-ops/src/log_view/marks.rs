//! The commits around a position.
//!
//! An answer here is for people. Damage ends no search: whoever verifies tells it.

use backstay_model::error::{Classified, ErrorKind};
use backstay_model::plan::restore::Stretch;
use backstay_model::{InstanceId, LogId, LogMark, LogMarkKind, LogSpan};
use backstay_repo::log::{LogGlance, LogIndex, LogObject};

use super::log_of;
use crate::context::Context;
use crate::error::Result;

/// An idle server writes log without a commit for days; so many objects are looked at.
const LOOKS: usize = 64;

/// Where to look.
pub(crate) struct Seeker<'a> {
    pub context: &'a Context,
    pub instance: &'a InstanceId,
    pub index: &'a LogIndex,
    pub lineage: &'a str,
}

impl Seeker<'_> {
    /// The last commit of these stretches, which are in the order of a replay.
    pub async fn last(&self, stretches: &[Stretch]) -> Result<Option<LogMark>> {
        let mut looks = 0;
        for stretch in stretches.iter().rev() {
            let (log, span, objects) = self.covering(stretch);
            for object in objects.into_iter().rev() {
                let commits = self.commits(&log, object, span).await?;
                looks += 1;
                if let Some(last) = commits.into_iter().next_back() {
                    return Ok(Some(last));
                }
                if looks == LOOKS {
                    return Ok(None);
                }
            }
        }
        Ok(None)
    }

    /// The first of one stretch.
    pub async fn first(&self, stretch: &Stretch) -> Result<Option<LogMark>> {
        let (log, span, objects) = self.covering(stretch);
        for object in objects.into_iter().take(LOOKS) {
            if let Some(first) = self.commits(&log, object, span).await?.into_iter().next() {
                return Ok(Some(first));
            }
        }
        Ok(None)
    }

    /// The head of an object; `None` when it does not open, or went since the listing.
    pub async fn glance(&self, log: &LogId, object: LogObject) -> Result<Option<LogGlance>> {
        self.context.check_cancelled()?;
        readable(self.context.repo.glance_at_log(self.instance, log, object).await)
    }

    fn covering(&self, stretch: &Stretch) -> (LogId, LogSpan, Vec<LogObject>) {
        let log = log_of(self.lineage, stretch.timeline);
        let span = LogSpan { start: stretch.from.0, end: stretch.to.0 };
        let objects = self.index.timeline(&log).filter(|_| span.start < span.end);
        let objects = objects.map(|timeline| timeline.covering(span)).unwrap_or_default();
        (log, span, objects)
    }

    /// A mark at the first position belongs to what came before.
    async fn commits(&self, log: &LogId, object: LogObject, span: LogSpan) -> Result<Vec<LogMark>> {
        let Some(glance) = self.glance(log, object).await? else { return Ok(Vec::new()) };
        let mut marks = readable(self.context.repo.marks_of(&glance).await)?.unwrap_or_default();
        marks.retain(|mark| {
            let is_commit = matches!(mark.kind, LogMarkKind::Commit { .. } | LogMarkKind::Instant);
            is_commit && span.start < mark.at && mark.at <= span.end
        });
        Ok(marks)
    }
}

fn readable<T>(read: backstay_repo::Result<T>) -> Result<Option<T>> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(error) => match error.kind() {
            ErrorKind::Corrupt | ErrorKind::Unsupported | ErrorKind::NotFound => Ok(None),
            _ => Err(error.into()),
        },
    }
}
