//! `backstay archive`: receives logs until somebody asks to stop.

use std::sync::Mutex;

use backstay_engine::postgres::receive::timeline_of;
use backstay_engine::redis::sync::is_replication_id;
use backstay_model::{ByteSize, Fault, Finding, LagLevel, LagLimit, LogId, Lsn, OnMaxLag, Position};
use backstay_ops::archive::{ArchiveEvent, ArchiveWatcher};

use super::Verdict;
use crate::args::ArchiveArguments;
use crate::render::Output;
use crate::session::Session;

pub async fn run(session: &Session, arguments: &ArchiveArguments) -> Result<u8, Fault> {
    let named = session.instances(&arguments.instances)?;
    let context = session.parting_context().await?;
    let received = named.into_iter().map(|(id, instance)| {
        let context = &context;
        async move {
            let instance = instance?;
            let options = session.archive_options(&id, arguments.accept_gap)?;
            let watcher = Telling {
                output: session.output,
                instance: id.to_string(),
                last: Mutex::default(),
                commits: Mutex::default(),
                told: Mutex::default(),
            };
            Ok::<_, Fault>(backstay_ops::archive::run(context, &instance, &options, &watcher).await?)
        }
    });
    let mut verdict = Verdict::default();
    for ended in futures_util::future::join_all(received).await {
        if let Err(fault) = ended {
            verdict.failed(session, &fault);
        }
    }
    Ok(verdict.code())
}

/// Says on standard error what changes, and nothing of what goes on as it should.
struct Telling {
    output: Output,
    instance: String,
    /// The last reason to wait: said once, however often it is met.
    last: Mutex<Option<String>>,
    /// What the server said last of commits, and of whom they wait for.
    commits: Mutex<Option<(bool, String)>>,
    /// Each is said once, however often a connection begins.
    told: Mutex<Vec<Finding>>,
}

impl Telling {
    fn tell_who_waits(&self, wait: bool, is_intended: bool, names: &str) {
        let (instance, output) = (&self.instance, self.output);
        match (wait, is_intended) {
            (false, false) => {}
            (true, true) => output.note(&format!("{instance}: every commit waits until it is durable here")),
            (false, true) => output.warnings(&[Finding::warning(
                instance,
                format!("no commit waits for this archive: synchronous_standby_names of the server is '{names}'"),
                "name backstay in `synchronous_standby_names`, or take `synchronous` out of the configuration",
            )]),
            (true, false) => output.warnings(&[Finding::warning(
                instance,
                format!(
                    "every commit waits up to a quarter of a second for this archive: \
                     synchronous_standby_names of the server is '{names}'"
                ),
                format!("set `synchronous = true` in `[instance.{instance}.archive]`"),
            )]),
        }
    }
}

