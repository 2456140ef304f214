//! Restores whose copy is not what the dump says: a function of the dump spoils it at the
//! end, when the rows are there.

use rustix::process::{Pid, Signal, kill_process};
use testkit::{Postgres, wait_until};

use super::program::{Home, server};
use super::reloads::{databases, restore, rows, shop};

const LIMIT: std::time::Duration = std::time::Duration::from_secs(60);

/// A view whose filling does this, anywhere but in the source. It is filled after another, so
/// that nothing mends what it spoils.
fn spoil(server: &Postgres, home: &Home, how: &str) {
    server
        .sql_in(
            "shop",
            &format!(
                "DROP MATERIALIZED VIEW IF EXISTS spoils;
                 DROP FUNCTION IF EXISTS spoil();
                 CREATE FUNCTION spoil() RETURNS int LANGUAGE plpgsql AS $$
                 BEGIN IF current_database() <> 'shop' THEN {how} END IF; RETURN 1; END $$;
                 CREATE MATERIALIZED VIEW IF NOT EXISTS filled AS SELECT count(*) FROM public.orders;
                 CREATE MATERIALIZED VIEW spoils AS SELECT public.spoil() FROM public.filled"
            ),
        )
        .unwrap();
    wait_until(LIMIT, "a second in which there is no dump yet", || {
        home.run(["dump", "orders", "--database", "shop"]).code == 0
    })
    .unwrap();
}

/// With what was said of it.
const WAYS: [(&str, &str); 6] = [
    ("DROP TABLE public.notes;", "public.notes: is not there"),
    (
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'public.orders_x_idx'::regclass;",
        "index public.orders_x_idx: is not valid",
    ),
    (
        "UPDATE pg_constraint SET convalidated = false WHERE conname = 'orders_customer_fkey';",
        "constraint orders orders_customer_fkey in public: is not valid",
    ),
    (
        "UPDATE pg_class SET relispopulated = false WHERE oid = 'public.filled'::regclass;",
        "materialised view public.filled: is not filled",
    ),
    (
        "PERFORM setval('public.orders_id_seq', 7);",
        "sequence public.orders_id_seq of public.orders.id: is behind the numbers of its column",
    ),
    (
        "UPDATE pg_class SET relfilenode = 4000000 WHERE oid = 'public.notes'::regclass;",
        "table public.notes: cannot be read",
    ),
];

fn more(server: &Postgres) {
    server
        .sql_in(
            "shop",
            "CREATE TABLE notes (n int); INSERT INTO notes VALUES (1);
             CREATE MATERIALIZED VIEW never_filled AS SELECT 1 WITH NO DATA;
             ALTER TABLE notes ADD CONSTRAINT positive CHECK (n > 0) NOT VALID;
             CREATE TABLE filled_by_hand (id serial, x int); INSERT INTO filled_by_hand VALUES (90, 1);
             CREATE SEQUENCE nobodys; CREATE TABLE borrowing (id int DEFAULT nextval('nobodys'));
             INSERT INTO borrowing VALUES (80)",
        )
        .unwrap();
}

#[test]
fn a_copy_that_is_not_what_the_dump_says_takes_nobodys_place() {
    let Some(server) = server() else { return };
    let home = shop(&server, &[]);
    more(&server);
    let before = rows(&server, "shop");
    for (number, (how, said)) in WAYS.into_iter().enumerate() {
        spoil(&server, &home, how);
        let swap = ["restore", "orders", "--swap", "shop", "--force", "--confirm", "shop"];
        home.run(swap).refused(4, &["did not take the place of shop", said]);
        assert!(!databases(&server).iter().any(|name| name.contains('_')), "{:?}", databases(&server));
        assert_eq!(rows(&server, "shop"), before);
        // A new database is kept, to be looked at, and the exit code says what it is.
        let copy = format!("copy{number}");
        let ran = restore(&home, &["--into-database", &copy]);
        assert_eq!(ran.code, 20, "{ran:#?}");
        assert!(ran.out.contains(said), "no {said:?} in {ran:#?}");
        server.sql(&format!("DROP DATABASE {copy}")).unwrap();
    }
}

