//! Fifty kill -9 at random moments of a backup. None leaves a backup that is not
//! whole, none loses one that was, and what they leave behind is collected.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use testkit::wait_until;

use super::program::protected;

const KILLS: usize = 50;
const LIMIT: Duration = Duration::from_secs(120);

/// Small random numbers from a seed that a failing run prints.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

#[test]
fn fifty_kills_at_random_moments_leave_whole_backups_only() {
    let Some((server, home)) = protected("orders") else { return };
    let seed = RandomState::new().hash_one("fifty kills");
    eprintln!("fifty kills with seed {seed}");
    let mut dice = Dice(seed);
    server.pgbench_init(5).unwrap();
    let begun = Instant::now();
    home.run(["backup", "orders", "--full"]).good();
    // A little longer than a whole backup, so that some kills come at and after the commit.
    let longest = begun.elapsed().as_millis() as u64 * 5 / 4;
    let mut known = home.backups();
    let mut interrupted = 0;
    for kill in 0..KILLS {
        server.sql("UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid % 500 = 7").unwrap();
        let words: &[&str] =
            if kill % 3 == 0 { &["backup", "orders", "--full"] } else { &["backup", "orders"] };
        let mut child = home.start(words);
        let moment = Duration::from_millis(dice.roll(longest.max(1)));
        let started = Instant::now();
        let mut ended_by_itself = || child.try_wait().is_ok_and(|status| status.is_some());
        wait_until(LIMIT, "the moment of the kill", || started.elapsed() >= moment || ended_by_itself())
            .unwrap();
        child.kill().unwrap();
        let status = child.wait().unwrap();
        interrupted += usize::from(!status.success());
        let listed = home.backups();
        for id in &known {
            assert!(listed.contains(id), "kill {kill} (seed {seed}) lost {id}");
        }
        for id in listed.iter().filter(|id| !known.contains(id)) {
            home.run(["verify", id, "--level", "structure"]).good();
        }
        known = listed;
    }
    assert!(interrupted >= KILLS / 4, "only {interrupted} kills hit a running backup");
    assert!(home.objects("/.unfinished/").len() + home.objects("/packs/").len() > 0);

    home.run(["backup", "orders"]).good();
    home.run(["collect", "--max-share", "100"]).good();
    home.run(["verify"]).good();
    home.run(["drill", "orders"]).good();
    // Two runs later nothing is left of the fifty but what a backup needs.
    home.run(["collect", "--max-share", "100"]).good();
    assert!(home.objects("/intents/").is_empty(), "{:?}", home.objects("/intents/"));
}
