//! What a person says of one Redis or Valkey server, and the address made of it.
//!
//! A password in the address is refused, because addresses are printed and passwords are not.

use std::path::PathBuf;
use std::time::Duration;

use backstay_model::{ByteRate, Secret};

use crate::address::{Endpoint, percent_decoded};
use crate::tls::TlsMode;
use crate::{Error, Result};

/// How long connecting, the handshake and the log-in may take together.
pub const CONNECT_LIMIT: Duration = Duration::from_secs(10);
const PORT: u16 = 6379;

#[derive(Debug, Clone, Default)]
pub struct RedisSettings {
    /// `redis://cache:6379`, `rediss://backup@cache` with TLS, `unix:///run/redis/redis.sock`.
    pub url: String,
    pub password: Option<Secret>,
    /// PEM file with the certificates that may sign the server's.
    pub ssl_root_certificate: Option<PathBuf>,
    /// The server's own, where bases are to be the file that it saves there.
    pub data_directory: Option<PathBuf>,
    /// Directory of `redis-server` or `valkey-server` for drills.
    pub bin_directory: Option<PathBuf>,
    pub max_rate: Option<ByteRate>,
}

/// Where and as whom to connect, parsed.
#[derive(Clone)]
pub struct Address {
    pub endpoint: Endpoint,
    pub tls: TlsMode,
    pub root_certificate: Option<PathBuf>,
    /// The user of the access list; `default` when none is named.
    pub user: Option<String>,
    pub password: Option<Secret>,
    pub connect_limit: Duration,
}

impl RedisSettings {
    /// # Errors
    ///
    /// [`Error::Setting`] for what is no address.
    pub fn address(&self) -> Result<Address> {
        let (endpoint, tls, user) =
            parse(&self.url).map_err(|reason| Error::Setting { setting: "url", reason })?;
        Ok(Address {
            endpoint,
            tls,
            root_certificate: self.ssl_root_certificate.clone(),
            user,
            password: self.password.clone(),
            connect_limit: CONNECT_LIMIT,
        })
    }
}

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Address({}@{})", self.user.as_deref().unwrap_or("default"), self.endpoint)
    }
}

fn parse(url: &str) -> Result<(Endpoint, TlsMode, Option<String>), String> {
    if url.is_empty() {
        return Err("is not set, as `redis://cache:6379`".to_owned());
    }
    let Some((scheme, rest)) = url.split_once("://") else {
        return Err("is none of `redis://host`, `rediss://host`, `unix:///path`".to_owned());
    };
    let tls = match scheme {
        "redis" | "unix" => TlsMode::Disable,
        "rediss" => TlsMode::VerifyFull,
        other => return Err(format!("begins with {other}://, which is none of redis, rediss, unix")),
    };
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let mut tls = tls;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("sslmode", mode)) if scheme == "rediss" => tls = checked(mode)?,
            // Not repeated: it may be a part of a password that stands there.
            _ => return Err("has a parameter behind its `?` that nobody knows".to_owned()),
        }
    }
    let (user, place) = match rest.rsplit_once('@') {
        Some((user, place)) => (Some(user), place),
        None => (None, rest),
    };
    if user.is_some_and(|user| user.contains(':')) {
        return Err("holds a password; give it as `password = { file = \"…\" }`".to_owned());
    }
    let user = user.filter(|user| !user.is_empty()).map(percent_decoded).transpose()?;
    if scheme == "unix" {
        let path = percent_decoded(place)?;
        let is_path = path.starts_with('/') && path.len() > 1;
        return if is_path {
            Ok((Endpoint::Unix(path.into()), tls, user))
        } else {
            Err("names no socket, as in `unix:///run/redis/redis.sock`".to_owned())
        };
    }
    let place = place.strip_suffix('/').unwrap_or(place);
    if place.contains('/') {
        return Err("names a database: a backup holds all of them".to_owned());
    }
    let (host, port) = match place.rsplit_once(':') {
        // The colons of an address of version 6 stand within brackets.
        Some((host, port)) if !port.contains(']') => {
            let port = port.parse().map_err(|_| format!("has {port:?} as its port"))?;
            (host, port)
        }
        _ => (place, PORT),
    };
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if host.is_empty() {
        return Err("names no host".to_owned());
    }
    Ok((Endpoint::Tcp { host: percent_decoded(host)?, port }, tls, user))
}

/// With TLS it is never done without.
fn checked(mode: &str) -> Result<TlsMode, String> {
    match mode.parse()? {
        TlsMode::Disable | TlsMode::Prefer => {
            Err(format!("has sslmode={mode} with rediss://, which asks for TLS"))
        }
        mode => Ok(mode),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(url: &str) -> RedisSettings {
        RedisSettings { url: url.to_owned(), ..RedisSettings::default() }
    }

    #[test]
    fn every_form_of_an_address_says_where_and_as_whom() {
        let tcp = |host: &str, port| Endpoint::Tcp { host: host.to_owned(), port };
        for (url, endpoint, tls, user) in [
            ("redis://cache", tcp("cache", 6379), TlsMode::Disable, None),
            ("redis://cache:7000/", tcp("cache", 7000), TlsMode::Disable, None),
            ("redis://back%40up@[::1]:7000", tcp("::1", 7000), TlsMode::Disable, Some("back@up")),
            ("redis://[::1]", tcp("::1", 6379), TlsMode::Disable, None),
            ("rediss://b@cache", tcp("cache", 6379), TlsMode::VerifyFull, Some("b")),
            ("rediss://cache:1?sslmode=verify-ca", tcp("cache", 1), TlsMode::VerifyCa, None),
            ("unix:///run/r.sock", Endpoint::Unix("/run/r.sock".into()), TlsMode::Disable, None),
            ("unix://b@/run/r.sock", Endpoint::Unix("/run/r.sock".into()), TlsMode::Disable, Some("b")),
        ] {
            let address = settings(url).address().unwrap();
            let found = (address.endpoint, address.tls, address.user.as_deref());
            assert_eq!(found, (endpoint, tls, user), "{url}");
        }
    }

    #[test]
    fn what_cannot_be_an_address_is_refused_without_repeating_the_password() {
        for (url, word) in [
            ("", "not set"),
            ("cache:6379", "redis://host"),
            ("http://cache", "http"),
            ("redis://u:hunter2@cache", "password"),
            ("redis://:hunter2@cache", "password"),
            ("redis://", "host"),
            ("redis://cache:x", "port"),
            ("redis://cache/3", "database"),
            ("unix://run/r.sock", "socket"),
            ("redis://cache?password=hunter2", "parameter"),
            ("redis://u:p?hunter2@cache", "parameter"),
            ("rediss://cache?sslmode=prefer", "sslmode"),
        ] {
            let error = settings(url).address().unwrap_err().to_string();
            assert!(error.contains(word) && !error.contains("hunter2"), "{url}: {error}");
        }
    }
}
