//! A restore that ends half-way, whatever ends it: what lies there cannot be started,
//! nothing is written over it, and the error says what to do.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use backstay_engine::postgres::starting::shell_word;
use rustix::process::Signal;
use testkit::ownership::server_owner;
use testkit::{Postgres, require_tampering, tampered};

use super::lasting::Lasting;
use super::program::{Home, Ran, protected, run};
use super::space::on_small_file_system;

/// A server that has been backed up once, and its home.
fn backed_up() -> Option<(Postgres, Home)> {
    let (server, home) = protected("orders")?;
    server.sql("CREATE TABLE t AS SELECT n, md5(n::text) FROM generate_series(1, 20000) AS n").unwrap();
    home.run(["backup"]).good();
    Some((server, home))
}

/// A restore whose system calls go as this rule says.
fn restore_with(home: &Home, into: &Path, rule: &str) -> Ran {
    let call = rule.split(':').next().unwrap();
    let command = home.command(["restore", "orders", "--into", into.to_str().unwrap()]);
    run(&mut tampered(&command, call, &[rule], None, &home.path("calls")))
}

/// Neither PostgreSQL nor another restore takes the directory for one that is whole.
#[track_caller]
fn is_no_server(server: &Postgres, home: &Home, into: &Path) {
    assert!(into.join("base").is_dir(), "the restore had not begun");
    assert!(!into.join("global/pg_control").exists());
    assert!(Postgres::start_on(server.installation(), into).is_err(), "half of a database was started");

    let before = entries(into);
    let again = home.run(["restore", "orders", "--into", into.to_str().unwrap()]);
    let clear = format!("`rm -r {}`", into.display());
    again.refused(4, &["not empty", "an interrupted restore", &clear, "--into"]);
    assert_eq!(entries(into), before);
    std::fs::remove_dir_all(into).unwrap();
    home.run(["restore", "orders", "--into", into.to_str().unwrap(), "--start"]).good();
}

fn entries(directory: &Path) -> usize {
    let mut find = Command::new("find");
    let found = find.arg(directory).stdin(Stdio::null()).output().unwrap();
    found.stdout.iter().filter(|byte| **byte == b'\n').count()
}

#[test]
fn a_killed_restore_cannot_be_started_and_is_not_written_over() {
    let Some((server, home)) = backed_up() else { return };
    if !require_tampering() {
        return;
    }
    let into = home.path("restored");
    let restore = Lasting::start(&home, "pwrite64", &["restore", "orders", "--into", into.to_str().unwrap()]);
    restore.signal(Signal::KILL);
    drop(restore);
    is_no_server(&server, &home, &into);
}

#[test]
fn a_restore_that_is_not_allowed_to_go_on_says_what_to_do() {
    let Some((server, home)) = backed_up() else { return };
    if !require_tampering() {
        return;
    }
    for (name, rule, code) in [
        ("full", "fallocate:error=ENOSPC:when=1", 6),
        ("quota", "pwrite64:error=EDQUOT:when=50+", 6),
        ("disk", "pwrite64:error=EIO:when=50+", 6),
        ("rights", "mkdir:error=EACCES:when=10+", 5),
        ("durable", "syncfs:error=EIO:when=1", 6),
    ] {
        let into = home.path(name);
        let remove = format!("rm -r {}", into.display());
        let ran = restore_with(&home, &into, rule);
        ran.refused(code, &["the restore of backup", "cannot start", name, &remove]);
        if name == "durable" {
            is_no_server(&server, &home, &into);
        } else {
            assert!(!into.join("global/pg_control").exists(), "{name}");
        }
    }
}

#[test]
fn a_file_system_that_reserves_no_space_takes_a_restore_as_well() {
    let Some((_server, home)) = backed_up() else { return };
    if !require_tampering() {
        return;
    }
    for error in ["EOPNOTSUPP", "EINVAL", "EINTR:when=1"] {
        let into = home.path(error);
        restore_with(&home, &into, &format!("fallocate:error={error}")).good();
        assert!(into.join("global/pg_control").exists(), "{error}");
    }
}

