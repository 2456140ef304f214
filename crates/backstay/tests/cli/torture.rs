//! A short run of `cargo xtask torture postgres` and `redis`: the same course of events, with fixed
//! seeds, so that every fault happens once.

use std::path::PathBuf;
use std::time::Duration;

use testkit::{PostgresVersion, RedisTorture, RedisVersion, Torture, require_postgres, require_redis};

/// Every fault comes once before any comes again.
fn nothing_is_lost(version: PostgresVersion, seed: u64, duration: Duration, synchronous: bool) {
    let Some(installation) = require_postgres(version) else { return };
    let program = PathBuf::from(env!("CARGO_BIN_EXE_backstay"));
    let outcome = Torture { installation, program, seed, duration, synchronous }.run();
    assert!(outcome.is_ok(), "{:?}", outcome.unwrap_err());
}

#[test]
fn nothing_that_was_promised_is_lost_whatever_is_killed_cut_filled_or_moved() {
    nothing_is_lost(PostgresVersion::V17, 4, Duration::from_secs(60), false);
}

#[test]
fn no_acknowledged_commit_is_lost_where_commits_wait_for_the_archive() {
    nothing_is_lost(PostgresVersion::V15, 5, Duration::from_secs(40), true);
}

fn nothing_of_a_stream_is_lost(version: RedisVersion, seed: u64) {
    let Some(installation) = require_redis(version) else { return };
    let program = PathBuf::from(env!("CARGO_BIN_EXE_backstay"));
    let duration = Duration::from_secs(25);
    let outcome = RedisTorture { installation, program, seed, duration }.run();
    assert!(outcome.is_ok(), "{:?}", outcome.unwrap_err());
}

#[test]
fn what_redis_held_comes_back_or_lies_in_a_hole_that_is_told() {
    nothing_of_a_stream_is_lost(RedisVersion::Redis70, 7);
}

#[test]
fn what_valkey_held_comes_back_or_lies_in_a_hole_that_is_told() {
    nothing_of_a_stream_is_lost(RedisVersion::Valkey81, 8);
}
