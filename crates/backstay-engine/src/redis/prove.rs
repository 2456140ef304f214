//! Proves that a scratch server holds what was backed up: its databases are as full as they were,
//! every value can be read, and the sum over all of them is that of the source where that is known.
//!
//! A check says what was expected and what was found. A check that fails makes the copy unsound; it
//! is not an error, since the looking worked.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use backstay_model::Finding;
use backstay_model::drill::Check;

use super::base::RedisFacts;
use super::connection::Connection;
use super::error::RedisError;
use super::facts::{DatabaseFacts, Info};
use super::reply::Reply;
use super::scratch::ScratchServer;
use crate::{Error, Result};

/// What is known of the data at the place where the copy ends.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expected {
    /// How full the databases were; nothing where nobody knows. A copy that holds no key is taken for
    /// sound only where this says that there was none.
    pub databases: Option<BTreeMap<u32, DatabaseFacts>>,
    /// Nobody wrote between that count and the place where the copy ends.
    pub is_exact: bool,
    /// `DEBUG DIGEST` of the source at that place.
    pub digest: Option<String>,
}

impl Expected {
    /// Of a base without the log that came after it. Its source was counted just before, and at work
    /// meanwhile.
    pub fn of(facts: &RedisFacts) -> Expected {
        Expected { databases: Some(facts.server.databases.clone()), ..Expected::default() }
    }
}

#[derive(Debug, Clone)]
pub struct ProveOptions {
    /// So many keys are looked at one by one.
    pub sample: u32,
    /// For all reading together. What does not fit into it is left out and said so.
    pub limit: Duration,
}

impl Default for ProveOptions {
    fn default() -> Self {
        // The sum over three million values of a hundred bytes took Redis 7.0 11 s, and Valkey 8.1 half of that.
        Self { sample: 100, limit: Duration::from_secs(600) }
    }
}

/// What was found on one copy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RedisProof {
    pub databases: BTreeMap<u32, DatabaseFacts>,
    /// Of all libraries.
    pub functions: u64,
    /// Forty hexadecimal digits: the same for the same data.
    pub digest: Option<String>,
    pub checks: Vec<Check>,
    pub findings: Vec<Finding>,
}

impl RedisProof {
    pub fn is_sound(&self) -> bool {
        self.checks.iter().all(|check| check.ok)
    }
}

/// Whether the server may have ended in the middle of a question: nothing that is asked after
/// this would be an answer of the copy.
pub fn broke_off(error: &Error) -> bool {
    matches!(error, Error::ConnectionLost { .. } | Error::Connect { .. })
}

/// Asks a running scratch server, and changes nothing. An error for which [`broke_off`] holds is the end
/// of the server, and [`ScratchServer::why_lost`] knows more.
pub async fn prove(
    server: &ScratchServer,
    expected: &Expected,
    options: &ProveOptions,
) -> Result<RedisProof> {
    let deadline = Instant::now() + options.limit;
    let mut prover =
        Prover { connection: server.connection().await?, deadline, proof: RedisProof::default() };
    prover.keys(expected).await?;
    prover.functions().await?;
    prover.sample(options.sample).await?;
    // The last: nobody can ask anything else until it has ended.
    prover.digest(expected.digest.as_deref()).await?;
    Ok(prover.proof)
}

struct Prover {
    connection: Connection,
    deadline: Instant,
    proof: RedisProof,
}

impl Prover {
    /// Keys whose time has come are counted as the source counts them: they are there.
    async fn keys(&mut self, expected: &Expected) -> Result<()> {
        let info = Info::ask(&mut self.connection, "count the keys", "keyspace").await?;
        self.proof.databases = info.databases();
        let found = &self.proof.databases;
        let checks = match &expected.databases {
            Some(known) if expected.is_exact => compared(known, found),
            Some(known) if total(known).keys == 0 => vec![keys_check("none, or few", found, true)],
            Some(known) => vec![keys_check(&format!("about {}", of(total(known))), found, false)],
            None => vec![keys_check("some", found, false)],
        };
        self.proof.checks.extend(checks);
        Ok(())
    }

