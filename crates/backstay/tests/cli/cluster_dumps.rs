//! One database out of what `pg_dumpall` wrote, with its own commands and the real one.

use testkit::{PostgresOptions, PostgresVersion};

use super::dumps::{dumping, without_backstay};
use super::program::server_of;
use super::reloads::databases;

const ROWS: &str = "SELECT concat_ws('|', count(*), sum(id), md5(string_agg(x, ',' ORDER BY id))) FROM t";
const STRANGE: &str = "it's a \"b\"";

#[test]
fn a_database_comes_out_of_a_dump_of_all_into_a_new_one_and_in_its_place() {
    for version in PostgresVersion::ALL {
        let Some(server) = server_of(version, &PostgresOptions::default()) else { return };
        let home = dumping(&server);
        let strange = STRANGE.replace('"', "\"\"");
        for database in ["shop", "other", &strange] {
            server.sql(&format!("CREATE DATABASE \"{database}\"")).unwrap();
        }
        server.sql("CREATE ROLE app; ALTER DATABASE shop SET work_mem TO '7MB'; COMMENT ON DATABASE shop IS 'a; b'").unwrap();
        server
            .sql(
                "GRANT CONNECT ON DATABASE shop TO app; ALTER ROLE app IN DATABASE shop SET search_path TO x",
            )
            .unwrap();
        // Rows and bodies that look like the lines between statements.
        let lure = "E'\\\\connect other\\n-- PostgreSQL database dump complete\\n\\\\.\\n\\\\restrict x'";
        for database in ["shop", "other", STRANGE] {
            server
                .sql_in(
                    database,
                    &format!(
                        "CREATE TABLE t (id serial PRIMARY KEY, x text);
                         INSERT INTO t (x) SELECT {lure} || g FROM generate_series(1, 3000) g;
                         INSERT INTO t (x) VALUES (current_database());
                         CREATE FUNCTION f() RETURNS text LANGUAGE sql AS $f$ SELECT '
\\connect other
-- PostgreSQL database dump complete
' $f$;
                         ALTER TABLE t OWNER TO app"
                    ),
                )
                .unwrap();
        }
        let body =
            "CREATE FUNCTION g() RETURNS int BEGIN ATOMIC SELECT 1; SELECT CASE WHEN true THEN 2 END; END";
        server.sql_in("shop", body).unwrap();
        let script = "mkdir -p all; pg_dumpall | gzip |
             openssl enc -aes-256-cbc -salt -pbkdf2 -iter 100000 -pass file:phrase > all/all_20240101_020000.sql.gz.enc
             pg_dumpall --globals-only > all/globals.sql";
        without_backstay(&server, &home, script);
        let at = home.path("all");
        let to = format!("dump.to=file://{}", at.display());
        let run = |words: &[&str]| home.run([&["--set", &to], words].concat());
        let told = run(&["adopt", at.to_str().unwrap(), "--json"]).good().json();
        let record = told["files"].as_array().unwrap().iter().map(|file| &file["record"]);
        let record =
            record.clone().find(|record| record["content"] == "cluster").unwrap_or_else(|| panic!("{told}"));
        let has =
            |name: &str| record["databases"].as_array().unwrap().iter().any(|database| database == name);
        assert!(["shop", "other", STRANGE, "postgres", "template1"].into_iter().all(has), "{record}");
        assert!(told.to_string().contains("\"content\":\"globals\""), "{told}");
        assert!(run(&["list", "--type", "dump"]).good().out.contains("shop"));
        run(&["verify", "orders"]).good();

        for database in ["shop", STRANGE] {
            let expected = server.query_value_in(database, ROWS).unwrap();
            let copy = format!("copy of {}", &database[..2]);
            run(&["restore", "orders", "--database", database, "--into-database", &copy]).good();
            assert_eq!(server.query_value_in(&copy, ROWS).unwrap(), expected, "{database}");
            let body = server.query_value_in(&copy, "SELECT f()").unwrap();
            assert!(body.contains("\\connect other"), "{body}");
        }
        // What is about the database of that name stays with it.
        let settings = "SELECT count(*) FROM pg_db_role_setting s JOIN pg_database d ON d.oid = setdatabase WHERE datname <> 'shop'";
        assert_eq!(server.query_value(settings).unwrap(), "0");

        let expected = server.query_value_in("shop", ROWS).unwrap();
        server.sql_in("shop", "DELETE FROM t WHERE id > 3").unwrap();
        run(&["restore", "orders", "--swap", "shop", "--force", "--confirm", "shop"]).good();
        assert_eq!(server.query_value_in("shop", ROWS).unwrap(), expected);
        assert!(databases(&server).iter().any(|name| name.starts_with("shop_before_")));

        let before = databases(&server);
        let id = record["id"].as_str().unwrap();
        run(&["restore", "orders", "--backup", id, "--database", "Shop", "--into-database", "new"])
            .refused(3, &["database Shop is not in", "other", "--database"]);
        run(&["restore", "orders", "--database", "shop", "--no-owner", "--into-database", "new"])
            .refused(2, &["statements"]);
        run(&["restore", "orders", "--database", "shop", "--table", "T", "--into-database", "new"])
            .refused(3, &["public.t"]);
        assert_eq!(databases(&server), before);
        run(&["restore", "orders", "--database", "shop", "--table", "t", "--into-database", "new"]).good();
        assert_eq!(server.query_value_in("new", ROWS).unwrap(), expected);
    }
}
