//! The roles that a grant or a policy names.
//!
//! Never a word that stands for no role, or for whoever asks: what is found here and not
//! at a server keeps a dump from being put back to it.

use std::collections::BTreeSet;

use super::script::Token;

/// What stands where a role does and names none; each is quoted where it is a name.
const NO_ROLES: [&str; 7] =
    ["public", "default", "current_user", "session_user", "current_role", "user", "group"];

pub(super) fn in_grants(tokens: &[Token], found: &mut BTreeSet<String>) {
    let mut depth = 0_u32;
    for (at, token) in tokens.iter().enumerate() {
        match token {
            Token::Mark('(') => depth += 1,
            Token::Mark(')') => depth = depth.saturating_sub(1),
            _ => {}
        }
        let begins = ["to", "from", "authorization"].iter().any(|word| token.is_word(word));
        // A table may be called `role`, which is no word to be quoted.
        let is_maker = token.is_word("role") && at > 0 && tokens[at - 1].is_word("for");
        if depth == 0 && (begins || is_maker) {
            listed(&tokens[at + 1..], found);
        }
    }
}

pub(super) fn in_policy(tokens: &[Token], found: &mut BTreeSet<String>) {
    let head = policy_head(tokens);
    // `CREATE POLICY to ON …` would have its name in quotes.
    if let Some(at) = head.iter().position(|token| token.is_word("to")) {
        listed(&head[at + 1..], found);
    }
}

/// Of a policy, what stands before its conditions.
pub(super) fn policy_head(tokens: &[Token]) -> &[Token] {
    let conditions = tokens.iter().position(|token| token.is_word("using") || token.is_word("with"));
    &tokens[..conditions.unwrap_or(tokens.len())]
}

/// The role that this is, if it is one.
pub(super) fn role(token: &Token) -> Option<&str> {
    match token {
        Token::Word(word) if NO_ROLES.contains(&word.as_str()) => None,
        // The one that is none in quotes either.
        Token::Name(name) if name == "public" => None,
        token => token.name(),
    }
}

/// `a, "B", public`.
fn listed(tokens: &[Token], found: &mut BTreeSet<String>) {
    for pair in tokens.chunks(2) {
        if pair[0].name().is_none() {
            return;
        }
        found.extend(role(&pair[0]).map(str::to_owned));
        if pair.get(1) != Some(&Token::Mark(',')) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::script::tokens;
    use super::*;

    #[test]
    fn roles_are_found_in_grants_and_policies_and_nowhere_else() {
        let mut found = BTreeSet::new();
        in_grants(
            &tokens(
                "REVOKE ALL ON TABLE public.t FROM PUBLIC;\nGRANT SELECT(\"to\"),INSERT ON TABLE \"x to y\" TO app;\n\
                 GRANT ALL ON TABLE t TO \"Big Role\" WITH GRANT OPTION;\n\
                 SET SESSION AUTHORIZATION giver;\nGRANT ALL ON t TO taker;\nRESET SESSION AUTHORIZATION;\n\
                 GRANT ALL ON TABLE public.role TO \"user\", CURRENT_USER;\nGRANT USAGE ON SCHEMA role TO SESSION_USER;\n\
                 ALTER DEFAULT PRIVILEGES FOR ROLE maker IN SCHEMA s GRANT SELECT ON TABLES  TO reader;",
            ),
            &mut found,
        );
        for policy in [
            "CREATE POLICY p ON public.t FOR SELECT TO p_one, \"P two\" USING ((a)::text = 'to nobody')",
            "CREATE POLICY p ON public.t USING ((owner = CURRENT_USER))",
        ] {
            in_policy(&tokens(policy), &mut found);
        }
        let expected = ["Big Role", "P two", "app", "giver", "maker", "p_one", "reader", "taker", "user"];
        assert_eq!(found.iter().map(String::as_str).collect::<Vec<_>>(), expected);
    }
}
