//! The log of real servers, as it streams: byte by byte what the server keeps, with the
//! commits that `pg_waldump` finds in it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test ends where something is not as it should be, and says what it did not look at"
)]

#[path = "local_backup/drive.rs"]
#[allow(dead_code, reason = "shared by the tests of this crate, none of which uses all of it")]
mod drive;

use std::time::{Duration, Instant};

use backstay_engine::Error;
use backstay_engine::postgres::wal::LogReader;
use backstay_engine::postgres::walsender::{LogStream, StandbyReport, StreamEvent, Walsender};
use backstay_model::error::{Classified, ErrorKind};
use backstay_model::{LogMark, LogMarkKind, Lsn, TimelineId};
use jiff::Timestamp;
use testkit::{Postgres, PostgresOptions, PostgresVersion, StopMode, require_postgres};

const SEGMENT: u64 = 16 << 20;
const SLOT: &str = "backstay_test";
const LIMIT: Duration = Duration::from_secs(60);

fn on_each_version(test: impl Fn(Postgres)) {
    for version in PostgresVersion::ALL {
        if let Some(installation) = require_postgres(version) {
            test(Postgres::start_new(&installation, &PostgresOptions::default()).unwrap());
        }
    }
}

/// A receiver in memory.
struct Receiver {
    walsender: Walsender,
    stream: LogStream,
    from: Lsn,
    log: Vec<u8>,
    reader: LogReader,
    marks: Vec<LogMark>,
}

impl Receiver {
    async fn begin(server: &Postgres) -> Receiver {
        let mut walsender = connect(server).await;
        if walsender.read_slot(SLOT).await.unwrap().is_none() {
            walsender.create_slot(SLOT).await.unwrap();
        }
        let slot = walsender.read_slot(SLOT).await.unwrap().unwrap();
        let from = Lsn(slot.restart.unwrap().0 / SEGMENT * SEGMENT);
        Receiver::from(walsender, from, slot.timeline.unwrap()).await
    }

    async fn from(mut walsender: Walsender, from: Lsn, timeline: TimelineId) -> Receiver {
        let identity = walsender.identify_system().await.unwrap();
        let stream = walsender.start_log(Some(SLOT), from, timeline).await.unwrap();
        let reader = LogReader::new(from, SEGMENT, Some(identity.system_identifier)).with_sums();
        Receiver { walsender, stream, from, log: Vec::new(), reader, marks: Vec::new() }
    }

    async fn report(&mut self) {
        let end = self.stream.received();
        let report =
            StandbyReport { written: end, flushed: end, time: Timestamp::UNIX_EPOCH, wants_answer: false };
        self.stream.report(&mut self.walsender, report).await.unwrap();
    }

    /// Until all up to `end` is here; the event that ends it earlier.
    async fn until(&mut self, end: Lsn) -> Option<StreamEvent> {
        let begun = Instant::now();
        while self.stream.received() < end {
            assert!(begun.elapsed() < LIMIT, "{} of {end}", self.stream.received());
            match self.stream.next(&mut self.walsender, Duration::from_millis(200)).await.unwrap() {
                Some(StreamEvent::Log { at, bytes }) => {
                    assert_eq!(at, self.from + self.log.len() as u64);
                    self.log.extend_from_slice(&bytes);
                    self.reader.push(&bytes, &mut self.marks).unwrap();
                }
                Some(StreamEvent::Alive { .. }) => self.report().await,
                Some(over) => return Some(over),
                None => {}
            }
        }
        self.report().await;
        None
    }
}

async fn connect(server: &Postgres) -> Walsender {
    Walsender::connect(&drive::settings(server).address().unwrap()).await.unwrap()
}

fn end_of_log(server: &Postgres) -> Lsn {
    server.query_value("SELECT pg_current_wal_flush_lsn()").unwrap().parse().unwrap()
}

