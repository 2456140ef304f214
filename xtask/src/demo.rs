//! `cargo xtask demo`: the life of one backup, from a running database over its
//! destruction to the proof that it is back.
//!
//! Everything happens in one workspace of `testkit`, so nothing is left running
//! when the demo ends, fails, is interrupted or is killed; `--keep` gives the
//! workspace away instead.

mod story;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use testkit::postgres::PgbenchSums;
use testkit::{Postgres, PostgresOptions, Workspace};

use self::story::{Story, mebibytes, seconds, thousands};
use crate::backstay::{self, Backstay, Listed};
use crate::servers;

/// About 15 MiB each.
const SCALE: u32 = 20;

const TRANSACTIONS_BETWEEN_BACKUPS: u32 = 1000;
const TRANSACTIONS_AFTER_THE_LAST: u32 = 250;

/// The rights that the local way of a base backup takes, and no more.
const RIGHTS: &str = "
GRANT pg_monitor TO backstay;
GRANT EXECUTE ON FUNCTION pg_backup_start(text, boolean) TO backstay;
GRANT EXECUTE ON FUNCTION pg_backup_stop(boolean) TO backstay;
";

#[derive(Args)]
pub struct Options {
    /// Leave the server and the repository in place, and say how to go on
    #[arg(long)]
    keep: bool,
}

pub fn run(options: &Options) -> Result<()> {
    let installation = servers::prepare_any()?;
    let program = backstay::build(backstay::Profile::Release)?;
    let begun = Instant::now();
    let mut story = Story::begin();

    story.chapter("A database is at work");
    let workspace = Workspace::new()?;
    let place = workspace.path().to_owned();
    let configuration = PostgresOptions::default().configure("max_wal_size = 2GB");
    let mut server = Postgres::start_in(workspace, &installation, &configuration)?;
    story.say(&format!(
        "PostgreSQL {} answers on port {}",
        server.query_value("SHOW server_version")?,
        server.port()
    ));
    server.pgbench_init(SCALE)?;
    server.sql("CHECKPOINT")?;
    let size: u64 =
        server.query_value("SELECT sum(pg_database_size(oid))::bigint FROM pg_database")?.parse()?;
    let accounts = server.query_value("SELECT count(*) FROM pgbench_accounts")?;
    story.done(&format!("pgbench filled it: {} accounts, {}", thousands(accounts.parse()?), mebibytes(size)));

    story.chapter("It gets a repository");
    let backstay = initialise(&mut story, program, &place, &server)?;

    story.chapter("The first backup reads everything");
    story.show(&mut backstay.command(&["backup", "demo"]))?;
    let first = newest(&backstay)?;

    story.chapter("Work goes on");
    server.pgbench_transactions(TRANSACTIONS_BETWEEN_BACKUPS)?;
    server.sql("CHECKPOINT")?;
    story.done(&format!(
        "{} transactions touched rows all over the tables",
        thousands(TRANSACTIONS_BETWEEN_BACKUPS.into())
    ));

    story.chapter("The second backup stores only what changed");
    story.show(&mut backstay.command(&["backup", "demo"]))?;
    let second = newest(&backstay)?;
    ensure!(second.id != first.id, "the second backup is not listed");
    let protected = server.pgbench_sums()?;
    story.say(&format!(
        "{} stored, where the first backup took {}: {:.1} %",
        mebibytes(second.stored_bytes),
        mebibytes(first.stored_bytes),
        100.0 * second.stored_bytes as f64 / first.stored_bytes.max(1) as f64
    ));

    story.chapter("Every stored byte is checked");
    story.show(&mut backstay.command(&["verify", "demo", "--level", "digest"]))?;

    story.chapter("A little more work, then the disk dies");
    server.pgbench_transactions(TRANSACTIONS_AFTER_THE_LAST)?;
    let at_the_end = server.pgbench_sums()?;
    let data_directory = server.data_directory().to_owned();
    server.kill9()?;
    fs::remove_dir_all(&data_directory).context("destroy the data directory")?;
    let destroyed = Instant::now();
    story.done(&format!("kill -9, rm -rf {}", data_directory.display()));

    story.chapter("It comes back");
    let into = data_directory.to_string_lossy().into_owned();
    let restore_begun = Instant::now();
    story.show(&mut backstay.command(&["restore", "demo", "--into", &into]))?;
    let restore_seconds = restore_begun.elapsed().as_secs_f64();
    server.start().context("start the restored server")?;
    let outage = destroyed.elapsed().as_secs_f64();
    story.done("the restored server answers");

    story.chapter("Is it all there?");
    let restored = server.pgbench_sums()?;
    prove(&mut story, &server, &accounts, protected, restored)?;

    story.chapter("What it cost");
    let lost = at_the_end.transactions - restored.transactions;
    story.say(&format!(
        "lost: {} of {} transactions, those committed after backup {}",
        thousands(lost.unsigned_abs()),
        thousands(at_the_end.transactions.unsigned_abs()),
        second.id
    ));
    story.say(&format!(
        "took: {} from the loss to the first answer, {} of it the restore of {} in {} files",
        seconds(outage),
        seconds(restore_seconds),
        mebibytes(second.logical_bytes),
        thousands(second.files)
    ));
    story.say(&format!("the whole story: {}", seconds(begun.elapsed().as_secs_f64())));
    ensure!(
        lost == i64::from(TRANSACTIONS_AFTER_THE_LAST),
        "other transactions were lost than expected: {lost}"
    );

    if options.keep {
        go_on(&mut story, server, &backstay, &place);
    } else {
        drop(server);
        ensure!(!place.exists(), "{} is still there", place.display());
        story.say("nothing is left running; `cargo xtask demo --keep` leaves it all in place");
    }
    Ok(())
}

