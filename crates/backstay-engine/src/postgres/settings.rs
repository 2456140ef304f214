//! What a person says of one PostgreSQL server, and the address made of it.
//!
//! The address is a libpq connection string. Two of its parameters are ours to
//! understand, since the driver knows neither: `sslmode` with its checking modes,
//! and `sslrootcert`. A password in the address is refused, because addresses are
//! printed and passwords are not.

use std::path::PathBuf;
use std::time::Duration;

use backstay_model::{ByteRate, Secret};
use serde::{Deserialize, Serialize};
use tokio_postgres::config::{Host, SslMode};

use crate::address::{Endpoint, percent_decoded};
use crate::tls::TlsMode;
use crate::{Error, Result};

/// How long a connection may take to be made when the address does not say.
pub const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// How long an ordinary statement may take: all of ours read catalogues.
pub const STATEMENT_LIMIT: Duration = Duration::from_secs(60);
/// How long the server may take for the checkpoint that begins a backup. An
/// immediate checkpoint writes all of `shared_buffers`, on a slow disk for minutes.
pub const CHECKPOINT_LIMIT: Duration = Duration::from_secs(30 * 60);

/// One PostgreSQL server.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PostgresSettings {
    /// Where the server is: `postgresql://backstay@db:5432/postgres` or
    /// `host=/run/postgresql user=backstay`. Parameters as in libpq: `sslmode`
    /// (`disable`, `prefer`, `require`, `verify-ca`, `verify-full`), `sslrootcert`,
    /// `connect_timeout` in seconds.
    pub url: String,
    /// The password of the role in `url`. Filled in by whoever reads the
    /// configuration; it is never part of it in plain text.
    #[serde(skip)]
    pub password: Option<Secret>,
    /// The server's data directory, when it can be read from here: the backup is
    /// then read from the disk by several threads instead of through the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_directory: Option<PathBuf>,
    /// PEM file with the certificates that may sign the server's. The operating
    /// system's when it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ssl_root_certificate: Option<PathBuf>,
    /// Directory of `postgres` and `pg_ctl` for drills. Searched for when it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bin_directory: Option<PathBuf>,
    /// How much a backup may read in a second. Filled in like the password.
    #[serde(skip)]
    pub max_rate: Option<ByteRate>,
}

/// Where and as whom to connect, parsed.
#[derive(Clone)]
pub struct Address {
    pub(crate) config: tokio_postgres::Config,
    pub tls: TlsMode,
    pub root_certificate: Option<PathBuf>,
    pub password: Option<Secret>,
    pub user: String,
    pub connect_limit: Duration,
    /// How much a backup may read in a second.
    pub max_rate: Option<ByteRate>,
}

impl PostgresSettings {
    pub fn address(&self) -> Result<Address> {
        let wrong = |reason: String| Error::Setting { setting: "url", reason };
        let (rest, own) = take_ssl_parameters(&self.url).map_err(wrong)?;
        let mut config: tokio_postgres::Config = rest.parse().map_err(|error: tokio_postgres::Error| {
            // The parser quotes what it stumbled over, never the whole address.
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            wrong(cause.unwrap_or_else(|| error.to_string()))
        })?;
        if config.get_password().is_some() {
            return Err(wrong("holds a password; give it as `password = { file = \"…\" }`".to_owned()));
        }
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(wrong("names no host".to_owned()));
        }
        let user = match config.get_user() {
            Some(user) => user.to_owned(),
            None => return Err(wrong("names no user, as in `postgresql://backstay@host`".to_owned())),
        };
        let tls = match own.mode.as_deref() {
            Some(mode) => mode.parse().map_err(wrong)?,
            None => TlsMode::Prefer,
        };
        config.ssl_mode(match tls {
            TlsMode::Disable => SslMode::Disable,
            TlsMode::Prefer => SslMode::Prefer,
            TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull => SslMode::Require,
        });
        if config.get_dbname().is_none() {
            config.dbname("postgres");
        }
        if let Some(password) = &self.password {
            config.password(password.reveal());
        }
        let connect_limit = config.get_connect_timeout().copied().unwrap_or(CONNECT_LIMIT);
        config.connect_timeout(connect_limit).application_name("backstay");
        Ok(Address {
            config,
            tls,
            root_certificate: self.ssl_root_certificate.clone().or(own.root.map(PathBuf::from)),
            password: self.password.clone(),
            user,
            connect_limit,
            max_rate: self.max_rate,
        })
    }
}

impl Address {
    /// The places to try, in order.
    pub fn endpoints(&self) -> Vec<Endpoint> {
        let ports = self.config.get_ports();
        let port = |index: usize| match ports {
            [] => 5432,
            [one] => *one,
            many => many.get(index).copied().unwrap_or(5432),
        };
        let hosts = self.config.get_hosts();
        if hosts.is_empty() {
            let addresses = self.config.get_hostaddrs().iter().enumerate();
            return addresses
                .map(|(index, address)| Endpoint::Tcp { host: address.to_string(), port: port(index) })
                .collect();
        }
        let named = hosts.iter().enumerate();
        named
            .map(|(index, host)| match host {
                Host::Tcp(name) => Endpoint::Tcp { host: name.clone(), port: port(index) },
                Host::Unix(directory) => Endpoint::Unix(directory.join(format!(".s.PGSQL.{}", port(index)))),
            })
            .collect()
    }

