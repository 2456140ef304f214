//! Which servers can load a base of Redis or Valkey: told before the first byte is placed, and as real
//! servers have it.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use testkit::{Redis, RedisInstallation, RedisVersion, require_redis};

use super::program::Home;
use super::redis_bases::{digest, fill};
use super::redis_streams::{Archive, instant, on_both};

/// The programs of this directory are those of the instance.
fn with_programs_in(home: &Home, directory: &Path) {
    let told = std::fs::read_to_string(home.config()).unwrap();
    let lines = told.lines().map(|line| match line.starts_with("bin_directory") {
        true => format!("bin_directory = '{}'\n", directory.display()),
        false => format!("{line}\n"),
    });
    std::fs::write(home.config(), lines.collect::<String>()).unwrap();
}

/// What cannot start it says so in every plan and drill, and a restore for another machine goes on.
fn is_refused(home: &Home, words: &[&str]) {
    for (into, more) in [("into", &[][..]), ("into", &["--dry-run"])] {
        let restore = ["restore", "cache", "--into", into, "--start"];
        home.run(restore.iter().chain(more)).refused(7, words);
        assert!(!home.path(into).exists());
    }
    let ran = home.run(["drill", "cache"]).refused(21, words);
    assert!(ran.err.contains("bin_directory"), "{ran:#?}");
    let ran = home.run(["restore", "cache", "--into", "elsewhere"]).good();
    let told = format!("{}{}", ran.out, ran.err);
    assert!(words.iter().all(|word| told.contains(word)), "{ran:#?}");
}

#[test]
fn a_program_that_is_older_than_the_data_is_refused_before_the_first_byte() {
    on_both(&[], |server, home| {
        fill(&mut server.client().unwrap());
        home.run(["backup", "cache", "--quiet"]).good();
        let place = home.path("older");
        std::fs::create_dir(&place).unwrap();
        let name = server.installation().version().prefix();
        let program = place.join(format!("{name}-server"));
        let product = if name == "redis" { "Redis" } else { "Valkey" };
        let script = format!(
            "#!/bin/sh\n[ \"$*\" = --version ] || touch '{}'\necho '{product} server v=6.2.14 sha=0'\n",
            home.path("was-started").display()
        );
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        with_programs_in(home, &place);
        is_refused(home, &[&format!("{product} 6.2.14, older than the"), &format!("`{name}-server`")]);
        assert!(!home.path("was-started").exists());
    });
}

/// A server of each product and the programs of the other.
fn of_both() -> Option<(RedisInstallation, RedisInstallation)> {
    Some((require_redis(RedisVersion::Redis70)?, require_redis(RedisVersion::Valkey81)?))
}

fn backed_up(installation: &RedisInstallation, programs: &RedisInstallation) -> (Redis, Home) {
    let server = Redis::start_new(installation, &[]).unwrap();
    fill(&mut server.client().unwrap());
    let home = Home::new();
    home.init();
    home.append(&format!(
        "[instance.cache]\nengine = 'redis'\nurl = '{}'\nbin_directory = '{}'\npolicy = {{ rpo = '1s' }}\n\
         [instance.cache.archive]\nspool = '{}'\n",
        server.url(),
        programs.bin_directory().display(),
        home.path("spool").display()
    ));
    (server, home)
}

#[test]
fn data_of_valkey_are_refused_where_only_redis_is_there() {
    let Some((redis, valkey)) = of_both() else { return };
    let (server, home) = backed_up(&valkey, &redis);
    home.run(["backup", "cache", "--quiet"]).good();
    is_refused(&home, &["does not read what Valkey 8.1", "`valkey-server`"]);
    // So it is.
    let refused = Redis::start_on(&redis, &home.path("elsewhere"), &[]).unwrap_err();
    assert!(format!("{refused:#}").contains("Can't handle RDB format version 11"), "{refused:#}");
    let other = Redis::start_on(&valkey, &home.path("elsewhere"), &[]).unwrap();
    assert_eq!(digest(&other), digest(&server));
}

#[test]
fn data_of_redis_are_proved_and_served_by_valkey_where_only_that_is_there() {
    let Some((redis, valkey)) = of_both() else { return };
    let (server, home) = backed_up(&redis, &valkey);
    let archive = Archive::start(&home);
    archive.says("is taken");
    server.run(&["SET", "behind", "the base"]).unwrap();
    let known = instant(&server, &archive);
    archive.stop();
    let at = known.at.to_string();
    let ran = home.run(["restore", "cache", "--to", &at, "--into", "into", "--start"]).good();
    let told = format!("{}{}", ran.out, ran.err);
    assert!(told.contains("proved") && told.contains("which reads what Redis 7.0"), "{ran:#?}");
    // A snapshot by Valkey is none for Redis: the files stay those that both load.
    assert!(ran.out.contains("--appendonly yes"), "{ran:#?}");
    for installation in [&valkey, &redis] {
        let settings = [("appendonly", "yes"), ("replicaof", "127.0.0.1 1")];
        let copy = home.path("copy");
        let done = std::process::Command::new("cp").arg("-r").arg(home.path("into")).arg(&copy).status();
        assert!(done.unwrap().success());
        let other = Redis::start_on(installation, &copy, &settings).unwrap();
        assert_eq!(digest(&other), known.digest, "{}", installation.version());
        drop(other);
        std::fs::remove_dir_all(&copy).unwrap();
    }
    let report = home.run(["drill", "cache", "--json"]).good().json();
    assert_eq!(report[0]["sound"], true, "{report:#}");
    assert!(report.to_string().contains("which reads what Redis 7.0"), "{report:#}");
    // A base alone serves either form, and both products.
    home.run(["restore", "cache", "--to", "immediate", "--into", "alone", "--start"]).good();
    for installation in [&valkey, &redis] {
        Redis::start_on(installation, &home.path("alone"), &[("replicaof", "127.0.0.1 1")]).unwrap();
    }
}
