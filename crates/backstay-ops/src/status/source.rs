//! What the server says of itself and of its log.

use std::collections::BTreeMap;

use backstay_engine::postgres::connect::Session;
use backstay_engine::postgres::log_source::{self, LogSource};
use backstay_engine::postgres::receive::log_id;
use backstay_engine::postgres::reload::swap::left_by_swaps;
use backstay_engine::postgres::{PostgresSettings, facts};
use backstay_engine::redis::RedisSettings;
use backstay_engine::redis::facts::StreamSource;
use backstay_engine::redis::source;
use backstay_model::error::Classified;
use backstay_model::log::history::History;
use backstay_model::status::{ArchiveState, ArchiveStatus, Health, SlotStatus};
use backstay_model::{ErrorKind, FindingLevel, Lsn, Position, TimelineId};
use jiff::Timestamp;

use super::reach::Reach;
use super::{ArchiveExpected, with_causes};

/// Whether the server answers as it should, and who it is.
pub(super) struct Probed {
    pub health: Health,
    pub health_reason: Option<String>,
    pub system_identifier: Option<u64>,
    pub log: Option<LogSource>,
    pub stream: Option<StreamSource>,
}

pub(super) async fn probe(settings: &PostgresSettings, expected: Option<&ArchiveExpected>) -> Probed {
    let asked = async {
        let address = settings.address()?;
        let session = Session::open(&address).await?;
        // First, for the other has sessions in every database, which may not have ended yet.
        let left = left_by_swaps(&session).await;
        let server = facts::read(&session, &address).await?;
        // Of a standby, the primary knows who works on what; and what is left is its own.
        let left = if server.in_recovery { Vec::new() } else { left.unwrap_or_default() };
        let log = match expected {
            Some(expected) => Some(log_source::look(&session, &expected.slot).await?),
            None => None,
        };
        Ok::<_, backstay_engine::Error>((server, left, log))
    };
    match asked.await {
        Err(error) => unanswered(&error),
        Ok((server, left, log)) => Probed {
            health: if left.is_empty() { Health::Ok } else { Health::Degraded },
            health_reason: left.first().map(|finding| {
                format!("database {}: {}; {}", finding.subject, finding.message, finding.remedy)
            }),
            system_identifier: Some(server.system_identifier),
            log,
            stream: None,
        },
    }
}

/// The same of Redis.
pub(super) async fn probe_redis(settings: &RedisSettings) -> Probed {
    let asked = async {
        let mut chosen = source::choose(settings).await?;
        let (_, stream) = StreamSource::ask(&mut chosen.connection).await?;
        Ok::<_, backstay_engine::Error>((chosen.findings, stream))
    };
    match asked.await {
        Err(error) => unanswered(&error),
        Ok((findings, stream)) => {
            let said = findings.iter().find(|finding| finding.level > FindingLevel::Info);
            Probed {
                health: if said.is_some() { Health::Degraded } else { Health::Ok },
                health_reason: said
                    .map(|found| format!("{}: {}; {}", found.subject, found.message, found.remedy)),
                stream: Some(stream),
                ..Probed::well()
            }
        }
    }
}

impl Probed {
    fn well() -> Probed {
        Probed { health: Health::Ok, health_reason: None, system_identifier: None, log: None, stream: None }
    }
}

fn unanswered(error: &backstay_engine::Error) -> Probed {
    let health = match error.kind() {
        ErrorKind::Unavailable => Health::Down,
        // It is there, and does not let us look.
        ErrorKind::Denied | ErrorKind::Conflict => Health::Degraded,
        _ => Health::Unknown,
    };
    let hint = error.hints().into_iter().next().map(|hint| format!("; {hint}")).unwrap_or_default();
    let health_reason = Some(format!("{}{hint}", with_causes(error)));
    Probed { health, health_reason, ..Probed::well() }
}

