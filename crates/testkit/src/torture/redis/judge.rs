//! Restores to what was written down, and what comes of them.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;

use anyhow::{Context, Result, bail, ensure};
use jiff::Timestamp;
use serde_json::Value;

use super::super::chance::Chance;
use super::super::program::{INSTANCE, Ran};
use super::fault::Fault;
use super::scene::Scene;
use super::witness::{Contents, Pause, Said, Witness, differences};
use crate::redis::Redis;

/// Exit codes of the program.
const INVALID: i32 = 2;
const UNRECOVERABLE: i32 = 9;
const UNSOUND: i32 = 20;
/// Two streams have the same offset.
const AMBIGUOUS: &str = "lies in more than one stream";

/// What happened, in numbers.
#[derive(Debug, Default)]
pub struct Verdicts {
    suffered: BTreeMap<Fault, usize>,
    restarts_with_the_stream: usize,
    by_offset: usize,
    by_time: usize,
    latest: usize,
    started: usize,
    ambiguous: usize,
    in_holes: usize,
}

impl Verdicts {
    pub fn suffered(&mut self, fault: Fault) {
        *self.suffered.entry(fault).or_default() += 1;
    }

    pub fn restarted(&mut self, knows_its_stream: bool) {
        self.restarts_with_the_stream += usize::from(knows_its_stream);
    }
}

impl fmt::Display for Verdicts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (fault, times) in &self.suffered {
            writeln!(f, "  {times} x {fault}")?;
        }
        let equal = self.by_offset + self.by_time + self.latest;
        write!(
            f,
            "  {} restarts after which the server knew its stream\n  \
             {equal} restores with equal contents: {} to offsets, {} to times, {} to latest; {} of them \
             started\n  {} offsets lay in more than one stream\n  {} restores were refused, into holes \
             that status shows",
            self.restarts_with_the_stream,
            self.by_offset,
            self.by_time,
            self.latest,
            self.started,
            self.ambiguous,
            self.in_holes
        )
    }
}

impl Scene {
    /// # Errors
    /// When what comes back is not what was there, or nothing comes back and no hole says why.
    pub fn judge_some(&mut self, chance: &mut Chance) -> Result<()> {
        let Some(witness) = chance.one_of(&self.witnesses).cloned() else { return Ok(()) };
        self.judge(&witness, chance)
    }

    /// # Errors
    /// As of [`Scene::judge_some`].
    pub fn judge(&mut self, witness: &Witness, chance: &mut Chance) -> Result<()> {
        let outcome = match witness.instant {
            Some(instant) if chance.is_heads() => self.judge_instant(witness, instant, chance),
            _ => self.judge_offset(witness, chance),
        };
        outcome.with_context(|| {
            let Witness { number, replication_id, offset, instant, .. } = witness;
            format!("witness {number}: {replication_id}@{offset} at {instant:?}")
        })
    }

    fn judge_instant(&mut self, witness: &Witness, instant: Timestamp, chance: &mut Chance) -> Result<()> {
        // The store has to have something behind it, which the archive sends within its interval.
        let mut ran = self.restore(&["--to", &instant.to_string()], chance)?;
        if self.is_to_come(&ran)? {
            ran = self.restore(&["--to", &instant.to_string()], chance)?;
        }
        self.weigh(witness, &ran, &format!("time {instant}"))?;
        self.verdicts.by_time += usize::from(ran.code == Some(0));
        Ok(())
    }

    /// Whether a restore was refused for want of log that the archive has, and the store had not yet:
    /// it has now.
    fn is_to_come(&mut self, ran: &Ran) -> Result<bool> {
        let lacks_log = ["the log ends", "no log is archived"].iter().any(|words| ran.err.contains(words));
        if ran.code != Some(UNRECOVERABLE) || !lacks_log || !self.program.has_receiver() {
            return Ok(false);
        }
        self.wait_for_archive()?;
        self.let_pass(super::super::program::RPO * 2)?;
        Ok(true)
    }

