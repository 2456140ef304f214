//! `cargo xtask bench dump`: a portable dump beside the pipe of a shell that it replaces,
//! and beside the fastest that PostgreSQL's own tools do; then each brought back.
//!
//! One PostgreSQL 17 with a database of pgbench's accounts and of events as applications
//! keep them (text, JSON, times), on one disk, the contestants taking turns.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::Args;
use testkit::{Postgres, PostgresVersion, Workspace};

use super::cluster::Cluster;
use super::measure::{Cost, bytes_below, measure};
use crate::backstay::{self, Backstay, Profile};
use crate::process::run_quietly;
use crate::servers;

mod report;

#[derive(Args)]
pub struct Options {
    /// Size of the database, such as 1000MiB or 10GiB
    #[arg(long, default_value = "600MiB", value_parser = super::mebibytes)]
    pub size: u64,
    #[arg(long, default_value_t = 3)]
    pub rounds: u32,
    /// Where cluster and dumps lie, with room for six times the size
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    directory: PathBuf,
}

const PHRASE: &str = "bench";

/// One way to a dump and back.
struct Contestant {
    name: &'static str,
    description: &'static str,
    /// Scripts for bash; `$OUT` is where the dump goes, `$DB` the database to fill.
    dump: String,
    restore: String,
    /// The database is made by the script of the restore.
    makes_database: bool,
}

pub struct Sample {
    pub contestant: &'static str,
    pub phase: Phase,
    pub cost: Cost,
    pub stored_bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Dump,
    Restore,
}

pub struct Findings {
    pub samples: Vec<Sample>,
    pub contestants: Vec<(&'static str, &'static str)>,
    pub database_bytes: u64,
    pub server_version: String,
    pub rounds: u32,
    pub command: String,
}

pub const OURS: &str = "backstay dump";
pub const SHELL: &str = "pg_dump, gzip, openssl";
pub const PSQL: &str = "psql < dump";

pub fn run(options: &Options) -> Result<()> {
    servers::prepare_all()?;
    let installation = testkit::servers::find(PostgresVersion::V17).context("find PostgreSQL 17")?;
    let program = backstay::build(Profile::Release)?;
    eprintln!("filling a database of about {} MiB", options.size);
    let cluster = Cluster::fill(&options.directory, &installation, options.size * 7 / 10)?;
    let server = &cluster.server;
    events(server, options.size * 3 / 10)?;
    let place = Workspace::below(&options.directory)?;
    let backstay = configure(&program, place.path(), server)?;
    let contestants = contestants(&backstay);
    let mut samples = Vec::new();
    for round in 0..options.rounds {
        eprintln!("round {} of {}", round + 1, options.rounds);
        for turn in 0..contestants.len() {
            // Whoever came first comes last in the next round.
            let contestant = &contestants[(turn + round as usize) % contestants.len()];
            let out = place.path().join(format!("out-{round}-{turn}"));
            fs::create_dir(&out)?;
            one(&cluster, contestant, place.path(), &out, &mut samples)?;
            fs::remove_dir_all(&out)?;
        }
    }
    let asked = "SELECT pg_database_size('postgres')::text";
    report::write(&Findings {
        samples,
        contestants: contestants.iter().map(|one| (one.name, one.description)).collect(),
        database_bytes: server.query_value(asked)?.parse()?,
        server_version: server.query_value("SHOW server_version")?,
        rounds: options.rounds,
        command: format!("cargo xtask bench dump --size {}MiB --rounds {}", options.size, options.rounds),
    })
}

/// Rows as applications keep them: they compress by a factor of four, not of fifteen.
fn events(server: &Postgres, mebibytes: u64) -> Result<()> {
    const ROWS_PER_MEBIBYTE: u64 = 4200;
    server.sql(&format!(
        "CREATE TABLE events AS
         SELECT g AS id, '2026-01-01'::timestamptz + g * interval '7 seconds' AS at, md5(g::text)::uuid AS session,
                (ARRAY['viewed','added','removed','paid','failed'])[1 + g % 5] AS what,
                jsonb_build_object('item', hashint4(g) % 5000, 'price', (hashint4(g * 7) & 65535) / 100.0,
                                   'agent', 'Mozilla/5.0 (X11; Linux x86_64) rv:' || g % 130,
                                   'note', left(md5((g / 3)::text), g % 20)) AS detail
         FROM generate_series(1, {}) g;
         ALTER TABLE events ADD PRIMARY KEY (id);
         CREATE INDEX ON events (at);
         VACUUM ANALYZE events; CHECKPOINT",
        mebibytes * ROWS_PER_MEBIBYTE
    ))
}

