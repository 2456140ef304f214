//! Single tables of a dump, put back beside what is there or over it.

use std::time::Duration;

use backstay_engine::postgres::dump::RelationName;
use backstay_engine::postgres::reload::{ReloadOptions, Selection};
use backstay_model::error::{Classified, ErrorKind};
use testkit::Postgres;
use tokio_util::sync::CancellationToken;

use crate::drive;
use crate::sample::{address, archive, dump, look, on_each_version_with_sample, options, reload, target};

const LIMIT: Duration = Duration::from_secs(60);

/// The lines of a look that are about some relations.
fn lines(server: &Postgres, database: &str, words: &[&str]) -> Vec<String> {
    let look = look(server, database);
    let about = |line: &&str| words.iter().any(|word| line.contains(word));
    look.lines().filter(about).map(str::to_owned).collect()
}

#[test]
fn a_table_comes_into_an_empty_database_with_all_that_makes_it_what_it_was() {
    on_each_version_with_sample(|installation, server| {
        drive::runtime().block_on(async {
            let target = target(installation, &server).await;
            let dumped = dump(&address(&server, "app"), &options(installation)).await.unwrap();
            let archive = archive(&dumped.bytes);
            for (number, (tables, words)) in [
                (vec!["orders"], vec!["public.orders", "orders_", "noted"]),
                (vec!["days"], vec!["public.days"]),
                (vec!["moods"], vec!["public.moods"]),
                (vec!["customers", "orders"], vec!["customers", "orders"]),
                (vec!["\"Odd.Sch\".\"a.b\"\"*?'; DROP\""], vec!["a.b"]),
            ]
            .into_iter()
            .enumerate()
            {
                let names: Vec<RelationName> = tables.iter().map(|name| name.parse().unwrap()).collect();
                let chosen = archive.select(&names, &[], Selection::WithNeeds).unwrap();
                let name = format!("part_{number}");
                target.create_database(&name, None).await.unwrap();
                let entries = Some(chosen.iter().map(|entry| entry.id).collect());
                let options = ReloadOptions { entries, ..ReloadOptions::default() };
                reload(&target, &name, &options, &dumped.bytes).await.unwrap();
                let back = lines(&server, &name, &words);
                let mut expected = lines(&server, "app", &words);
                // A key to a table that was not chosen cannot be; nor is a view over it.
                if tables == ["orders"] {
                    expected.retain(|line| !line.contains("FOREIGN KEY"));
                }
                expected.retain(|line| !line.starts_with("public.totals"));
                assert_eq!(back, expected, "{tables:?}");
                let others = server
                    .query_value_in(&name, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'");
                assert!(others.unwrap().parse::<u32>().unwrap() <= 3, "{tables:?}");
            }
            let chosen = archive.select(&[], &["Odd.Sch".to_owned()], Selection::Whole).unwrap();
            target.create_database("odd", None).await.unwrap();
            let entries = Some(chosen.iter().map(|entry| entry.id).collect());
            let options = ReloadOptions { entries, ..ReloadOptions::default() };
            reload(&target, "odd", &options, &dumped.bytes).await.unwrap();
            assert_eq!(lines(&server, "odd", &["Odd.Sch"]), lines(&server, "app", &["Odd.Sch"]));
            for (table, schema) in [(Some("Orders"), None), (None, Some("odd.sch"))] {
                let tables: Vec<RelationName> = table.into_iter().map(|name| name.parse().unwrap()).collect();
                let schemas: Vec<String> = schema.into_iter().map(str::to_owned).collect();
                let error = archive.select(&tables, &schemas, Selection::Whole).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::NotFound);
                assert!(error.hints()[0].contains("near to it"), "{:?}", error.hints());
            }
        });
    });
}

#[test]
fn rows_come_back_into_a_table_that_lost_them_and_its_numbers_go_on() {
    on_each_version_with_sample(|installation, server| {
        drive::runtime().block_on(async {
            let target = target(installation, &server).await;
            let dumped = dump(&address(&server, "app"), &options(installation)).await.unwrap();
            let before = lines(&server, "app", &["public.orders ", "public.audit "]);
            server.sql_in("app", "DELETE FROM orders; SELECT setval('orders_id_seq', 3)").unwrap();
            let tables: Vec<RelationName> = vec!["public.orders".parse().unwrap()];
            let archive = archive(&dumped.bytes);
            let chosen = archive.select(&tables, &[], Selection::RowsOnly).unwrap();
            let kinds: Vec<&str> = chosen.iter().map(|entry| entry.kind.as_str()).collect();
            assert_eq!(kinds, ["TABLE DATA"]);
            let entries: Vec<i32> = chosen.iter().map(|entry| entry.id).collect();
            // The sequence is left as it is, as if the rows had come from elsewhere.
            let rows = ReloadOptions {
                entries: Some(vec![entries[0]]),
                triggers_off: true,
                ..ReloadOptions::default()
            };
            reload(&target, "app", &rows, &dumped.bytes).await.unwrap();
            assert_eq!(
                lines(&server, "app", &["public.orders ", "public.audit "]),
                before,
                "no trigger fired"
            );
            assert_eq!(target.set_sequences("app", &tables).await.unwrap().moved, ["public.orders_id_seq"]);
            assert_eq!(target.set_sequences("app", &tables).await.unwrap().moved, [""; 0], "it is right now");
            let next = server.query_value_in("app", "SELECT nextval('orders_id_seq')").unwrap();
            assert_eq!(next, "9001");
            let cancel = CancellationToken::new();
            let findings = target.check_foreign_keys("app", &tables, LIMIT, &cancel).await.unwrap();
            assert_eq!(findings, []);
        });
    });
}