    fn judge_offset(&mut self, witness: &Witness, chance: &mut Chance) -> Result<()> {
        let to = format!("offset:{}", witness.offset);
        let mut ran = match self.is_of_the_newest_stream(witness)? {
            true => self.restore(&["--to", &to], chance)?,
            // The number alone may be that of another one.
            false => self.restore_of_its_stream(witness, &to, chance)?,
        };
        if self.is_to_come(&ran)? {
            ran = self.restore_of_its_stream(witness, &to, chance)?;
        }
        if ran.code == Some(INVALID) && ran.err.contains(AMBIGUOUS) {
            self.verdicts.ambiguous += 1;
            ran = self.restore_of_its_stream(witness, &to, chance)?;
        }
        self.weigh(witness, &ran, &to)?;
        self.verdicts.by_offset += usize::from(ran.code == Some(0));
        Ok(())
    }

    fn restore_of_its_stream(&mut self, witness: &Witness, to: &str, chance: &mut Chance) -> Result<Ran> {
        match self.base_of(witness)? {
            Some(base) => self.restore(&["--to", to, "--backup", &base], chance),
            None => Ok(Ran {
                code: Some(UNRECOVERABLE),
                out: String::new(),
                err: "no base of this stream".to_owned(),
            }),
        }
    }

    /// Whether what the server has now goes on with the stream of a witness, behind it.
    fn is_of_the_newest_stream(&self, witness: &Witness) -> Result<bool> {
        let mut id = Said::of(&self.server)?.replication_id;
        let mut end = u64::MAX;
        while id != witness.replication_id {
            let Some((before, at)) = self.before.get(&id) else { return Ok(false) };
            (id, end) = (before.clone(), end.min(*at));
        }
        Ok(witness.offset <= end)
    }

    /// The newest base of the stream of a witness, or of those that it goes on with, before it.
    fn base_of(&self, witness: &Witness) -> Result<Option<String>> {
        let listed = self.program.run(&["list", INSTANCE, "--json"])?.good()?;
        let listed: Value = serde_json::from_str(&listed.out).context("read the list of backups")?;
        let newest_first = listed.as_array().context("a list of backups")?;
        let (mut id, mut end) = (&witness.replication_id, witness.offset);
        loop {
            let found = newest_first.iter().find(|backup| {
                let position = backup["stop_position"].as_str().and_then(|text| text.split_once('@'));
                position.is_some_and(|(of, offset)| {
                    id.starts_with(of) && offset.parse().is_ok_and(|offset: u64| offset <= end)
                })
            });
            if let Some(found) = found {
                return Ok(found["id"].as_str().map(str::to_owned));
            }
            let Some((before, at)) = self.before.get(id) else { return Ok(None) };
            (id, end) = (before, end.min(*at));
        }
    }

    fn restore(&mut self, to: &[&str], chance: &mut Chance) -> Result<Ran> {
        let into = self.place.path().join("restored").display().to_string();
        let mut words = vec!["restore", INSTANCE, "--into", &into];
        words.extend(to);
        // Its server is started on it, proved and stopped: that changes nothing.
        if chance.below(5) == 0 {
            self.verdicts.started += 1;
            words.push("--start");
        }
        self.program.run(&words)
    }

    /// What was restored is what was there; what was refused is in a hole.
    fn weigh(&mut self, witness: &Witness, ran: &Ran, to: &str) -> Result<()> {
        let into = self.place.path().join("restored");
        match ran.code {
            Some(0) => {
                let settings = [("appendonly", "yes"), ("replicaof", "127.0.0.1 1")];
                let copy = Redis::start_on(self.server.installation(), &into, &settings)
                    .with_context(|| format!("start what a restore to {to} brought: {ran:#?}"))?;
                let found = Contents::of(&copy)?;
                if found != witness.contents {
                    // Where the source is still what it was.
                    let is_there = Contents::of(&self.server)? == witness.contents;
                    let keys = if is_there { differences(&self.server, &copy)? } else { Vec::new() };
                    bail!(
                        "a restore to {to} brought something else: {found:#?}\nwanted {:#?}\n{ran:#?}\n{}",
                        witness.contents,
                        keys.join("\n")
                    );
                }
                drop(copy);
                fs::remove_dir_all(&into)?;
                self.say(format_args!("  witness {} is there, restored to {to}", witness.number));
                Ok(())
            }
            Some(UNRECOVERABLE) => {
                ensure!(!into.exists(), "a restore to {to} was refused, and left something: {ran:#?}");
                self.must_be_in_a_hole(witness, ran, to)?;
                self.verdicts.in_holes += 1;
                self.say(format_args!("  witness {} lies in a hole, refused to {to}", witness.number));
                Ok(())
            }
            _ => bail!("a restore to {to} failed: {ran:#?}"),
        }
    }