    async fn functions(&mut self) -> Result<()> {
        let answered = self.connection.call("list the functions", &["FUNCTION", "LIST"]).await;
        let check = match answered {
            Ok(libraries) => {
                self.proof.functions = functions_in(libraries);
                let found = format!("{} listed", self.proof.functions);
                Check { name: "functions".to_owned(), expected: "readable".to_owned(), found, ok: true }
            }
            Err(error) => unreadable("functions", error)?,
        };
        self.proof.checks.push(check);
        Ok(())
    }

    /// Looks at keys that the server picks, in every database.
    async fn sample(&mut self, count: u32) -> Result<()> {
        const NAME: &str = "sample of keys";
        let full: Vec<(u32, u64)> = self
            .proof
            .databases
            .iter()
            .filter(|(_, facts)| facts.keys > 0)
            .map(|(number, facts)| (*number, facts.keys))
            .collect();
        let share = (u64::from(count) / (full.len() as u64).max(1)).max(1);
        let mut seen = Sample::default();
        for (number, keys) in full.into_iter().take(count as usize) {
            match self.sample_of(number, keys.min(share), &mut seen).await {
                Ok(()) => {}
                Err(error) => {
                    let check = unreadable(NAME, error)?;
                    self.proof.checks.push(check);
                    return Ok(());
                }
            }
        }
        if seen.looked_at > 0 {
            let (name, expected) = (NAME.to_owned(), "readable".to_owned());
            self.proof.checks.push(Check { name, expected, found: seen.in_words(), ok: true });
        }
        Ok(())
    }

    async fn sample_of(&mut self, database: u32, count: u64, seen: &mut Sample) -> Result<()> {
        const ACTION: &str = "look at a key";
        let connection = &mut self.connection;
        connection.call(ACTION, &["SELECT", &database.to_string()]).await?;
        for _ in 0..count {
            if Instant::now() >= self.deadline {
                return Ok(());
            }
            let Reply::Bulk(key) = connection.call(ACTION, &["RANDOMKEY"]).await? else { return Ok(()) };
            let kind = connection.call(ACTION, &[&b"TYPE"[..], &key]).await?;
            let encoding = connection.call(ACTION, &[&b"OBJECT"[..], b"ENCODING", &key]).await?;
            seen.looked_at += 1;
            // A replica shows nobody what it would no longer hold as a master.
            match (kind.text().filter(|kind| kind != "none"), encoding.text()) {
                (Some(kind), Some(_)) => drop(seen.types.insert(kind)),
                _ => seen.expired += 1,
            }
        }
        Ok(())
    }

    /// Reads every value there is.
    async fn digest(&mut self, expected: Option<&str>) -> Result<()> {
        const NAME: &str = "sum over all data";
        let left = self.deadline.saturating_duration_since(Instant::now());
        let late = || {
            Finding::warning(
                NAME,
                "was not made to its end in the time there was",
                "raise the time a drill may take for proving",
            )
        };
        if left.is_zero() {
            self.proof.findings.push(late());
            return Ok(());
        }
        let answered = self.connection.call_within(left, "sum up all data", &["DEBUG", "DIGEST"]).await;
        let check = match answered {
            Ok(answer) => {
                let found = answer.text().unwrap_or_default();
                self.proof.digest = Some(found.clone()).filter(|found| is_digest(found));
                match expected {
                    Some(expected) => Check::equal(NAME, expected, found),
                    None => {
                        let (name, ok) = (NAME.to_owned(), is_digest(&found));
                        Check { name, expected: "every value readable".to_owned(), found, ok }
                    }
                }
            }
            Err(Error::Timeout { .. }) => {
                self.proof.findings.push(late());
                return Ok(());
            }
            Err(error) => unreadable(NAME, error)?,
        };
        self.proof.checks.push(check);
        Ok(())
    }
}

