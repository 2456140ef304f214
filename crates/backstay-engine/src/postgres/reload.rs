//! A portable dump put back: what a server lacks for it is listed before the first byte,
//! `pg_restore` or `psql` do the rest as children, and what they leave to others (owners
//! of sequences, foreign keys that were not looked at, TimescaleDB's own words) is done
//! and checked afterwards.
//!
//! Invariant: a database that is not empty is written to only in one transaction, or
//! because the caller says so; a stream that broke off is never committed.

mod analyze;
pub mod archive;
mod checks;
mod cluster_part;
mod commands;
mod contents;
mod expected;
mod globals;
mod guard;
mod named;
mod needs;
mod pieces;
mod role_names;
mod run;
mod script;
mod sound;
pub mod swap;
mod target;
pub(super) mod timescale;
mod unpack;
mod use_list;
mod used_sequences;
mod words;

pub use self::analyze::ANALYZE_REMEDY;
pub use self::archive::{Archive, ArchiveReader, DatabaseShape, Entry, OffsetPatch, RowOffsets, Selection};
pub use self::cluster_part::{ClusterContents, ClusterPart, ClusterScan};
pub use self::contents::ContentsSearch;
pub use self::expected::Expected;
pub use self::globals::{GlobalsPreview, GlobalsReload};
pub use self::guard::refuse_commands;
pub use self::named::{ScriptNames, ScriptScan};
pub use self::needs::{DumpNeeds, Preflight};
pub use self::run::{ReloadInput, ReloadOptions, ReloadRun};
pub use self::sound::Sound;
pub use self::swap::{SwapStep, Swapped, kept_name};
pub use self::target::ReloadTarget;
pub use self::timescale::version::VersionScan;
pub use self::timescale::{TimescaleJob, TimescaleReload};
pub use self::unpack::DirectoryUnpack;
