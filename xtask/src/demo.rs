//! `cargo xtask demo`: the life of one backup, from a running database over its
//! destruction to the proof that it is back.
//!
//! Everything happens in one workspace of `testkit`, so nothing is left running
//! when the demo ends, fails, is interrupted or is killed; `--keep` gives the
//! workspace away instead.

mod any_instant;
mod comparison;
mod dumps;
mod onward;
mod proof;
mod receiver;
mod redis;
mod second_reader;
mod story;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Args;
use testkit::redis::RedisInstallation;
use testkit::{Installation, Postgres, PostgresOptions, PostgresVersion, Workspace};

use self::story::{Story, mebibytes, seconds, thousands};
use crate::backstay::{self, Backstay, Listed, Profile};
use crate::interruption::Interruption;
use crate::servers;

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
    /// The major version of the server: 15 or 17 [default: what is here, else what this Debian has]
    #[arg(long, value_name = "MAJOR", value_parser = version)]
    postgres: Option<PostgresVersion>,
    /// How much data: about 15 MiB for each
    #[arg(long, value_name = "NUMBER", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    scale: u32,
    /// Build the program as tests do, so that nothing is compiled twice; everything takes longer then
    #[arg(long)]
    unoptimised: bool,
}

pub fn version(text: &str) -> Result<PostgresVersion, String> {
    let known = PostgresVersion::ALL.into_iter().find(|version| version.to_string() == text);
    known.ok_or_else(|| "the versions with a test server are 15 and 17".to_owned())
}

pub fn run(options: &Options) -> Result<()> {
    let (installation, python, redis) = servers::prepare_for_demo(options.postgres)?;
    if let Err(error) = &python {
        eprintln!("warning: the demo will not show the second reader: {error:#}");
    }
    if let Err(error) = &redis {
        eprintln!("warning: the demo will not show Redis: {error:#}");
    }
    let profile = if options.unoptimised { Profile::Dev } else { Profile::Release };
    let program = backstay::build(profile)?;
    let interruption = Interruption::watch()?;
    let outcome = tell(options, &installation, python, &redis, program, Story::begin(interruption.clone()));
    // What failed because it was interrupted need not say how.
    if outcome.is_err() { interruption.check().and(outcome) } else { outcome }
}

fn tell(
    options: &Options,
    installation: &Installation,
    python: Result<()>,
    redis: &Result<RedisInstallation>,
    program: PathBuf,
    mut story: Story,
) -> Result<()> {
    let begun = Instant::now();

    story.chapter("A database is at work")?;
    let workspace = Workspace::new()?;
    let place = workspace.path().to_owned();
    let configuration = PostgresOptions::default().configure("max_wal_size = 2GB");
    let mut server = Postgres::start_in(workspace, installation, &configuration)?;
    story.say(&format!(
        "PostgreSQL {} answers on port {}",
        server.query_value("SHOW server_version")?,
        server.port()
    ));
    server.pgbench_init(options.scale)?;
    server.sql("CHECKPOINT")?;
    let size: u64 =
        server.query_value("SELECT sum(pg_database_size(oid))::bigint FROM pg_database")?.parse()?;
    let accounts = server.query_value("SELECT count(*) FROM pgbench_accounts")?;
    story.done(&format!("pgbench filled it: {} accounts, {}", thousands(accounts.parse()?), mebibytes(size)));

    story.chapter("It gets a repository")?;
    let backstay = initialise(&mut story, program, &place, &server)?;

    story.chapter("The first backup reads everything")?;
    story.show(&mut backstay.command(&["backup", "demo"]))?;
    let first = newest(&backstay)?;

    story.chapter("Work goes on")?;
    server.pgbench_transactions(TRANSACTIONS_BETWEEN_BACKUPS)?;
    server.sql("CHECKPOINT")?;
    story.done(&format!(
        "{} transactions touched rows all over the tables",
        thousands(TRANSACTIONS_BETWEEN_BACKUPS.into())
    ));

    story.chapter("The second backup stores only what changed")?;
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

    story.chapter("Every stored byte is checked")?;
    story.show(&mut backstay.command(&["verify", "demo", "--level", "digest"]))?;

    story.chapter("A little more work, then the disk dies")?;
    server.pgbench_transactions(TRANSACTIONS_AFTER_THE_LAST)?;
    let at_the_end = server.pgbench_sums()?;
    let data_directory = server.data_directory().to_owned();
    server.kill9()?;
    fs::remove_dir_all(&data_directory).context("destroy the data directory")?;
    let destroyed = Instant::now();
    story.done(&format!("kill -9, rm -rf {}", data_directory.display()));

    story.chapter("It comes back")?;
    let into = data_directory.to_string_lossy().into_owned();
    let restore_begun = Instant::now();
    story.show(&mut backstay.command(&["restore", "demo", "--into", &into]))?;
    let restore_seconds = restore_begun.elapsed().as_secs_f64();
    server.start().context("start the restored server")?;
    let outage = destroyed.elapsed().as_secs_f64();
    story.done("the restored server answers");

    story.chapter("Is it all there?")?;
    let restored = server.pgbench_sums()?;
    proof::prove(&mut story, &server, &accounts, protected, restored)?;

    story.chapter("What it cost")?;
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
    ensure!(
        lost == i64::from(TRANSACTIONS_AFTER_THE_LAST),
        "other transactions were lost than expected: {lost}"
    );

    story.chapter("One table, one database")?;
    dumps::give_back(&mut story, &backstay, &server, &place)?;

    story.chapter("Any instant")?;
    any_instant::go_back(&mut story, &backstay, &server, &place)?;

    story.chapter("Redis: FLUSHALL in production")?;
    let redis_shown = redis::go_back(&mut story, &backstay, &place, redis)?;

    story.chapter("And without Backstay?")?;
    let shown = second_reader::compare(&mut story, &backstay, &place, &second, python)?;

    story.chapter("The end")?;
    story.say(&format!("the whole story: {}", seconds(begun.elapsed().as_secs_f64())));
    if !shown {
        story.warn("the second reader (chapter before this one)");
    }
    if !redis_shown {
        story.warn("Redis (two chapters before this one)");
    }
    if options.keep {
        onward::go_on(&mut story, server, &backstay, &place)?;
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
