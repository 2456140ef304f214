//! PostgreSQL 13 to 18, with or without TimescaleDB.
//!
//! Two ways in, one kind of backup: [`local`] reads the data directory beside a
//! session that holds `pg_backup_start`, [`remote`] asks the server for
//! `BASE_BACKUP`. Both take the log from start to stop along, so that every
//! backup restores alone.

pub mod remote;
pub mod walsender;
