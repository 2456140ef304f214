//! Where the data is taken from: a replica where the settings name one or Sentinels know one, else
//! the primary.
//!
//! A snapshot makes a server fork, which a primary under load should be spared. But a base of the
//! primary is better than none: a replica that is away, that lets nobody in or that has lost its
//! master costs a finding, and the primary is taken.
//!
//! Invariant: a replica is taken only where its stream has the id of the primary's, or where nobody
//! answers who could say otherwise, which is a finding. Refuses a replica of other data: a person
//! who names one has made a mistake that no fall-back should hide.

mod error;
mod watched;

use backstay_model::Finding;

use super::connection::Connection;
use super::facts::Role;
use super::settings::{Address, Addresses, RedisSettings};
use super::standing::Seen;
use crate::{Error, Result};
pub use error::{SourceError, Tried};

/// Why this server was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// It is the only one that the settings name, whatever it is.
    Only,
    /// It is a replica, as the settings ask for.
    Replica,
    /// It is the primary, for want of a replica; the findings say why.
    Primary,
}

/// A server to take data from, connected and logged in.
pub struct ChosenSource {
    /// Leads to the same server again, for a second connection.
    pub address: Address,
    pub connection: Connection,
    pub choice: Choice,
    /// What a person should know of the choice.
    pub findings: Vec<Finding>,
}

impl ChosenSource {
    fn of(seen: Seen, choice: Choice, findings: Vec<Finding>) -> ChosenSource {
        ChosenSource { address: seen.address, connection: seen.connection, choice, findings }
    }
}

/// Chooses a server and connects to it.
///
/// # Errors
///
/// [`Error::Setting`]; what keeps the only server from answering; [`SourceError::OtherData`] and
/// [`SourceError::ReplicaIsMaster`] for a replica that is none of the instance's;
/// [`SourceError::NoSentinel`], [`SourceError::NoSource`] where nobody is left.
pub async fn choose(settings: &RedisSettings) -> Result<ChosenSource> {
    match settings.addresses()? {
        Addresses::Servers { primary: address, replica: None } => {
            let connection = Connection::open(&address).await?;
            Ok(ChosenSource { address, connection, choice: Choice::Only, findings: Vec::new() })
        }
        Addresses::Servers { primary, replica: Some(replica) } => of_two(&primary, &replica).await,
        Addresses::Sentinels(sentinels) => watched::choose(&sentinels).await,
    }
}

async fn of_two(primary: &Address, replica: &Address) -> Result<ChosenSource> {
    let (at_primary, at_replica) = (primary.endpoint.to_string(), replica.endpoint.to_string());
    let replica = unless_mistaken(Seen::open(replica).await)?;
    let primary = unless_mistaken(Seen::open(primary).await)?;
    let (mut replica, mut primary) = match (replica, primary) {
        (Ok(replica), Ok(primary)) => (replica, primary),
        (Err(error), Ok(primary)) => {
            let findings = vec![passed_over(&Tried::failed(&at_replica, &error))];
            return Ok(ChosenSource::of(primary, Choice::Primary, findings));
        }
        (Ok(replica), Err(error)) => return alone(replica, &at_primary, error),
        (Err(of_replica), Err(of_primary)) => {
            let tried =
                vec![Tried::failed(&at_replica, &of_replica), Tried::failed(&at_primary, &of_primary)];
            return Err(SourceError::NoSource { tried }.into());
        }
    };
    if !replica.standing.follows {
        // Its id is of before, and need not be the primary's any more.
        let findings = vec![passed_over(&Tried::new(&at_replica, LOST))];
        return Ok(ChosenSource::of(primary, Choice::Primary, findings));
    }
    match (replica.standing.role, replica.has_the_data_of(&mut primary).await?) {
        (Role::Replica, true) => Ok(ChosenSource::of(replica, Choice::Replica, Vec::new())),
        (Role::Master, true) => Ok(exchanged(primary, replica)),
        (Role::Replica, false) if !primary.standing.follows => {
            let findings = vec![not_compared(&at_replica, &Tried::new(&at_primary, LOST))];
            Ok(ChosenSource::of(replica, Choice::Replica, findings))
        }
        (_, false) => Err(SourceError::OtherData {
            replica: at_replica,
            replica_id: replica.standing.replication_id,
            primary: at_primary,
            primary_id: primary.standing.replication_id,
        }
        .into()),
    }
}

const LOST: &str = "its link to its master is down";

/// A replica whose primary does not answer.
fn alone(replica: Seen, at_primary: &str, error: Error) -> Result<ChosenSource> {
    let at_replica = replica.server().to_owned();
    if replica.standing.role == Role::Master {
        let (primary, source) = (at_primary.to_owned(), Box::new(error));
        return Err(SourceError::ReplicaIsMaster { replica: at_replica, primary, source }.into());
    }
    let unseen = Tried::failed(at_primary, &error);
    if !replica.standing.follows {
        let tried = vec![Tried::new(&at_replica, LOST), unseen];
        return Err(SourceError::NoSource { tried }.into());
    }
    let findings = vec![not_compared(&at_replica, &unseen)];
    Ok(ChosenSource::of(replica, Choice::Replica, findings))
}

fn not_compared(at_replica: &str, primary: &Tried) -> Finding {
    Finding::warning(
        primary.server.clone(),
        format!("nobody could tell whether {at_replica} is a replica of the primary: {primary}"),
        "`backstay config check --connect` asks it again",
    )
}

/// After a failover what is called the replica in the settings is the master of the other.
fn exchanged(primary: Seen, replica: Seen) -> ChosenSource {
    let finding = Finding::warning(
        replica.server(),
        format!("the replica is the master now, and {} a replica of it", primary.server()),
        "exchange `url` and `replica` of the instance",
    );
    match primary.is_good_replica() {
        true => ChosenSource::of(primary, Choice::Replica, vec![finding]),
        false => {
            let lost = passed_over(&Tried::new(primary.server(), LOST));
            ChosenSource::of(replica, Choice::Primary, vec![finding, lost])
        }
    }
}

/// What a wrong setting does to one server it does to all, and it does not pass.
fn unless_mistaken(seen: Result<Seen>) -> Result<Result<Seen>> {
    match seen {
        Err(error @ Error::Setting { .. }) => Err(error),
        seen => Ok(seen),
    }
}

fn passed_over(tried: &Tried) -> Finding {
    Finding::warning(
        tried.server.clone(),
        format!("the primary is read in place of the replica: {tried}"),
        "`INFO replication` of the replica says whether it follows; `backstay config check --connect` tries it again",
    )
}
