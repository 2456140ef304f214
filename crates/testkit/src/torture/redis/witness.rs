//! What a server held at one offset of its stream, written down outside of it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};
use jiff::Timestamp;

use super::commands::{DATABASES, words};
use crate::redis::{Client, Redis, Reply};

/// So long at most nobody writes, and nothing expires.
const PAUSE: &str = "120000";
const FOR_EVER: &str = "86400000";

/// Bytes of a value that a person looks at.
const SHOWN: usize = 400;

/// What a server says of its stream.
#[derive(Debug, Clone)]
pub struct Said {
    pub replication_id: String,
    pub offset: u64,
    /// The stream of another server that it went on with, and how far it was then.
    pub before: Option<(String, u64)>,
    /// How much the archive has called durable, if it is there.
    pub received: Option<u64>,
}

impl Said {
    /// # Errors
    /// When the server is away.
    pub fn of(server: &Redis) -> Result<Said> {
        let text = server.run(&["INFO", "replication"])?.text();
        let fields: BTreeMap<&str, &str> =
            text.lines().filter_map(|line| line.trim_end().split_once(':')).collect();
        let field = |name: &str| fields.get(name).copied().with_context(|| format!("no {name} in {text}"));
        let second: i64 = field("second_repl_offset")?.parse()?;
        let before = u64::try_from(second).ok().map(|second| second.saturating_sub(1));
        let before_id = field("master_replid2")?.to_owned();
        // The archive says that it listens nowhere; replicas of the server do.
        let attached = fields.iter().filter(|(name, _)| name.starts_with("slave"));
        let received = attached.filter_map(|(_, line)| of_archive(line)).max();
        Ok(Said {
            replication_id: field("master_replid")?.to_owned(),
            offset: field("master_repl_offset")?.parse()?,
            before: before.map(|offset| (before_id, offset)),
            received,
        })
    }
}

fn of_archive(line: &str) -> Option<u64> {
    let mut fields = line.split(',').filter_map(|field| field.split_once('='));
    let all: BTreeMap<&str, &str> = fields.by_ref().collect();
    let is_archive = all.get("port") == Some(&"0") && all.get("state") == Some(&"online");
    all.get("offset").filter(|_| is_archive)?.parse().ok()
}

/// By the clock of a server, which is that of the archive beside it.
///
/// # Errors
/// When it is away.
pub fn now(server: &Redis) -> Result<Timestamp> {
    let said = server.run(&["TIME"])?.text();
    let (seconds, microseconds) = said.split_once(' ').with_context(|| format!("read {said:?}"))?;
    let microseconds = seconds.parse::<i64>()? * 1_000_000 + microseconds.parse::<i64>()?;
    Timestamp::from_microsecond(microseconds).context("the time of a server")
}

/// All that a server holds, as one can compare it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    digest: String,
    functions: Vec<String>,
    sizes: String,
}

impl Contents {
    /// # Errors
    /// When the server is away.
    pub fn of(server: &Redis) -> Result<Contents> {
        let mut client = server.client()?;
        let digest = client.run(&["DEBUG", "DIGEST"])?.text();
        let mut functions = Vec::new();
        leaves(&client.run(&["FUNCTION", "LIST", "WITHCODE"])?, &mut functions);
        functions.sort();
        let sizes = client.run(&["INFO", "keyspace"])?.text();
        // How many keys of each database; when they expire the digest says.
        let sizes = sizes.lines().filter_map(|line| line.split_once(",expires").map(|(size, _)| size));
        Ok(Contents { digest, functions, sizes: sizes.collect::<Vec<_>>().join(" ") })
    }
}

/// The keys that one server has otherwise than another, with what each has.
///
/// # Errors
/// When one of them is away.
pub fn differences(one: &Redis, other: &Redis) -> Result<Vec<String>> {
    let (mut one, mut other) = (one.client()?, other.client()?);
    let mut found = Vec::new();
    for database in 0..DATABASES {
        let (left, right) = (values(&mut one, database)?, values(&mut other, database)?);
        let keys: BTreeSet<&Vec<u8>> = left.keys().chain(right.keys()).collect();
        let differing = keys.into_iter().filter(|key| left.get(*key) != right.get(*key));
        found.extend(differing.map(|key| {
            let (name, left, right) = (key.escape_ascii(), left.get(key), right.get(key));
            format!("database {database}, {name}:\n  {left:?}\n  {right:?}")
        }));
    }
    Ok(found)
}

fn values(client: &mut Client, database: usize) -> Result<BTreeMap<Vec<u8>, String>> {
    client.run(&["SELECT", &database.to_string()])?;
    let mut values = BTreeMap::new();
    let Reply::Array(keys) = client.run(&["KEYS", "*"])? else { return Ok(values) };
    for key in keys {
        let Reply::Bulk(key) = key else { continue };
        let digest = client.run(&[b"DEBUG", &b"DIGEST-VALUE"[..], &key])?.text();
        let expires = client.run(&[b"PEXPIRETIME", &key[..]])?.text();
        let kind = client.run(&[b"TYPE", &key[..]])?.text();
        let dump = match client.call(&[b"DUMP", &key[..]])? {
            Reply::Bulk(bytes) => bytes.get(..bytes.len().min(SHOWN)).unwrap_or_default().to_vec(),
            _ => Vec::new(),
        };
        values.insert(key, format!("{kind} {digest}, expires at {expires}: {}", dump.escape_ascii()));
    }
    Ok(values)
}

/// The order of what a server has in tables differs from server to server.
fn leaves(reply: &Reply, into: &mut Vec<String>) {
    match reply {
        Reply::Array(parts) => parts.iter().for_each(|part| leaves(part, into)),
        leaf => into.push(leaf.text()),
    }
}

#[derive(Debug, Clone)]
pub struct Witness {
    pub number: usize,
    pub replication_id: String,
    pub offset: u64,
    pub contents: Contents,
    /// Everything up to it was durable at the archive by then, nothing behind it had come, and
    /// something behind it came later.
    pub instant: Option<Timestamp>,
    pub is_received: bool,
}

/// Nobody writes to a server, and nothing in it expires, as long as this is there.
pub struct Pause(Client);

impl Pause {
    /// # Errors
    /// When the server is away.
    pub fn begin(server: &Redis) -> Result<Pause> {
        Pause::of(server, PAUSE)
    }

    /// Of a server that is not needed any more.
    ///
    /// # Errors
    /// When it is away.
    pub fn for_ever(server: &Redis) -> Result<Pause> {
        Pause::of(server, FOR_EVER)
    }

    fn of(server: &Redis, milliseconds: &str) -> Result<Pause> {
        let mut client = server.client()?;
        client.run(&["CLIENT", "PAUSE", milliseconds, "WRITE"])?;
        Ok(Pause(client))
    }

    /// Life goes on, with one more command.
    ///
    /// # Errors
    /// When the server is away.
    pub fn end(mut self) -> Result<()> {
        self.0.run(&["CLIENT", "UNPAUSE"])?;
        match self.0.call(&words("INCR behind:witnesses"))? {
            // Somebody renamed another key to this one.
            Reply::Error(why) if !why.starts_with("WRONGTYPE") && !why.contains("not an integer") => {
                bail!("write behind a witness: {why}")
            }
            _ => Ok(()),
        }
    }
}