    /// No window that the status shows has it.
    fn must_be_in_a_hole(&self, witness: &Witness, ran: &Ran, to: &str) -> Result<()> {
        // What the archive never said that it has, it may not have: then no hole need be told.
        ensure!(!witness.is_received || self.is_between_windows_at_all()?, "{to}: {ran:#?}");
        let status = self.program.status()?;
        for window in status["recovery_windows"].as_array().context("windows in the status")? {
            let instant = |name: &str| -> Result<Timestamp> {
                window[name].as_str().context("an instant")?.parse().context("read an instant")
            };
            let offset = |name: &str| {
                let (of, offset) = window[name].as_str()?.split_once('@')?;
                offset.parse::<u64>().ok().filter(|_| witness.replication_id.starts_with(of))
            };
            let (from, until) = (instant("from")?, instant("to")?);
            let has_instant = witness.instant.is_some_and(|instant| from <= instant && instant <= until);
            let ends = offset("from_position").zip(offset("to_position"));
            let has_offset = ends.is_some_and(|(from, to)| from <= witness.offset && witness.offset <= to);
            ensure!(
                !has_instant && !has_offset,
                "a restore to {to} was refused, and status shows a window for it: {window:#}\n{ran:#?}"
            );
        }
        Ok(())
    }

    fn is_between_windows_at_all(&self) -> Result<bool> {
        let status = self.program.status()?;
        let count = |name: &str| status[name].as_array().map_or(0, Vec::len);
        Ok(count("recovery_windows") > 1 || count("holes") > 0)
    }

    /// The archive stops in order: nothing is lost, and everything is sound.
    ///
    /// # Errors
    /// As of [`Scene::judge_some`], and when the repository is not sound.
    pub fn judge_the_end(&mut self, chance: &mut Chance) -> Result<()> {
        let some = if self.is_patient { 60 } else { 12 };
        self.wait_for_archive()?;
        self.writers.rest();
        self.witness()?;
        // Nobody writes any more, but what expires would go.
        let _pause = Pause::for_ever(&self.server)?;
        self.note(true)?;
        self.wait_for_archive()?;
        self.program.stop_receiver()?;
        self.say("the archive is stopped");
        let last = self.witnesses.last().cloned().context("a witness")?;
        let ran = self.restore(&["--to", "latest"], chance)?;
        ensure!(ran.code == Some(0), "the latest cannot be restored: {ran:#?}");
        self.weigh(&last, &ran, "latest")?;
        self.verdicts.latest += 1;
        let all = self.witnesses.clone();
        for witness in chance.shuffled(&(0..all.len()).collect::<Vec<_>>()).into_iter().take(some) {
            if let Some(witness) = all.get(witness) {
                self.judge(witness, chance)?;
            }
        }
        self.program.run(&["drill", INSTANCE])?.good().context("a drill")?;
        self.must_be_sound()
    }

    /// But for the holes, which are told here as well.
    fn must_be_sound(&self) -> Result<()> {
        let ran = self.program.run(&["verify", INSTANCE, "--level", "digest"])?;
        let is_about_holes = |line: &str| line.contains("is missing: it was not received");
        let findings = || ran.out.lines().map(str::trim_start);
        let is_worse =
            |line: &str| line.starts_with("error") || line.starts_with("warning") && !is_about_holes(line);
        let is_right = match ran.code {
            Some(0) => !findings().any(is_about_holes),
            Some(UNSOUND) => findings().any(is_about_holes) && !findings().any(is_worse),
            _ => false,
        };
        ensure!(is_right, "a verification says something else than that there are holes: {ran:#?}");
        Ok(())
    }
}
