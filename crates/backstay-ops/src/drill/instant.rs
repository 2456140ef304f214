//! To which instant a drill goes when nobody says: to any one within the windows that
//! `status` shows, so that in time every part of the log is proved.

use backstay_model::plan::RestoreRequest;
use backstay_model::plan::window::any_instant;
use backstay_model::status::RecoveryWindow;
use backstay_model::{BackupRecord, InstanceId, RecoveryTarget, StopOptions, TargetTimeline};

use crate::context::Context;
use crate::error::{Error, Result};
use crate::known::Known;
use crate::log_view::LogView;
use crate::status::reach;

/// Windows begin at the end of a backup by the clock of this program, and end with a commit
/// by that of the server: where those differ, an instant near the beginning may be out of
/// reach. Another one is not.
const DRAWS: usize = 8;

/// The instants that are tried one after the other.
pub(super) struct Draw {
    windows: Vec<RecoveryWindow>,
    left: usize,
}

impl Draw {
    /// Nothing is drawn where a target was said.
    pub async fn of(
        context: &Context,
        instance: &InstanceId,
        known: &Known,
        target: Option<&RecoveryTarget>,
    ) -> Result<Draw> {
        if target.is_some() {
            return Ok(Draw { windows: Vec::new(), left: 0 });
        }
        let newest_first = known.newest_first();
        let sound: Vec<&BackupRecord> = newest_first
            .iter()
            .rev()
            .filter(|(_, marks)| !marks.is_damaged())
            .map(|(record, _)| record)
            .collect();
        let view = LogView::of(context, instance, sound.iter().copied()).await?;
        let windows = reach::look(context, instance, &view, &sound).await?.windows;
        Ok(Draw { windows, left: DRAWS })
    }

    /// Puts the next instant into a request; the latest state where there is none.
    pub fn next(&mut self, request: &mut RestoreRequest) -> Result<()> {
        self.left = self.left.saturating_sub(1);
        let drawn = if self.left == 0 { None } else { any_instant(&self.windows, chance()?) };
        let timeline = drawn.map(|(timeline, _)| TargetTimeline::Number(timeline));
        request.stop = StopOptions { timeline: timeline.unwrap_or_default(), ..StopOptions::default() };
        request.target = drawn.map_or(RecoveryTarget::Latest, |(_, at)| RecoveryTarget::Time(at));
        Ok(())
    }

    pub fn is_over(&self) -> bool {
        self.left == 0
    }
}

pub(super) fn chance() -> Result<u64> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(|_| Error::broken("the system gives no random numbers"))?;
    Ok(u64::from_le_bytes(random))
}
