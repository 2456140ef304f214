//! What a target lacks for a dump, and names that match nothing: told before the first
//! byte, with what is near.

use std::os::unix::fs::MetadataExt;

use serde_json::Value;
use testkit::postgres::{PASSWORD, SUPERUSER};
use testkit::{Postgres, PostgresOptions, PostgresVersion};

use super::dumps::{dumping, shown, without_backstay};
use super::program::{Home, server, server_of};
use super::reloads::{databases, restore, shop};
use super::unharmed::{no_sessions, state, unharmed};

fn another(server: &Postgres) -> Postgres {
    Postgres::start_new(server.installation(), &PostgresOptions::default()).unwrap()
}

/// A tablespace in a directory of the server's own user.
fn make_tablespace(server: &Postgres, name: &str) {
    let place = server.workspace().directory(name).unwrap();
    let owner = std::fs::metadata(server.data_directory()).unwrap().uid();
    std::os::unix::fs::chown(&place, Some(owner), None).unwrap();
    server.sql(&format!("CREATE TABLESPACE \"{name}\" LOCATION '{}'", place.display())).unwrap();
}

#[test]
fn roles_extensions_and_tablespaces_that_a_target_lacks_are_all_listed_at_once() {
    for version in PostgresVersion::ALL {
        let Some(server) = server_of(version, &PostgresOptions::default()) else { return };
        let other = another(&server);
        let home = dumping(&server);
        home.add("other", &other, SUPERUSER, PASSWORD, false);
        home.append("environment = \"production\"\n");
        make_tablespace(&server, "far away");
        server.sql("CREATE ROLE clerk; CREATE ROLE reader; CREATE DATABASE shop").unwrap();
        let tables = "CREATE TABLE orders (id int, x text) TABLESPACE \"far away\"; ALTER TABLE orders OWNER TO clerk;
                      GRANT SELECT ON orders TO reader; CREATE INDEX o ON orders (id) TABLESPACE \"far away\"";
        server.sql_in("shop", tables).unwrap();
        for format in ["custom", "directory"] {
            home.run(["dump", "orders", "--database", "shop", "--format", format]).good();
            let words = ["--into-database", "shop", "--to-server", "other"];
            let before = state(&server, &home);
            for more in [&["--dry-run"][..], &[]] {
                let ran = restore(&home, &[&words[..], more].concat());
                assert_eq!(ran.code, 3, "{format}: {ran:#?}");
                for lack in
                    ["role clerk", "role reader", "tablespace far away", "CREATE ROLE", "CREATE TABLESPACE"]
                {
                    assert!(ran.err.contains(lack), "no {lack:?} in {ran:#?}");
                }
            }
            unharmed(&server, &home, &before, format);
            assert_eq!(databases(&other), ["postgres"], "{format}");
            let without = [&words[..], &["--no-owner", "--no-privileges"]].concat();
            let refused = restore(&home, &without);
            assert_eq!(refused.code, 3, "{refused:#?}");
            refused.refused(3, &["tablespace far away", "CREATE TABLESPACE"]);
            assert_eq!(databases(&other), ["postgres"], "{format}");
        }
        make_tablespace(&other, "far away");
        let without = ["--into-database", "shop", "--to-server", "other", "--no-owner", "--no-privileges"];
        restore(&home, &without).good();
    }
}

/// What no dump of statements must be kept from a server for: bodies, rows and texts that
/// look like statements.
const LURES: &str = r#"
    CREATE TABLE role (x text, owner text);
    GRANT SELECT ON role TO PUBLIC;
    CREATE FUNCTION lure() RETURNS void LANGUAGE plpgsql AS $f$ BEGIN EXECUTE $$
ALTER TABLE x OWNER TO nobody;
GRANT ALL ON TABLE x TO nobody;
SET default_tablespace = nowhere;
CREATE EXTENSION nothing;
$$; END $f$;
    INSERT INTO role VALUES ('ALTER TABLE x OWNER TO nobody;' || chr(10) || 'GRANT ALL ON x TO nobody;');
    COMMENT ON TABLE role IS '
ALTER TABLE x OWNER TO nobody;
CREATE EXTENSION nothing;
';
    CREATE VIEW looked AS SELECT '
