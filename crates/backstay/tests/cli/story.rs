//! One database from its first backup to a proven restore, as a person types it.

use testkit::postgres::{PASSWORD, SUPERUSER};
use testkit::{Postgres, PostgresOptions, PostgresVersion};

use super::program::{Home, run, server, server_of};

#[test]
fn from_init_to_a_proven_restore_on_postgresql_15() {
    from_init_to_a_proven_restore(PostgresVersion::V15);
}

#[test]
fn from_init_to_a_proven_restore_on_postgresql_17() {
    from_init_to_a_proven_restore(PostgresVersion::V17);
}

fn from_init_to_a_proven_restore(version: PostgresVersion) {
    let Some(server) = server_of(version, &PostgresOptions::default()) else { return };
    server.pgbench_init(5).unwrap();
    let home = Home::new();

    // One command makes everything and has asked the server.
    let encoded: String = PASSWORD.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let url = server.url_as(&format!("{SUPERUSER}:{encoded}"));
    let data = server.data_directory().to_str().unwrap().to_owned();
    let store = home.store_url();
    let words =
        ["init", "--store", &store, "--postgresql", &url, "--name", "orders", "--data-directory", &data];
    let made = home.run(words).good();
    assert!(made.out.contains(&format!("orders: PostgreSQL {version}")), "{made:#?}");
    assert!(made.out.contains("backup orders") && made.out.contains("drill orders"), "{made:#?}");
    let written = std::fs::read_to_string(home.config()).unwrap();
    assert!(!written.contains(PASSWORD) && !written.contains(&encoded), "{written}");
    // Not every server is in Debian's own place.
    let section =
        format!("[instance.orders]\nbin_directory = '{}'", server.installation().bin_directory().display());
    std::fs::write(home.config(), written.replace("[instance.orders]", &section)).unwrap();
    assert!(home.run(["config", "check", "--connect"]).good().out.contains("everything answers"));
    assert!(home.run(["list"]).good().out.contains("no backups yet"));

    // A full backup, then an increment that stores what changed and no more.
    let full = home.run(["backup"]).good();
    assert!(full.out.starts_with("orders: full backup "), "{full:#?}");
    server.pgbench_transactions(200).unwrap();
    let taken = home.run(["backup", "orders", "--json"]).good().json();
    assert_eq!(taken[0]["type"], "incremental");
    let rows = server.query_value("SELECT count(*) FROM pgbench_history").unwrap();

    let listed = home.run(["list", "orders", "--json"]).good().json();
    assert_eq!(listed.as_array().unwrap().len(), 2);
    assert_eq!(listed[0]["id"], taken[0]["id"]);
    assert_eq!(listed[0]["parent"], listed[1]["id"]);
    assert!(listed[0]["stored_bytes"].as_u64().unwrap() * 2 < listed[1]["stored_bytes"].as_u64().unwrap());
    let newest = listed[0]["id"].as_str().unwrap();
    let table = home.run(["list"]).good().out;
    assert!(table.lines().next().unwrap().starts_with("BACKUP"), "{table}");
    assert!(table.lines().nth(1).unwrap().contains("not proved"), "{table}");
    let shown = home.run(["show", newest]).good().out;
    for label in ["compared with", "position", "amplification", "encrypted           yes", "facts"] {
        assert!(shown.contains(label), "no {label:?} in {shown}");
    }

    let status = home.run(["status", "--json"]).good().json();
    assert_eq!(status[0]["health"], "ok");
    assert_eq!(status[0]["last_backup"]["id"], newest);
    assert!(home.run(["verify"]).good().out.contains("sound"));
    let verified = home.run(["verify", newest, "--level", "structure", "--json"]).good().json();
    assert_eq!(verified["sound"], true);

    restore(&home, &server, newest, &rows);
    drill_and_retention(&home, newest);
    unchanged(&home, &server);
}

/// A backup of a server at which nothing was done costs next to nothing.
fn unchanged(home: &Home, server: &Postgres) {
    server.sql("CHECKPOINT").unwrap();
    home.run(["backup", "orders"]).good();
    let taken = home.run(["backup", "orders", "--json"]).good().json();
    assert_eq!(taken[0]["type"], "incremental");
    let stored = taken[0]["stored_bytes"].as_u64().unwrap();
    assert!(stored < 256 << 10, "{stored} bytes for nothing");
    home.run(["verify", taken[0]["id"].as_str().unwrap()]).good();
}

fn restore(home: &Home, server: &Postgres, newest: &str, rows: &str) {
    let into = home.path("restored");
    let into_text = into.to_str().unwrap();
    let planned = home.run(["restore", "orders", "--into", into_text, "--dry-run", "--json"]).good().json();
    assert_eq!(planned["base"], newest);
    assert!(
        planned["refusals"].as_array().unwrap().is_empty()
            && !planned["steps"].as_array().unwrap().is_empty()
    );
    assert!(!into.exists(), "a dry run wrote something");

    let restored = home.run(["restore", "orders", "--into", into_text, "--start"]).good();
    assert!(
        restored.err.contains("restore orders to the latest state"),
        "the plan comes first: {restored:#?}"
    );
    assert!(restored.out.contains("proved: it started and answered"), "{restored:#?}");
    home.run(["restore", "orders", "--into", into_text]).refused(4, &["not empty"]);

    let copy = Postgres::start_on(server.installation(), &into).unwrap();
    assert_eq!(copy.query_value("SELECT count(*) FROM pgbench_history").unwrap(), rows);
    assert_eq!(copy.query_value("SELECT count(*) FROM pgbench_accounts").unwrap(), "500000");
}

