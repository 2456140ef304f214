//! A base backup over the replication protocol, for a server whose directory
//! cannot be read from here.
//!
//! Responsible for turning `BASE_BACKUP` into the steps of [`parts`]: a task
//! receives, a bounded queue carries, lanes check and take. On PostgreSQL 17 and
//! later, where the server keeps summaries of its log, only changed blocks travel;
//! what lies between them is said to be unchanged, so that the backup is as
//! complete as any other.
//!
//! Invariants: an increment that the server refuses becomes an ordinary backup
//! with a finding, never a failure; a server that was not set up for increments
//! is asked for none, and nothing is said. The log from start to stop is held by a
//! temporary slot of the same connection, and is in the backup.
//!
//! [`parts`]: backstay_model::parts

mod assemble;
mod buffers;
mod configuration;
mod extent;
mod incremental;
mod members;
mod offer;
mod parent;
mod receive;
mod second_look;
mod tally;
mod tar;
mod warnings;

use std::collections::VecDeque;
use std::sync::Arc;

use backstay_model::parts::{ExtentData, PartKind, PartSource, Step};
use backstay_model::{Fault, Finding};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use self::parent::IncrementParent;

use self::assemble::Assembler;
use self::buffers::Buffers;
use self::configuration::OutsideConfiguration;
use self::extent::{Pages, ReceivedExtent, ZeroExtent};
use self::members::Piece;
use self::offer::{Offer, declined, offer_parent, refused};
use self::parent::ParentSizes;
use self::receive::{Delivery, Receiver};
use self::second_look::SecondLook;
use super::connect::Session;
use super::facts::{self, Privileges, ServerFacts};
use super::included;
use super::outcome::{BackupFacts, Outcome, Way};
use super::page::PageCheck;
use super::settings::Address;
use super::tablespaces;
use super::throttle::Throttle;
use super::walsender::{self, BackupOptions, BaseBackup, Walsender};
use crate::{Error, Result};

/// What is asked for.
pub struct RemoteOptions {
    /// Written into `backup_label`; also names the slot.
    pub label: String,
    /// Build on this backup if the server can.
    pub parent: Option<IncrementParent>,
}

/// A backup that has begun: the server has made its checkpoint and is sending.
/// Dropping it ends the connection, and the server gives up.
pub struct RemoteBackup {
    deliveries: mpsc::Receiver<Delivery>,
    /// Receives; aborted when the backup is dropped.
    _receiving: JoinSet<()>,
    pages: Arc<Pages>,
    outcome: Outcome,
    facts: BackupFacts,
    cancelled: CancellationToken,
    estimated_bytes: u64,
    incremental: bool,
    present: Arc<str>,
    /// Until the last archive has come.
    configuration: Option<OutsideConfiguration>,
    /// What follows the last archive.
    tail: VecDeque<Piece>,
    ended: bool,
}

impl RemoteBackup {
    /// Checks the rights of the role, begins the backup and starts to receive, on
    /// the runtime this is awaited on.
    pub async fn start(
        address: &Address,
        options: RemoteOptions,
        outcome: Outcome,
        cancelled: CancellationToken,
    ) -> Result<Self> {
        tokio::select! {
            () = cancelled.cancelled() => Err(Error::Cancelled),
            begun = Self::begin(address, options, outcome, cancelled.clone()) => begun,
        }
    }

