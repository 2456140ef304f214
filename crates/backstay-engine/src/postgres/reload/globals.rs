//! The roles and tablespaces of a server's dump, made where they are missing.
//!
//! Invariant: a role that is there stays as it is. The script of `pg_dumpall` would give
//! it the password and the rights that it had elsewhere, our own role among them, and
//! `psql` would stop at the first one that is there.

use std::collections::BTreeSet;

use backstay_model::plan::restore::Refusal;
use backstay_model::{ErrorKind, Finding};

use super::super::connect::{Session, column};
use super::super::facts::quoted_identifier;
use super::script::{Token, statements, tokens};
use super::target::ReloadTarget;
use crate::{Error, Result};

/// What became of the globals of a dump.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GlobalsReload {
    pub made: Vec<String>,
    /// They were there, and were left alone.
    pub left: Vec<String>,
    pub findings: Vec<Finding>,
}

/// What would become of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GlobalsPreview {
    pub make: Vec<String>,
    /// They are there, and will be left alone.
    pub left: Vec<String>,
    /// Each of them makes the reload fail.
    pub refusals: Vec<Refusal>,
}

/// What a statement is about. Its text may hold a password, and is told to nobody.
#[derive(Debug, PartialEq, Eq)]
enum About {
    /// Makes it.
    Make(Thing),
    /// Changes it, or ties it to another.
    Change(Vec<Thing>),
    /// Holds for the session.
    Session,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Thing {
    Role(String),
    Tablespace(String),
}

impl std::fmt::Display for Thing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Thing::Role(name) => write!(f, "role {name}"),
            Thing::Tablespace(name) => write!(f, "tablespace {name}"),
        }
    }
}

impl ReloadTarget {
    /// Looks which of them the server has. Changes nothing.
    pub async fn preview_globals(&self, script: &str) -> Result<GlobalsPreview> {
        let session = self.session(None).await?;
        let there = there(&session).await?;
        let mut preview = GlobalsPreview::default();
        let mut makes_roles = false;
        for statement in statements(script) {
            let About::Make(thing) = about(&tokens(&statement)) else { continue };
            if there.contains(&thing) {
                preview.left.push(thing.to_string());
            } else {
                makes_roles |= matches!(thing, Thing::Role(_));
                preview.make.push(thing.to_string());
            }
        }
        if makes_roles {
            preview.refusals.extend(may_not_make_roles(&session).await?);
        }
        Ok(preview)
    }

    /// Runs the script of a dump of globals, save for what is there already. One
    /// statement that fails is a finding, and hinders no other.
    pub async fn reload_globals(&self, script: &str) -> Result<GlobalsReload> {
        let session = self.session(None).await?;
        let there = there(&session).await?;
        let mut reload = GlobalsReload::default();
        for statement in statements(script) {
            let about = about(&tokens(&statement));
            match &about {
                About::Make(thing) if there.contains(thing) => {
                    reload.left.push(thing.to_string());
                    continue;
                }
                // Of a membership at least one is new, or it is the other server's affair.
                About::Change(things) if things.iter().all(|thing| there.contains(thing)) => continue,
                _ => {}
            }
            match (session.execute("make what belongs to no database", &statement).await, about) {
                (Ok(()), About::Make(thing)) => reload.made.push(thing.to_string()),
                (Ok(()), _) => {}
                (Err(Error::Server { source, .. }), about) => {
                    reload.findings.push(finding(&about, &source.message));
                }
                (Err(lost), _) => return Err(lost),
            }
        }
        Ok(reload)
    }
}

fn finding(about: &About, message: &str) -> Finding {
    let (subject, remedy) = match about {
        About::Make(Thing::Tablespace(name)) => (
            format!("tablespace {name}"),
            "make its directory at the server, then `CREATE TABLESPACE`; what is without it comes into the default one",
        ),
        About::Make(thing) => (thing.to_string(), "`CREATE ROLE` as a superuser"),
        About::Change(things) => {
            let things: Vec<String> = things.iter().map(ToString::to_string).collect();
            (things.join(" and "), "`ALTER ROLE` or `GRANT` as a superuser")
        }
        About::Session => ("the session".to_owned(), "`SHOW ALL` shows what the server knows"),
    };
    Finding::warning(subject, format!("is not as it was: {message}"), remedy)
}

