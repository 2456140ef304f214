//! A restored server goes on under the name of its source. It has the identifier
//! and the timeline of its source and writes another log at the same positions, so
//! nothing that the server says tells their backups apart.

use std::path::PathBuf;
use std::process::Command;

use testkit::postgres::{PASSWORD, SUPERUSER};
use testkit::{Postgres, PostgresOptions, PostgresVersion};

use super::program::{Home, Ran, server_of};

/// Rows that both lives change in different ways, in pages that stay where they are.
const ROWS: &str = "CREATE TABLE kept (n int, life int, filler text) WITH (fillfactor = 40);
    INSERT INTO kept SELECT n, 0, repeat('k', 300) FROM generate_series(1, 3000) AS n;
    CREATE TABLE own (n int, filler text);
    VACUUM (FREEZE) kept;";

/// Everything a life can be told by. Asked of copies only: reading sets hint bits, and a
/// page that was written for them is a page that changed.
const LIVES: &str = "SELECT (SELECT string_agg(life || '=' || count, ' ' ORDER BY life) FROM \
    (SELECT life, count(*) FROM kept GROUP BY life) AS lives), (SELECT count(*) FROM own), \
    (SELECT sum(n::bigint * (life + 1)) FROM kept)";

struct Lives {
    home: Home,
    version: PostgresVersion,
    local: bool,
    restored: u32,
}

impl Lives {
    /// Backs up whoever this is, under the one name, and returns the id.
    fn back_up(&self, server: &Postgres) -> String {
        let url = format!("instance.orders.url={}", server.socket_url());
        let data = format!("instance.orders.data_directory={}", server.data_directory().display());
        let mut words = vec!["backup", "orders", "--json", "--set", &url];
        if self.local {
            words.extend(["--set", &data]);
        }
        let taken = self.home.run(words).good().json();
        taken[0]["id"].as_str().unwrap().to_owned()
    }

    fn restore(&mut self, backup: &str) -> PathBuf {
        self.restored += 1;
        let into = self.home.path(&format!("restored{}", self.restored));
        self.home.run(["restore", "orders", "--backup", backup, "--into", into.to_str().unwrap()]).good();
        into
    }

    fn said_of(&self, backup: &str) -> String {
        self.home.run(["show", backup]).good().out
    }

    /// What a backup holds, after PostgreSQL's own judges found nothing wrong with it.
    #[track_caller]
    fn proved(&mut self, source: &Postgres, backup: &str) -> String {
        let into = self.restore(backup);
        let copy = Postgres::start_on(source.installation(), &into).unwrap();
        let amcheck = run(copy.tool("pg_amcheck").args(["--all", "--install-missing"]));
        assert_eq!(amcheck.code, 0, "{amcheck:#?}");
        copy.query_value(LIVES).unwrap()
    }

    /// A second life of a backup, which takes no notice of what its settings would be elsewhere.
    fn live_on(&mut self, source: &Postgres, backup: &str) -> Postgres {
        let into = self.restore(backup);
        Postgres::start_on(source.installation(), &into).unwrap()
    }
}

fn run(command: &mut Command) -> Ran {
    Ran::from(&command.output().unwrap())
}

fn position(server: &Postgres) -> u64 {
    server.query_value("SELECT (pg_current_wal_insert_lsn() - '0/0')::text").unwrap().parse().unwrap()
}

/// Writes log that has nothing to do with the rows, until a position has been passed.
fn write_past(server: &Postgres, end: u64) {
    while position(server) <= end {
        server.sql("INSERT INTO own SELECT g, repeat('o', 500) FROM generate_series(1, 200) AS g").unwrap();
        server.sql("SELECT pg_switch_wal()").unwrap();
    }
    // Summaries reach this far.
    server.sql("CHECKPOINT").unwrap();
}

fn lives(version: PostgresVersion, local: bool) -> Option<(Postgres, Lives)> {
    let mut options = PostgresOptions::default().configure("autovacuum = off");
    if version >= PostgresVersion::V17 {
        options = options.configure("summarize_wal = on");
    }
    let server = server_of(version, &options)?;
    let home = Home::new();
    home.init();
    home.add("orders", &server, SUPERUSER, PASSWORD, local);
    server.sql(ROWS).unwrap();
    Some((server, Lives { home, version, local, restored: 0 }))
}

/// The parent of the first backup of the second life is the source's newest: of the same
/// identifier, on the same timeline, at a position that the second life has passed.
fn two_lives_under_one_name(version: PostgresVersion, local: bool) {
    let Some((source, mut lives)) = lives(version, local) else { return };
    let first = lives.back_up(&source);
    source.sql("UPDATE kept SET life = 1 WHERE n % 3 = 0").unwrap();
    source.sql("VACUUM (FREEZE) kept; CHECKPOINT").unwrap();
    let of_source = lives.back_up(&source);
    let ended = position(&source);

    let second = lives.live_on(&source, &first);
    write_past(&second, ended);
    second.sql("UPDATE kept SET life = 2 WHERE n = 1").unwrap();
    let of_second = lives.back_up(&second);
    assert!(lives.said_of(&of_second).contains(&of_source), "the parent is the source's newest");

    // Both live on, and each finds the other's backup as the newest.
    write_past(&source, ended);
    source.sql("UPDATE kept SET life = 1 WHERE n = 2").unwrap();
    let of_source_again = lives.back_up(&source);
    second.sql("UPDATE kept SET life = 2 WHERE n = 3").unwrap();
    let of_second_again = lives.back_up(&second);
    second.sql("UPDATE kept SET life = 2 WHERE n = 4").unwrap();
    let increment = lives.back_up(&second);

    let held = |answer: &str| answer.split('|').next().unwrap().to_owned();
    assert_eq!(held(&lives.proved(&source, &of_second)), "0=2999 2=1");
    assert_eq!(held(&lives.proved(&source, &of_source_again)), "0=1999 1=1001");
    let last = lives.proved(&source, &increment);
    assert_eq!(held(&last), "0=2997 2=3");
    assert_eq!(last, second.query_value(LIVES).unwrap());
    lives.says_why(&[&of_second, &of_source_again, &of_second_again], &increment);
    assert!(lives.home.run(["verify"]).good().out.contains("sound"));
}

impl Lives {
    /// Only the way that takes pages on trust has something to say, and it says it.
    fn says_why(&self, of_another_life: &[&str], increment: &str) {
        let trusts = !self.local && self.version >= PostgresVersion::V17;
        for backup in of_another_life {
            let said = self.said_of(backup);
            assert_eq!(said.contains("all blocks were sent"), trusts, "{said}");
        }
        assert!(!self.said_of(increment).contains("all blocks were sent"));
    }
}

#[test]
fn a_restored_server_and_its_source_share_a_name_and_no_page_in_the_local_way() {
    two_lives_under_one_name(PostgresVersion::V15, true);
}

#[test]
fn a_restored_server_and_its_source_share_a_name_and_no_page_in_the_way_that_sends_changes() {
    two_lives_under_one_name(PostgresVersion::V17, false);
}
