//! Base backups through the replication protocol, from real servers into plain
//! directories that real servers then start on.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test reports by panicking, and a measurement by printing"
)]

#[path = "remote_way/chain.rs"]
mod chain;
#[path = "remote_way/directory.rs"]
mod directory;
#[path = "remote_way/failures.rs"]
mod failures;
#[path = "remote_way/login.rs"]
mod login;
#[path = "remote_way/rate.rs"]
mod rate;
#[path = "remote_way/whole.rs"]
mod whole;
