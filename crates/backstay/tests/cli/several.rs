//! Several databases out of one set of dumps.

use testkit::Postgres;

use super::dumps::{dumping, shown};
use super::program::{Home, on_each_version};
use super::reloads::databases;

const COUNT: &str = "SELECT count(*) FROM t";

/// Dumps everything: the id of the set.
fn dump(home: &Home) -> String {
    home.run(["dump", "orders", "--json"]).good().json()["dumps"][0]["id"].as_str().unwrap().to_owned()
}

fn counts(server: &Postgres, names: [&str; 2]) -> [String; 2] {
    names.map(|name| server.query_value_in(name, COUNT).unwrap())
}

#[test]
fn several_databases_of_a_set_come_back_together_or_none_is_begun_with() {
    on_each_version(|server| {
        let home = dumping(server);
        for (database, rows) in [("shop", 3), ("stock", 5)] {
            server.sql(&format!("CREATE DATABASE {database}")).unwrap();
            let table = format!("CREATE TABLE t AS SELECT generate_series(1, {rows}) AS n");
            server.sql_in(database, &table).unwrap();
        }
        let set = dump(&home);
        for database in ["shop", "stock"] {
            server.sql_in(database, "INSERT INTO t VALUES (100)").unwrap();
        }
        dump(&home);
        let both = ["restore", "orders", "--database", "shop", "--database", "stock"];
        let with = |words: &[&str]| home.run([&both[..], words].concat());

        let told = with(&["--into-database", "{database}_now", "--json"]).good().json();
        let names: Vec<_> =
            told.as_array().unwrap().iter().map(|one| one["destination"]["name"].clone()).collect();
        assert_eq!(names, ["shop_now", "stock_now"], "{told:#}");
        assert_eq!(counts(server, ["shop_now", "stock_now"]), ["4", "6"]);
        // The id of a set, which is that of its roles, names all of its dumps.
        with(&["--backup", &set, "--into-database", "old_{database}"]).good();
        assert_eq!(counts(server, ["old_shop", "old_stock"]), ["3", "5"]);
        let one = [
            "restore",
            "orders",
            "--backup",
            &set,
            "--database",
            "stock",
            "--into-database",
            "one_{database}",
        ];
        home.run(one).good();
        assert_eq!(server.query_value_in("one_stock", COUNT).unwrap(), "5");

        let there = databases(server);
        let tried = with(&["--test"]).good();
        assert_eq!(tried.out.matches("can be restored").count(), 2, "{tried:#?}");
        let planned = with(&["--into-database", "{database}_planned", "--dry-run"]).good();
        assert!(
            planned.out.contains("shop_planned") && planned.out.contains("stock_planned"),
            "{planned:#?}"
        );
        // One that is in use: the other is not begun with either.
        server.sql("CREATE DATABASE stock_used").unwrap();
        server.sql_in("stock_used", "CREATE TABLE mine (n int)").unwrap();
        let used = with(&["--into-database", "{database}_used"]);
        let used = used.refused(4, &["stock_used", "by itself", "--force --confirm 'stock_used'"]);
        assert!(!used.err.contains("if that is meant, say so"), "{used:#?}");
        with(&["--into-database", "all"])
            .refused(2, &["`--into-database` is for one database", "{database}"]);
        with(&["--swap", "shop"]).refused(2, &["`--swap` is for one database"]);
        with(&["--into-database", "{database}_x", "--database", "none"])
            .refused(3, &["no dump of database none"]);
        home.run(["restore", "orders", "--into-database", "{database}_x"]).refused(2, &["`--database`"]);
        server.sql("DROP DATABASE stock_used").unwrap();
        assert_eq!(databases(server), there);
    });
}

/// The ids of the dumps of the first set, of the roles first.
fn set_of(home: &Home) -> Vec<(Option<String>, String)> {
    let told = home.run(["dump", "orders", "--json"]).good().json();
    let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
    let dumps = told["dumps"].as_array().unwrap().iter();
    dumps.map(|dump| (text(&dump["database"]), text(&dump["id"]).unwrap())).collect()
}

