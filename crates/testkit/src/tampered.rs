//! A program whose system calls fail, wait or kill, as a dying disk, a file server that
//! is away or a quota would let them. `strace` sits between the program and the kernel,
//! so that the real calls of the real binary are hit, whoever in it makes them.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::engines::{REQUIRE_ENGINES, is_required};
use crate::wait::wait_for;

const TRACER: &str = "strace";
/// The tracer starts the program before it does anything else.
const START_LIMIT: Duration = Duration::from_secs(30);

/// Whether calls can be tampered with here; says so on standard error when they cannot.
///
/// # Panics
/// When they cannot and [`REQUIRE_ENGINES`] lists `strace`.
#[allow(clippy::panic, reason = "called by tests only, which report a failure by panicking")]
pub fn require_tampering() -> bool {
    let traces = Command::new(TRACER).args(["-qq", "-o", "/dev/null", "true"]).output();
    if traces.is_ok_and(|output| output.status.success()) {
        return true;
    }
    if is_required(TRACER, std::env::var(REQUIRE_ENGINES).ok().as_deref()) {
        panic!("{TRACER} is required by {REQUIRE_ENGINES}, but is missing or may not trace here");
    }
    eprintln!("SKIPPED: {TRACER} is missing or may not trace here, so no system call can be made to fail");
    false
}

/// The same program with the same words, and some of its calls as the rules say:
/// `fsync:error=EIO:when=3`, `pwrite64:signal=KILL:when=100`, as of `strace --inject`, which
/// counts the calls of each thread for itself.
/// The calls named by `traced` are written to `log`, each with the path it is about.
/// With a path, only calls that are about it. The exit code is the program's.
pub fn tampered(
    command: &Command,
    traced: &str,
    rules: &[&str],
    about: Option<&Path>,
    log: &Path,
) -> Command {
    tampered_about(command, traced, rules, about.as_slice(), log)
}

/// The same with several paths: calls about any of them, which are counted together.
pub fn tampered_about(
    command: &Command,
    traced: &str,
    rules: &[&str],
    about: &[&Path],
    log: &Path,
) -> Command {
    let mut tampered = Command::new(TRACER);
    tampered.args(["--follow-forks", "--seccomp-bpf", "-qq", "--decode-fds=path", "--output"]).arg(log);
    tampered.arg(format!("--trace={traced}"));
    tampered.args(about.iter().map(|path| format!("--trace-path={}", path.display())));
    tampered.args(rules.iter().map(|rule| format!("--inject={rule}")));
    tampered.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => tampered.env(name, value),
            None => tampered.env_remove(name),
        };
    }
    if let Some(directory) = command.get_current_dir() {
        tampered.current_dir(directory);
    }
    tampered
}

/// The process that runs under a tracer: signals are for it, and not for the tracer.
///
/// # Errors
/// When the tracer has started none.
pub fn traced_process(tracer: u32) -> Result<u32> {
    let children = format!("/proc/{tracer}/task/{tracer}/children");
    wait_for(START_LIMIT, "the tracer to start the program", || {
        let text = fs::read_to_string(&children).ok()?;
        // Until it has become the program it is a copy of the tracer.
        let child = text.split_whitespace().next()?.parse().ok()?;
        let name = |process: u32| fs::read_to_string(format!("/proc/{process}/comm")).ok();
        (name(child)? != name(tracer)?).then_some(child)
    })
    .context("find the traced program")
}