ALTER TABLE x OWNER TO nobody;
'::text AS "
ALTER TABLE x OWNER TO nobody;
""#;

/// Roles of every kind of name, for all that names one, in tablespaces.
const NAMING: &str = r#";
    CREATE TABLE t AS SELECT generate_series(1, 100) AS n;
    ALTER TABLE t SET TABLESPACE "far away";
    ALTER TABLE t OWNER TO clerk;
    CREATE FUNCTION odd("to" int) RETURNS int LANGUAGE sql AS 'SELECT 1';
    ALTER FUNCTION odd OWNER TO "It's ""Big""; Jürgen";
    GRANT SELECT (n) ON t TO "to";
    ALTER DEFAULT PRIVILEGES FOR ROLE maker GRANT SELECT ON TABLES TO reader;
    CREATE POLICY p ON t TO "Looker 2" USING (n > 1);
"#;
const NAMED: [&str; 6] = ["clerk", "It's \"Big\"; Jürgen", "to", "maker", "reader", "Looker 2"];

fn make_roles(server: &Postgres) {
    for role in NAMED {
        server.sql(&format!("CREATE ROLE \"{}\"", role.replace('"', "\"\""))).unwrap();
    }
}

/// Takes the dumps that lie in a directory in, and says what they are.
fn adopted(home: &Home, directory: &str) -> Vec<Value> {
    let told = home
        .run(["adopt", home.path(directory).to_str().unwrap(), "--instance", "orders", "--json"])
        .good()
        .json();
    let records: Vec<Value> =
        told["files"].as_array().unwrap().iter().map(|file| file["record"].clone()).collect();
    assert!(records.iter().all(|record| record["needs"].is_object()), "{told}");
    records
}

#[test]
fn statements_that_ask_for_what_is_not_there_are_refused_before_the_first_byte() {
    for version in PostgresVersion::ALL {
        let Some(server) = server_of(version, &PostgresOptions::default()) else { return };
        let other = another(&server);
        let home = dumping(&server);
        home.add("other", &other, SUPERUSER, PASSWORD, false);
        home.append("environment = \"production\"\n");
        make_tablespace(&server, "far away");
        make_roles(&server);
        server.sql("CREATE DATABASE shop").unwrap();
        server.sql("CREATE DATABASE harmless").unwrap();
        // What is about the database itself, and what is in another, is nothing to this one.
        server.sql("CREATE ROLE outside; ALTER DATABASE shop OWNER TO outside").unwrap();
        server.sql_in("harmless", LURES).unwrap();
        server.sql_in("shop", &format!("{LURES}{NAMING}")).unwrap();
        server.sql_in("postgres", "CREATE TABLE apart (); ALTER TABLE apart OWNER TO outside").unwrap();
        for database in ["shop", "harmless"] {
            home.run(["dump", "orders", "--database", database, "--format", "plain"]).good();
        }
        let script = "mkdir -p one/daily all; pg_dump shop | gzip > one/daily/shop_20240101_020000.sql.gz
                      pg_dump harmless | gzip > one/daily/harmless_20240101_020000.sql.gz
                      pg_dumpall | gzip > all/all_20240101_020000.sql.gz";
        without_backstay(&server, &home, script);
        let (mut one, all) = (adopted(&home, "one"), adopted(&home, "all"));
        one.sort_by_key(|record| record["file"].to_string());
        assert_eq!(all[0]["needs"]["shop"], one[1]["needs"]["shop"]);
        let id = |record: &Value| record["id"].as_str().unwrap().to_owned();
        let places: [(&str, Option<[String; 2]>); 3] = [
            ("dumps", None),
            ("one", Some([id(&one[1]), id(&one[0])])),
            ("all", Some([id(&all[0]), id(&all[0])])),
        ];
        let restored = |place: &str, backup: Option<&String>, database: &str, more: &[&str]| {
            let to = format!("dump.to=file://{}", home.path(place).display());
            let mut words = vec!["--set", &to, "restore", "orders", "--database", database];
            words.extend(["--into-database", database, "--to-server", "other"]);
            words.extend(backup.iter().flat_map(|id| ["--backup", id.as_str()]));
            home.run([&words[..], more].concat())
        };
        for (place, ids) in &places {
            for more in [&["--dry-run"][..], &[]] {
                let ran = restored(place, ids.as_ref().map(|ids| &ids[0]), "shop", more);
                assert_eq!(ran.code, 3, "{place}: {ran:#?}");
                for lack in NAMED.iter().map(|role| format!("role {role},")) {
                    assert!(ran.err.contains(&lack), "{place}: no {lack:?} in {ran:#?}");
                }
                assert!(ran.err.contains("tablespace far away"), "{place}: {ran:#?}");
                // Options that statements refuse are no advice, and nobody else is named.
                for strange in ["--no-owner", "nobody", "nowhere", "nothing", "outside", "role pg_"] {
                    assert!(!ran.err.contains(strange), "{place}: {strange:?} in {ran:#?}");
                }
            }
            assert_eq!(databases(&other), ["postgres"], "{place}");
            no_sessions(&other, place);
            restored(place, ids.as_ref().map(|ids| &ids[1]), "harmless", &[]).good();
            assert_eq!(other.query_value_in("harmless", "SELECT count(*) FROM role").unwrap(), "1");
            other.sql("DROP DATABASE harmless").unwrap();
        }
        make_tablespace(&other, "far away");
        make_roles(&other);
        for (place, ids) in &places {
            restored(place, ids.as_ref().map(|ids| &ids[0]), "shop", &[]).good();
            assert_eq!(other.query_value_in("shop", "SELECT count(*) FROM t").unwrap(), "100", "{place}");
            other.sql("DROP DATABASE shop").unwrap();
        }
    }
}