fn initialise(story: &mut Story, program: PathBuf, place: &Path, server: &Postgres) -> Result<Backstay> {
    const PASSWORD: &str = "only-for-this-demo";
    server.create_role("backstay", PASSWORD, "REPLICATION")?;
    server.sql(RIGHTS)?;
    let backstay = Backstay::new(program, place.join("backstay.toml"));
    let store = format!("file://{}", place.join("repository").display());
    let url = server.url_as(&format!("backstay:{PASSWORD}"));
    let data_directory = server.data_directory().to_string_lossy();
    story.show(&mut backstay.command(&[
        "init",
        "--store",
        &store,
        "--name",
        "demo",
        "--postgresql",
        &url,
        "--data-directory",
        &data_directory,
    ]))?;
    story.show(&mut backstay.command(&["config", "check", "--connect"]))?;
    Ok(backstay)
}

fn newest(backstay: &Backstay) -> Result<Listed> {
    backstay.list("demo")?.into_iter().next().context("find the backup that was just made")
}

fn prove(
    story: &mut Story,
    server: &Postgres,
    accounts: &str,
    protected: PgbenchSums,
    restored: PgbenchSums,
) -> Result<()> {
    let counted = server.query_value("SELECT count(*) FROM pgbench_accounts")?;
    let mut checks = vec![
        ("rows of pgbench_accounts", accounts.to_owned(), counted),
        ("transactions", protected.transactions.to_string(), restored.transactions.to_string()),
        ("sum of the accounts", protected.accounts.to_string(), restored.accounts.to_string()),
        ("sum of the tellers", restored.accounts.to_string(), restored.tellers.to_string()),
        ("sum of the branches", restored.accounts.to_string(), restored.branches.to_string()),
        ("sum of the history", restored.accounts.to_string(), restored.history.to_string()),
    ];
    server.sql("CREATE EXTENSION IF NOT EXISTS amcheck")?;
    // Compares every index with its table; raises an error at the first difference.
    let indexes = server
        .query_value(
            "SELECT count(bt_index_check(c.oid, true)::text) FROM pg_class c JOIN pg_index i ON i.indexrelid = c.oid \
             WHERE c.relname LIKE 'pgbench%'",
        )
        .context("compare the indexes with their tables")?;
    checks.push(("indexes that agree with their tables", "3".to_owned(), indexes));
    let mut wrong = Vec::new();
    for (what, expected, found) in &checks {
        let verdict = if expected == found { "ok" } else { "WRONG" };
        story.say(&format!("{verdict:<6}{what}: {found}"));
        if expected != found {
            wrong.push(*what);
        }
    }
    if !wrong.is_empty() {
        bail!("the restored database differs in: {}", wrong.join(", "));
    }
    Ok(())
}

fn go_on(story: &mut Story, server: Postgres, backstay: &Backstay, place: &Path) {
    let directories = [server.installation().bin_directory(), backstay.program().parent().unwrap_or(place)]
        .map(|directory| directory.display().to_string())
        .join(":");
    let socket = server.socket_directory().display().to_string();
    let connect = format!("psql -h {socket} -p {} -U postgres postgres", server.port());
    let pid_file = server.data_directory().join("postmaster.pid");
    story.chapter("Go on from here");
    story.quote(&format!(
        "export PATH={directories}:$PATH BACKSTAY_CONFIG={}\n\
         {connect}\nbackstay list\nbackstay backup\nbackstay status\nbackstay drill\n\n\
         # when you have seen enough:\nkill -INT $(head -n 1 {}) && sleep 1 && rm -r {}",
        backstay.configuration().display(),
        pid_file.display(),
        place.display()
    ));
    server.keep();
}
