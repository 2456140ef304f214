//! What `cargo xtask demo` promises beside its story: the commands that `--keep`
//! prints can be typed, and whatever ends the demo early, nothing is left.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test reports by panicking, also outside of its functions"
)]

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Lines, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use testkit::{PostgresVersion, require_postgres, require_rescue_python, wait_until};

/// Stopping a server and removing what it had takes a second or two.
const END_LIMIT: Duration = Duration::from_secs(60);

/// A demo of little data in a temporary directory of its own.
struct Demo {
    process: Child,
    output: Lines<BufReader<ChildStdout>>,
    said: String,
    temporary: PathBuf,
    home: tempfile::TempDir,
}

impl Demo {
    /// `None` where the test is to be skipped.
    fn start(version: PostgresVersion, options: &[&str]) -> Option<Demo> {
        require_postgres(version)?;
        require_rescue_python()?;
        let home = testkit::short_temp_dir().unwrap();
        let temporary = home.path().join("t");
        fs::create_dir(&temporary).unwrap();
        let mut process = Command::new(env!("CARGO_BIN_EXE_xtask"))
            .args(["demo", "--unoptimised", "--scale", "1", "--postgres", &version.to_string()])
            .args(options)
            .env("TMPDIR", &temporary)
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(home.path().join("errors")).unwrap())
            // As a shell does it, so that Ctrl-C can be sent to all of it.
            .process_group(0)
            .spawn()
            .unwrap();
        let output = BufReader::new(process.stdout.take().unwrap()).lines();
        Some(Demo { process, output, said: String::new(), temporary, home })
    }

    fn read_until(&mut self, words: &str) {
        for line in self.output.by_ref() {
            let line = line.unwrap();
            self.said.push_str(&line);
            self.said.push('\n');
            if line.contains(words) {
                return;
            }
        }
        panic!("it never said {words:?}\n{}{}", self.said, self.errors());
    }

    fn errors(&self) -> String {
        fs::read_to_string(self.home.path().join("errors")).unwrap()
    }

    /// Everything that it says up to its end.
    fn end(&mut self) -> ExitStatus {
        // What it started may hold the pipe for a moment longer than it lives itself.
        let status = self.process.wait().unwrap();
        for line in self.output.by_ref().map_while(Result::ok) {
            self.said.push_str(&line);
            self.said.push('\n');
        }
        status
    }

    /// What it made and did not remove, and what it started and did not stop.
    fn left(&self) -> Vec<String> {
        let files = fs::read_dir(&self.temporary).unwrap();
        let files = files.map(|entry| entry.unwrap().path().display().to_string());
        files.chain(processes_that_name(&self.temporary)).collect()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // Of a test that failed; its workspace is removed by its own watcher.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn processes_that_name(place: &Path) -> Vec<String> {
    let place = place.to_str().unwrap();
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|entry| {
            let line = fs::read_to_string(entry.path().join("cmdline")).ok()?.replace('\0', " ");
            line.contains(place).then(|| format!("{}: {line}", entry.file_name().to_string_lossy()))
        })
        .collect()
}

#[test]
fn what_keep_prints_can_be_typed_until_nothing_is_left() {
    let Some(mut demo) = Demo::start(PostgresVersion::V15, &["--keep"]) else { return };
    let status = demo.end();
    assert!(status.success(), "{status}\n{}{}", demo.said, demo.errors());
    assert!(!demo.left().is_empty(), "there is nothing to go on with");
    let (story, commands) = demo.said.split_once("are yours now:\n").unwrap();
    assert!(story.contains("files with") && story.contains("are the same in both, byte by byte"), "{story}");

    let mut shell = Command::new("bash")
        .args(["--noprofile", "--norc", "-e", "-c", commands])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    shell
        .stdin
        .take()
        .unwrap()
        .write_all(b"SELECT 'accounts: ' || count(*) FROM pgbench_accounts;\n")
        .unwrap();
    let typed = shell.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&typed.stdout);
    assert!(typed.status.success(), "{commands}\n{said}{}", String::from_utf8_lossy(&typed.stderr));
    for words in ["accounts: 100000\n", "incremental backup", " proved\n", "proved: it started and answered"]
    {
        assert!(said.contains(words), "no {words:?} in\n{said}");
    }
    assert_eq!(demo.left(), Vec::<String>::new());
}

/// Sends what a terminal sends on Ctrl-C, to the demo and all that it runs.
fn interrupt(demo: &Demo) {
    kill_process_group(Pid::from_child(&demo.process), Signal::INT).unwrap();
}

/// Sends what a service manager sends, to the demo alone.
fn terminate(demo: &Demo) {
    kill_process(Pid::from_child(&demo.process), Signal::TERM).unwrap();
}

#[track_caller]
fn ends_clean(after: &str, send: fn(&Demo), exit_code: i32) {
    let Some(mut demo) = Demo::start(PostgresVersion::V17, &[]) else { return };
    demo.read_until(after);
    send(&demo);
    let status = demo.end();
    assert_eq!(status.code(), Some(exit_code), "{status}\n{}{}", demo.said, demo.errors());
    assert_eq!(demo.left(), Vec::<String>::new(), "{}", demo.errors());
    let errors = demo.errors();
    assert!(errors.ends_with("interrupted; nothing is left running\n"), "{errors}");
    assert!(!demo.said.contains("the whole story"), "it was over before the signal came");
}

#[test]
fn ctrl_c_while_the_server_is_made_leaves_nothing() {
    ends_clean("1. A database is at work", interrupt, 130);
}

#[test]
fn sigterm_while_the_database_is_filled_leaves_nothing() {
    ends_clean("answers on port", terminate, 143);
}

#[test]
fn ctrl_c_in_a_backup_leaves_nothing() {
    ends_clean(" backup demo", interrupt, 130);
}

#[test]
fn sigterm_in_a_restore_leaves_nothing() {
    ends_clean(" restore demo ", terminate, 143);
}

#[test]
fn ctrl_c_in_the_rescue_script_leaves_nothing() {
    ends_clean("rescue/backstay-rescue.py", interrupt, 130);
}

#[track_caller]
fn is_gone_after_a_kill(mut demo: Demo) {
    demo.process.kill().unwrap();
    demo.end();
    let gone = wait_until(END_LIMIT, "all that a killed demo had to go", || demo.left().is_empty());
    assert!(gone.is_ok(), "{:?}", demo.left());
}

#[test]
fn a_demo_that_is_killed_while_the_database_is_filled_leaves_nothing() {
    let Some(mut demo) = Demo::start(PostgresVersion::V17, &[]) else { return };
    demo.read_until("answers on port");
    is_gone_after_a_kill(demo);
}

/// The restore goes on for a moment without its owner, and makes directories again.
#[test]
fn a_demo_that_is_killed_in_the_middle_of_a_restore_leaves_nothing() {
    let Some(mut demo) = Demo::start(PostgresVersion::V17, &[]) else { return };
    demo.read_until(" restore demo ");
    let workspace = fs::read_dir(&demo.temporary).unwrap().next().unwrap().unwrap().path();
    wait_until(END_LIMIT, "the restore to write", || workspace.join("data/base").exists()).unwrap();
    is_gone_after_a_kill(demo);
}
