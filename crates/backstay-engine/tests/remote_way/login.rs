//! Who may connect, and over what.

use backstay_engine::Error;
use backstay_engine::postgres::PostgresSettings;
use backstay_engine::postgres::walsender::Walsender;
use backstay_model::error::Classified;
use backstay_model::{ErrorKind, Secret, TimelineId};
use testkit::postgres::PASSWORD;
use testkit::{Installation, Postgres, PostgresOptions, PostgresVersion, StopMode, require_postgres};
use tokio::runtime::Runtime;

use super::directory::{address, back_up};

fn start() -> Option<(Installation, Postgres)> {
    let installation = require_postgres(PostgresVersion::V15)?;
    let server = Postgres::start_new(&installation, &PostgresOptions::default()).unwrap();
    Some((installation, server))
}

fn connect(runtime: &Runtime, url: &str, password: &str) -> Result<Walsender, Error> {
    let password = Some(Secret::new(password));
    let settings = PostgresSettings { url: url.to_owned(), password, ..PostgresSettings::default() };
    runtime.block_on(Walsender::connect(&settings.address()?))
}

#[test]
fn commands_are_answered_and_a_refusal_does_not_end_the_connection() {
    let Some((_, server)) = start() else { return };
    let runtime = Runtime::new().unwrap();
    for url in [server.url(), server.socket_url()] {
        let mut walsender = connect(&runtime, &url, PASSWORD).unwrap();
        assert_eq!(walsender.major(), 15);
        runtime.block_on(async {
            let identity = walsender.identify_system().await.unwrap();
            assert_eq!(identity.timeline, TimelineId(1));
            assert_eq!(walsender.show("wal_segment_size").await.unwrap(), "16MB");
            let refused = walsender.show("no such setting").await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Unsupported, "{refused}");
            assert!(walsender.timeline_history(TimelineId(7)).await.is_err());
            assert_eq!(walsender.read_slot("mine").await.unwrap(), None);
            walsender.create_slot("mine").await.unwrap();
            let slot = walsender.read_slot("mine").await.unwrap().unwrap();
            assert!(slot.restart.unwrap() <= identity.flushed);
            walsender.drop_slot("mine").await.unwrap();
            assert_eq!(walsender.read_slot("mine").await.unwrap(), None);
        });
    }
}

#[test]
fn the_history_of_a_promoted_server_can_be_read() {
    let Some((_, primary)) = start() else { return };
    let runtime = Runtime::new().unwrap();
    let standby = primary.standby().unwrap();
    standby.promote().unwrap();
    let mut walsender = connect(&runtime, &standby.url(), PASSWORD).unwrap();
    let history = runtime.block_on(walsender.timeline_history(TimelineId(2))).unwrap();
    assert_eq!(history.name, "00000002.history");
    assert!(history.content.starts_with(b"1\t0/"));
}

#[test]
fn a_wrong_password_is_told_without_the_password() {
    let Some((_, server)) = start() else { return };
    let runtime = Runtime::new().unwrap();
    let error = connect(&runtime, &server.url(), "hunter2").err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.hints().iter().any(|hint| hint.contains("`password`")), "{:?}", error.hints());
    assert!(!format!("{error:?}").contains("hunter2"));
}

#[test]
fn a_server_that_does_not_listen_is_unavailable() {
    let Some((_, mut server)) = start() else { return };
    let runtime = Runtime::new().unwrap();
    server.stop(StopMode::Fast).unwrap();
    let error = connect(&runtime, &server.url(), PASSWORD).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.hints().iter().any(|hint| hint.contains("`url`")), "{:?}", error.hints());
}