#[test]
fn what_streams_is_what_the_server_keeps_and_its_commits_are_those_that_pg_waldump_finds() {
    on_each_version(|server| {
        drive::runtime().block_on(async {
            server.sql("CREATE TABLE t (n bigserial, x text)").unwrap();
            let mut receiver = Receiver::begin(&server).await;
            server
                .sql("INSERT INTO t (x) SELECT repeat('long ', n % 900) FROM generate_series(1, 60000) n")
                .unwrap();
            for n in 0..40 {
                server.sql(&format!("INSERT INTO t (x) VALUES ('{n}')")).unwrap();
            }
            server.sql("SELECT pg_create_restore_point('before deploy')").unwrap();
            server.sql("BEGIN; DELETE FROM t; ROLLBACK").unwrap();
            server.sql("SELECT pg_switch_wal()").unwrap();
            server.sql("INSERT INTO t (x) VALUES ('after the switch')").unwrap();
            let end = end_of_log(&server);
            assert_eq!(receiver.until(end).await, None);
            assert!(receiver.reader.valid_to().unwrap() >= end);
            // A record may end in what came after the end that was asked for.
            let (mut expected, mut number) = (Vec::new(), receiver.from.segment(SEGMENT));
            let first = number;
            while Lsn(number * SEGMENT) < end {
                let name = TimelineId(1).segment_name(number, SEGMENT);
                expected.extend(std::fs::read(server.data_directory().join("pg_wal").join(name)).unwrap());
                number += 1;
            }
            assert!(number - first >= 3, "{} segments", number - first);
            assert!(receiver.log[..] == expected[..receiver.log.len()], "other bytes than in pg_wal");
            let found: Vec<String> = receiver.marks.iter().map(described).collect();
            assert_eq!(found, by_pg_waldump(&server, receiver.from, receiver.stream.received()));
            assert!(found.iter().any(|mark| mark.contains("before deploy")), "{found:?}");
            assert!(found.iter().any(|mark| mark.starts_with("ABORT")), "{found:?}");
        });
    });
}

fn described(mark: &LogMark) -> String {
    match &mark.kind {
        LogMarkKind::Commit { transaction } => format!("COMMIT {transaction} {}", mark.time),
        LogMarkKind::Abort { transaction } => format!("ABORT {transaction} {}", mark.time),
        LogMarkKind::Point { name } => format!("POINT {name}"),
        LogMarkKind::Instant => "INSTANT".to_owned(),
    }
}

/// The same from the program of the server, which prints times in its own zone: UTC here.
fn by_pg_waldump(server: &Postgres, from: Lsn, to: Lsn) -> Vec<String> {
    let mut command = server.tool("pg_waldump");
    command.env("TZ", "UTC").arg("--path").arg(server.data_directory().join("pg_wal"));
    command.args(["--start", &from.to_string(), "--end", &to.to_string(), "--timeline", "1"]);
    let text = String::from_utf8(command.output().unwrap().stdout).unwrap();
    let between = |line: &str, before: &str, after: &str| {
        let rest = line.split_once(before).unwrap().1;
        rest.split_once(after).map_or(rest, |(value, _)| value).trim().to_owned()
    };
    let mark = |line: &str| {
        if line.contains("desc: RESTORE_POINT ") {
            return Some(format!("POINT {}", line.split_once("RESTORE_POINT ").unwrap().1.trim()));
        }
        let kind = ["COMMIT", "ABORT"].into_iter().find(|kind| line.contains(&format!("desc: {kind} ")))?;
        let time = between(line, &format!("desc: {kind} "), " UTC").replace(' ', "T");
        let time: Timestamp = format!("{time}Z").parse().unwrap();
        Some(format!("{kind} {} {time}", between(line, "tx:", ",")))
    };
    text.lines().filter_map(mark).collect()
}

#[test]
fn a_stream_goes_on_where_it_broke_off_even_within_a_record() {
    on_each_version(|server| {
        drive::runtime().block_on(async {
            server.sql("CREATE TABLE t (x text)").unwrap();
            let mut receiver = Receiver::begin(&server).await;
            server.sql("INSERT INTO t SELECT repeat('x', 3000) FROM generate_series(1, 2000)").unwrap();
            receiver.until(end_of_log(&server)).await;
            let odd = Lsn(receiver.from.0 + receiver.log.len() as u64 / 2 + 1);
            drop(receiver.walsender);
            // The server notices only after a while that its receiver is gone.
            let is_free = || server.query_value("SELECT active FROM pg_replication_slots").unwrap() == "f";
            testkit::wait_until(LIMIT, "a free slot", is_free).unwrap();
            let walsender = connect(&server).await;
            let mut again = Receiver::from(walsender, odd, TimelineId(1)).await;
            // Two cannot have one slot.
            let error = connect(&server).await.start_log(Some(SLOT), odd, TimelineId(1)).await.unwrap_err();
            assert!(matches!(error, Error::SlotInUse { .. }), "{error:?}");
            assert_eq!(error.kind(), ErrorKind::Conflict);
            server.sql("INSERT INTO t VALUES ('one more')").unwrap();
            again.until(end_of_log(&server)).await;
            let common = receiver.log.len() - (odd - receiver.from) as usize;
            assert!(again.log[..common] == receiver.log[(odd - receiver.from) as usize..]);
            let (last, before) = again.marks.split_last().unwrap();
            assert!(!before.is_empty() && receiver.marks.ends_with(before), "other commits than before");
            assert!(last.time > before.last().unwrap().time);
        });
    });
}

