//! Plans: what an operation is going to do, as a value, before it does anything.
//!
//! A plan is computed from records and facts alone, so the same value is the
//! answer to `--dry-run`, the preview of an API, the audit entry and the unit test.
//!
//! Refuses: to look at a disk, a server or a clock. Whoever executes a plan
//! brings in what only a look could tell, as a [`restore::Refusal`].

pub mod parent;
pub mod reload;
pub mod restore;
pub mod window;

pub use parent::{PassedOver, choose_parent};
pub use restore::{KnownLog, Refusal, RestorePlan, RestoreRequest, TablespacePlace, plan_recovery};
