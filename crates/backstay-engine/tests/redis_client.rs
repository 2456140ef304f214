//! The client of Redis and Valkey on real servers.
#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers of a test fail by panicking")]

use backstay_engine::Error;
use backstay_engine::model::Secret;
use backstay_engine::model::error::{Classified, ErrorKind};
use backstay_engine::redis::connection::Connection;
use backstay_engine::redis::facts::{DatabaseFacts, Product, Role, ServerFacts};
use backstay_engine::redis::sync::FullSync;
use backstay_engine::redis::{RedisError, RedisSettings, rights};
use backstay_engine::snapshot::{RdbCheck, RdbChecksum, RdbFacts};
use testkit::{Redis, RedisVersion, require_redis, wait_until};

type Result<T, E = Error> = std::result::Result<T, E>;

/// The test with a server of each fork.
fn on_both(settings: &[(&str, &str)], test: impl Fn(&Redis)) {
    for version in RedisVersion::ALL {
        if let Some(installation) = require_redis(version) {
            test(&Redis::start_new(&installation, settings).unwrap());
        }
    }
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

fn settings(url: String, password: Option<&str>) -> RedisSettings {
    RedisSettings { url, password: password.map(Secret::new), ..RedisSettings::default() }
}

async fn connect(url: String, password: Option<&str>) -> Result<Connection> {
    Connection::open(&settings(url, password).address()?).await
}

async fn snapshot_of(connection: Connection) -> Result<(FullSync, Vec<u8>)> {
    let mut sync = FullSync::begin(connection).await?;
    let mut bytes = Vec::new();
    while let Some(piece) = sync.next().await? {
        bytes.extend_from_slice(&piece);
    }
    assert_eq!(sync.received(), bytes.len() as u64);
    Ok((sync, bytes))
}

fn checked(bytes: &[u8]) -> RdbFacts {
    let mut check = RdbCheck::default();
    bytes.chunks(7777).for_each(|piece| check.push(piece));
    check.finish().unwrap()
}

fn refused(error: &Error) -> &str {
    match error {
        Error::Redis(RedisError::Refused { message, .. }) => message,
        other => panic!("{other}"),
    }
}

/// More than one read of the socket, and every byte there is.
fn fill(server: &Redis) {
    let mut client = server.client().unwrap();
    let value: Vec<u8> = (0..=255).cycle().take(5000).collect();
    for number in 0..2000 {
        let key = format!("key:{number}");
        client.run(&[b"SET", key.as_bytes(), &value]).unwrap();
    }
    client.run(&["SELECT", "7"]).unwrap();
    client.run(&["SET", "kept", "a", "EX", "1000"]).unwrap();
}

#[test]
fn a_server_says_what_it_is_over_every_way_in() {
    on_both(&[], |server| {
        fill(server);
        let product = match server.installation().version() {
            RedisVersion::Redis70 => Product::Redis,
            RedisVersion::Valkey81 => Product::Valkey,
        };
        for url in [server.url(), format!("unix://{}", server.socket().display())] {
            let facts = block_on(async { ServerFacts::ask(&mut connect(url, None).await?).await }).unwrap();
            assert_eq!((facts.product, facts.role, facts.is_cluster), (product, Role::Master, false));
            assert_eq!(facts.databases[&0], DatabaseFacts { keys: 2000, expires: 0 });
            assert_eq!(facts.databases[&7], DatabaseFacts { keys: 1, expires: 1 });
        }
    });
}

#[test]
fn a_snapshot_comes_whole_and_the_disk_of_the_server_is_not_touched() {
    on_both(&[], |server| {
        fill(server);
        let (sync, bytes) =
            block_on(async { snapshot_of(connect(server.url(), None).await?).await }).unwrap();
        let offset: u64 = server
            .run(&["INFO", "replication"])
            .unwrap()
            .text()
            .lines()
            .find_map(|line| line.strip_prefix("master_repl_offset:").map(|number| number.parse().unwrap()))
            .unwrap();
        assert_eq!(sync.place.offset, offset);
        let facts = checked(&bytes);
        assert_eq!(facts.checksum, RdbChecksum::Good);
        assert!(facts.server_version.is_some());
        assert_eq!(std::fs::read_dir(server.data_directory()).unwrap().count(), 0);
        wait_until(std::time::Duration::from_secs(10), "the server to let us go", || {
            !server.run(&["CLIENT", "LIST"]).unwrap().text().contains("name=backstay")
        })
        .unwrap();
    });
}

#[test]
fn a_server_that_writes_its_snapshot_to_its_own_disk_first_is_understood_as_well() {
    on_both(&[("repl-diskless-sync", "no")], |server| {
        fill(server);
        let (_, bytes) = block_on(async { snapshot_of(connect(server.url(), None).await?).await }).unwrap();
        assert_eq!(checked(&bytes).checksum, RdbChecksum::Good);
    });
}

#[test]
fn the_rights_that_are_named_are_enough_and_without_them_it_is_told() {
    on_both(&[], |server| {
        server.run(&["SET", "a", "b"]).unwrap();
        let statement = rights::STATEMENT.replace("PASSWORD", "two");
        let words: Vec<&str> = statement.split_whitespace().collect();
        server.run(&words).unwrap();
        let url = format!("redis://backstay@127.0.0.1:{}", server.port());
        let outcome = block_on(async {
            let mut connection = connect(url.clone(), Some("two")).await?;
            ServerFacts::ask(&mut connection).await?;
            snapshot_of(connection).await
        });
        assert_eq!(checked(&outcome.unwrap().1).checksum, RdbChecksum::Good);
        // It reads, and does nothing else.
        let asked =
            block_on(async { connect(url.clone(), Some("two")).await?.call("look", &["GET", "a"]).await });
        assert!(refused(&asked.unwrap_err()).starts_with("NOPERM"));

        let wrong = block_on(connect(url.clone(), Some("three"))).err().unwrap();
        assert!(refused(&wrong).starts_with("WRONGPASS"));
        assert_eq!(wrong.kind(), ErrorKind::Denied);
        server.run(&["ACL", "SETUSER", "backstay", "-psync"]).unwrap();
        let denied = block_on(async { snapshot_of(connect(url, Some("two")).await?).await }).err().unwrap();
        assert!(refused(&denied).starts_with("NOPERM"), "{denied}");
        assert!(denied.hints().iter().any(|hint| hint.contains("ACL SETUSER")), "{:?}", denied.hints());
        server.run(&["CONFIG", "SET", "requirepass", "secret"]).unwrap();
        let unknown = block_on(connect(server.url(), None)).err().unwrap();
        assert!(refused(&unknown).starts_with("NOAUTH"));
        assert!(block_on(connect(server.url(), Some("secret"))).is_ok());
    });
}

#[test]
fn a_server_that_repeats_what_it_does_not_know_gives_no_password_away() {
    let renamed = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(renamed.path(), "rename-command AUTH other\n").unwrap();
    on_both(&[("include", renamed.path().to_str().unwrap())], |server| {
        let error = block_on(connect(server.url(), Some("hunter2"))).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
        assert!(!format!("{error:?} {error}").contains("hunter2"), "{error}");
    });
}

#[test]
fn a_replica_without_its_master_gives_no_snapshot() {
    on_both(&[("replicaof", "127.0.0.1 1")], |server| {
        let error = block_on(async { snapshot_of(connect(server.url(), None).await?).await }).err().unwrap();
        assert!(refused(&error).starts_with("NOMASTERLINK"), "{error}");
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.hints()[0].contains("INFO replication"));
    });
}

