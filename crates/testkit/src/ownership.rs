//! Who runs a test server. PostgreSQL refuses to run as root, so a test that is
//! root starts it as the user `postgres` that Debian's package made; anybody else
//! starts it as himself.

use std::fs;
use std::os::unix::fs::{MetadataExt, lchown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// A user and group by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    pub user_id: u32,
    pub group_id: u32,
}

impl Owner {
    /// The owner of an existing file.
    ///
    /// # Errors
    /// When it cannot be looked at.
    pub fn of(path: &Path) -> Result<Owner> {
        let metadata = fs::symlink_metadata(path).with_context(|| format!("look at {}", path.display()))?;
        Ok(Owner { user_id: metadata.uid(), group_id: metadata.gid() })
    }

    pub fn is_root(self) -> bool {
        self.user_id == 0
    }

    /// Makes the command run as this user when we may choose.
    pub fn apply(self, command: &mut Command) {
        if we_are_root() {
            command.gid(self.group_id).uid(self.user_id);
        }
    }

    /// Gives a file, directory or link to this user when we may.
    ///
    /// # Errors
    /// When root cannot.
    pub fn take(self, path: &Path) -> Result<()> {
        if we_are_root() {
            lchown(path, Some(self.user_id), Some(self.group_id))
                .with_context(|| format!("give {} to user {}", path.display(), self.user_id))?;
        }
        Ok(())
    }

    /// [`Owner::take`] for a whole tree.
    ///
    /// # Errors
    /// At the first entry that cannot be read or given.
    pub fn take_all(self, path: &Path) -> Result<()> {
        self.take(path)?;
        if fs::symlink_metadata(path)?.is_dir() {
            for entry in fs::read_dir(path)? {
                self.take_all(&entry?.path())?;
            }
        }
        Ok(())
    }
}

pub fn we_are_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The user that servers run as.
///
/// # Errors
/// When we are root and there is neither a user `postgres` nor `nobody`.
pub fn server_owner() -> Result<Owner> {
    if !we_are_root() {
        return Ok(Owner {
            user_id: rustix::process::geteuid().as_raw(),
            group_id: rustix::process::getegid().as_raw(),
        });
    }
    let accounts = fs::read_to_string("/etc/passwd").context("read /etc/passwd")?;
    // A machine whose only servers are in prepared roots has no such user.
    find_account(&accounts, "postgres")
        .or_else(|| find_account(&accounts, "nobody"))
        .context("find a user to run servers as: /etc/passwd has neither `postgres` nor `nobody`")
}

fn find_account(accounts: &str, name: &str) -> Option<Owner> {
    accounts.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next()? != name {
            return None;
        }
        Some(Owner { user_id: fields.nth(1)?.parse().ok()?, group_id: fields.next()?.parse().ok()? })
    })
}

/// Says so when the server's user could not reach a directory because a parent
/// is closed to it, which PostgreSQL reports as a bare "could not access".
///
/// # Errors
/// Names the closed directory.
pub fn check_reachable(path: &Path, owner: Owner) -> Result<()> {
    if !we_are_root() || owner.is_root() {
        return Ok(());
    }
    for parent in path.ancestors().skip(1) {
        let Ok(metadata) = fs::metadata(parent) else { continue };
        let open = metadata.mode() & 0o001 != 0
            || (metadata.uid() == owner.user_id && metadata.mode() & 0o100 != 0)
            || (metadata.gid() == owner.group_id && metadata.mode() & 0o010 != 0);
        if !open {
            bail!(
                "reach {}: {} is closed to user {}; use testkit::short_temp_dir",
                path.display(),
                parent.display(),
                owner.user_id
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_found_by_its_whole_name() {
        let accounts =
            "root:x:0:0:root:/root:/bin/sh\npostgresx:x:1:1::/:/bin/sh\npostgres:x:101:104::/:/bin/sh\n";
        assert_eq!(find_account(accounts, "postgres"), Some(Owner { user_id: 101, group_id: 104 }));
        assert_eq!(find_account(accounts, "nobody"), None);
    }
}
