//! Why log is missing, as far as what is there says it.

use backstay_model::plan::restore::LineageLog;
use backstay_model::plan::window::PositionHole;

use super::log_of;
use super::marks::Seeker;
use crate::error::Result;

/// A writer has several objects on their way at once, and names the one that arrived last.
const LOOKS: usize = 8;

/// Where somebody decided to leave it out, that is why. Whoever stored what lies behind a hole says what he had stored before: when that lay in
/// the hole, it was there. Nothing proves that log never came.
pub(crate) async fn why(seeker: &Seeker<'_>, lineage: &LineageLog, hole: &PositionHole) -> Result<String> {
    if let Some(gap) = lineage.gap(hole.timeline, hole.span) {
        return Ok(gap.to_string());
    }
    let log = log_of(seeker.lineage, hole.timeline);
    let objects = seeker.index.timeline(&log).map(|there| there.objects.as_slice()).unwrap_or_default();
    let behind = objects.iter().filter(|object| object.span.start >= hole.span.end);
    for object in behind.take(LOOKS) {
        let Some(glance) = seeker.glance(&log, *object).await? else { continue };
        if glance.head.previous.is_some_and(|previous| previous.span.overlaps(&hole.span)) {
            return Ok("it was stored, and is gone from the store".to_owned());
        }
    }
    let is_first = objects.first().is_none_or(|first| first.span.start >= hole.span.end);
    Ok(match is_first {
        true => "the archive begins only behind it".to_owned(),
        false => "it was not received, or is gone from the store".to_owned(),
    })
}
