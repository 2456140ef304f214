use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;

use backstay_model::ErrorKind;
use backstay_model::error::Classified;
use flate2::Compression;
use flate2::write::GzEncoder;

use super::*;

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(testkit::fixture(name)).unwrap()
}

fn unpacked(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    flate2::read::MultiGzDecoder::new(&fixture(name)[..]).read_to_end(&mut bytes).unwrap();
    bytes
}

fn looked(kind: SnapshotKind, bytes: &[u8]) -> Result<SnapshotFacts> {
    Ok(read(kind, bytes, None)?.0)
}

fn rdb(bytes: &[u8]) -> Result<RdbFacts> {
    match looked(SnapshotKind::Rdb, bytes)? {
        SnapshotFacts::Rdb(facts) => Ok(facts),
        _ => unreachable!(),
    }
}

fn influx(bytes: &[u8]) -> Result<InfluxFacts> {
    match looked(SnapshotKind::InfluxInTar, bytes)? {
        SnapshotFacts::Influx(facts) => Ok(facts),
        _ => unreachable!(),
    }
}

fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        builder.append(&header, *bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

/// The members of an archive, to put some of them into another.
fn members(bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut archive = tar::Archive::new(bytes);
    let files = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        (entry.path().unwrap().to_string_lossy().into_owned(), bytes)
    });
    files.filter(|(name, _)| !name.ends_with('/')).collect()
}

fn packed(members: &[(String, Vec<u8>)]) -> Vec<u8> {
    archive(&members.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect::<Vec<_>>())
}

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn a_snapshot_of_a_real_server_is_whole_and_says_what_it_is() {
    let facts = rdb(&fixture("redis-7.0.15.rdb")).unwrap();
    assert_eq!((facts.version, facts.is_valkey, facts.checksum), (10, false, RdbChecksum::Good));
    assert_eq!(facts.server_version.as_deref(), Some("7.0.15"));
    // 2026-11-21.
    assert_eq!(facts.saved_at_seconds.unwrap() / 86_400, 20_778);
}

#[test]
fn every_cut_and_every_flipped_bit_of_a_snapshot_is_noticed() {
    let whole = fixture("redis-7.0.15.rdb");
    for end in 0..whole.len() {
        let error = rdb(&whole[..end]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{end}: {error}");
    }
    for at in 0..whole.len() * 8 {
        let mut flipped = whole.clone();
        flipped[at / 8] ^= 1 << (at % 8);
        assert!(rdb(&flipped).is_err(), "bit {at}");
    }
    assert!(rdb(&[whole.as_slice(), b"\n"].concat()).is_err());
}

#[test]
fn the_sum_is_the_one_that_redis_publishes() {
    let sum = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Redis, b"123456789");
    assert_eq!(sum, 0xe9c6_d914_c4b8_d9ca);
}

#[test]
fn snapshots_without_a_sum_are_known_by_their_end() {
    let mut without = fixture("redis-7.0.15.rdb");
    let sum_at = without.len() - 8;
    without[sum_at..].fill(0);
    assert_eq!(rdb(&without).unwrap().checksum, RdbChecksum::Disabled);
    without.remove(sum_at - 1);
    assert!(rdb(&without).is_err());
    let old = b"REDIS0003\xfe\x00\x00\x01a\x01b\xff";
    assert_eq!(rdb(old).unwrap().checksum, RdbChecksum::Unknown);
    assert!(rdb(&old[..old.len() - 1]).is_err());
}

#[test]
fn a_snapshot_of_valkey_has_another_name_and_the_same_sum() {
    let mut bytes = b"VALKEY080\xfa\x0avalkey-ver\x059.0.1\xfa\x05ctime\xc2\x00\x00\x00\x01\xff".to_vec();
    let sum = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Redis, &bytes);
    bytes.extend(sum.to_le_bytes());
    let facts = rdb(&bytes).unwrap();
    assert_eq!((facts.version, facts.is_valkey, facts.checksum), (80, true, RdbChecksum::Good));
    assert_eq!((facts.server_version.as_deref(), facts.saved_at_seconds), (Some("9.0.1"), Some(1 << 24)));
}

