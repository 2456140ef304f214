//! The roles that the objects of an archive name: as owners, in grants and in policies.

use std::collections::BTreeSet;

use super::super::script::{Token, tokens};
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
                "ACL" if !entry.name.starts_with("DATABASE ") => in_grants(&entry.definition, &mut found),
                "DEFAULT ACL" => in_grants(&entry.definition, &mut found),
                "POLICY" => in_policy(&entry.definition, &mut found),
                _ => {}
            }
        }
        found
    }
}

/// What is made with a database only, which has another name here.
pub(super) const DATABASE_KINDS: [&str; 2] = ["DATABASE", "DATABASE PROPERTIES"];

fn in_grants(statements: &str, found: &mut BTreeSet<String>) {
    let tokens = tokens(statements);
    for (at, token) in tokens.iter().enumerate() {
        let begins = ["to", "from", "role", "authorization"].iter().any(|word| token.is_word(word));
        if begins {
            listed(&tokens[at + 1..], found);
        }
    }
}

fn in_policy(statement: &str, found: &mut BTreeSet<String>) {
    let tokens = tokens(statement);
    let conditions = tokens.iter().position(|token| token.is_word("using") || token.is_word("with"));
    let head = &tokens[..conditions.unwrap_or(tokens.len())];
    // `CREATE POLICY to ON …` would have its name in quotes.
    if let Some(at) = head.iter().position(|token| token.is_word("to")) {
        listed(&head[at + 1..], found);
    }
}

/// `a, "B", public`.
fn listed(tokens: &[Token], found: &mut BTreeSet<String>) {
    for pair in tokens.chunks(2) {
        let Some(name) = pair[0].name() else { return };
        if !pair[0].is_word("public") && !pair[0].is_word("default") {
            found.insert(name.to_owned());
        }
        if pair.get(1) != Some(&Token::Mark(',')) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_found_in_grants_and_policies_and_nowhere_else() {
        let mut found = BTreeSet::new();
        in_grants(
            "REVOKE ALL ON TABLE public.t FROM PUBLIC;\nGRANT SELECT(\"to\"),INSERT ON TABLE \"x to y\" TO app;\n\
             GRANT ALL ON TABLE t TO \"Big Role\" WITH GRANT OPTION;\n\
             SET SESSION AUTHORIZATION giver;\nGRANT ALL ON t TO taker;\nRESET SESSION AUTHORIZATION;\n\
             ALTER DEFAULT PRIVILEGES FOR ROLE maker IN SCHEMA s GRANT SELECT ON TABLES  TO reader;",
            &mut found,
        );
        in_policy(
            "CREATE POLICY p ON public.t FOR SELECT TO p_one, \"P two\" USING ((a)::text = 'to nobody')",
            &mut found,
        );
        in_policy("CREATE POLICY p ON public.t USING ((owner = CURRENT_USER))", &mut found);
        let expected = ["Big Role", "P two", "app", "giver", "maker", "p_one", "reader", "taker"];
        assert_eq!(found.iter().map(String::as_str).collect::<Vec<_>>(), expected);
    }
}