#[test]
fn a_server_that_shuts_down_waits_for_no_receiver_that_reports_and_a_gone_segment_is_named() {
    on_each_version(|mut server| {
        let runtime = drive::runtime();
        let mut receiver = runtime.block_on(Receiver::begin(&server));
        server.sql("CREATE TABLE t AS SELECT generate_series(1, 1000)").unwrap();
        let (over, received) = std::thread::scope(|scope| {
            let reporting = scope.spawn(|| {
                runtime.block_on(async {
                    let over = receiver.until(Lsn(u64::MAX)).await;
                    (over, receiver.stream.received())
                })
            });
            let begun = Instant::now();
            server.stop(StopMode::Fast).unwrap();
            assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
            reporting.join().unwrap()
        });
        assert_eq!(over, Some(StreamEvent::Stopped));
        server.start().unwrap();
        runtime.block_on(async {
            // With its slot, nothing is missing after the start either.
            let mut walsender = connect(&server).await;
            let stream = walsender.start_log(Some(SLOT), received, TimelineId(1)).await.unwrap();
            stream.stop(&mut walsender).await.unwrap();
            walsender.drop_slot(SLOT).await.unwrap();
            for _ in 0..3 {
                server
                    .sql("CREATE TABLE IF NOT EXISTS u (n int); SELECT pg_switch_wal(); CHECKPOINT")
                    .unwrap();
            }
            let error = walsender.start_log(None, Lsn(SEGMENT), TimelineId(1)).await;
            let error = match error {
                Ok(mut stream) => stream.next(&mut walsender, LIMIT).await.unwrap_err(),
                Err(error) => error,
            };
            assert!(matches!(error, Error::WalMissing { .. }), "{error:?}");
            assert_eq!(error.kind(), ErrorKind::Unavailable);
            // The connection is of use for other commands.
            walsender.identify_system().await.unwrap();
        });
    });
}

#[test]
fn the_end_of_a_timeline_is_told_with_the_next_one() {
    on_each_version(|mut server| {
        let runtime = drive::runtime();
        let mut receiver = runtime.block_on(Receiver::begin(&server));
        server.sql("CREATE TABLE t AS SELECT generate_series(1, 1000)").unwrap();
        let end = end_of_log(&server);
        runtime.block_on(async {
            receiver.until(end).await;
        });
        drop(receiver);
        // A recovery that ends makes a new timeline, without a second server.
        server.stop(StopMode::Fast).unwrap();
        server.write_data_file("recovery.signal", b"", 0o600).unwrap();
        server.append_configuration(&["restore_command = '/bin/false'"]).unwrap();
        server.start().unwrap();
        // It answers while it recovers, when it may be read meanwhile.
        let is_primary = || server.query_value("SELECT pg_is_in_recovery()").unwrap() == "f";
        testkit::wait_until(LIMIT, "the end of the recovery", is_primary).unwrap();
        runtime.block_on(async {
            let mut walsender = connect(&server).await;
            let identity = walsender.identify_system().await.unwrap();
            assert_eq!(identity.timeline, TimelineId(2));
            let mut receiver = Receiver::from(walsender, end, TimelineId(1)).await;
            let over = receiver.until(Lsn(u64::MAX)).await;
            let Some(StreamEvent::TimelineEnded { next, at }) = over else { panic!("{over:?}") };
            assert_eq!((next, at), (TimelineId(2), receiver.stream.received()));
            // Again from its very end there is nothing to stream, and the same answer.
            let walsender = &mut receiver.walsender;
            let mut stream = walsender.start_log(Some(SLOT), at, TimelineId(1)).await.unwrap();
            let over = stream.next(walsender, LIMIT).await.unwrap();
            assert_eq!(over, Some(StreamEvent::TimelineEnded { next, at }));
            let history = walsender.timeline_history(next).await.unwrap();
            assert_eq!(history.name, "00000002.history");
            // The new one from the beginning of its segment: the file holds both.
            let from = Lsn(at.0 / SEGMENT * SEGMENT);
            server.sql("INSERT INTO t VALUES (7)").unwrap();
            let walsender = connect(&server).await;
            drop(receiver.walsender);
            let mut walsender = walsender;
            let mut stream = walsender.start_log(None, from, next).await.unwrap();
            let mut reader = LogReader::new(from, SEGMENT, Some(identity.system_identifier)).with_sums();
            let mut marks = Vec::new();
            let end = end_of_log(&server);
            while stream.received() < end {
                if let Some(StreamEvent::Log { bytes, .. }) =
                    stream.next(&mut walsender, LIMIT).await.unwrap()
                {
                    reader.push(&bytes, &mut marks).unwrap();
                }
            }
            assert!(reader.valid_to().unwrap() >= end && marks.len() >= 2, "{marks:?}");
        });
    });
}
