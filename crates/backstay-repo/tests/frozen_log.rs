//! Spans of a log that were stored once, in both forms, and never touched since: beside the
//! objects of `frozen_vectors.rs`, in the same repository.
//!
//! Written by this file with `BACKSTAY_WRITE_LOG_VECTORS=1`; writing them again is admitting
//! that the format was broken.
#![allow(clippy::unwrap_used, reason = "a test reports by panicking, also outside of its functions")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use backstay_model::{InstanceId, LogId, LogMark, LogMarkKind, LogSpan};
use backstay_repo::init;
use backstay_repo::key::read_key_file;
use backstay_repo::log::{LogForm, LogPiece, PreviousSpan};
use backstay_repo::repo::{Parameters, Repo};
use backstay_repo::store::Store;
use backstay_repo::store::disk::DiskStore;
use jiff::Timestamp;

const FIRST: u64 = 0x1FF_C000;

fn vectors() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors")
}

fn instance() -> InstanceId {
    "orders".parse().unwrap()
}

fn log() -> LogId {
    LogId { lineage: "65F0A1B2C3D4E5F6".to_owned(), timeline: "00000001".to_owned() }
}

/// Four pages of a log, with records of 56 to 180 bytes that go over the ends of pages; from
/// `FIRST` on over the beginning of a segment. Nothing in it is a checksum that fits.
fn content(first: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut record: Vec<u8> = Vec::new();
    let mut count = 0u64;
    for page in 0..4u64 {
        let at = first + page * 8192;
        let is_long = at.is_multiple_of(16 << 20);
        bytes.extend([0x16, 0xd1, u8::from(!record.is_empty()) | if is_long { 2 } else { 0 }, 0, 1, 0, 0, 0]);
        bytes.extend(at.to_le_bytes());
        bytes.extend((record.len() as u32).to_le_bytes());
        bytes.extend([0; 4]);
        if is_long {
            bytes.extend(7_000_000_000_000_000_001u64.to_le_bytes());
            bytes.extend((16u32 << 20).to_le_bytes());
            bytes.extend(8192u32.to_le_bytes());
        }
        while bytes.len() < (page as usize + 1) * 8192 {
            if record.is_empty() {
                bytes.resize(bytes.len().next_multiple_of(8), 0);
                count += 1;
                let length = 56 + count * count % 125;
                record = (0..length).map(|n| ((n * count) >> 2) as u8).collect();
                record[..4].copy_from_slice(&(length as u32).to_le_bytes());
                record[4..8].copy_from_slice(&(700 + count as u32 / 3).to_le_bytes());
            }
            let room = (page as usize + 1) * 8192 - bytes.len();
            let behind = record.split_off(record.len().min(room));
            bytes.append(&mut record);
            record = behind;
        }
    }
    bytes
}

fn marks() -> Vec<LogMark> {
    let at = |n: u64| Timestamp::from_microsecond(1_795_000_000_000_000 + n as i64 * 131).unwrap();
    let kinds = [
        LogMarkKind::Commit { transaction: 700 },
        LogMarkKind::Abort { transaction: u64::from(u32::MAX) },
        LogMarkKind::Point { name: "vor dem Löschen".to_owned() },
        LogMarkKind::Instant,
    ];
    (1..).zip(kinds).map(|(n, kind)| LogMark { at: FIRST + n * 200, time: at(n), kind }).collect()
}

async fn open() -> Arc<Repo> {
    let (key, _) = read_key_file(&vectors().join("repository.key")).unwrap();
    let store: Arc<dyn Store> = Arc::new(DiskStore::new(vectors().join("repository")));
    let open = init::open(&*store, Some(&key)).await.unwrap();
    Arc::new(Repo::from_parts(store, open.seal_keys(), Parameters::default()))
}