async fn may_not_make_roles(session: &Session) -> Result<Option<Refusal>> {
    let statement =
        "SELECT rolsuper OR rolcreaterole, rolname::text FROM pg_roles WHERE rolname = current_user";
    let row = session.row("look at the rights of the role", statement, &[]).await?;
    if column::<bool>(&row, 0)? {
        return Ok(None);
    }
    let role: String = column(&row, 1)?;
    Ok(Some(Refusal::new(
        ErrorKind::Denied,
        format!("role {role} may not make roles"),
        vec![format!("run `ALTER ROLE {} CREATEROLE` as a superuser", quoted_identifier(&role))],
    )))
}

async fn there(session: &Session) -> Result<BTreeSet<Thing>> {
    let statement =
        "SELECT rolname::text, true FROM pg_roles UNION ALL SELECT spcname::text, false FROM pg_tablespace";
    let rows = session.query("list roles and tablespaces", statement, &[]).await?;
    rows.iter()
        .map(|row| {
            let name = column(row, 0)?;
            Ok(if column(row, 1)? { Thing::Role(name) } else { Thing::Tablespace(name) })
        })
        .collect()
}

fn about(tokens: &[Token]) -> About {
    let word = |at: usize, word: &str| tokens.get(at).is_some_and(|token| token.is_word(word));
    let name = |at: usize| tokens.get(at).and_then(Token::name).unwrap_or_default().to_owned();
    let named = |at: usize| match word(at, "tablespace") {
        true => Some(Thing::Tablespace(name(at + 1))),
        false => (word(at, "role") || word(at, "user")).then(|| Thing::Role(name(at + 1))),
    };
    let after = |keyword: &str| tokens.iter().position(|token| token.is_word(keyword)).map(|at| at + 1);
    let thing = match () {
        () if word(0, "create") => return named(1).map_or(About::Session, About::Make),
        () if word(0, "alter") => named(1),
        () if word(0, "comment") => named(2),
        () if word(0, "security") => after("on").and_then(named),
        // On a tablespace, or of one role to another.
        () if word(0, "grant") || word(0, "revoke") => match after("on") {
            Some(at) => named(at),
            None => {
                let to = after("to").or_else(|| after("from")).map(name).unwrap_or_default();
                return About::Change(vec![Thing::Role(name(1)), Thing::Role(to)]);
            }
        },
        () => None,
    };
    thing.map_or(About::Session, |thing| About::Change(vec![thing]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_statement_of_such_a_script_is_about_something() {
        let role = |name: &str| Thing::Role(name.into());
        for (statement, expected) in [
            ("SET default_transaction_read_only = off", About::Session),
            ("CREATE ROLE \"a b\"", About::Make(role("a b"))),
            ("ALTER ROLE app WITH NOLOGIN PASSWORD 'to x'", About::Change(vec![role("app")])),
            ("ALTER ROLE app SET work_mem TO '7MB'", About::Change(vec![role("app")])),
            ("COMMENT ON ROLE app IS 'on'", About::Change(vec![role("app")])),
            (
                "GRANT one TO two WITH INHERIT TRUE GRANTED BY postgres",
                About::Change(vec![role("one"), role("two")]),
            ),
            ("CREATE TABLESPACE fast OWNER a LOCATION '/x'", About::Make(Thing::Tablespace("fast".into()))),
            ("GRANT ALL ON TABLESPACE fast TO a", About::Change(vec![Thing::Tablespace("fast".into())])),
        ] {
            assert_eq!(about(&tokens(statement)), expected, "{statement}");
        }
    }
}
