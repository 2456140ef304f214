//! What the statements of a dump name that a server has to have: roles, tablespaces and
//! extensions, found while the bytes pass.
//!
//! Invariant: never what a server could do without. What is found and lacks at a server
//! keeps the dump from it, and an error of the server itself is there for all that was not
//! found. So only the forms count that `pg_dump` writes; a statement that could be read in
//! two ways is passed over, and of a database whose statements may make roles on the way
//! (`DO`) nothing is said. Rows, bodies, texts and comments are never looked at.

use std::collections::{BTreeMap, BTreeSet};

use backstay_model::dump::{DumpContent, StatementNeeds};

use super::cluster_part::connected;
use super::pieces::{Piece, Pieces};
use super::role_names::{in_grants, in_policy, policy_head, role};
use super::script::{Token, tokens};
use super::timescale::version;
use super::words::Words;

/// Longer statements are passed over.
const STATEMENT_MAX_BYTES: usize = 8 << 10;
/// A name of the server has no more.
const NAME_MAX_BYTES: usize = 63;
/// More are not said: a sidecar is to stay one that can be read.
const NAMES_MAX: usize = 5_000;
/// Extensions whose installation makes no role. Whatever another one makes, a dump may grant
/// things to.
const MAKE_NO_ROLES: [&str; 46] = [
    "adminpack",
    "amcheck",
    "autoinc",
    "bloom",
    "btree_gin",
    "btree_gist",
    "citext",
    "cube",
    "dblink",
    "dict_int",
    "earthdistance",
    "file_fdw",
    "fuzzystrmatch",
    "hstore",
    "insert_username",
    "intarray",
    "isn",
    "lo",
    "ltree",
    "moddatetime",
    "pageinspect",
    "pg_buffercache",
    "pg_freespacemap",
    "pg_prewarm",
    "pg_stat_statements",
    "pg_trgm",
    "pg_visibility",
    "pg_walinspect",
    "pgcrypto",
    "pgrowlocks",
    "pgstattuple",
    "plpgsql",
    "postgis",
    "postgis_raster",
    "postgis_topology",
    "postgres_fdw",
    "refint",
    "seg",
    "sslinfo",
    "tablefunc",
    "tcn",
    "timescaledb",
    "unaccent",
    "uuid-ossp",
    "vector",
    "xml2",
];

/// Reads a script for the names in it, in pieces of any size.
#[derive(Default)]
pub struct ScriptScan {
    pieces: Pieces,
    naming: Naming,
    /// It is no script of `pg_dump`.
    is_strange: bool,
}

/// What a script names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScriptNames {
    /// Before it goes into a database itself; `None`: not known.
    own: Option<StatementNeeds>,
    /// Those that it goes into.
    databases: BTreeMap<String, Option<StatementNeeds>>,
}

#[derive(Default)]
struct Naming {
    own: Names,
    databases: BTreeMap<String, Names>,
    connected: Option<String>,
    /// It went into a database whose name cannot be read.
    is_elsewhere: bool,
    /// All names so far, those of databases too.
    count: usize,
    /// The beginning of a statement.
    held: Vec<u8>,
    is_too_long: bool,
    /// Those of TimescaleDB's own account.
    rows: Option<Vec<u8>>,
    /// Names of other letters than those of ASCII can be read.
    is_utf8: bool,
}

#[derive(Debug, Default)]
struct Names {
    needs: StatementNeeds,
    makes_roles: BTreeSet<String>,
    makes_tablespaces: BTreeSet<String>,
    /// Something in it may make a role, and nobody can say which.
    is_unknown: bool,
    /// As that, of an extension, which makes nothing else.
    may_make_roles: bool,
}

impl ScriptScan {
    pub fn push(&mut self, bytes: &[u8]) {
        if self.is_strange {
            return;
        }
        let naming = &mut self.naming;
        let pushed = self.pieces.push(bytes, &mut |piece| {
            naming.take(&piece);
            Ok(())
        });
        // What is wrong with it is for those to say who put it back.
        self.is_strange = pushed.is_err() || naming.count > NAMES_MAX;
        if self.is_strange {
            self.naming = Naming::default();
        }
    }

    /// The rows that these bytes begin with, and nothing else: how many bytes. It is done at
    /// the speed of memory; the rest is for [`ScriptScan::push`].
    pub fn pass_rows(&mut self, bytes: &[u8]) -> usize {
        match self.is_strange {
            true => bytes.len(),
            // A few, among which one is looked for.
            false if self.naming.rows.is_some() => 0,
            false => self.pieces.pass_rows(bytes),
        }
    }

