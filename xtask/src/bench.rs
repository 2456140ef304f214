//! `cargo xtask bench postgres`: Backstay beside its peers on one PostgreSQL 17,
//! in one run, in alternating order.
//!
//! Every round gives each tool an empty repository and asks for a full backup, an
//! increment after 4 % of the pages changed, one after nothing changed, and the
//! restore of the last. Only ratios within one run are compared; what a figure
//! means is written beside it in `docs/benchmarks/postgres-base.md`.

mod chart;
mod cluster;
mod dump;
mod measure;
mod page;
mod redis;
mod report;
mod tools;
mod wal;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Subcommand};
use testkit::{Installation, Postgres, PostgresVersion, Workspace};

use self::cluster::Cluster;
use self::measure::{Cost, files_below, measure};
use self::tools::{Copy, LocalBackstay, PgBackRest, PgBaseBackup, RemoteBackstay, Restic, Tool};
use crate::{backstay, servers};

#[derive(Subcommand)]
pub enum Bench {
    /// Base backups of PostgreSQL, against pgBackRest, pg_basebackup, restic and cp
    Postgres(Options),
    /// Portable dumps, against the pipe of a shell and PostgreSQL's own tools
    Dump(dump::Options),
    /// The log, against pg_receivewal, pgBackRest and cp
    Wal(wal::Options),
    /// Bases and the stream of Redis, against redis-cli
    Redis(redis::Options),
}

#[derive(Args)]
pub struct Options {
    /// Size of the database, such as 1000MiB or 10GiB
    #[arg(long, default_value = "1000MiB", value_parser = mebibytes)]
    size: u64,
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Only the tools whose names begin with one of these, separated by commas; prints the tables
    /// and writes no document
    #[arg(long)]
    only: Option<String>,
    /// Where cluster and repositories lie, with room for eight times the size
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    directory: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Full,
    Changed,
    Unchanged,
    Restore,
}

impl Phase {
    pub const ALL: [Phase; 4] = [Phase::Full, Phase::Changed, Phase::Unchanged, Phase::Restore];

    pub fn title(self) -> &'static str {
        match self {
            Phase::Full => "Full backup",
            Phase::Changed => "Increment after 4 % of the pages changed, scattered",
            Phase::Unchanged => "Increment after nothing changed",
            Phase::Restore => "Restore",
        }
    }
}

/// One measured command.
#[derive(Debug, Clone)]
pub struct Sample {
    pub tool: &'static str,
    pub phase: Phase,
    pub cost: Cost,
    /// What the repository grew by; nothing for a restore.
    pub stored_bytes: u64,
}

