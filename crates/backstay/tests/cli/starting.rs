//! From a restored directory to a running server: by the line that the restore prints,
//! typed as it stands there. And what the plan says before the first byte.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use testkit::Postgres;
use testkit::ownership::{Owner, server_owner};
use testkit::postgres::{PASSWORD, SUPERUSER};

use super::program::{Home, protected, run};

/// A copy that was started; stopped at the end, whatever the end is.
struct Started {
    bin_directory: PathBuf,
    directory: PathBuf,
}

impl Started {
    fn by(line: &str, server: &Postgres, directory: &Path, from: &Path) -> Started {
        let ran = run(Command::new("sh").arg("-c").arg(line).current_dir(from).stdin(Stdio::null()));
        assert!(ran.code == 0 && ran.out.contains("server started"), "{line}: {ran:#?}");
        let bin_directory = server.installation().bin_directory().to_owned();
        Started { bin_directory, directory: directory.to_owned() }
    }

    fn tool(&self, name: &str) -> Command {
        let mut command = Command::new(self.bin_directory.join(name));
        Owner::of(&self.directory).unwrap().apply(&mut command);
        command.current_dir("/").stdin(Stdio::null());
        command
    }

    /// Lines of `postmaster.pid`: the fourth is the port, the fifth the directory of the socket.
    fn noted(&self, line: usize) -> String {
        let text = std::fs::read_to_string(self.directory.join("postmaster.pid")).unwrap();
        text.lines().nth(line - 1).unwrap().to_owned()
    }

    fn ask(&self, question: &str) -> String {
        let mut psql = self.tool("psql");
        psql.args(["-XAt", "-U", SUPERUSER, "-d", "postgres", "-c", question]);
        psql.args(["-p", &self.noted(4), "-h", &self.noted(5)]).env("PGPASSWORD", PASSWORD);
        run(&mut psql).good().out.trim().to_owned()
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let stopped =
            self.tool("pg_ctl").args(["-m", "immediate", "stop", "-D"]).arg(&self.directory).output();
        assert!(std::thread::panicking() || stopped.unwrap().status.success());
    }
}

/// A directory that nobody else may enter, to type commands in.
fn private_directory(home: &Home) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let path = home.path("private");
    std::fs::create_dir(&path).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
    path
}

/// The end of the line that begins with this label.
#[track_caller]
fn labelled<'a>(text: &'a str, label: &str) -> &'a str {
    let line = text.lines().find_map(|line| line.trim_start().strip_prefix(label));
    line.unwrap_or_else(|| panic!("no {label:?} in {text}")).trim_start()
}

#[test]
fn the_printed_line_starts_the_copy_beside_its_original() {
    let Some((server, home)) = protected("orders") else { return };
    server.sql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS n").unwrap();
    // The copy is told what the original has: its port, and a place for sockets that is not there.
    server.sql(&format!("ALTER SYSTEM SET port = {}", server.port())).unwrap();
    server.sql("ALTER SYSTEM SET unix_socket_directories = '/nowhere/at all'").unwrap();
    home.run(["backup"]).good();
    let into = home.path("the copy");
    let restored = home.run(["restore", "orders", "--into", into.to_str().unwrap()]).good();
    let line = labelled(&restored.out, "start it with");
    let copy = Started::by(line, &server, &into, &private_directory(&home));
    assert_ne!(copy.noted(4), server.port().to_string(), "two servers on one port");
    assert_eq!(copy.ask("SELECT sum(n) FROM t"), "500500");
    assert_eq!(server.query_value("SELECT sum(n) FROM t").unwrap(), "500500");
}

#[test]
fn settings_from_a_file_that_is_in_no_backup_are_missed_aloud() {
    let Some((server, home)) = protected("orders") else { return };
    let shared = home.path("shared.conf");
    std::fs::write(&shared, "work_mem = 9MB\n").unwrap();
    server.append_configuration(&[&format!("include_if_exists '{}'", shared.display())]).unwrap();
    server.reload().unwrap();
    let named = format!("{}: ", shared.display());
    let taken = home.run(["backup"]).good();
    assert!(taken.out.contains(&format!("info: {named}included by the configuration")), "{taken:#?}");
    let into = home.path("restored");
    let restored = home.run(["restore", "orders", "--into", into.to_str().unwrap()]).good();
    assert!(restored.out.contains(&format!("warning: {named}")), "{restored:#?}");
    assert!(restored.out.contains("not in the backup"), "{restored:#?}");
}

#[test]
fn without_the_programs_a_copy_is_made_and_the_package_is_named_but_no_start_is_begun() {
    let Some((server, home)) = protected("orders") else { return };
    home.run(["backup"]).good();
    let text = std::fs::read_to_string(home.config()).unwrap();
    let bin = server.installation().bin_directory().display().to_string();
    std::fs::write(home.config(), text.replace(&bin, "/nowhere")).unwrap();
    let into = home.path("restored");
    let words = ["restore", "orders", "--into", into.to_str().unwrap()];
    home.run(words.iter().chain(&["--start"])).refused(7, &["PostgreSQL 15", "postgresql-15"]);
    assert!(!into.exists(), "it was begun");
    home.run(["drill", "orders"]).refused(21, &["postgresql-15"]);
    let restored = home.run(words).good();
    assert!(labelled(&restored.out, "to start it").contains("`postgresql-15`"), "{restored:#?}");
}

#[test]
fn the_plan_shows_where_tablespaces_go_and_how_to_lead_one_elsewhere() {
    let Some((server, home)) = protected("orders") else { return };
    let (old, new) = (home.path("old place"), home.path("new"));
    std::fs::create_dir(&old).unwrap();
    server_owner().unwrap().take(&old).unwrap();
    server.sql(&format!("CREATE TABLESPACE fast LOCATION '{}'", old.display())).unwrap();
    server.sql("CREATE TABLE t TABLESPACE fast AS SELECT generate_series(1, 1000) AS n").unwrap();
    home.run(["backup"]).good();
    let into = home.path("restored");
    let plain = ["restore", "orders", "--dry-run", "--into", into.to_str().unwrap()];
    let planned = home.run(plain);
    let shown = labelled(&planned.out, "tablespace").to_owned();
    assert_eq!(shown, format!("fast: {0} → {0}", old.display()));
    let hint = format!("--tablespace '{}'=NEW", old.display());
    let refused = planned.refused(4, &["tablespace fast", "not empty", &hint]);
    assert!(!refused.err.contains("--into"), "{refused:#?}");

    let moved = format!("{}={}", old.display(), new.display());
    let planned = home.run(plain.iter().chain(&["--tablespace", &moved])).good();
    assert_eq!(labelled(&planned.out, "tablespace"), format!("fast: {} → {}", old.display(), new.display()));
    let document = home.run(plain.iter().chain(&["--json", "--tablespace", &moved])).good().json();
    assert_eq!(document["tablespaces"][0]["new"], new.to_str().unwrap());
}