#[test]
fn the_snapshot_in_an_archive_is_found_and_the_base_of_a_log_is_none() {
    let whole = fixture("redis-7.0.15.rdb");
    let log = ("data/appendonlydir/appendonly.aof.1.base.rdb", whole.as_slice());
    let snapshot = ("data/redis_20240101.rdb", whole.as_slice());
    let in_tar = |files: &[(&str, &[u8])]| looked(SnapshotKind::RdbInTar, &archive(files));
    let found = in_tar(&[("data/notes.txt", b"REDIS"), log, snapshot]).unwrap();
    let SnapshotFacts::Rdb(facts) = found else { unreachable!() };
    assert!(facts.has_append_only && facts.checksum == RdbChecksum::Good);
    let SnapshotFacts::Rdb(alone) = in_tar(&[snapshot]).unwrap() else { unreachable!() };
    assert!(!alone.has_append_only);
    for files in [&[log][..], &[snapshot, ("other.rdb", whole.as_slice())], &[]] {
        assert_eq!(in_tar(files).unwrap_err().kind(), ErrorKind::Unsupported);
    }
    assert_eq!(in_tar(&[("a.rdb", &whole[..200])]).unwrap_err().kind(), ErrorKind::Corrupt);
    let cut = archive(&[snapshot]);
    assert_eq!(looked(SnapshotKind::RdbInTar, &cut[..700]).unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn real_backups_of_influxdb_are_whole_and_say_what_is_in_them() {
    let all = influx(&unpacked("influxdb-1.6.7-portable.tar.gz")).unwrap();
    assert_eq!(all.databases, ["grill_stats", "other"]);
    assert_eq!((all.shards, all.tombstones, all.is_legacy, all.is_of_version_2), (3, 0, false, false));
    assert!(all.heads.len() == 1 && all.heads[0].to_string_lossy().ends_with("Z.manifest"));
    let deleted = influx(&unpacked("influxdb-1.6.7-tombstone.tar.gz")).unwrap();
    assert_eq!((deleted.databases, deleted.shards, deleted.tombstones), (vec!["grill_stats".into()], 2, 1));
    let legacy = influx(&unpacked("influxdb-1.6.7-legacy.tar.gz")).unwrap();
    assert_eq!((legacy.databases, legacy.shards, legacy.is_legacy), (vec!["grill_stats".into()], 2, true));
    assert_eq!(legacy.heads, [PathBuf::from("meta.00")]);
}

#[test]
fn a_backup_whose_program_ended_well_and_whose_shard_is_broken_is_noticed() {
    let error = influx(&unpacked("influxdb-1.6.7-broken.tar.gz")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains(".s1.tar.gz"), "{error}");
}

#[test]
fn whatever_is_cut_gone_or_changed_in_a_backup_of_influxdb_is_noticed() {
    let whole = unpacked("influxdb-1.6.7-portable.tar.gz");
    let files = members(&whole);
    influx(&packed(&files)).unwrap();
    for at in 0..files.len() {
        let without: Vec<_> = files.iter().filter(|file| file.0 != files[at].0).cloned().collect();
        assert_eq!(influx(&packed(&without)).unwrap_err().kind(), ErrorKind::Corrupt, "{}", files[at].0);
        let length = files[at].1.len();
        for shorter in [0, 1, length / 2, length - 9, length - 1] {
            let mut cut = files.clone();
            cut[at].1.truncate(shorter);
            // What follows the databases in their description is not named by the manifest.
            let is_known = !(files[at].0.ends_with(".meta") && shorter > 202 || shorter == length);
            assert_eq!(influx(&packed(&cut)).is_err(), is_known, "{} {shorter}", files[at].0);
        }
    }
    for end in [600, 1500, whole.len() / 2] {
        assert_eq!(influx(&whole[..end]).unwrap_err().kind(), ErrorKind::Corrupt, "{end}");
    }
    // A shard that is another whole archive.
    let mut other = files;
    let shard = other.iter_mut().find(|file| file.0.ends_with(".s1.tar.gz")).unwrap();
    shard.1 = gzipped(&archive(&[("grill_stats/autogen/1/a.tsm", &[7; 5000])]));
    assert!(influx(&packed(&other)).unwrap_err().to_string().contains("2048 bytes"));
}

#[test]
fn what_is_placed_has_no_name_before_it_is_committed() {
    let parent = tempfile::tempdir().unwrap();
    let into = parent.path().join("new");
    let place = |kind, bytes: &[u8]| read(kind, bytes, Some(Files::begin(&into)?));
    let names = || {
        let mut names: Vec<String> = std::fs::read_dir(&into)
            .map(|entries| entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect())
            .unwrap_or_default();
        names.sort();
        names
    };
    let whole = fixture("redis-7.0.15.rdb");
    let (_, files) = place(SnapshotKind::Rdb, &whole).unwrap();
    assert_eq!(names(), ["appendonlydir", "dump.rdb.unfinished"]);
    let placed = Placed::of(files.unwrap()).commit().unwrap();
    let expected =
        ["appendonlydir/appendonly.aof.manifest", "dump.rdb", "appendonlydir/appendonly.aof.1.base.rdb"];
    // On a base without its manifest a server that appends would start empty, and write over it.
    assert_eq!(placed, expected.map(|name| into.join(name)));
    assert_eq!(names(), ["appendonlydir", "dump.rdb"]);
    let manifest = std::fs::read_to_string(&placed[0]).unwrap();
    assert_eq!(manifest, "file appendonly.aof.1.base.rdb seq 1 type b\n");
    assert_eq!(std::fs::read(&placed[2]).unwrap(), whole);
    let mode = std::fs::metadata(into.join("dump.rdb")).unwrap().permissions().mode();
    assert_eq!((mode & 0o777, std::fs::read(into.join("dump.rdb")).unwrap()), (0o600, whole.clone()));
    let Err(error) = place(SnapshotKind::Rdb, &whole) else { panic!("it was put over another") };
    assert_eq!(
        (error.kind(), names()),
        (ErrorKind::Conflict, vec!["appendonlydir".to_owned(), "dump.rdb".to_owned()])
    );
    std::fs::remove_dir_all(&into).unwrap();

    assert!(place(SnapshotKind::Rdb, &whole[..whole.len() - 1]).is_err());
    assert!(!into.exists());
    std::fs::create_dir(&into).unwrap();
    assert!(place(SnapshotKind::Rdb, &whole[..whole.len() - 1]).is_err());
    drop(place(SnapshotKind::Rdb, &whole).unwrap());
    assert!(into.exists() && names().is_empty());

    let set = unpacked("influxdb-1.6.7-portable.tar.gz");
    let (_, files) = place(SnapshotKind::InfluxInTar, &set).unwrap();
    let placed = Placed::of(files.unwrap()).commit().unwrap();
    assert!(placed.last().unwrap().to_string_lossy().ends_with(".manifest"), "{placed:?}");
    for (name, bytes) in members(&set) {
        assert_eq!(std::fs::read(into.join(&name)).unwrap(), bytes, "{name}");
    }
    assert_eq!(names().len(), members(&set).len());
}

#[test]
fn paths_that_would_leave_the_directory_are_refused() {
    let parent = tempfile::tempdir().unwrap();
    let into = parent.path().join("new");
    let files = members(&unpacked("influxdb-1.6.7-portable.tar.gz"));
    for name in ["../outside.meta", "/tmp/outside.meta", "a/../../outside.meta"] {
        let bytes = packed(&[&[(name.to_owned(), vec![1])], &files[..]].concat());
        assert_eq!(influx(&bytes).unwrap_err().kind(), ErrorKind::Corrupt);
        assert!(read(SnapshotKind::InfluxInTar, &bytes[..], Some(Files::begin(&into).unwrap())).is_err());
        assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 0, "{name}");
    }
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    builder.append_link(&mut header, "a.manifest", "/etc/passwd").unwrap();
    assert!(influx(&builder.into_inner().unwrap()).is_err());
}

#[test]
fn a_file_of_another_is_not_removed_when_it_has_the_name_first() {
    let parent = tempfile::tempdir().unwrap();
    let into = parent.path().join("new");
    let placed = || {
        let whole = fixture("redis-7.0.15.rdb");
        read(SnapshotKind::Rdb, &whole[..], Some(Files::begin(&into).unwrap())).unwrap().1.unwrap()
    };
    let dump = into.join("dump.rdb");
    // A server that runs there writes its own.
    let files = placed();
    std::fs::write(&dump, "of a server").unwrap();
    assert!(Placed::of(files).commit().is_err());
    assert_eq!(std::fs::read_dir(&into).unwrap().count(), 1);
    assert_eq!(std::fs::read(&dump).unwrap(), b"of a server");
    std::fs::remove_file(&dump).unwrap();
    let files = placed();
    std::fs::write(&dump, "of a server").unwrap();
    drop(files);
    assert_eq!(std::fs::read(&dump).unwrap(), b"of a server");
}

#[test]
fn an_archive_that_was_cut_between_two_of_its_files_is_noticed() {
    let whole = unpacked("influxdb-1.6.7-legacy.tar.gz");
    let mut reading = tar::Archive::new(&whole[..]);
    let starts: Vec<u64> =
        reading.entries().unwrap().map(|entry| entry.unwrap().raw_header_position()).collect();
    influx(&whole).unwrap();
    for start in &starts[1..] {
        assert_eq!(influx(&whole[..*start as usize]).unwrap_err().kind(), ErrorKind::Corrupt, "{start}");
    }
    let rdb = archive(&[("a.rdb", &fixture("redis-7.0.15.rdb"))]);
    let error = looked(SnapshotKind::RdbInTar, &rdb[..rdb.len() - 1024]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}

#[test]
fn a_head_that_is_too_large_is_refused_before_it_is_held() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["20261121T210443Z.manifest", "meta.00"] {
        let bytes = vec![b' '; (8 << 20) + 1];
        let error = influx(&archive(&[(name, &bytes)])).unwrap_err();
        assert!(error.to_string().contains("8388609 bytes"), "{error}");
        std::fs::write(directory.path().join(name), &bytes).unwrap();
        let names = [PathBuf::from(name)];
        let error =
            influx_files(directory.path(), &names, None, &CancellationToken::new()).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("8388609 bytes"), "{error}");
    }
    let error = super::members(directory.path(), "20261121T210443Z.manifest", &[]).unwrap_err();
    assert!(error.to_string().contains("8388609 bytes"), "{error}");
}

