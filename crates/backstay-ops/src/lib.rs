//! What a person can ask of Backstay, each verb once and for every engine.
//!
//! An operation brings an engine and a repository together: it asks the one for
//! facts and parts, hands them to the other, and reports what happened as a value
//! of `backstay_model`. The decisions in between are plans of `model`.
//!
//! Refuses: to loop, to schedule, to print, to listen, to read configuration.
//! Everything that an operation needs comes in with its [`Context`].
//!
//! The verbs, all of the shape `verb::run(&Context, …) -> Result<Report>`:
//!
//! | verb | call | report |
//! |---|---|---|
//! | init | [`init::run`] | [`init::InitReport`] |
//! | backup | [`backup::run`] | [`model::BackupSummary`] |
//! | list, show | [`list::run`], [`list::show`] | [`model::BackupSummary`], [`list::BackupDetail`] |
//! | status | [`status::run`] | [`model::status::InstanceStatus`] |
//! | verify | [`verify::run`] | [`model::VerifyReport`] |
//! | restore | [`restore::plan`], [`restore::run`] | [`model::plan::RestorePlan`], [`restore::RestoreReport`] |
//! | drill | [`drill::run`] | [`model::drill::DrillReport`] |
//! | archive | [`archive::run`], until somebody asks to stop | events |
//! | wal fetch, wal push | [`wal::fetch`], [`wal::push`] | [`wal::Fetched`], [`wal::Pushed`] |
//! | dump | [`dump::run`] | [`dump::DumpReport`] |
//! | list, show, verify, expire of dumps | [`dump::shelved::look`], [`dump::shelved::show`], [`dump::verify::run`], [`dump::expire::run`] | [`dump::shelved::Shelved`], [`dump::shelved::DumpDetail`], [`dump::verify::DumpVerification`], [`dump::expire::DumpExpireReport`] |
//! | restore of a dump | [`reload::prepare`] | [`reload::ReloadReport`] |
//! | expire | [`expire::outlook`], [`expire::run`] | [`expire::ExpireOutlook`], [`expire::ExpireReport`] |
//! | export | [`export::dump`], [`export::base`] | [`export::ExportReport`] |
//! | hold | [`hold::on_dump`], [`hold::on_base`] | [`hold::HoldReport`] |
//! | collect | [`collect::run`] | [`collect::CollectReport`] |
//! | key kit | [`kit::write`], [`kit::renew`] | [`kit::KitReport`] |
//! | key | [`key::list`], [`key::add`], [`key::remove`], [`key::rotate`] | [`key::KeySlot`] |
//!
//! Their calls:
//!
//! ```text
//! open::repository(store_url: &str, Option<&KeySecret>, catalogue: Option<&Path>, &CancellationToken) -> Arc<Repo>
//! open::repository_limited(…, Limits { upload, download }, &CancellationToken) -> Arc<Repo>;  Context::new(repo, clock, cancel, progress)
//! init::run(&InitOptions { store, key_file, kit }, &dyn Clock, &CancellationToken) -> InitReport
//! backup::run(&Context, &Instance, &BackupOptions) -> BackupSummary
//! list::run(&Context, Option<&InstanceId>) -> Listing { backups, findings };  list::show(&Context, &BackupId) -> BackupDetail
//! status::run(&Context, &Instance, Option<&ArchiveExpected>) -> InstanceStatus
//! verify::run(&Context, &Subject, VerifyLevel) -> VerifyReport
//! restore::plan(&Context, &Instance, &RestoreOptions) -> RestorePlan
//! restore::run(&Context, &Instance, &RestoreOptions, RestorePlan) -> RestoreReport
//! drill::run(&Context, &Instance, &DrillOptions) -> DrillReport
//! dump::run(&Run, &Instance, &DumpPolicy, &DumpRequest) -> DumpReport
//! dump::shelved::look(&Run, &DumpPolicy, Option<&InstanceId>) -> Shelved;  dump::shelved::show(&Run, &DumpPolicy, &BackupId) -> Option<DumpDetail>
//! dump::verify::run(&Run, &DumpPolicy, &InstanceId, &VerifyOptions) -> DumpVerification
//! dump::expire::plan(&Run, &DumpPolicy, &InstanceId, as_of) -> DumpExpire;  dump::expire::run(&Run, &DumpPolicy, &InstanceId) -> DumpExpireReport
//! reload::prepare(&Run, &Instance, &DumpPolicy, &ReloadRequest) -> Prepared { plan };  Prepared::carry_out() -> ReloadReport
//! expire::outlook(&Context, &Instance, as_of: Timestamp) -> ExpireOutlook;  expire::plan(…) -> ExpirePlan;  expire::run(&Context, &Instance) -> ExpireReport
//! export::dump(&Run, &DumpPolicy, &BackupId, &ExportOptions) -> Option<ExportReport>
//! hold::on_dump(&Run, &DumpPolicy, &BackupId, Option<&Hold>) -> Option<HoldReport>;  hold::on_base(&Context, &BackupId, Option<&Hold>) -> HoldReport
//! collect::run(&Context, &CollectOptions) -> CollectReport
//! key::{list, add, remove, rotate}(&Context, …) -> …;  check::run(&Instance) -> InstanceCheck
//! ```

pub mod adopt;
pub mod archive;
pub mod backup;
pub mod check;
pub mod clock;
pub mod collect;
pub mod context;
pub mod critical;
mod deletion;
pub mod drill;
pub mod dump;
pub mod error;
pub mod expire;
pub mod export;
pub mod extract;
mod future;
mod giving_way;
pub mod hold;
pub mod init;
pub mod instance;
pub mod key;
pub mod kit;
mod known;
pub mod list;
mod log_view;
mod notes;
pub mod open;
pub mod reload;
pub mod restore;
pub mod run;
pub mod status;
pub mod verify;
pub mod wal;
pub mod way;

pub use backstay_engine as engine;
pub use backstay_model as model;
pub use backstay_repo as repo;
pub use clock::{Clock, SystemClock};
pub use context::Context;
pub use error::{Error, Result};
pub use instance::{Instance, Policy};
pub use run::Run;
