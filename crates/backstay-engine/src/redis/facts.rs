//! What a server says of itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::connection::Connection;
use super::error::RedisError;
use crate::{Error, Result};

/// The append-only files of older ones are built otherwise: a restored directory would start empty.
const OLDEST_REDIS: (u32, u32) = (7, 0);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Product {
    Redis,
    Valkey,
}

impl Product {
    pub fn name(self) -> &'static str {
        match self {
            Product::Redis => "Redis",
            Product::Valkey => "Valkey",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Master,
    Replica,
}

/// How full one of its databases is, by its own count: keys that have expired and were not
/// touched since are in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseFacts {
    pub keys: u64,
    pub expires: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerFacts {
    pub product: Product,
    pub version: String,
    /// Of this process: another one after every start.
    pub run_id: String,
    pub is_cluster: bool,
    pub role: Role,
    /// Of the stream that it sends, and how far that has come.
    pub replication_id: String,
    pub offset: u64,
    /// Bytes of that stream that it keeps for who comes back.
    pub backlog_bytes: u64,
    pub used_memory_bytes: u64,
    /// By the number of the database.
    pub databases: BTreeMap<u32, DatabaseFacts>,
}

impl ServerFacts {
    /// # Errors
    ///
    /// [`RedisError::NoDataThere`] for a Sentinel, [`RedisError::UnsupportedVersion`], and a refusal where
    /// the user may not ask.
    pub async fn ask(connection: &mut Connection) -> Result<ServerFacts> {
        let info = Info::ask(connection, "ask the server what it is", "default").await?;
        ServerFacts::read(connection.server(), &info)
    }

    fn read(server: &str, info: &Info) -> Result<ServerFacts> {
        let mode = info.text("redis_mode").or_else(|_| info.text("server_mode"))?;
        if mode == "sentinel" {
            return Err(RedisError::NoDataThere { server: server.to_owned(), mode: mode.to_owned() }.into());
        }
        let (product, version) = match info.text("valkey_version") {
            Ok(version) => (Product::Valkey, version),
            Err(_) => (Product::Redis, info.text("redis_version")?),
        };
        if product == Product::Redis && numbers(version) < OLDEST_REDIS {
            let (product, version) = (product.name(), version.to_owned());
            return Err(RedisError::UnsupportedVersion { product, version }.into());
        }
        Ok(ServerFacts {
            product,
            version: version.to_owned(),
            run_id: info.text("run_id")?.to_owned(),
            is_cluster: mode == "cluster",
            role: if info.text("role")? == "master" { Role::Master } else { Role::Replica },
            replication_id: info.text("master_replid")?.to_owned(),
            offset: info.number("master_repl_offset")?,
            backlog_bytes: info.number("repl_backlog_size")?,
            used_memory_bytes: info.number("used_memory")?,
            databases: info.databases(),
        })
    }

    pub fn keys(&self) -> u64 {
        self.databases.values().map(|database| database.keys).sum()
    }

    /// `7.0`, of `7.0.15`.
    pub fn release(&self) -> (u32, u32) {
        numbers(&self.version)
    }
}

/// Where the stream of a server is, and who receives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamSource {
    pub replication_id: String,
    pub offset: u64,
    /// Bytes of it that the server keeps for who comes back.
    pub backlog_bytes: u64,
    /// One that said no port, as an archive does.
    pub is_received: bool,
}

impl StreamSource {
    /// As [`ServerFacts::ask`], at one moment with it.
    pub async fn ask(connection: &mut Connection) -> Result<(ServerFacts, StreamSource)> {
        let reply = connection.call("ask the server what it is", &["INFO"]).await?;
        let text = reply.text().ok_or_else(|| protocol("INFO is answered with no text"))?;
        let (server, info) = (connection.server().to_owned(), Info::parse(&text));
        let facts = ServerFacts::read(&server, &info)?;
        let source = StreamSource {
            replication_id: facts.replication_id.clone(),
            offset: facts.offset,
            backlog_bytes: facts.backlog_bytes,
            is_received: info.has_portless_replica(),
        };
        Ok((facts, source))
    }
}

