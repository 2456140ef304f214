//! How far a timeline counts, for a server that goes on to a later one.
//!
//! A server asks for a segment by the names of all timelines on its way, the newest first, and
//! takes what it gets: where the newest has nothing yet, it would replay the older one beyond
//! the place where the way left it, and hold what the life that went on never had.

use backstay_model::log::history::History;
use backstay_model::{Lsn, TimelineId};

use super::LogSource;
use crate::context::Context;
use crate::error::Result;

/// Where the way leaves a timeline; `None` where it does not, as far as is known.
pub(super) async fn left_at(
    context: &Context,
    source: &LogSource,
    timeline: TimelineId,
) -> Result<Option<Lsn>> {
    if !source.standby {
        return match source.follows.filter(|follows| *follows > timeline) {
            Some(follows) => switch(context, source, follows, timeline).await.map(Option::flatten),
            // Whoever wrote the command himself may want this very timeline.
            None => Ok(None),
        };
    }
    // A standby goes to the newest that there is, and looks for it as this does: number by number.
    let (mut left, mut next) = (None, timeline.0);
    loop {
        next = next.saturating_add(1);
        match switch(context, source, TimelineId(next), timeline).await? {
            None => return Ok(left),
            Some(switch) => left = switch.or(left),
        }
    }
}

/// Where the history of a timeline leaves an older one. The outer `None`: there is no history.
async fn switch(
    context: &Context,
    source: &LogSource,
    of: TimelineId,
    older: TimelineId,
) -> Result<Option<Option<Lsn>>> {
    let log = source.log(of);
    let Some(text) = context.repo.log_history(&source.instance, &log).await? else { return Ok(None) };
    let history = History::parse(&text).map_err(|error| backstay_repo::Error::Damaged {
        object: format!("{}/log/{log}", source.instance),
        reason: error.to_string(),
    })?;
    let left = history.ancestors.iter().find(|(ancestor, _)| *ancestor == older);
    Ok(Some(left.map(|(_, switch)| *switch)))
}