    async fn begin(
        address: &Address,
        options: RemoteOptions,
        outcome: Outcome,
        cancelled: CancellationToken,
    ) -> Result<Self> {
        let session = Session::open(address).await?;
        let privileges = Privileges::read(&session).await?;
        privileges.require_remote()?;
        let mut server = facts::read(&session, address).await?;
        tablespaces::refuse_inside(&server.tablespaces)?;
        if let Some(finding) = included::left_out(&server) {
            outcome.find(finding);
        }
        let mut walsender = Walsender::connect(address).await?;
        let identity = walsender.identify_system().await?;
        if identity.system_identifier != server.system_identifier {
            return Err(Error::Protocol { reason: "the address leads to two different servers".to_owned() });
        }

        let mut sizes = None;
        if let Some(parent) = options.parent {
            match offer_parent(&mut walsender, &server, identity.timeline, parent).await? {
                Offer::Taken(offered) => sizes = Some(offered),
                Offer::NotMade => {}
                Offer::Declined(finding) => outcome.find(finding),
            }
        }
        let (backup, sizes) = begin_backup(&mut walsender, address, &options.label, sizes, &outcome).await?;
        if sizes.is_some() && backup.timeline != identity.timeline {
            // Promoted between our look and the server's: its parent is on another history.
            return Err(Error::Promoted { started: identity.timeline, stopped: backup.timeline });
        }
        server.timeline = backup.timeline;
        let listed = tablespaces::list(&session).await?;
        tablespaces::refuse_inside(&listed)?;
        server.tablespaces = tablespaces::sent(&backup.tablespaces, &listed);
        let configuration = OutsideConfiguration::read(&session, &server, privileges.role).await;
        let incremental = sizes.is_some();
        let second_look = SecondLook::new(session, address, &server, outcome.clone()).await?;

        let buffers = Arc::new(Buffers::default());
        let check = PageCheck::new(
            server.data_checksums,
            server.block_size,
            server.segment_blocks,
            backup.start,
            outcome.clone(),
        );
        let facts = BackupFacts {
            way: Way::Remote,
            from_standby: server.in_recovery,
            start_lsn: backup.start,
            // Not known before the end; replaced there, before anybody sees it.
            stop_lsn: backup.start,
            timeline: backup.timeline,
            label: options.label,
            owner: None,
            server,
            late_tablespaces: Vec::new(),
        };
        let (sender, deliveries) = receive::queue();
        let estimated_bytes = backup.estimated_bytes();
        let receiver = Receiver {
            walsender,
            backup,
            assembler: Assembler::new(
                facts.server.block_size,
                facts.server.segment_blocks,
                sizes,
                Arc::clone(&buffers),
            ),
            outcome: outcome.clone(),
            throttle: Throttle::new(address.max_rate, &cancelled),
            cancelled: cancelled.clone(),
        };
        let mut receiving = JoinSet::new();
        receiving.spawn(receiver.run(sender));
        Ok(Self {
            deliveries,
            _receiving: receiving,
            pages: Arc::new(Pages { check, second_look, buffers }),
            outcome,
            facts,
            cancelled,
            estimated_bytes,
            incremental,
            present: "".into(),
            configuration: Some(configuration),
            tail: VecDeque::new(),
            ended: false,
        })
    }

    /// What the server thinks it will send, or with an increment: what it would.
    pub fn estimated_bytes(&self) -> u64 {
        self.estimated_bytes
    }

    /// Whether only changed blocks travel.
    pub fn is_incremental(&self) -> bool {
        self.incremental
    }

    /// What is known at the start; the stop position is not yet.
    pub fn server(&self) -> &ServerFacts {
        &self.facts.server
    }

    /// As far as the server still answers: what is lost with it is a warning.
    fn note_late_tablespaces(&mut self) -> Result<()> {
        let noted: Vec<u32> = self.facts.server.tablespaces.iter().map(|space| space.oid).collect();
        self.facts.late_tablespaces = match self.pages.second_look.tablespaces() {
            Ok(listed) => tablespaces::late(listed, &noted)?,
            Err(_) => Vec::new(),
        };
        if let Some(finding) = tablespaces::finding(&self.facts.late_tablespaces) {
            self.outcome.find(finding);
        }
        Ok(())
    }

