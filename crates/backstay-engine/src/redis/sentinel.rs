//! What a Sentinel knows of a master and its replicas.
//!
//! Refuses as a candidate whatever is only in its list: replicas that are away, that have lost
//! their master, and those that listen nowhere, which were backups of a master.

use std::time::Duration;

use tokio::time::timeout;

use super::connection::Connection;
use super::reply::Reply;
use super::settings::Address;
use super::source::SourceError;
use crate::address::Endpoint;
use crate::{Error, Result};

const ACTION: &str = "ask the Sentinel";
/// From the connection to the last answer: there may be another that answers.
const LIMIT: Duration = Duration::from_secs(5);

/// What one of them says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Watched {
    pub master: Endpoint,
    /// Those in good order, the best first.
    pub replicas: Vec<Endpoint>,
    /// The others that could be one, with what is wrong with them.
    pub unfit: Vec<(Endpoint, String)>,
}

/// # Errors
///
/// [`SourceError::NameUnknown`], [`SourceError::NotASentinel`], and what keeps it from answering.
pub(super) async fn ask(address: &Address, name: &str) -> Result<Watched> {
    match timeout(LIMIT, answers(address, name)).await {
        Ok(answer) => answer,
        Err(_) => Err(Error::Timeout { action: ACTION, seconds: LIMIT.as_secs() }),
    }
}

async fn answers(address: &Address, name: &str) -> Result<Watched> {
    let mut connection = Connection::open(address).await?;
    let server = connection.server().to_owned();
    let asked = connection.call(ACTION, &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", name]).await;
    let place = match asked {
        // A server of data has no such command.
        Err(Error::Redis(error)) if error.is_unknown_command() => {
            return Err(SourceError::NotASentinel { server }.into());
        }
        asked => asked?.array().unwrap_or_default(),
    };
    let [host, port] = place.as_slice() else {
        let masters = connection.call(ACTION, &["SENTINEL", "MASTERS"]).await?.array().unwrap_or_default();
        let known = masters.into_iter().filter_map(|master| field(&pairs(master), "name")).collect();
        return Err(SourceError::NameUnknown { server, name: name.to_owned(), known }.into());
    };
    let place = host.text().zip(port.text()).and_then(|(host, port)| endpoint(host, &port));
    let master = place.ok_or_else(|| Error::Protocol { reason: "a Sentinel names no place".to_owned() })?;
    let replicas = connection.call(ACTION, &["SENTINEL", "REPLICAS", name]).await?;
    let replicas = replicas.array().unwrap_or_default().into_iter().map(pairs).collect();
    Ok(sorted(master, replicas))
}

type Pairs = Vec<(String, String)>;

/// Names and values take turns.
fn pairs(reply: Reply) -> Pairs {
    let parts = reply.array().unwrap_or_default();
    parts.chunks(2).filter_map(|pair| Some((pair.first()?.text()?, pair.get(1)?.text()?))).collect()
}

fn field(pairs: &Pairs, wanted: &str) -> Option<String> {
    pairs.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.clone())
}

/// Nothing where nobody listens.
fn endpoint(host: String, port: &str) -> Option<Endpoint> {
    let port = port.parse().ok().filter(|port| *port != 0)?;
    (!host.is_empty()).then_some(Endpoint::Tcp { host, port })
}

fn sorted(master: Endpoint, replicas: Vec<Pairs>) -> Watched {
    let mut fit = Vec::new();
    let mut unfit = Vec::new();
    for replica in replicas {
        let text = |name: &str| field(&replica, name).unwrap_or_default();
        let Some(place) = endpoint(text("ip"), &text("port")) else { continue };
        let flags = text("flags");
        let away = ["s_down", "o_down", "disconnected"]
            .into_iter()
            .find(|bad| flags.split(',').any(|flag| flag == *bad));
        let link = text("master-link-status");
        match away {
            Some(flag) => unfit.push((place, format!("the Sentinel says that it is away (`{flag}`)"))),
            None if link != "ok" => unfit.push((place, "it has lost its master".to_owned())),
            None => {
                // One that shall never be promoted is there for such work; then the one that is the least behind.
                let may_be_promoted = text("slave-priority") != "0";
                let offset = text("slave-repl-offset").parse::<u64>().unwrap_or(0);
                fit.push((may_be_promoted, std::cmp::Reverse(offset), place));
            }
        }
    }
    fit.sort_by_key(|(may_be_promoted, offset, _)| (*may_be_promoted, *offset));
    Watched { master, replicas: fit.into_iter().map(|(_, _, place)| place).collect(), unfit }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(port: u16) -> Endpoint {
        Endpoint::Tcp { host: "10.0.0.1".to_owned(), port }
    }

    fn listed(port: &str, flags: &str, link: &str, priority: &str, offset: &str) -> Pairs {
        let pairs = [
            ("ip", "10.0.0.1"),
            ("port", port),
            ("flags", flags),
            ("master-link-status", link),
            ("slave-priority", priority),
            ("slave-repl-offset", offset),
        ];
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()
    }

    #[test]
    fn the_replica_that_is_never_promoted_comes_first_and_a_backup_is_none() {
        let watched = sorted(
            place(1),
            vec![
                listed("2", "slave", "ok", "100", "50"),
                listed("3", "slave", "ok", "100", "70"),
                listed("4", "slave", "ok", "0", "10"),
                listed("5", "s_down,slave,disconnected", "err", "100", "90"),
                listed("6", "slave", "err", "100", "90"),
                listed("0", "slave", "ok", "0", "99"),
                listed("0", "s_down,slave,disconnected", "err", "100", "0"),
            ],
        );
        assert_eq!(watched.replicas, [place(4), place(3), place(2)]);
        let unfit: Vec<_> = watched.unfit.iter().map(|(place, why)| (place.clone(), why.as_str())).collect();
        let away = "the Sentinel says that it is away (`s_down`)";
        assert_eq!(unfit, [(place(5), away), (place(6), "it has lost its master")]);
    }
}