#[test]
fn what_the_source_lacked_as_well_is_no_fault_of_a_copy() {
    let Some(server) = server() else { return };
    let home = shop(&server, &[]);
    more(&server);
    spoil(&server, &home, "NULL;");
    let before = rows(&server, "shop");
    let ran = restore(&home, &["--into-database", "copy"]);
    assert_eq!(ran.code, 0, "{ran:#?}");
    for sequence in ["filled_by_hand_id_seq of public.filled_by_hand.id", "nobodys of public.borrowing.id"] {
        assert!(ran.out.contains(&format!("sequence public.{sequence}")), "{ran:#?}");
    }
    for word in ["never_filled", "positive"] {
        assert!(!ran.out.contains(word), "{ran:#?}");
    }
    home.run(["restore", "orders", "--swap", "shop", "--force", "--confirm", "shop"]).good();
    assert_eq!(rows(&server, "shop"), before);
}

#[test]
fn a_dump_is_tested_beside_and_nothing_of_it_stays() {
    let Some(server) = server() else { return };
    let home = shop(&server, &[]);
    home.append("\n[instance.orders.hooks]\nbefore_restore = \"false\"\n");
    let ran = restore(&home, &["--test"]).good();
    for word in ["can be restored", "dropped again", "4 relations", "3 indexes", "5100 rows of 2 tables"] {
        assert!(ran.out.contains(word), "no {word:?} in {ran:#?}");
    }
    assert_eq!(databases(&server), ["postgres", "shop"]);
    let told = restore(&home, &["--test", "--json", "--table", "customers"]).good().json();
    assert_eq!(told["checks"]["rows_read"], 100, "{told}");
    assert_eq!((&told["sound"], &told["destination"]["into"]), (&true.into(), &"test".into()), "{told}");
    restore(&home, &["--test", "--dry-run"]).good();
    spoil(&server, &home, "DROP TABLE public.customers CASCADE;");
    let ran = restore(&home, &["--test"]);
    assert_eq!(ran.code, 20, "{ran:#?}");
    for word in ["cannot be restored as it was", "public.customers: is not there"] {
        assert!(ran.out.contains(word), "no {word:?} in {ran:#?}");
    }
    // One that fails, and one that is stopped.
    spoil(&server, &home, "RAISE 'never';");
    restore(&home, &["--test"]).refused(4, &["never"]);
    assert_eq!(databases(&server), ["postgres", "shop"]);
    spoil(&server, &home, "PERFORM pg_sleep(600);");
    let child = home.start(["restore", "orders", "--database", "shop", "--test"]);
    let sleeps = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    wait_until(LIMIT, "its sleep", || server.query_value(sleeps).is_ok_and(|count| count == "1")).unwrap();
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(10));
    assert_eq!(databases(&server), ["postgres", "shop"]);
}

#[test]
fn rows_that_point_nowhere_are_an_exit_code() {
    let Some(server) = server() else { return };
    let home = shop(&server, &[]);
    server.sql_in("shop", "DELETE FROM orders; DELETE FROM customers WHERE id = 7").unwrap();
    let words = ["--into-database", "shop", "--table", "orders", "--triggers-off"];
    let ran = restore(&home, &[&words[..], &["--force", "--confirm", "shop"]].concat());
    assert_eq!(ran.code, 20, "{ran:#?}");
    assert!(ran.out.contains("50 rows point to rows of public.customers"), "{ran:#?}");
}

#[test]
fn sequences_that_could_not_be_set_are_an_exit_code() {
    let Some(server) = server() else { return };
    let home = shop(&server, &[]);
    server
        .sql(
            "CREATE ROLE clerk LOGIN PASSWORD 'clerk'; GRANT CONNECT ON DATABASE shop TO clerk;
             GRANT pg_read_all_data TO clerk",
        )
        .unwrap();
    server
        .sql_in(
            "shop",
            "GRANT INSERT ON orders TO clerk; DELETE FROM orders; ALTER SEQUENCE orders_id_seq RESTART",
        )
        .unwrap();
    std::fs::write(home.path("clerk"), "clerk").unwrap();
    home.add("clerk", &server, "clerk", "clerk", false);
    home.append("environment = \"production\"\n");
    let words = ["--to-server", "clerk", "--into-database", "shop", "--table", "orders", "--force"];
    let ran = restore(&home, &[&words[..], &["--confirm", "shop", "--no-safety-backup"]].concat());
    assert_eq!(ran.code, 20, "{ran:#?}");
    assert!(ran.out.contains("sequence public.orders_id_seq: was not set right"), "{ran:#?}");
}
