//! Which server the data is taken from: replicas, Sentinels, and who wants a certificate.
#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers of a test fail by panicking")]

use backstay_engine::Error;
use backstay_engine::model::error::{Classified, ErrorKind};
use backstay_engine::model::{FindingLevel, Secret};
use backstay_engine::redis::source::{Choice, ChosenSource, SourceError, choose};
use backstay_engine::redis::sync::FullSync;
use backstay_engine::redis::{RedisError, RedisSettings, rights};
use testkit::{Redis, RedisInstallation, RedisVersion, free_port, require_redis, wait_until};

#[path = "redis_sources/certificates.rs"]
mod certificates;
#[path = "redis_sources/sentinels.rs"]
mod sentinels;

const LIMIT: std::time::Duration = std::time::Duration::from_secs(60);

/// The test with each fork.
fn on_both(test: impl Fn(&RedisInstallation)) {
    RedisVersion::ALL.into_iter().filter_map(require_redis).for_each(|installation| test(&installation));
}

thread_local! {
    /// One to a test: a connection belongs to the runtime that it was opened in.
    static RUNTIME: tokio::runtime::Runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    RUNTIME.with(|runtime| runtime.block_on(work))
}

fn chosen(settings: &RedisSettings) -> Result<ChosenSource, Error> {
    block_on(choose(settings))
}

fn refused(settings: &RedisSettings) -> Error {
    chosen(settings).err().unwrap()
}

fn of_two(primary: &Redis, replica: &Redis) -> RedisSettings {
    RedisSettings { url: primary.url(), replica: Some(replica.url()), ..RedisSettings::default() }
}

/// Takes a snapshot of it, and says that this is the server.
fn assert_from(source: ChosenSource, server: &Redis, others: &[&Redis]) {
    let syncs = |server: &Redis| server.info("sync_full").unwrap().parse::<u64>().unwrap();
    let (before, of_others) = (syncs(server), others.iter().map(|other| syncs(other)).collect::<Vec<_>>());
    let taken = async {
        let mut sync = FullSync::begin(source.connection).await?;
        while sync.next().await?.is_some() {}
        Ok::<_, Error>(())
    };
    block_on(taken).unwrap();
    assert_eq!(syncs(server), before + 1);
    assert_eq!(others.iter().map(|other| syncs(other)).collect::<Vec<_>>(), of_others);
}

/// What is found is one warning of this text.
fn assert_warned(source: &ChosenSource, words: &[&str]) {
    let [finding] = source.findings.as_slice() else { panic!("{:?}", source.findings) };
    assert_eq!(finding.level, FindingLevel::Warning);
    for word in words {
        assert!(finding.message.contains(word), "{word}: {finding:?}");
    }
    assert!(finding.remedy.contains('`'), "{finding:?}");
}

#[test]
fn the_replica_that_is_named_is_read_and_the_primary_does_not_fork() {
    on_both(|installation| {
        let primary = Redis::start_new(installation, &[]).unwrap();
        primary.run(&["SET", "a", "b"]).unwrap();
        let replica = primary.start_replica(&[]).unwrap();
        let forks = primary.info("total_forks").unwrap();
        let source = chosen(&of_two(&primary, &replica)).unwrap();
        assert_eq!((source.choice, source.findings.len()), (Choice::Replica, 0));
        assert_from(source, &replica, &[&primary]);
        assert_eq!(primary.info("total_forks").unwrap(), forks);
        // A replica of the replica has the same stream.
        let second = replica.start_replica(&[]).unwrap();
        let source = chosen(&of_two(&primary, &second)).unwrap();
        assert_from(source, &second, &[&primary, &replica]);
    });
}