fn configure(program: &Path, place: &Path, server: &Postgres) -> Result<Backstay> {
    let backstay = Backstay::new(program.to_owned(), place.join("backstay.toml"));
    fs::write(place.join("phrase"), PHRASE)?;
    let settings = format!(
        "[repository]\nstore = \"file://{place}/repository\"\n\n\
         [instance.bench]\nengine = \"postgresql\"\nurl = \"{url}\"\nbin_directory = \"{bin}\"\n\n\
         [dump]\npassphrase = {{ file = \"phrase\" }}\nencryption = \"openssl\"\n",
        place = place.display(),
        url = server.socket_url(),
        bin = server.installation().bin_directory().display(),
    );
    fs::write(backstay.configuration(), settings)?;
    Ok(backstay)
}

fn contestants(backstay: &Backstay) -> Vec<Contestant> {
    let ours =
        format!("'{}' --config '{}'", backstay.program().display(), backstay.configuration().display());
    let phrase = "-pass file:$PLACE/phrase";
    let sealed = format!("openssl enc -aes-256-cbc -salt -pbkdf2 -iter 100000 {phrase}");
    vec![
        Contestant {
            name: OURS,
            description: "custom format, zstd, encrypted for `openssl enc`; restored by `backstay restore --jobs 2`",
            dump: format!("{ours} --quiet dump bench --database postgres --to \"$OUT\""),
            restore: format!(
                "{ours} --quiet --set dump.to=file://$OUT restore bench --database postgres --into-database $DB --jobs 2"
            ),
            makes_database: true,
        },
        Contestant {
            name: SHELL,
            description: "`pg_dump | gzip | openssl enc`, the pipe of the scripts; restored by the same pipe backwards",
            dump: format!("pg_dump postgres | gzip | {sealed} > $OUT/dump.sql.gz.enc"),
            restore: format!(
                "{sealed} -d -in $OUT/dump.sql.gz.enc | gunzip | psql -qX -v ON_ERROR_STOP=1 $DB"
            ),
            makes_database: false,
        },
        Contestant {
            name: PSQL,
            description: "`pg_dump` into a file, neither compressed nor encrypted; restored by `psql`",
            dump: "pg_dump postgres > $OUT/dump.sql".to_owned(),
            restore: "psql -qX -v ON_ERROR_STOP=1 $DB < $OUT/dump.sql".to_owned(),
            makes_database: false,
        },
        Contestant {
            name: "pg_dump -Fd -j2",
            description: "compressed by `pg_dump` (gzip), not encrypted; restored by `pg_restore -j2`",
            dump: "pg_dump -Fd -j2 -f $OUT/dump postgres".to_owned(),
            restore: "pg_restore -j2 -d $DB $OUT/dump".to_owned(),
            makes_database: false,
        },
    ]
}

fn one(
    cluster: &Cluster,
    contestant: &Contestant,
    place: &Path,
    out: &Path,
    samples: &mut Vec<Sample>,
) -> Result<()> {
    const DATABASE: &str = "brought_back";
    let server = &cluster.server;
    let script = |text: &str| {
        let mut command = Command::new("bash");
        let programs = server.installation().bin_directory().display().to_string();
        let path = std::env::var("PATH").unwrap_or_default();
        command.args(["-euo", "pipefail", "-c", text]).env("PATH", format!("{programs}:{path}"));
        command.env("PGHOST", server.socket_directory()).env("PGPORT", server.port().to_string());
        command.env("PGUSER", "postgres").env("OUT", out).env("DB", DATABASE).env("PLACE", place);
        command
    };
    for phase in [Phase::Dump, Phase::Restore] {
        let text = match phase {
            Phase::Dump => &contestant.dump,
            Phase::Restore => &contestant.restore,
        };
        if phase == Phase::Restore && !contestant.makes_database {
            run_quietly(&mut script("createdb -T template0 $DB"))?;
        }
        cluster.settle()?;
        let cost = measure(&mut script(text)).with_context(|| format!("{}: {text}", contestant.name))?;
        let stored_bytes = bytes_below(out)?;
        eprintln!(
            "  {:<24} {:<8} {:6.2} s, {:6.2} s cpu, {:4} MiB of memory, {:7.1} MiB",
            contestant.name,
            format!("{phase:?}").to_lowercase(),
            cost.wall_seconds,
            cost.cpu_seconds,
            cost.largest_process_bytes >> 20,
            stored_bytes as f64 / f64::from(1 << 20)
        );
        samples.push(Sample { contestant: contestant.name, phase, cost, stored_bytes });
    }
    let sums = "SELECT concat_ws(' ', (SELECT sum(hashint4(aid)::bigint + abalance) FROM pgbench_accounts), \
                (SELECT sum(hashint4(id)::bigint) FROM events))";
    let (expected, found) = (server.query_value(sums)?, server.query_value_in(DATABASE, sums)?);
    ensure!(expected == found, "{} brought back {found} for {expected}", contestant.name);
    run_quietly(&mut script("dropdb $DB")).map(drop)
}
