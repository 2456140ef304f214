//! A Debian root of another release, and the launchers through which its programs
//! run outside of it.
//!
//! A root is made under a temporary name, checked, marked and then renamed, so an
//! interrupted preparation is simply begun again.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use testkit::RedisVersion;
use testkit::redis::REDIS_LINKS;
use testkit::servers::{LAUNCHERS, MARKER, cache_directory, complete_root};

use super::{PreparationLock, packages, publish, remove_tree};
use crate::process::{find_in_path, line_of, run_quietly};

/// What a root must hold.
pub struct Recipe {
    pub release: &'static str,
    pub packages: &'static [&'static str],
    /// The PostgreSQL in it.
    pub postgres: u32,
    /// Other programs that get a launcher, and how each is asked for its version, if it can be.
    pub programs: &'static [(&'static str, Option<&'static str>)],
}

pub const BOOKWORM: Recipe = Recipe {
    release: "bookworm",
    packages: &["postgresql-15", "postgresql-client-15", "redis-server"],
    postgres: 15,
    programs: &[
        ("redis-server", Some("--version")),
        ("redis-cli", Some("--version")),
        ("redis-check-rdb", Some("--version")),
        ("redis-check-aof", None),
    ],
};

pub const TRIXIE: Recipe = Recipe {
    release: "trixie",
    packages: &[
        "postgresql-17",
        "postgresql-17-timescaledb",
        "postgresql-client-17",
        "valkey-server",
        "pgbackrest",
    ],
    postgres: 17,
    programs: &[
        ("pgbackrest", Some("version")),
        ("valkey-server", Some("--version")),
        ("valkey-cli", Some("--version")),
        ("valkey-check-rdb", Some("--version")),
        ("valkey-check-aof", Some("--version")),
    ],
};

/// The dynamic loader and the directory of libraries of the architecture we run on.
#[cfg(target_arch = "x86_64")]
const LOADER: (&str, &str) = ("usr/lib64/ld-linux-x86-64.so.2", "usr/lib/x86_64-linux-gnu");
#[cfg(target_arch = "aarch64")]
const LOADER: (&str, &str) = ("usr/lib/ld-linux-aarch64.so.1", "usr/lib/aarch64-linux-gnu");

impl Recipe {
    /// Makes the root unless it is there. Takes root.
    pub fn prepare(&self, lock: &PreparationLock) -> Result<()> {
        // One of an earlier version of this chore may lack programs, or launchers of them.
        if let Some(root) = complete_root(self.release)
            && self.programs.iter().all(|(name, _)| program_in(&root, name).exists())
        {
            return self.add_launchers(&root);
        }
        let cache = cache_directory();
        let place = cache.join(self.release);
        let made = cache.join(format!("{}.tmp", self.release));
        // Made to the end for an earlier run that was stopped before it could say so.
        if self.is_bootstrapped(&made) && self.finish(&made).is_ok() {
            return publish(&made, &place);
        }
        unmount_below(&made)?;
        remove_tree(&made)?;
        self.bootstrap(&made, lock)?;
        self.finish(&made)?;
        publish(&made, &place)
    }

    fn bootstrap(&self, made: &Path, lock: &PreparationLock) -> Result<()> {
        let needed = packages::missing(&[("debootstrap", "debootstrap")]);
        if !needed.is_empty() {
            packages::install(&["debootstrap", "debian-archive-keyring", "ca-certificates"])?;
        }
        let program = find_in_path("debootstrap").context("find debootstrap, which was just installed")?;
        let mut command = Command::new(program);
        command.arg("--variant=minbase").arg(format!("--include={}", self.packages.join(",")));
        command.arg(self.release).arg(made);
        eprintln!(
            "making a Debian {} root with PostgreSQL {} (one to three minutes, once)",
            self.release, self.postgres
        );
        let log = made.with_extension("log");
        let output = fs::File::create(&log)?;
        let status = command.stdin(lock.share()?).stdout(output.try_clone()?).stderr(output).status()?;
        if !status.success() {
            let text = fs::read_to_string(&log).unwrap_or_default();
            let tail: Vec<&str> = text.lines().rev().take(15).collect();
            let tail: Vec<&str> = tail.into_iter().rev().collect();
            bail!("`{}` ended with {status}\n{}", line_of(&command), tail.join("\n"));
        }
        Ok(())
    }

    /// Whether `debootstrap` came to its end there: it removes its own directory last.
    fn is_bootstrapped(&self, root: &Path) -> bool {
        root.join("var/lib/dpkg/status").is_file()
            && !root.join("debootstrap").exists()
            && root.join(format!("usr/lib/postgresql/{}/bin/postgres", self.postgres)).is_file()
    }

