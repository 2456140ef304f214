//! What a server or a target directory refuses: one error, a hint, the right exit
//! code, and no backup that looks like one.

use testkit::postgres::{PASSWORD, SUPERUSER};

use super::program::{Home, protected, server};

#[test]
fn an_unreachable_server_is_unavailable_and_status_says_down() {
    let Some((mut server, home)) = protected("orders") else { return };
    server.stop(testkit::StopMode::Fast).unwrap();
    home.run(["backup"]).refused(6, &["connect to the server at 127.0.0.1:", "`url`"]);
    assert!(home.backups().is_empty());
    assert!(home.objects("/backups/").is_empty());
    let status = home.run(["status"]).good().out;
    assert!(status.starts_with("orders (postgresql): down"), "{status}");
    let checked = home.run(["config", "check", "--connect"]);
    assert_eq!(checked.code, 6, "{checked:#?}");
}

#[test]
fn a_wrong_password_is_denied_and_not_printed() {
    let Some(server) = server() else { return };
    let home = Home::new();
    home.init();
    home.add("orders", &server, SUPERUSER, "hunter2", true);
    let ran = home.run(["backup"]).refused(5, &["log in", SUPERUSER, "`password`"]);
    assert!(!ran.err.contains("hunter2") && !ran.out.contains("hunter2"), "{ran:#?}");
    assert!(home.backups().is_empty());
}

#[test]
fn a_missing_privilege_is_named_with_the_grant_that_helps() {
    let Some(server) = server() else { return };
    server.create_role("poor", PASSWORD, "").unwrap();
    let home = Home::new();
    home.init();
    home.add("local", &server, "poor", PASSWORD, true);
    home.run(["backup", "local"]).refused(5, &["poor", "GRANT EXECUTE ON FUNCTION", "pg_backup_start"]);
    home.add("remote", &server, "poor", PASSWORD, false);
    home.run(["backup", "remote"]).refused(5, &["ALTER ROLE", "REPLICATION"]);
    assert!(home.backups().is_empty());
    let init = home.run([
        "init",
        "--config",
        "other.toml",
        "--store",
        "other",
        "--postgresql",
        &server.url_as("poor").replace("poor@", "poor:wrong@"),
    ]);
    init.refused(5, &["log in"]);
    for left in ["other.toml", "other", "other.key", "main.password"] {
        assert!(!home.path(left).exists(), "{left} was left behind");
    }
}

#[test]
fn the_grants_that_the_error_names_are_enough() {
    let Some(server) = server() else { return };
    server.create_role("poor", PASSWORD, "").unwrap();
    let home = Home::new();
    home.init();
    home.add("orders", &server, "poor", PASSWORD, true);
    let refused = home.run(["backup"]).refused(5, &["GRANT"]);
    let grants = refused.err.lines().filter_map(|line| line.split('`').nth(1));
    for grant in grants.filter(|grant| grant.starts_with("GRANT") || grant.starts_with("ALTER")) {
        server.sql(grant).unwrap();
    }
    home.run(["backup"]).good();
}

#[test]
fn one_instance_that_fails_stops_no_other() {
    let Some((server, home)) = protected("orders") else { return };
    home.add("broken", &server, "nobody", "wrong", true);
    let ran = home.run(["backup"]).refused(5, &["nobody"]);
    assert!(ran.out.starts_with("orders: full backup"), "{ran:#?}");
    assert_eq!(home.backups().len(), 1);
}

#[test]
fn a_target_that_is_taken_or_cannot_be_made_is_refused_before_the_first_byte() {
    let Some((_server, home)) = protected("orders") else { return };
    home.run(["backup"]).good();
    let taken = home.path("taken");
    std::fs::create_dir(&taken).unwrap();
    std::fs::write(taken.join("precious"), "data").unwrap();
    let restore = |into: &str, more: &[&str]| {
        home.run(["restore", "orders", "--into", into].into_iter().chain(more.iter().copied()))
    };
    restore(taken.to_str().unwrap(), &[]).refused(4, &["not empty", "--into"]);
    restore(taken.to_str().unwrap(), &["--dry-run"]).refused(4, &["not empty", "--into"]);
    let document = restore(taken.to_str().unwrap(), &["--dry-run", "--json"]);
    assert_eq!(document.code, 4);
    assert_eq!(document.json()["refusals"][0]["kind"], "conflict");
    assert_eq!(std::fs::read_dir(&taken).unwrap().count(), 1);

    // Nobody may make a directory there, not even root.
    let ran = restore("/proc/restored", &[]);
    assert!([3, 4, 5, 6].contains(&ran.code), "{ran:#?}");
    let code = ran.code;
    ran.refused(code, &["/proc", "--into"]);
    let file = home.path("file");
    std::fs::write(&file, "").unwrap();
    let ran = restore(file.join("below").to_str().unwrap(), &[]);
    assert_ne!(ran.code, 0, "{ran:#?}");
}

#[test]
fn a_target_that_was_never_archived_is_unrecoverable_and_the_nearest_is_named() {
    let Some((_server, home)) = protected("orders") else { return };
    home.run(["restore", "orders", "--into", "restored"]).refused(3, &["orders"]);
    home.run(["backup"]).good();
    home.run(["restore", "orders", "--into", "restored", "--to", "2099-01-01T00:00:00Z"])
        .refused(9, &["2099"]);
    assert!(!home.path("restored").exists());
}