#[test]
fn a_role_without_replication_is_told_the_statement_that_helps() {
    let Some((_, server)) = start() else { return };
    let runtime = Runtime::new().unwrap();
    server.create_role("weak", "secret", "").unwrap();
    let error = connect(&runtime, &server.url_as("weak"), "secret").err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Denied);

    let outcome = backstay_engine::postgres::Outcome::new();
    let options = backstay_engine::postgres::remote::RemoteOptions { label: "x".to_owned(), parent: None };
    let settings = PostgresSettings {
        url: server.url_as("weak"),
        password: Some(Secret::new("secret")),
        ..PostgresSettings::default()
    };
    let address = settings.address().unwrap();
    let begun = backstay_engine::postgres::remote::RemoteBackup::start(
        &address,
        options,
        outcome,
        tokio_util::sync::CancellationToken::new(),
    );
    let error = runtime.block_on(begun).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Denied);
    let hints = error.hints().join("; ");
    assert!(hints.contains("ALTER ROLE") && hints.contains("REPLICATION"), "{hints}");
}

#[test]
fn md5_and_clear_text_are_answered_where_nobody_can_listen() {
    let Some((_, server)) = start() else { return };
    let runtime = Runtime::new().unwrap();
    server
        .sql("SET password_encryption = md5; CREATE ROLE older LOGIN REPLICATION PASSWORD 'secret'")
        .unwrap();
    server.create_role("plain", "secret", "REPLICATION").unwrap();
    server
        .prepend_access_rules(&[
            "host replication older 127.0.0.1/32 md5",
            "host replication plain 127.0.0.1/32 password",
        ])
        .unwrap();
    connect(&runtime, &server.url_as("older"), "secret").unwrap();
    assert!(connect(&runtime, &server.url_as("older"), "wrong").is_err());
    let refused = connect(&runtime, &server.url_as("plain"), "secret").err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::Denied);
    let chosen = format!("{}?sslmode=disable", server.url_as("plain"));
    connect(&runtime, &chosen, "secret").unwrap();
}

#[test]
fn tls_is_checked_and_the_password_is_bound_to_it() {
    let Some((_, server)) = start() else { return };
    let runtime = Runtime::new().unwrap();
    let required = format!("{}?sslmode=require", server.url());
    let error = connect(&runtime, &required, PASSWORD).err().unwrap();
    assert!(matches!(error, Error::TlsRefused { .. }), "{error}");
    assert!(error.hints().iter().any(|hint| hint.contains("`ssl = on`")), "{:?}", error.hints());

    let names = vec!["localhost".to_owned()];
    let signed = rcgen::generate_simple_self_signed(names).unwrap();
    server.write_data_file("server.crt", signed.cert.pem().as_bytes(), 0o600).unwrap();
    server.write_data_file("server.key", signed.signing_key.serialize_pem().as_bytes(), 0o600).unwrap();
    server.append_configuration(&["ssl = on"]).unwrap();
    server.prepend_access_rules(&["hostnossl all all 127.0.0.1/32 reject"]).unwrap();
    server.reload().unwrap();
    let certificate = server.workspace().path().join("ca.pem");
    std::fs::write(&certificate, signed.cert.pem()).unwrap();

    let by_name = server.url().replace("127.0.0.1", "localhost");
    let root = format!("sslrootcert={}", certificate.display());
    testkit::wait_until(std::time::Duration::from_secs(30), "the server to offer TLS", || {
        connect(&runtime, &required, PASSWORD).is_ok()
    })
    .unwrap();
    let mut walsender =
        connect(&runtime, &format!("{by_name}?sslmode=verify-full&{root}"), PASSWORD).unwrap();
    assert!(walsender.is_channel_bound());
    assert!(runtime.block_on(walsender.identify_system()).is_ok());

    // The name of the certificate is not the address; only one of the modes minds.
    connect(&runtime, &format!("{}?sslmode=verify-ca&{root}", server.url()), PASSWORD).unwrap();
    let wrong_name = connect(&runtime, &format!("{}?sslmode=verify-full&{root}", server.url()), PASSWORD);
    assert!(matches!(wrong_name.err().unwrap(), Error::Tls { .. }));
    // Nobody knows who signed it.
    let unknown = connect(&runtime, &format!("{by_name}?sslmode=verify-full"), PASSWORD);
    assert!(unknown.is_err());

    // A whole backup over TLS: `prefer` takes it, and there is no other way in.
    assert_eq!(address(&server).tls.name(), "prefer");
    assert_eq!(back_up(&runtime, &server, None).unwrap().findings, []);
}
