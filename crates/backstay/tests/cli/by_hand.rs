//! A second dump of a day where names have no time of day.

use std::process::{Child, Stdio};
use std::time::Duration;

use testkit::{Postgres, wait_until};

use super::dumps::dumping;
use super::program::{Home, Ran, server};

const LIMIT: Duration = Duration::from_secs(60);

/// A house of one database, `shop`.
fn save_it_ai(server: &Postgres) -> Home {
    let home = dumping(server);
    let text = std::fs::read_to_string(home.config()).unwrap();
    let text = text.replace("\"tiers\"", "\"save-it-ai\"").replace("/postgres\"", "/shop\"");
    std::fs::write(home.config(), text).unwrap();
    home
}

/// Takes one: its path below the shelf, and the day of it.
fn dump(home: &Home) -> (String, String) {
    let told = home.run(["dump", "orders", "--database", "shop", "--json"]).good().json();
    let dump = &told["dumps"][0];
    let path = dump["paths"][0]["path"].as_str().unwrap().to_owned();
    let day = dump["id"].as_str().unwrap()[..8].to_owned();
    (path, day)
}

#[test]
fn what_save_it_ai_takes_by_hand_lies_in_manual_and_is_a_dump_like_any_other() {
    let Some(server) = server() else { return };
    server.sql("CREATE DATABASE shop").unwrap();
    server.sql_in("shop", "CREATE TABLE orders AS SELECT g AS id FROM generate_series(1, 30) g").unwrap();
    // Again where midnight came between two of them.
    for _ in 0..2 {
        let home = save_it_ai(&server);
        let taken: Vec<(String, String)> = (0..4).map(|_| dump(&home)).collect();
        let (paths, days): (Vec<String>, Vec<String>) = taken.into_iter().unzip();
        let day = &days[0];
        if days.iter().any(|other| other != day) {
            continue;
        }
        let dashed = format!("{}-{}-{}", &day[..4], &day[4..6], &day[6..]);
        assert_eq!(paths[0], format!("backup-{dashed}.sql.gz"));
        assert_eq!(paths[1], format!("manual/backup-{day}.sql.gz"));
        for path in &paths[2..] {
            assert!(path.starts_with(&format!("manual/backup-{day}_")), "{paths:?}");
        }
        let pointed = std::fs::read_link(home.path("dumps/backup-latest.sql.gz")).unwrap();
        assert_eq!(pointed.to_str(), Some(paths[3].as_str()), "the newest, wherever it lies");
        home.run(["verify", "orders"]).good();
        let listed = home.run(["list", "--type", "dump", "--json"]).good().json();
        assert_eq!(listed.as_array().unwrap().len(), 4, "{listed:#}");
        home.run(["restore", "orders", "--database", "shop", "--into-database", "copy"]).good();
        assert_eq!(server.query_value_in("copy", "SELECT count(*) FROM orders").unwrap(), "30");

        // What somebody else put in the place of the day is for a person to look at.
        for path in ["", ".meta.json"].map(|end| home.path(&format!("dumps/{}{end}", paths[0]))) {
            std::fs::remove_file(path).unwrap();
        }
        std::fs::write(home.path("dumps").join(&paths[0]), "of a script").unwrap();
        home.run(["dump", "orders", "--database", "shop"]).refused(4, &[&paths[0], "adopt"]);
        return;
    }
    panic!("two midnights within one test");
}

/// Somebody who has the table of `shop` until a dump of it waits, and another one is there.
fn locking(server: &Postgres) -> Child {
    let mut command = server.tool("psql");
    command.args(["--no-psqlrc", "--quiet", "--dbname=shop", "--set=ON_ERROR_STOP=1"]);
    for statement in [
        "BEGIN",
        "LOCK TABLE orders IN ACCESS EXCLUSIVE MODE",
        "DO $$ BEGIN
            FOR n IN 1..6000 LOOP
                PERFORM pg_stat_clear_snapshot();
                EXIT WHEN EXISTS (SELECT FROM pg_database WHERE datname = 'go_on');
                PERFORM pg_sleep(0.01);
            END LOOP;
        END $$",
        "COMMIT",
    ] {
        command.arg(format!("--command={statement}"));
    }
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let has = "SELECT count(*) FROM pg_locks WHERE relation = 'orders'::regclass AND granted \
               AND mode = 'AccessExclusiveLock'";
    let is_locked = || server.query_value_in("shop", has).is_ok_and(|count| count == "1");
    wait_until(LIMIT, "the table to be locked", is_locked).unwrap();
    child
}

#[test]
fn of_two_dumps_of_a_day_that_overlap_none_is_thrown_away_for_its_name() {
    let Some(server) = server() else { return };
    for database in ["shop", "stock"] {
        server.sql(&format!("CREATE DATABASE {database}")).unwrap();
        let table = "CREATE TABLE orders AS SELECT g AS id FROM generate_series(1, 30) g";
        server.sql_in(database, table).unwrap();
    }
    // Again where midnight came between two of them.
    for _ in 0..2 {
        let home = save_it_ai(&server);
        let mut other = locking(&server);
        let slow = ["dump", "orders", "--database", "shop", "--json"];
        let slow = home.command(slow).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'orders'::regclass";
        let is_waiting = || server.query_value_in("shop", waits).is_ok_and(|count| count != "0");
        wait_until(LIMIT, "the first dump to wait for the table", is_waiting).unwrap();
        let fast = home.run(["dump", "orders", "--database", "stock", "--json"]).good().json();
        let pointer = home.path("dumps/backup-latest.sql.gz");
        assert!(!pointer.is_symlink(), "its name says no database, and this is not that of the house");
        // What lies where the first of the names by hand would be is a stranger's.
        let day = fast["dumps"][0]["id"].as_str().unwrap()[..8].to_owned();
        std::fs::create_dir_all(home.path("dumps/manual")).unwrap();
        std::fs::write(home.path(&format!("dumps/manual/backup-{day}.sql.gz")), "of a script").unwrap();
        server.sql("CREATE DATABASE go_on").unwrap();
        let slow = Ran::from(&slow.wait_with_output().unwrap()).good().json();
        assert!(other.wait().unwrap().success());
        server.sql("DROP DATABASE go_on").unwrap();
        if !slow["dumps"][0]["id"].as_str().unwrap().starts_with(&day) {
            continue;
        }
        let path =
            |told: &serde_json::Value| told["dumps"][0]["paths"][0]["path"].as_str().unwrap().to_owned();
        let dashed = format!("{}-{}-{}", &day[..4], &day[4..6], &day[6..]);
        assert_eq!(path(&fast), format!("backup-{dashed}.sql.gz"));
        assert!(path(&slow).starts_with(&format!("manual/backup-{day}_")), "{slow:#}");
        assert_eq!(std::fs::read_link(&pointer).unwrap().to_str(), Some(&*path(&slow)));
        home.run(["verify", "orders"]).good();
        let listed = home.run(["list", "--type", "dump", "--json"]).good().json();
        assert_eq!(listed.as_array().unwrap().len(), 2, "{listed:#}");
        home.run(["restore", "orders", "--database", "shop", "--into-database", "copy"]).good();
        assert_eq!(server.query_value_in("copy", "SELECT count(*) FROM orders").unwrap(), "30");
        return;
    }
    panic!("two midnights within one test");
}
