//! Why log is missing, as far as what is there says it.

use backstay_model::plan::window::PositionHole;

use super::log_of;
use super::marks::Seeker;
use crate::error::Result;

/// Whoever stored what lies behind a hole says what he had stored before it.
pub(crate) async fn why(seeker: &Seeker<'_>, hole: &PositionHole) -> Result<String> {
    let log = log_of(seeker.lineage, hole.timeline);
    let objects = seeker.index.timeline(&log).map(|there| there.objects.as_slice()).unwrap_or_default();
    let is_first = objects.first().is_none_or(|first| first.span.start >= hole.span.end);
    for object in objects.iter().filter(|object| object.span.start == hole.span.end) {
        let Some(glance) = seeker.glance(&log, *object).await? else { continue };
        let Some(previous) = glance.head.previous else { continue };
        return Ok(match previous.span.overlaps(&hole.span) {
            true => "it was stored, and is gone from the store".to_owned(),
            false => "it was not received".to_owned(),
        });
    }
    Ok(match is_first {
        true => "the archive begins only behind it".to_owned(),
        false => "it was not received, or is gone from the store".to_owned(),
    })
}
