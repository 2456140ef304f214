//! Dumps that meet somebody who locks tables in the other order.

use std::process::{Child, Stdio};
use std::time::Duration;

use testkit::{Postgres, wait_until};

use super::dumps::{dumping, shown};
use super::program::on_each_version;

const LIMIT: Duration = Duration::from_secs(60);

/// Waits in the server, for at most a minute, until a `pg_dump` has the first table and
/// waits for the second.
const PG_DUMP_WAITS: &str = "
    DO $$ BEGIN
        FOR n IN 1..6000 LOOP
            PERFORM pg_stat_clear_snapshot();
            EXIT WHEN EXISTS (SELECT FROM pg_locks l JOIN pg_stat_activity a USING (pid)
                WHERE a.query LIKE 'LOCK TABLE%' AND l.relation = 'second'::regclass AND NOT l.granted);
            PERFORM pg_sleep(0.01);
        END LOOP;
    END $$";

/// Somebody who has the second table and asks for the first, so many times, and each time
/// while a `pg_dump` has the first and asks for the second. The server ends whoever looks
/// for deadlocks first, and this one never does.
fn crossing(server: &Postgres, times: usize) -> Child {
    let mut command = server.tool("psql");
    command.args(["--no-psqlrc", "--quiet", "--dbname=shop", "--set=ON_ERROR_STOP=1"]);
    let mut say = |statement: &str| {
        command.arg(format!("--command={statement}"));
    };
    say("SET deadlock_timeout = '10min'");
    say("BEGIN");
    say("LOCK TABLE second IN ACCESS EXCLUSIVE MODE");
    for _ in 0..times {
        say(PG_DUMP_WAITS);
        say("SAVEPOINT here");
        say("LOCK TABLE first IN ACCESS EXCLUSIVE MODE");
        say("ROLLBACK TO SAVEPOINT here");
    }
    say("COMMIT");
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let has = "SELECT count(*) FROM pg_locks WHERE relation = 'second'::regclass AND granted \
               AND mode = 'AccessExclusiveLock'";
    wait_until(LIMIT, "the second table to be locked", || {
        server.query_value_in("shop", has).is_ok_and(|count| count == "1")
    })
    .unwrap();
    child
}

fn shop(server: &Postgres) {
    server.sql("CREATE DATABASE shop").unwrap();
    // A `pg_dump` looks for a deadlock when it has waited for so long.
    server.sql("ALTER DATABASE shop SET deadlock_timeout = '3s'").unwrap();
    let tables = "CREATE TABLE first AS SELECT 1 AS n; CREATE TABLE second AS SELECT 2 AS n";
    server.sql_in("shop", tables).unwrap();
}

#[test]
fn a_dump_that_loses_a_deadlock_is_begun_again_and_says_so() {
    on_each_version(|server| {
        shop(server);
        let home = dumping(server);
        let mut other = crossing(server, 1);
        let ran = home.run(["dump", "orders", "--database", "shop", "--json"]).good();
        assert!(other.wait().unwrap().success(), "nobody else was ended");
        let told = ran.json();
        let findings = told["findings"].as_array().unwrap();
        let is_told = |text: &str| findings.iter().any(|found| found["message"].to_string().contains(text));
        assert!(is_told("lost a deadlock with others once"), "{told:#}");
        home.run(["restore", "orders", "--database", "shop", "--into-database", "copy"]).good();
        assert_eq!(server.query_value_in("copy", "SELECT n FROM second").unwrap(), "2");
    });
}

#[test]
fn a_dump_that_loses_every_deadlock_is_given_up_and_leaves_nothing() {
    on_each_version(|server| {
        shop(server);
        let home = dumping(server);
        let mut other = crossing(server, 3);
        let ran = home.run(["dump", "orders", "--database", "shop"]);
        ran.refused(6, &["lost a deadlock with others 3 times", "deadlock detected"]);
        assert!(other.wait().unwrap().success(), "nobody else was ended");
        assert_eq!(shown(&home.path("dumps")), [""; 0].map(std::path::PathBuf::from));
    });
}
