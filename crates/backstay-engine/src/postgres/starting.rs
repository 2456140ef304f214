//! The command that starts a restored directory, as it can be typed on this machine.
//!
//! A bare `pg_ctl start` fails for reasons that have nothing to do with the copy:
//! root may not run it, it is not on the search path, its user may not enter the
//! directory one stands in, the port is the original's, the directory of the socket
//! is not there. All of them can be seen now.

use std::borrow::Cow;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde::Serialize;

use super::accounts::Accounts;
use super::facts::ServerFacts;
use super::programs::Programs;
use crate::{Error, Result};

/// How a restored directory comes to be a running server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Starting {
    /// A line for a shell.
    Command(String),
    /// What this machine lacks.
    Needs(String),
}

/// Where the server writes what it says before its own log begins. PostgreSQL makes
/// no file of this name.
const LOG: &str = "start.log";

/// The longest path of a socket that every kernel takes, without the name in it.
const SOCKET_DIRECTORY_MAX: usize = 80;

/// A copy that subscribes would take changes away from its original.
const WITHOUT_SUBSCRIPTIONS: &str = "-c max_logical_replication_workers=0";

/// How long somebody who listens may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_millis(200);

/// Looks at the directory, its settings and this machine. Changes nothing, and is
/// in nobody's way: a server that starts meanwhile finds its port free.
pub fn starting(directory: &Path, server: &ServerFacts, bin_directory: Option<&Path>) -> Result<Starting> {
    let major = server.major();
    let programs = match Programs::find(major, bin_directory) {
        Ok(programs) => programs,
        Err(Error::ProgramMissing { .. }) => {
            let places = match bin_directory {
                Some(bin_directory) => format!("is not in {}", bin_directory.display()),
                None => "was not found on this machine".to_owned(),
            };
            return Ok(Starting::Needs(format!(
                "PostgreSQL {major}, which {places}: install the package `postgresql-{major}`"
            )));
        }
        Err(error) => return Err(error),
    };
    let metadata =
        fs::metadata(directory).map_err(|source| Error::Read { path: directory.to_owned(), source })?;
    let copy = Copy { directory, metadata, programs: &programs };
    let pg_ctl = shell_word(programs.path("pg_ctl").as_os_str()).into_owned();
    let data = shell_word(directory.as_os_str()).into_owned();
    let log = directory.join(LOG);
    let mut line = format!("{pg_ctl} -D {data} -l {}", shell_word(log.as_os_str()));
    let mut options = copy.options();
    if server.enabled_subscriptions > 0 {
        options.push(WITHOUT_SUBSCRIPTIONS.to_owned());
    }
    let options = options.join(" ");
    if !options.is_empty() {
        line.push_str(&format!(" -o {}", shell_word(OsStr::new(&options))));
    }
    line.push_str(" start");
    Ok(Starting::Command(as_owner(&line, &copy.metadata)))
}

/// The line, run as the owner of the directory.
fn as_owner(line: &str, metadata: &Metadata) -> String {
    let us = rustix::process::geteuid();
    let (user, group) = (metadata.uid(), metadata.gid());
    if us.as_raw() == user {
        return line.to_owned();
    }
    let name = Accounts::of_this_machine().name_of(user);
    let switch = match (us.is_root(), name) {
        (true, Some(name)) => format!("runuser -u {} --", shell_word(OsStr::new(&name))),
        // It knows numbers only, where this machine has no name for them.
        (true, None) => format!("setpriv --reuid {user} --regid {group} --clear-groups --"),
        (false, Some(name)) => format!("sudo -u {}", shell_word(OsStr::new(&name))),
        (false, None) => format!("sudo -u '#{user}'"),
    };
    // `pg_ctl` gives up where its user may not enter the directory one stands in.
    format!("(cd / && {switch} {line})")
}

struct Copy<'a> {
    directory: &'a Path,
    metadata: Metadata,
    programs: &'a Programs,
}

impl Copy<'_> {
    /// What must differ from the original's settings on this machine now.
    fn options(&self) -> Vec<String> {
        let mut options = Vec::new();
        let sockets = self.socket_directories();
        let listening = listening();
        let is_in_use = |port| is_in_use(port, listening.as_ref(), &sockets);
        if let Some(port) = self.setting("port").and_then(|port| port.parse::<u16>().ok())
            && is_in_use(port)
            && let Some(free) = (port.saturating_add(1)..u16::MAX).find(|port| !is_in_use(*port))
        {
            options.push(format!("-p {free}"));
        }
        if !sockets.is_empty() && !sockets.iter().any(|directory| self.may_listen_in(directory)) {
            let fits = self.directory.as_os_str().len() <= SOCKET_DIRECTORY_MAX;
            let place = if fits { self.directory } else { Path::new("/tmp") };
            options.push(format!("-k {}", shell_word(place.as_os_str())));
        }
        options
    }

    /// What the copy's own configuration sets, all its files together; `None` when the
    /// server would not start on them as they are.
    fn setting(&self, name: &str) -> Option<String> {
        let mut command = Command::new(self.programs.path("postgres"));
        command.args(["-C", name, "-D"]).arg(self.directory).current_dir("/");
        if rustix::process::geteuid().is_root() {
            command.uid(self.metadata.uid()).gid(self.metadata.gid());
        }
        let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
        let text = String::from_utf8(output.stdout).ok().filter(|_| output.status.success())?;
        Some(text.trim().to_owned())
    }

    fn socket_directories(&self) -> Vec<PathBuf> {
        let list = self.setting("unix_socket_directories").unwrap_or_default();
        let names = list.split(',').map(|name| name.trim().trim_matches('"')).filter(|name| !name.is_empty());
        names.map(|name| self.directory.join(name)).collect()
    }

    /// Whether the server's user can make its socket there.
    fn may_listen_in(&self, directory: &Path) -> bool {
        // A name of the kernel's own, in no directory.
        if directory.file_name().is_some_and(|name| name.as_bytes().starts_with(b"@")) {
            return true;
        }
        let Ok(place) = fs::metadata(directory) else { return false };
        let (owner, group) = (self.metadata.uid(), self.metadata.gid());
        let bits = match () {
            () if place.uid() == owner => place.mode() >> 6,
            () if place.gid() == group => place.mode() >> 3,
            () => place.mode(),
        };
        place.is_dir() && bits & 0o3 == 0o3
    }
}

