//! What the end of a client program means.
//!
//! The programs have one exit code for everything; only their words tell a lost
//! connection, which is worth another try, from a right that somebody has to grant.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use backstay_model::ErrorKind;

use super::child::Said;
use crate::Error;

/// Why a client program failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// A right is missing at the server.
    Denied,
    /// The server went away, or was not there.
    ConnectionLost,
    /// Somebody held a lock for longer than the program waits.
    Locked,
    /// Two waited for each other, and the server ended this one: at another time it would go.
    Deadlock,
    /// No room, here or at the server.
    DiskFull,
    /// Somebody ended it.
    Killed,
    /// The input is no dump, or is not whole.
    BadInput,
    /// More locks in one transaction than the server has room for.
    TooManyLocks,
    /// What the dump makes is there already.
    AlreadyThere,
    /// Something else that the server or the program objects to.
    Refused,
}

impl Failure {
    pub(crate) fn kind(self) -> ErrorKind {
        match self {
            Failure::Denied => ErrorKind::Denied,
            Failure::ConnectionLost
            | Failure::DiskFull
            | Failure::Killed
            | Failure::Locked
            | Failure::Deadlock => ErrorKind::Unavailable,
            Failure::BadInput => ErrorKind::Corrupt,
            Failure::AlreadyThere | Failure::Refused | Failure::TooManyLocks => ErrorKind::Conflict,
        }
    }
}

/// Parts of messages, the first that fits counts: a server that has no room for its
/// log may also end the connection.
const WORDS: [(&str, Failure); 24] = [
    ("No space left on device", Failure::DiskFull),
    ("could not extend file", Failure::DiskFull),
    ("Disk quota exceeded", Failure::DiskFull),
    ("permission denied", Failure::Denied),
    ("password authentication failed", Failure::Denied),
    ("no pg_hba.conf entry", Failure::Denied),
    ("must be superuser", Failure::Denied),
    ("must be owner", Failure::Denied),
    ("must be able to SET ROLE", Failure::Denied),
    ("must be member of role", Failure::Denied),
    ("would be affected by row-level security", Failure::Denied),
    ("canceling statement due to lock timeout", Failure::Locked),
    ("canceling statement due to statement timeout", Failure::Locked),
    ("deadlock detected", Failure::Deadlock),
    // A worker of a parallel `pg_dump` that does not wait behind somebody who waits for the first
    // one's lock. It says the same when its connection is lost at that moment.
    ("could not obtain lock on relation", Failure::Deadlock),
    ("server closed the connection", Failure::ConnectionLost),
    ("terminating connection", Failure::ConnectionLost),
    ("connection to server", Failure::ConnectionLost),
    ("could not receive data from server", Failure::ConnectionLost),
    ("SSL SYSCALL error", Failure::ConnectionLost),
    ("out of shared memory", Failure::TooManyLocks),
    ("already exists", Failure::AlreadyThere),
    ("duplicate key", Failure::AlreadyThere),
    ("could not read from input file", Failure::BadInput),
];

/// Parts of messages that `pg_restore` has for input that is no archive.
const BAD_INPUT: [&str; 6] = [
    "does not appear to be a valid archive",
    "did not find magic string",
    "unexpected end of file",
    "corrupt tar header",
    "unrecognized data block type",
    "could not uncompress data",
];

pub(super) fn failed(program: &'static str, status: ExitStatus, said: &Said) -> Error {
    let ended = match (status.signal(), status.code()) {
        (Some(signal), _) => format!("was ended by signal {signal}"),
        (None, Some(code)) => format!("ended with exit code {code}"),
        (None, None) => "ended".to_owned(),
    };
    let last = said.last_lines.join("; ");
    let words = match &said.first_error {
        Some(error) => error.clone(),
        None if last.is_empty() => "nothing".to_owned(),
        None => last.clone(),
    };
    // `unsupported version (1.16) in file header`.
    if let Some((_, version)) = words.split_once("unsupported version (") {
        let found = version.split(')').next().unwrap_or_default().to_owned();
        return Error::ArchiveTooNew { found };
    }
    Error::ClientProgram { program, ended, why: why(status, &words, &last), said: words }
}

fn why(status: ExitStatus, words: &str, last: &str) -> Failure {
    for text in [words, last] {
        if BAD_INPUT.iter().any(|part| text.contains(part)) {
            return Failure::BadInput;
        }
        if let Some((_, why)) = WORDS.iter().find(|(part, _)| text.contains(part)) {
            return *why;
        }
    }
    if status.signal().is_some() { Failure::Killed } else { Failure::Refused }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(raw_status: i32, lines: &[&str]) -> (Failure, String) {
        let mut said = Said::of("pg_dump");
        for line in lines {
            said.hear(line);
        }
        match failed("pg_dump", ExitStatus::from_raw(raw_status), &said) {
            Error::ClientProgram { why, ended, .. } => (why, ended),
            other => panic!("{other}"),
        }
    }

    #[test]
    fn the_words_of_a_program_tell_what_can_be_done() {
        for (line, why) in [
            ("pg_dump: error: query failed: ERROR:  permission denied for table t", Failure::Denied),
            (
                "pg_dump: error: query failed: server closed the connection unexpectedly",
                Failure::ConnectionLost,
            ),
            (
                "pg_dump: error: query failed: ERROR:  canceling statement due to lock timeout",
                Failure::Locked,
            ),
            ("pg_dump: error: query failed: ERROR:  deadlock detected", Failure::Deadlock),
            (
                "pg_dump: error: could not obtain lock on relation \"public.t\"; This usually means that",
                Failure::Deadlock,
            ),
            ("pg_dump: error: could not write to file: No space left on device", Failure::DiskFull),
            ("pg_dump: error: something new", Failure::Refused),
        ] {
            assert_eq!(after(256, &[line]), (why, "ended with exit code 1".to_owned()), "{line}");
        }
    }

    #[test]
    fn a_signal_without_a_word_is_somebody_elses_doing() {
        assert_eq!(after(9, &[]), (Failure::Killed, "was ended by signal 9".to_owned()));
    }
}