#[test]
fn an_extension_that_statements_make_and_a_server_lacks_is_told_beforehand() {
    let Some(old) = server() else { return };
    let Some(new) = server_of(PostgresVersion::V17, &PostgresOptions::default()) else { return };
    // It went with PostgreSQL 17.
    if old.query_value("SELECT count(*) FROM pg_available_extensions WHERE name = 'adminpack'").unwrap()
        == "0"
    {
        eprintln!("the extensions of this server are not installed");
        return;
    }
    let home = dumping(&old);
    home.add("new", &new, SUPERUSER, PASSWORD, false);
    home.append("environment = \"production\"\n");
    old.sql("CREATE DATABASE shop").unwrap();
    old.sql_in("shop", "CREATE EXTENSION adminpack; CREATE TABLE t (n int)").unwrap();
    let parts = ["dump", "orders", "--database", "shop", "--format", "plain"];
    home.run(parts).good();
    without_backstay(&old, &home, "mkdir -p one/daily; pg_dump shop > one/daily/shop_20240101_020000.sql");
    assert_eq!(adopted(&home, "one")[0]["needs"]["shop"]["extensions"][0], "adminpack");
    let words = ["--into-database", "shop", "--to-server", "new"];
    for place in ["dumps", "one"] {
        let to = format!("dump.to=file://{}", home.path(place).display());
        let ran = restore(&home, &[&words[..], &["--set", &to]].concat());
        ran.refused(7, &["extension adminpack", "pg_available_extensions"]);
        assert_eq!(databases(&new), ["postgres"]);
    }
    // Chosen tables come without the extensions of their database.
    let told = home.run([&parts[..], &["--table", "t", "--json"]].concat()).good().json();
    let id = told["dumps"][0]["id"].as_str().unwrap_or_else(|| panic!("{told}"));
    restore(&home, &[&words[..], &["--backup", id]].concat()).good();
    assert_eq!(new.query_value_in("shop", "SELECT count(*) FROM t").unwrap(), "0");
}