fn drill_and_retention(home: &Home, newest: &str) {
    let drilled = home.run(["drill", "orders", "--json"]).good().json();
    assert_eq!(drilled[0]["sound"], true);
    assert_eq!(drilled[0]["backup"], newest);
    assert!(drilled[0]["recovery_time_seconds"].as_f64().unwrap() > 0.0);
    let status = home.run(["status"]).good().out;
    assert!(status.contains("measured by the drill of"), "{status}");
    assert!(home.run(["list"]).good().out.lines().nth(1).unwrap().contains("drilled"));

    let retention = home.run(["expire", "--dry-run"]).good().out;
    assert!(retention.contains("stays: ") && retention.contains("the last sound backup"), "{retention}");
    let late = home.run(["expire", "--dry-run", "--as-of", "2099-01-01T00:00:00Z", "--json"]).good().json();
    let kept: Vec<_> = late[0]["keep"].as_array().unwrap().iter().map(|kept| &kept["id"]).collect();
    assert!(kept.iter().any(|id| *id == newest), "the last sound backup may never go: {late}");
    home.run(["collect", "--dry-run"]).good();
    home.run(["collect"]).good();
    assert_eq!(home.backups().len(), 2);
    home.run(["verify", newest]).good();
}

#[test]
fn keys_are_added_rotated_and_removed_and_the_backups_stay_readable() {
    let Some((server, home)) = super::program::protected("orders") else { return };
    home.run(["backup"]).good();
    home.run(["key", "add", "spare", "--file", "spare.key"]).good();
    let listed = home.run(["key", "list"]).good().out;
    assert!(listed.contains("initial") && listed.contains("spare"), "{listed}");

    // The spare opens everything alone.
    let spare = ["--set", "repository.key.file=spare.key"];
    home.run(["list"].into_iter().chain(spare)).good();

    // Which of the two the configuration's key is cannot be guessed.
    home.run(["key", "rotate"]).refused(2, &["initial", "spare", "--key NAME=FILE"]);
    home.run(["key", "rotate", "--key", "spare=spare.key"]).good();
    server.sql("CREATE TABLE t AS SELECT generate_series(1, 1000)").unwrap();
    home.run(["backup"]).good();
    home.run(["verify"]).good();
    home.run(["verify"].into_iter().chain(spare)).good();

    home.run(["key", "remove", "spare"]).good();
    home.run(["list"].into_iter().chain(spare)).refused(5, &["key"]);
    let last = home.run(["key", "remove", "initial"]);
    assert_ne!(last.code, 0, "the last key was removed");
    home.run(["verify"]).good();
}

#[test]
fn a_pass_phrase_opens_the_repository_too() {
    let home = Home::new();
    home.init();
    std::fs::write(home.path("phrase"), "a quite long pass phrase\n").unwrap();
    let add = |file: &str| {
        let mut command = home.command(["key", "add", "phrase", "--passphrase"]);
        run(command.stdin(std::fs::File::open(home.path(file)).unwrap()))
    };
    std::fs::write(home.path("short"), "short\n").unwrap();
    add("short").refused(2, &["5 characters"]);
    add("phrase").good();
    let text = std::fs::read_to_string(home.config()).unwrap();
    let text: String = text
        .lines()
        .map(|line| match line.starts_with("key = ") {
            true => "passphrase = { file = \"phrase\" }\n".to_owned(),
            false => format!("{line}\n"),
        })
        .collect();
    std::fs::write(home.config(), text).unwrap();
    home.run(["key", "list"]).good();
    std::fs::write(home.path("phrase"), "another long pass phrase\n").unwrap();
    home.run(["key", "list"]).refused(5, &["phrase"]);
}

#[test]
fn a_repository_without_encryption_says_so_everywhere() {
    let Some(server) = server() else { return };
    let home = Home::new();
    let made = home.run(["init", "--store", &home.store_url(), "--no-encryption"]).good();
    assert!(made.out.contains("NOT encrypted"), "{made:#?}");
    assert!(!home.path("backstay.key").exists());
    home.add("orders", &server, SUPERUSER, PASSWORD, true);
    home.run(["backup"]).good();
    assert!(home.run(["list"]).good().out.contains("not encrypted"));
    let newest = home.backups()[0].clone();
    assert!(home.run(["show", &newest]).good().out.contains("encrypted           NO"));
    home.run(["verify"]).good();
    home.run(["key", "list"]).refused(7, &["not encrypted"]);
}

#[test]
fn the_remote_way_and_an_instance_that_left_the_configuration_on_postgresql_15() {
    the_remote_way_and_an_instance_that_left_the_configuration(PostgresVersion::V15);
}

#[test]
fn the_remote_way_and_an_instance_that_left_the_configuration_on_postgresql_17() {
    the_remote_way_and_an_instance_that_left_the_configuration(PostgresVersion::V17);
}

fn the_remote_way_and_an_instance_that_left_the_configuration(version: PostgresVersion) {
    let Some(server) = server_of(version, &PostgresOptions::default()) else { return };
    let home = Home::new();
    home.init();
    let before = std::fs::read(home.config()).unwrap();
    home.add("orders", &server, SUPERUSER, PASSWORD, false);
    server.sql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS n").unwrap();
    home.run(["backup"]).good();
    // The machine that had the section is lost: the repository and the key are enough.
    std::fs::write(home.config(), before).unwrap();
    assert_eq!(home.backups().len(), 1);
    let into = home.path("restored");
    home.run(["restore", "orders", "--into", into.to_str().unwrap()]).good();
    let copy = Postgres::start_on(server.installation(), &into).unwrap();
    assert_eq!(copy.query_value("SELECT sum(n) FROM t").unwrap(), "500500");
}
