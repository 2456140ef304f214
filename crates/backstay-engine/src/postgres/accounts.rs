//! The accounts of this machine: whom a number belongs to, and who is known by name.
//!
//! The same number is another account's on the next machine: distributions hand out
//! those of services in the order of their installation.

use std::fs;
use std::process::{Command, Stdio};

/// What the account that runs PostgreSQL is called unless somebody chose otherwise.
pub const USUAL: &str = "postgres";

/// How long a directory of accounts somewhere else may take to answer.
const ANSWER_LIMIT_SECONDS: &str = "5";

pub struct Accounts {
    passwd: String,
    /// Whether those that are not in this file may be elsewhere.
    may_ask: bool,
}

impl Accounts {
    pub fn of_this_machine() -> Self {
        Self { passwd: fs::read_to_string("/etc/passwd").unwrap_or_default(), may_ask: true }
    }

    /// The name behind a number.
    pub fn name_of(&self, user_id: u32) -> Option<String> {
        let name = |passwd: &str| {
            let found = accounts(passwd).find(|(_, number)| *number == user_id);
            found.map(|(name, _)| name.to_owned())
        };
        name(&self.passwd).or_else(|| name(&self.ask(&user_id.to_string())?))
    }

    /// The number behind a name.
    pub fn number_of(&self, name: &str) -> Option<u32> {
        let number = |passwd: &str| accounts(passwd).find(|(known, _)| *known == name).map(|found| found.1);
        number(&self.passwd).or_else(|| number(&self.ask(name)?))
    }

    /// Whoever else this machine takes accounts from, as a line of the same form.
    fn ask(&self, key: &str) -> Option<String> {
        if !self.may_ask {
            return None;
        }
        let mut ask = Command::new("timeout");
        ask.args([ANSWER_LIMIT_SECONDS, "getent", "passwd", key]);
        let output = ask.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
        String::from_utf8(output.stdout).ok()
    }

    #[cfg(test)]
    pub(super) fn listed(passwd: &str) -> Self {
        Self { passwd: passwd.to_owned(), may_ask: false }
    }
}

/// Names and numbers.
fn accounts(passwd: &str) -> impl Iterator<Item = (&str, u32)> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        Some((name, fields.nth(1)?.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_known_by_its_number_and_by_its_whole_name() {
        let accounts =
            Accounts::listed("root:x:0:0::/root:/bin/sh\n\nservice:x:26:27::/:/bin/false\n+::::::\n");
        assert_eq!(accounts.name_of(26).as_deref(), Some("service"));
        assert_eq!(accounts.name_of(27), None, "that is a group");
        assert_eq!((accounts.number_of("service"), accounts.number_of("serv")), (Some(26), None));
    }

    #[test]
    fn this_machine_knows_its_root() {
        let accounts = Accounts::of_this_machine();
        assert_eq!(accounts.name_of(0).as_deref(), Some("root"));
        assert_eq!((accounts.number_of("root"), accounts.number_of("nobody's account")), (Some(0), None));
        let elsewhere = Accounts { passwd: String::new(), may_ask: true };
        assert_eq!(elsewhere.name_of(0).as_deref(), Some("root"), "`getent` was not asked");
    }
}
