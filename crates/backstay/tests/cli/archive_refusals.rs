//! Servers whose log cannot be received as they are: told once, with what would help, and
//! received as soon as it does.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStderr, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use testkit::ownership::server_owner;
use testkit::postgres::{PASSWORD, SUPERUSER};
use testkit::{Postgres, PostgresOptions, PostgresVersion, Workspace, wait_until};

use super::program::{Home, server_of};

const LIMIT: Duration = Duration::from_secs(60);

/// A receiver, and what it says.
struct Archive {
    child: Child,
    lines: Receiver<String>,
}

impl Archive {
    fn start(home: &Home) -> Archive {
        let mut child = home.start(["archive", "orders"]);
        let (told, lines) = channel();
        let said: ChildStderr = child.stderr.take().unwrap();
        std::thread::spawn(move || {
            for line in BufReader::new(said).lines().map_while(Result::ok) {
                if told.send(line).is_err() {
                    return;
                }
            }
        });
        Archive { child, lines }
    }

    /// Waits until it says each of these, in this order.
    #[track_caller]
    fn says(&self, texts: &[&str]) {
        let mut heard = Vec::new();
        for text in texts {
            while !heard.last().is_some_and(|line: &String| line.contains(text)) {
                match self.lines.recv_timeout(LIMIT) {
                    Ok(line) => heard.push(line),
                    Err(error) => panic!("{text:?} was not said ({error}): {heard:#?}"),
                }
            }
        }
    }
}

impl Drop for Archive {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn home_of(server: &Postgres) -> Home {
    let home = Home::new();
    home.init();
    home.add("orders", server, SUPERUSER, PASSWORD, false);
    home.append("policy = { rpo = \"200ms\" }\n\n[instance.orders.archive]\nspool = \"spool\"\n");
    home
}

#[test]
fn a_slot_that_another_receiver_has_is_waited_for() {
    for version in PostgresVersion::ALL {
        let Some(server) = server_of(version, &PostgresOptions::default()) else { return };
        let home = home_of(&server);
        server.sql("SELECT pg_create_physical_replication_slot('backstay_orders', true)").unwrap();
        let place = Workspace::new().unwrap();
        server_owner().unwrap().take(place.path()).unwrap();
        let mut command = server.tool("pg_receivewal");
        command.args(["--slot", "backstay_orders", "--no-loop", "--directory"]).arg(place.path());
        let mut other = command.stdin(Stdio::null()).spawn().unwrap();
        wait_until(LIMIT, "the other receiver", || {
            let active = "SELECT active FROM pg_replication_slots WHERE slot_name = 'backstay_orders'";
            server.query_value(active).is_ok_and(|is_active| is_active == "t")
        })
        .unwrap();
        let archive = Archive::start(&home);
        archive.says(&["waiting: ", "hint: ", "archive.slot"]);
        other.kill().unwrap();
        other.wait().unwrap();
        archive.says(&["receiving timeline 1 "]);
    }
}

#[test]
fn a_server_that_lets_nobody_receive_is_told_with_the_setting_that_would() {
    for version in PostgresVersion::ALL {
        let nobody =
            PostgresOptions::default().configure("wal_level = minimal").configure("max_wal_senders = 0");
        let taken = PostgresOptions::default().configure("max_replication_slots = 0");
        for (options, said, setting) in [
            (nobody, "requested standby connections exceeds", "`wal_level = replica`"),
            (taken, "slots", "`max_replication_slots`"),
        ] {
            let Some(server) = server_of(version, &options) else { return };
            let home = home_of(&server);
            Archive::start(&home).says(&[said, setting]);
        }
    }
}

#[test]
fn another_cluster_behind_the_same_address_is_refused() {
    for version in PostgresVersion::ALL {
        let Some(server) = server_of(version, &PostgresOptions::default()) else { return };
        let home = home_of(&server);
        {
            let archive = Archive::start(&home);
            archive.says(&["receiving timeline 1 "]);
            server.sql("CREATE TABLE t AS SELECT 1 AS n").unwrap();
            wait_until(LIMIT, "the first of the log", || !home.objects("/log/").is_empty()).unwrap();
        }
        let before = home.objects("/log/");
        drop(server);
        let Some(other) = server_of(version, &PostgresOptions::default()) else { return };
        let url = format!("instance.orders.url={}", other.url());
        let ran = home.run(["archive", "orders", "--set", &url]);
        ran.refused(2, &["cluster", "`backstay backup orders`"]);
        // What the first server had sent goes to the store from the spool, and nothing else does.
        let lineage = |object: &std::path::PathBuf| {
            object
                .components()
                .skip_while(|part| part.as_os_str() != "log")
                .nth(1)
                .unwrap()
                .as_os_str()
                .to_owned()
        };
        let after = home.objects("/log/");
        assert!(before.iter().all(|object| after.contains(object)), "{before:?} {after:?}");
        assert!(after.iter().all(|object| lineage(object) == lineage(&before[0])), "{before:?} {after:?}");
    }
}

#[test]
fn an_archive_that_commits_wait_for_gives_up_no_log() {
    let home = Home::new();
    home.init();
    home.append(
        "\n[instance.orders]\nengine = \"postgresql\"\nurl = \"postgresql://nobody@127.0.0.1:1/x\"\n",
    );
    home.append("\n[instance.orders.archive]\nspool = \"spool\"\nsynchronous = true\nmax_lag = \"1GiB\"\n");
    home.append("on_max_lag = \"gap\"\n");
    home.run(["archive", "orders"]).refused(2, &["`synchronous = true`", "`on_max_lag = \"gap\"`"]);
}
