//! Servers that Sentinels know.

use super::*;

const NAME: &str = "main";

fn watched_by(hosts: &[u16]) -> RedisSettings {
    let hosts: Vec<String> = hosts.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    RedisSettings { url: format!("sentinel://{}/{NAME}", hosts.join(",")), ..RedisSettings::default() }
}

/// A master, its replica, and a Sentinel that has seen both.
fn watched(installation: &RedisInstallation, settings: &[(&str, &str)]) -> (Redis, Redis, Redis) {
    let master = Redis::start_new(installation, settings).unwrap();
    let replica = master.start_replica(settings).unwrap();
    let sentinel = Redis::start_sentinel(installation, NAME, master.port(), &[]).unwrap();
    sentinel.wait_for_listed(NAME, replica.port(), &["flags slave", "master-link-status ok"]).unwrap();
    (master, replica, sentinel)
}

#[test]
fn sentinels_lead_to_a_replica_to_the_master_without_one_and_to_the_new_ones_after_a_failover() {
    on_both(|installation| {
        let (master, mut replica, sentinel) = watched(installation, &[]);
        let settings = watched_by(&[sentinel.port()]);
        let source = chosen(&settings).unwrap();
        assert_eq!((source.choice, source.findings.len()), (Choice::Replica, 0));
        assert_from(source, &replica, &[&master]);

        // Another Sentinel that is away is said, and costs nothing.
        let away = free_port().unwrap();
        let source = chosen(&watched_by(&[away, sentinel.port()])).unwrap();
        assert_eq!(source.choice, Choice::Replica);
        assert_warned(&source, &[&away.to_string(), "another was believed"]);

        // Killed, it is believed to be there for a second.
        replica.kill9().unwrap();
        let source = chosen(&settings).unwrap();
        assert_eq!(source.choice, Choice::Primary);
        assert_warned(&source, &[&replica.port().to_string(), "primary"]);
        sentinel.wait_for_listed(NAME, replica.port(), &["flags s_down,slave,disconnected"]).unwrap();
        let source = chosen(&settings).unwrap();
        assert_eq!(source.choice, Choice::Primary);
        assert_warned(&source, &["away"]);
        assert_from(source, &master, &[]);

        replica.start().unwrap();
        replica.wait_for_link("up").unwrap();
        sentinel.wait_for_listed(NAME, replica.port(), &["flags slave", "master-link-status ok"]).unwrap();
        assert_eq!(sentinel.fail_over(NAME, master.port()).unwrap(), replica.port());
        // The Sentinel knows it before the old master follows the new one.
        wait_until(LIMIT, "the old master to be taken as a replica", || {
            chosen(&settings).is_ok_and(|source| {
                let is_old = source.connection.server().ends_with(&format!(":{}", master.port()));
                source.choice == Choice::Replica && is_old
            })
        })
        .unwrap();
        let source = chosen(&settings).unwrap();
        assert_from(source, &master, &[&replica]);
    });
}

#[test]
fn a_backup_of_a_master_that_a_sentinel_lists_is_no_replica_to_anybody() {
    on_both(|installation| {
        // So slow that the Sentinel asks the master meanwhile.
        let master = Redis::start_new(installation, &[("rdb-key-save-delay", "20000")]).unwrap();
        for number in 0..1000 {
            master.run(&["SET", &format!("key:{number}"), &"x".repeat(5000)]).unwrap();
        }
        let sentinel = Redis::start_sentinel(installation, NAME, master.port(), &[]).unwrap();
        let settings = watched_by(&[sentinel.port()]);
        let source = chosen(&settings).unwrap();
        assert_eq!(source.choice, Choice::Primary);
        let [finding] = source.findings.as_slice() else { panic!("{:?}", source.findings) };
        assert_eq!((finding.level, finding.subject.as_str()), (FindingLevel::Info, NAME));
        let sync = block_on(FullSync::begin(source.connection)).unwrap();
        sentinel.wait_for_listed(NAME, 0, &["flags"]).unwrap();
        drop(sync);
        let source = chosen(&settings).unwrap();
        assert_eq!((source.choice, source.findings.len()), (Choice::Primary, 1));
        assert_eq!(source.findings[0].level, FindingLevel::Info, "{:?}", source.findings);
    });
}

#[test]
fn where_no_sentinel_helps_each_of_them_says_why() {
    on_both(|installation| {
        let master = Redis::start_new(installation, &[]).unwrap();
        let sentinel = Redis::start_sentinel(installation, "other", master.port(), &[]).unwrap();
        let (one, two) = (free_port().unwrap(), free_port().unwrap());

        let error = refused(&watched_by(&[one, two]));
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        let text = error.to_string();
        assert!(text.contains(&format!(":{one}")) && text.contains(&format!(":{two}")), "{text}");
        assert!(error.hints()[0].contains("`url`"), "{:?}", error.hints());

        let error = refused(&watched_by(&[sentinel.port()]));
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
        assert!(error.to_string().contains("knows no `main`, but `other`"), "{error}");
        assert!(error.hints()[0].contains("name"), "{:?}", error.hints());

        let error = refused(&watched_by(&[master.port()]));
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(error.to_string().contains("is no Sentinel"), "{error}");

        // And one is no server of data.
        let settings = RedisSettings { url: sentinel.url(), ..RedisSettings::default() };
        let mut source = chosen(&settings).unwrap();
        let asked = block_on(backstay_engine::redis::facts::ServerFacts::ask(&mut source.connection));
        assert!(matches!(asked, Err(Error::Redis(RedisError::NoDataThere { .. }))));
    });
}

#[test]
fn a_sentinel_has_a_user_and_a_password_of_its_own() {
    on_both(|installation| {
        let (_master, replica, sentinel) = watched(installation, &[]);
        let statement = rights::SENTINEL_STATEMENT.replace("PASSWORD", "watch");
        sentinel.run(&statement.split_whitespace().collect::<Vec<_>>()).unwrap();
        let with = |user: &str, password: &str| RedisSettings {
            sentinel_user: Some(user.to_owned()),
            sentinel_password: Some(Secret::new(password)),
            ..watched_by(&[sentinel.port()])
        };
        let source = chosen(&with("backstay", "watch")).unwrap();
        assert_from(source, &replica, &[]);
        let mut unknown = with("backstay", "watch");
        unknown.url = unknown.url.replace("/main", "/none");
        assert!(refused(&unknown).to_string().contains("but `main`"));
        let error = refused(&with("backstay", "wrong"));
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
        let hints = error.hints();
        assert!(hints[0].contains("sentinel_password") && hints[0].contains("ACL SETUSER"), "{hints:?}");
        assert!(!format!("{error:?}").contains("wrong\""), "{error:?}");
    });
}
