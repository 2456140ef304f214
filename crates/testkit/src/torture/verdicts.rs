//! When it is judged, and by what.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::chance::Chance;
use super::judge::{exactly_up_to, missing, restored};
use super::markers::{Behind, Marker};
use super::program::{INSTANCE, RPO};
use super::scene::{LIMIT, Scene};

/// What has come is durable so soon.
const FLUSH: Duration = Duration::from_millis(250);
/// What a loaded machine may take for a flush and an object, beyond what was promised.
const SLACK: Duration = Duration::from_millis(1500);

/// One row and an instant just behind it, and nothing else of the writer between.
type Target = (Marker, Behind);

impl Scene {
    /// Rows of the way onto a timeline behind which an instant can be named: the next one was
    /// told on the same timeline, so what was asked between lies on it.
    fn targets(&self, told: &[Marker], timeline: u32) -> Vec<Target> {
        let mut targets = Vec::new();
        for pair in told.windows(2) {
            let [marker, next] = pair else { continue };
            let (Some(behind), Some(next_behind)) = (&marker.behind, &next.behind) else { continue };
            let is_of = |marker: &Marker| self.lives.is_of(marker.number, timeline);
            if behind.timeline == next_behind.timeline
                && behind.timeline <= timeline
                && is_of(marker)
                && is_of(next)
            {
                targets.push((marker.clone(), behind.clone()));
            }
        }
        targets
    }

    fn wait_for_store(&mut self, behind: &Behind) -> Result<()> {
        let what = format!("the store to have {}@{:X}", behind.timeline, behind.lsn);
        self.wait(LIMIT, what, |scene| {
            let stored = scene.program.stored()?;
            Ok(stored.range(behind.timeline..).any(|(_, end)| *end >= behind.lsn))
        })
    }

    /// Restores to the instant behind some earlier row.
    ///
    /// # Errors
    /// When it does not bring exactly what was committed by then.
    pub fn judge_some_instant(&mut self, chance: &mut Chance) -> Result<()> {
        let told = self.markers.told();
        let targets = self.targets(&told, self.timeline);
        let Some((marker, behind)) = chance.one_of(&targets).cloned() else { return Ok(()) };
        self.wait_for_store(&behind)?;
        let to = match chance.below(3) {
            0 => behind.time.clone(),
            1 => format!("xid:{}", marker.xid),
            _ => format!("lsn:{:X}/{:X}", behind.lsn >> 32, behind.lsn & 0xFFFF_FFFF),
        };
        let begun = Instant::now();
        let found = restored(&self.program, self.server.installation(), self.place.path(), &["--to", &to])?;
        exactly_up_to(&found, &told, &self.lives, marker.number, self.timeline)
            .with_context(|| format!("restored to {to}, behind row {}", marker.number))?;
        self.say(format_args!(
            "  restored to {to} in {:.1} s: the {} rows up to {}, balances agree",
            begun.elapsed().as_secs_f64(),
            found.len(),
            marker.number
        ));
        self.look_for_holes()
    }

    /// # Errors
    /// When there is one: nothing here makes any.
    fn look_for_holes(&self) -> Result<()> {
        let status = self.program.status()?;
        let holes = status["holes"].as_array().with_context(|| format!("holes in {status}"))?;
        ensure!(holes.is_empty(), "status tells of a hole that nobody made: {status:#}");
        Ok(())
    }

    /// The source stops in order, its log is received to the end: nothing is lost.
    ///
    /// # Errors
    /// When anything is.
    pub fn judge_after_a_clean_stop(&mut self) -> Result<()> {
        self.say("the server stops in order, for good");
        self.wait_for_receiver()?;
        self.stop_server_in_time()?;
        self.rest_load();
        self.program.stop_receiver()?;
        let told = self.markers.told();
        let found = restored(&self.program, self.server.installation(), self.place.path(), &[])?;
        let last = told.last().map_or(0, |marker| marker.number);
        let lost = missing(&found, &told, &self.lives, last, self.timeline);
        ensure!(lost.is_empty(), "after a clean stop acknowledged rows are missing: {lost:?}");
        self.say(format_args!("  restored to latest: all {} rows, balances agree", found.len()));
        self.look_for_holes()?;
        self.program.start_receiver()?;
        self.start_server()
    }

