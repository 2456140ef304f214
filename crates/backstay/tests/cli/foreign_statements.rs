//! Plain dumps of others, and what a person is told while a restore that may harm runs.

use super::dumps::{dumping, without_backstay};
use super::program::server;
use super::reloads::shop;

#[test]
fn a_dump_that_chooses_its_own_database_or_runs_commands_is_refused_before_anybody_is_asked() {
    let Some(server) = server() else { return };
    let home = dumping(&server);
    server.sql("CREATE DATABASE shop").unwrap();
    server.sql_in("shop", "CREATE TABLE t AS SELECT 1 AS n").unwrap();
    let script = "mkdir dumps; pg_dump --create shop > dumps/shop_a.sql
        pg_dump shop > dumps/shop_b.sql
        { pg_dump shop | head -n 20; echo '\\! touch touched'; pg_dump shop | tail -n +21; } > dumps/shop_c.sql";
    without_backstay(&server, &home, script);
    let told = home.run(["adopt", home.path("dumps").to_str().unwrap(), "--json"]).good().json();
    let id = |name: &str| {
        let files = told["files"].as_array().unwrap();
        let file = files.iter().find(|file| file["path"] == name).unwrap();
        file["record"]["id"].as_str().unwrap().to_owned()
    };
    let restore = |name: &str, words: &[&str]| {
        let id = id(name);
        home.run([&["restore", "orders", "--backup", &id, "--into-database", "copy"], words].concat())
    };
    restore("shop_a.sql", &["--dry-run"]).refused(2, &["`\\connect`", "pg_dump --create", "psql --file"]);
    restore("shop_a.sql", &[]).refused(2, &["`\\connect`"]);
    restore("shop_c.sql", &[]).refused(2, &["line 21", "`\\!`", "no statement"]);
    assert!(!home.path("touched").exists());
    let there = "SELECT count(*) FROM pg_database WHERE datname = 'copy'";
    assert_eq!(server.query_value(there).unwrap(), "0");
    restore("shop_b.sql", &[]).good();
    assert_eq!(server.query_value_in("copy", "SELECT n FROM t").unwrap(), "1");
}

#[test]
fn whoever_let_it_happen_is_told_the_way_back() {
    let Some(server) = server() else { return };
    let home = shop(&server, &[]);
    let consent = ["--force", "--confirm", "shop"];
    let ran = home.run([&["restore", "orders", "--swap", "shop"], &consent[..]].concat()).good();
    assert!(ran.err.contains("the old one is kept as shop_before_"), "{ran:#?}");
    server.sql_in("shop", "DELETE FROM orders").unwrap();
    let table = ["restore", "orders", "--into-database", "shop", "--table", "orders", "--database", "shop"];
    let ran = home.run([&table[..], &consent].concat()).good();
    assert!(ran.err.contains("`backstay restore … --backup ID` brings it back"), "{ran:#?}");
    server.sql_in("shop", "DELETE FROM orders").unwrap();
    let ran = home.run([&table[..], &consent, &["--no-safety-backup"]].concat()).good();
    assert!(ran.err.contains("nothing of shop as it was is kept"), "{ran:#?}");
}
