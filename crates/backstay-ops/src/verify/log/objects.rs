//! Every object of one timeline, opened, and the records at their edges.

use std::collections::BTreeMap;
use std::sync::Arc;

use backstay_engine::postgres::wal::LogReader;
use backstay_model::error::{Classified, ErrorKind};
use backstay_model::{InstanceId, LogId, LogSpan, Lsn, VerifyLevel, VerifyReport};
use backstay_repo::log::LogObject;
use tokio::task::JoinSet;

use super::super::unseen;
use super::{Damaged, stream};
use crate::context::Context;
use crate::error::{Error, Result};

/// Heads are small, and wait for the store.
const HEADS_AT_ONCE: usize = 8;
/// Each takes its content in memory.
const CONTENTS_AT_ONCE: usize = 2;
/// So much of the end of a content is kept for the next one: a record is rarely longer.
const TAIL_BYTES: usize = 256 << 10;

/// What the pages of a log must say.
#[derive(Debug, Clone, Copy)]
pub(super) struct Links {
    /// Of commands, which have no pages: read as a whole, they must go on where those before them
    /// ended.
    pub is_stream: bool,
    /// `None` where no base says it: then no page is looked at.
    pub segment_bytes: Option<u64>,
    pub system: Option<u64>,
}

/// What was read of one object.
pub(super) struct Seen {
    pub first: Vec<u8>,
    last_at: u64,
    last: Vec<u8>,
    /// All of it, when it was read as a whole.
    pub whole: bool,
    /// What the engine stored with it.
    pub facts: serde_json::Value,
    read_bytes: u64,
}

/// The end of an object, for the one that follows it.
struct Tail {
    at: u64,
    bytes: Vec<u8>,
}

pub(super) async fn look(
    context: &Context,
    instance: &InstanceId,
    log: &LogId,
    objects: &[LogObject],
    links: Links,
    level: VerifyLevel,
    report: &mut VerifyReport,
) -> Result<Vec<Damaged>> {
    let whole = level == VerifyLevel::Digest;
    let at_once = if whole { CONTENTS_AT_ONCE } else { HEADS_AT_ONCE };
    let total = objects.iter().map(|object| if whole { object.span.length() } else { 0 }).sum();
    context.progress.begin(&format!("verify the log of {instance}"), total);
    let mut damaged = Vec::new();
    // By where they end.
    let mut tails: BTreeMap<u64, Tail> = BTreeMap::new();
    let mut held: Option<(LogSpan, Vec<u8>)> = None;
    let mut streams = stream::States::default();
    for some in objects.chunks(at_once) {
        context.check_cancelled()?;
        for (object, seen) in read(context, instance, log, some, whole).await? {
            let mut bad = |reason: String| damaged.push(Damaged { log: log.clone(), object, reason });
            let seen = match seen {
                Ok(seen) => seen,
                Err(error) => {
                    match error.kind() {
                        ErrorKind::Corrupt | ErrorKind::Unsupported => bad(error.to_string()),
                        ErrorKind::NotFound => bad("it was listed, and is gone".to_owned()),
                        _ => report.not_seen(unseen(&format!("{instance}/log/{log}"), error)?),
                    }
                    continue;
                }
            };
            report.objects_read += 1;
            report.bytes_read += seen.read_bytes;
            if let Some((span, before)) = &held
                && seen.whole
                && differ(*span, before, object.span, &seen.first)
            {
                bad("it holds other bytes than another object of the same place".to_owned());
                continue;
            }
            if links.is_stream
                && let Some(damage) = streams.follow(object.span, &seen)
            {
                bad(damage);
                continue;
            }
            tails.retain(|end, _| *end >= object.span.start);
            let before = tails.get(&object.span.start);
            if let Some(damage) = broken_link(links, object.span, before, &seen) {
                bad(damage);
                continue;
            }
            tails.insert(object.span.end, Tail { at: seen.last_at, bytes: seen.last });
            if seen.whole && held.as_ref().is_none_or(|(span, _)| span.end < object.span.end) {
                held = Some((object.span, seen.first));
            }
        }
    }
    Ok(damaged)
}

/// Several at once, in their order.
async fn read(
    context: &Context,
    instance: &InstanceId,
    log: &LogId,
    objects: &[LogObject],
    whole: bool,
) -> Result<Vec<(LogObject, backstay_repo::Result<Seen>)>> {
    let mut reading = JoinSet::new();
    for (number, object) in objects.iter().copied().enumerate() {
        let (repo, instance, log) = (Arc::clone(&context.repo), instance.clone(), log.clone());
        reading.spawn(async move {
            let seen = async {
                if whole {
                    let read = repo.read_log_span(&instance, &log, object.span).await?;
                    let tail = read.content.len().saturating_sub(TAIL_BYTES);
                    return Ok(Seen {
                        last_at: object.span.start + tail as u64,
                        last: read.content[tail..].to_vec(),
                        first: read.content,
                        whole: true,
                        facts: read.head.facts,
                        read_bytes: object.size_bytes,
                    });
                }
                let glance = repo.glance_at_log(&instance, &log, object).await?;
                let edges = repo.edges_of(&glance).await?;
                repo.marks_of(&glance).await?;
                Ok(Seen {
                    first: edges.first,
                    last_at: edges.last_at,
                    last: edges.last,
                    whole: false,
                    facts: glance.head.facts,
                    read_bytes: edges.stored_bytes,
                })
            };
            (number, object, seen.await)
        });
    }
    let mut all = Vec::new();
    while let Some(joined) = reading.join_next().await {
        all.push(joined.map_err(|error| Error::broken(error.to_string()))?);
    }
    all.sort_by_key(|(number, _, _)| *number);
    Ok(all.into_iter().map(|(_, object, seen)| (object, seen)).collect())
}

fn differ(a: LogSpan, of_a: &[u8], b: LogSpan, of_b: &[u8]) -> bool {
    let Some(common) = a.common(&b) else { return false };
    let part = |span: LogSpan| (common.start - span.start) as usize..(common.end - span.start) as usize;
    of_a[part(a)] != of_b[part(b)]
}

/// What the pages and records say that should not be so: across the edge to the object
/// before, and in what was read of this one.
fn broken_link(links: Links, span: LogSpan, before: Option<&Tail>, seen: &Seen) -> Option<String> {
    let segment_bytes = links.segment_bytes?;
    let follow = |from: u64, parts: &[&[u8]]| {
        let mut reader = LogReader::new(Lsn(from), segment_bytes, links.system);
        let mut marks = Vec::new();
        parts.iter().find_map(|part| {
            marks.clear();
            reader.push(part, &mut marks).err().map(|damage| damage.to_string())
        })
    };
    let across = before.and_then(|tail| follow(tail.at, &[&tail.bytes, &seen.first]));
    let own = || if before.is_none() { follow(span.start, &[&seen.first]) } else { None };
    let last = || if seen.whole { None } else { follow(seen.last_at, &[&seen.last]) };
    across.or_else(own).or_else(last)
}
