//! The forms of an address: `redis://`, `rediss://`, `unix://`, `sentinel://`, `sentinels://`.
//!
//! Refuses with a text that goes on from the name of the setting, and that repeats nothing which
//! may be a password.

use crate::address::{Endpoint, percent_decoded};
use crate::tls::TlsMode;

const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

pub(super) struct Parsed {
    pub place: Place,
    pub tls: TlsMode,
    pub user: Option<String>,
}

pub(super) enum Place {
    Server(Endpoint),
    Sentinels { endpoints: Vec<Endpoint>, name: String },
}

pub(super) fn parse(url: &str) -> Result<Parsed, String> {
    if url.is_empty() {
        return Err("is not set, as `redis://cache:6379`".to_owned());
    }
    let Some((scheme, rest)) = url.split_once("://") else {
        return Err(
            "is none of `redis://host`, `rediss://host`, `unix:///path`, `sentinel://host/name`".to_owned()
        );
    };
    let has_tls = matches!(scheme, "rediss" | "sentinels");
    if !has_tls && !matches!(scheme, "redis" | "unix" | "sentinel") {
        return Err(format!(
            "begins with {scheme}://, which is none of redis, rediss, unix, sentinel, sentinels"
        ));
    }
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let mut tls = if has_tls { TlsMode::VerifyFull } else { TlsMode::Disable };
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("sslmode", mode)) if has_tls => tls = checked(mode, scheme)?,
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
    let place = match scheme {
        "unix" => Place::Server(socket(place)?),
        "sentinel" | "sentinels" => sentinels(place)?,
        _ => {
            let place = place.strip_suffix('/').unwrap_or(place);
            if place.contains('/') {
                return Err("names a database: a backup holds all of them".to_owned());
            }
            if place.contains(',') {
                return Err("names several hosts, which only `sentinel://` does".to_owned());
            }
            Place::Server(host_and_port(place, PORT)?)
        }
    };
    Ok(Parsed { place, tls, user })
}

fn socket(place: &str) -> Result<Endpoint, String> {
    let path = percent_decoded(place)?;
    match path.starts_with('/') && path.len() > 1 {
        true => Ok(Endpoint::Unix(path.into())),
        false => Err("names no socket, as in `unix:///run/redis/redis.sock`".to_owned()),
    }
}

fn sentinels(place: &str) -> Result<Place, String> {
    let (hosts, name) = place.split_once('/').unwrap_or((place, ""));
    if name.is_empty() || name.contains('/') {
        return Err(
            "does not end with the name that the Sentinels know, as `sentinel://host:26379/mymaster`".into(),
        );
    }
    let endpoints =
        hosts.split(',').map(|host| host_and_port(host, SENTINEL_PORT)).collect::<Result<_, _>>()?;
    Ok(Place::Sentinels { endpoints, name: percent_decoded(name)? })
}

fn host_and_port(place: &str, usual: u16) -> Result<Endpoint, String> {
    let (host, port) = match place.rsplit_once(':') {
        // The colons of an address of version 6 stand within brackets.
        Some((host, port)) if !port.contains(']') => {
            let port = port.parse().map_err(|_| format!("has {port:?} as its port"))?;
            (host, port)
        }
        _ => (place, usual),
    };
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if host.is_empty() {
        return Err("names no host".to_owned());
    }
    Ok(Endpoint::Tcp { host: percent_decoded(host)?, port })
}

/// With TLS it is never done without.
fn checked(mode: &str, scheme: &str) -> Result<TlsMode, String> {
    match mode.parse()? {
        TlsMode::Disable | TlsMode::Prefer => {
            Err(format!("has sslmode={mode} with {scheme}://, which asks for TLS"))
        }
        mode => Ok(mode),
    }
}
