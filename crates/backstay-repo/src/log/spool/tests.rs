use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

const CUT: u64 = 100;

fn log(timeline: &str) -> LogId {
    LogId { lineage: "65F0A1B2C3D4E5F6".to_owned(), timeline: timeline.to_owned() }
}

fn byte(at: u64) -> u8 {
    (at.wrapping_mul(2_654_435_761) >> 11) as u8
}

fn bytes(start: u64, end: u64) -> Vec<u8> {
    (start..end).map(byte).collect()
}

fn spans(spool: &LogSpool) -> Vec<(String, u64, u64)> {
    spool.spans().into_iter().map(|one| (one.log.timeline, one.span.start, one.span.end)).collect()
}

#[test]
fn what_was_taken_is_there_after_a_restart_and_goes_on_where_it_ended() {
    let place = TempDir::new().unwrap();
    let one = log("00000001");
    let mut spool = LogSpool::open(place.path(), CUT).unwrap();
    spool.append(&one, 130, &bytes(130, 480)).unwrap();
    assert_eq!(spool.flush().unwrap(), Some((one.clone(), 480)));
    assert!(matches!(LogSpool::open(place.path(), CUT), Err(Error::SpoolInUse { .. })));
    drop(spool);
    let mut spool = LogSpool::open(place.path(), CUT).unwrap();
    assert_eq!(spans(&spool), [("00000001".to_owned(), 130, 480)]);
    assert!(spool.spans()[0].is_certain && spool.spans()[0].last_file == 400);
    spool.append(&one, 480, &bytes(480, 520)).unwrap();
    // Another timeline, and a hole in the first.
    spool.append(&log("00000002"), 500, &bytes(500, 510)).unwrap();
    spool.append(&one, 700, &bytes(700, 710)).unwrap();
    let expected = [("00000001", 130, 520), ("00000001", 700, 710), ("00000002", 500, 510)];
    assert_eq!(spans(&spool), expected.map(|(timeline, start, end)| (timeline.to_owned(), start, end)));
    assert_eq!(spool.read(&one, LogSpan { start: 131, end: 519 }).unwrap(), bytes(131, 519));
    assert!(spool.read(&one, LogSpan { start: 515, end: 705 }).is_err());
    for twice in [130, 400, 519, 700, 705] {
        assert!(spool.append(&one, twice, b"x").is_err(), "{twice}");
    }
    assert_eq!(spool.read(&one, LogSpan { start: 130, end: 520 }).unwrap(), bytes(130, 520));
}

#[test]
fn files_go_when_the_store_has_them_and_the_one_that_grows_stays() {
    let place = TempDir::new().unwrap();
    let one = log("00000001");
    let mut spool = LogSpool::open(place.path(), CUT).unwrap();
    spool.append(&one, 0, &bytes(0, 250)).unwrap();
    assert_eq!(spool.trim(&one, 0, 99).unwrap(), 0);
    assert_eq!(spool.trim(&one, 0, 250).unwrap(), 200);
    assert_eq!(spans(&spool), [("00000001".to_owned(), 200, 250)]);
    spool.append(&one, 250, &bytes(250, 300)).unwrap();
    assert_eq!(spool.trim(&one, 0, 300).unwrap(), 100);
    assert_eq!((spans(&spool), spool.bytes()), (Vec::new(), 0));
    spool.append(&one, 300, &bytes(300, 301)).unwrap();
    // One that does not grow any more, for the log went on elsewhere.
    spool.append(&log("00000002"), 300, &bytes(300, 350)).unwrap();
    assert_eq!(spool.trim(&one, 0, 301).unwrap(), 1);
    assert_eq!(spans(&spool), [("00000002".to_owned(), 300, 350)]);
}

