//! The processes that stay between the calls of a server.

use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use testkit::wait_until;

/// The attendants of a server with this data directory: they stay where its commands are called.
pub fn attendants_in(data_directory: &Path) -> Vec<Pid> {
    let data_directory = data_directory.canonicalize().unwrap();
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let attends = |pid: &i32| {
        let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        words.split(|byte| *byte == 0).any(|word| word == b"--attend")
            && std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == data_directory)
    };
    pids.filter(attends).filter_map(Pid::from_raw).collect()
}

/// As the system does when it has no memory left; returns when it is gone.
pub fn kill(process: Pid) {
    kill_process(process, Signal::KILL).unwrap();
    // Nobody may ask how it ended: then it has no words any more.
    let words = format!("/proc/{}/cmdline", process.as_raw_nonzero());
    let is_gone = || std::fs::read(&words).map_or(true, |words| words.is_empty());
    wait_until(Duration::from_secs(10), "a killed process to be gone", is_gone).unwrap();
}