#[test]
fn only_names_that_influxdb_gives_are_members() {
    for name in [
        "20261121T210443Z.meta",
        "20261121T210443Z.s12.tar.gz",
        "20261121T210443Z.7.tar.gz",
        "20261121T210443Z.bolt.gz",
        "20261121T210443Z.sqlite.gz",
        "grill_stats.autogen.00002.00",
        "with.dots.in.it.00002.01",
    ] {
        assert!(may_be_member(name), "{name}");
    }
    for name in [
        "notes.txt",
        "20261121T210443Z.manifest",
        "20261121T210443Z.txt",
        "20261121T210443.meta",
        "20261121T210443Z.s.tar.gz",
        "orders.tar.gz",
        "meta.00",
        "report.2024.01",
        "a.00002.00",
        "orders.autogen.00002",
    ] {
        assert!(!may_be_member(name), "{name}");
    }
    let directory = tempfile::tempdir().unwrap();
    let json = r#"{"meta": {"fileName": "20261121T210443Z.meta", "size": 1}, "files": [{"fileName": "notes.txt", "size": 1}]}"#;
    std::fs::write(directory.path().join("20261121T210443Z.manifest"), json).unwrap();
    let error = super::members(directory.path(), "20261121T210443Z.manifest", &[]).unwrap_err();
    assert!(error.kind() == ErrorKind::Corrupt && error.to_string().contains("notes.txt"), "{error}");
}