#[test]
fn a_server_that_dies_while_it_sends_is_no_end_of_its_snapshot() {
    for version in RedisVersion::ALL {
        let Some(installation) = require_redis(version) else { continue };
        // So slow that it is killed on the way.
        let mut server = Redis::start_new(&installation, &[("rdb-key-save-delay", "500")]).unwrap();
        fill(&server);
        let url = server.url();
        let error = block_on(async {
            let mut sync = FullSync::begin(connect(url, None).await?).await?;
            let first = sync.next().await?;
            assert!(first.is_some_and(|piece| !piece.is_empty()));
            server.kill9().unwrap();
            while sync.next().await?.is_some() {}
            Ok::<_, Error>(())
        })
        .unwrap_err();
        assert!(matches!(error, Error::Redis(RedisError::SnapshotBroken { .. })), "{error}");
        assert_eq!(error.kind(), ErrorKind::Unavailable);
    }
}

#[test]
fn tls_is_checked_and_never_done_without() {
    let place = tempfile::tempdir().unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = certificate.self_signed(&key).unwrap().pem();
    let file = |name: &str, text: &str| {
        let path = place.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (certificate, key) = (file("server.crt", &certificate), file("server.key", &key.serialize_pem()));
    for version in RedisVersion::ALL {
        let Some(installation) = require_redis(version) else { continue };
        let port = testkit::free_port().unwrap().to_string();
        let server = Redis::start_new(
            &installation,
            &[
                ("tls-port", &port),
                ("tls-cert-file", &certificate),
                ("tls-key-file", &key),
                ("tls-ca-cert-file", &certificate),
                ("tls-auth-clients", "no"),
            ],
        )
        .unwrap();
        fill(&server);
        let open = |url: String, root: Option<&str>| {
            let mut settings = settings(url, None);
            settings.ssl_root_certificate = root.map(Into::into);
            block_on(async {
                let mut address = settings.address()?;
                // One that speaks no TLS waits for more.
                address.connect_limit = std::time::Duration::from_secs(3);
                let connection = Connection::open(&address).await?;
                snapshot_of(connection).await.map(|(_, bytes)| bytes)
            })
        };
        let bytes = open(format!("rediss://localhost:{port}"), Some(&certificate)).unwrap();
        assert_eq!(checked(&bytes).checksum, RdbChecksum::Good);
        for (url, root) in [
            // Another's name, an authority that nobody trusts, and a server that speaks none.
            (format!("rediss://127.0.0.1:{port}"), Some(&certificate[..])),
            (format!("rediss://localhost:{port}"), None),
            (format!("rediss://localhost:{}", server.port()), Some(&certificate[..])),
        ] {
            let error = open(url.clone(), root).unwrap_err();
            let is_told =
                matches!(error, Error::Tls { .. } | Error::Setting { .. } | Error::ConnectTimeout { .. });
            assert!(is_told, "{url}: {error}");
        }
    }
}
