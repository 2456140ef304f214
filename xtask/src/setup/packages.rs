//! Debian packages: installed when we are root, named exactly when we are not.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Once;

use anyhow::{Context, Result, bail};
use testkit::ownership::we_are_root;

use crate::process::{find_in_path, run_quietly, show_and_run};

const CLUSTER_CONFIGURATION: &str = "/etc/postgresql-common/createcluster.conf";

/// The lists of packages need no second look in one chore.
static REFRESHED: Once = Once::new();

/// Installs packages, or says with which command somebody else can.
pub fn install(packages: &[&str]) -> Result<()> {
    if find_in_path("apt-get").is_none() {
        bail!("install {}: this is not a Debian machine; install them by its own means", packages.join(", "));
    }
    if !we_are_root() {
        let sudo = sudo();
        bail!(
            "packages are missing, and installing them takes root; run this as root, then the chore again:\n\
             \n    {sudo}apt-get update && {sudo}apt-get install -y --no-install-recommends {}\n",
            packages.join(" ")
        );
    }
    REFRESHED.call_once(|| {
        // One repository that is away must not keep us from those that answer.
        if show_and_run(Command::new("apt-get").args(["-q", "update"])).is_err() {
            eprintln!("warning: the package lists could not be refreshed; trying with those that are here");
        }
    });
    let mut install = Command::new("apt-get");
    install
        .args(["-q", "install", "-y", "--no-install-recommends", "-o", "Dpkg::Use-Pty=0"])
        .args(packages)
        .env("DEBIAN_FRONTEND", "noninteractive");
    show_and_run(&mut install)
}

/// What stands before a command that takes root, on this machine: a bare Debian has no `sudo`.
pub fn sudo() -> &'static str {
    if find_in_path("sudo").is_some() { "sudo " } else { "" }
}

/// The packages of those listed whose program is not here.
pub fn missing<'a>(programs: &[(&str, &'a str)]) -> Vec<&'a str> {
    programs
        .iter()
        .filter(|(program, _)| find_in_path(program).is_none())
        .map(|(_, package)| *package)
        .collect()
}

/// Installs a PostgreSQL server without the cluster that Debian's package would
/// make and start: tests make their own, and port 5432 may be somebody's.
pub fn install_postgres(package: &str) -> Result<()> {
    if !we_are_root() {
        return install(&[package]);
    }
    install(&["postgresql-common"])?;
    let path = Path::new(CLUSTER_CONFIGURATION);
    let before = fs::read_to_string(path).with_context(|| format!("read {CLUSTER_CONFIGURATION}"))?;
    fs::write(path, format!("{before}\ncreate_main_cluster = false\n"))?;
    let installed = install(&[package]);
    fs::write(path, before)?;
    installed
}

/// The code name of this Debian, such as `bookworm`.
pub fn debian_release() -> Option<String> {
    let text = fs::read_to_string("/etc/os-release").ok()?;
    release_in(&text)
}

fn release_in(os_release: &str) -> Option<String> {
    let value = |key: &str| {
        os_release
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
            .map(|value| value.trim_matches('"').to_owned())
    };
    (value("ID")? == "debian").then(|| value("VERSION_CODENAME"))?
}

/// The version that a program says it is, on one line.
pub fn version_of(command: &mut Command) -> Result<String> {
    Ok(run_quietly(command)?.lines().next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_debian_itself_counts_as_debian() {
        let debian = "PRETTY_NAME=\"Debian GNU/Linux 12\"\nVERSION_CODENAME=bookworm\nID=debian\n";
        assert_eq!(release_in(debian).as_deref(), Some("bookworm"));
        let ubuntu = "ID=ubuntu\nID_LIKE=debian\nVERSION_CODENAME=noble\n";
        assert_eq!(release_in(ubuntu), None);
    }
}
