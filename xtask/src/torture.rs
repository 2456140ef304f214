//! `cargo xtask torture postgres`: proof that no commit is lost, at random from a seed
//! that is printed first. What happens stands in `testkit::torture`.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use testkit::{PostgresVersion, Torture as Course};

use crate::backstay::{self, Profile};
use crate::servers;

#[derive(Subcommand)]
pub enum Torture {
    /// Kill, cut, fill and move a PostgreSQL and the archive of its log, and restore what was
    /// committed
    Postgres(Options),
}

#[derive(Args)]
pub struct Options {
    /// How long
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// Of the choices that are made at random [default: another each time]
    #[arg(long)]
    seed: Option<u64>,
    /// The major version of the server: 15 or 17
    #[arg(long, value_name = "MAJOR", default_value = "17", value_parser = crate::demo::version)]
    major: PostgresVersion,
    /// Each commit waits for the archive, and none is ever lost
    #[arg(long)]
    synchronous: bool,
    /// Build the program as a release is
    #[arg(long)]
    optimised: bool,
    /// Torture this binary of Backstay instead of one built now
    #[arg(long, value_name = "FILE", conflicts_with = "optimised")]
    program: Option<PathBuf>,
}

pub fn run(torture: &Torture) -> Result<()> {
    let Torture::Postgres(options) = torture;
    servers::prepare_all()?;
    let installation = testkit::servers::find(options.major)
        .with_context(|| format!("find PostgreSQL {}", options.major))?;
    let program = match &options.program {
        Some(program) => program.canonicalize().context("--program")?,
        None => backstay::build(if options.optimised { Profile::Release } else { Profile::Dev })?,
    };
    let seed = options.seed.map_or_else(some_seed, Ok)?;
    let duration = Duration::try_from_secs_f64(options.minutes * 60.0).context("--minutes")?;
    Course { installation, program, seed, duration, synchronous: options.synchronous }.run()?;
    println!("nothing was lost; seed {seed}");
    Ok(())
}

/// Short enough to be typed.
fn some_seed() -> Result<u64> {
    let mut bytes = [0; 3];
    File::open("/dev/urandom").and_then(|mut chance| chance.read_exact(&mut bytes)).context("find a seed")?;
    Ok(bytes.iter().fold(0, |seed, byte| seed << 8 | u64::from(*byte)))
}
