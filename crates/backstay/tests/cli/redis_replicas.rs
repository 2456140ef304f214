//! Where a base of Redis is taken from, as the configuration says it; and servers on which commands
//! were renamed or are not permitted.

use std::fmt::Write;

use testkit::{Redis, RedisInstallation, RedisVersion, free_port, require_redis};

use super::program::Home;

fn on_both(test: impl Fn(&RedisInstallation)) {
    RedisVersion::ALL.into_iter().filter_map(require_redis).for_each(|installation| test(&installation));
}

/// A home whose instance `cache` has these settings.
fn home(settings: &[(&str, &str)]) -> Home {
    let home = Home::new();
    home.init();
    let mut section = "[instance.cache]\nengine = 'redis'\n".to_owned();
    for (name, value) in settings {
        writeln!(section, "{name} = '{value}'").unwrap();
    }
    home.append(&section);
    home
}

/// The record of the newest backup.
fn newest(home: &Home) -> serde_json::Value {
    home.run(["show", &home.backups()[0], "--json"]).good().json()
}

fn restored_keys(home: &Home, installation: &RedisInstallation, name: &str) -> String {
    let into = home.path(name);
    home.run(["restore", "cache", "--into", into.to_str().unwrap()]).good();
    let server = Redis::start_on(installation, &into, &[]).unwrap();
    server.run(&["DBSIZE"]).unwrap().text()
}

