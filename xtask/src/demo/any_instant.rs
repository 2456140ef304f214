//! Any instant: a table is dropped while transactions go on, and the copy that is restored
//! holds every one that was committed before, and none that was after.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use testkit::{Postgres, wait_until};

use super::receiver::Receiver;
use super::story::{Story, seconds, thousands};
use crate::backstay::Backstay;
use crate::process::run_quietly;

const LIMIT: Duration = Duration::from_secs(60);
const ROWS: &str = "SELECT count(*) FROM invoices";

/// Nobody commits into the history while the table goes, so that it is known what
/// was committed before.
const DROPPED: &str = "
BEGIN;
LOCK TABLE pgbench_history IN SHARE MODE;
CREATE TABLE witness AS
    SELECT pg_current_xact_id()::text AS transaction, (SELECT count(*) FROM pgbench_history) AS before;
DROP TABLE invoices;
COMMIT;";

pub fn go_back(story: &mut Story, backstay: &Backstay, server: &Postgres, place: &Path) -> Result<()> {
    let settings = format!("\n[instance.demo.archive]\nspool = \"{}\"\n", place.join("spool").display());
    let mut file = File::options().append(true).open(backstay.configuration())?;
    file.write_all(settings.as_bytes()).context("switch the archive on")?;
    let archive = Receiver::start(backstay, "demo", &place.join("archive.log"))?;
    story.show(&mut backstay.command(&["backup", "demo"]))?;
    server.sql("CREATE TABLE invoices AS SELECT n, md5(n::text) AS what FROM generate_series(1, 20000) n")?;
    let invoices = server.query_value(ROWS)?;
    let load = server.pgbench_load()?;
    server.sql(DROPPED)?;
    let transaction = server.query_value("SELECT transaction FROM witness")?;
    let before: i64 = server.query_value("SELECT before FROM witness")?.parse()?;
    story.say(&format!("somebody drops a table, with transaction {transaction}, while pgbench goes on"));
    let end = server.query_value("SELECT pg_current_wal_insert_lsn()")?;
    let behind = format!("SELECT confirmed - '{end}' >= 0 FROM (SELECT '{{}}'::pg_lsn AS confirmed) s");
    wait_until(LIMIT, format!("the log up to {end}"), || {
        archived(backstay).is_ok_and(|to| {
            server.query_value(&behind.replace("{}", &to)).is_ok_and(|is_behind| is_behind == "t")
        })
    })?;

    let into = place.join("before-the-drop");
    let (to, directory) = (format!("xid:{transaction}"), into.to_string_lossy().into_owned());
    // Only a private server may be of a place that PostgreSQL's packages do not know.
    let programs = format!("instance.demo.bin_directory={}", server.installation().bin_directory().display());
    let words = ["--set", &programs, "restore", "demo", "--to", &to, "--exclusive", "--into", &directory];
    let plan = run_quietly(&mut backstay.command(&[&["--json"][..], &words, &["--dry-run"]].concat()))?;
    let plan: Plan = serde_json::from_str(&plan).context("understand the plan of a restore")?;
    let begun = Instant::now();
    story.show(&mut backstay.command(&[&["--no-progress", "--quiet"][..], &words, &["--start"]].concat()))?;
    let took = begun.elapsed().as_secs_f64();
    let goes_on = server.pgbench_sums()?.transactions;
    drop((load, archive));

    let copy = Postgres::start_on(server.installation(), &into)?;
    let (sums, there) = (copy.pgbench_sums()?, copy.query_value(ROWS)?);
    ensure!(there == invoices, "{there} rows of {invoices} came back");
    ensure!(sums.agree(), "a transaction is there in part: {sums:?}");
    ensure!(sums.transactions == before, "{} of {before} transactions came back", sums.transactions);
    drop(copy);
    fs::remove_dir_all(&into).context("remove the copy")?;
    let last = plan.reached.last_transaction;
    story.say(&format!(
        "ok: restored in {} to transaction {}, committed at {}",
        seconds(took),
        last.transaction,
        last.time
    ));
    story.done(&format!(
        "ok: the table is there, and so are the {} transactions before it went, with sums that agree; of the {} since, none",
        thousands(before.unsigned_abs()),
        thousands((goes_on - before).unsigned_abs())
    ));
    Ok(())
}

#[derive(Deserialize)]
struct Plan {
    reached: Reached,
}

#[derive(Deserialize)]
struct Reached {
    last_transaction: Transaction,
}

#[derive(Deserialize)]
struct Transaction {
    transaction: u64,
    time: String,
}

/// Up to where the store has the log.
fn archived(backstay: &Backstay) -> Result<String> {
    let status = run_quietly(&mut backstay.command(&["--json", "status", "demo"]))?;
    let status: serde_json::Value = serde_json::from_str(&status)?;
    let position = status[0]["archive"]["position"].as_str().context("find how far the log is stored")?;
    Ok(position.split_once('@').map_or(position, |(_, lsn)| lsn).to_owned())
}
