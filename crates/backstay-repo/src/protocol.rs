//! Several writers, retention and collectors at one store, without a server
//! between them and without a clock that anyone trusts.
//!
//! Three rules carry it, and `tests/protocol_model.rs` explores every order of
//! their steps:
//!
//! - A *writer* stores an intent that names its possible parents before it looks
//!   at them, and commits by creating `backups/<session>`. Whoever creates that
//!   object first decides: the writer with a manifest, or a collector with a
//!   tombstone.
//! - *Retention* condemns a backup before it lists the intents, and leaves the
//!   backup alone while a session that has not ended names it.
//! - A *collector* lists data objects, then intents, then ends the sessions that
//!   look dead, then reads all backups; and deletes of its first list only what
//!   belongs to no backup and to no living session.
//!
//! Times and process numbers decide only how soon something is cleaned up, never
//! whether it is safe to.

mod collect;
mod intent;
mod judge;
mod process;
mod retention;
mod run;
mod session;

pub use collect::{
    CollectOptions, CollectReport, Collection, CollectionPlan, Deletion, EndedSession, Reason, Remover,
};
pub use intent::{Intent, SessionKind};
pub use judge::{DEFAULT_LEASE, Verdict};
pub use process::ProcessIdentity;
pub use retention::{CONDEMNED_AT_UNKNOWN, DEFAULT_GRACE, Markers};
pub(crate) use run::accepted_losses;
pub use session::{Session, SessionStart};