/// A server with a table in a tablespace at this place, backed up once.
fn backed_up_with_a_tablespace() -> Option<(Postgres, Home, PathBuf)> {
    let (server, home) = protected("orders")?;
    let old = home.path("old");
    std::fs::create_dir(&old).unwrap();
    server_owner().unwrap().take(&old).unwrap();
    server.sql(&format!("CREATE TABLESPACE fast LOCATION '{}'", old.display())).unwrap();
    server.sql("CREATE TABLE t TABLESPACE fast AS SELECT generate_series(1, 20000) AS n").unwrap();
    home.run(["backup"]).good();
    Some((server, home, old))
}

/// The command in the hint that clears a place, as it stands there.
#[track_caller]
fn removal(refused: &Ran) -> String {
    let command = refused.err.split('`').find(|words| words.starts_with("rm -r "));
    command.unwrap_or_else(|| panic!("no command in {refused:#?}")).to_owned()
}

#[test]
fn what_is_left_in_the_places_of_tablespaces_is_cleared_by_the_same_command() {
    let Some((server, home, old)) = backed_up_with_a_tablespace() else { return };
    if !require_tampering() {
        return;
    }
    let (into, space, bystander) = (home.path("the copy"), home.path("it's fast"), home.path("bystander"));
    std::fs::create_dir(&bystander).unwrap();
    let moved = format!("{}={}", old.display(), space.display());
    let words = ["restore", "orders", "--into", into.to_str().unwrap(), "--tablespace", &moved];
    let both = [&into, &space].map(|place| shell_word(place.as_os_str()).into_owned());
    let both = format!("rm -r {} {}", both[0], both[1]);
    let clear = |command: &str| run(Command::new("sh").args(["-c", command])).good();

    let rule = ["syncfs:error=EIO:when=1"];
    let failed = run(&mut tampered(&home.command(words), "syncfs", &rule, None, &home.path("calls")));
    let failed = failed.refused(6, &["the restore of backup", "cannot start"]);
    assert_eq!(removal(&failed), both);
    assert!(entries(&space) > 3, "the tablespace was not begun");
    let again = home.run(words).refused(4, &["an interrupted restore lies in it", "`--into`"]);
    assert_eq!(removal(&again), both);

    // Whoever clears the data directory alone is told of the rest.
    std::fs::remove_dir_all(&into).unwrap();
    let elsewhere = format!("`--tablespace {}=NEW`", old.display());
    let again = home.run(words).refused(4, &["an interrupted restore lies in it", &elsewhere]);
    assert_eq!(removal(&again), format!("rm -r {}", shell_word(space.as_os_str())));
    clear(&removal(&again));

    let restore = Lasting::start(&home, "pwrite64", &words);
    home.run(words).refused(4, &["another restore is writing there"]);
    restore.signal(Signal::KILL);
    drop(restore);
    let again = home.run(words).refused(4, &["an interrupted restore lies in it"]);
    assert_eq!(removal(&again), both);
    clear(&removal(&again));

    home.run(words).good();
    assert!(bystander.is_dir());
    let copy = Postgres::start_on(server.installation(), &into).unwrap();
    assert_eq!(copy.query_value("SELECT count(*) FROM t").unwrap(), "20000");
    let names = std::fs::read_dir(&space).unwrap().map(|entry| entry.unwrap().file_name());
    let strange: Vec<_> = names.filter(|name| !name.to_string_lossy().starts_with("PG_15_")).collect();
    assert!(strange.is_empty(), "{strange:?} stayed in the tablespace of a server");
    // A place that is in use is never to be removed, whatever lies beside it.
    let refused =
        home.run(["restore", "orders", "--into", home.path("b").to_str().unwrap(), words[4], words[5]]);
    assert!(!refused.refused(4, &["tablespace fast", "is not empty", &elsewhere]).err.contains("rm -r"));
}

#[test]
fn a_target_that_runs_out_of_inodes_says_what_to_do() {
    let Some((_server, home)) = backed_up() else { return };
    let place = home.path("small");
    let script = format!(
        "mount -o remount,size=400m,nr_inodes=300 tmpfs '{place}'
         \"$BACKSTAY\" --config '{config}' restore orders --into '{place}'; code=$?
         ls '{place}/global/pg_control' 2>/dev/null; exit $code",
        config = home.config().display(),
        place = place.display(),
    );
    let Some(ran) = on_small_file_system(&place, 400, &script) else { return };
    // A mount point cannot be removed, only emptied.
    let clear = format!("`find {}/ -mindepth 1 -delete`", place.display());
    let ran = ran.refused(6, &["the restore of backup", "No space left", "`--into`", &clear]);
    assert_eq!(ran.out, "");
}
