use std::os::unix::fs::PermissionsExt;

use backstay_model::error::Classified;
use backstay_model::parts::{FileShape, FileSpec, ParentFile, PartKind, PartTarget};
use backstay_model::{ErrorKind, Fault};

use super::super::rules;
use super::*;

fn options(directory: &Path) -> PlaceOptions {
    PlaceOptions { directory: directory.to_owned(), ..PlaceOptions::default() }
}

fn space(oid: u32, location: &Path) -> Tablespace {
    Tablespace { oid, name: format!("space{oid}"), location: location.to_str().unwrap().to_owned() }
}

fn part(path: &str, kind: PartKind) -> ParentFile {
    let spec = FileSpec {
        path: path.into(),
        kind,
        mode: 0o600,
        user_id: rustix::process::geteuid().as_raw(),
        group_id: rustix::process::getegid().as_raw(),
        modified: 0,
    };
    ParentFile { spec, crc32c: None }
}

fn file(path: &str, size: u64) -> ParentFile {
    part(path, PartKind::File(FileShape { size, block_size: 8192 }))
}

fn check(options: &PlaceOptions) -> Result<PlacePlan> {
    PlacePlan::check(options, &SpaceNeeded::default())
}

#[test]
fn a_place_that_is_taken_is_refused_before_anything_is_written() {
    let root = tempfile::tempdir().unwrap();
    let taken = root.path().join("taken");
    fs::create_dir(&taken).unwrap();
    fs::write(taken.join("somebody's"), "").unwrap();
    let error = check(&options(&taken)).unwrap_err();
    assert!(matches!(error, Error::TargetNotEmpty { .. }), "{error}");
    assert_eq!(error.kind(), ErrorKind::Conflict);
    fs::write(taken.join("postmaster.pid"), "1").unwrap();
    assert!(matches!(check(&options(&taken)).unwrap_err(), Error::TargetRunning { .. }));
    let a_file = taken.join("somebody's");
    assert!(matches!(check(&options(&a_file)).unwrap_err(), Error::TargetUnusable { .. }));
    assert!(!root.path().join("new").exists());
    check(&options(&root.path().join("new"))).unwrap();
    assert!(!root.path().join("new").exists(), "looking makes nothing");
}

#[test]
fn a_file_system_that_is_too_small_is_refused_with_both_sizes() {
    let root = tempfile::tempdir().unwrap();
    let needed = SpaceNeeded { main: u64::MAX / 4, ..SpaceNeeded::default() };
    let error = PlacePlan::check(&options(&root.path().join("new")), &needed).unwrap_err();
    assert!(error.to_string().contains("are needed"), "{error}");
    assert!(matches!(error, Error::TargetTooSmall { .. }));
}

#[test]
fn space_is_counted_where_it_will_be_used() {
    let mut needed = SpaceNeeded::default();
    needed.add("base/5/1", 8192);
    needed.add("PG_VERSION", 3);
    needed.add("pg_tblspc/16385/PG_15/5/1", 5000);
    assert_eq!((needed.main, needed.files), (8192 + 4096, 3));
    assert_eq!(needed.tablespaces[&16385], 8192);
}

#[test]
fn tablespaces_are_found_by_location_name_or_number() {
    let root = tempfile::tempdir().unwrap();
    let (old, new) = (root.path().join("old"), root.path().join("moved"));
    for word in [old.to_str().unwrap().to_owned() + "/", "space16385".into(), "16385".into()] {
        let mut options = options(&root.path().join("data"));
        options.tablespaces = vec![space(16385, &old)];
        options.moved = vec![(word, new.clone())];
        let plan = check(&options).unwrap();
        assert_eq!(plan.tablespaces[&16385], new);
        assert!(plan.is_moved);
        options.moved[0].0 = "/elsewhere".into();
        assert!(matches!(check(&options).unwrap_err(), Error::TablespaceUnknown { .. }));
    }
}

