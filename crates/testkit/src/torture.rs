//! Proof of no loss: a PostgreSQL under load, whose log is received, while everything that
//! the two depend on is killed, cut, filled and moved, at random from a seed.
//!
//! Every commit that a client was told of is written down outside ([`markers`]). What is
//! restored, of any instant, must have all of them up to it and none behind it, with
//! balances that agree; `status` must tell of no hole, since nothing here makes one.
//!
//! The same for Redis stands in [`redis`].
//!
//! Invariant: a failure is told with the seed, and after the whole course of events.
//!
//! Refuses nothing: what cannot be done here, such as small disks without root, is said
//! and left out.

mod chance;
mod chronicle;
mod disks;
mod judge;
mod markers;
mod program;
mod redis;
mod scene;
mod verdicts;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

pub use self::redis::RedisTorture;

use self::chance::Chance;
use self::scene::{Fault, Scene};
use crate::servers::Installation;

/// What is tortured, for how long.
#[derive(Debug, Clone)]
pub struct Torture {
    pub installation: Installation,
    /// The binary of Backstay.
    pub program: PathBuf,
    pub seed: u64,
    pub duration: Duration,
    pub synchronous: bool,
}

impl Torture {
    /// As one types it, to have it again.
    fn command(&self) -> String {
        let minutes = self.duration.as_secs_f64() / 60.0;
        let synchronous = if self.synchronous { " --synchronous" } else { "" };
        let major = self.installation.version;
        format!(
            "cargo xtask torture postgres --minutes {minutes} --seed {} --major {major}{synchronous}",
            self.seed
        )
    }

    /// Runs to the end, or to the first thing that must never happen.
    ///
    /// # Errors
    /// What must never happen did, or the torture itself could not go on.
    pub fn run(&self) -> Result<()> {
        eprintln!("seed {}: {}", self.seed, self.command());
        let mut chance = Chance::of(self.seed);
        let mut scene = Scene::set(self).with_context(|| self.blame())?;
        let outcome = self.play(&mut scene, &mut chance);
        if outcome.is_err() {
            scene.tell_the_end();
        }
        outcome.with_context(|| self.blame())
    }

    fn blame(&self) -> String {
        format!("torture with seed {} ({})", self.seed, self.command())
    }

    fn play(&self, scene: &mut Scene, chance: &mut Chance) -> Result<()> {
        let until = Instant::now() + self.duration;
        let mut has_stopped_cleanly = false;
        while Instant::now() < until {
            // Each once, in any order, before one comes again.
            for fault in chance.shuffled(Fault::ALL) {
                scene.suffer(fault, chance)?;
                scene.calm(chance)?;
                if chance.below(4) == 0 {
                    scene.judge_some_instant(chance)?;
                }
                if !has_stopped_cleanly && Instant::now() + self.duration / 2 > until {
                    scene.judge_after_a_clean_stop()?;
                    has_stopped_cleanly = true;
                }
                if Instant::now() > until {
                    break;
                }
            }
        }
        scene.judge_some_instant(chance)?;
        scene.judge_what_was_left_behind(chance)?;
        scene.judge_after_the_end_of_everything(chance)
    }
}
