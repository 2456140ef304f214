//! What happens to a server or to the program while a backup runs. The program is
//! stopped in the middle, so that the middle is certain and not a matter of luck.

use std::process::Child;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use testkit::postgres::{PASSWORD, SUPERUSER};
use testkit::{Postgres, wait_until};

use super::program::{Home, Ran, protected};

const LIMIT: Duration = Duration::from_secs(60);

/// A backup that stands still while it copies.
pub struct Paused(Child);

impl Paused {
    pub fn start(home: &Home, server: &Postgres) -> Self {
        let child = home.start(["backup", "orders", "--full"]);
        // The session that holds the log waits, and has nothing to do but to be there.
        let copying = "SELECT count(*) FROM pg_stat_activity a JOIN pg_replication_slots s \
                       ON s.active_pid = a.pid WHERE a.state = 'idle' \
                       AND clock_timestamp() - a.state_change > interval '100 ms'";
        let stopped = Paused(child);
        wait_until(LIMIT, "the backup to copy", || server.query_value(copying).is_ok_and(|n| n != "0"))
            .unwrap();
        stopped.signal(Signal::STOP);
        stopped
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    pub fn finish(self) -> Ran {
        self.signal(Signal::CONT);
        Ran::from(&self.0.wait_with_output().unwrap())
    }
}

/// Large enough that copying takes a while, even on a fast disk.
pub fn filled() -> Option<(Postgres, Home)> {
    let (server, home) = protected("orders")?;
    server.pgbench_init(15).unwrap();
    Some((server, home))
}

#[track_caller]
pub fn nothing_half_done(home: &Home) {
    assert!(home.backups().is_empty());
    assert!(home.run(["verify"]).good().out.contains("sound"));
    home.run(["backup", "orders"]).good();
    assert_eq!(home.backups().len(), 1);
}

#[test]
fn a_server_that_restarts_during_the_backup_ends_it() {
    let Some((mut server, home)) = filled() else { return };
    let backup = Paused::start(&home, &server);
    server.restart().unwrap();
    // Told by whichever of its sessions noticed first.
    let ran = backup.finish().refused(6, &[]);
    assert!(
        ["`backstay backup`", "run the same again"].iter().any(|hint| ran.err.contains(hint)),
        "{ran:#?}"
    );
    nothing_half_done(&home);
}

#[test]
fn a_standby_that_is_promoted_during_the_backup_ends_it() {
    let Some((primary, _)) = filled() else { return };
    let standby = primary.standby().unwrap();
    standby.wait_for_replay_of(&primary).unwrap();
    let home = Home::new();
    home.init();
    home.add("orders", &standby, SUPERUSER, PASSWORD, true);
    let backup = Paused::start(&home, &standby);
    standby.promote().unwrap();
    backup.finish().refused(4, &["promoted"]);
    nothing_half_done(&home);
}

#[test]
fn of_two_backups_of_one_instance_the_later_one_gives_way() {
    let Some((server, home)) = filled() else { return };
    let first = Paused::start(&home, &server);
    home.run(["backup", "orders"]).refused(4, &["orders"]);
    let first = first.finish();
    assert_eq!(first.code, 0, "{first:#?}");
    assert_eq!(home.backups().len(), 1);
    home.run(["verify"]).good();
}

#[test]
fn ctrl_c_stops_cleanly_and_leaves_no_backup() {
    stops_cleanly_on(Signal::INT);
}

#[test]
fn a_terminal_that_closes_stops_a_backup_as_cleanly() {
    stops_cleanly_on(Signal::HUP);
}

#[track_caller]
fn stops_cleanly_on(signal: Signal) {
    let Some((server, home)) = filled() else { return };
    let backup = Paused::start(&home, &server);
    backup.signal(signal);
    let ran = backup.finish();
    assert_eq!(ran.code, 10, "{ran:#?}");
    assert!(ran.err.starts_with("stopping: "), "{ran:#?}");
    assert_eq!(ran.err.lines().filter(|line| line.starts_with("error:")).count(), 1, "{ran:#?}");
    // No collector has to find out that nobody is behind it.
    assert_eq!(home.objects("/intents/"), Vec::<std::path::PathBuf>::new());
    // The server was told: nobody holds its log or its backup mode.
    let slots = "SELECT count(*) FROM pg_replication_slots";
    wait_until(LIMIT, "the slot to go", || server.query_value(slots).is_ok_and(|n| n == "0")).unwrap();
    nothing_half_done(&home);
}

#[test]
fn a_killed_backup_is_invisible_and_the_next_one_heals() {
    let Some((server, home)) = filled() else { return };
    let backup = Paused::start(&home, &server);
    backup.signal(Signal::KILL);
    let ran = backup.finish_killed();
    assert_eq!(ran.code, -1, "{ran:#?}");
    nothing_half_done(&home);
}

impl Paused {
    fn finish_killed(self) -> Ran {
        Ran::from(&self.0.wait_with_output().unwrap())
    }
}
