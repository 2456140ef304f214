//! Segments that the server has ready behind the one that it gives away now.
//!
//! A server calls its `archive_command` for one segment after the other, and waits each time.
//! Those that are ready are stored in the same call, several at once. What remembers it is
//! the store: when the server comes to one of them, its bytes are compared with what is
//! there, and only then it is told yes.
//!
//! Invariant: nothing goes ahead of a segment that the server could not give away, and
//! nothing here changes what the server notes in `archive_status`.
//!
//! Refuses to fail: whatever goes wrong with one of them, the server comes to it, and hears.

use std::path::{Path, PathBuf};

use backstay_model::InstanceId;
use tokio::task::JoinSet;

use super::{LogFileName, Pushed};
use crate::context::{Context, off_thread};

/// Segments on their way at once: each takes its bytes and its object in memory.
pub(super) const AT_ONCE: usize = 2;
/// So many go ahead in one call, unless somebody says otherwise.
pub const DEFAULT_AHEAD: u32 = 8;
const STATUS_DIRECTORY: &str = "archive_status";
const READY: &str = ".ready";

/// Stores up to `most` segments behind `path` that are ready beside it, and says how many
/// were not there before.
pub async fn push_ahead(
    context: &Context,
    instance: &InstanceId,
    system: Option<u64>,
    path: &Path,
    level: i32,
    most: u32,
) -> u32 {
    let from = path.to_owned();
    let ready = off_thread(move || Ok(ready_behind(&from, most as usize))).await.unwrap_or_default();
    let mut ready = ready.into_iter();
    let mut on_their_way = JoinSet::new();
    let mut stored = 0;
    loop {
        while on_their_way.len() < AT_ONCE && !context.cancel.is_cancelled() {
            let Some(next) = ready.next() else { break };
            let (context, instance) = (context.clone(), instance.clone());
            on_their_way.spawn(async move {
                let pushed = super::push(&context, &instance, system, &next, level).await;
                pushed.inspect_err(
                    |error| tracing::debug!(%error, path = %next.display(), "it was not stored ahead"),
                )
            });
        }
        match on_their_way.join_next().await {
            Some(Ok(Ok(pushed))) => stored += u32::from(pushed == Pushed::Stored),
            // The server comes to it by itself.
            Some(_) => ready = Vec::new().into_iter(),
            None => return stored,
        }
    }
}

/// Whether there is anything that could go ahead. Blocks.
pub fn is_more_ready(path: &Path) -> bool {
    !ready_behind(path, 1).is_empty()
}

/// In the order in which the server will come to them.
pub(super) fn ready_behind(path: &Path, most: usize) -> Vec<PathBuf> {
    let (Some(directory), Some(own)) = (path.parent(), path.file_name().and_then(|name| name.to_str()))
    else {
        return Vec::new();
    };
    let Ok(entries) = std::fs::read_dir(directory.join(STATUS_DIRECTORY)) else { return Vec::new() };
    let name = |entry: std::fs::DirEntry| entry.file_name().into_string().ok();
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| Some(name(entry)?.strip_suffix(READY)?.to_owned()))
        // The history of another timeline goes before its log.
        .filter(|name| name.get(..8) == own.get(..8))
        .filter(|name| name.as_str() > own && matches!(name.parse(), Ok(LogFileName::Segment { .. })))
        .collect();
    names.sort();
    names.truncate(most);
    names.into_iter().map(|name| directory.join(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_segments_that_are_ready_and_behind_are_taken_and_no_more_than_asked_for() {
        let place = tempfile::TempDir::new().unwrap();
        let status = place.path().join(STATUS_DIRECTORY);
        std::fs::create_dir(&status).unwrap();
        for name in [
            "000000010000000000000003.ready",
            "000000010000000000000007.ready",
            "000000010000000000000005.done",
            "000000010000000000000004.ready",
            "000000010000000000000006.ready",
            "000000010000000000000006.00000028.backup.ready",
            "000000010000000000000006.partial.ready",
            "00000002.history.ready",
            "000000020000000000000008.ready",
            "strange.ready",
        ] {
            std::fs::write(status.join(name), b"").unwrap();
        }
        let behind = |own: &str, most| {
            let found = ready_behind(&place.path().join(own), most);
            found.iter().map(|path| path.to_str().unwrap().chars().last().unwrap()).collect::<String>()
        };
        assert_eq!(behind("000000010000000000000003", 9), "467");
        assert_eq!(behind("000000010000000000000003", 2), "46");
        assert_eq!(behind("000000010000000000000007", 9), "");
        assert_eq!(ready_behind(Path::new("000000010000000000000003"), 9), Vec::<PathBuf>::new());
        assert_eq!(ready_behind(&status.join("x"), 9), Vec::<PathBuf>::new());
    }
}
