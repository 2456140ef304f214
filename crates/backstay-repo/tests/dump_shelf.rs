//! A shelf beside the files of others: what has its name, what keeps it, what is shown.

#![allow(clippy::unwrap_used, reason = "functions of a test that are not tests themselves")]

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::PathBuf;
use std::sync::Arc;

use backstay_model::ErrorKind;
use backstay_model::dump::{DumpCipher, DumpCompression, DumpFormat, DumpShape};
use backstay_model::error::Classified as _;
use backstay_repo::Error;
use backstay_repo::dump::{DumpReader, DumpRecipe, DumpWriter};
use backstay_repo::shelf::{DiskShelf, Shelf, ShelfPath};
use backstay_repo::store::StoreError;
use bytes::Bytes;
use jiff::Timestamp;

fn path(text: &str) -> ShelfPath {
    text.parse().unwrap()
}

struct Place {
    directory: tempfile::TempDir,
    shelf: Arc<dyn Shelf>,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let shelf: Arc<dyn Shelf> = Arc::new(DiskShelf::new(directory.path().join("shelf")));
        Place { directory, shelf }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.directory.path().join("shelf").join(path)
    }

    async fn put(&self, name: &str, text: &'static str) {
        self.shelf.put_if_absent(&path(name), Bytes::from_static(text.as_bytes())).await.unwrap();
    }

    async fn names(&self) -> Vec<String> {
        let files = self.shelf.list_all(None).await.unwrap();
        files.into_iter().map(|file| file.path.to_string()).collect()
    }
}

fn is_taken(result: &Result<(), StoreError>) -> bool {
    matches!(result, Err(StoreError::AlreadyExists { .. }))
}