    /// Nothing, unless all of it was one script.
    pub fn finish(self) -> ScriptNames {
        if self.is_strange || !self.pieces.is_between() {
            return ScriptNames::default();
        }
        let databases = self.naming.databases.into_iter();
        let databases: BTreeMap<_, _> = databases.map(|(name, names)| (name, names.known())).collect();
        let own = self.naming.own.known();
        ScriptNames { own, databases }
    }
}

impl ScriptNames {
    /// For each database of a dump of this content.
    pub fn of(self, content: &DumpContent) -> BTreeMap<String, StatementNeeds> {
        match (content.database(), content) {
            // One that goes into a database of its own choice is not put back.
            (Some(database), _) if self.databases.is_empty() => {
                self.own.map(|needs| (database.to_owned(), needs)).into_iter().collect()
            }
            (None, DumpContent::Cluster { .. }) => {
                let known = self.databases.into_iter();
                known.filter_map(|(name, needs)| Some((name, needs?))).collect()
            }
            _ => BTreeMap::new(),
        }
    }
}

impl Names {
    fn known(mut self) -> Option<StatementNeeds> {
        self.needs.roles.retain(|role| !self.may_make_roles && !self.makes_roles.contains(role));
        self.needs.tablespaces.retain(|tablespace| !self.makes_tablespaces.contains(tablespace));
        (!self.is_unknown).then_some(self.needs)
    }

    /// Of all kinds.
    fn count(&self) -> usize {
        let StatementNeeds { roles, tablespaces, extensions, versions: _ } = &self.needs;
        let made = self.makes_roles.len() + self.makes_tablespaces.len();
        roles.len() + tablespaces.len() + extensions.len() + made
    }

    fn statement(&mut self, words: &Words, tokens: Option<&[Token]>, can_read: impl Fn(&str) -> bool) {
        let begins = |first: &[&str]| words.starts_with(first);
        let is_maker = ["role", "user", "group"].iter().any(|kind| begins(&["create", kind]))
            && !begins(&["create", "user", "mapping"]);
        let is_renamer = ["role", "user", "group", "tablespace"].iter().any(|kind| begins(&["alter", kind]))
            && words.first().iter().any(|word| word == "rename");
        if is_renamer || begins(&["do"]) || begins(&["call"]) {
            self.is_unknown = true;
            return;
        }
        let is_place = begins(&["create", "tablespace"]);
        let is_policy = begins(&["create", "policy"]);
        let tokens = tokens.map(|tokens| if is_policy { policy_head(tokens) } else { tokens });
        let Some(tokens) = tokens.filter(|tokens| is_plain(tokens)) else {
            self.is_unknown |= is_maker || is_place;
            return;
        };
        if is_maker || is_place {
            let made = if is_maker { &mut self.makes_roles } else { &mut self.makes_tablespaces };
            made.extend(tokens.get(2).and_then(Token::name).map(str::to_owned));
            return;
        }
        if words.is_about_a_database() {
            return;
        }
        let mut roles = BTreeSet::new();
        let needs = &mut self.needs;
        match words.first().first().map_or("", String::as_str) {
            "grant" | "revoke" => in_grants(tokens, &mut roles),
            "alter" if begins(&["alter", "default", "privileges"]) => in_grants(tokens, &mut roles),
            "alter" => roles.extend(owner(tokens).map(str::to_owned)),
            "create" if is_policy => in_policy(tokens, &mut roles),
            "create" if begins(&["create", "schema"]) => roles.extend(behind(tokens, "authorization")),
            "create" if begins(&["create", "user", "mapping"]) => roles.extend(behind(tokens, "for")),
            "create" if begins(&["create", "extension"]) => {
                let at = if begins(&["create", "extension", "if", "not", "exists"]) { 5 } else { 2 };
                let name = tokens.get(at).and_then(Token::name).filter(|name| can_read(name));
                self.may_make_roles |= name.is_none_or(|name| !MAKE_NO_ROLES.contains(&name));
                needs.extensions.extend(name.map(str::to_owned));
            }
            "set" if begins(&["set", "session", "authorization"]) => {
                roles.extend(tokens.get(3).and_then(value).map(str::to_owned));
            }
            "set" if begins(&["set", "default_tablespace"]) => {
                let named = tokens.get(3).and_then(value).filter(|name| !name.is_empty() && can_read(name));
                needs.tablespaces.extend(named.map(str::to_owned));
            }
            _ => {}
        }
        needs.roles.extend(roles.into_iter().filter(|role| can_read(role)));
    }
}

