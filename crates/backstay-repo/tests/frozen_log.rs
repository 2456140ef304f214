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

/// Four pages of a log over the beginning of a segment, with records of 56 to 180 bytes that go
/// over the ends of pages. Nothing in it is a checksum that fits.
fn content() -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut record: Vec<u8> = Vec::new();
    let mut count = 0u64;
    for page in 0..4u64 {
        let at = FIRST + page * 8192;
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
    let content = content();
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
    let content = content();
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
