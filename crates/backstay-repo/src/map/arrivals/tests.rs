//! What arrives in any order comes out as it would without any limit.

use std::sync::Arc;

use backstay_model::parts::{FileShape, FileSpec, PartKind};
use proptest::prelude::*;

use super::*;
use crate::map::tests::{Bench, session};
use crate::map::{Level, MapPlace, TableDraft};
use crate::seal::Cipher;

fn arrivals(sessions: &Sessions, limit: usize, place: &std::path::Path) -> Arrivals {
    let keys = Arc::new(crate::seal::tests::keys(Cipher::Aes256Gcm));
    Arrivals::new(sessions.clone(), keys, vec![place.to_owned()]).with_limit(limit)
}

fn drain(sorted: SortedRecords) -> Vec<FileRecord> {
    sorted.map(Result::unwrap).collect()
}

/// A record of every kind, by its number.
fn record(sessions: &Sessions, number: u32) -> FileRecord {
    let kind = match number % 7 {
        0 => PartKind::Directory,
        1 => PartKind::Symlink(format!("/srv/space/{number}")),
        _ => PartKind::File(FileShape { size: u64::from(number) * 100, block_size: 8192 }),
    };
    let levels = (0..number % 4).map(|level| Level {
        at: MapPlace {
            session: sessions.index_of(&session(number % 5)).unwrap(),
            map: level,
            frame: number,
            offset: number * 3,
        },
        runs: 1,
        blocks: u64::from(number),
    });
    let is_file = number % 7 > 1;
    FileRecord {
        levels: if is_file { levels.collect() } else { Vec::new() },
        spec: FileSpec {
            path: format!("base/{}/{}", number % 13, blake3::hash(&number.to_le_bytes()).to_hex()),
            kind,
            mode: 0o600 + number % 8,
            user_id: 26,
            group_id: 26,
            modified: i64::from(number) - 50,
        },
        crc32c: (is_file && !number.is_multiple_of(3)).then_some(number),
        digest: if is_file { [number as u8; 16] } else { crate::map::ZERO_HASH },
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn leaves_are_the_same_for_every_order_of_arrival_and_every_limit(
        order in Just((0..900u32).collect::<Vec<_>>()).prop_shuffle(),
        limit in 1usize..20_000,
    ) {
        let bench = Bench::new();
        let place = tempfile::tempdir().unwrap();
        let write = |records: &mut dyn FnMut() -> Option<FileRecord>| {
            let mut writer = bench.writer(&session(9));
            let mut table = TableDraft::new(Vec::new().into(), [7; 32]);
            while let Some(record) = records() {
                writer.put_record(&mut table, &record).unwrap();
            }
            writer.finish_table(table).unwrap().leaves
        };
        let mut plain: Vec<FileRecord> = order.iter().map(|n| record(&bench.sessions, *n)).collect();
        let mut gathered = arrivals(&bench.sessions, limit, place.path());
        for record in &plain {
            gathered.push(record).unwrap();
        }
        plain.sort_by(|a, b| a.spec.path.cmp(&b.spec.path));
        let mut sorted = gathered.sorted().unwrap();
        prop_assert!(matches!(sorted.source, Source::Runs(_)), "the limit was passed");
        let (mut expected, mut position) = (plain.iter().cloned(), Vec::new());
        let leaves = write(&mut || {
            let next = sorted.next().transpose().unwrap();
            position.extend(next.clone());
            next
        });
        prop_assert_eq!(position, plain.clone());
        // The digest of a leaf is over its raw bytes.
        let of = |leaves: Vec<crate::map::LeafEntry>| -> Vec<_> {
            leaves.into_iter().map(|leaf| (leaf.first_path, leaf.digest, leaf.entries)).collect()
        };
        prop_assert_eq!(of(leaves), of(write(&mut || expected.next())));
        prop_assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0, "the file has no name");
    }
}

