//! What a person says of one Redis or Valkey server, and the addresses made of it.
//!
//! A password in an address is refused, because addresses are printed and passwords are not.

mod url;

use std::path::PathBuf;
use std::time::Duration;

use backstay_model::{ByteRate, Secret};

use crate::address::Endpoint;
use crate::tls::{OwnCertificate, Tls, TlsMode};
use crate::{Error, Result};
use url::{Parsed, Place};

/// How long connecting, the handshake and the log-in may take together.
pub const CONNECT_LIMIT: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Default)]
pub struct RedisSettings {
    /// `redis://cache:6379`, `rediss://backup@cache` with TLS, `unix:///run/redis/redis.sock`, or Sentinels:
    /// `sentinel://backup@one:26379,two:26379/mymaster`, and `sentinels://…` with TLS.
    pub url: String,
    pub password: Option<Secret>,
    /// A replica of what `url` leads to, in the forms of one server.
    pub replica: Option<String>,
    /// Of the Sentinels' own access list: they know nothing of their servers' users.
    pub sentinel_user: Option<String>,
    pub sentinel_password: Option<Secret>,
    /// PEM file with the certificates that may sign the server's.
    pub ssl_root_certificate: Option<PathBuf>,
    /// PEM files of what is shown to a server that wants a certificate of its clients.
    pub ssl_certificate: Option<PathBuf>,
    pub ssl_key: Option<PathBuf>,
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
    pub own_certificate: Option<OwnCertificate>,
    /// The user of the access list; `default` when none is named.
    pub user: Option<String>,
    pub password: Option<Secret>,
    pub connect_limit: Duration,
}

/// Who is asked for data.
#[derive(Debug, Clone)]
pub enum Addresses {
    Servers { primary: Address, replica: Option<Address> },
    Sentinels(Sentinels),
}

/// Who knows where the data is.
#[derive(Debug, Clone)]
pub struct Sentinels {
    pub addresses: Vec<Address>,
    /// What they call it.
    pub name: String,
    /// Everything but the place of the servers that they name.
    server: Address,
}

impl Address {
    /// Nothing where none is asked for.
    pub(super) fn tls(&self) -> Result<Option<Tls>> {
        Tls::new(self.tls, self.root_certificate.as_deref(), self.own_certificate.as_ref())
    }
}

impl Sentinels {
    /// One of the servers that a Sentinel names.
    pub fn server(&self, endpoint: Endpoint) -> Address {
        Address { endpoint, ..self.server.clone() }
    }
}

impl RedisSettings {
    /// Everything that the settings lead to.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] for what is no address, or contradicts another.
    pub fn addresses(&self) -> Result<Addresses> {
        let Parsed { place, tls, user } = read("url", &self.url)?;
        let own_certificate = self.own_certificate()?;
        let address = |endpoint, tls, user: Option<String>| Address {
            endpoint,
            tls,
            root_certificate: self.ssl_root_certificate.clone(),
            own_certificate: own_certificate.clone(),
            user,
            password: self.password.clone(),
            connect_limit: CONNECT_LIMIT,
        };
        let refuse = |setting, reason: &str| Err(Error::Setting { setting, reason: reason.to_owned() });
        let (endpoints, name) = match place {
            Place::Server(_) if self.sentinel_user.is_some() || self.sentinel_password.is_some() => {
                return refuse("url", "names no Sentinels, and there is a user or a password for them");
            }
            Place::Server(endpoint) => {
                let replica = match &self.replica {
                    None => None,
                    Some(replica) => {
                        let other = read("replica", replica)?;
                        let Place::Server(endpoint) = other.place else {
                            return refuse("replica", "names Sentinels: they belong into `url`");
                        };
                        // One password is given, so it is that of one user.
                        Some(address(endpoint, other.tls, other.user.or_else(|| user.clone())))
                    }
                };
                return Ok(Addresses::Servers { primary: address(endpoint, tls, user), replica });
            }
            Place::Sentinels { .. } if self.replica.is_some() => {
                return refuse("replica", "is what the Sentinels in `url` choose: leave it out");
            }
            Place::Sentinels { .. } if self.sentinel_user.is_some() && self.sentinel_password.is_none() => {
                return refuse("sentinel_password", "is not set, and `sentinel_user` is");
            }
            Place::Sentinels { endpoints, name } => (endpoints, name),
        };
        let sentinel = |endpoint: &Endpoint| Address {
            password: self.sentinel_password.clone(),
            ..address(endpoint.clone(), tls, self.sentinel_user.clone())
        };
        let addresses: Vec<Address> = endpoints.iter().map(sentinel).collect();
        // The place is another's each time.
        let anywhere = Endpoint::Tcp { host: String::new(), port: 0 };
        Ok(Addresses::Sentinels(Sentinels { addresses, name, server: address(anywhere, tls, user) }))
    }

    /// The one server that `url` leads to.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] for what is no address, and for Sentinels, who have to be asked first
    /// ([`super::source::choose`]).
    pub fn address(&self) -> Result<Address> {
        match self.addresses()? {
            Addresses::Servers { primary, .. } => Ok(primary),
            Addresses::Sentinels(_) => Err(Error::Setting {
                setting: "url",
                reason: "names Sentinels, and one server is needed".to_owned(),
            }),
        }
    }

    /// Whether everything that is named makes sense and can be read. Asks nobody.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] for an address that is none, and for a certificate or a key that is not in its file.
    pub fn check(&self) -> Result<()> {
        let addresses = match self.addresses()? {
            Addresses::Servers { primary, replica } => vec![Some(primary), replica],
            Addresses::Sentinels(sentinels) => vec![Some(sentinels.server)],
        };
        addresses.iter().flatten().try_for_each(|address| address.tls().map(|_| ()))
    }

    fn own_certificate(&self) -> Result<Option<OwnCertificate>> {
        let lacks = |setting, other: &str| {
            Err(Error::Setting { setting, reason: format!("is not set, and `{other}` is") })
        };
        match (&self.ssl_certificate, &self.ssl_key) {
            (None, None) => Ok(None),
            (Some(certificate), Some(key)) => {
                Ok(Some(OwnCertificate { certificate: certificate.clone(), key: key.clone() }))
            }
            (None, Some(_)) => lacks("ssl_certificate", "ssl_key"),
            (Some(_), None) => lacks("ssl_key", "ssl_certificate"),
        }
    }
}

fn read(setting: &'static str, url: &str) -> Result<Parsed> {
    url::parse(url).map_err(|reason| Error::Setting { setting, reason })
}

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Address({}@{})", self.user.as_deref().unwrap_or("default"), self.endpoint)
    }
}

#[cfg(test)]
mod tests;
