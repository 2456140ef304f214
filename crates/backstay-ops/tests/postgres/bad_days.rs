//! What happens in the middle: a full disk, a dead server, a second backup, a
//! request to stop. No visible half-backup, nothing lost, and the next run works.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use backstay_model::ErrorKind;
use backstay_model::error::Classified;
use backstay_ops::backup::BackupOptions;
use backstay_ops::collect::CollectOptions;
use backstay_ops::verify::Subject;
use backstay_ops::{Clock as _, Context, Error, backup, collect, list, verify};
use backstay_repo::store::faulty::{Call, FaultyStore, Injection};
use backstay_repo::writer::WriterOptions;
use testkit::PostgresVersion;
use tokio_util::sync::CancellationToken;

use crate::house::House;

const FULL: BackupOptions = BackupOptions { full: true, compression_level: None };

/// A backup over a store that makes trouble, after which the one made before is
/// still sound and the next one works.
async fn trouble(house: &House, context: &Context) -> Error {
    let error = backup::run(context, &house.instance, &FULL).await.unwrap_err();
    let listed = list::run(&house.context, None).await.unwrap();
    assert_eq!((listed.backups.len(), listed.findings.len()), (1, 0), "after {error}");
    let report =
        verify::run(&house.context, &Subject::All, backstay_model::VerifyLevel::Digest).await.unwrap();
    assert_eq!(report.exit_code(), 0, "after {error}");
    error
}

async fn built() -> Option<House> {
    let house = House::build(PostgresVersion::V15).await?;
    house.server.sql("CREATE TABLE t AS SELECT n, md5(n::text) FROM generate_series(1, 50000) n").unwrap();
    backup::run(&house.context, &house.instance, &FULL).await.unwrap();
    Some(house)
}

async fn works_again(house: &House) {
    backup::run(&house.context, &house.instance, &BackupOptions::default()).await.unwrap();
    assert_eq!(list::run(&house.context, None).await.unwrap().backups.len(), 2);
}

/// Does something once, when the first byte of a pack is about to be stored.
fn at_the_first_pack(act: impl Fn() + Send + Sync + 'static) -> impl Fn(&Call) -> Injection + Send + Sync {
    let done = AtomicBool::new(false);
    move |call| {
        if call.object.contains("/packs/") && call.bytes > 0 && !done.swap(true, Ordering::SeqCst) {
            act();
        }
        Injection::Pass
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_half_way_leaves_nothing_but_space_for_the_collector() {
    let Some(house) = built().await else { return };
    let context = house.with_store(|disk| FaultyStore::full_after(disk, 1 << 20)).await;
    let error = trouble(&house, &context).await;
    assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Conflict), "{error}");
    assert!(!error.hints().is_empty());
    works_again(&house).await;
    // Two backups of one process: the dead session is told by its missing intent.
    let options = CollectOptions { max_share_percent: Some(100), ..CollectOptions::default() };
    collect::run(&house.context, &options).await.unwrap();
    let report =
        verify::run(&house.context, &Subject::All, backstay_model::VerifyLevel::Digest).await.unwrap();
    assert_eq!(report.exit_code(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_dies_during_the_backup_ends_it() {
    for local in [true, false] {
        let Some(mut house) = built().await else { return };
        if !local {
            house.settings().data_directory = None;
        }
        let pid_file = house.server.data_directory().join("postmaster.pid");
        let stop_it = move || {
            let text = std::fs::read_to_string(&pid_file).unwrap();
            let pid = text.lines().next().unwrap().to_owned();
            assert!(Command::new("kill").args(["-QUIT", &pid]).status().unwrap().success());
        };
        let context = house.with_store(|disk| FaultyStore::new(disk, at_the_first_pack(stop_it))).await;
        let error = trouble(&house, &context).await;
        assert_eq!(error.kind(), ErrorKind::Unavailable, "local {local}: {error}");
        assert!(!error.hints().is_empty(), "{error}");
        testkit::wait_until(std::time::Duration::from_secs(30), "the server to be gone", || {
            !house.server.is_running()
        })
        .unwrap();
        house.server.start().unwrap();
        works_again(&house).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_to_stop_in_the_middle_ends_the_backup() {
    let Some(house) = built().await else { return };
    let cancel = CancellationToken::new();
    let stop = cancel.clone();
    let context =
        house.with_store(|disk| FaultyStore::new(disk, at_the_first_pack(move || stop.cancel()))).await;
    let context = Context::new(context.repo, context.clock, cancel, Arc::clone(&context.progress));
    let error = trouble(&house, &context).await;
    assert_eq!(error.kind(), ErrorKind::Cancelled, "{error}");
    works_again(&house).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_backup_of_one_instance_gives_way_to_the_first() {
    let Some(house) = built().await else { return };
    let options = WriterOptions {
        lanes: 1,
        compression_level: 1,
        verify: true,
        damaged_packs: Default::default(),
        sequence: 1,
    };
    let first =
        house.context.repo.begin_backup(&house.instance.id, None, house.clock.now(), options).await.unwrap();
    let error = trouble(&house, &house.context).await;
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert!(error.to_string().contains("runs already"), "{error}");
    first.abandon().await;
    works_again(&house).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_that_is_promoted_during_its_backup_ends_it() {
    let Some(mut house) = built().await else { return };
    let standby = house.server.standby().unwrap();
    standby.wait_for_replay_of(&house.server).unwrap();
    house.settings().url = standby.url();
    house.settings().data_directory = Some(standby.data_directory().to_owned());
    let standby = Arc::new(standby);
    let promoted = Arc::clone(&standby);
    let promote = move || promoted.promote().unwrap();
    let context = house.with_store(|disk| FaultyStore::new(disk, at_the_first_pack(promote))).await;
    let error = trouble(&house, &context).await;
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert!(error.to_string().contains("promoted"), "{error}");
}
