//! One running client program: what it writes on its standard error is kept within
//! bounds, and it never outlives its [`Child`].
//!
//! A program that is told to stop gets a signal that lets it cancel what it runs on
//! the server, and a moment to do so; one that is dropped is killed with its workers.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncReadExt;
use tokio::process::{ChildStderr, ChildStdin, ChildStdout};
use tokio::task::JoinSet;

use super::failure::failed;
use crate::{Error, Result};

/// From a closed output to the end of the program; it has nothing left to do but to say
/// goodbye to the server.
const END_LIMIT: Duration = Duration::from_secs(60);
/// For a program that was asked to end.
const STOP_LIMIT: Duration = Duration::from_secs(5);
/// A dump of a hundred thousand tables may warn of each.
const MESSAGES_KEPT: usize = 200;
/// A message can quote a statement that names every table.
const MESSAGE_LENGTH: usize = 600;
/// Of the end, for an error.
const LAST_LINES: usize = 8;

pub struct Child {
    pub program: &'static str,
    process: tokio::process::Child,
    said: Arc<Mutex<Said>>,
    listening: JoinSet<()>,
}

impl Child {
    pub fn spawn(program: &'static str, mut command: Command) -> Result<Child> {
        // Ctrl-C goes to the whole group of the terminal; we end it ourselves.
        command.stderr(Stdio::piped()).process_group(0);
        let mut process = tokio::process::Command::from(command)
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| Error::Program { program: program.to_owned(), source })?;
        let said = Arc::new(Mutex::new(Said::of(program)));
        let mut listening = JoinSet::new();
        if let Some(stderr) = process.stderr.take() {
            listening.spawn(listen(stderr, Arc::clone(&said)));
        }
        Ok(Child { program, process, said, listening })
    }

    pub fn take_input(&mut self) -> Option<ChildStdin> {
        self.process.stdin.take()
    }

    pub fn take_output(&mut self) -> Option<ChildStdout> {
        self.process.stdout.take()
    }

    /// Waits as long as it takes. An end that is not a good one is an error with what
    /// the program said.
    pub async fn end(&mut self) -> Result<()> {
        let status = self.process.wait().await.map_err(|source| self.not_waited_for(source))?;
        // A worker that is left behind may still hold the other end.
        let _ = tokio::time::timeout(STOP_LIMIT, self.listening.join_next()).await;
        match status.success() {
            true => Ok(()),
            false => Err(failed(self.program, status, &self.said())),
        }
    }

    /// The same, when it should be over already.
    pub async fn end_soon(&mut self) -> Result<()> {
        match tokio::time::timeout(END_LIMIT, self.end()).await {
            Ok(ended) => ended,
            Err(_) => {
                self.stop().await;
                Err(Error::ProgramTimeout { program: self.program, seconds: END_LIMIT.as_secs() })
            }
        }
    }

    /// Asks it to end, and ends it when it does not.
    pub async fn stop(&mut self) {
        self.signal(Signal::TERM);
        if tokio::time::timeout(STOP_LIMIT, self.process.wait()).await.is_err() {
            self.signal(Signal::KILL);
            // Killed and not yet buried: nothing depends on when that is.
            let _ = tokio::time::timeout(STOP_LIMIT, self.process.wait()).await;
        }
    }

    /// What it wrote so far, a message with its details each.
    pub fn messages(&self) -> Vec<String> {
        self.said().messages.clone()
    }

    pub fn messages_left_out(&self) -> u64 {
        self.said().left_out
    }

    fn said(&self) -> MutexGuard<'_, Said> {
        // Nothing in it can be half-changed by a panic of another thread.
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn not_waited_for(&self, source: io::Error) -> Error {
        Error::Program { program: self.program.to_owned(), source }
    }

    /// At once, with its workers; it is buried later.
    pub fn kill(&self) {
        self.signal(Signal::KILL);
    }

    fn signal(&self, signal: Signal) {
        // None when it was waited for: its number may be another's by now.
        let process = self.process.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        if let Some(process) = process {
            // It may have ended by itself; that is what is wanted.
            let _ = kill_process_group(process, signal);
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What a program wrote beside its output.
pub(super) struct Said {
    program: &'static str,
    pub messages: Vec<String>,
    pub left_out: u64,
    /// The first that tells of an error, wherever it came.
    pub first_error: Option<String>,
    pub last_lines: Vec<String>,
    /// Whether the message that began last was kept, and a detail of it is.
    open: bool,
    /// Whether that message is the first error.
    is_first_error: bool,
}

impl Said {
    pub fn of(program: &'static str) -> Self {
        Self {
            program,
            messages: Vec::new(),
            left_out: 0,
            first_error: None,
            last_lines: Vec::new(),
            open: false,
            is_first_error: false,
        }
    }

    pub fn hear(&mut self, line: &str) {
        let line = line.trim_end();
        if line.is_empty() {
            return;
        }
        if self.last_lines.len() == LAST_LINES {
            self.last_lines.remove(0);
        }
        self.last_lines.push(cut(line).to_owned());
        match self.begins(line) {
            Some(text) => {
                self.open = self.messages.len() < MESSAGES_KEPT;
                match self.open {
                    true => self.messages.push(cut(text).to_owned()),
                    false => self.left_out += 1,
                }
                let tells =
                    ["error: ", "ERROR: ", "FATAL: ", "PANIC: "].iter().any(|word| text.contains(word));
                self.is_first_error = tells && self.first_error.is_none();
                if self.is_first_error {
                    self.first_error = Some(cut(text).to_owned());
                }
            }
            None => {
                let detail = line.strip_prefix(self.program).and_then(|rest| rest.strip_prefix(": "));
                let detail = detail.unwrap_or(line);
                if self.open
                    && let Some(message) = self.messages.last_mut()
                {
                    add(message, detail);
                }
                if self.is_first_error
                    && let Some(message) = &mut self.first_error
                {
                    add(message, detail);
                }
            }
        }
    }

    /// The text of a message that begins here; `None` for what belongs to the one before.
    fn begins<'a>(&self, line: &'a str) -> Option<&'a str> {
        let rest = line.strip_prefix(self.program)?;
        // `psql:<stdin>:33: ERROR: …`
        let text = rest.strip_prefix(": ").or_else(|| rest.strip_prefix(':'))?;
        let is_detail = ["detail: ", "hint: "].iter().any(|word| text.starts_with(word));
        (!is_detail).then_some(text)
    }
}