#[test]
fn a_tablespace_that_still_lies_at_its_old_place_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let old = root.path().join("old");
    fs::create_dir(&old).unwrap();
    fs::write(old.join("x"), "").unwrap();
    let mut options = options(&root.path().join("data"));
    options.tablespaces = vec![space(16385, &old)];
    assert!(matches!(check(&options).unwrap_err(), Error::TargetNotEmpty { path } if path == old));
    options.moved = vec![("16385".into(), root.path().join("data"))];
    assert!(check(&options).is_err(), "two places may not be one");
}

#[test]
fn a_place_that_recovery_will_link_to_is_refused_when_it_is_in_use() {
    let root = tempfile::tempdir().unwrap();
    let live = root.path().join("live");
    let mut options = options(&root.path().join("data"));
    options.late_tablespaces = vec![space(16386, &live)];
    check(&options).unwrap();
    fs::create_dir_all(live.join("PG_15_202209061")).unwrap();
    assert!(matches!(check(&options).unwrap_err(), Error::TargetNotEmpty { path } if path == live));
}

#[test]
fn a_map_that_leads_to_an_unknown_place_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let mut options = options(&root.path().join("data"));
    options.tablespaces = vec![space(16385, Path::new("/old/place"))];
    options.moved = vec![("16385".into(), root.path().join("space"))];
    let target = check(&options).unwrap().begin().unwrap();
    let moved = target.moved_map("16385 /old/place\n16386 pg_tblspc/16386\n").unwrap();
    let space = root.path().join("space");
    assert_eq!(moved, format!("16385 {}\n16386 pg_tblspc/16386\n", space.display()));
    let unknown = target.moved_map("16385 /old/place\n16387 /live\n").unwrap_err();
    assert!(unknown.contains("/live"), "{unknown}");
    assert!(target.moved_map("nonsense").is_err());
}

#[test]
fn a_person_hears_of_subscriptions_before_the_copy_runs() {
    assert_eq!(seal::subscriptions(0), None);
    let finding = seal::subscriptions(2).unwrap();
    assert!(
        finding.message.starts_with("2 were enabled") && finding.remedy.contains("DISABLE"),
        "{finding:?}"
    );
}

#[test]
fn parts_come_to_lie_where_they_belong() {
    let root = tempfile::tempdir().unwrap();
    let data = root.path().join("data");
    let mut options = options(&data);
    options.tablespaces = vec![space(16385, Path::new("/old/place"))];
    options.moved = vec![("/old/place".into(), root.path().join("space"))];
    let target = check(&options).unwrap().begin().unwrap();
    assert!(target.create(&part("pg_tblspc/16385", PartKind::Directory)).unwrap().is_none());
    let writer = target.create(&file("pg_tblspc/16385/PG_15_1/5/1", 8)).unwrap().unwrap();
    writer.write_at(4, b"abcd").unwrap();
    writer.finish().unwrap();
    target.create(&file(rules::CONTROL_FILE, 4)).unwrap();
    assert_eq!(fs::read_link(data.join("pg_tblspc/16385")).unwrap(), root.path().join("space"));
    assert_eq!(fs::read(root.path().join("space/PG_15_1/5/1")).unwrap(), b"\0\0\0\0abcd");
    assert!(!data.join("global/pg_control").exists(), "an interrupted restore cannot start");
    let mode = fs::metadata(&data).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn nothing_is_opened_twice_or_outside() {
    let root = tempfile::tempdir().unwrap();
    let target = check(&options(&root.path().join("data"))).unwrap().begin().unwrap();
    target.create(&file("a/b", 1)).unwrap();
    let twice: Result<_, Fault> = target.create(&file("a/b", 1));
    assert_eq!(twice.err().unwrap().kind(), ErrorKind::Conflict);
    for path in ["../x", "/etc/x", "a/../../x", "", "./x"] {
        assert!(target.create(&file(path, 1)).is_err(), "{path}");
    }
}

#[test]
fn only_the_data_directory_is_closed_to_others_and_not_what_is_made_above_it() {
    let root = tempfile::tempdir().unwrap();
    let above = root.path().join("restore");
    let plan = check(&options(&above.join("orders"))).unwrap();
    let _target = plan.begin().unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&above.join("orders")), 0o700);
    assert_eq!(mode(&above) & 0o011, 0o011, "its owner must get through");
}
