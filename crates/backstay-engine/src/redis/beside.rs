//! What lies beside a snapshot: users, settings, the list of modules, and of a cluster which of its
//! shards has which slots.
//!
//! They are no part of a snapshot, and are asked for before it begins: a restored server without
//! its users lets nobody in, or everybody. Where a provider has renamed the command that lists
//! them, the data is backed up without, and a finding says so; where the user may not ask, a right
//! can be given, so that it is an error.

use backstay_model::Finding;
use backstay_model::error::Fault;
use backstay_model::parts::{
    EXTENT_SIZE, ExtentData, ExtentReader, FileShape, FileSpec, PartKind, PartSource, Step,
};
use bytes::Bytes;

use super::connection::Connection;
use super::facts::ServerFacts;
use super::reply::Reply;
use crate::{Error, Result};

/// The paths of the files in a backup.
pub const USERS: &str = "beside/users.acl";
pub const SETTINGS: &str = "beside/settings.json";
pub const MODULES: &str = "beside/modules.json";
pub const SHARDS: &str = "beside/shards.json";
/// All of them.
pub const PATHS: [&str; 4] = [USERS, SETTINGS, MODULES, SHARDS];

/// Settings that are passwords: a repository without encryption would give them away. Whoever
/// restores has those of the new server.
const SECRETS: [&str; 5] =
    ["requirepass", "masterauth", "tls-key-file-pass", "tls-client-key-file-pass", "primaryauth"];

/// The files, and what is not in them.
pub(super) struct Beside {
    pub files: Files,
    pub lacking: Vec<Finding>,
}

impl Beside {
    pub async fn ask(connection: &mut Connection, server: &ServerFacts) -> Result<Beside> {
        let mut lacking = Vec::new();
        let files = Files { steps: files(connection, server, &mut lacking).await?.into_iter() };
        Ok(Beside { files, lacking })
    }
}

async fn files(
    connection: &mut Connection,
    server: &ServerFacts,
    lacking: &mut Vec<Finding>,
) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    let mut add = |path, bytes: Vec<u8>| steps.extend(file(path, &bytes.into()));
    let json = |value: serde_json::Result<Vec<u8>>| value.map_err(|source| Error::Facts { source });
    if let Some(users) = listing(connection, &["ACL", "LIST"], "users", lacking).await? {
        let users: String = users.iter().filter_map(Reply::text).map(|line| line + "\n").collect();
        add(USERS, users.into_bytes());
    }
    if let Some(settings) = listing(connection, &["CONFIG", "GET", "*"], "settings", lacking).await? {
        let pairs = settings.chunks(2);
        let pairs = pairs.filter_map(|pair| Some((pair.first()?.text()?, pair.get(1)?.text()?)));
        let settings: std::collections::BTreeMap<String, String> =
            pairs.filter(|(name, _)| !SECRETS.contains(&name.as_str())).collect();
        add(SETTINGS, json(serde_json::to_vec_pretty(&settings))?);
    }
    if let Some(modules) = listing(connection, &["MODULE", "LIST"], "modules", lacking).await? {
        let parts = modules.into_iter().map(|module| module.array().unwrap_or_default());
        let modules: Vec<Vec<Option<String>>> =
            parts.map(|module| module.iter().map(Reply::text).collect()).collect();
        add(MODULES, json(serde_json::to_vec_pretty(&modules))?);
    }
    // The keys of one node are of no use to a cluster that does not know whose they are.
    if server.is_cluster
        && let Some(shards) = listing(connection, &["CLUSTER", "SHARDS"], "slots", lacking).await?
    {
        let shards: Vec<serde_json::Value> = shards.iter().map(in_json).collect();
        add(SHARDS, json(serde_json::to_vec_pretty(&shards))?);
    }
    Ok(steps)
}

/// Names and values of a map come one behind the other, and stay so.
fn in_json(reply: &Reply) -> serde_json::Value {
    match reply {
        Reply::Array(parts) => parts.iter().map(in_json).collect(),
        Reply::Integer(number) => (*number).into(),
        other => other.text().into(),
    }
}

/// Nothing, and a finding, where the server has no such command.
async fn listing(
    connection: &mut Connection,
    words: &[&str],
    what: &str,
    lacking: &mut Vec<Finding>,
) -> Result<Option<Vec<Reply>>> {
    match connection.call("ask for users, settings and modules", words).await {
        Ok(reply) => Ok(Some(reply.array().unwrap_or_default())),
        Err(Error::Redis(error)) if error.is_unknown_command() => {
            let command = words.first().copied().unwrap_or_default();
            lacking.push(Finding::warning(
                what,
                format!("the server knows no command `{command}`, so the backup is without its {what}"),
                format!(
                    "keep them elsewhere; where `rename-command {command}` stands in its settings, taking that out is \
                     enough"
                ),
            ));
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn file(path: &str, bytes: &Bytes) -> Vec<Step> {
    let shape = FileShape { size: bytes.len() as u64, block_size: 4096 };
    let (path, kind) = (path.to_owned(), PartKind::File(shape));
    let spec = FileSpec { path, kind, mode: 0o600, user_id: 0, group_id: 0, modified: 0 };
    let mut steps = vec![Step::Begin(spec)];
    for (number, part) in bytes.chunks(EXTENT_SIZE as usize).enumerate() {
        let offset = number * EXTENT_SIZE as usize;
        let data = ExtentData::Read(Box::new(Held(bytes.slice(offset..offset + part.len()))));
        steps.push(Step::Extent { offset: offset as u64, length: part.len() as u32, data });
    }
    steps
}

struct Held(Bytes);

impl ExtentReader for Held {
    fn read(self: Box<Self>, buffer: &mut Vec<u8>) -> Result<(), Fault> {
        buffer.clear();
        buffer.extend_from_slice(&self.0);
        Ok(())
    }
}

pub(super) struct Files {
    steps: std::vec::IntoIter<Step>,
}

impl PartSource for Files {
    fn next(&mut self) -> Result<Option<Step>, Fault> {
        Ok(self.steps.next())
    }
}