impl Naming {
    fn take(&mut self, piece: &Piece<'_>) {
        if let (Some(rows), Piece::Rows(bytes)) = (&mut self.rows, piece) {
            let room = version::ROWS_MAX_BYTES.saturating_sub(rows.len());
            rows.extend_from_slice(&bytes[..bytes.len().min(room)]);
            return;
        }
        if !matches!(piece, Piece::Gap(_))
            && let Some(version) = self.rows.take().and_then(|rows| version::in_rows(&rows))
        {
            self.names().needs.versions.insert(version::TIMESCALEDB.to_owned(), version);
        }
        match piece {
            Piece::Command(line) => {
                if !line.starts_with(b"\\c") {
                    return;
                }
                let database = connected(line);
                self.is_elsewhere = database.is_none();
                if let Some(database) = &database {
                    self.count += 1;
                    self.databases.entry(database.clone()).or_default();
                }
                self.connected = database;
                // A new session knows nothing of what was set.
                self.is_utf8 = false;
            }
            Piece::Statement(bytes) => {
                let room = STATEMENT_MAX_BYTES - self.held.len();
                self.is_too_long |= bytes.len() > room;
                self.held.extend_from_slice(&bytes[..bytes.len().min(room)]);
            }
            Piece::End(words) => {
                self.end(words);
                self.held.clear();
                self.is_too_long = false;
            }
            Piece::Gap(_) | Piece::Comment(_) | Piece::Rows(_) => {}
        }
    }

    fn end(&mut self, words: &Words) {
        const LOOKED_AT: [&str; 8] = ["alter", "call", "create", "do", "grant", "reset", "revoke", "set"];
        let first = words.first().first().map_or("", String::as_str);
        if self.is_elsewhere {
            return;
        }
        if self.held.starts_with(version::COPY) {
            self.rows = Some(Vec::new());
        }
        if !LOOKED_AT.contains(&first) {
            return;
        }
        let tokens = match self.is_too_long {
            true => None,
            false => Some(tokens(String::from_utf8_lossy(&self.held).trim_end().trim_end_matches(';'))),
        };
        let others = [&["set", "names"][..], &["reset", "client_encoding"], &["reset", "all"]];
        if words.starts_with(&["set", "client_encoding"])
            || others.iter().any(|words_of| words.starts_with(words_of))
        {
            let encoding = tokens.as_ref().and_then(|tokens| tokens.get(3)).and_then(value);
            self.is_utf8 = encoding.is_some_and(|name| matches!(&*name.to_lowercase(), "utf8" | "utf-8"));
            return;
        }
        let is_utf8 = self.is_utf8;
        let can_read = |name: &str| {
            let is_known = name.is_ascii() || (is_utf8 && !name.contains(char::REPLACEMENT_CHARACTER));
            is_known && name.len() <= NAME_MAX_BYTES
        };
        let names = self.names();
        let before = names.count();
        names.statement(words, tokens.as_deref(), can_read);
        let found = names.count() - before;
        self.count += found;
    }

    /// Of where the script is.
    fn names(&mut self) -> &mut Names {
        let names = self.connected.as_ref().and_then(|database| self.databases.get_mut(database));
        names.unwrap_or(&mut self.own)
    }
}

/// Nothing in it has a meaning that our words do not have: dollar quotes, escapes, comments
/// in blocks and names in codes.
fn is_plain(tokens: &[Token]) -> bool {
    let is_block = |pair: &[Token]| pair == [Token::Mark('/'), Token::Mark('*')];
    !tokens.iter().any(|token| match token {
        Token::Mark(mark) => matches!(mark, '$' | '\\' | '&'),
        Token::Text(text) => text.contains('\\'),
        Token::Word(_) | Token::Name(_) => false,
    }) && !tokens.windows(2).any(is_block)
}

/// Of `ALTER … OWNER TO name`.
fn owner(tokens: &[Token]) -> Option<&str> {
    let [.., before, own, to, name] = tokens else { return None };
    let is_other = matches!(before, Token::Mark('.')) || tokens.iter().any(|token| token.is_word("rename"));
    if is_other || !own.is_word("owner") || !to.is_word("to") {
        return None;
    }
    role(name)
}

/// The role behind this word, which is quoted where it is a name.
fn behind(tokens: &[Token], word: &str) -> Option<String> {
    let at = tokens.iter().position(|token| token.is_word(word))?;
    tokens.get(at + 1).and_then(role).map(str::to_owned)
}

/// What something is set to, in whichever form.
fn value(token: &Token) -> Option<&str> {
    match token {
        Token::Text(text) => Some(text),
        Token::Word(word) if word == "default" => None,
        token => token.name(),
    }
}

#[cfg(test)]
mod tests;
