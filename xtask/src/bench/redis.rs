//! `cargo xtask bench redis`: a base over the wire beside what everybody writes by hand, an increment,
//! and the stream of a server that writes a hundred megabytes in a second.
//!
//! One server, filled once; the contestants take turns, and each reads all of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use testkit::redis::Client;
use testkit::{Redis, RedisVersion, Workspace};

use super::measure::{Cost, bytes_below, measure};
use crate::backstay::{self, Backstay, Profile};
use crate::process::run_quietly;
use crate::servers;

mod report;
mod stream;

#[derive(Args)]
pub struct Options {
    /// How many keys the server has
    #[arg(long, default_value_t = 10_000_000)]
    keys: u64,
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// How long the stream is written, at a hundred megabytes in a second
    #[arg(long, default_value_t = 20)]
    seconds: u32,
    /// Of Valkey instead of Redis
    #[arg(long)]
    valkey: bool,
    /// Where all of it lies, with room for six times the snapshot
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    directory: PathBuf,
    /// Measure this binary of Backstay instead of one built now
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Full,
    /// Of which one value in a hundred is another one.
    Changed,
    Unchanged,
    Restore,
}

/// One measured piece of work.
pub struct Sample {
    pub contestant: &'static str,
    pub phase: Phase,
    pub cost: Cost,
    /// What lies there for it afterwards.
    pub stored_bytes: u64,
}

pub const OURS: &str = "Backstay";
pub const CLI: &str = "redis-cli --rdb";
pub const PIPE: &str = "redis-cli --rdb, gzip, openssl enc";

#[derive(Default)]
pub struct Findings {
    pub samples: Vec<Sample>,
    pub stream: Option<stream::Measured>,
    pub server: String,
    pub keys: u64,
    pub snapshot_bytes: u64,
    pub rounds: u32,
    pub command: String,
}

struct Bench {
    server: Redis,
    place: Workspace,
    backstay: Backstay,
    keys: u64,
}

pub fn run(options: &Options) -> Result<()> {
    servers::prepare_all()?;
    let version = if options.valkey { RedisVersion::Valkey81 } else { RedisVersion::Redis70 };
    let installation = testkit::redis::find(version).context("find the server")?;
    let program = match &options.program {
        Some(program) => program.canonicalize().context("--program")?,
        None => backstay::build(Profile::Release)?,
    };
    // A snapshot begins when it is asked for, and the stream is held for an archive as long as it takes.
    let settings = [("repl-diskless-sync-delay", "0"), ("repl-backlog-size", "256mb")];
    let server = Redis::start_new(&installation, &settings)?;
    let place = Workspace::below(&options.directory)?;
    let backstay = configure(&program, place.path(), &server)?;
    let bench = Bench { server, place, backstay, keys: options.keys };
    eprintln!("filling the server with {} keys", options.keys);
    bench.fill()?;
    let mut findings = Findings {
        server: format!("{version:?}"),
        keys: options.keys,
        rounds: options.rounds,
        command: format!(
            "cargo xtask bench redis --keys {} --rounds {} --seconds {}",
            options.keys, options.rounds, options.seconds
        ),
        ..Findings::default()
    };
    for round in 0..options.rounds {
        eprintln!("round {} of {}", round + 1, options.rounds);
        bench.round(round, &mut findings)?;
    }
    findings.stream = Some(stream::measure(&bench, options.seconds)?);
    report::write(&findings)
}

fn configure(program: &Path, place: &Path, server: &Redis) -> Result<Backstay> {
    let configuration = place.join("backstay.toml");
    let backstay = Backstay::new(program.to_owned(), configuration.clone());
    let store = format!("file://{}", place.join("store").display());
    run_quietly(&mut backstay.command(&["init", "--store", &store]))?;
    let mut text = fs::read_to_string(&configuration)?;
    text.push_str(&format!(
        "\n[instance.bench]\nengine = \"redis\"\nurl = \"{}\"\n[instance.bench.archive]\nspool = \"{}\"\n",
        server.url(),
        place.join("spool").display()
    ));
    fs::write(&configuration, text)?;
    Ok(backstay)
}

/// Values that compress to a half, as those of applications do: digits of a sum, and words.
const FILL: &str = "for i = ARGV[1], ARGV[2] do \
    redis.call('SET', 'session:' .. i, redis.sha1hex(i .. ARGV[3]) .. ':user:agent:' .. (i % 1000) .. ':/cart/items') end";
/// What one call of it writes.
const AT_ONCE: u64 = 20_000;
/// It takes half of its time for that.
const REHASH_LIMIT: Duration = Duration::from_secs(300);

impl Bench {
    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    fn fill(&self) -> Result<()> {
        let mut client = self.server.client()?;
        let mut from = 1;
        while from <= self.keys {
            let to = self.keys.min(from + AT_ONCE - 1);
            write_keys(&mut client, from, to, "first")?;
            from = to + 1;
        }
        // A table that has just doubled moves its keys while it has time, and with them their order in
        // the snapshot. The last millions of a filling leave it half moved.
        client.run(&["CONFIG", "SET", "hz", "500"])?;
        testkit::wait_until(REHASH_LIMIT, "the server to move its keys", || {
            let tables = client.run(&["DEBUG", "HTSTATS", "0"]);
            let is_over = |text: String| text.contains("table size") && !text.contains("rehashing target");
            tables.is_ok_and(|tables| is_over(tables.text()))
        })?;
        client.run(&["CONFIG", "SET", "hz", "10"])?;
        Ok(())
    }

