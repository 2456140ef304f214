//! The server of a page, PostgreSQL unless the page says that it is about another one, and
//! how its reader finds it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use testkit::postgres::{PASSWORD, SUPERUSER};
use testkit::redis::RedisInstallation;
use testkit::{Installation, Postgres, PostgresOptions, Redis, Workspace};

use super::document::is_about_redis;
use crate::servers;

/// What the pages of one run need, and nothing that they do not.
pub struct Installations {
    postgres: Option<Installation>,
    redis: Option<RedisInstallation>,
}

impl Installations {
    pub fn prepare(pages: &[PathBuf]) -> Result<Installations> {
        let texts: Vec<String> = pages.iter().map(fs::read_to_string).collect::<Result<_, _>>()?;
        let redis = texts.iter().any(|text| is_about_redis(text));
        let postgres = texts.iter().any(|text| !is_about_redis(text));
        Ok(Installations {
            postgres: postgres.then(servers::prepare_any).transpose()?,
            redis: redis.then(servers::prepare_redis).transpose()?,
        })
    }
}

pub enum Server {
    Postgres(Box<Postgres>),
    Redis(Box<Redis>),
}

impl Server {
    pub fn start(page: &str, installations: &Installations) -> Result<Server> {
        let missing = "find the server that was prepared for the page";
        if is_about_redis(page) {
            let installation = installations.redis.as_ref().context(missing)?;
            return Ok(Server::Redis(Box::new(Redis::start_new(installation, &[])?)));
        }
        let installation = installations.postgres.as_ref().context(missing)?;
        Ok(Server::Postgres(Box::new(Postgres::start_new(installation, &PostgresOptions::default())?)))
    }

    pub fn workspace(&self) -> &Workspace {
        match self {
            Server::Postgres(server) => server.workspace(),
            Server::Redis(server) => server.workspace(),
        }
    }

    pub fn bin_directory(&self) -> &Path {
        match self {
            Server::Postgres(server) => server.installation().bin_directory(),
            Server::Redis(server) => server.installation().bin_directory(),
        }
    }

    /// Of PostgreSQL a superuser's connection, as its programs read it, and the data directory; of
    /// Redis the port.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        match self {
            Server::Postgres(server) => vec![
                ("PGHOST", "127.0.0.1".to_owned()),
                ("PGPORT", server.port().to_string()),
                ("PGUSER", SUPERUSER.to_owned()),
                ("PGPASSWORD", PASSWORD.to_owned()),
                ("PGDATA", server.data_directory().display().to_string()),
            ],
            Server::Redis(server) => vec![("REDIS_PORT", server.port().to_string())],
        }
    }
}
