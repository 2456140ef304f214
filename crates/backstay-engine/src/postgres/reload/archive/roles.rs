//! The roles that the objects of an archive name: as owners, in grants and in policies.

use std::collections::BTreeSet;

use super::super::role_names::{in_grants, in_policy};
use super::super::script::tokens;
use super::{Archive, Entry};

impl Archive {
    /// Those who own what is made.
    pub fn owners<'a>(&'a self, entries: impl IntoIterator<Item = &'a Entry>) -> BTreeSet<String> {
        let made = entries.into_iter().filter(|entry| !DATABASE_KINDS.contains(&entry.kind.as_str()));
        // Owner of a comment or of rows is whoever owns the thing; extensions have none.
        let owned = made.filter(|entry| !matches!(entry.kind.as_str(), "COMMENT" | "ACL" | "EXTENSION"));
        owned.filter_map(|entry| entry.owner.clone()).collect()
    }

    /// Those whom something is granted or denied.
    pub fn grantees<'a>(&'a self, entries: impl IntoIterator<Item = &'a Entry>) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        for entry in entries {
            match entry.kind.as_str() {
                "ACL" if !entry.name.starts_with("DATABASE ") => {
                    in_grants(&tokens(&entry.definition), &mut found);
                }
                "DEFAULT ACL" => in_grants(&tokens(&entry.definition), &mut found),
                "POLICY" => in_policy(&tokens(&entry.definition), &mut found),
                _ => {}
            }
        }
        found
    }
}

/// What is made with a database only, which has another name here.
pub(super) const DATABASE_KINDS: [&str; 2] = ["DATABASE", "DATABASE PROPERTIES"];
