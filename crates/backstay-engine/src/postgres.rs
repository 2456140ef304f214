//! PostgreSQL 13 to 18, with or without TimescaleDB.
//!
//! Two ways in, one kind of backup: [`local`] reads the data directory beside a
//! session that holds `pg_backup_start`, [`remote`] asks the server for
//! `BASE_BACKUP`. Both take the log from start to stop along, so that every
//! backup restores alone.

pub mod accounts;
mod answering;
pub mod base_tar;
mod chunk_writer;
pub(crate) mod chunks;
pub mod client_programs;
pub mod connect;
pub mod control;
pub mod dump;
pub mod facts;
pub mod included;
pub mod inspect;
pub mod leftovers;
pub mod local;
pub mod log_source;
pub mod manifest;
pub mod outcome;
pub mod page;
pub mod place;
pub mod probe;
pub mod programs;
pub mod prove;
pub mod reached;
pub mod receive;
pub mod recover;
pub mod recovery;
pub mod reload;
pub mod remote;
pub mod rules;
pub mod schema;
pub mod scratch;
pub mod settings;
mod several_hosts;
pub mod starting;
pub mod tablespaces;
pub(crate) mod tar_end;
pub mod throttle;
pub mod wal;
pub mod walsender;

pub use facts::MAJOR_VERSIONS as SUPPORTED_MAJORS;
pub use outcome::{BackupFacts, Outcome};
pub use settings::PostgresSettings;
