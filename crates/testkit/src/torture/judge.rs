//! What a restored server has, against what must be there.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::markers::{Lives, Marker};
use super::program::{INSTANCE, Program};
use crate::postgres::Postgres;
use crate::servers::Installation;

/// The rows of a server, whose balances must agree.
///
/// # Errors
/// When they cannot be read, or a transaction is there in part.
pub fn rows(server: &Postgres) -> Result<BTreeSet<u64>> {
    let sums = server.pgbench_sums()?;
    ensure!(sums.agree(), "a transaction is there in part: {sums:?}");
    let text = server.query_value("SELECT n FROM markers ORDER BY n")?;
    text.lines().map(|line| line.parse().with_context(|| format!("read {line:?}"))).collect()
}

/// A restore with these words, started, proved, and looked at.
///
/// # Errors
/// When it does not succeed, or a transaction is there in part.
pub fn restored(
    program: &Program,
    installation: &Installation,
    place: &Path,
    words: &[&str],
) -> Result<BTreeSet<u64>> {
    let into = place.join("restored");
    let text = into.display().to_string();
    let all = [&["restore", INSTANCE, "--start", "--quiet", "--into", &text], words].concat();
    program.run(&all)?.good().with_context(|| format!("restore {words:?}"))?;
    let copy = Postgres::start_on(installation, &into)?;
    let found = rows(&copy).with_context(|| format!("look at what `restore {}` brought", words.join(" ")))?;
    drop(copy);
    fs::remove_dir_all(&into)?;
    Ok(found)
}

/// All rows up to one that was told, of the way onto its timeline, and none behind it.
///
/// # Errors
/// When one is missing, or there is one too many.
pub fn exactly_up_to(
    found: &BTreeSet<u64>,
    told: &[Marker],
    lives: &Lives,
    last: u64,
    timeline: u32,
) -> Result<()> {
    let missing = missing(found, told, lives, last, timeline);
    ensure!(missing.is_empty(), "acknowledged rows up to {last} are missing: {missing:?}");
    let behind: Vec<_> = found.range(last + 1..).collect();
    ensure!(behind.is_empty(), "rows behind {last} are there: {behind:?}");
    Ok(())
}

/// Rows of the way onto a timeline that were told, up to one, and are not there.
pub fn missing(found: &BTreeSet<u64>, told: &[Marker], lives: &Lives, last: u64, timeline: u32) -> Vec<u64> {
    let numbers = told.iter().map(|marker| marker.number);
    numbers
        .filter(|number| *number <= last && lives.is_of(*number, timeline) && !found.contains(number))
        .collect()
}
