//! Wrong input and bad days: one clear error, a hint, no visible half-backup.

use backstay_model::error::Classified;
use backstay_model::{ErrorKind, Secret, VerifyLevel};
use backstay_ops::backup::BackupOptions;
use backstay_ops::init::InitOptions;
use backstay_ops::restore::RestoreOptions;
use backstay_ops::verify::Subject;
use backstay_ops::{Clock as _, Error, backup, init, list, restore, verify};
use testkit::{PostgresVersion, StopMode};
use tokio_util::sync::CancellationToken;

use crate::house::House;

/// The error of a backup that must fail, after which nothing must be visible.
async fn failing_backup(house: &House) -> Error {
    let before = list::run(&house.context, None).await.unwrap().backups.len();
    let error = backup::run(&house.context, &house.instance, &BackupOptions::default()).await.unwrap_err();
    assert_eq!(list::run(&house.context, None).await.unwrap().backups.len(), before);
    error
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_away_a_wrong_password_and_a_missing_right_are_told_apart() {
    let Some(mut house) = House::build(PostgresVersion::V15).await else { return };

    house.settings().password = Some(Secret::new("wrong"));
    let error = failing_backup(&house).await;
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    assert!(error.hints()[0].contains("password"), "{:?}", error.hints());

    house.server.create_role("lowly", "secret", "").unwrap();
    house.settings().password = Some(Secret::new("secret"));
    house.settings().url = house.server.url_as("lowly");
    let error = failing_backup(&house).await;
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    assert!(error.hints().iter().any(|hint| hint.contains("GRANT EXECUTE ON FUNCTION pg_backup_start")));

    house.settings().data_directory = None;
    let error = failing_backup(&house).await;
    assert!(
        error.hints().iter().any(|hint| hint.contains("ALTER ROLE lowly REPLICATION")),
        "{:?}",
        error.hints()
    );

    house.server.stop(StopMode::Fast).unwrap();
    let error = failing_backup(&house).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.hints()[0].contains("`url`"));
    // All of it was refused before the repository heard of a backup.
    assert_eq!(house.objects("orders/"), Vec::<std::path::PathBuf>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_that_cannot_be_read_is_told_and_the_network_is_taken() {
    let Some(mut house) = House::build(PostgresVersion::V15).await else { return };
    house.settings().data_directory = Some("/nonexistent/data".into());
    let made = backup::run(&house.context, &house.instance, &BackupOptions::default()).await.unwrap();
    assert!(
        made.findings.iter().any(|finding| finding.subject == "/nonexistent/data"),
        "{:?}",
        made.findings
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_init_touches_neither_repository_nor_key() {
    let Some(house) = House::build(PostgresVersion::V15).await else { return };
    let store = format!("file://{}", house.repository().display());
    let again = |key: &str| InitOptions { store: store.clone(), key_file: Some(house.place(key)), kit: None };
    let clock = house.clock.clone();
    let cancel = CancellationToken::new();
    let error = init::run(&again("other.key"), &*clock, &cancel).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert!(!house.place("other.key").exists(), "a key that opens nothing was left");

    let elsewhere = InitOptions {
        store: format!("file://{}", house.place("elsewhere").display()),
        ..again("repository.key")
    };
    let before = std::fs::read(house.place("repository.key")).unwrap();
    let error = init::run(&elsewhere, &*clock, &cancel).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert_eq!(std::fs::read(house.place("repository.key")).unwrap(), before);
    assert!(!house.place("elsewhere/backstay.json").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_backups_and_targets_beyond_reach_are_refused_with_a_way_out() {
    let Some(house) = House::build(PostgresVersion::V15).await else { return };
    let unknown = "20200101T000000Z-0000".parse().unwrap();
    let error = list::show(&house.context, &unknown).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let subject = Subject::Backup(unknown.clone());
    let error = verify::run(&house.context, &subject, VerifyLevel::Existence).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);

    let options = RestoreOptions { into: house.place("a"), ..RestoreOptions::default() };
    let plan = restore::plan(&house.context, &house.instance, &options).await.unwrap();
    assert_eq!(plan.refusals[0].kind, ErrorKind::NotFound);

    backup::run(&house.context, &house.instance, &BackupOptions::default()).await.unwrap();
    let named = RestoreOptions { backup: Some(unknown), ..options.clone() };
    let plan = restore::plan(&house.context, &house.instance, &named).await.unwrap();
    assert_eq!(plan.refusals[0].kind, ErrorKind::NotFound);
    let beyond = RestoreOptions { target: "2030-01-01T00:00:00Z".parse().unwrap(), ..options };
    let plan = restore::plan(&house.context, &house.instance, &beyond).await.unwrap();
    assert_eq!(plan.refusals[0].kind, ErrorKind::Unrecoverable);
    let error = restore::run(&house.context, &house.instance, &beyond, plan).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unrecoverable);
    assert!(!house.place("a").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_holds_anything_is_refused_by_the_plan() {
    let Some(house) = House::build(PostgresVersion::V15).await else { return };
    backup::run(&house.context, &house.instance, &BackupOptions::default()).await.unwrap();
    let into = house.workspace.directory("full").unwrap();
    std::fs::write(into.join("precious"), b"do not touch").unwrap();
    let options = RestoreOptions { into: into.clone(), ..RestoreOptions::default() };
    let plan = restore::plan(&house.context, &house.instance, &options).await.unwrap();
    assert_eq!(plan.refusals[0].kind, ErrorKind::Conflict);
    assert!(plan.refusals[0].message.contains("not empty"));
    assert_eq!(std::fs::read_dir(&into).unwrap().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_opens_nothing() {
    let Some(house) = House::build(PostgresVersion::V15).await else { return };
    let other = backstay_repo::key::create_key_file(&house.place("other.key")).unwrap();
    let store = format!("file://{}", house.repository().display());
    let error = backstay_ops::open::repository(&store, Some(&other), None, &CancellationToken::new())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    let error =
        backstay_ops::open::repository(&store, None, None, &CancellationToken::new()).await.unwrap_err();
    assert!(error.hints()[0].contains("repository.key"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_of_a_newer_format_is_refused() {
    let Some(house) = House::build(PostgresVersion::V15).await else { return };
    let description = house.place("repository/backstay.json");
    let text = std::fs::read_to_string(&description).unwrap();
    let newer = text.replace("\"format\": 1,", "\"format\": 2,");
    assert_ne!(newer, text);
    std::fs::write(&description, newer).unwrap();
    let store = format!("file://{}", house.repository().display());
    let error =
        backstay_ops::open::repository(&store, None, None, &CancellationToken::new()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("format 2"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_to_stop_ends_a_backup_without_a_trace_in_the_list() {
    let Some(house) = House::build(PostgresVersion::V15).await else { return };
    house.context.cancel.cancel();
    let error = backup::run(&house.context, &house.instance, &BackupOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled, "{error}");
    assert!(house.objects("backups/").is_empty());
    assert!(house.clock.now() > jiff::Timestamp::UNIX_EPOCH);
}
