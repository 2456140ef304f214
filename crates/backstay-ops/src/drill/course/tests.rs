use std::io;

use backstay_model::plan::Refusal;
use backstay_model::{Lsn, TimelineId};
use backstay_repo::store::Operation;

use super::*;

fn backup() -> BackupId {
    "20261121T024300Z-7q3f".parse().unwrap()
}

fn said(code: &str) -> ServerMessage {
    ServerMessage { code: code.into(), message: "no".into(), detail: None, hint: None }
}

fn ended(log: &str) -> Error {
    EngineError::Scratch { what: "start", log: log.into() }.into()
}

fn io_error(operation: Operation) -> Error {
    let cause = io::Error::other("the disk gives it not back").into();
    Error::Repo(StoreError::Io { operation, object: "orders/packs/a".into(), cause }.into())
}

fn refused(kind: ErrorKind) -> Error {
    Error::Refused { refusal: Refusal::new(kind, "no", vec!["`backstay list`".into()]) }
}

#[test]
fn what_is_stored_wrongly_or_does_not_start_is_the_backups_fault() {
    for error in [
        Error::Repo(RepoError::Damaged { object: "orders/packs/a".into(), reason: "no".into() }),
        Error::Repo(StoreError::NotFound { object: "orders/packs/a".into() }.into()),
        ended("FATAL:  could not open directory \"pg_twophase\": No such file or directory"),
        said("XX001").during("count the relations").into(),
        EngineError::ConnectionLost { action: "read", source: "closed".into() }.into(),
        refused(ErrorKind::Corrupt),
        Error::LogHole {
            instance: "orders".parse().unwrap(),
            timeline: TimelineId(1),
            from: Lsn(0x100),
            to: Lsn(0x200),
        },
    ] {
        let mut course = Course { backup: Some(backup()), ..Course::default() };
        let text = error.to_string();
        course.take_in(error).unwrap_or_else(|error| panic!("{error}"));
        let report = course.report(&"orders".parse().unwrap(), Timestamp::UNIX_EPOCH);
        let report = report.unwrap();
        assert!(!report.sound && report.fault().is_some(), "{text}: {report:?}");
        assert_eq!((report.checks.len(), report.recovery_time_seconds), (1, None), "{text}");
    }
}

#[test]
fn what_is_in_the_way_of_the_look_is_not() {
    let cause = || io::Error::other("away").into();
    for error in [
        Error::Repo(
            StoreError::Unavailable { operation: Operation::Get, object: "a".into(), cause: cause() }.into(),
        ),
        Error::Repo(
            StoreError::Denied { operation: Operation::Get, object: "a".into(), cause: cause() }.into(),
        ),
        io_error(Operation::List),
        io_error(Operation::GetRange),
        ended("FATAL:  could not access file \"timescaledb\": No such file or directory"),
        ended("LOG:  server process (PID 9) was terminated by signal 9: Killed"),
        EngineError::Scratch { what: "become ready in time", log: String::new() }.into(),
        EngineError::ScratchEnded { what: "answer to the end", status: "signal: 9 (SIGKILL)".into() }.into(),
        EngineError::ProgramMissing { program: "postgres", major: 15 }.into(),
        EngineError::Write { path: "/drills".into(), source: io::Error::from(io::ErrorKind::StorageFull) }
            .into(),
        ended("PANIC:  could not write to file \"pg_wal/xlogtemp.9\": No space left on device"),
        ended("FATAL:  could not map anonymous shared memory: Cannot allocate memory"),
        said("53200").during("count the relations").into(),
        said("57P01").during("count the relations").into(),
        Error::DrillTooSmall { path: "/drills".into(), free: 1, needed: 2 },
        Error::DrillDirectory { path: "/drills".into(), source: io::Error::from(io::ErrorKind::NotFound) },
        Error::DrillOutside { backup: backup(), name: "late".into(), path: "/mnt".into() },
    ] {
        let mut course = Course { backup: Some(backup()), ..Course::default() };
        let text = error.to_string();
        let error = course.take_in(error).unwrap_err();
        assert_eq!(error.to_string(), text);
        assert!(could_not_look(&error), "{text}");
        assert!(course.checks.is_empty() && course.findings.is_empty(), "{text}");
    }
}

#[test]
fn nothing_is_blamed_on_a_backup_that_was_not_chosen() {
    let damaged = || Error::Repo(RepoError::Damaged { object: "a".into(), reason: "no".into() });
    let error = Course::default().take_in(damaged()).unwrap_err();
    assert!(could_not_look(&error));
}

#[test]
fn what_was_asked_for_wrongly_or_stopped_keeps_its_own_code() {
    for kind in [ErrorKind::Invalid, ErrorKind::NotFound, ErrorKind::Unrecoverable] {
        assert!(!could_not_look(&refused(kind)), "{kind}");
    }
    assert!(!could_not_look(&Error::Cancelled));
}

#[test]
fn of_a_log_the_line_is_told_that_says_why() {
    let log = "2026-11-21 15:00:00.000 UTC [7] LOG:  starting PostgreSQL\n\
               2026-11-21 15:00:00.001 UTC [7] FATAL:  could not open directory \"pg_twophase\": gone\n\
               2026-11-21 15:00:00.002 UTC [8] FATAL:  the database system is in recovery mode\n\
               2026-11-21 15:00:00.003 UTC [7] LOG:  database system is shut down";
    assert_eq!(gravest(log), "FATAL: could not open directory \"pg_twophase\": gone");
    let crash = "LOG:  server process (PID 9) was terminated by signal 11: Segmentation fault\n\
                 FATAL:  the database system is shutting down";
    assert_eq!(gravest(crash), "server process (PID 9) was terminated by signal 11: Segmentation fault");
    let busy = "LOG:  server process (PID 9) was terminated by signal 11: Segmentation fault\n\
                DETAIL:  Failed process was running: SELECT count(*) FROM public.orders";
    assert_eq!(
        gravest(busy),
        "server process (PID 9) was terminated by signal 11: Segmentation fault; \
         Failed process was running: SELECT count(*) FROM public.orders"
    );
    let panicked = "PANIC:  could not locate a valid checkpoint record\n\
                    LOG:  startup process (PID 26) was terminated by signal 6: Aborted";
    assert_eq!(gravest(panicked), "PANIC: could not locate a valid checkpoint record");
    let quiet = "LOG:  starting\nLOG:  shut down";
    assert_eq!(gravest(quiet), quiet);
}