#[test]
fn a_dump_of_another_database_never_stands_for_the_one_that_was_asked_for() {
    on_each_version(|server| {
        let home = dumping(server);
        for (database, rows) in [("shop", 3), ("shop_new", 5)] {
            server.sql(&format!("CREATE DATABASE {database}")).unwrap();
            let table = format!("CREATE TABLE t AS SELECT generate_series(1, {rows}) AS n");
            server.sql_in(database, &table).unwrap();
        }
        let set = set_of(&home);
        let alone = home.run(["dump", "orders", "--database", "shop_new", "--layout", "plain", "--json"]);
        let alone = alone.good().json()["dumps"][0]["id"].as_str().unwrap().to_owned();
        let id = |of: Option<&str>| &set.iter().find(|(database, _)| database.as_deref() == of).unwrap().1;
        let there = databases(server);
        for place in [&["--into-database", "copy"][..], &["--test"], &["--swap", "shop"]] {
            let with = |words: &[&str]| home.run([&["restore", "orders"], words, place].concat());
            let of_shop = ["--backup", &alone, "--database", "shop"];
            with(&of_shop).refused(3, &["database shop is not in", "and these are: shop_new"]);
            let of_none = ["--backup", id(Some("shop")), "--database", "none"];
            with(&of_none).refused(3, &["and these are: postgres, shop, shop_new"]);
            let of_roles = ["--backup", id(None), "--database", "none"];
            with(&of_roles).refused(3, &["and these are: postgres, shop, shop_new"]);
        }
        assert_eq!(databases(server), there);

        // What was dumped before a migration, in the place of what it was made from: meant, and
        // for whoever says so.
        let swap = ["restore", "orders", "--swap", "shop", "--backup", id(Some("shop_new"))];
        home.run(swap).refused(4, &["the dump is of database shop_new, and not of shop"]);
        home.run([&swap[..], &["--force", "--confirm", "shop"]].concat()).good();
        assert_eq!(server.query_value_in("shop", COUNT).unwrap(), "5");
    });
}

#[test]
fn what_came_before_one_that_fails_is_told_and_what_was_planned_is_what_comes() {
    on_each_version(|server| {
        let home = dumping(server);
        for database in ["shop", "stock", "shop_x", "stock_x"] {
            server.sql(&format!("CREATE DATABASE {database}")).unwrap();
        }
        for database in ["shop", "stock"] {
            server.sql_in(database, "CREATE TABLE t AS SELECT generate_series(1, 3) AS n").unwrap();
        }
        dump(&home);
        let both = ["restore", "orders", "--database", "shop", "--database", "stock"];
        let with = |words: &[&str]| home.run([&both[..], words].concat());

        // A newer dump of the second is taken while the first is restored.
        server.sql_in("stock", "INSERT INTO t VALUES (100)").unwrap();
        let config = std::fs::read_to_string(home.config()).unwrap();
        let again = format!(
            "{} --config '{}' dump orders --database stock --layout plain",
            env!("CARGO_BIN_EXE_backstay"),
            home.config().display()
        );
        home.append(&format!("\n[instance.orders.hooks]\nbefore_restore = \"{again}\"\n"));
        with(&["--into-database", "{database}_x"]).good();
        assert_eq!(counts(server, ["shop_x", "stock_x"]), ["3", "3"]);
        std::fs::write(home.config(), config).unwrap();

        // The second is another file than its sidecar was written for, which its last byte
        // tells: what is known of the first is told as if it had been alone.
        for file in shown(&home.path("dumps")) {
            let name = file.file_name().unwrap().to_string_lossy().into_owned();
            if name.starts_with("stock_") && name.ends_with(".meta.json") {
                let sidecar = std::fs::read_to_string(&file).unwrap();
                let (before, sum) = sidecar.split_once("\"sha256\": \"").unwrap();
                let other = format!("{before}\"sha256\": \"{}{}", "0".repeat(64), &sum[64..]);
                std::fs::write(&file, other).unwrap();
            }
        }
        let ran = with(&["--into-database", "{database}_y", "--json"]);
        assert_eq!(ran.code, 8, "{ran:#?}");
        let told = ran.json();
        assert_eq!(told.as_array().unwrap().len(), 1, "{told:#}");
        assert_eq!(told[0]["destination"]["name"], "shop_y");
        assert_eq!(server.query_value_in("shop_y", COUNT).unwrap(), "3");
        let tried = with(&["--test"]);
        let tried = tried.refused(8, &["database stock was not restored; before it shop were"]);
        assert!(tried.out.contains("can be restored"), "{tried:#?}");
        let there = databases(server);
        assert_eq!(there, ["postgres", "shop", "shop_x", "shop_y", "stock", "stock_x"]);
    });
}
