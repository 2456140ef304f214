//! The archived log of an instance, for whoever shows it, checks it or lets it go.
//!
//! What a restore plans with ends at the first history that does not open. Here that is
//! told, and the rest is looked at all the same.

use std::collections::BTreeMap;

use backstay_engine::postgres::receive::timeline_of;
use backstay_model::error::{Classified, ErrorKind};
use backstay_model::log::history::History;
use backstay_model::plan::KnownLog;
use backstay_model::plan::restore::LineageLog;
use backstay_model::plan::window::LoggedBase;
use backstay_model::{BackupRecord, InstanceId, LogId, TimelineId};
use backstay_repo::layout::InstanceLayout;
use backstay_repo::log::LogIndex;

use crate::context::Context;
use crate::error::Result;

pub(crate) mod bases;
pub(crate) mod holes;
pub(crate) mod marks;
pub(crate) mod streams;

/// What is there.
pub(crate) struct LogView {
    pub index: LogIndex,
    pub known: KnownLog,
    /// Objects of histories that do not open, and why.
    pub damaged_histories: Vec<(LogId, String, String)>,
    /// The same of gaps.
    pub damaged_gaps: Vec<(String, String)>,
    no_log: LineageLog,
}

impl LogView {
    /// For showing and checking, of these backups.
    pub async fn of<'a>(
        context: &Context,
        instance: &InstanceId,
        records: impl IntoIterator<Item = &'a BackupRecord>,
    ) -> Result<LogView> {
        let index = context.repo.log_index(instance).await?;
        let mut view = LogView {
            index,
            known: KnownLog::default(),
            damaged_histories: Vec::new(),
            damaged_gaps: Vec::new(),
            no_log: LineageLog::default(),
        };
        let mut with_history = Vec::new();
        for (log, timeline) in view.index.timelines() {
            let Some(number) = timeline_of(log) else { continue };
            let lineage = view.known.lineages.entry(log.lineage.clone()).or_default();
            let coverage = timeline.coverage();
            if !coverage.spans().is_empty() {
                lineage.timelines.insert(number, coverage);
            }
            match timeline.has_history {
                true => with_history.push((log.clone(), number)),
                false => bases::name_stream(&mut view.known, log, number, None),
            }
        }
        view.read_gaps(context, instance).await?;
        for (log, number) in with_history {
            view.read_history(context, instance, log, number).await?;
        }
        for record in records {
            bases::add(&mut view.known, record);
        }
        Ok(view)
    }

    async fn read_gaps(&mut self, context: &Context, instance: &InstanceId) -> Result<()> {
        for (log, timeline) in self.index.timelines() {
            for place in &timeline.gaps {
                match context.repo.log_gap(instance, log, *place).await {
                    Ok(gap) => {
                        self.known.lineages.entry(log.lineage.clone()).or_default().gaps.extend(gap);
                    }
                    Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported) => {
                        let name = context.repo.log_gap_name(instance, log, *place)?;
                        self.damaged_gaps.push((name.to_string(), error.to_string()));
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    async fn read_history(
        &mut self,
        context: &Context,
        instance: &InstanceId,
        log: LogId,
        number: TimelineId,
    ) -> Result<()> {
        let name = InstanceLayout::new(instance.clone()).log_history(&log);
        let name = name.map_err(backstay_repo::Error::from)?.to_string();
        let parsed = match context.repo.log_history(instance, &log).await {
            // It went since the listing.
            Ok(None) => return Ok(()),
            Ok(Some(text)) => {
                bases::name_stream(&mut self.known, &log, number, Some(&text));
                History::parse(&text).map_err(|error| error.to_string())
            }
            Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported) => {
                Err(error.to_string())
            }
            Err(error) => return Err(error.into()),
        };
        match parsed {
            Ok(history) => {
                self.known.lineages.entry(log.lineage).or_default().histories.insert(number, history);
            }
            Err(reason) => self.damaged_histories.push((log, name, reason)),
        }
        Ok(())
    }

    pub fn lineage(&self, name: &str) -> &LineageLog {
        self.known.lineages.get(name).unwrap_or(&self.no_log)
    }

    /// Bases by their lineage, in the order in which they are given.
    pub fn bases<'a>(
        &'a self,
        records: impl IntoIterator<Item = &'a BackupRecord>,
    ) -> BTreeMap<&'a str, Vec<LoggedBase<'a>>> {
        let mut bases: BTreeMap<&str, Vec<LoggedBase<'_>>> = BTreeMap::new();
        for base in records.into_iter().filter_map(|record| LoggedBase::of(record, &self.known)) {
            bases.entry(&base.log.lineage).or_default().push(base);
        }
        bases
    }
}

/// The name of one timeline of a lineage.
pub(crate) fn log_of(lineage: &str, timeline: TimelineId) -> LogId {
    LogId { lineage: lineage.to_owned(), timeline: format!("{:08X}", timeline.0) }
}
