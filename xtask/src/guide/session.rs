//! One shell that lives from the first command of a page to the last, so that
//! `cd` and `export` do what a reader expects.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use std::os::unix::process::CommandExt;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};

/// Printed after each command, with its exit status; no program says it by chance.
const MARK: &str = "--- end of a command of the guide:";

/// No page takes minutes; one that hangs must not hang the whole run.
const LIMIT_SECONDS: &str = "600";

pub struct Session {
    shell: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Session {
    pub fn open(home: &Path, environment: &[(&str, String)]) -> Result<Session> {
        let mut shell = Command::new("timeout")
            .args([LIMIT_SECONDS, "bash", "--noprofile", "--norc"])
            .current_dir(home)
            .env("HOME", home)
            .env("NO_COLOR", "1")
            .env("COLUMNS", "120")
            .envs(environment.iter().map(|(name, value)| (*name, value.as_str())))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("start bash")?;
        let input = shell.stdin.take().context("take the shell's input")?;
        let output = BufReader::new(shell.stdout.take().context("take the shell's output")?);
        Ok(Session { shell, input, output })
    }

    /// Runs a command and returns what it printed on both streams, and its status.
    pub fn run(&mut self, command: &str) -> Result<(String, i32)> {
        // In braces, so that the command shares the shell but not its input; the
        // status is set again for a following `echo $?`.
        write!(
            self.input,
            "{{ (exit ${{guide_status:-0}})\n{command}\n}} </dev/null 2>&1\nguide_status=$?\nprintf '\\n{MARK} %d\\n' $guide_status\n"
        )
        .context("hand a command to the shell")?;
        self.input.flush()?;
        let mut text = String::new();
        let mut line = Vec::new();
        loop {
            line.clear();
            if self.output.read_until(b'\n', &mut line)? == 0 {
                bail!("`{command}` ended the shell\n{text}");
            }
            let seen = String::from_utf8_lossy(&line);
            if let Some(status) = seen.strip_prefix(MARK) {
                return Ok((text.trim_end_matches('\n').to_owned(), status.trim().parse()?));
            }
            text.push_str(&seen);
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // What a page left in the background, such as `serve`, ends with its shell.
        let _ = kill_process_group(Pid::from_child(&self.shell), Signal::KILL);
        let _ = self.shell.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_remembers_and_reports() {
        let home = testkit::short_temp_dir().unwrap();
        let mut session = Session::open(home.path(), &[("GREETING", "hello".to_owned())]).unwrap();
        assert_eq!(session.run("mkdir a && cd a && x=1").unwrap(), (String::new(), 0));
        let (text, _) = session.run("basename $PWD; echo $GREETING $x; printf end").unwrap();
        assert_eq!(text, "a\nhello 1\nend");
        assert_eq!(session.run("ls /nowhere >/dev/null 2>&1").unwrap().1, 2);
        assert_eq!(session.run("echo $?").unwrap().0, "2");
        assert_eq!(session.run("cat <<END\nto be\nEND").unwrap().0, "to be");
        assert!(session.run("exit 3").is_err());
    }
}