async fn write(repo: &Arc<Repo>) {
    let _ = std::fs::remove_dir_all(vectors().join("repository/orders/log"));
    let content = content(FIRST);
    let previous = PreviousSpan { span: LogSpan { start: 0, end: FIRST }, digest: "ab".repeat(16) };
    let whole = LogPiece {
        log: log(),
        start: FIRST,
        content: content.clone().into(),
        form: LogForm::PostgresqlRecords,
        marks: marks(),
        previous: Some(previous),
        facts: serde_json::json!({ "segment_bytes": 16 << 20 }),
    };
    repo.put_log(&instance(), whole, 3).await.unwrap();
    let part = LogPiece {
        log: log(),
        start: FIRST + 100,
        content: content[100..20_000].to_vec().into(),
        form: LogForm::Bytes,
        marks: Vec::new(),
        previous: None,
        facts: serde_json::Value::Null,
    };
    repo.put_log(&instance(), part, 3).await.unwrap();
    repo.put_log_history(&instance(), &log(), b"1\t0/3000000\tno recovery target\n").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_stored_of_a_log_can_be_read_in_both_forms() {
    let repo = open().await;
    if std::env::var_os("BACKSTAY_WRITE_LOG_VECTORS").is_some() {
        write(&repo).await;
    }
    let content = content(FIRST);
    let span = LogSpan { start: FIRST, end: FIRST + content.len() as u64 };
    let whole = repo.read_log_span(&instance(), &log(), span).await.unwrap();
    assert!(whole.content == content);
    assert_eq!((whole.head.format, whole.head.form), (2, LogForm::PostgresqlRecords));
    assert_eq!(whole.marks, marks());
    let part = LogSpan { start: FIRST + 100, end: FIRST + 20_000 };
    let read = repo.read_log_span(&instance(), &log(), part).await.unwrap();
    assert!(read.content == content[100..20_000]);
    assert_eq!((read.head.format, read.head.form), (1, LogForm::Bytes));
    let history = repo.log_history(&instance(), &log()).await.unwrap();
    assert_eq!(history.as_deref(), Some("1\t0/3000000\tno recovery target\n"));
}

/// Reads every span below a directory, and writes its bytes under its name.
const READ_ALL: &str = "
import os, sys
sys.path.insert(0, sys.argv[1])
from backstay_format import Repository
from backstay_log import SPAN, read_span
repository, place = Repository(sys.argv[2], None, None), sys.argv[3]
for name in repository.names(place):
    start, end = (int(number, 16) for number in SPAN.fullmatch(name).groups())
    with open(os.path.join(sys.argv[4], name), 'xb') as file:
        file.write(read_span(repository, f'{place}/{name}', start, end))
";

#[tokio::test(flavor = "multi_thread")]
async fn the_second_reader_reads_the_same_whatever_is_wrong_with_the_bytes() {
    let Some(python) = testkit::require_rescue_python() else { return };
    let place = tempfile::tempdir().unwrap();
    let (repository, out) = (place.path().join("repository"), place.path().join("out"));
    std::fs::create_dir(&out).unwrap();
    let store: Arc<dyn Store> = Arc::new(DiskStore::new(repository.clone()));
    let options =
        init::InitOptions { slots: Vec::new(), now: Timestamp::from_second(1_795_000_000).unwrap() };
    let keys = init::init(&*store, &options).await.unwrap().repository.seal_keys();
    let repo = Arc::new(Repo::from_parts(store, keys, Parameters::default()));
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    let mut given = Vec::new();
    for number in 0..200u64 {
        // The last of them lie where positions end.
        let from_the_end = (number.saturating_sub(190) + 5) * 8192;
        let first = if number < 190 { FIRST + (number << 20) } else { u64::MAX - from_the_end + 1 };
        let mut bytes = content(first);
        for _ in 0..next(12) {
            let at = match next(3) {
                // Headers of pages, and lengths of records wherever they may be.
                0 => next(4) * 8192 + next(24),
                _ => next(bytes.len() as u64),
            };
            bytes[at as usize] = next(256) as u8;
        }
        let from = next(9000) as usize;
        let to = bytes.len() - next(9000) as usize;
        let span = LogSpan { start: first + from as u64, end: first.saturating_add(to as u64) };
        let bytes = bytes[from..from + span.length() as usize].to_vec();
        let piece = LogPiece {
            log: log(),
            start: span.start,
            content: bytes.clone().into(),
            form: LogForm::PostgresqlRecords,
            marks: Vec::new(),
            previous: None,
            facts: serde_json::Value::Null,
        };
        repo.put_log(&instance(), piece, 3).await.unwrap();
        given.push((span, bytes));
    }
    let rescue = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../rescue");
    let below = format!("orders/log/{}/{}", log().lineage, log().timeline);
    let mut command = std::process::Command::new(python);
    command.args(["-B", "-c", READ_ALL]).arg(rescue).arg(&repository).arg(below).arg(&out);
    let ran = command.output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    for (span, bytes) in given {
        let name = format!("{:016X}-{:016X}", span.start, span.end);
        assert!(std::fs::read(out.join(&name)).unwrap() == bytes, "{name} came back with other bytes");
    }
}