#[test]
fn after_a_crash_of_the_machine_the_end_is_not_believed_until_somebody_looked() {
    let place = TempDir::new().unwrap();
    let one = log("00000001");
    let mut spool = LogSpool::open(place.path(), CUT).unwrap();
    spool.append(&one, 0, &bytes(0, 350)).unwrap();
    // Behind a gap.
    spool.append(&one, 570, &bytes(570, 630)).unwrap();
    spool.flush().unwrap();
    drop(spool);
    fs::write(place.path().join(BOOT), "another boot\n").unwrap();
    let mut spool = LogSpool::open(place.path(), CUT).unwrap();
    assert!(!spool.spans()[0].is_certain);
    let stretch = LogSpan { start: 0, end: 350 };
    spool.truncate(&one, stretch, 320).unwrap();
    spool.believe().unwrap();
    assert!(spool.spans()[0].is_certain);
    let behind = ("00000001".to_owned(), 570, 630);
    assert_eq!(spans(&spool), [("00000001".to_owned(), 0, 320), behind]);
    assert_eq!(spool.read(&one, LogSpan { start: 570, end: 630 }).unwrap(), bytes(570, 630));
    spool.truncate(&one, stretch, 100).unwrap();
    spool.append(&one, 100, &bytes(100, 140)).unwrap();
    drop(spool);
    let spool = LogSpool::open(place.path(), CUT).unwrap();
    assert_eq!(spool.read(&one, LogSpan { start: 0, end: 140 }).unwrap(), bytes(0, 140));
}

#[test]
fn a_disk_that_is_full_leaves_what_was_there_and_takes_more_when_there_is_room() {
    let place = TempDir::new().unwrap();
    let one = log("00000001");
    let mut spool = LogSpool::open(place.path(), CUT).unwrap();
    spool.append(&one, 0, &bytes(0, 40)).unwrap();
    // Every write into /dev/full ends as on a full disk.
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let healthy = std::mem::replace(&mut spool.open.as_mut().unwrap().file, full);
    let error = spool.append(&one, 40, &bytes(40, 60)).unwrap_err();
    assert!(matches!(error, Error::Spool { .. }), "{error}");
    assert_eq!(spans(&spool), [("00000001".to_owned(), 0, 40)]);
    spool.open.as_mut().unwrap().file = healthy;
    spool.append(&one, 40, &bytes(40, 60)).unwrap();
    assert_eq!(spool.read(&one, LogSpan { start: 0, end: 60 }).unwrap(), bytes(0, 60));
}

#[test]
fn what_a_flush_could_not_bring_to_the_disk_is_not_there_any_more() {
    let place = TempDir::new().unwrap();
    let one = log("00000001");
    let mut spool = LogSpool::open(place.path(), CUT).unwrap();
    spool.append(&one, 0, &bytes(0, 40)).unwrap();
    spool.flush().unwrap();
    spool.append(&one, 40, &bytes(40, 100)).unwrap();
    // Nothing of a device like this can be flushed.
    let device = OpenOptions::new().write(true).open("/dev/full").unwrap();
    spool.open.as_mut().unwrap().file = device;
    // The next piece goes into another file, and what came before it is flushed first.
    let error = spool.append(&one, 100, &bytes(100, 130)).unwrap_err();
    assert!(matches!(error, Error::Spool { .. }), "{error}");
    assert_eq!((spans(&spool), spool.end_of(&one)), (vec![("00000001".to_owned(), 0, 40)], Some(40)));
    // Received once more.
    spool.append(&one, 40, &bytes(40, 130)).unwrap();
    assert_eq!(spool.read(&one, LogSpan { start: 0, end: 130 }).unwrap(), bytes(0, 130));
}

#[test]
fn bytes_that_come_while_others_are_flushed_are_durable_with_the_next_flush() {
    let place = TempDir::new().unwrap();
    let one = log("00000001");
    let mut spool = LogSpool::open(place.path(), CUT).unwrap();
    assert!(spool.begin_flush().unwrap().is_none(), "there is nothing");
    spool.append(&one, 0, &bytes(0, 40)).unwrap();
    let flush = spool.begin_flush().unwrap().unwrap();
    spool.append(&one, 40, &bytes(40, 60)).unwrap();
    spool.end_flush(&flush, flush.run()).unwrap();
    let open = spool.open.as_ref().unwrap();
    assert_eq!((flush.end(), open.durable, open.end, open.is_new), (40, 40, 60, false));
    // The file ends while its flush is on its way, and is flushed for that.
    let flush = spool.begin_flush().unwrap().unwrap();
    spool.append(&one, 60, &bytes(60, 130)).unwrap();
    spool.end_flush(&flush, flush.run()).unwrap();
    assert_eq!(spool.open.as_ref().unwrap().durable, 100, "what lies in the next file is another flush's");
    spool.flush().unwrap();
    assert!(spool.begin_flush().unwrap().is_none());
}

