//! A whole server onto an empty one: what belongs to no database first.

use testkit::postgres::{PASSWORD, SUPERUSER};
use testkit::{Postgres, PostgresOptions, PostgresVersion};

use super::dumps::{dumping, without_backstay};
use super::program::{server, server_of};
use super::reloads::databases;

#[test]
fn a_whole_server_comes_back_at_an_empty_one_its_roles_first() {
    for version in PostgresVersion::ALL {
        let Some(server) = server_of(version, &PostgresOptions::default()) else { return };
        let other = Postgres::start_new(server.installation(), &PostgresOptions::default()).unwrap();
        let home = dumping(&server);
        home.add("other", &other, SUPERUSER, PASSWORD, false);
        home.append("environment = \"staging\"\n");
        server
            .sql(
                "CREATE ROLE \"Clerk\" LOGIN PASSWORD 'secret of the clerk'; CREATE ROLE readers;
                 GRANT readers TO \"Clerk\"; ALTER ROLE readers SET work_mem TO '7MB'",
            )
            .unwrap();
        for database in ["shop", "stock"] {
            server.sql(&format!("CREATE DATABASE {database}")).unwrap();
            let table =
                "CREATE TABLE t AS SELECT generate_series(1, 100) AS n; ALTER TABLE t OWNER TO \"Clerk\";
                         GRANT SELECT ON t TO readers";
            server.sql_in(database, table).unwrap();
        }
        let told = home.run(["dump", "orders", "--json"]).good().json();
        let of = |content: &str| {
            let dumps = told["dumps"].as_array().unwrap();
            let id =
                dumps.iter().find(|dump| dump["content"] == content).map(|dump| dump["id"].as_str().unwrap());
            id.unwrap_or_else(|| panic!("{told}")).to_owned()
        };
        let globals = of("globals");
        let there =
            "SELECT string_agg(rolname, ' ' ORDER BY rolname) FROM pg_roles WHERE rolname NOT LIKE 'pg\\_%'";
        let (full, empty) = (server.query_value(there).unwrap(), other.query_value(there).unwrap());

        // A database without the roles says which command makes them.
        let shop =
            ["restore", "orders", "--database", "shop", "--into-database", "shop", "--to-server", "other"];
        let shop = [&shop[..], &["--force", "--confirm", "shop"]].concat();
        let ran = home.run(&shop);
        let command = format!("backstay restore orders --backup {globals} --to-server");
        assert!(ran.code == 3 && ran.err.contains(&command), "{ran:#?}");

        // From production to staging is to be said, and which server.
        let words = ["restore", "orders", "--backup", &globals, "--to-server", "other"];
        let ran = home
            .run(words)
            .refused(4, &["the dump is of production, and the server is staging", "--force --confirm"]);
        let name = ran.err.split("--confirm '").nth(1).unwrap().split('\'').next().unwrap().to_owned();
        let sure = [&words[..], &["--force", "--confirm", &name]].concat();
        let planned = home.run([&sure[..], &["--dry-run"]].concat()).good();
        for word in ["role Clerk", "role readers", "leaves as it is"] {
            assert!(planned.out.contains(word), "no {word:?} in {planned:#?}");
        }
        assert_eq!(other.query_value(there).unwrap(), empty);
        let done = home.run(&sure).good();
        assert!(done.out.contains("made role") && done.out.contains("readers"), "{done:#?}");
        assert!(![&done.out, &done.err].iter().any(|text| text.contains("SCRAM")), "{done:#?}");
        assert_eq!(other.query_value(there).unwrap(), full);
        let passwords = "SELECT rolpassword FROM pg_authid WHERE rolname = 'Clerk'";
        assert_eq!(other.query_value(passwords).unwrap(), server.query_value(passwords).unwrap());

        // What is there is left alone, also when it has changed.
        other.sql("ALTER ROLE \"Clerk\" NOLOGIN").unwrap();
        let again = home.run([&sure[..], &["--json"]].concat()).good().json();
        assert_eq!(
            (&again["made"], &again["make"]),
            (&serde_json::json!([]), &serde_json::json!([])),
            "{again}"
        );
        let login = "SELECT rolcanlogin FROM pg_roles WHERE rolname = 'Clerk'";
        assert_eq!(other.query_value(login).unwrap(), "f");

        home.run(&shop).good();
        let stock =
            ["restore", "orders", "--database", "stock", "--into-database", "stock", "--to-server", "other"];
        home.run([&stock[..], &["--force", "--confirm", "stock"]].concat()).good();
        assert_eq!(databases(&other), databases(&server));
        for database in ["shop", "stock"] {
            let rows = "SELECT concat_ws(' ', count(*), sum(n), (SELECT tableowner FROM pg_tables WHERE tablename = 't')) FROM t";
            assert_eq!(other.query_value_in(database, rows).unwrap(), "100 5050 Clerk");
        }
    }
}

#[test]
fn roles_of_pg_dumpall_are_made_and_what_goes_into_a_database_asks_for_one() {
    let Some(server) = server() else { return };
    let home = dumping(&server);
    server.sql("CREATE ROLE clerk").unwrap();
    without_backstay(
        &server,
        &home,
        "mkdir left; pg_dumpall --globals-only | gzip > left/globals_20240101_020000.sql.gz",
    );
    let adopted = home.run(["adopt", "left", "--instance", "orders", "--json"]).good().json();
    let id = adopted["files"][0]["record"]["id"].as_str().unwrap().to_owned();
    let to = format!("dump.to=file://{}", home.path("left").display());
    server.sql("DROP ROLE clerk").unwrap();
    let restore = ["--set", &to, "restore", "orders", "--backup", &id];
    // A role that may not make roles is told before anything is tried.
    server.sql("CREATE ROLE weak LOGIN PASSWORD 'weak as water'").unwrap();
    home.add("weak", &server, "weak", "weak as water", false);
    home.append("environment = \"production\"\n");
    let weak = [&restore[..], &["--to-server", "weak"]].concat();
    let refused = home.run(&weak);
    assert_eq!(refused.code, 5, "{refused:#?}");
    server.sql("DROP ROLE weak").unwrap();

    home.run(restore).good();
    assert_eq!(server.query_value("SELECT count(*) FROM pg_roles WHERE rolname = 'clerk'").unwrap(), "1");
    // No other dump goes without a place.
    let dumped = home.run(["dump", "orders", "--database", "postgres", "--json"]).good().json();
    let id = dumped["dumps"][0]["id"].as_str().unwrap();
    home.run(["restore", "orders", "--backup", id]).refused(2, &["nobody said where to", "--into-database"]);
    assert_eq!(home.run(["restore", "orders"]).code, 2);
    assert_eq!(home.run(["restore", "orders", "--backup", id, "--table", "t"]).code, 2);
}