    /// What was acknowledged and did not come onto the new timeline can be restored on the old
    /// one, when it was received.
    ///
    /// # Errors
    /// When it is not.
    pub fn judge_what_was_left_behind(&mut self, chance: &mut Chance) -> Result<()> {
        let told = self.markers.told();
        let left: Vec<(u32, u64)> = self.lives.left_behind().collect();
        let known = |number| told.iter().find(|marker| marker.number == number);
        let targets: Vec<Target> = left
            .iter()
            .filter_map(|(_, number)| known(*number).and_then(|one| Some((one.clone(), one.behind.clone()?))))
            .collect();
        let stored = self.program.stored()?;
        let has_come = |at: &Behind| stored.get(&at.timeline).is_some_and(|end| *end >= at.lsn);
        // Where no commit waits for the receiver, some may never have reached it.
        let targets: Vec<Target> =
            targets.into_iter().filter(|(_, behind)| self.synchronous || has_come(behind)).collect();
        let Some((marker, behind)) = chance.one_of(&targets).cloned() else { return Ok(()) };
        let (to, timeline) = (format!("xid:{}", marker.xid), behind.timeline.to_string());
        let words = ["--to", &to, "--target-timeline", &timeline];
        let found = restored(&self.program, self.server.installation(), self.place.path(), &words)?;
        exactly_up_to(&found, &told, &self.lives, marker.number, behind.timeline)
            .with_context(|| format!("restored row {} of timeline {timeline}", marker.number))?;
        self.say(format_args!(
            "  row {}, left behind on timeline {timeline}, can be restored",
            marker.number
        ));
        Ok(())
    }

    /// Server and receiver are killed at once, and the server's directory is gone; the
    /// receiver's disk too, unless commits waited for it.
    ///
    /// # Errors
    /// When more is lost than was promised.
    pub fn judge_after_the_end_of_everything(&mut self, chance: &mut Chance) -> Result<()> {
        let keeps_spool = self.synchronous || chance.is_heads();
        let is_server_first = chance.is_heads();
        self.say(format_args!(
            "everything is killed; the server's directory is gone{}",
            if keeps_spool { "" } else { ", and the spool" }
        ));
        if is_server_first {
            self.server.kill9()?;
        }
        self.program.kill_receiver()?;
        let ended = Instant::now();
        self.server.kill9()?;
        self.rest_load();
        fs::remove_dir_all(self.server.data_directory())?;
        let spool = self.program.seen(&self.program.spool());
        if keeps_spool {
            self.send_the_spool()?;
        } else {
            for entry in fs::read_dir(&spool)?.flatten() {
                if entry.file_type()?.is_dir() {
                    fs::remove_dir_all(entry.path())?;
                }
            }
        }
        let told = self.markers.told();
        let found = restored(&self.program, self.server.installation(), self.place.path(), &[])?;
        let last = told.last().map_or(0, |marker| marker.number);
        let lost = missing(&found, &told, &self.lives, last, self.timeline);
        let first = told.iter().find(|marker| lost.contains(&marker.number));
        let age = first.map_or(Duration::ZERO, |first| ended.saturating_duration_since(first.told_at));
        let promised = match (self.synchronous, keeps_spool) {
            (true, _) => Duration::ZERO,
            (false, true) => FLUSH + SLACK,
            (false, false) => RPO + FLUSH + SLACK,
        };
        self.say(format_args!(
            "  restored to latest: {} rows, balances agree; {} acknowledged rows of the last {:.2} s are lost",
            found.len(),
            lost.len(),
            age.as_secs_f64()
        ));
        ensure!(
            lost.is_empty() || age < promised,
            "acknowledged rows of the last {age:?} are lost, where {promised:?} were promised: {lost:?}"
        );
        self.look_for_holes()?;
        self.program.run(&["verify", INSTANCE])?.good().context("verify everything")?;
        Ok(())
    }

    /// An archive sends what it has, whether there is a server or not.
    fn send_the_spool(&mut self) -> Result<()> {
        let before = self.program.said_bytes();
        self.program.start_receiver()?;
        self.wait(LIMIT, "the receiver to wait for the server", |scene| {
            Ok(scene.program.said_since(before).contains("waiting: "))
        })?;
        self.program.stop_receiver()
    }
}