#[tokio::test]
async fn a_file_has_no_name_before_its_commit_and_takes_nobodys() {
    let place = Place::new();
    let name = path("daily/Käufe 1.sql");
    let mut upload = place.shelf.create(&name).await.unwrap();
    upload.write(Bytes::from_static(b"ours")).await.unwrap();
    assert!(place.names().await.is_empty());
    std::fs::write(place.at("daily/Käufe 1.sql"), "theirs").unwrap();
    assert!(matches!(upload.commit().await, Err(StoreError::AlreadyExists { .. })));
    assert!(is_taken(&place.shelf.put_if_absent(&name, Bytes::from_static(b"ours")).await));
    assert_eq!(place.shelf.get(&name, 100).await.unwrap(), "theirs");
    drop(upload);
    assert_eq!(std::fs::read_dir(place.at(".unfinished")).unwrap().count(), 0);

    let mut upload = place.shelf.create(&path("daily/2.sql")).await.unwrap();
    upload.write(Bytes::from_static(b"ours")).await.unwrap();
    assert_eq!(upload.commit().await.unwrap(), 4);
    let mode = std::fs::metadata(place.at("daily/2.sql")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(place.names().await, ["daily/2.sql", "daily/Käufe 1.sql"]);
}

#[tokio::test]
async fn what_dies_on_the_way_is_swept_and_nothing_else() {
    let place = Place::new();
    let mut upload = place.shelf.create(&path("a")).await.unwrap();
    upload.write(Bytes::from_static(b"x")).await.unwrap();
    // The process dies: nobody drops anything.
    std::mem::forget(upload);
    std::fs::write(place.at(".unfinished/notes"), "of somebody").unwrap();
    assert_eq!(place.shelf.sweep_unfinished(Timestamp::UNIX_EPOCH).await.unwrap(), 0);
    assert_eq!(place.shelf.sweep_unfinished(Timestamp::MAX).await.unwrap(), 1);
    assert!(place.at(".unfinished/notes").exists());
}

#[tokio::test]
async fn what_the_dead_have_left_goes_at_once_and_what_the_living_write_stays() {
    let place = Place::new();
    let mut upload = place.shelf.create(&path("a")).await.unwrap();
    upload.write(Bytes::from_static(b"x")).await.unwrap();
    let unfinished = place.at(".unfinished");
    std::fs::write(unfinished.join("tmp-of-the-dead"), "rows").unwrap();
    std::fs::write(unfinished.join("notes"), "of somebody").unwrap();
    drop(place.shelf.lock().await.unwrap());
    assert_eq!(DiskShelf::new(place.at("")).sweep_dead().await.unwrap(), 1);
    assert!(!unfinished.join("tmp-of-the-dead").exists());
    assert!(unfinished.join("notes").exists() && unfinished.join("lock").exists());
    assert_eq!(upload.commit().await.unwrap(), 1);
    assert_eq!(place.shelf.get(&path("a"), 100).await.unwrap(), "x");
}

#[tokio::test]
async fn a_second_name_is_the_same_file_and_never_in_the_place_of_another() {
    let place = Place::new();
    place.put("daily/a.dump", "text").await;
    let (from, to) = (path("daily/a.dump"), path("weekly/a.dump"));
    place.shelf.link(&from, &to).await.unwrap();
    let inode = |name: &str| std::fs::metadata(place.at(name)).unwrap().ino();
    assert_eq!(inode("daily/a.dump"), inode("weekly/a.dump"));
    assert!(is_taken(&place.shelf.link(&from, &to).await));
    // One name goes, the other stays; so does the directory.
    place.shelf.delete(&from).await.unwrap();
    assert_eq!(place.shelf.get(&to, 100).await.unwrap(), "text");
    assert!(place.at("daily").is_dir());
    assert!(place.shelf.link(&from, &path("x")).await.unwrap_err().is_not_found());
    assert!(place.shelf.link(&path("weekly"), &path("x")).await.is_err());
    // By way of a pointer, the file itself and not the pointer.
    place.shelf.point(&path("latest"), &to).await.unwrap();
    place.shelf.link(&path("latest"), &path("kept")).await.unwrap();
    assert_eq!(inode("kept"), inode("weekly/a.dump"));
    assert!(std::fs::symlink_metadata(place.at("kept")).unwrap().is_file());
}

#[tokio::test]
async fn a_second_name_on_another_file_system_is_a_copy() {
    let place = Place::new();
    let Ok(elsewhere) = tempfile::tempdir_in("/dev/shm") else {
        println!("SKIPPED: there is no second file system here");
        return;
    };
    place.put("here", "x").await;
    let device = |path: PathBuf| std::fs::metadata(path).unwrap().dev();
    if device(place.at("here")) == device(elsewhere.path().to_owned()) {
        println!("SKIPPED: there is no second file system here");
        return;
    }
    let text: Vec<u8> = (0..2_500_000u32).map(|number| (number % 251) as u8).collect();
    std::fs::write(elsewhere.path().join("a.dump"), &text).unwrap();
    symlink(elsewhere.path().join("a.dump"), place.at("there")).unwrap();
    place.shelf.link(&path("there"), &path("weekly/a.dump")).await.unwrap();
    let copy = std::fs::symlink_metadata(place.at("weekly/a.dump")).unwrap();
    assert!(copy.is_file() && copy.nlink() == 1);
    assert!(std::fs::read(place.at("weekly/a.dump")).unwrap() == text);
    assert!(is_taken(&place.shelf.link(&path("there"), &path("here")).await));
}

#[tokio::test]
async fn a_pointer_moves_and_never_takes_the_place_of_a_file() {
    let place = Place::new();
    place.put("daily/1.dump", "one").await;
    place.put("daily/2.dump", "two").await;
    let latest = path("newest/latest.dump");
    for (target, text) in [("daily/1.dump", "one"), ("daily/2.dump", "two")] {
        place.shelf.point(&latest, &path(target)).await.unwrap();
        assert_eq!(place.shelf.get(&latest, 10).await.unwrap(), text);
        assert_eq!(place.shelf.head(&latest).await.unwrap().size_bytes, 3);
        let link = std::fs::read_link(place.at("newest/latest.dump")).unwrap();
        assert_eq!(link.to_str().unwrap(), format!("../{target}"));
    }
    assert_eq!(place.names().await, ["daily/1.dump", "daily/2.dump"]);
    assert!(is_taken(&place.shelf.point(&path("daily/1.dump"), &path("daily/2.dump")).await));
    assert!(is_taken(&place.shelf.point(&path("daily"), &path("x")).await));
    place.shelf.delete(&latest).await.unwrap();
    assert_eq!(place.names().await, ["daily/1.dump", "daily/2.dump"]);
    assert_eq!(std::fs::read_dir(place.at(".unfinished")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_report_is_renewed_whole() {
    let place = Place::new();
    for text in ["one", "two, longer", "3"] {
        place
            .shelf
            .replace(&path("verification/latest.json"), Bytes::from_static(text.as_bytes()))
            .await
            .unwrap();
        assert_eq!(place.shelf.get(&path("verification/latest.json"), 100).await.unwrap(), text);
    }
    assert_eq!(place.names().await, ["verification/latest.json"]);
}

#[tokio::test]
async fn a_listing_shows_every_plain_file_and_passes_over_the_rest() {
    let place = Place::new();
    assert!(place.names().await.is_empty());
    place.put("ours.dump", "x").await;
    std::fs::create_dir_all(place.at("alt/Jänner 2024")).unwrap();
    std::fs::create_dir_all(place.at(".snapshots")).unwrap();
    for name in ["alt/Jänner 2024/db (1).sql.gz", "-rf", ".hidden", ".snapshots/a.sql"] {
        std::fs::write(place.at(name), "x").unwrap();
    }
    symlink("../../elsewhere", place.at("alt/link")).unwrap();
    symlink("alt", place.at("directory-link")).unwrap();
    symlink("nowhere", place.at("dangling")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        place.at("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .unwrap();
    let odd = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"no \xff text");
    std::fs::write(place.at("").join(odd), "x").unwrap();
    assert_eq!(place.names().await, ["-rf", "alt/Jänner 2024/db (1).sql.gz", "ours.dump"]);
    let below = place.shelf.list_all(Some(&path("alt"))).await.unwrap();
    assert_eq!(below.len(), 1);
    assert!(below[0].modified.is_some() && below[0].size_bytes == 1);
    assert!(place.shelf.list_all(Some(&path("nowhere"))).await.unwrap().is_empty());
    // A pipe is no file, and nobody waits for its writer.
    assert!(place.shelf.get(&path("pipe"), 10).await.is_err());
}

#[tokio::test]
async fn a_long_listing_comes_in_pages() {
    let place = Place::new();
    std::fs::create_dir_all(place.at("many")).unwrap();
    for number in 0..2500 {
        std::fs::write(place.at(&format!("many/{number}")), "").unwrap();
    }
    let mut listing = place.shelf.list(None).await.unwrap();
    let mut pages = Vec::new();
    while let Some(page) = listing.next_page().await.unwrap() {
        pages.push(page.len());
    }
    assert!(pages.len() >= 3 && pages.iter().all(|files| *files <= 1000), "{pages:?}");
    assert_eq!(pages.iter().sum::<usize>(), 2500);
}

#[tokio::test]
async fn a_directory_that_cannot_be_read_is_an_error_and_not_an_empty_one() {
    let place = Place::new();
    place.put("daily/a.dump", "x").await;
    std::fs::set_permissions(place.at("daily"), std::fs::Permissions::from_mode(0o000)).unwrap();
    let listed = place.shelf.list_all(None).await;
    std::fs::set_permissions(place.at("daily"), std::fs::Permissions::from_mode(0o700)).unwrap();
    // Root reads it all the same.
    match listed {
        Ok(files) => assert!(rustix::process::geteuid().is_root() && files.len() == 1),
        Err(error) => assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}"),
    }
}

#[tokio::test]
async fn a_dump_that_was_abandoned_or_whose_name_was_taken_leaves_nothing() {
    let place = Place::new();
    let name = path("daily/orders.sql.zst");
    let shape =
        DumpShape { format: DumpFormat::Plain, compression: DumpCompression::Zstd, cipher: DumpCipher::None };
    let recipe = DumpRecipe { shape, level: None, workers: 2 };
    let begin = async || {
        let mut writer = DumpWriter::begin(&*place.shelf, &name, &recipe, None).await.unwrap();
        writer.write(Bytes::from(vec![7; 3_000_000])).await.unwrap();
        writer
    };
    begin().await.abandon().await.unwrap();
    begin().await.finish().await.unwrap().abandon().await.unwrap();
    assert!(place.names().await.is_empty());
    assert_eq!(std::fs::read_dir(place.at(".unfinished")).unwrap().count(), 0);

    let mut finished = begin().await.finish().await.unwrap();
    std::fs::write(place.at("daily/orders.sql.zst"), "theirs").unwrap();
    let error = finished.commit().await.unwrap_err();
    assert!(matches!(error, Error::Store(StoreError::AlreadyExists { .. })), "{error:?}");
    drop(finished);
    assert_eq!(std::fs::read_dir(place.at(".unfinished")).unwrap().count(), 0);
    assert_eq!(std::fs::read(place.at("daily/orders.sql.zst")).unwrap(), b"theirs");
}

#[tokio::test]
async fn a_file_that_shrinks_or_goes_while_it_is_read_is_an_error_of_the_shelf() {
    let place = Place::new();
    let name = path("orders.dump");
    std::fs::create_dir_all(place.at("")).unwrap();
    let mut file = b"PGDMP".to_vec();
    file.resize(20 << 20, 7);
    for cut in [true, false] {
        std::fs::write(place.at("orders.dump"), &file).unwrap();
        let mut reader = DumpReader::open(&place.shelf, &name, None).await.unwrap();
        reader.read().await.unwrap();
        match cut {
            true => std::fs::write(place.at("orders.dump"), b"PGDMP").unwrap(),
            false => std::fs::remove_file(place.at("orders.dump")).unwrap(),
        }
        let error = reader.finish().await.unwrap_err();
        assert!(matches!(error, Error::Store(_)), "{error:?}");
    }
    let error = DumpReader::open(&place.shelf, &name, None).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}