pub(super) fn numbers(version: &str) -> (u32, u32) {
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

fn protocol(reason: &str) -> Error {
    Error::Protocol { reason: reason.to_owned() }
}

/// The lines of `INFO`.
pub(super) struct Info(BTreeMap<String, String>);

impl Info {
    pub(super) async fn ask(
        connection: &mut Connection,
        action: &'static str,
        section: &str,
    ) -> Result<Info> {
        let reply = connection.call(action, &["INFO", section]).await?;
        let text = reply.text().ok_or_else(|| protocol("INFO is answered with no text"))?;
        Ok(Info::parse(&text))
    }

    pub(super) fn parse(text: &str) -> Info {
        let pairs = text.lines().filter_map(|line| line.trim_end().split_once(':'));
        Info(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    pub(super) fn text(&self, name: &str) -> Result<&str> {
        self.0.get(name).map(String::as_str).ok_or_else(|| protocol(&format!("INFO does not say `{name}`")))
    }

    pub(super) fn number(&self, name: &str) -> Result<u64> {
        let text = self.text(name)?;
        text.parse().map_err(|_| protocol(&format!("INFO says `{name}:{text}`")))
    }

    /// `slave0:ip=::1,port=0,state=online,offset=14,lag=0`.
    fn has_portless_replica(&self) -> bool {
        self.0.iter().any(|(name, value)| {
            let number = name.strip_prefix("slave").or_else(|| name.strip_prefix("replica"));
            let is_one = number.is_some_and(|number| number.parse::<u32>().is_ok());
            is_one && value.split(',').any(|pair| pair == "port=0")
        })
    }

    /// `db0:keys=3,expires=1,avg_ttl=0`.
    pub(super) fn databases(&self) -> BTreeMap<u32, DatabaseFacts> {
        let numbered = self.0.iter().filter_map(|(name, value)| {
            let number = name.strip_prefix("db")?.parse().ok()?;
            let field = |wanted: &str| {
                let mut pairs = value.split(',').filter_map(|pair| pair.split_once('='));
                pairs.find(|(name, _)| *name == wanted)?.1.parse().ok()
            };
            Some((number, DatabaseFacts { keys: field("keys")?, expires: field("expires")? }))
        });
        numbered.collect()
    }
}

/// A server as a test may need one.
#[cfg(test)]
pub(super) fn facts_of_a_server() -> ServerFacts {
    ServerFacts {
        product: Product::Redis,
        version: "7.0.15".to_owned(),
        run_id: "r".to_owned(),
        is_cluster: false,
        role: Role::Master,
        replication_id: "a".repeat(40),
        offset: 0,
        backlog_bytes: 1 << 20,
        used_memory_bytes: 1 << 20,
        databases: BTreeMap::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INFO: &str = "# Server\r\nredis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.1.1\r\n\
        redis_mode:standalone\r\nrun_id:aa\r\n\r\n# Memory\r\nused_memory:5\r\n# Replication\r\nrole:slave\r\n\
        master_replid:bb\r\nmaster_repl_offset:17\r\nrepl_backlog_size:1048576\r\n# Keyspace\r\n\
        db0:keys=3,expires=1,avg_ttl=0,keys_with_volatile_items=0\r\ndb12:keys=4,expires=0,avg_ttl=0\r\n";

    #[test]
    fn a_server_is_known_by_what_it_says() {
        let facts = ServerFacts::read("x", &Info::parse(INFO)).unwrap();
        assert_eq!(
            (facts.product, facts.version.as_str(), facts.release()),
            (Product::Valkey, "8.1.1", (8, 1))
        );
        assert_eq!((facts.role, facts.offset, facts.keys()), (Role::Replica, 17, 7));
        let received = |line: &str| Info::parse(&format!("{INFO}{line}\r\n")).has_portless_replica();
        assert!(received("slave1:ip=::1,port=0,state=online,offset=14,lag=0"));
        assert!(
            !received("slave0:ip=::1,port=6379,state=online,offset=0,lag=0") && !received("slaves:port=0")
        );
        assert_eq!(facts.databases[&12], DatabaseFacts { keys: 4, expires: 0 });
    }

    #[test]
    fn what_holds_no_data_or_is_too_old_is_refused() {
        let sentinel = INFO.replace("standalone", "sentinel");
        let error = ServerFacts::read("x", &Info::parse(&sentinel)).unwrap_err();
        assert!(matches!(error, Error::Redis(RedisError::NoDataThere { .. })), "{error}");
        let old = INFO.replace("valkey_version:8.1.1\r\n", "").replace("7.2.4", "6.2.14");
        let error = ServerFacts::read("x", &Info::parse(&old)).unwrap_err();
        assert!(matches!(error, Error::Redis(RedisError::UnsupportedVersion { .. })), "{error}");
        let mute = INFO.replace("run_id:aa\r\n", "");
        let error = ServerFacts::read("x", &Info::parse(&mute)).unwrap_err();
        assert!(error.to_string().contains("run_id"), "{error}");
    }
}