#[test]
fn a_base_is_taken_from_the_replica_and_from_the_primary_without_it() {
    on_both(|installation| {
        let primary = Redis::start_new(installation, &[]).unwrap();
        primary.run(&["MSET", "a", "1", "b", "2"]).unwrap();
        let mut replica = primary.start_replica(&[]).unwrap();
        let home = home(&[("url", &primary.url()), ("replica", &replica.url())]);
        let checked = home.run(["config", "check", "--connect"]).good();
        let place = format!("replica at 127.0.0.1:{}, 2 keys", replica.port());
        assert!(checked.out.contains(&place), "{checked:#?}");

        let forks = primary.info("total_forks").unwrap();
        let ran = home.run(["backup", "cache"]).good();
        assert!(!ran.out.contains("warning"), "{ran:#?}");
        assert_eq!(primary.info("total_forks").unwrap(), forks);
        assert_eq!(replica.info("sync_full").unwrap(), "1");
        let shown = newest(&home);
        assert!(shown.to_string().contains(r#""role":"replica""#), "{shown:#}");
        assert_eq!(restored_keys(&home, installation, "of-replica"), "2");

        replica.stop().unwrap();
        primary.run(&["SET", "c", "3"]).unwrap();
        let ran = home.run(["backup", "cache"]).good();
        let port = replica.port().to_string();
        assert!(ran.out.contains(&port) && ran.out.contains("read in place of the replica"), "{ran:#?}");
        let shown = newest(&home).to_string();
        assert!(shown.contains(r#""role":"master""#) && shown.contains("in place of the replica"), "{shown}");
        assert_eq!(restored_keys(&home, installation, "of-primary"), "3");
        let checked = home.run(["config", "check", "--connect"]).good();
        assert!(
            checked.out.contains("master at") && checked.out.contains("in place of the replica"),
            "{checked:#?}"
        );

        let other = Redis::start_new(installation, &[]).unwrap();
        let text = std::fs::read_to_string(home.config()).unwrap();
        std::fs::write(home.config(), text.replace(&replica.url(), &other.url())).unwrap();
        home.run(["backup", "cache", "--quiet"]).refused(2, &["holds other data", "`replica`"]);
        assert_eq!(home.backups().len(), 2);
    });
}

#[test]
fn a_base_is_taken_from_what_the_sentinels_know() {
    on_both(|installation| {
        let master = Redis::start_new(installation, &[]).unwrap();
        master.run(&["SET", "a", "1"]).unwrap();
        let replica = master.start_replica(&[]).unwrap();
        let mut sentinel = Redis::start_sentinel(installation, "main", master.port(), &[]).unwrap();
        sentinel.wait_for_listed("main", replica.port(), &["flags slave", "master-link-status ok"]).unwrap();
        let away = free_port().unwrap();
        let url = format!("sentinel://127.0.0.1:{away},127.0.0.1:{}/main", sentinel.port());
        let home = home(&[("url", &url)]);
        let forks = master.info("total_forks").unwrap();
        let ran = home.run(["backup", "cache"]).good();
        assert!(ran.out.contains(&away.to_string()) && ran.out.contains("another was believed"), "{ran:#?}");
        assert_eq!(master.info("total_forks").unwrap(), forks);
        assert_eq!(restored_keys(&home, installation, "restored"), "1");

        let text = std::fs::read_to_string(home.config()).unwrap();
        std::fs::write(home.config(), text.replace("/main", "/mian")).unwrap();
        let only = home.run(["backup", "cache", "--quiet"]);
        assert!(only.err.contains("knows no `mian`, but `main`"), "{only:#?}");
        std::fs::write(home.config(), &text).unwrap();
        sentinel.stop().unwrap();
        let ports = [away.to_string(), sentinel.port().to_string()];
        home.run(["backup", "cache", "--quiet"]).refused(6, &["no Sentinel", &ports[0], &ports[1]]);
        assert_eq!(home.backups().len(), 1);
    });
}

#[test]
fn a_dump_is_taken_from_the_replica_as_well() {
    on_both(|installation| {
        let primary = Redis::start_new(installation, &[]).unwrap();
        primary.run(&["SET", "a", "1"]).unwrap();
        let mut replica = primary.start_replica(&[]).unwrap();
        let home = home(&[("url", &primary.url()), ("replica", &replica.url())]);
        home.append(&format!(
            "[instance.cache.dump]\nto = 'file://{}'\nencryption = 'none'\n",
            home.path("dumps").display()
        ));
        let forks = primary.info("total_forks").unwrap();
        home.run(["dump", "cache"]).good();
        assert_eq!(primary.info("total_forks").unwrap(), forks);
        replica.stop().unwrap();
        let ran = home.run(["dump", "cache"]).good();
        assert!(ran.out.contains("in place of the replica"), "{ran:#?}");
    });
}

#[test]
fn settings_of_redis_that_contradict_each_other_are_named_before_anybody_is_asked() {
    for (settings, word) in [
        (&[("url", "sentinel://one/main"), ("replica", "redis://two")][..], "`replica`"),
        (&[("url", "sentinel://one")], "`url`"),
        (&[("url", "rediss://one"), ("ssl_key", "key.pem")], "`ssl_certificate`"),
        (&[("url", "rediss://one"), ("ssl_root_certificate", "none.pem")], "none.pem"),
        (&[("replica", "redis://two")], "`url`"),
        (&[("url", "redis://one"), ("replica", "redis://:secret@two")], "password"),
    ] {
        let home = home(settings);
        let ran = home.run(["backup", "cache", "--quiet"]).refused(2, &[word]);
        let checked = home.run(["config", "check"]);
        assert!(checked.code == 2 && checked.out.contains(word), "{checked:#?}");
        assert!(!format!("{ran:?}{checked:?}").contains("secret@"), "{ran:#?}\n{checked:#?}");
    }
}

#[test]
fn commands_that_a_server_has_not_cost_what_they_would_list_and_not_the_backup() {
    let renamed = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(renamed.path(), "rename-command CONFIG hidden\nrename-command ACL \"\"\n").unwrap();
    on_both(|installation| {
        let server =
            Redis::start_new(installation, &[("include", renamed.path().to_str().unwrap())]).unwrap();
        server.run(&["SET", "a", "1"]).unwrap();
        let home = home(&[("url", &server.url())]);
        let ran = home.run(["backup", "cache"]).good();
        for word in ["no command `CONFIG`", "no command `ACL`", "rename-command"] {
            assert!(ran.out.contains(word), "{word}: {ran:#?}");
        }
        assert!(!ran.out.contains("MODULE"), "{ran:#?}");
        assert_eq!(restored_keys(&home, installation, "restored"), "1");
        let beside = std::fs::read_dir(home.path("restored/beside")).unwrap();
        let names: Vec<_> = beside.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        assert_eq!(names, ["modules.json"]);
    });
}

#[test]
fn a_command_that_the_user_may_not_run_is_an_error_that_says_which_rights_to_give() {
    on_both(|installation| {
        let server = Redis::start_new(installation, &[]).unwrap();
        let rules = "ACL SETUSER backstay on >two -@all +psync +replconf +ping +info";
        server.run(&rules.split(' ').collect::<Vec<_>>()).unwrap();
        let home = home(&[("url", &format!("redis://backstay@127.0.0.1:{}", server.port()))]);
        std::fs::write(home.path("password"), "two").unwrap();
        home.append("password = { file = 'password' }\n");
        home.run(["backup", "cache", "--quiet"]).refused(5, &["NOPERM", "ACL SETUSER backstay"]);
        assert!(home.backups().is_empty());
    });
}

#[test]
fn the_reference_names_the_least_rights_as_they_are() {
    let told = Home::new().run(["config", "reference"]).good().out.replace("\\|", "|");
    for statement in
        [backstay_engine::redis::rights::STATEMENT, backstay_engine::redis::rights::SENTINEL_STATEMENT]
    {
        assert!(told.contains(statement), "{statement}\n{told}");
    }
}