    /// One value in a hundred becomes another one.
    fn change(&self, round: u32) -> Result<()> {
        let mut client = self.server.client()?;
        // Scattered over the whole table, as a walk with a step that has no factor in common with it.
        let seed = format!("round {round}");
        let script = format!(
            "local at = tonumber(ARGV[1]) for i = 1, tonumber(ARGV[2]) do at = (at + 7368787) % {0} + 1 \
             redis.call('SET', 'session:' .. at, redis.sha1hex(at .. ARGV[3]) .. ':user:agent:' .. (at % 1000) .. ':/cart/items') \
             end return at",
            self.keys
        );
        let mut at = u64::from(round) * 31 + 1;
        let mut left = self.keys / 100;
        while left > 0 {
            let count = left.min(AT_ONCE);
            let words = ["EVAL", &script, "0", &at.to_string(), &count.to_string(), &seed];
            at = client.run(&words)?.text().parse().context("where the walk is")?;
            left -= count;
        }
        Ok(())
    }

    fn round(&self, round: u32, findings: &mut Findings) -> Result<()> {
        let mut contestants = vec![CLI, OURS, PIPE];
        if round % 2 == 1 {
            contestants.reverse();
        }
        for contestant in contestants {
            let (cost, stored_bytes) = match contestant {
                OURS => self.ours(&["backup", "bench", "--full", "--quiet"])?,
                CLI => self.theirs("snapshot.rdb", "")?,
                _ => self.theirs("snapshot.rdb.gz.enc", PIPED)?,
            };
            if contestant == CLI {
                findings.snapshot_bytes = stored_bytes;
            }
            findings.add(Sample { contestant, phase: Phase::Full, cost, stored_bytes });
        }
        let (cost, stored_bytes) = self.ours(&["backup", "bench", "--quiet"])?;
        findings.add(Sample { contestant: OURS, phase: Phase::Unchanged, cost, stored_bytes });
        self.change(round)?;
        let (cost, stored_bytes) = self.ours(&["backup", "bench", "--quiet"])?;
        findings.add(Sample { contestant: OURS, phase: Phase::Changed, cost, stored_bytes });
        let into = self.path("restored");
        let words = ["restore", "bench", "--quiet", "--into", into.to_str().context("a path")?];
        let cost = measure(&mut self.backstay.command(&words))?;
        findings.add(Sample {
            contestant: OURS,
            phase: Phase::Restore,
            cost,
            stored_bytes: bytes_below(&into)?,
        });
        fs::remove_dir_all(&into)?;
        Ok(())
    }

    /// What it adds to the repository.
    fn ours(&self, words: &[&str]) -> Result<(Cost, u64)> {
        self.settle();
        let before = bytes_below(&self.path("store"))?;
        let cost = measure(&mut self.backstay.command(words))?;
        Ok((cost, bytes_below(&self.path("store"))? - before))
    }

    /// Into a file, which is brought to the disk.
    fn theirs(&self, name: &str, piped: &str) -> Result<(Cost, u64)> {
        self.settle();
        let file = self.path(name);
        let cli = self.server.cli();
        let call: Vec<String> = std::iter::once(cli.get_program())
            .chain(cli.get_args())
            .map(|word| word.to_string_lossy().into_owned())
            .collect();
        let call = call.join(" ");
        // To a pipe the program ends with an error when it is done, for it cannot be synchronised.
        let line = match piped.is_empty() {
            true => format!("{call} --rdb '{}'", file.display()),
            false => {
                format!("({call} --rdb /dev/stdout || true) | {piped} >'{0}' && sync '{0}'", file.display())
            }
        };
        let cost = measure(Command::new("sh").args(["-c", &line]))?;
        let bytes = fs::metadata(&file)?.len();
        fs::remove_file(&file)?;
        Ok((cost, bytes))
    }

    /// Nobody pays for what another has left in the caches of the disk.
    fn settle(&self) {
        rustix::fs::sync();
    }
}

const PIPED: &str = "gzip -6 | openssl enc -aes-256-cbc -pbkdf2 -pass pass:bench";

fn write_keys(client: &mut Client, from: u64, to: u64, seed: &str) -> Result<()> {
    client.run(&["EVAL", FILL, "0", &from.to_string(), &to.to_string(), seed])?;
    Ok(())
}

impl Findings {
    fn add(&mut self, sample: Sample) {
        eprintln!(
            "  {:<36} {:<10} {:6.2} s, {:6.2} s cpu, {:4} MiB of memory, {:8.1} MiB there",
            sample.contestant,
            format!("{:?}", sample.phase).to_lowercase(),
            sample.cost.wall_seconds,
            sample.cost.cpu_seconds,
            sample.cost.largest_process_bytes >> 20,
            sample.stored_bytes as f64 / f64::from(1 << 20)
        );
        self.samples.push(sample);
    }
}