    fn step(&mut self, piece: Piece) -> Step {
        match piece {
            Piece::Begin(spec) => {
                if let Some(configuration) = &mut self.configuration {
                    configuration.meet(&spec);
                }
                if let PartKind::File(shape) = spec.kind {
                    self.present = spec.path.as_str().into();
                    self.pages.check.note_size(&spec.path, shape.size);
                }
                Step::Begin(spec)
            }
            Piece::Bytes { offset, bytes } => {
                let length = bytes.len() as u32;
                let (path, pages) = (Arc::clone(&self.present), Arc::clone(&self.pages));
                let extent = ReceivedExtent { path, offset, bytes, pages };
                Step::Extent { offset, length, data: ExtentData::Read(Box::new(extent)) }
            }
            Piece::Zeros { offset, length } => {
                Step::Extent { offset, length, data: ExtentData::Read(Box::new(ZeroExtent { length })) }
            }
            Piece::Unchanged { offset, length } => {
                Step::Extent { offset, length, data: ExtentData::Unchanged }
            }
        }
    }
}

impl PartSource for RemoteBackup {
    fn next(&mut self) -> Result<Option<Step>, Fault> {
        if let Some(piece) = self.tail.pop_front() {
            return Ok(Some(self.step(piece)));
        }
        if self.ended {
            // Behind the barrier: all pages have been looked at.
            self.pages.check.conclude(self.facts.stop_lsn);
            self.outcome.finish(self.facts.clone());
            return Ok(None);
        }
        if self.cancelled.is_cancelled() {
            return Err(Error::Cancelled.into());
        }
        match self.deliveries.blocking_recv() {
            Some(Delivery::Piece { piece, .. }) => Ok(Some(self.step(piece))),
            Some(Delivery::End { stop }) => {
                self.facts.stop_lsn = stop;
                self.ended = true;
                self.note_late_tablespaces()?;
                if let Some(configuration) = self.configuration.take()
                    && let Some(finding) = configuration.finish(&mut self.tail)
                {
                    self.outcome.find(finding);
                }
                Ok(Some(Step::Barrier))
            }
            Some(Delivery::Failed(error)) => Err(error.into()),
            None => {
                Err(Error::Protocol { reason: "the receiver of the backup ended early".to_owned() }.into())
            }
        }
    }
}

/// Begins with the increment if one was offered, without it when the server says no.
async fn begin_backup(
    walsender: &mut Walsender,
    address: &Address,
    label: &str,
    sizes: Option<ParentSizes>,
    outcome: &Outcome,
) -> Result<(BaseBackup, Option<ParentSizes>)> {
    let slot = slot_name(label);
    let mut options =
        BackupOptions { label: label.to_owned(), incremental: sizes.is_some(), max_rate: address.max_rate };
    let mut no_slot = hold_log(walsender, &slot).await?;
    let begun = walsender.begin_base_backup(&options).await;
    let (backup, sizes) = match begun {
        Err(error) if options.incremental => {
            outcome.find(refused(&declined(error)?));
            options.incremental = false;
            // The server drops temporary slots with the command that failed.
            no_slot = hold_log(walsender, &slot).await?;
            (walsender.begin_base_backup(&options).await?, None)
        }
        begun => (begun?, sizes),
    };
    if let Some(reason) = no_slot {
        outcome.find(Finding::info(
            "replication slot",
            format!("the log was not held for the backup: {reason}"),
            "raise `max_replication_slots`, or `wal_keep_size` to what is written during a backup",
        ));
    }
    Ok((backup, sizes))
}

/// Makes the slot; when the server says no, why.
async fn hold_log(walsender: &mut Walsender, slot: &str) -> Result<Option<String>> {
    match walsender.create_temporary_slot(slot).await {
        Ok(()) => Ok(None),
        Err(error) => match walsender::refusal(&error) {
            Some(said) => Ok(Some(said.to_string())),
            None => Err(error),
        },
    }
}

/// Longest name that a server takes.
const SLOT_NAME_MAX: usize = 63;

/// Slots are named with small letters, digits and `_`.
fn slot_name(label: &str) -> String {
    let letter = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' };
    let mut name = format!("backstay_{}", label.chars().map(letter).collect::<String>());
    name.truncate(SLOT_NAME_MAX);
    name
}

#[cfg(test)]
mod tests;