#[test]
fn rows_that_point_to_nothing_are_found_from_both_sides() {
    on_each_version_with_sample(|installation, server| {
        drive::runtime().block_on(async {
            let target = target(installation, &server).await;
            server
                .sql_in(
                    "app",
                    "CREATE TABLE \"Up\" (a int, \"B\" text, PRIMARY KEY (a, \"B\"));
                     CREATE TABLE down (x int, y text, FOREIGN KEY (x, y) REFERENCES \"Up\");
                     CREATE TABLE full_down (x int, y text, FOREIGN KEY (x, y) REFERENCES \"Up\" MATCH FULL);
                     SET session_replication_role = replica;
                     INSERT INTO down VALUES (NULL, NULL), (1, NULL), (1, 'one'), (2, 'two');
                     INSERT INTO full_down VALUES (NULL, NULL), (1, NULL);
                     DELETE FROM customers WHERE id <= 2;",
                )
                .unwrap();
            let check = async |names: &[&str]| -> Vec<String> {
                let tables: Vec<RelationName> = names.iter().map(|name| name.parse().unwrap()).collect();
                let cancel = CancellationToken::new();
                let found = target.check_foreign_keys("app", &tables, LIMIT, &cancel).await.unwrap();
                found.iter().map(|finding| format!("{}: {}", finding.subject, finding.message)).collect()
            };
            let down = "foreign key down_x_y_fkey of public.down: 2 rows point to rows of public.\"Up\" that are \
                        not there";
            let full = "foreign key full_down_x_y_fkey of public.full_down: 1 rows point to rows of public.\"Up\" \
                        that are not there";
            let orders = "foreign key orders_customer_fkey of public.orders: 6 rows point to rows of \
                          public.customers that are not there";
            assert_eq!(check(&["down"]).await, [down]);
            assert_eq!(check(&["Up"]).await, [down, full]);
            assert_eq!(check(&["customers"]).await, [orders]);
            assert_eq!(check(&[]).await, [down, full, orders]);
            assert_eq!(check(&["audit"]).await, [""; 0]);
        });
    });
}

#[test]
fn a_sequence_that_a_default_uses_and_no_column_owns_is_moved_as_well() {
    on_each_version_with_sample(|installation, server| {
        drive::runtime().block_on(async {
            let target = target(installation, &server).await;
            server
                .sql_in(
                    "app",
                    "CREATE SEQUENCE loose; CREATE SEQUENCE \"it's\" INCREMENT -1; CREATE SEQUENCE coded;
                     CREATE SEQUENCE parted; CREATE SEQUENCE elsewhere;
                     CREATE TABLE near (a int DEFAULT nextval('loose'), b bigint DEFAULT nextval('\"it''s\"'));
                     CREATE TABLE far (a smallint DEFAULT nextval('loose')::smallint,
                                       code text DEFAULT 'C' || nextval('coded'), n int DEFAULT nextval('coded') * 10);
                     CREATE TABLE parts (id int DEFAULT nextval('parted')) PARTITION BY RANGE (id);
                     CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (100);
                     CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (100) TO (200);
                     CREATE TABLE other (id int DEFAULT nextval('elsewhere'));
                     INSERT INTO near VALUES (40, -7); INSERT INTO far VALUES (60, 'C90', 900);
                     INSERT INTO parts VALUES (5), (150); INSERT INTO other VALUES (70)",
                )
                .unwrap();
            let meant = |names: &[&str]| -> Vec<RelationName> {
                names.iter().map(|name| name.parse().unwrap()).collect()
            };
            let moved = target.set_sequences("app", &meant(&["public.near", "public.far", "public.parts"])).await;
            // Two tables take their numbers from one, and it stands behind both.
            let expected = ["public.\"it's\"", "public.loose", "public.loose", "public.parted"];
            let mut moved = moved.unwrap().moved;
            moved.sort();
            assert!(moved == expected || moved == [expected[0], expected[1], expected[3]], "{moved:?}");
            assert_eq!(target.set_sequences("app", &meant(&["public.near", "public.far"])).await.unwrap().moved, [""; 0]);
            for (sequence, next) in
                [("loose", "61"), ("\"it's\"", "-8"), ("parted", "151"), ("coded", "1"), ("elsewhere", "1")]
            {
                let asked = format!("SELECT nextval('{}')", sequence.replace('\'', "''"));
                assert_eq!(server.query_value_in("app", &asked).unwrap(), next, "{sequence}");
            }
            // One that nobody here can move keeps no other from it; numbers have many types.
            server
                .sql_in(
                    "app",
                    "CREATE DOMAIN key AS bigint; CREATE SEQUENCE a_small AS smallint; CREATE SEQUENCE wide; CREATE SEQUENCE keyed;
                     CREATE TABLE wider (a int DEFAULT nextval('a_small'), b numeric(20) DEFAULT nextval('wide'),
                                         c key DEFAULT nextval('keyed'));
                     ALTER SEQUENCE keyed OWNED BY wider.c;
                     INSERT INTO wider VALUES (40000, 50, 60)",
                )
                .unwrap();
            let set = target.set_sequences("app", &meant(&["public.wider"])).await.unwrap();
            assert_eq!(set.moved, ["public.keyed", "public.wide"], "{set:?}");
            assert!(set.findings.len() == 1 && set.findings[0].subject.contains("a_small"), "{set:?}");
            // A partition alone is asked for itself.
            server.sql_in("app", "SELECT setval('parted', 1)").unwrap();
            assert_eq!(target.set_sequences("app", &meant(&["public.parts_1"])).await.unwrap().moved, ["public.parted"]);
            assert_eq!(server.query_value_in("app", "SELECT nextval('parted')").unwrap(), "6");
        });
    });
}