/// Everything a report is made of.
pub struct Findings {
    pub samples: Vec<Sample>,
    /// Tool and how it was used.
    pub tools: Vec<(&'static str, String)>,
    pub database_bytes: u64,
    pub changed_pages: u64,
    pub server_version: String,
    pub rounds: u32,
    pub command: String,
}

pub fn run(bench: &Bench) -> Result<()> {
    match bench {
        Bench::Postgres(options) => base(options),
        Bench::Dump(options) => dump::run(options),
        Bench::Wal(options) => wal::run(options),
        Bench::Redis(options) => redis::run(options),
    }
}

fn base(options: &Options) -> Result<()> {
    servers::prepare_all()?;
    let installation = testkit::servers::find(PostgresVersion::V17).context("find PostgreSQL 17")?;
    let mut tools = tools(&installation, options.only.as_deref())?;
    let used: Vec<(&'static str, String)> =
        tools.iter().map(|tool| Ok((tool.name(), tool.description()?))).collect::<Result<_>>()?;

    eprintln!("filling a cluster of about {} MiB", options.size);
    let cluster = Cluster::fill(&options.directory, &installation, options.size)?;
    let mut samples = Vec::new();
    let mut changed_pages = 0;
    // Emptied after their round and removed with the last: see `empty`.
    let mut places = Vec::new();
    for round in 0..options.rounds {
        eprintln!("round {} of {}", round + 1, options.rounds);
        let place = Workspace::below(&options.directory)?;
        changed_pages = run_round(&cluster, &mut tools, options, round, place.path(), &mut samples)?;
        empty(place.path())?;
        places.push(place);
        // Whoever came first comes last, so that nobody always pays for the others' dirt.
        tools.rotate_left(1);
    }
    let findings = Findings {
        samples,
        tools: used,
        database_bytes: cluster.bytes(),
        changed_pages,
        server_version: cluster.server.query_value("SHOW server_version")?,
        rounds: options.rounds,
        command: format!("cargo xtask bench postgres --size {}MiB --rounds {}", options.size, options.rounds),
    };
    if options.only.is_some() {
        println!("{}", report::tables(&findings));
        return Ok(());
    }
    report::write(&findings)
}

/// All tools, or those whose name begins with one of the wanted words.
fn tools(installation: &Installation, only: Option<&str>) -> Result<Vec<Box<dyn Tool>>> {
    let wanted = |name: &str| {
        let name = name.to_lowercase();
        only.is_none_or(|only| only.to_lowercase().split(',').any(|word| name.starts_with(word.trim())))
    };
    let mut tools: Vec<Box<dyn Tool>> = Vec::new();
    if wanted("backstay") {
        let program = backstay::build(backstay::Profile::Release)?;
        tools.push(Box::new(LocalBackstay::new(&program)));
        tools.push(Box::new(RemoteBackstay::new(&program)));
    }
    let peers: [Box<dyn Tool>; 4] = [
        Box::new(PgBackRest::find()?),
        Box::new(PgBaseBackup::new(installation)),
        Box::new(Restic::find()?),
        Box::new(Copy::default()),
    ];
    tools.extend(peers.into_iter().filter(|tool| wanted(tool.name())));
    ensure!(!tools.is_empty(), "no tool has a name that begins with {:?}", only.unwrap_or_default());
    Ok(tools)
}

/// Returns how many pages were changed.
fn run_round(
    cluster: &Cluster,
    tools: &mut [Box<dyn Tool>],
    options: &Options,
    round: u32,
    place: &Path,
    samples: &mut Vec<Sample>,
) -> Result<u64> {
    for (number, tool) in tools.iter_mut().enumerate() {
        let repository = place.join(number.to_string());
        fs::create_dir(&repository)?;
        tool.begin(&cluster.server, &repository).with_context(|| format!("prepare {}", tool.name()))?;
    }
    let mut changed = 0;
    for phase in Phase::ALL {
        if phase == Phase::Changed {
            changed = cluster.change(round)?;
        }
        for (number, tool) in tools.iter_mut().enumerate() {
            let into = place.join(format!("restored-{number}"));
            let stored_before = tool.stored_bytes()?;
            let command = match phase {
                Phase::Full => Some(tool.full()?),
                Phase::Changed | Phase::Unchanged => tool.increment()?,
                Phase::Restore => tool.restore(&into)?,
            };
            let Some(mut command) = command else { continue };
            cluster.settle()?;
            let cost =
                measure(&mut command).with_context(|| format!("{}: {}", tool.name(), phase.title()))?;
            let stored_bytes = tool.stored_bytes()? - stored_before;
            eprintln!(
                "  {:<17} {:<52} {:6.2} s, {:6.2} s cpu, {:4} MiB of memory, {:8.2} MiB stored",
                tool.name(),
                phase.title(),
                cost.wall_seconds,
                cost.cpu_seconds,
                cost.largest_process_bytes >> 20,
                stored_bytes as f64 / f64::from(1 << 20)
            );
            samples.push(Sample { tool: tool.name(), phase, cost, stored_bytes });
            if phase == Phase::Restore {
                if tool.name().starts_with("Backstay") && round + 1 == options.rounds {
                    prove(cluster, &into)?;
                }
                empty(&into)?;
            }
        }
    }
    Ok(changed)
}

/// Frees the space of a directory's files and leaves the files.
///
/// ext4 gives an inode freed within the last minute to nobody and searches past it, for
/// every file made: after five restores were removed, each file of the sixth cost a
/// search past five thousand, and `cp -a` took three times as long as on a calm disk.
fn empty(directory: &Path) -> Result<()> {
    for file in files_below(directory)? {
        // restic makes its files for reading only.
        let writable = fs::set_permissions(&file, fs::Permissions::from_mode(0o600));
        let opened = writable.and_then(|()| fs::OpenOptions::new().write(true).open(&file));
        opened.and_then(|opened| opened.set_len(0)).with_context(|| format!("empty {}", file.display()))?;
    }
    Ok(())
}

/// A fast restore of the wrong bytes is worth nothing.
fn prove(cluster: &Cluster, restored: &Path) -> Result<()> {
    let copy = Postgres::start_on(cluster.server.installation(), restored)?;
    let question = "SELECT count(*), sum(abalance), sum(hashint4(aid)::bigint) FROM pgbench_accounts";
    let (expected, found) = (cluster.server.query_value(question)?, copy.query_value(question)?);
    if expected != found {
        bail!("the restored database differs: {expected} became {found}");
    }
    eprintln!("  the restored copy starts, and its rows are those of the source");
    Ok(())
}

fn mebibytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is not a size such as 1000MiB or 10GiB");
    let (number, unit) = [("GiB", 1024), ("MiB", 1)]
        .iter()
        .find_map(|(name, unit)| text.strip_suffix(name).map(|number| (number, *unit)))
        .ok_or_else(wrong)?;
    let value: u64 = number.trim().parse().map_err(|_| wrong())?;
    value.checked_mul(unit).filter(|size| *size > 0).ok_or_else(wrong)
}
