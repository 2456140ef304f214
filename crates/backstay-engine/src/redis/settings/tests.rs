//! Tests of the settings: what an address leads to, and what is none.

use super::*;

fn settings(url: &str) -> RedisSettings {
    RedisSettings { url: url.to_owned(), ..RedisSettings::default() }
}

fn tcp(host: &str, port: u16) -> Endpoint {
    Endpoint::Tcp { host: host.to_owned(), port }
}

#[test]
fn every_form_of_an_address_says_where_and_as_whom() {
    for (url, endpoint, tls, user) in [
        ("redis://cache", tcp("cache", 6379), TlsMode::Disable, None),
        ("redis://cache:7000/", tcp("cache", 7000), TlsMode::Disable, None),
        ("redis://back%40up@[::1]:7000", tcp("::1", 7000), TlsMode::Disable, Some("back@up")),
        ("redis://[::1]", tcp("::1", 6379), TlsMode::Disable, None),
        ("rediss://b@cache", tcp("cache", 6379), TlsMode::VerifyFull, Some("b")),
        ("rediss://cache:1?sslmode=verify-ca", tcp("cache", 1), TlsMode::VerifyCa, None),
        ("unix:///run/r.sock", Endpoint::Unix("/run/r.sock".into()), TlsMode::Disable, None),
        ("unix://b@/run/r.sock", Endpoint::Unix("/run/r.sock".into()), TlsMode::Disable, Some("b")),
    ] {
        let address = settings(url).address().unwrap();
        let found = (address.endpoint, address.tls, address.user.as_deref());
        assert_eq!(found, (endpoint, tls, user), "{url}");
    }
}

#[test]
fn what_cannot_be_an_address_is_refused_without_repeating_the_password() {
    for (url, word) in [
        ("", "not set"),
        ("cache:6379", "redis://host"),
        ("http://cache", "http"),
        ("redis://u:hunter2@cache", "password"),
        ("redis://:hunter2@cache", "password"),
        ("sentinel://u:hunter2@one:1,two:2/main", "password"),
        ("redis://", "host"),
        ("redis://cache:x", "port"),
        ("redis://cache/3", "database"),
        ("redis://one,two", "several"),
        ("unix://run/r.sock", "socket"),
        ("redis://cache?password=hunter2", "parameter"),
        ("redis://u:p?hunter2@cache", "parameter"),
        ("rediss://cache?sslmode=prefer", "sslmode"),
        ("sentinels://cache/main?sslmode=disable", "sentinels://"),
        ("sentinel://one,two", "name"),
        ("sentinel://one/", "name"),
        ("sentinel://one/main/2", "name"),
        ("sentinel://one,,two/main", "host"),
        ("sentinel://one:x/main", "port"),
    ] {
        let error = settings(url).addresses().unwrap_err().to_string();
        assert!(error.contains(word) && !error.contains("hunter2"), "{url}: {error}");
    }
}

#[test]
fn sentinels_are_reached_with_their_own_password_and_the_servers_with_theirs() {
    let given = RedisSettings {
        password: Some(Secret::new("data")),
        sentinel_password: Some(Secret::new("watch")),
        ..settings("sentinels://b@one,[::1]:7?sslmode=verify-ca")
    };
    assert!(given.addresses().is_err());
    let given =
        RedisSettings { url: "sentinels://b@one,[::1]:7/my%2Fmaster?sslmode=verify-ca".into(), ..given };
    let Addresses::Sentinels(sentinels) = given.addresses().unwrap() else { panic!("no Sentinels") };
    let places: Vec<_> = sentinels.addresses.iter().map(|one| one.endpoint.clone()).collect();
    assert_eq!((places, sentinels.name.as_str()), (vec![tcp("one", 26379), tcp("::1", 7)], "my/master"));
    let of = |address: &Address| {
        let password = address.password.as_ref().map(|password| password.reveal().to_owned());
        (address.user.clone(), password, address.tls)
    };
    assert_eq!(of(&sentinels.addresses[0]), (None, Some("watch".into()), TlsMode::VerifyCa));
    let server = sentinels.server(tcp("here", 1));
    assert_eq!(of(&server), (Some("b".into()), Some("data".into()), TlsMode::VerifyCa));
    assert_eq!(server.endpoint, tcp("here", 1));
    assert!(given.address().unwrap_err().to_string().contains("Sentinels"));
}

#[test]
fn a_replica_is_reached_as_the_user_of_the_primary_where_it_names_none() {
    for (replica, user) in [("redis://r", "b"), ("redis://c@r", "c")] {
        let given = RedisSettings { replica: Some(replica.to_owned()), ..settings("redis://b@p") };
        let Addresses::Servers { primary, replica: Some(replica) } = given.addresses().unwrap() else {
            panic!("no replica")
        };
        assert_eq!((primary.endpoint, replica.endpoint), (tcp("p", 6379), tcp("r", 6379)));
        assert_eq!(replica.user.as_deref(), Some(user));
    }
}

#[test]
fn settings_that_contradict_each_other_are_refused_by_name() {
    let secret = || Some(Secret::new("x"));
    for (given, setting) in [
        (RedisSettings { replica: Some("redis://r".into()), ..settings("sentinel://s/main") }, "replica"),
        (RedisSettings { replica: Some("sentinel://s/main".into()), ..settings("redis://p") }, "replica"),
        (RedisSettings { replica: Some("r".into()), ..settings("redis://p") }, "replica"),
        (RedisSettings { sentinel_password: secret(), ..settings("redis://p") }, "url"),
        (
            RedisSettings { sentinel_user: Some("s".into()), ..settings("sentinel://s/main") },
            "sentinel_password",
        ),
        (RedisSettings { ssl_key: Some("k".into()), ..settings("rediss://p") }, "ssl_certificate"),
        (RedisSettings { ssl_certificate: Some("c".into()), ..settings("rediss://p") }, "ssl_key"),
    ] {
        let error = given.addresses().unwrap_err();
        assert!(matches!(error, Error::Setting { setting: found, .. } if found == setting), "{error}");
    }
}
