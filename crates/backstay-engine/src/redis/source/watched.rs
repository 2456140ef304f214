//! The choice among the servers that Sentinels know.
//!
//! What a Sentinel says is a few seconds old, so each server is asked itself before it is taken:
//! a replica whether it follows and whom, a master whether it is one.

use backstay_model::Finding;

use super::{Choice, ChosenSource, LOST, SourceError, Tried, passed_over, unless_mistaken};
use crate::Result;
use crate::address::Endpoint;
use crate::redis::facts::Role;
use crate::redis::sentinel::{self, Watched};
use crate::redis::settings::Sentinels;
use crate::redis::standing::Seen;

/// How many replicas are tried before the master is taken.
const REPLICAS_MAX: usize = 4;

/// The first Sentinel that knows the name is believed; the next is asked where none of the servers
/// that it names can be taken, as in the midst of a failover.
pub(super) async fn choose(sentinels: &Sentinels) -> Result<ChosenSource> {
    let mut silent: Vec<Tried> = Vec::new();
    let mut tried: Vec<Tried> = Vec::new();
    for address in &sentinels.addresses {
        let watched = match sentinel::ask(address, &sentinels.name).await {
            Ok(watched) => watched,
            Err(error @ crate::Error::Setting { .. }) => return Err(error),
            Err(error) => {
                silent.push(Tried::sentinel_failed(&address.endpoint.to_string(), &error));
                continue;
            }
        };
        match among(sentinels, &watched).await? {
            Ok(mut chosen) => {
                chosen.findings.extend(silent.iter().map(unheard));
                return Ok(chosen);
            }
            // The other Sentinels mostly name the same, for the same reasons.
            Err(failed) => {
                for one in failed {
                    if !tried.contains(&one) {
                        tried.push(one);
                    }
                }
            }
        }
    }
    if tried.is_empty() {
        return Err(SourceError::NoSentinel { name: sentinels.name.clone(), tried: silent }.into());
    }
    tried.extend(silent);
    Err(SourceError::NoSource { tried }.into())
}

/// One of what a Sentinel names, or why none of them.
async fn among(sentinels: &Sentinels, watched: &Watched) -> Result<Result<ChosenSource, Vec<Tried>>> {
    let open = async |place: &Endpoint| unless_mistaken(Seen::open(&sentinels.server(place.clone())).await);
    let failed = |place: &Endpoint, error: &crate::Error| Tried::failed(&place.to_string(), error);
    let mut master = open(&watched.master).await?;
    let unfit = watched.unfit.iter();
    let mut passed: Vec<Tried> =
        unfit.map(|(place, why)| Tried::new(&place.to_string(), why.as_str())).collect();
    for place in watched.replicas.iter().take(REPLICAS_MAX) {
        match open(place).await? {
            Ok(mut replica) => match why_not(&mut replica, &mut master).await {
                Ok(None) => return Ok(Ok(ChosenSource::of(replica, Choice::Replica, Vec::new()))),
                Ok(Some(why)) => passed.push(Tried::new(&place.to_string(), why)),
                Err(error) => passed.push(failed(place, &error)),
            },
            Err(error) => passed.push(failed(place, &error)),
        }
    }
    match master {
        Ok(master) if master.standing.role == Role::Master => {
            let findings = match passed.is_empty() {
                true => vec![no_replica(&sentinels.name)],
                false => passed.iter().map(passed_over).collect(),
            };
            return Ok(Ok(ChosenSource::of(master, Choice::Primary, findings)));
        }
        Ok(_) => passed.push(Tried::new(&watched.master.to_string(), "it says itself that it is no master")),
        Err(error) => passed.push(failed(&watched.master, &error)),
    }
    Ok(Err(passed))
}

/// Nothing where the replica is as good as its Sentinel says. A master that does not answer, or has
/// just become a replica itself, says nothing about it.
async fn why_not(replica: &mut Seen, master: &mut Result<Seen>) -> Result<Option<&'static str>> {
    if let Ok(master) = master
        && master.standing.role == Role::Master
        && replica.is_good_replica()
        && !replica.has_the_data_of(master).await?
    {
        return Ok(Some("it holds other data than the master"));
    }
    Ok(match replica.standing.role {
        Role::Master => Some("it says itself that it is a master"),
        Role::Replica if !replica.standing.follows => Some(LOST),
        Role::Replica => None,
    })
}

fn no_replica(name: &str) -> Finding {
    Finding::info(
        name,
        "the Sentinels know no replica of it, so the master is read",
        format!("`SENTINEL REPLICAS {name}` lists them"),
    )
}

fn unheard(silent: &Tried) -> Finding {
    Finding::warning(
        silent.server.clone(),
        format!("this Sentinel was asked in vain, and another was believed: {silent}"),
        "start it, or take it out of `url` of the instance",
    )
}