fn durable_to_40_of_60(place: &TempDir) -> (LogSpool, LogId) {
    let one = log("00000001");
    let mut spool = LogSpool::open(place.path(), CUT).unwrap();
    spool.append(&one, 0, &bytes(0, 40)).unwrap();
    spool.flush().unwrap();
    spool.append(&one, 40, &bytes(40, 60)).unwrap();
    (spool, one)
}

#[test]
fn a_flush_that_fails_takes_what_came_beside_it_and_every_other_flush_hears_of_it() {
    let place = TempDir::new().unwrap();
    let (mut spool, one) = durable_to_40_of_60(&place);
    let (failing, beside) = (spool.begin_flush().unwrap().unwrap(), spool.begin_flush().unwrap().unwrap());
    spool.append(&one, 60, &bytes(60, 80)).unwrap();
    let error = spool.end_flush(&failing, Err(io::Error::from_raw_os_error(5))).unwrap_err();
    assert!(matches!(error, Error::Spool { .. }), "{error}");
    assert!(spool.end_flush(&beside, beside.run()).is_err(), "the system tells of lost bytes once");
    assert_eq!((spans(&spool), spool.end_of(&one)), (vec![("00000001".to_owned(), 0, 40)], Some(40)));
    spool.append(&one, 40, &bytes(40, 90)).unwrap();
    spool.flush().unwrap();
    assert_eq!(spool.read(&one, LogSpan { start: 0, end: 90 }).unwrap(), bytes(0, 90));
}

#[test]
fn an_inline_flush_that_was_told_nothing_of_a_failure_beside_it_is_not_believed() {
    let place = TempDir::new().unwrap();
    let (mut spool, one) = durable_to_40_of_60(&place);
    let (failing, beside) = (spool.begin_flush().unwrap().unwrap(), spool.begin_flush().unwrap().unwrap());
    spool.append(&one, 60, &bytes(60, 80)).unwrap();
    spool.flush().unwrap();
    spool.end_flush(&failing, Err(io::ErrorKind::StorageFull.into())).unwrap_err();
    assert_eq!(spans(&spool), [("00000001".to_owned(), 0, 40)]);
    let error = spool.end_flush(&beside, beside.run()).unwrap_err();
    assert!(error.is_full_spool(), "a full disk is waited for: {error}");
}

#[test]
fn a_flush_that_fails_when_its_file_has_ended_takes_back_what_the_next_one_has() {
    let place = TempDir::new().unwrap();
    let (mut spool, one) = durable_to_40_of_60(&place);
    let failing = spool.begin_flush().unwrap().unwrap();
    spool.append(&one, 60, &bytes(60, 230)).unwrap();
    assert!(spool.goes_on_at(&one, 230));
    spool.end_flush(&failing, Err(io::Error::from_raw_os_error(5))).unwrap_err();
    assert_eq!(spans(&spool), [("00000001".to_owned(), 0, 40)]);
    assert!(!spool.goes_on_at(&one, 230) && !spool.goes_on_at(&one, 40));
    drop(spool);
    let spool = LogSpool::open(place.path(), CUT).unwrap();
    assert_eq!(spool.read(&one, LogSpan { start: 0, end: 40 }).unwrap(), bytes(0, 40));
}

proptest! {
    #[test]
    fn pieces_of_any_size_and_restarts_at_any_place_give_one_span(
        from in 0u64..300,
        pieces in prop::collection::vec((1u64..130, any::<bool>()), 1..14),
    ) {
        let place = TempDir::new().unwrap();
        let one = log("00000001");
        let mut spool = LogSpool::open(place.path(), CUT).unwrap();
        let mut at = from;
        for (length, restarts) in pieces {
            spool.append(&one, at, &bytes(at, at + length)).unwrap();
            at += length;
            if restarts {
                drop(spool);
                spool = LogSpool::open(place.path(), CUT).unwrap();
            }
        }
        prop_assert_eq!(spans(&spool), vec![("00000001".to_owned(), from, at)]);
        prop_assert_eq!(spool.read(&one, LogSpan { start: from, end: at }).unwrap(), bytes(from, at));
        prop_assert_eq!(spool.bytes(), at - from);
    }
}