/// What was seen of keys, one by one.
#[derive(Default)]
struct Sample {
    looked_at: u64,
    expired: u64,
    types: BTreeSet<String>,
}

impl Sample {
    fn in_words(&self) -> String {
        let types: Vec<&str> = self.types.iter().map(String::as_str).collect();
        let of_types = if types.is_empty() { String::new() } else { format!(" ({})", types.join(", ")) };
        match self.expired {
            0 => format!("{} keys{of_types}", self.looked_at),
            expired => format!("{} keys{of_types}, {expired} of them expired", self.looked_at),
        }
    }
}

/// A server that says no has an answer; one that is gone has none.
fn unreadable(name: &str, error: Error) -> Result<Check> {
    match error {
        Error::Redis(RedisError::Refused { message, .. }) => {
            Ok(Check { name: name.to_owned(), expected: "readable".to_owned(), found: message, ok: false })
        }
        error => Err(error),
    }
}

fn compared(known: &BTreeMap<u32, DatabaseFacts>, found: &BTreeMap<u32, DatabaseFacts>) -> Vec<Check> {
    let numbers: BTreeSet<&u32> = known.keys().chain(found.keys()).collect();
    let at =
        |of_all: &BTreeMap<u32, DatabaseFacts>, number| of(of_all.get(number).copied().unwrap_or_default());
    let each =
        |number| Check::equal(format!("keys in database {number}"), at(known, number), at(found, number));
    match numbers.is_empty() {
        true => vec![Check::equal("keys", of(total(known)), of(total(found)))],
        false => numbers.into_iter().map(each).collect(),
    }
}

fn keys_check(expected: &str, found: &BTreeMap<u32, DatabaseFacts>, may_be_empty: bool) -> Check {
    let all = total(found);
    let ok = may_be_empty || all.keys > 0;
    Check { name: "keys".to_owned(), expected: expected.to_owned(), found: of(all), ok }
}

fn total(databases: &BTreeMap<u32, DatabaseFacts>) -> DatabaseFacts {
    databases.values().fold(DatabaseFacts::default(), |sum, one| DatabaseFacts {
        keys: sum.keys + one.keys,
        expires: sum.expires + one.expires,
    })
}

fn of(facts: DatabaseFacts) -> String {
    format!("{}, {} with an expiry", facts.keys, facts.expires)
}

fn is_digest(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// A library is a list of names and values, and one of these is the list of its functions.
fn functions_in(libraries: Reply) -> u64 {
    let in_library = |library: Reply| {
        let mut fields = library.array().unwrap_or_default().into_iter();
        fields.find(|field| field.text().as_deref() == Some("functions"))?;
        Some(fields.next()?.array()?.len() as u64)
    };
    libraries.array().unwrap_or_default().into_iter().filter_map(in_library).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn databases(of: &[(u32, u64, u64)]) -> BTreeMap<u32, DatabaseFacts> {
        of.iter()
            .map(|(number, keys, expires)| (*number, DatabaseFacts { keys: *keys, expires: *expires }))
            .collect()
    }

    #[test]
    fn a_database_that_only_one_side_has_is_not_passed_over() {
        let checks = compared(&databases(&[(0, 3, 1), (7, 1, 0)]), &databases(&[(0, 3, 1), (9, 1, 0)]));
        let failed: Vec<&str> =
            checks.iter().filter(|check| !check.ok).map(|check| check.name.as_str()).collect();
        assert_eq!((checks.len(), failed), (3, vec!["keys in database 7", "keys in database 9"]));
        let empty = compared(&databases(&[]), &databases(&[]));
        assert!(empty.len() == 1 && empty[0].ok, "{empty:?}");
    }

    #[test]
    fn a_digest_is_known_by_its_form() {
        assert!(is_digest(&"0a".repeat(20)));
        assert!(!is_digest(&"0a".repeat(19)) && !is_digest(&"0x".repeat(20)));
    }
}
