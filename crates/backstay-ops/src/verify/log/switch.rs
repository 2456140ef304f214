//! Where one timeline went on from another, both hold the segment of the change: up to the
//! change they must hold the same.

use backstay_engine::postgres::receive::timeline_of;
use backstay_model::error::{Classified, ErrorKind};
use backstay_model::{Finding, LogSpan, VerifyReport};

use super::{Looking, log_of};
use crate::error::{Error, Result};

impl Looking<'_> {
    pub(super) async fn switches(&self, report: &mut VerifyReport) -> Result<()> {
        for (log, timeline) in self.view.index.timelines() {
            self.context.check_cancelled()?;
            let Some(number) = timeline_of(log) else { continue };
            let history = self.view.lineage(&log.lineage).histories.get(&number);
            let before = history.and_then(|history| history.ancestors.last());
            let (Some((parent, switch)), Some(segment)) = (before, self.segment_bytes(&log.lineage)) else {
                continue;
            };
            let of_parent = log_of(&log.lineage, *parent);
            let Some(there) = self.view.index.timeline(&of_parent) else { continue };
            let Some(span) = LogSpan::new(switch.0 / segment * segment, switch.0) else { continue };
            let both = async {
                let own = self.context.repo.read_log(self.instance, log, timeline, span).await?;
                let of_parent = self.context.repo.read_log(self.instance, &of_parent, there, span).await?;
                Ok::<_, backstay_repo::Error>((own, of_parent))
            };
            let ((own, own_there), (parents, parents_there)) = match both.await {
                Ok(both) => both,
                // It was named already.
                Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Conflict) => continue,
                Err(error) => return Err(Error::Repo(error)),
            };
            for part in own_there.spans() {
                for common in parents_there.spans().iter().filter_map(|other| other.common(part)) {
                    let range = (common.start - span.start) as usize..(common.end - span.start) as usize;
                    if own[range.clone()] == parents[range] {
                        continue;
                    }
                    report.found(Finding::error(
                        self.history_name(log)?,
                        format!(
                            "timelines {parent} and {number} hold different log before {switch}, where the one \
                             went on from the other as this says"
                        ),
                        format!("`backstay backup {}` makes a base that needs neither", self.instance),
                    ));
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}
