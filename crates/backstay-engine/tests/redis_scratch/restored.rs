//! Restored directories of real servers, and what lies in them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use backstay_engine::Result;
use backstay_engine::redis::RedisSettings;
use backstay_engine::redis::base::RedisFacts;
use backstay_engine::redis::connection::Connection;
use backstay_engine::redis::facts::ServerFacts;
use backstay_engine::redis::place::{FileNames, RedisPlace};
use backstay_engine::redis::scratch::{Form, ScratchOptions, ScratchServer};
use backstay_engine::redis::sync::FullSync;
use testkit::{Redis, RedisInstallation, RedisVersion, require_redis};
use tokio_util::sync::CancellationToken;

pub fn on_both(test: impl Fn(&RedisInstallation)) {
    for version in RedisVersion::ALL {
        if let Some(installation) = require_redis(version) {
            test(&installation);
        }
    }
}

pub fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// A server, and a directory with what it held when [`Source::restored`] was called.
pub struct Source {
    pub server: Redis,
    pub facts: ServerFacts,
    pub directory: PathBuf,
    pub names: FileNames,
}

impl Source {
    pub fn restored(server: Redis, names: FileNames) -> Source {
        let (facts, snapshot) = block_on(snapshot_of(&server)).unwrap();
        let directory = server.workspace().path().join("restored");
        let place = RedisPlace::begin(&directory, names.clone(), snapshot.len() as u64).unwrap();
        place.snapshot().write_at(0, &snapshot).unwrap();
        place.settle().unwrap();
        Source { server, facts, directory, names }
    }

    /// With a few keys of several types, in two databases, and two functions.
    pub fn filled(installation: &RedisInstallation) -> Source {
        Source::restored(filled(installation, &[]), FileNames::default())
    }

    /// The server does something, and the log of the copy gets it.
    pub fn goes_on(&self, commands: &[&[&str]]) {
        let mut client = self.server.client().unwrap();
        let mut log = encoded(&["SELECT", "0"]);
        for words in commands {
            client.run(words).unwrap();
            log.extend_from_slice(&encoded(words));
        }
        self.set_log(&log);
    }

    /// The log behind the snapshot, and a manifest that lists it.
    pub fn set_log(&self, log: &[u8]) {
        let name = format!("{}.1.incr.aof", self.names.append_only);
        fs::write(self.append_only(&name), log).unwrap();
        self.set_manifest(&format!("{}file {name} seq 1 type i\n", self.base_line()));
    }

    pub fn base_line(&self) -> String {
        format!("file {} seq 1 type b\n", self.base())
    }

    pub fn base(&self) -> String {
        format!("{}.1.base.rdb", self.names.append_only)
    }

    pub fn set_manifest(&self, text: &str) {
        fs::write(self.append_only(&format!("{}.manifest", self.names.append_only)), text).unwrap();
    }

    pub fn append_only(&self, name: &str) -> PathBuf {
        self.directory.join(&self.names.append_only_directory).join(name)
    }

    /// As a backup has them.
    pub fn base_facts(&self) -> RedisFacts {
        RedisFacts {
            server: self.facts.clone(),
            replication_id: self.facts.replication_id.clone(),
            offset: self.facts.offset,
            rdb_version: 10,
            snapshot_bytes: 0,
            has_checksum: true,
            made_at: None,
            selected_database: 0,
            saved: None,
        }
    }

    pub fn digest(&self) -> String {
        self.server.run(&["DEBUG", "DIGEST"]).unwrap().text()
    }

    pub async fn start(&self, form: Form) -> Result<ScratchServer> {
        start(&self.server, &self.directory, &self.names, &self.facts, form).await
    }
}

pub async fn start(
    server: &Redis,
    directory: &Path,
    names: &FileNames,
    facts: &ServerFacts,
    form: Form,
) -> Result<ScratchServer> {
    let bin_directory = Some(server.installation().bin_directory().to_owned());
    let options = ScratchOptions { bin_directory, form, ..ScratchOptions::default() };
    ScratchServer::start(directory, names, facts, &options, &CancellationToken::new()).await
}

pub fn filled(installation: &RedisInstallation, settings: &[(&str, &str)]) -> Redis {
    let server = Redis::start_new(installation, settings).unwrap();
    let mut client = server.client().unwrap();
    let library = "#!lua name=mine\nredis.register_function('one', function() return 1 end)\n\
                   redis.register_function('two', function() return 2 end)";
    for words in [
        // What is past its time stays, and the sum with it, until somebody asks for it.
        &["DEBUG", "SET-ACTIVE-EXPIRE", "0"][..],
        &["SET", "text", "a value that is found in the file as it is"],
        &["RPUSH", "list", "a", "b", "c"],
        &["HSET", "hash", "field", "value"],
        &["FUNCTION", "LOAD", library],
        &["SELECT", "7"],
        &["SADD", "set", "1", "2"],
        &["SET", "kept", "a", "EX", "100000"],
    ] {
        client.run(words).unwrap();
    }
    server
}

async fn snapshot_of(server: &Redis) -> Result<(ServerFacts, Vec<u8>)> {
    let settings = RedisSettings { url: server.url(), ..RedisSettings::default() };
    let mut connection = Connection::open(&settings.address()?).await?;
    let facts = ServerFacts::ask(&mut connection).await?;
    let mut sync = FullSync::begin(connection).await?;
    let mut bytes = Vec::new();
    while let Some(piece) = sync.next().await? {
        bytes.extend_from_slice(&piece);
    }
    Ok((facts, bytes))
}

/// A command as it stands in the log.
pub fn encoded(words: &[&str]) -> Vec<u8> {
    let mut bytes = bytes::BytesMut::new();
    backstay_engine::redis::reply::encode(words, &mut bytes);
    bytes.to_vec()
}

/// Every file below, with its number, the time of its last change, and its bytes.
pub fn contents(directory: &Path) -> BTreeMap<PathBuf, (u64, i64, i64, Vec<u8>)> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let metadata = fs::symlink_metadata(&path).unwrap();
        let (number, seconds, rest) = (metadata.ino(), metadata.mtime(), metadata.mtime_nsec());
        if metadata.is_dir() {
            found.extend(contents(&path));
            found.insert(path, (number, seconds, rest, Vec::new()));
        } else {
            let bytes = fs::read(&path).unwrap();
            found.insert(path, (number, seconds, rest, bytes));
        }
    }
    found
}
