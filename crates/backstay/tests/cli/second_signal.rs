//! Ctrl-C twice: the first asks, the second leaves. The calls that move the bytes are
//! made to last, so that what was asked for cannot be done before the second comes.

use std::io::{BufRead, BufReader};
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use testkit::{Postgres, require_tampering, wait_until};

use super::during_backup::nothing_half_done;
use super::lasting::Lasting;
use super::program::{Home, protected};

const LIMIT: Duration = Duration::from_secs(60);
/// Much less than a call that lasts, much more than leaving takes.
const AT_ONCE: Duration = Duration::from_secs(10);

#[track_caller]
fn interrupt_twice(mut running: Lasting) {
    running.signal(Signal::INT);
    assert!(running.says("stopping: ").contains("press Ctrl-C again to leave at once"));
    running.signal(Signal::INT);
    running.leaves(AT_ONCE, 130);
}

fn filled() -> Option<(Postgres, Home)> {
    let (server, home) = protected("orders")?;
    server.pgbench_init(2).unwrap();
    require_tampering().then_some((server, home))
}

#[test]
fn a_second_ctrl_c_ends_a_backup_at_once_and_the_next_one_is_whole() {
    let Some((server, home)) = filled() else { return };
    interrupt_twice(Lasting::start(&home, "pread64", &["backup", "orders"]));
    // The session is gone with the process, and the slot with the session.
    let slots = "SELECT count(*) FROM pg_replication_slots";
    wait_until(LIMIT, "the slot to go", || server.query_value(slots).is_ok_and(|n| n == "0")).unwrap();
    nothing_half_done(&home);
}

#[test]
fn a_second_ctrl_c_ends_a_restore_at_once_and_what_is_there_cannot_start() {
    let Some((server, home)) = filled() else { return };
    home.run(["backup", "orders"]).good();
    let into = home.path("restored");
    let words = ["restore", "orders", "--into", into.to_str().unwrap()];
    interrupt_twice(Lasting::start(&home, "pwrite64", &words));
    assert!(into.join("base").is_dir() && !into.join("global/pg_control").exists());
    assert!(Postgres::start_on(server.installation(), &into).is_err());
    home.run(words).refused(4, &["not empty"]);
    assert!(home.run(["verify"]).good().out.contains("sound"));
    home.run(["backup", "orders"]).good();
    std::fs::remove_dir_all(&into).unwrap();
    home.run(words).good();
}

/// After the first, the verb has returned and its runtime waits for a thread that
/// stands in a read: nobody of the verb is left who could listen.
#[test]
fn a_second_ctrl_c_is_heard_to_the_very_end() {
    let home = Home::new();
    home.run(["init", "--store", &home.store_url(), "--no-encryption"]).good();
    // Who opens a pipe without a writer waits, as for a file server that is away.
    let description = home.path("store/backstay.json");
    std::fs::remove_file(&description).unwrap();
    assert!(Command::new("mkfifo").arg(&description).status().unwrap().success());
    let mut program = home.start(["list"]);
    let process = Pid::from_child(&program);
    let standing = || threads(process, "wchan").iter().any(|place| place.contains("wait_for_partner"));
    wait_until(LIMIT, "the read that waits", standing).unwrap();
    kill_process(process, Signal::INT).unwrap();
    let mut errors = BufReader::new(program.stderr.take().unwrap());
    let mut said = String::new();
    errors.read_line(&mut said).unwrap();
    assert!(said.starts_with("stopping: "), "{said}");
    // The one that stands in the read.
    let last = || threads(process, "comm").iter().filter(|name| name.starts_with("tokio")).count() == 1;
    wait_until(LIMIT, "the verb to return", last).unwrap();
    kill_process(process, Signal::INT).unwrap();
    assert_eq!(program.wait().unwrap().code(), Some(130), "{said}");
}

/// What the kernel says of each thread of a process.
fn threads(process: Pid, what: &str) -> Vec<String> {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{}/task", process.as_raw_nonzero())) else {
        return Vec::new();
    };
    threads.flatten().filter_map(|thread| std::fs::read_to_string(thread.path().join(what)).ok()).collect()
}