#[test]
fn statements_whose_sidecar_does_not_know_end_in_one_error_and_leave_nothing() {
    let Some(server) = server() else { return };
    let other = another(&server);
    let home = dumping(&server);
    home.add("other", &other, SUPERUSER, PASSWORD, false);
    home.append("environment = \"production\"\n");
    make_tablespace(&server, "far");
    for (database, made, told) in [
        ("roles", "CREATE ROLE clerk; ALTER TABLE t OWNER TO clerk", "clerk"),
        ("spaces", "ALTER TABLE t SET TABLESPACE far", "far"),
    ] {
        server.sql(&format!("CREATE DATABASE {database}")).unwrap();
        server.sql_in(database, "CREATE TABLE t AS SELECT generate_series(1, 100) AS n").unwrap();
        for statement in made.split("; ") {
            server.sql_in(database, statement).unwrap();
        }
        home.run(["dump", "orders", "--database", database, "--format", "plain"]).good();
        let mut forgotten = 0;
        for path in shown(&home.path("dumps")) {
            if path.to_string_lossy().ends_with(".meta.json") && !path.is_symlink() {
                let mut record: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
                forgotten += usize::from(record.as_object_mut().unwrap().remove("needs").is_some());
                std::fs::write(&path, record.to_string()).unwrap();
            }
        }
        assert!(forgotten > 0, "{database}");
        let words = ["restore", "orders", "--database", database, "--into-database", database];
        let dry = home.run([&words[..], &["--to-server", "other", "--dry-run"]].concat());
        dry.good();
        let ran = home.run([&words[..], &["--to-server", "other"]].concat());
        let code = ran.code;
        assert!([3, 4].contains(&code), "{ran:#?}");
        ran.refused(code, &[told]);
        assert_eq!(databases(&other), ["postgres"]);
        no_sessions(&other, database);
    }
}

#[test]
fn a_dump_of_a_newer_server_is_refused_in_every_format_before_a_database_is_made() {
    let Some(new) = server_of(PostgresVersion::V17, &PostgresOptions::default()) else { return };
    let Some(old) = server() else { return };
    let home = shop(&new, &["--layout", "plain"]);
    home.add("old", &old, SUPERUSER, PASSWORD, false);
    home.append("environment = \"production\"\n");
    for format in ["custom", "plain", "directory"] {
        home.run(["dump", "orders", "--database", "shop", "--format", format]).good();
        for target in [&["--into-database", "shop"][..], &["--swap", "shop"]] {
            let ran = restore(&home, &[target, &["--to-server", "old"]].concat());
            assert_eq!(ran.code, 7, "{format} {target:?}: {ran:#?}");
            ran.refused(7, &["the dump is of PostgreSQL 17", "--to-server"]);
            assert_eq!(databases(&old), ["postgres"]);
        }
    }
    no_sessions(&old, "a newer dump");
}

#[test]
fn a_name_that_matches_nothing_is_told_with_those_that_are_near() {
    let Some(server) = server() else { return };
    let home = shop(&server, &["--layout", "plain"]);
    server.sql_in("shop", "CREATE SCHEMA \"Sales\"; CREATE TABLE \"Sales\".bills (n int)").unwrap();
    for format in ["custom", "directory"] {
        home.run(["dump", "orders", "--database", "shop", "--format", format]).good();
        let before = state(&server, &home);
        for (option, name, near) in [
            ("--table", "Orders", "public.orders"),
            ("--table", "ord*", "public.orders"),
            ("--table", "order", "public.orders"),
            ("--table", "nowhere.orders", "public.orders"),
            ("--table", "BILLS", "Sales.bills"),
            ("--schema", "sales", "Sales"),
            ("--schema", "Sal*", "Sales"),
        ] {
            let what = format!("{format} {option} {name}");
            // Elsewhere: in the same second it would have the name of the one before.
            let elsewhere = home.path("elsewhere").display().to_string();
            let dump = home.run(["dump", "orders", "--database", "shop", "--to", &elsewhere, option, name]);
            assert_eq!(dump.code, 3, "{what}: {dump:#?}");
            dump.refused(3, &[name, near]);
            for target in ["copy", "shop"] {
                let words = ["--into-database", target, option, name, "--force", "--confirm", target];
                let ran = restore(&home, &words);
                assert_eq!(ran.code, 3, "{what} into {target}: {ran:#?}");
                ran.refused(3, &[name, near]);
            }
            // Nothing like it at all.
            let words = ["--into-database", "copy", option, "zzz"];
            restore(&home, &words).refused(3, &["zzz"]);
            unharmed(&server, &home, &before, &what);
        }
    }
}
