//! Ctrl-C during a drill: it leaves nothing behind, and nothing is noted. The program
//! is stopped where it is in the middle, so that the middle is certain.

use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use testkit::{wait_for, wait_until};

use super::program::{Home, Ran, protected};

const LIMIT: Duration = Duration::from_secs(60);

struct Drill {
    program: Child,
    /// The directory of this drill, below that of all.
    directory: PathBuf,
    /// Where its private server has its socket.
    private: PathBuf,
}

impl Drill {
    fn start(home: &Home, words: &[&str]) -> Self {
        let below = home.path("drills");
        std::fs::create_dir(&below).unwrap();
        let directory = format!("drill.directory={}", below.display());
        let program = home.start(["drill", "orders", "--set", &directory].iter().chain(words));
        let private = std::env::temp_dir().join(format!("backstay-{}-0", program.id()));
        let directory = wait_for(LIMIT, "the directory of the drill", || {
            std::fs::read_dir(&below).unwrap().flatten().map(|entry| entry.path()).next()
        });
        Drill { program, directory: directory.unwrap(), private }
    }

    fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.program), signal).unwrap();
    }

    /// Ctrl-C where it stands, once the condition is true, and to its end.
    #[track_caller]
    fn interrupt_when(self, what: &str, is_there: impl Fn(&Path) -> bool) -> Ran {
        let data = self.data();
        wait_until(LIMIT, what, || is_there(&data)).unwrap();
        self.signal(Signal::STOP);
        assert!(is_there(&data), "it was too fast: {what}");
        self.signal(Signal::INT);
        self.signal(Signal::CONT);
        let below = self.directory.parent().unwrap().to_owned();
        let ran = Ran::from(&self.program.wait_with_output().unwrap());
        assert_eq!(std::fs::read_dir(&below).unwrap().count(), 0, "it left a directory: {ran:#?}");
        assert!(!self.private.exists(), "it left {}: {ran:#?}", self.private.display());
        let here = || working_in(&data).is_empty();
        wait_until(LIMIT, "the processes of the private server to be gone", here).unwrap();
        ran
    }
}

/// Processes that work in a directory, also in one that is gone by now.
fn working_in(directory: &Path) -> Vec<PathBuf> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    // The kernel adds a word to the name of a directory that is gone.
    let gone = PathBuf::from(format!("{} (deleted)", directory.display()));
    let works = |process: &PathBuf| {
        std::fs::read_link(process.join("cwd")).is_ok_and(|place| place == directory || place == gone)
    };
    processes.filter(works).collect()
}

/// The one before stands, and the next one works.
#[track_caller]
fn as_if_it_had_not_been(home: &Home, ran: &Ran) {
    assert_eq!(ran.code, 10, "{ran:#?}");
    assert!(ran.err.starts_with("stopping: "), "{ran:#?}");
    assert_eq!(ran.err.lines().filter(|line| line.starts_with("error:")).count(), 1, "{ran:#?}");
    assert_eq!(home.objects("/proofs/").len(), 1, "it was noted");
    let status = home.run(["status", "orders", "--json"]).good().json();
    assert_eq!((&status[0]["health"], &status[0]["last_drill"]["sound"]), (&"ok".into(), &true.into()));
    home.run(["drill", "orders"]).good();
}

fn drilled_once() -> Option<(testkit::Postgres, Home)> {
    let (server, home) = protected("orders")?;
    server.pgbench_init(5).unwrap();
    home.run(["backup"]).good();
    home.run(["drill", "orders"]).good();
    Some((server, home))
}

#[test]
fn a_drill_that_is_stopped_while_it_places_its_copy_leaves_nothing() {
    let Some((_server, home)) = drilled_once() else { return };
    // So slow that it cannot be through before it is stopped.
    let drill = Drill::start(&home, &["--set", "repository.max_download_rate=1MiB"]);
    let placing = |data: &Path| data.join("base").is_dir() && !data.join("global/pg_control").exists();
    let ran = drill.interrupt_when("the copy to be placed", placing);
    as_if_it_had_not_been(&home, &ran);
}

#[test]
fn a_drill_that_is_stopped_while_its_server_runs_leaves_neither_server_nor_copy() {
    let Some((_server, home)) = drilled_once() else { return };
    let drill = Drill::start(&home, &[]);
    let private = drill.private.clone();
    // It writes its number at its very start, before it recovers.
    let running = |data: &Path| {
        private.exists() && data.join("postmaster.pid").exists() && !working_in(data).is_empty()
    };
    let ran = drill.interrupt_when("the private server", running);
    as_if_it_had_not_been(&home, &ran);
}
