//! Apart: chosen tables of statements, by way of a database that is made for them alone.
//!
//! Nothing can be chosen from statements but by who runs them. So all of them go into a
//! database of the target's server, and an archive of what was chosen comes out of it.
//!
//! Invariant: the database goes whatever happens, and has a name by which it is found when
//! nobody was left to drop it. Nothing else of the server is touched: a name that matches
//! nothing is told while the target is as it was. Refuses to go on with less than all of
//! the statements: their last byte is checked before the first one comes out.

use backstay_engine::postgres::dump::{DumpOptions, DumpRun, DumpSource};
use backstay_engine::postgres::reload::{Archive, ArchiveReader, ReloadTarget, Selection};
use backstay_model::plan::reload::ReloadPlan;
use backstay_model::{ByteSize, Finding};
use bytes::{Bytes, BytesMut};

use super::ReloadRequest;
use super::fill::spool::{SpoolFile, Spooling};
use super::fill::{self, Filling, Made};
use super::input::Input;
use crate::dump::DumpPolicy;
use crate::error::{Error, Result};
use crate::run::Run;

pub(super) struct Apart<'a> {
    pub run: &'a Run,
    pub policy: &'a DumpPolicy,
    pub request: &'a ReloadRequest,
    pub target: &'a ReloadTarget,
    pub temporary: &'a str,
}

pub(super) fn step(plan: &ReloadPlan, temporary: &str) -> String {
    format!(
        "put all of {} into database {temporary}, for which the server needs room for a while (about {}), \
         take out of it what was chosen, and drop it",
        plan.file,
        ByteSize(plan.raw_bytes)
    )
}

struct TakenOut {
    archive: Archive,
    file: SpoolFile,
    bytes: u64,
}

impl Apart<'_> {
    /// What was chosen, in the place of the statements.
    pub async fn take(&self, input: Input) -> Result<(Input, Vec<Finding>)> {
        let mut chosen = input.chosen.clone();
        let all = ReloadRequest {
            tables: Vec::new(),
            schemas: Vec::new(),
            triggers_off: false,
            owners: true,
            privileges: true,
            jobs: 1,
            ..self.request.clone()
        };
        let filling = Filling {
            run: self.run,
            policy: self.policy,
            request: &all,
            target: self.target,
            into: self.temporary,
            is_new: true,
            is_for_queries: false,
            is_used: false,
            is_to_swap: false,
            is_test: false,
        };
        let mut findings = filling.fill(input).await?.findings;
        let taken = self.take_out().await;
        let dropped = fill::drop_within(self.target, self.temporary, Made::Surely, fill::DROP_LIMIT).await;
        let taken = match (taken, dropped) {
            (Ok(taken), Ok(())) => taken,
            (Err(error), Ok(())) => return Err(error),
            (Err(failed), Err(error)) => {
                tracing::warn!(%error, database = self.temporary, "half of a restore is left");
                let database = self.temporary.to_owned();
                return Err(Error::HalfRestored { database, source: Box::new(failed) });
            }
            (Ok(taken), Err(error)) => {
                findings.push(left(self.temporary, &error));
                taken
            }
        };
        chosen.record.raw_bytes = taken.bytes;
        Ok((Input::of_taken_out(chosen, taken.archive, taken.file, taken.bytes), findings))
    }

    /// An archive with every definition, for a table may need others, and the rows that were
    /// chosen.
    async fn take_out(&self) -> Result<TakenOut> {
        let (run, request) = (self.run, self.request);
        let options = DumpOptions {
            tables: request.tables.clone(),
            schemas: request.schemas.clone(),
            all_definitions: true,
            bin_directory: self.target.bin_directory().map(ToOwned::to_owned),
            ..DumpOptions::default()
        };
        run.progress.enter("take out what was chosen");
        let address = self.target.address().with_database(self.temporary);
        let source = DumpSource::open(&address, &options, &run.cancel).await?;
        let needed = source.facts().tables.iter().map(|table| table.bytes).sum();
        run.progress.begin("take out what was chosen", needed);
        let mut source = source.run().await?;
        let (archive, head) = read_head(&mut source).await?;
        // A name that matches nothing is told before the rows of the others come.
        archive.select(&request.tables, &request.schemas, Selection::Whole)?;
        let mut spooling = Spooling::begin(&self.policy.spool()?, needed)?;
        spooling.find_rows(Some(&archive));
        let mut bytes = 0;
        let mut next = Some(head);
        while let Some(piece) = next {
            let count = piece.len() as u64;
            spooling = spooling.append(piece).await?;
            bytes += count;
            run.progress.done(count);
            next = source.next().await?;
        }
        Ok(TakenOut { archive, file: spooling.finish()?, bytes })
    }
}

/// The table of contents, and the bytes that were read for it.
async fn read_head(source: &mut DumpRun) -> Result<(Archive, Bytes)> {
    let mut reader = ArchiveReader::default();
    let mut head = BytesMut::new();
    while let Some(piece) = source.next().await? {
        head.extend_from_slice(&piece);
        if let Some(archive) = reader.push(&piece)? {
            return Ok((archive, head.freeze()));
        }
    }
    Ok((reader.end()?, head.freeze()))
}

fn left(temporary: &str, error: &backstay_engine::Error) -> Finding {
    Finding::warning(
        temporary,
        format!("was made for the statements, and could not be dropped: {error}"),
        format!("`DROP DATABASE \"{temporary}\" WITH (FORCE)`"),
    )
}
