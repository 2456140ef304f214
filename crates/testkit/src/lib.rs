//! Real database servers for tests, and the few things every such test needs.
//!
//! Responsible for finding installations of PostgreSQL, Redis and Valkey, running private servers on
//! them, and leaving nothing behind: whatever a [`Workspace`] holds is stopped and
//! removed when its owner is dropped, panics or is killed.
//!
//! Refuses to pretend: a test whose server is missing is either failed
//! (`REQUIRE_ENGINES=postgresql,redis`) or skipped in a loud voice, never passed.
//! Nothing but tests and `xtask` may depend on this crate.
#![allow(
    clippy::print_stderr,
    reason = "a skipped test must be seen by whoever runs it, and tests have no other channel"
)]

pub mod engines;
pub mod ownership;
pub mod port;
pub mod postgres;
pub mod redis;
pub mod servers;
pub mod tampered;
pub mod torture;
pub mod wait;
pub mod way;
pub mod workspace;

pub use engines::{require_postgres, require_programs, require_rescue_python, require_timescaledb};
pub use port::free_port;
pub use postgres::clock::{prepare_clock, require_settable_clock, set_clock, with_clock};
pub use postgres::{Postgres, PostgresOptions, StopMode};
pub use redis::{Redis, RedisInstallation, RedisVersion, require_redis};
pub use servers::{Installation, PostgresVersion};
pub use tampered::{require_tampering, tampered, tampered_about, traced_process};
pub use torture::{RedisTorture, Torture};
pub use wait::{wait_for, wait_until};
pub use way::Way;
pub use workspace::{Workspace, short_temp_dir};

/// A file that another program wrote; what each is stands in `fixtures/README.md`.
pub fn fixture(name: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}
