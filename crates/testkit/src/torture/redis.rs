//! Proof of no loss for Redis and Valkey: a server to which everything is written that it knows,
//! whose stream is archived, while both and the way between them are killed, cut, filled and moved,
//! at random from a seed.
//!
//! What the server held at offsets of its stream is written down outside ([`witness`]). A restore
//! to that offset, or to an instant at which the archive had so much and nothing more, must bring
//! exactly that; or be refused, for `status` shows that it lies between what can be reached. Unlike
//! the log of PostgreSQL, a stream has holes: a server that is killed begins another one.
//!
//! Invariant: a failure is told with the seed, and after the whole course of events.
//!
//! Refuses nothing: what cannot be done here, such as small disks without root, is said
//! and left out.

mod commands;
mod course;
mod fault;
mod judge;
mod scene;
mod witness;
mod writers;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use self::fault::Fault;
use self::scene::Scene;
use super::chance::Chance;
use crate::redis::{RedisInstallation, RedisVersion};

/// What is tortured, for how long.
#[derive(Debug, Clone)]
pub struct RedisTorture {
    pub installation: RedisInstallation,
    /// The binary of Backstay.
    pub program: PathBuf,
    pub seed: u64,
    pub duration: Duration,
}

impl RedisTorture {
    /// As one types it, to have it again.
    fn command(&self) -> String {
        let minutes = self.duration.as_secs_f64() / 60.0;
        let server = match self.installation.version() {
            RedisVersion::Redis70 => "redis",
            RedisVersion::Valkey81 => "valkey",
        };
        format!("cargo xtask torture redis --minutes {minutes:.2} --seed {} --server {server}", self.seed)
    }

    /// Runs to the end, or to the first thing that must never happen.
    ///
    /// # Errors
    /// What must never happen did, or the torture itself could not go on.
    pub fn run(&self) -> Result<()> {
        eprintln!("seed {}: {}", self.seed, self.command());
        let mut chance = Chance::of(self.seed);
        let mut scene = Scene::set(self, &mut chance).with_context(|| self.blame())?;
        let outcome = self.play(&mut scene, &mut chance);
        if outcome.is_err() {
            scene.tell_the_end();
        }
        outcome.with_context(|| self.blame())?;
        let (witnesses, writers) = (scene.witnesses.len(), &scene.writers);
        scene.say(format_args!(
            "{} commands, {} of them refused; {witnesses} witnesses\n{}",
            writers.count(),
            writers.refused(),
            scene.verdicts
        ));
        Ok(())
    }

    fn blame(&self) -> String {
        format!("torture with seed {} ({})", self.seed, self.command())
    }

    fn play(&self, scene: &mut Scene, chance: &mut Chance) -> Result<()> {
        let until = Instant::now() + self.duration;
        while Instant::now() < until {
            // Each once, in any order, before one comes again.
            for fault in chance.shuffled(Fault::ALL) {
                scene.suffer(fault, chance)?;
                scene.calm(chance)?;
                if chance.below(4) == 0 {
                    scene.judge_some(chance)?;
                }
                if Instant::now() > until {
                    break;
                }
            }
        }
        scene.judge_the_end(chance)
    }
}
