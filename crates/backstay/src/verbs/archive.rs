//! `backstay archive`: receives logs until somebody asks to stop.

use std::sync::Mutex;

use backstay_model::{Fault, Lsn};
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
            let options = session.archive_options(&id)?;
            let watcher =
                Telling { output: session.output, instance: id.to_string(), last: Mutex::default() };
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
}

impl ArchiveWatcher for Telling {
    fn see(&self, event: ArchiveEvent) {
        let mut last = self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let instance = &self.instance;
        let line = match event {
            ArchiveEvent::Began { log, from } => {
                *last = None;
                format!("{instance}: receiving timeline {} from {}", log.timeline, Lsn(from))
            }
            ArchiveEvent::Timeline { log, from } => {
                format!("{instance}: timeline {} goes on from {}", log.timeline, Lsn(from))
            }
            ArchiveEvent::Sent { log, span } => {
                tracing::info!(instance, timeline = log.timeline, from = %Lsn(span.start), to = %Lsn(span.end), "stored");
                return;
            }
            ArchiveEvent::Waiting { reason } if last.as_ref() == Some(&reason) => return,
            ArchiveEvent::Waiting { reason } => {
                *last = Some(reason.clone());
                format!("{instance}: waiting for the server: {reason}")
            }
        };
        self.output.note(&line);
    }
}
