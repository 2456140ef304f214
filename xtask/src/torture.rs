//! `cargo xtask torture postgres`, `redis`: proof that nothing is lost, at random from a seed
//! that is printed first. What happens stands in `testkit::torture`.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, Subcommand, ValueEnum};
use testkit::{PostgresVersion, RedisTorture, RedisVersion, Torture as Course};

use crate::backstay::{self, Profile};
use crate::servers;

#[derive(Subcommand)]
pub enum Torture {
    /// Kill, cut, fill and move a PostgreSQL and the archive of its log, and restore what was
    /// committed
    Postgres(PostgresOptions),
    /// Kill, cut, fill and move a Redis or Valkey and the archive of its stream, and restore what it
    /// held
    Redis(RedisOptions),
}

#[derive(Args)]
pub struct Options {
    /// How long
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// Of the choices that are made at random [default: another each time]
    #[arg(long)]
    seed: Option<u64>,
    /// Build the program as a release is
    #[arg(long)]
    optimised: bool,
    /// Torture this binary of Backstay instead of one built now
    #[arg(long, value_name = "FILE", conflicts_with = "optimised")]
    program: Option<PathBuf>,
}

#[derive(Args)]
pub struct PostgresOptions {
    #[command(flatten)]
    options: Options,
    /// The major version of the server: 15 or 17
    #[arg(long, value_name = "MAJOR", default_value = "17", value_parser = crate::demo::version)]
    major: PostgresVersion,
    /// Each commit waits for the archive, and none is ever lost
    #[arg(long)]
    synchronous: bool,
}

#[derive(Args)]
pub struct RedisOptions {
    #[command(flatten)]
    options: Options,
    #[arg(long, default_value = "redis")]
    server: Server,
}

#[derive(Clone, Copy, ValueEnum)]
enum Server {
    /// Redis 7.0
    Redis,
    /// Valkey 8.1
    Valkey,
}

impl Options {
    fn program(&self) -> Result<PathBuf> {
        match &self.program {
            Some(program) => program.canonicalize().context("--program"),
            None => backstay::build(if self.optimised { Profile::Release } else { Profile::Dev }),
        }
    }

    fn seed(&self) -> Result<u64> {
        self.seed.map_or_else(some_seed, Ok)
    }

    fn duration(&self) -> Result<Duration> {
        Duration::try_from_secs_f64(self.minutes * 60.0).context("--minutes")
    }
}

pub fn run(torture: &Torture) -> Result<()> {
    servers::prepare_all()?;
    let seed = match torture {
        Torture::Postgres(PostgresOptions { options, major, synchronous }) => {
            let installation =
                testkit::servers::find(*major).with_context(|| format!("find PostgreSQL {major}"))?;
            let (program, seed, duration) = (options.program()?, options.seed()?, options.duration()?);
            Course { installation, program, seed, duration, synchronous: *synchronous }.run()?;
            seed
        }
        Torture::Redis(RedisOptions { options, server }) => {
            let version = match server {
                Server::Redis => RedisVersion::Redis70,
                Server::Valkey => RedisVersion::Valkey81,
            };
            let installation = testkit::redis::find(version).with_context(|| format!("find {version}"))?;
            let (program, seed, duration) = (options.program()?, options.seed()?, options.duration()?);
            RedisTorture { installation, program, seed, duration }.run()?;
            seed
        }
    };
    println!("nothing was lost; seed {seed}");
    Ok(())
}

/// Short enough to be typed.
fn some_seed() -> Result<u64> {
    let mut bytes = [0; 3];
    File::open("/dev/urandom").and_then(|mut chance| chance.read_exact(&mut bytes)).context("find a seed")?;
    Ok(bytes.iter().fold(0, |seed, byte| seed << 8 | u64::from(*byte)))
}
