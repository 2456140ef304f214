//! What stops and starts the application around a restore.

use std::path::Path;
use std::time::Duration;

use testkit::postgres::{PASSWORD, SUPERUSER};
use testkit::{Postgres, PostgresOptions, wait_until};

use super::program::{Home, server};
use super::reloads::{databases, restore, rows, shop};
use super::unharmed::{state, unharmed};

const LIMIT: Duration = Duration::from_secs(20);

/// The commands of an instance; the second one writes down how it ended.
fn hooks(home: &Home, instance: &str, before: &str, more: &str) {
    let config = std::fs::read_to_string(home.config()).unwrap();
    let section = format!("\n[instance.{instance}.hooks]");
    let config = config.split(&section).next().unwrap().to_owned();
    let log = home.path(&format!("{instance}.log"));
    let hooks = format!(
        "{section}\nbefore_restore = \"{before}\"\nafter_restore = \"echo $BACKSTAY_OUTCOME >> '{}'\"\n{more}",
        log.display()
    );
    std::fs::write(home.config(), config + &hooks).unwrap();
}

fn said(home: &Home, instance: &str) -> String {
    std::fs::read_to_string(home.path(&format!("{instance}.log"))).unwrap_or_default()
}

#[test]
fn the_application_is_stopped_before_and_started_however_it_ended() {
    let Some(server) = server() else { return };
    let home = shop(&server, &[]);
    server.sql("CREATE DATABASE copy").unwrap();
    hooks(&home, "orders", "echo cannot stop it >&2; exit 3", "");
    restore(&home, &["--into-database", "copy"]).refused(4, &["before_restore", "cannot stop it"]);
    // What it had stopped by then is started again.
    assert_eq!((said(&home, "orders"), databases(&server).len()), ("failed\n".to_owned(), 3));
    let log = home.path("orders.log");
    std::fs::remove_file(&log).unwrap();
    hooks(&home, "orders", &format!("echo stopped >> '{}'", log.display()), "");
    restore(&home, &["--into-database", "copy"]).good();
    assert_eq!(said(&home, "orders"), "stopped\ndone\n");
    let words = ["--into-database", "shop", "--table", "orders", "--force", "--confirm", "shop"];
    assert_eq!(restore(&home, &words).code, 4);
    assert_eq!(said(&home, "orders"), "stopped\ndone\nstopped\nfailed\n");

    // A new database is used by nobody; one that takes the place of another is.
    std::fs::remove_file(&log).unwrap();
    let planned = restore(&home, &["--into-database", "new", "--dry-run"]).good();
    assert!(!planned.out.contains("echo"), "{planned:#?}");
    restore(&home, &["--into-database", "new"]).good();
    assert_eq!(said(&home, "orders"), "");
    home.run(["restore", "orders", "--swap", "shop", "--force", "--confirm", "shop"]).good();
    assert_eq!(said(&home, "orders"), "stopped\ndone\n");
}

#[test]
fn a_command_that_does_not_end_is_killed_with_all_that_it_started_and_nothing_is_changed() {
    let Some(server) = server() else { return };
    let home = shop(&server, &[]);
    let started = home.path("started");
    let before = format!("sleep 600 & echo $! > '{}'; sleep 600", started.display());
    hooks(&home, "orders", &before, "limit = \"1s\"\n");
    let was = state(&server, &home);
    for words in [
        &["--into-database", "shop", "--table", "orders", "--force", "--confirm", "shop"][..],
        &["--swap", "shop", "--force", "--confirm", "shop"],
    ] {
        let _ = std::fs::remove_file(home.path("orders.log"));
        restore(&home, words)
            .refused(4, &["before_restore", "nothing was changed", "did not end within 1 s"]);
        let process = std::fs::read_to_string(&started).unwrap();
        let place = format!("/proc/{}/stat", process.trim());
        // One that is dead may be waited for by nobody yet.
        let is_dead =
            || std::fs::read_to_string(Path::new(&place)).map_or(true, |stat| stat.contains(") Z "));
        wait_until(LIMIT, "the end of what it started", is_dead).unwrap();
        assert_eq!(said(&home, "orders"), "failed\n");
        unharmed(&server, &home, &was, "a command that hangs");
    }
}

#[test]
fn the_application_of_the_server_that_is_changed_is_stopped_and_no_other() {
    let Some(server) = server() else { return };
    let other = Postgres::start_new(server.installation(), &PostgresOptions::default()).unwrap();
    let home = shop(&server, &[]);
    home.add("other", &other, SUPERUSER, PASSWORD, false);
    home.append("environment = \"production\"\n");
    hooks(&home, "orders", "exit 1", "");
    let log = home.path("other.log");
    hooks(&home, "other", &format!("echo stopped >> '{}'", log.display()), "");
    other.sql("CREATE DATABASE shop").unwrap();
    let words = ["--into-database", "shop", "--to-server", "other"];
    restore(&home, &words).good();
    assert_eq!((said(&home, "orders"), said(&home, "other")), (String::new(), "stopped\ndone\n".to_owned()));
    assert_eq!(rows(&other, "shop"), rows(&server, "shop"));

    // Of an address nobody said what uses it.
    other.sql("CREATE DATABASE again").unwrap();
    let (url, password) = (other.url_as(SUPERUSER), home.path("other.password").display().to_string());
    let words = ["--into-database", "again", "--to-server", &url, "--password-file", &password];
    restore(&home, &[&words[..], &["--force", "--confirm", "again"]].concat()).good();
    assert_eq!((said(&home, "orders"), said(&home, "other")), (String::new(), "stopped\ndone\n".to_owned()));
    assert_eq!(rows(&other, "again"), rows(&server, "shop"));
}