fn add(message: &mut String, detail: &str) {
    let room = MESSAGE_LENGTH.saturating_sub(message.len());
    if room > 2 {
        message.push_str("; ");
        message.push_str(first_bytes(detail.trim(), room - 2));
    }
}

fn cut(text: &str) -> &str {
    first_bytes(text, MESSAGE_LENGTH)
}

fn first_bytes(text: &str, limit: usize) -> &str {
    &text[..text.floor_char_boundary(limit.min(text.len()))]
}

async fn listen(mut stderr: ChildStderr, said: Arc<Mutex<Said>>) {
    let mut line = Vec::new();
    let mut buffer = [0; 4096];
    let hear = |line: &mut Vec<u8>| {
        let text = String::from_utf8_lossy(line).into_owned();
        said.lock().unwrap_or_else(PoisonError::into_inner).hear(&text);
        line.clear();
    };
    while let Ok(count @ 1..) = stderr.read(&mut buffer).await {
        for byte in &buffer[..count] {
            match byte {
                b'\n' => hear(&mut line),
                // The rest of a longer line is read and forgotten.
                byte if line.len() < 4 * MESSAGE_LENGTH => line.push(*byte),
                _ => {}
            }
        }
    }
    hear(&mut line);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_keeps_its_details_and_the_first_error_is_remembered() {
        let mut said = Said::of("pg_dump");
        for line in [
            "pg_dump: warning: there are circular foreign-key constraints on this table:",
            "pg_dump: detail: hypertable",
            "pg_dump: hint: Consider a full dump",
            "pg_dump: error: query failed: ERROR:  permission denied for table t",
            "pg_dump: detail: Query was: LOCK TABLE public.t",
            "pg_dump: error: another",
        ] {
            said.hear(line);
        }
        assert_eq!(said.messages.len(), 3);
        assert!(said.messages[0].ends_with("this table:; detail: hypertable; hint: Consider a full dump"));
        let first = said.first_error.unwrap();
        assert!(first.contains("permission denied") && first.ends_with("LOCK TABLE public.t"), "{first}");
    }

    #[test]
    fn what_is_kept_has_an_end() {
        let mut said = Said::of("pg_dump");
        for number in 0..10_000 {
            said.hear(&format!("pg_dump: warning: {number} {}", "ä".repeat(5000)));
            said.hear(&"x".repeat(5000));
        }
        assert_eq!((said.messages.len(), said.left_out), (MESSAGES_KEPT, 10_000 - MESSAGES_KEPT as u64));
        assert!(said.messages.iter().all(|message| message.len() <= MESSAGE_LENGTH));
        assert_eq!(said.last_lines.len(), LAST_LINES);
    }
}