/// Whether somebody listens there already, on the network or on a socket.
fn is_in_use(port: u16, listening: Option<&HashSet<u16>>, socket_directories: &[PathBuf]) -> bool {
    let on_network = match listening {
        Some(listening) => listening.contains(&port),
        None => answers(port),
    };
    on_network
        || socket_directories
            .iter()
            .any(|directory| UnixStream::connect(directory.join(format!(".s.PGSQL.{port}"))).is_ok())
}

/// The ports that the kernel says somebody listens on; `None` where it says nothing.
fn listening() -> Option<HashSet<u16>> {
    let mut ports: HashSet<u16> = listed_ports(&fs::read_to_string("/proc/net/tcp").ok()?).collect();
    // It is absent where IPv6 is switched off.
    if let Ok(table) = fs::read_to_string("/proc/net/tcp6") {
        ports.extend(listed_ports(&table));
    }
    Some(ports)
}

/// The local ports of the lines whose state is `LISTEN`.
fn listed_ports(table: &str) -> impl Iterator<Item = u16> {
    table.lines().filter_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let (local, state) = (fields.next()?, fields.nth(1)?);
        let (_, port) = local.rsplit_once(':')?;
        (state == "0A").then(|| u16::from_str_radix(port, 16).ok())?
    })
}

fn answers(port: u16) -> bool {
    let here = [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)];
    here.into_iter()
        .any(|address| TcpStream::connect_timeout(&SocketAddr::new(address, port), ANSWER_LIMIT).is_ok())
}

/// A word as a shell takes it: itself when no letter of it means anything there.
pub fn shell_word(word: &OsStr) -> Cow<'_, str> {
    let text = word.to_string_lossy();
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "/._-+=:,@%".contains(letter);
    match !text.is_empty() && text.chars().all(plain) {
        true => text,
        false => Cow::Owned(format!("'{}'", text.replace('\'', r"'\''"))),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::fs::PermissionsExt;

    use super::super::facts::facts_of_a_server;
    use super::*;

    #[test]
    fn a_word_comes_out_of_a_shell_as_it_went_in() {
        for word in ["/srv/restored", "it's here", "a b", "", "$HOME", "-p 5433 -k '/a b'"] {
            let echo = format!("printf %s {}", shell_word(OsStr::new(word)));
            let output = Command::new("sh").arg("-c").arg(echo).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), word);
        }
        assert_eq!(shell_word(OsStr::new("/srv/restored")), "/srv/restored");
    }

    #[test]
    fn a_port_that_somebody_listens_on_is_in_use() {
        for address in [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)] {
            // Where IPv6 is switched off, there is nothing to see.
            let Ok(listener) = TcpListener::bind((address, 0)) else { continue };
            let port = listener.local_addr().unwrap().port();
            assert!(is_in_use(port, listening().as_ref(), &[]), "{address}");
            assert!(is_in_use(port, None, &[]), "{address}");
            drop(listener);
            assert!(!is_in_use(port, None, &[]), "{address}");
        }
        let directory = tempfile::tempdir().unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(directory.path().join(".s.PGSQL.1")).unwrap();
        assert!(is_in_use(1, listening().as_ref(), &[directory.path().to_owned()]));
    }

    #[test]
    fn only_those_who_listen_are_read_from_the_table_of_the_kernel() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n\
                     \x20  0: 0100007F:1538 00000000:0000 0A 00000000:00000000 00:00000000 00000000   112\n\
                     \x20  1: 0100007F:D431 0100007F:1539 01 00000000:00000000 00:00000000 00000000     0\n\
                     \x20 10: 00000000000000000000000001000000:1F90 00000000000000000000000000000000:0000 0A 0:0\n";
        assert_eq!(listed_ports(table).collect::<Vec<_>>(), [5432, 8080]);
    }

    fn original(enabled_subscriptions: u32) -> ServerFacts {
        ServerFacts { enabled_subscriptions, ..facts_of_a_server() }
    }

    #[test]
    fn a_copy_of_a_subscriber_is_started_without_its_subscriptions() {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("postgres");
        fs::write(&program, "#!/bin/sh\n[ $1 != --version ] || echo 'postgres (PostgreSQL) 15.4'\n").unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let line = |enabled| match starting(directory.path(), &original(enabled), Some(directory.path())) {
            Ok(Starting::Command(line)) => line,
            other => panic!("{other:?}"),
        };
        assert!(line(2).contains("-o '-c max_logical_replication_workers=0'"), "{}", line(2));
        assert!(!line(0).contains("max_logical"), "{}", line(0));
    }

    #[test]
    fn a_machine_without_the_programs_is_told_the_package() {
        let empty = tempfile::tempdir().unwrap();
        let Starting::Needs(what) = starting(empty.path(), &original(0), Some(empty.path())).unwrap() else {
            panic!("programs were found in an empty directory");
        };
        assert!(what.contains("`postgresql-15`"), "{what}");
    }
}