#[test]
fn a_path_that_came_twice_is_refused_wherever_the_two_lie() {
    let place = tempfile::tempdir().unwrap();
    let sessions = Sessions::new();
    for limit in [1, 1 << 20] {
        let mut gathered = arrivals(&sessions, limit, place.path());
        for number in [1, 2, 3, 2] {
            gathered.push(&record(&sessions, number)).unwrap();
        }
        let outcome = gathered.sorted().unwrap().collect::<Result<Vec<_>>>();
        assert!(outcome.unwrap_err().to_string().contains("came twice"), "limit {limit}");
    }
}

#[test]
fn no_record_at_all_is_an_empty_table() {
    let place = tempfile::tempdir().unwrap();
    assert!(drain(arrivals(&Sessions::new(), 1, place.path()).sorted().unwrap()).is_empty());
}

#[test]
fn a_place_that_cannot_be_used_is_passed_over_and_none_at_all_is_said() {
    let place = tempfile::tempdir().unwrap();
    let blocked = place.path().join("file");
    std::fs::write(&blocked, b"").unwrap();
    let sessions = Sessions::new();
    let gather = |places: Vec<PathBuf>| {
        let keys = Arc::new(crate::seal::tests::keys(Cipher::Aes256Gcm));
        let mut gathered = Arrivals::new(sessions.clone(), keys, places).with_limit(1);
        gathered.push(&record(&sessions, 2)).map(|()| drain(gathered.sorted().unwrap()))
    };
    let good = place.path().join("made/when/needed");
    assert_eq!(gather(vec![blocked.clone(), good]).unwrap(), [record(&sessions, 2)]);
    let error = gather(vec![blocked.clone()]).unwrap_err();
    assert!(matches!(&error, Error::TemporaryFile { directory, .. } if *directory == blocked), "{error}");
}

#[test]
fn a_full_disk_is_passed_over_and_named_when_no_other_takes_the_file() {
    let place = tempfile::tempdir().unwrap();
    let [full, good, blocked] = ["full", "good", "blocked"].map(|name| place.path().join(name));
    std::fs::write(&blocked, b"").unwrap();
    run_file::FULL_PLACES.set(vec![full.clone()]);
    let sessions = Sessions::new();
    let gather = |places: Vec<PathBuf>| {
        let keys = Arc::new(crate::seal::tests::keys(Cipher::Aes256Gcm));
        let mut gathered = Arrivals::new(sessions.clone(), keys, places).with_limit(200);
        (0..50).try_for_each(|number| gathered.push(&record(&sessions, number)))?;
        Ok(drain(gathered.sorted()?))
    };
    let mut expected: Vec<_> = (0..50).map(|number| record(&sessions, number)).collect();
    expected.sort_by(|a, b| a.spec.path.cmp(&b.spec.path));
    assert_eq!(gather(vec![full.clone(), good]).unwrap(), expected);
    for places in [vec![full.clone(), blocked.clone()], vec![blocked, full.clone()]] {
        let error: Error = gather(places).unwrap_err();
        assert!(matches!(&error, Error::TemporaryFile { directory, .. } if *directory == full), "{error}");
    }
}

#[test]
fn what_the_disk_changed_is_noticed() {
    use std::os::unix::fs::FileExt;
    let place = tempfile::tempdir().unwrap();
    let sessions = Sessions::new();
    let mut gathered = arrivals(&sessions, 2000, place.path());
    for number in 0..500 {
        gathered.push(&record(&sessions, number)).unwrap();
    }
    let file = gathered.file.as_ref().unwrap().raw_file().try_clone().unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 700).unwrap();
    file.write_all_at(&[byte[0] ^ 1], 700).unwrap();
    let outcome = gathered.sorted().and_then(Iterator::collect::<Result<Vec<_>>>);
    assert!(matches!(outcome, Err(Error::TemporaryFile { .. })), "{:?}", outcome.map(|r| r.len()));
}