/// How the archive is: what is stored beside what the server has.
pub(super) fn archive(
    probed: &Probed,
    reach: &Reach,
    expected: Option<&ArchiveExpected>,
    now: Timestamp,
) -> ArchiveStatus {
    let Some(expected) = expected else { return ArchiveStatus::off() };
    // The store may have the log of another cluster only.
    let own = probed.system_identifier.map(|system| log_id(system, TimelineId(1)).lineage);
    let is_own = own.is_none_or(|own| reach.lineage.as_ref().is_none_or(|stored| *stored == own));
    let stored = reach.stored.filter(|_| is_own);
    let position = |(timeline, lsn)| Position::Wal { timeline, lsn }.to_string();
    let is_expected = expected.is_configured || reach.stored.is_some();
    if let Some(source) = &probed.stream {
        return archive_of_stream(source, reach, is_expected, now);
    }
    let position = |at: (TimelineId, Lsn)| match reach.replication_ids.get(&at.0) {
        Some(id) => Position::Stream { replication_id: id.clone(), offset: at.1.0 }.to_string(),
        None => position(at),
    };
    let source = probed.log.as_ref();
    let state = match source {
        None if is_expected => ArchiveState::Unknown,
        None => ArchiveState::Off,
        Some(source) => {
            let is_taken = source.pushes || source.slot.as_ref().is_some_and(|slot| slot.is_active);
            match is_taken {
                true => ArchiveState::Running,
                false if is_expected || source.slot.is_some() => ArchiveState::Stopped,
                false => ArchiveState::Off,
            }
        }
    };
    let held = source.and_then(|source| source.slot.as_ref());
    let age = |at: Timestamp| now.duration_since(at).as_secs_f64().max(0.0);
    ArchiveStatus {
        state,
        position: stored.map(position),
        source_position: source
            .filter(|_| state != ArchiveState::Off)
            .map(|source| position((source.timeline, source.position))),
        lag_bytes: source.zip(stored).and_then(|(source, stored)| {
            lag_bytes((source.timeline, source.position), stored, &reach.histories)
        }),
        pushed: source.is_some_and(|source| source.pushes),
        push_fails: source.is_some_and(|source| source.pushes && source.push_fails),
        newest_commit_at: reach.newest_commit,
        newest_commit_age_seconds: reach.newest_commit.map(age),
        slot: held.map(|held| SlotStatus {
            name: expected.slot.clone(),
            wal_status: held.status.clone(),
            retained_bytes: held.retained_bytes,
            limit_bytes: source.and_then(|source| source.keep_limit_bytes),
        }),
        backlog_bytes: None,
        max_lag: expected
            .max_lag
            .zip(source)
            .map(|(limit, source)| limit.for_segments(source.segment_bytes))
            .or(expected.max_lag),
    }
}

/// The same of a stream, which no slot holds: whoever comes too late gets everything anew.
fn archive_of_stream(
    source: &StreamSource,
    reach: &Reach,
    is_expected: bool,
    now: Timestamp,
) -> ArchiveStatus {
    let state = match (source.is_received, is_expected) {
        (true, _) => ArchiveState::Running,
        (false, true) => ArchiveState::Stopped,
        (false, false) => return ArchiveStatus::off(),
    };
    let place = |id: &String, offset| Position::Stream { replication_id: id.clone(), offset };
    let stored = reach.stored.and_then(|(timeline, at)| Some((reach.replication_ids.get(&timeline)?, at.0)));
    let of_this = stored.filter(|(id, _)| **id == source.replication_id);
    ArchiveStatus {
        state,
        position: stored.map(|(id, offset)| place(id, offset).to_string()),
        source_position: Some(place(&source.replication_id, source.offset).to_string()),
        lag_bytes: of_this.map(|(_, offset)| source.offset.saturating_sub(offset)),
        newest_commit_at: reach.newest_commit,
        newest_commit_age_seconds: reach
            .newest_commit
            .map(|at| now.duration_since(at).as_secs_f64().max(0.0)),
        backlog_bytes: Some(source.backlog_bytes),
        ..ArchiveStatus::off()
    }
}

/// What the server has written behind what is stored. Of a timeline that the server has left,
/// only what leads to where it is counts. `None` where nobody can tell, as when the server is on
/// an older timeline than the log.
fn lag_bytes(
    source: (TimelineId, Lsn),
    stored: (TimelineId, Lsn),
    histories: &BTreeMap<TimelineId, History>,
) -> Option<u64> {
    if source.0 == stored.0 {
        return Some(source.1 - stored.1);
    }
    if source.0 < stored.0 {
        return None;
    }
    let reached = match histories.get(&source.0) {
        Some(history) => {
            let left = history.ancestors.iter().find(|(timeline, _)| *timeline == stored.0);
            left.map(|(_, switch)| stored.1.min(*switch))?
        }
        // Nothing of it has come yet, nor where it began.
        None => stored.1,
    };
    // A promotion writes something, so nobody who has another timeline has everything.
    Some(source.1 - reached).filter(|lag| *lag > 0)
}

/// The archive was where the server was: what is younger than its last commit does not exist.
pub(super) fn is_up_to_date(archive: &ArchiveStatus) -> bool {
    archive.lag_bytes == Some(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lag_counts_only_what_leads_to_where_the_server_is() {
        let histories = BTreeMap::from([(TimelineId(3), History::parse("1\t0/100\tx\n").unwrap())]);
        let lag = |server: (u32, u64), stored: (u32, u64)| {
            let at = |(timeline, lsn)| (TimelineId(timeline), Lsn(lsn));
            lag_bytes(at(server), at(stored), &histories)
        };
        for (server, stored, bytes) in [
            ((1, 0x180), (1, 0x100), Some(0x80)),
            ((1, 0x100), (1, 0x100), Some(0)),
            ((3, 0x180), (1, 0x80), Some(0x100)),
            // What a lost server had written behind the switch is of another life.
            ((3, 0x180), (1, 0x500), Some(0x80)),
            ((3, 0x180), (2, 0x80), None),
            // No history has come yet.
            ((2, 0x180), (1, 0x100), Some(0x80)),
            ((2, 0x180), (1, 0x500), None),
            ((2, 0x180), (3, 0x100), None),
        ] {
            assert_eq!(lag(server, stored), bytes, "{server:x?} {stored:x?}");
        }
    }
}