    /// The places as a person writes them, for messages.
    pub fn describe(&self) -> String {
        let texts: Vec<String> = self.endpoints().iter().map(ToString::to_string).collect();
        texts.join(", ")
    }

    pub fn database(&self) -> &str {
        self.config.get_dbname().unwrap_or("postgres")
    }

    /// The same server, another database.
    pub fn with_database(&self, database: &str) -> Address {
        let mut other = self.clone();
        other.config.dbname(database);
        other
    }
}

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Address({}@{}/{})", self.user, self.describe(), self.database())
    }
}

#[derive(Default)]
struct SslParameters {
    mode: Option<String>,
    root: Option<String>,
}

impl SslParameters {
    /// Keeps the parameter when it is ours.
    fn take(&mut self, key: &str, value: &str) -> bool {
        match key {
            "sslmode" => self.mode = Some(value.to_owned()),
            "sslrootcert" => self.root = Some(value.to_owned()),
            _ => return false,
        }
        true
    }
}

/// Splits `sslmode` and `sslrootcert` off either form of a connection string.
fn take_ssl_parameters(url: &str) -> Result<(String, SslParameters), String> {
    let mut own = SslParameters::default();
    if url.starts_with("postgresql://") || url.starts_with("postgres://") {
        let Some((base, query)) = url.split_once('?') else { return Ok((url.to_owned(), own)) };
        let mut kept = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            if !own.take(key, &percent_decoded(value)?) {
                kept.push(pair);
            }
        }
        let rest = if kept.is_empty() { base.to_owned() } else { format!("{base}?{}", kept.join("&")) };
        return Ok((rest, own));
    }
    let mut kept = String::new();
    for (key, value) in key_value_pairs(url)? {
        if !own.take(&key, &value) {
            let quoted = value.replace('\\', "\\\\").replace('\'', "\\'");
            kept.push_str(&format!("{key}='{quoted}' "));
        }
    }
    Ok((kept, own))
}

/// The `key = 'value'` form: blanks around `=` allowed, `\` escapes, `'` quotes.
fn key_value_pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut pairs = Vec::new();
    let mut letters = text.chars().peekable();
    loop {
        while letters.next_if(|c| c.is_whitespace()).is_some() {}
        if letters.peek().is_none() {
            return Ok(pairs);
        }
        let mut key = String::new();
        while let Some(letter) = letters.next_if(|c| !c.is_whitespace() && *c != '=') {
            key.push(letter);
        }
        while letters.next_if(|c| c.is_whitespace()).is_some() {}
        if letters.next() != Some('=') {
            return Err(format!("has no value for {key:?}"));
        }
        while letters.next_if(|c| c.is_whitespace()).is_some() {}
        let quoted = letters.next_if_eq(&'\'').is_some();
        let mut value = String::new();
        loop {
            match letters.next() {
                Some('\\') => value.extend(letters.next()),
                Some('\'') if quoted => break,
                Some(letter) if !quoted && letter.is_whitespace() => break,
                Some(letter) => value.push(letter),
                None if quoted => return Err(format!("has no closing quote after {key:?}")),
                None => break,
            }
        }
        pairs.push((key, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(url: &str) -> PostgresSettings {
        PostgresSettings { url: url.to_owned(), ..PostgresSettings::default() }
    }

    #[test]
    fn both_forms_of_an_address_mean_the_same() {
        let forms = [
            "postgresql://backstay@db:5433/app?sslmode=verify-full&sslrootcert=%2Fetc%2Fca.pem",
            "host=db port = 5433 user=backstay dbname='app' sslmode=verify-full sslrootcert='/etc/ca.pem'",
        ];
        for form in forms {
            let address = settings(form).address().unwrap();
            assert_eq!(address.endpoints(), [Endpoint::Tcp { host: "db".into(), port: 5433 }], "{form}");
            assert_eq!(address.tls, TlsMode::VerifyFull);
            assert_eq!(address.root_certificate, Some(PathBuf::from("/etc/ca.pem")));
            assert_eq!(address.user, "backstay");
            assert_eq!(address.database(), "app");
        }
    }

    #[test]
    fn a_directory_as_host_is_a_unix_socket() {
        let address = settings("host=/run/postgresql user=b connect_timeout=3").address().unwrap();
        assert_eq!(address.describe(), "/run/postgresql/.s.PGSQL.5432");
        assert_eq!(address.connect_limit, Duration::from_secs(3));
        let address = settings("postgresql://b@%2Frun%2Fpostgresql:5434/x").address().unwrap();
        assert_eq!(address.describe(), "/run/postgresql/.s.PGSQL.5434");
    }

    #[test]
    fn what_cannot_be_an_address_is_refused_without_repeating_the_password() {
        for (url, word) in [
            ("postgresql://b:hunter2@db/x", "password"),
            ("host=db user=b password=hunter2", "password"),
            ("postgresql://db/x", "user"),
            ("user=b", "host"),
            ("host=db user=b sslmode=sometimes", "sslmode"),
            ("host=db user=b colour=red", "colour"),
            ("host=db user", "user"),
        ] {
            let error = settings(url).address().unwrap_err().to_string();
            assert!(error.contains(word), "{url}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
