//! The program in the middle of calls that last, so that the middle is certain.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use testkit::{tampered, traced_process, wait_until};

use super::program::Home;

const LIMIT: Duration = Duration::from_secs(60);
/// Which call of a thread is the first that lasts: late enough that the work has begun.
const CALL: usize = 40;

/// Runs under a tracer that lets calls of one kind last ten minutes, from a certain one on.
pub struct Lasting {
    tracer: Child,
    process: Pid,
    log: PathBuf,
    errors: BufReader<ChildStderr>,
}

impl Lasting {
    /// Returns when a thread stands in such a call.
    pub fn start(home: &Home, call: &str, words: &[&str]) -> Self {
        Self::from_call(CALL, home, call, words)
    }

    /// Where many threads may share the calls, from an earlier call of a thread on.
    pub fn from_call(first: usize, home: &Home, call: &str, words: &[&str]) -> Self {
        let rule = format!("{call}:delay_enter=600000000:when={first}+");
        let lasting = Self::begin(home, &format!("{call},exit_group"), &rule, None, words);
        wait_until(LIMIT, "a call that lasts", || stands(&lasting.log, call, first)).unwrap();
        lasting
    }

    /// Returns when a thread stands in the first of these calls that is about this path, as
    /// the call names it, and has not done anything yet.
    pub fn at(home: &Home, calls: &str, about: &Path, words: &[&str]) -> Self {
        let rule = format!("{calls}:delay_enter=600000000");
        let lasting = Self::begin(home, calls, &rule, Some(about), words);
        let name = about.to_string_lossy();
        wait_until(LIMIT, "the call that lasts", || read(&lasting.log).contains(&*name)).unwrap();
        lasting
    }

    fn begin(home: &Home, traced: &str, rule: &str, about: Option<&Path>, words: &[&str]) -> Self {
        let log = home.path("calls");
        let mut command = tampered(&home.command(words), traced, &[rule], about, &log);
        let mut tracer = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let errors = BufReader::new(tracer.stderr.take().unwrap());
        let process = Pid::from_raw(traced_process(tracer.id()).unwrap() as i32).unwrap();
        Lasting { tracer, process, log, errors }
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.process, signal).unwrap();
    }

    /// What it has said when this word is in it.
    pub fn says(&mut self, word: &str) -> String {
        let mut said = String::new();
        while !said.contains(word) {
            assert_ne!(self.errors.read_line(&mut said).unwrap(), 0, "it ended: {said}");
        }
        said
    }

    /// Waits until the program leaves with this code, whatever its other threads are at.
    pub fn leaves(&self, limit: Duration, code: i32) {
        let word = format!("exit_group({code}");
        let left = wait_until(limit, format!("{word})"), || read(&self.log).contains(&word));
        assert!(left.is_ok(), "{left:?}: {:?}", read(&self.log).lines().last());
    }
}

impl Drop for Lasting {
    /// The tracer goes first: it would hold on to a thread until its call is over.
    fn drop(&mut self) {
        let _ = self.tracer.kill();
        let _ = self.tracer.wait();
        let _ = kill_process(self.process, Signal::KILL);
        let gone = wait_until(LIMIT, "the program to be gone", || test_kill_process(self.process).is_err());
        assert!(gone.is_ok() || std::thread::panicking(), "{gone:?}");
    }
}

fn read(log: &Path) -> String {
    std::fs::read_to_string(log).unwrap_or_default()
}

/// Whether some thread has begun so many calls: they are counted by thread.
fn stands(log: &Path, call: &str, first: usize) -> bool {
    let text = read(log);
    let mut begun: HashMap<&str, usize> = HashMap::new();
    for (thread, what) in text.lines().filter_map(|line| line.split_once(' ')) {
        if what.trim_start().starts_with(call) {
            *begun.entry(thread).or_default() += 1;
        }
    }
    begun.values().any(|calls| *calls >= first)
}
