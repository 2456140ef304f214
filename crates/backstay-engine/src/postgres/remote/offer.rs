//! Whether a server is asked for changed blocks only, and what it says to that.
//!
//! The server knows which blocks its log has changed since the parent. So the
//! parent must lie on that log, and nothing may have changed a block without it:
//! [`unfit`] says what else would be taken for unchanged. The server itself checks
//! none of this but the identifier and the reach of its summaries.

use backstay_model::{Finding, TimelineId};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::parent::{IncrementParent, ParentSizes};
use crate::postgres::facts::ServerFacts;
use crate::postgres::walsender::{self, Walsender};
use crate::{Error, Result};

/// The first version that can send changed blocks only.
const INCREMENT_MAJOR: u32 = 17;

/// Pieces of the parent's manifest that wait to be sent.
const MANIFEST_PIECES_WAITING: usize = 4;

/// What became of the offer to build on a parent.
pub(super) enum Offer {
    Taken(ParentSizes),
    /// The server is not set up for it, which is its owner's choice and no news.
    NotMade,
    /// Why all blocks will be sent.
    Declined(Finding),
}

/// The server's own no, which is a reason to send all blocks; anything else is an
/// error as before.
pub(super) fn declined(error: Error) -> Result<String> {
    match walsender::refusal(&error) {
        Some(said) => Ok(said.to_string()),
        None => Err(error),
    }
}

pub(super) fn refused(said: &str) -> Finding {
    whole_because(said, "keep `wal_summary_keep_time` above the time between two backups")
}

fn whole_because(reason: &str, remedy: &str) -> Finding {
    let message = format!("all blocks were sent instead of the changed ones: {reason}");
    Finding::info("incremental backup", message, remedy)
}

/// Uploads the parent's manifest; its files are read on a thread that may block.
pub(super) async fn offer_parent(
    walsender: &mut Walsender,
    server: &ServerFacts,
    timeline: TimelineId,
    parent: IncrementParent,
) -> Result<Offer> {
    if walsender.major() < INCREMENT_MAJOR || walsender.show("summarize_wal").await? != "on" {
        return Ok(Offer::NotMade);
    }
    if let Some(reason) = unfit(&parent, server, timeline) {
        let remedy = "the next `backstay backup` builds on this one";
        return Ok(Offer::Declined(whole_because(&reason, remedy)));
    }
    let (pieces, mut waiting) = mpsc::channel(MANIFEST_PIECES_WAITING);
    let mut reading = JoinSet::new();
    let major = walsender.major();
    reading.spawn_blocking(move || {
        parent.write_manifest(major, |piece| pieces.blocking_send(piece).map_err(std::io::Error::other))
    });
    let uploaded = walsender.upload_manifest(&mut waiting).await;
    drop(waiting);
    match (uploaded, reading.join_next().await) {
        // What was sent of it was cut off, and the server's complaint is about that.
        (_, Some(Ok(Err(Error::Parent { source })))) => {
            let reason = format!("the parent cannot be read: {source}");
            Ok(Offer::Declined(whole_because(&reason, "`backstay verify` says what is wrong with it")))
        }
        (Err(error), _) => Ok(Offer::Declined(refused(&declined(error)?))),
        (Ok(()), Some(Ok(sizes))) => sizes.map(Offer::Taken),
        (Ok(()), _) => Err(Error::Protocol { reason: "the reader of the parent ended early".to_owned() }),
    }
}

/// Why blocks that the log does not name may still be others than the parent's.
fn unfit(parent: &IncrementParent, server: &ServerFacts, timeline: TimelineId) -> Option<String> {
    if parent.system_identifier != server.system_identifier {
        return Some("the parent is a backup of another server".to_owned());
    }
    if parent.timeline != timeline || parent.timeline != server.timeline {
        let now = timeline.max(server.timeline);
        return Some(format!("the parent is of timeline {}, the server is on {now}", parent.timeline));
    }
    if parent.incarnation != server.incarnation {
        return Some("the server was restored since the parent, or the parent is of its copy".to_owned());
    }
    if parent.data_checksums != server.data_checksums {
        return Some("page checksums were switched since the parent, which no log tells".to_owned());
    }
    None
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use backstay_model::Lsn;
    use backstay_model::parts::{ParentFile, ParentFiles};

    use super::*;

    struct NoFiles;

    impl ParentFiles for NoFiles {
        fn next(&mut self) -> Result<Option<ParentFile>, backstay_model::Fault> {
            Ok(None)
        }
    }

    fn parent() -> IncrementParent {
        IncrementParent {
            files: Box::new(NoFiles),
            system_identifier: 7,
            timeline: TimelineId(2),
            start: Lsn(1),
            stop: Lsn(2),
            data_checksums: true,
            incarnation: Some("1a".to_owned()),
        }
    }

    fn server() -> ServerFacts {
        ServerFacts {
            version: "17.2".to_owned(),
            version_number: 170_002,
            system_identifier: 7,
            superuser: "postgres".to_owned(),
            data_checksums: true,
            block_size: 8192,
            segment_blocks: 131_072,
            wal_segment_size: 16 << 20,
            in_recovery: false,
            timeline: TimelineId(2),
            data_directory: None,
            outside_configuration: BTreeMap::new(),
            included_elsewhere: Vec::new(),
            incarnation: Some("1a".to_owned()),
            enabled_subscriptions: 0,
            tablespaces: Vec::new(),
            settings: BTreeMap::new(),
            databases: Vec::new(),
        }
    }

    fn reason(server: &ServerFacts, timeline: u32) -> String {
        unfit(&parent(), server, TimelineId(timeline)).unwrap_or_default()
    }

    #[test]
    fn a_parent_of_the_same_log_is_offered() {
        assert_eq!(reason(&server(), 2), "");
        let nameless = IncrementParent { incarnation: None, ..parent() };
        let never_restored = ServerFacts { incarnation: None, ..server() };
        assert_eq!(unfit(&nameless, &never_restored, TimelineId(2)), None);
    }

    #[test]
    fn a_parent_of_another_log_is_not() {
        assert!(reason(&ServerFacts { system_identifier: 8, ..server() }, 2).contains("another server"));
        assert_eq!(reason(&server(), 3), "the parent is of timeline 2, the server is on 3");
        let behind = ServerFacts { timeline: TimelineId(1), ..server() };
        assert!(reason(&behind, 2).contains("timeline"), "the copy would begin before the parent's timeline");
        for name in [None, Some("2b".to_owned())] {
            assert!(reason(&ServerFacts { incarnation: name, ..server() }, 2).contains("restored"));
        }
        let nameless = IncrementParent { incarnation: None, ..parent() };
        assert!(unfit(&nameless, &server(), TimelineId(2)).is_some());
    }

    #[test]
    fn a_parent_whose_pages_were_rewritten_without_a_log_is_not_offered() {
        assert!(reason(&ServerFacts { data_checksums: false, ..server() }, 2).contains("checksums"));
    }
}