#[test]
fn whoever_asks_to_stop_is_heard_within_a_file() {
    let parent = tempfile::tempdir().unwrap();
    let (from, into) = (parent.path().join("from"), parent.path().join("into"));
    std::fs::create_dir(&from).unwrap();
    for (name, bytes) in members(&unpacked("influxdb-1.6.7-legacy.tar.gz")) {
        std::fs::write(from.join(name), bytes).unwrap();
    }
    let mut names: Vec<PathBuf> =
        std::fs::read_dir(&from).unwrap().map(|entry| entry.unwrap().file_name().into()).collect();
    names.sort();
    let cancel = CancellationToken::new();
    influx_files(&from, &names, Some(&into), &cancel).unwrap();
    assert!(!into.exists(), "nothing was committed");
    // A file that has no end.
    let stops = cancel.clone();
    std::thread::scope(|scope| {
        let endless = [PathBuf::from("zero")];
        let reading = scope
            .spawn(move || influx_files(Path::new("/dev"), &endless, None, &stops).map(|_| ()).unwrap_err());
        cancel.cancel();
        assert_eq!(reading.join().unwrap().kind(), ErrorKind::Cancelled);
    });
    let error = influx_files(&from, &names, Some(&into), &cancel).map(|_| ()).unwrap_err();
    assert!(error.kind() == ErrorKind::Cancelled && !into.exists(), "{error}");
}