    fn finish(&self, root: &Path) -> Result<()> {
        let launchers = root.join(LAUNCHERS);
        remove_tree(&launchers)?;
        let bin = format!("usr/lib/postgresql/{}/bin", self.postgres);
        let postgres = launchers.join(format!("lib/postgresql/{}", self.postgres));
        fs::create_dir_all(postgres.join("bin"))?;
        for program in fs::read_dir(root.join(&bin)).with_context(|| format!("read {bin} of the root"))? {
            let name = program?.file_name();
            let name = name.to_string_lossy();
            launcher(&postgres.join("bin").join(&*name), &format!("{bin}/{name}"))?;
        }
        // Debian's shape: the programs look for these two relative to themselves.
        symlink("../../usr/share", launchers.join("share"))?;
        let libraries = format!("../../../../../usr/lib/postgresql/{}/lib", self.postgres);
        symlink(libraries, postgres.join("lib"))?;

        self.add_launchers(root)?;
        // The downloaded packages are of no further use.
        remove_tree(&root.join("var/cache/apt/archives"))?;
        self.check(root)?;
        fs::write(root.join(MARKER), self.packages.join("\n")).context("mark the root as complete")
    }

    fn add_launchers(&self, root: &Path) -> Result<()> {
        let bin = root.join(LAUNCHERS).join("bin");
        fs::create_dir_all(&bin)?;
        for (name, _) in self.programs {
            let path = bin.join(name);
            if !path.exists() {
                launcher(&path, &format!("usr/bin/{name}"))?;
            }
        }
        Ok(())
    }

    /// Every program must at least start, or the root is not what it should be.
    fn check(&self, root: &Path) -> Result<()> {
        let launchers = root.join(LAUNCHERS);
        let bin = launchers.join(format!("lib/postgresql/{}/bin", self.postgres));
        for program in
            ["postgres", "initdb", "psql", "pgbench", "pg_verifybackup", "pg_checksums", "pg_amcheck"]
        {
            run_quietly(Command::new(bin.join(program)).arg("--version"))?;
        }
        for (program, question) in self.programs {
            if let Some(question) = question {
                run_quietly(Command::new(launchers.join("bin").join(program)).arg(question))?;
            }
        }
        Ok(())
    }
}

fn program_in(root: &Path, name: &str) -> PathBuf {
    root.join("usr/bin").join(name)
}

/// A `debootstrap` that was killed leaves `proc` and `sys` mounted, which must not
/// be removed with the files.
fn unmount_below(root: &Path) -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("read /proc/self/mounts")?;
    let places = mounts.lines().filter_map(|line| line.split(' ').nth(1)).map(Path::new);
    let mut below: Vec<&Path> = places.filter(|place| place.starts_with(root)).collect();
    // The deepest first.
    below.sort_by_key(|place| std::cmp::Reverse(place.components().count()));
    for place in below {
        run_quietly(Command::new("umount").arg(place))?;
    }
    Ok(())
}

/// Writes a script that runs a program of the root with the root's own loader and
/// libraries. It finds the root from its own path, so the root can be renamed.
fn launcher(path: &Path, program: &str) -> Result<()> {
    let (loader, libraries) = LOADER;
    let script = format!(
        "#!/bin/sh\n\
         self=$(readlink -f \"$0\")\n\
         root=${{self%/{LAUNCHERS}/*}}\n\
         exec \"$root/{loader}\" --argv0 \"$self\" --library-path \"$root/{libraries}\" \"$root/{program}\" \"$@\"\n"
    );
    fs::write(path, script).with_context(|| format!("write {}", path.display()))?;
    fs::set_permissions(path, Permissions::from_mode(0o755))?;
    Ok(())
}

/// Shown to the user after a preparation.
pub fn show_versions() -> Result<()> {
    for version in testkit::PostgresVersion::ALL {
        if let Some(installation) = testkit::servers::find(version) {
            let says = packages::version_of(installation.tool("postgres").arg("--version"))?;
            eprintln!("{says}: {}", installation.bin_directory().display());
        }
    }
    for version in RedisVersion::ALL {
        if let Some(installation) = testkit::redis::find(version) {
            eprintln!("{version}: {}", installation.bin_directory().display());
        }
    }
    Ok(())
}

/// Redis out of Debian's `redis-tools`, whose one program is also the server. The package
/// `redis-server` is a name for that program and a service, which would be started.
pub fn link_redis() -> Result<()> {
    packages::install(&["redis-tools"])?;
    let place = cache_directory().join(REDIS_LINKS);
    let made = place.with_extension("tmp");
    remove_tree(&made)?;
    fs::create_dir_all(&made)?;
    for name in ["redis-server", "redis-check-rdb", "redis-check-aof", "redis-cli"] {
        let program = if name == "redis-server" { "redis-check-rdb" } else { name };
        let program =
            find_in_path(program).with_context(|| format!("find {program}, which was just installed"))?;
        symlink(program, made.join(name))?;
    }
    run_quietly(Command::new(made.join("redis-server")).arg("--version"))?;
    publish(&made, &place)
}

/// Installs a server with Debian's own package.
pub fn install_native(version: testkit::PostgresVersion) -> Result<()> {
    packages::install_postgres(&format!("postgresql-{version}"))
}
