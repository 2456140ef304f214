//! A restore on a machine where the server's account has another number. The machine
//! is this one with another list of accounts, which no other process sees.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use testkit::Postgres;
use testkit::ownership::{server_owner, we_are_root};
use testkit::postgres::{PASSWORD, SUPERUSER};

use super::program::{Home, Ran, run, server};
use super::space::on_small_file_system;

const NUMBER_THERE: u32 = 4242;

struct House {
    home: Home,
    server: Postgres,
    /// The accounts of the other machine.
    accounts: PathBuf,
    old_space: PathBuf,
    into: PathBuf,
    space: PathBuf,
}

impl House {
    /// `None` where there is no server, nobody who may give files away, or no account
    /// of the usual name.
    fn build(local: bool) -> Option<House> {
        let owner = server_owner().unwrap();
        let here = std::fs::read_to_string("/etc/passwd").unwrap();
        let number = format!(":x:{}:", owner.user_id);
        let line = here.lines().find(|line| line.starts_with(&format!("postgres{number}")));
        let Some(line) = line.filter(|_| we_are_root()) else {
            eprintln!("SKIPPED: giving files away needs root, and an account `postgres`");
            return None;
        };
        let server = server()?;
        let home = Home::new();
        home.init();
        home.add("orders", &server, SUPERUSER, PASSWORD, local);
        let old_space = home.path("old");
        std::fs::create_dir(&old_space).unwrap();
        owner.take(&old_space).unwrap();
        server.sql(&format!("CREATE TABLESPACE fast LOCATION '{}'", old_space.display())).unwrap();
        server.sql("CREATE TABLE t TABLESPACE fast AS SELECT generate_series(1, 1000) AS n").unwrap();
        home.run(["backup"]).good();

        let moved = line.replace(&number, &format!(":x:{NUMBER_THERE}:"));
        let stranger = line.replace("postgres:", "stranger:");
        let accounts = home.path("passwd");
        std::fs::write(&accounts, here.replace(line, &format!("{stranger}\n{moved}"))).unwrap();
        let (into, space) = (home.path("the copy"), home.path("space"));
        Some(House { home, server, accounts, old_space, into, space })
    }

    /// Runs a script on the other machine.
    fn there(&self, script: &str) -> Option<Ran> {
        let mount = format!("mount --bind '{}' /etc/passwd || exit 101", self.accounts.display());
        on_small_file_system(&self.home.path("small"), 1, &format!("{mount}\n{script}"))
    }

    fn restore(&self) -> String {
        format!(
            "\"$BACKSTAY\" --config '{}' restore orders --into '{}' --tablespace '{}={}'",
            self.home.config().display(),
            self.into.display(),
            self.old_space.display(),
            self.space.display(),
        )
    }

    /// Files that belong to somebody else; whose a link is means nothing.
    fn strays_of(&self, number: u32) -> String {
        let mut find = Command::new("find");
        find.args([&self.into, &self.space]).args(["!", "-type", "l", "!", "-uid", &number.to_string()]);
        run(&mut find).good().out
    }
}

fn owner(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().uid()
}

fn is_told_and_mended(local: bool, whose: &str) {
    let Some(house) = House::build(local) else { return };
    let number = server_owner().unwrap().user_id;
    let Some(restored) = house.there(&house.restore()) else { return };
    let restored = restored.good();
    assert_eq!(house.strays_of(number), "", "given to somebody without a word");
    let told = format!("the files belong to user {number}, which is stranger on this machine; {whose}");
    assert!(restored.out.contains(&told), "no {told:?} in {restored:#?}");

    let command = restored.out.split('`').find(|words| words.starts_with("chown -R ")).unwrap();
    let (into, space) = (house.into.display(), house.space.display());
    assert_eq!(command, format!("chown -R postgres: '{into}' {space}"));
    house.there(command).unwrap().good();
    assert_eq!(house.strays_of(NUMBER_THERE), "");
    let copy = Postgres::start_on(house.server.installation(), &house.into).unwrap();
    assert_eq!(copy.query_value("SELECT sum(n) FROM t").unwrap(), "500500");
}

#[test]
fn the_number_of_another_account_is_told_after_a_local_backup() {
    is_told_and_mended(true, "it was postgres where the backup was taken");
}

#[test]
fn the_number_of_another_account_is_told_after_a_remote_backup() {
    is_told_and_mended(false, "whose it was where the backup was taken is not known, postgres as a rule");
}

#[test]
fn nothing_is_said_where_the_number_is_the_same_accounts() {
    let Some(house) = House::build(true) else { return };
    let moved = format!("{}={}", house.old_space.display(), house.space.display());
    let into = house.into.to_str().unwrap();
    let restored = house.home.run(["restore", "orders", "--into", into, "--tablespace", &moved]).good();
    assert!(!restored.out.contains("owner") && !restored.out.contains("chown"), "{restored:#?}");
    assert_eq!(owner(&house.space), server_owner().unwrap().user_id);
}
