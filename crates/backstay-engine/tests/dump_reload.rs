//! Portable dumps of real servers, taken and put back: what comes back is equal, and
//! what cannot work says so before anything is written.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test ends where something is not as it should be, and says what it did not look at"
)]

#[path = "local_backup/drive.rs"]
#[allow(dead_code, reason = "shared by the tests of this crate, none of which uses all of it")]
mod drive;

#[path = "dump_reload/analysing.rs"]
mod analysing;
#[path = "dump_reload/chosen.rs"]
mod chosen;
#[path = "dump_reload/dumping.rs"]
mod dumping;
#[path = "dump_reload/failing.rs"]
mod failing;
#[path = "dump_reload/hypertables.rs"]
mod hypertables;
#[path = "dump_reload/refusing.rs"]
mod refusing;
#[path = "dump_reload/reloading.rs"]
mod reloading;
#[path = "dump_reload/sample.rs"]
mod sample;
#[path = "dump_reload/several_hosts.rs"]
mod several_hosts;
#[path = "dump_reload/statements.rs"]
mod statements;
#[path = "dump_reload/swapping.rs"]
mod swapping;
