use std::sync::Arc;

use backstay_model::LogMarkKind;
use backstay_model::error::{Classified, ErrorKind};
use jiff::Timestamp;

use super::*;
use crate::repo::Parameters;
use crate::seal::Cipher;
use crate::store::{MemoryStore, Store};

fn instance() -> InstanceId {
    "orders".parse().unwrap()
}

fn log() -> LogId {
    LogId { lineage: "65F0A1B2C3D4E5F6".to_owned(), timeline: "00000001".to_owned() }
}

fn repo(cipher: Cipher) -> (Arc<Repo>, MemoryStore) {
    let store = MemoryStore::default();
    let repo =
        Repo::from_parts(Arc::new(store.clone()), crate::seal::tests::keys(cipher), Parameters::default());
    (Arc::new(repo), store)
}

/// What lies at each position of the log of the tests.
fn bytes(start: u64, end: u64) -> Bytes {
    (start..end).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

fn piece(start: u64, end: u64) -> LogPiece {
    LogPiece {
        log: log(),
        start,
        content: bytes(start, end),
        form: LogForm::Bytes,
        marks: Vec::new(),
        previous: None,
        facts: serde_json::Value::Null,
    }
}

fn mark(at: u64, microseconds: i64, kind: LogMarkKind) -> LogMark {
    LogMark { at, time: Timestamp::from_microsecond(microseconds).unwrap(), kind }
}

#[tokio::test]
async fn a_span_comes_back_with_its_marks_whatever_the_clock_of_the_server_did() {
    for cipher in [Cipher::None, Cipher::Aes256Gcm] {
        let (repo, _) = repo(cipher);
        let mut marks: Vec<LogMark> = (0..40_000u64)
            .map(|n| {
                mark(
                    1000 + n * 7,
                    1_795_000_000_000_000 + n as i64 * 131,
                    LogMarkKind::Commit { transaction: 700 + n },
                )
            })
            .collect();
        // It was set back, and before the first of January 1970.
        marks.push(mark(281_000, -5, LogMarkKind::Abort { transaction: u64::from(u32::MAX) }));
        marks.push(mark(281_100, 3, LogMarkKind::Point { name: "vor dem Löschen".to_owned() }));
        marks.push(mark(281_200, 3, LogMarkKind::Instant));
        let previous = Some(PreviousSpan { span: LogSpan { start: 0, end: 1000 }, digest: "ab".to_owned() });
        let facts = serde_json::json!({ "segment_bytes": 16_777_216 });
        let given = LogPiece {
            marks: marks.clone(),
            previous: previous.clone(),
            facts: facts.clone(),
            ..piece(1000, 300_000)
        };
        let stored = repo.put_log(&instance(), given, 2).await.unwrap();
        let read = repo.read_log_span(&instance(), &log(), stored.span).await.unwrap();
        assert_eq!(read.content, bytes(1000, 300_000));
        assert!(read.marks == marks);
        assert_eq!((read.head.previous, read.head.facts, read.head.digest), (previous, facts, stored.digest));
        assert_eq!(read.head.first_time.unwrap().as_microsecond(), -5);
    }
}

#[tokio::test]
async fn the_same_again_is_success_and_other_bytes_are_refused() {
    let (repo, _) = repo(Cipher::Aes256Gcm);
    let first = repo.put_log(&instance(), piece(0, 5000), 2).await.unwrap();
    assert!(first.stored_bytes.is_some());
    let again = repo.put_log(&instance(), piece(0, 5000), 2).await.unwrap();
    assert_eq!((again.stored_bytes, again.digest), (None, first.digest));
    let other = LogPiece { content: bytes(7, 5007), ..piece(0, 5000) };
    let error = repo.put_log(&instance(), other, 2).await.unwrap_err();
    assert!(matches!(error, Error::LogDiffers { .. }), "{error}");
    assert_eq!(error.kind(), ErrorKind::Conflict);
    repo.put_log_history(&instance(), &log(), b"1\t0/3000000\tno recovery target\n").await.unwrap();
    repo.put_log_history(&instance(), &log(), b"1\t0/3000000\tno recovery target\n").await.unwrap();
    let error = repo.put_log_history(&instance(), &log(), b"1\t0/4000000\tx\n").await.unwrap_err();
    assert!(matches!(error, Error::LogDiffers { .. }), "{error}");
    let history = repo.log_history(&instance(), &log()).await.unwrap().unwrap();
    assert!(history.starts_with("1\t0/3000000"));
    let nobody = LogId { timeline: "00000002".to_owned(), ..log() };
    assert_eq!(repo.log_history(&instance(), &nobody).await.unwrap(), None);
}

#[tokio::test]
async fn any_part_is_read_from_whatever_cuts_hold_it_and_what_is_missing_is_told() {
    let (repo, _) = repo(Cipher::None);
    // Small ones by one writer, a large one over them by another, and a hole.
    for (start, end) in [(0, 300), (300, 900), (500, 2000), (100, 1500), (2500, 4000)] {
        repo.put_log(&instance(), piece(start, end), 2).await.unwrap();
    }
    let timeline = repo.timeline_log(&instance(), &log()).await.unwrap();
    assert_eq!(timeline.coverage().holes(), [LogSpan { start: 2000, end: 2500 }]);
    for (start, end) in [(0, 4000), (50, 60), (250, 2600), (1999, 2001), (2000, 2500), (3999, 9000)] {
        let span = LogSpan { start, end };
        let (read, there) = repo.read_log(&instance(), &log(), &timeline, span).await.unwrap();
        for at in start..end {
            let has = at < 2000 || (2500..4000).contains(&at);
            assert_eq!(there.around(at).is_some(), has, "{at}");
            let expected = if has { bytes(at, at + 1)[0] } else { 0 };
            assert_eq!(read[(at - start) as usize], expected, "{at}");
        }
    }
    let index = repo.log_index(&instance()).await.unwrap();
    assert_eq!(index.timelines().count(), 1);
    assert_eq!(index.timeline(&log()), Some(&timeline));
    assert!(repo.log_index(&"other".parse().unwrap()).await.unwrap().is_empty());
    // Two servers as one instance.
    let other = LogPiece { content: bytes(0, 1000), ..piece(1400, 2400) };
    repo.put_log(&instance(), other, 2).await.unwrap();
    let timeline = repo.timeline_log(&instance(), &log()).await.unwrap();
    let span = LogSpan { start: 0, end: 2400 };
    let error = repo.read_log(&instance(), &log(), &timeline, span).await.unwrap_err();
    assert!(matches!(error, Error::LogDiffers { .. }), "{error}");
}

/// One page with records that nobody finished, and whose checksums do not fit.
fn records(start: u64) -> Bytes {
    let mut page = vec![0; 8192];
    page[..4].copy_from_slice(&[0x16, 0xd1, 0, 0]);
    page[8..16].copy_from_slice(&start.to_le_bytes());
    for record in page[24..].chunks_exact_mut(64) {
        record.copy_from_slice(&bytes(start, start + 64));
        record[..4].copy_from_slice(&64u32.to_le_bytes());
    }
    page.into()
}

#[tokio::test]
async fn a_folded_span_is_read_like_any_other_by_all_who_read() {
    let (repo, store) = repo(Cipher::Aes256Gcm);
    let (start, content) = (16384, records(16384));
    let folded =
        LogPiece { content: content.clone(), form: LogForm::PostgresqlRecords, ..piece(start, start) };
    let stored = repo.put_log(&instance(), folded.clone(), 3).await.unwrap();
    let read = repo.read_log_span(&instance(), &log(), stored.span).await.unwrap();
    assert_eq!((&read.content[..], read.head.form), (&content[..], LogForm::PostgresqlRecords));
    // A program of the first format would give away what is folded, and must refuse.
    assert_eq!(read.head.format, 2);
    let listed = repo.timeline_log(&instance(), &log()).await.unwrap();
    let glance = repo.glance_at_log(&instance(), &log(), listed.objects[0]).await.unwrap();
    let edges = repo.edges_of(&glance).await.unwrap();
    assert_eq!((&edges.first, &edges.last), (&read.content, &read.content));
    // Whoever brings the same bytes has success, in whatever form.
    let plain = LogPiece { form: LogForm::Bytes, ..folded.clone() };
    assert_eq!(repo.put_log(&instance(), plain.clone(), 3).await.unwrap().stored_bytes, None);
    assert_eq!(repo.log_holds(&instance(), &log(), stored.span, &content).await.unwrap(), Some(true));
    let name = InstanceLayout::new(instance()).log_object(&log(), stored.span).unwrap();
    store.delete(&name).await.unwrap();
    repo.put_log(&instance(), plain, 3).await.unwrap();
    assert_eq!(repo.put_log(&instance(), folded, 3).await.unwrap().stored_bytes, None);
    assert_eq!(repo.read_log_span(&instance(), &log(), stored.span).await.unwrap().head.format, 1);
}

#[tokio::test]
async fn nothing_is_left_of_what_a_buffer_held_before() {
    let (repo, _store) = repo(Cipher::Aes256Gcm);
    for (form, level, start) in [(LogForm::PostgresqlRecords, 3, 16384), (LogForm::Bytes, 0, 32768)] {
        let content = records(start);
        let held = LogPiece { content: content.clone(), form, ..piece(start, start) };
        let stored = repo.put_log(&instance(), held, level).await.unwrap();
        for length in [0, 1, content.len() - 1, content.len(), 3 * content.len()] {
            let used = vec![0xA5; length];
            let read = repo.read_log_span_into(&instance(), &log(), stored.span, used).await.unwrap();
            assert!(read.content == content, "{form:?} behind {length} bytes");
        }
    }
}

#[tokio::test]
async fn every_bit_of_an_object_counts() {
    let (repo, store) = repo(Cipher::Aes256Gcm);
    let marks = vec![mark(10, 10, LogMarkKind::Commit { transaction: 3 })];
    let stored = repo.put_log(&instance(), LogPiece { marks, ..piece(0, 600) }, 2).await.unwrap();
    let layout = InstanceLayout::new(instance());
    let name = layout.log_object(&log(), stored.span).unwrap();
    let object = store.get(&name, 1 << 20).await.unwrap();
    for bit in 0..object.len() * 8 {
        let mut flipped = object.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        store.delete(&name).await.unwrap();
        store.put_if_absent(&name, flipped.into()).await.unwrap();
        let error = repo.read_log_span(&instance(), &log(), stored.span).await;
        assert!(error.is_err(), "bit {bit}");
    }
    for length in 0..object.len() {
        store.delete(&name).await.unwrap();
        store.put_if_absent(&name, object.slice(..length)).await.unwrap();
        assert!(repo.read_log_span(&instance(), &log(), stored.span).await.is_err(), "cut to {length}");
    }
    // Under another position it is another's.
    let moved = LogSpan { start: 600, end: 1200 };
    store.put_if_absent(&layout.log_object(&log(), moved).unwrap(), object).await.unwrap();
    assert!(repo.read_log_span(&instance(), &log(), moved).await.is_err());
}

#[tokio::test]
async fn a_glance_shows_head_and_marks_and_notices_another_size() {
    for cipher in [Cipher::None, Cipher::Aes256Gcm] {
        let (repo, _) = repo(cipher);
        let marks: Vec<LogMark> = (0..30_000u64)
            .map(|n| mark(n * 3 + 1, n as i64, LogMarkKind::Commit { transaction: n }))
            .collect();
        for (start, marks) in [(0, marks), (100_000, Vec::new())] {
            let piece = LogPiece { marks: marks.clone(), ..piece(start, start + 100_000) };
            repo.put_log(&instance(), piece, 3).await.unwrap();
            let listed = repo.timeline_log(&instance(), &log()).await.unwrap();
            let object = *listed.objects.last().unwrap();
            let glance = repo.glance_at_log(&instance(), &log(), object).await.unwrap();
            let whole = repo.read_log_span(&instance(), &log(), object.span).await.unwrap();
            assert_eq!(glance.head, whole.head);
            assert_eq!(repo.marks_of(&glance).await.unwrap(), marks);
            let shorter = LogObject { size_bytes: object.size_bytes - 1, ..object };
            let error = repo.glance_at_log(&instance(), &log(), shorter).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt);
        }
    }
}
