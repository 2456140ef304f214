//! Who a restored directory is given to, and whether that is who should have it.
//!
//! Files keep the number of their owner. On another machine it may be nobody's, or
//! that of an account which has nothing to do with the database. Nothing is given to
//! anybody else without a word: a person is told, with the command that mends it.

use std::path::Path;

use backstay_model::Finding;

use super::super::accounts::{Accounts, USUAL};
use super::super::starting::shell_word;

/// The account of this machine that the server is to run as: the one it had at the
/// source, or the usual one where that is not known or not here.
pub(super) fn meant<'a>(recorded: Option<&'a str>, accounts: &Accounts) -> &'a str {
    match recorded {
        Some(name) if accounts.number_of(name).is_some() => name,
        _ => USUAL,
    }
}

/// What is wrong with an owner, by number, of these places.
pub(super) fn finding<'a>(
    user_id: u32,
    recorded: Option<&str>,
    accounts: &Accounts,
    places: impl Iterator<Item = &'a Path>,
) -> Option<Finding> {
    // One number may have several names.
    if accounts.number_of(recorded.unwrap_or(USUAL)) == Some(user_id) {
        return None;
    }
    let here = match accounts.name_of(user_id) {
        Some(name) => format!("which is {name} on this machine"),
        None => "which no account of this machine has".to_owned(),
    };
    let there = match recorded {
        Some(name) => format!("it was {name} where the backup was taken"),
        None => format!("whose it was where the backup was taken is not known, {USUAL} as a rule"),
    };
    let account = meant(recorded, accounts);
    let word = shell_word(account.as_ref());
    let make = match accounts.number_of(account) {
        Some(_) => String::new(),
        None => format!("useradd --system --user-group {word} && "),
    };
    let places: Vec<String> = places.map(|place| shell_word(place.as_os_str()).into_owned()).collect();
    Some(Finding::warning(
        "owner",
        format!("the files belong to user {user_id}, {here}; {there}"),
        format!(
            "`{make}chown -R {word}: {}` gives them to {account}, and the server is then started as {account}",
            places.join(" ")
        ),
    ))
}

#[cfg(test)]
mod tests {
    use backstay_model::FindingLevel;

    use super::*;

    const DEBIAN: &str = "root:x:0:0::/root:/bin/sh\nsystemd-network:x:101:103::/:/bin/false\n\
                          postgres:x:106:113::/var/lib/postgresql:/bin/bash\ndba:x:1000:1000::/:/bin/sh\n";

    fn decided(user_id: u32, recorded: Option<&str>, passwd: &str) -> Option<Finding> {
        let places = [Path::new("/srv/a"), Path::new("/srv/it's fast")];
        finding(user_id, recorded, &Accounts::listed(passwd), places.into_iter())
    }

    #[test]
    fn an_owner_who_has_the_same_name_here_is_right() {
        assert_eq!(decided(106, Some("postgres"), DEBIAN), None);
        assert_eq!(decided(1000, Some("dba"), DEBIAN), None);
        assert_eq!(decided(106, None, DEBIAN), None);
        assert_eq!(decided(1000, Some("dba"), &format!("first:x:1000:1000::/:/bin/sh\n{DEBIAN}")), None);
    }

    #[test]
    fn a_number_that_is_another_accounts_is_told_with_what_mends_it() {
        let finding = decided(101, Some("postgres"), DEBIAN).unwrap();
        assert_eq!((finding.level, finding.subject.as_str()), (FindingLevel::Warning, "owner"));
        assert_eq!(
            finding.message,
            "the files belong to user 101, which is systemd-network on this machine; it was postgres where the \
             backup was taken"
        );
        assert!(
            finding.remedy.starts_with(r"`chown -R postgres: /srv/a '/srv/it'\''s fast'` gives"),
            "{finding:?}"
        );
        assert!(decided(106, Some("dba"), DEBIAN).unwrap().remedy.contains("chown -R dba: "));
    }

    #[test]
    fn a_number_without_an_account_and_an_owner_who_was_not_recorded_are_told() {
        let nobodys = decided(26, Some("postgres"), DEBIAN).unwrap();
        assert!(nobodys.message.contains("user 26, which no account of this machine has"), "{nobodys:?}");
        let unknown = decided(1000, None, DEBIAN).unwrap();
        assert!(unknown.message.contains("which is dba on this machine; whose it was"), "{unknown:?}");
        assert!(unknown.remedy.contains("chown -R postgres: "), "{unknown:?}");
    }

    #[test]
    fn an_account_that_is_not_here_is_replaced_by_the_usual_one_or_made() {
        let renamed = decided(26, Some("pgsql"), DEBIAN).unwrap();
        assert!(renamed.message.contains("it was pgsql"), "{renamed:?}");
        assert!(renamed.remedy.starts_with("`chown -R postgres: "), "{renamed:?}");
        let bare = decided(26, Some("pgsql"), "root:x:0:0::/root:/bin/sh\n").unwrap();
        let line = "`useradd --system --user-group postgres && chown -R postgres: /srv/a ";
        assert!(bare.remedy.starts_with(line), "{bare:?}");
    }
}