#[test]
fn a_replica_that_is_away_shut_or_without_its_master_leaves_the_primary_and_a_finding() {
    on_both(|installation| {
        let primary = Redis::start_new(installation, &[]).unwrap();
        let mut replica = primary.start_replica(&[]).unwrap();
        let settings = of_two(&primary, &replica);
        let falls_back = |word: &str| {
            let source = chosen(&settings).unwrap();
            assert_eq!(source.choice, Choice::Primary);
            assert_warned(&source, &[word, "primary", &replica.port().to_string()]);
            assert_from(source, &primary, &[]);
        };
        replica.run(&["CONFIG", "SET", "requirepass", "other"]).unwrap();
        falls_back("NOAUTH");
        let mut client = replica.client().unwrap();
        client.run(&["AUTH", "other"]).unwrap();
        client.run(&["CONFIG", "SET", "requirepass", ""]).unwrap();
        replica.run(&["REPLICAOF", "127.0.0.1", &free_port().unwrap().to_string()]).unwrap();
        falls_back("link to its master is down");
        replica.stop().unwrap();
        let source = chosen(&settings).unwrap();
        assert_eq!(source.choice, Choice::Primary);
        assert_warned(&source, &["refused", "primary"]);
    });
}

#[test]
fn a_replica_of_other_data_is_refused() {
    on_both(|installation| {
        let primary = Redis::start_new(installation, &[]).unwrap();
        let other = Redis::start_new(installation, &[]).unwrap();
        let of_other = other.start_replica(&[]).unwrap();
        for replica in [&of_other, &other] {
            let error = refused(&of_two(&primary, replica));
            assert!(
                matches!(error, Error::Redis(RedisError::Source(SourceError::OtherData { .. }))),
                "{error}"
            );
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.hints()[0].contains("`replica`"));
        }
    });
}

#[test]
fn without_the_primary_a_replica_is_read_only_while_it_is_one() {
    on_both(|installation| {
        let primary = Redis::start_new(installation, &[]).unwrap();
        let replica = primary.start_replica(&[]).unwrap();
        let mut settings = of_two(&primary, &replica);
        // It is there for its replica, and not for us.
        settings.url = format!("redis://127.0.0.1:{}", free_port().unwrap());
        let source = chosen(&settings).unwrap();
        assert_eq!(source.choice, Choice::Replica);
        assert_warned(&source, &["nobody could tell", "refused"]);
        drop(primary);
        replica.wait_for_link("down").unwrap();
        let error = refused(&settings);
        assert!(matches!(error, Error::Redis(RedisError::Source(SourceError::NoSource { .. }))), "{error}");
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        let text = error.to_string();
        assert!(text.contains("link to its master is down") && text.contains("refused"), "{text}");
        replica.run(&["REPLICAOF", "NO", "ONE"]).unwrap();
        let error = refused(&settings);
        assert!(
            matches!(error, Error::Redis(RedisError::Source(SourceError::ReplicaIsMaster { .. }))),
            "{error}"
        );
        assert_eq!(error.kind(), ErrorKind::Conflict);
    });
}

#[test]
fn after_a_failover_the_one_that_became_the_replica_is_read() {
    on_both(|installation| {
        let primary = Redis::start_new(installation, &[]).unwrap();
        let replica = primary.start_replica(&[]).unwrap();
        replica.run(&["REPLICAOF", "NO", "ONE"]).unwrap();
        // Two masters are no failover: they may differ by now.
        let error = refused(&of_two(&primary, &replica));
        assert!(matches!(error, Error::Redis(RedisError::Source(SourceError::OtherData { .. }))), "{error}");
        primary.run(&["REPLICAOF", "127.0.0.1", &replica.port().to_string()]).unwrap();
        primary.wait_for_link("up").unwrap();
        let source = chosen(&of_two(&primary, &replica)).unwrap();
        assert_eq!(source.choice, Choice::Replica);
        assert_warned(&source, &["is the master now"]);
        assert_from(source, &primary, &[&replica]);
    });
}

#[test]
fn a_mistake_in_the_settings_is_no_reason_for_the_primary() {
    on_both(|installation| {
        let primary = Redis::start_new(installation, &[]).unwrap();
        let missing = RedisSettings {
            replica: Some("rediss://127.0.0.1:1".to_owned()),
            ssl_root_certificate: Some("/no/such/file.pem".into()),
            ..of_two(&primary, &primary)
        };
        for settings in [RedisSettings { replica: Some("cache".into()), ..missing.clone() }, missing] {
            let error = refused(&settings);
            assert!(matches!(error, Error::Setting { .. }), "{error}");
        }
    });
}
