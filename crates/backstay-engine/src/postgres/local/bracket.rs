//! The statements around a copy: begin and end, in one session.
//!
//! The server takes back a backup whose session ends, so the session is held from
//! the first statement to the last segment read. It also holds a temporary slot,
//! which keeps the log the backup needs, and which the server removes by itself.

use backstay_model::{Finding, Lsn, TimelineId};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::super::connect::{Session, column};
use super::super::facts::{Privileges, ServerFacts, Tablespace, lsn};
use super::super::outcome::Outcome;
use super::super::settings::{Address, CHECKPOINT_LIMIT};
use super::super::tablespaces;
use crate::{Error, Result};

/// A begun backup.
pub(super) struct Bracket {
    session: Session,
    address: Address,
    version_number: u32,
    from_standby: bool,
    /// When the server was started: another time later means a restart.
    server_started: String,
    pub(super) start_lsn: Lsn,
    /// Of the checkpoint from which a restore replays.
    pub(super) timeline: TimelineId,
}

/// What the server says at the end of a backup.
pub(super) struct Ended {
    pub(super) stop_lsn: Lsn,
    /// `backup_label`, byte by byte.
    pub(super) label_file: Vec<u8>,
    /// `tablespace_map`, byte by byte; empty when there are no tablespaces.
    pub(super) tablespace_map: Vec<u8>,
    /// All that there are now.
    pub(super) tablespaces: Vec<Tablespace>,
}

impl Bracket {
    /// Takes the session over; returns when the server's checkpoint is done.
    pub(super) async fn begin(
        session: Session,
        address: &Address,
        facts: &ServerFacts,
        privileges: &Privileges,
        label: &str,
        outcome: &Outcome,
    ) -> Result<Bracket> {
        session.hold(facts.version_number).await?;
        if privileges.replication {
            hold_log(&session, outcome).await;
        }
        let row = session
            .row("read when the server was started", "SELECT pg_postmaster_start_time()::text", &[])
            .await?;
        let server_started = column(&row, 0)?;
        info!(label, "waiting for the server's checkpoint");
        let statement = match facts.version_number >= 150_000 {
            true => "SELECT pg_backup_start($1, fast => true)::text",
            false => "SELECT pg_start_backup($1, true, false)::text",
        };
        let row = session.row_within(CHECKPOINT_LIMIT, "start the backup", statement, &[&label]).await?;
        let start_lsn = lsn(column(&row, 0)?)?;
        let timeline = checkpoint_timeline(&session).await?;
        Ok(Bracket {
            session,
            address: address.clone(),
            version_number: facts.version_number,
            from_standby: facts.in_recovery,
            server_started,
            start_lsn,
            timeline,
        })
    }

    pub(super) fn is_lost(&self) -> bool {
        self.session.is_closed()
    }

    pub(super) async fn tablespaces(&self) -> Result<Vec<Tablespace>> {
        tablespaces::list(&self.session).await
    }

    /// Ends the backup. The session stays open, and with it the slot.
    pub(super) async fn end(&self, cancel: &CancellationToken) -> Result<Ended> {
        tokio::select! {
            () = cancel.cancelled() => Err(Error::Cancelled),
            ended = self.end_and_look() => match ended {
                Err(error @ Error::ConnectionLost { .. }) => Err(self.explain(error).await),
                other => other,
            },
        }
    }

    async fn end_and_look(&self) -> Result<Ended> {
        let function = match self.version_number >= 150_000 {
            true => "pg_backup_stop(wait_for_archive => false)",
            false => "pg_stop_backup(false, false)",
        };
        // convert_to into the database's own encoding: the bytes as they are.
        let statement = format!(
            "SELECT lsn::text, convert_to(labelfile, getdatabaseencoding()), \
                    convert_to(spcmapfile, getdatabaseencoding()) FROM {function}"
        );
        let ended = self.session.row_within(CHECKPOINT_LIMIT, "end the backup", &statement, &[]).await;
        if self.from_standby {
            self.refuse_promotion(ended.as_ref().err()).await?;
        }
        let row = ended?;
        let label_file: Vec<u8> = column(&row, 1)?;
        let tablespaces = self.tablespaces().await?;
        Ok(Ended {
            stop_lsn: lsn(column(&row, 0)?)?,
            label_file,
            tablespace_map: column::<Option<Vec<u8>>>(&row, 2)?.unwrap_or_default(),
            tablespaces,
        })
    }

    /// A standby that left recovery, or followed its primary to another timeline,
    /// has a log that does not lead from our start to our stop.
    async fn refuse_promotion(&self, failed: Option<&Error>) -> Result<()> {
        if matches!(failed, Some(Error::ConnectionLost { .. } | Error::Timeout { .. })) {
            return Ok(());
        }
        let row = self
            .session
            .row(
                "read the timeline of the standby",
                "SELECT pg_is_in_recovery(), r.min_recovery_end_timeline, c.timeline_id \
                 FROM pg_control_recovery() r, pg_control_checkpoint() c",
                &[],
            )
            .await?;
        let replayed = column::<i32>(&row, 1)?.max(column::<i32>(&row, 2)?) as u32;
        let promoted = !column::<bool>(&row, 0)?;
        if promoted || replayed > self.timeline.0 {
            // The checkpoint of the new timeline may not have been made yet.
            let now = replayed.max(self.timeline.0 + 1);
            return Err(Error::Promoted { started: self.timeline, stopped: TimelineId(now) });
        }
        Ok(())
    }

    /// Says whether the session ended because the server was restarted.
    pub(super) async fn explain(&self, error: Error) -> Error {
        let Ok(session) = Session::open(&self.address).await else { return error };
        let statement = "SELECT pg_postmaster_start_time()::text";
        let row = session.row("read when the server was started", statement, &[]).await;
        match row.and_then(|row| column::<String>(&row, 0)) {
            Ok(started) if started != self.server_started => Error::Restarted,
            _ => error,
        }
    }
}

/// Makes the server keep its log from here on for as long as the session lives.
/// Without a slot the backup goes on and looks afterwards whether all is there.
async fn hold_log(session: &Session, outcome: &Outcome) {
    let statement = "SELECT slot_name::text FROM \
                     pg_create_physical_replication_slot('backstay_' || pg_backend_pid(), true, true)";
    if let Err(error) = session.query("hold the log", statement, &[]).await {
        let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        outcome.find(Finding::info(
            "temporary replication slot",
            format!("could not be made, so the log of this backup is not held: {cause}"),
            "raise `max_replication_slots`",
        ));
    }
}

async fn checkpoint_timeline(session: &Session) -> Result<TimelineId> {
    let statement = "SELECT timeline_id FROM pg_control_checkpoint()";
    let row = session.row("read the timeline", statement, &[]).await?;
    Ok(TimelineId(column::<i32>(&row, 0)? as u32))
}