impl ArchiveWatcher for Telling {
    fn see(&self, event: ArchiveEvent) {
        let mut last = self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let instance = &self.instance;
        let said = match event {
            ArchiveEvent::Began { log, from } => {
                *last = None;
                match is_stream(&log) {
                    true => format!("receiving the stream {} from offset {from}", short(&log)),
                    false => format!("receiving timeline {} from {}", number(&log), Lsn(from)),
                }
            }
            ArchiveEvent::Timeline { log, from } if is_stream(&log) => {
                format!("another server goes on with the stream {} from offset {from}", short(&log))
            }
            ArchiveEvent::Timeline { log, from } => {
                format!("timeline {} goes on from {}", number(&log), Lsn(from))
            }
            ArchiveEvent::Broken { from, is_another: true } => format!(
                "warning: the server began another stream, as after a restart: what it may have done behind offset \
                 {from} of the one before did not come"
            ),
            ArchiveEvent::Broken { from, is_another: false } => format!(
                "error: the server has let go of what follows offset {from}: the stream has a hole there\n  \
                 hint: raise `repl-backlog-size` of the server, and `client-output-buffer-limit replica` with it"
            ),
            ArchiveEvent::Told { finding } => {
                let mut told = self.told.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                if !told.contains(&finding) {
                    self.output.warnings(std::slice::from_ref(&finding));
                    told.push(finding);
                }
                return;
            }
            ArchiveEvent::Sent { log, span } => {
                tracing::info!(instance, timeline = number(&log), from = %Lsn(span.start), to = %Lsn(span.end), "stored");
                return;
            }
            ArchiveEvent::Commits { wait, is_intended, names } => {
                let now = Some((wait, names));
                let mut said = self.commits.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                if *said != now {
                    self.tell_who_waits(wait, is_intended, now.as_ref().map_or("", |(_, names)| names));
                    *said = now;
                }
                return;
            }
            ArchiveEvent::Waiting { reason, .. } | ArchiveEvent::BaseFailed { reason, .. }
                if last.as_ref() == Some(&reason) =>
            {
                return;
            }
            ArchiveEvent::Waiting { reason, hints } => {
                let said = format!("waiting: {reason}{}", listed(&hints));
                *last = Some(reason);
                said
            }
            ArchiveEvent::Lag { level, held_bytes, limit } => of_lag(level, held_bytes, limit),
            ArchiveEvent::Headroom { seconds, backlog_bytes, bytes_per_second } => format!(
                "warning: the server forgets its stream {seconds:.0} s after a connection breaks: it keeps {} and writes {}/s; \
                 `CONFIG SET repl-backlog-size` with ten minutes of that keeps the stream whole",
                ByteSize(backlog_bytes),
                ByteSize(bytes_per_second as u64)
            ),
            ArchiveEvent::SpoolFull { reason } => {
                format!("error: {reason}: the server holds its log until there is room")
            }
            ArchiveEvent::SpoolHasRoom => "the spool has room again".to_owned(),
            ArchiveEvent::GapOpened { gap } => format!(
                "error: {gap}; log from {} on is missing, and a base behind it follows",
                Position::Wal { timeline: gap.timeline, lsn: gap.from }
            ),
            ArchiveEvent::BaseBegun { is_behind_gap: true } => "taking a base behind the gap".to_owned(),
            ArchiveEvent::BaseBegun { is_behind_gap: false } => {
                "taking a base, which the stream follows".to_owned()
            }
            ArchiveEvent::BaseTaken { id, finished_at } => {
                format!("base {id} is taken: restores reach every instant from {finished_at} on")
            }
            ArchiveEvent::BaseFailed { reason, hints } => {
                let said = format!("error: the base failed, and is tried again: {reason}{}", listed(&hints));
                *last = Some(reason);
                said
            }
        };
        self.output.note(&format!("{instance}: {said}"));
    }
}

fn listed(hints: &[String]) -> String {
    hints.iter().map(|hint| format!("\n  hint: {hint}")).collect()
}

fn of_lag(level: LagLevel, held_bytes: u64, limit: LagLimit) -> String {
    let (held, most) = (ByteSize(held_bytes), ByteSize(limit.max_bytes));
    match (level, limit.on_max_lag) {
        (LagLevel::Within, _) => format!("the server holds {held} of log for the archive: all is well again"),
        (LagLevel::Half, _) => {
            format!(
                "warning: the server holds {held} of log for the archive, more than half of archive.max_lag, {most}"
            )
        }
        (LagLevel::Reached, OnMaxLag::Alert) => format!(
            "error: the server holds {held} of log for the archive, and archive.max_lag is {most}: it goes on holding \
             until its disk is full; archive.on_max_lag = \"gap\" would free it"
        ),
        (LagLevel::Reached, OnMaxLag::Gap) => {
            format!(
                "error: the server holds {held} of log for the archive, and archive.max_lag is {most}: its slot goes"
            )
        }
    }
}

/// Its lineage is the id of a stream, which no cluster of PostgreSQL has.
fn is_stream(log: &LogId) -> bool {
    is_replication_id(&log.lineage)
}

/// Enough of it to tell it from others.
fn short(log: &LogId) -> &str {
    log.lineage.get(..8).unwrap_or(&log.lineage)
}

/// As everything else says it: the name counts in hexadecimal digits.
fn number(log: &LogId) -> String {
    timeline_of(log).map_or_else(|| log.timeline.clone(), |timeline| timeline.to_string())
}
