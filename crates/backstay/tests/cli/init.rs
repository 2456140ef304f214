//! `init` with a server: what it refuses, before anything is made.

use testkit::postgres::{PASSWORD, SUPERUSER};
use testkit::{Redis, RedisVersion, require_redis};

use super::program::{Home, Ran, protected, server};

fn init(home: &Home, url: &str, more: &[&str]) -> Ran {
    let store = home.store_url();
    let words = ["init", "--store", &store, "--name", "orders", "--postgresql", url];
    home.run(words.iter().chain(more))
}

#[test]
fn the_data_directory_of_another_cluster_is_refused_by_init_and_by_a_check() {
    let (Some(server), Some((other, home))) = (server(), protected("orders")) else { return };
    let fresh = Home::new();
    let encoded: String = PASSWORD.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let url = server.url_as(&format!("{SUPERUSER}:{encoded}"));
    let directory = other.data_directory().to_str().unwrap();
    init(&fresh, &url, &["--data-directory", directory])
        .refused(2, &["is of another server", "system identifier", "`--data-directory`"]);
    assert!(!fresh.config().exists() && !fresh.path("store").exists(), "something was made");
    let right = server.data_directory().to_str().unwrap();
    init(&fresh, &url, &["--data-directory", right]).good();

    home.run(["config", "check", "--connect"]).good();
    let text = std::fs::read_to_string(home.config()).unwrap();
    std::fs::write(home.config(), text.replace(directory, right)).unwrap();
    home.run(["config", "check"]).good();
    let checked = home.run(["config", "check", "--connect"]);
    assert_eq!(checked.code, 2, "{checked:#?}");
    assert!(checked.out.contains("is of another server"), "{checked:#?}");
}

#[test]
fn what_is_wrong_with_the_address_is_told_in_the_words_of_the_command() {
    let home = Home::new();
    for (url, code) in [("postgresql://127.0.0.1/postgres", 2), ("postgresql://b@127.0.0.1:1/postgres", 6)] {
        let ran = init(&home, url, &[]).refused(code, &["`--postgresql"]);
        assert!(!ran.err.contains("backstay.toml") && !ran.err.contains("config check"), "{ran:#?}");
        assert!(!home.config().exists());
    }
}

#[test]
fn a_server_of_redis_is_asked_before_anything_is_made_and_its_password_gets_a_file() {
    for version in RedisVersion::ALL {
        let Some(installation) = require_redis(version) else { continue };
        let server = Redis::start_new(&installation, &[("requirepass", "four moorings")]).unwrap();
        let home = Home::new();
        let redis = |url: &str, more: &[&str]| {
            let words = ["init", "--store", &home.store_url(), "--redis", url].map(str::to_owned);
            home.run(words.into_iter().chain(more.iter().map(|word| (*word).to_owned())))
        };
        let bare = server.url();
        let with_password = bare.replace("redis://", "redis://:four%20moorings@");
        for (url, code, told) in [
            (bare.as_str(), 5, "REDISCLI_AUTH"),
            (&bare.replace("redis://", "redis://:four%20meetings@"), 5, "redis://USER:PASSWORD@"),
            ("redis://127.0.0.1:1", 6, "listens there (`bind`)"),
            ("http://127.0.0.1", 2, "sentinel://one:26379"),
        ] {
            let ran = redis(url, &[]).refused(code, &["that --redis names", told]);
            assert!(!ran.err.contains("backstay.toml") && !ran.err.contains("meetings"), "{ran:#?}");
            assert!(!home.config().exists() && !home.path("store").exists(), "something was made");
        }
        let both = redis(&bare, &["--postgresql", "postgresql://u@127.0.0.1/x"]);
        assert_eq!(both.code, 2, "{both:#?}");
        let made = redis(&with_password, &["--name", "cache"]).good();
        assert!(made.out.contains("cache: ") && made.out.contains("master, 0 keys"), "{made:#?}");
        let text = std::fs::read_to_string(home.config()).unwrap();
        assert!(text.contains("engine = \"redis\"") && !text.contains("moorings"), "{text}");
        assert_eq!(std::fs::read_to_string(home.path("cache.password")).unwrap(), "four moorings\n");
        home.run(["backup"]).good();
    }
}
