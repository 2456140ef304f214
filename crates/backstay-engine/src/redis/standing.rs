//! Where a server stands in its replication: master or replica, of which stream, and whether it
//! follows.
//!
//! Asked of `INFO replication`, which says all that `ROLE` does and the id of the stream as well.

use std::time::Duration;

use tokio::time::timeout;

use super::connection::Connection;
use super::facts::{Info, Role};
use super::settings::Address;
use crate::{Error, Result};

/// Between the connection and the answer. A server that is that slow is none to read from.
const LIMIT: Duration = Duration::from_secs(10);
const ACTION: &str = "ask the server whose data it has";

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Standing {
    pub role: Role,
    pub replication_id: String,
    /// Whether a replica has all that its master had, and gets what comes. Of a master, true.
    pub follows: bool,
}

impl Standing {
    pub async fn ask(connection: &mut Connection) -> Result<Standing> {
        match timeout(LIMIT, Info::ask(connection, ACTION, "replication")).await {
            Ok(info) => Standing::read(&info?),
            Err(_) => Err(Error::Timeout { action: ACTION, seconds: LIMIT.as_secs() }),
        }
    }

    fn read(info: &Info) -> Result<Standing> {
        let role = if info.text("role")? == "master" { Role::Master } else { Role::Replica };
        Ok(Standing {
            role,
            replication_id: info.text("master_replid")?.to_owned(),
            follows: role == Role::Master || info.text("master_link_status")? == "up",
        })
    }
}

/// A server that answered.
pub(super) struct Seen {
    pub address: Address,
    pub connection: Connection,
    pub standing: Standing,
}

impl Seen {
    pub async fn open(address: &Address) -> Result<Seen> {
        let mut connection = Connection::open(address).await?;
        let standing = Standing::ask(&mut connection).await?;
        Ok(Seen { address: address.clone(), connection, standing })
    }

    pub fn server(&self) -> &str {
        self.connection.server()
    }

    pub fn is_good_replica(&self) -> bool {
        self.standing.role == Role::Replica && self.standing.follows
    }

    /// Whether both have the data of one stream.
    ///
    /// Where they differ both are asked once more: between two answers there may have been a failover.
    pub async fn has_the_data_of(&mut self, other: &mut Seen) -> Result<bool> {
        if self.standing.replication_id == other.standing.replication_id {
            return Ok(true);
        }
        other.standing = Standing::ask(&mut other.connection).await?;
        self.standing = Standing::ask(&mut self.connection).await?;
        Ok(self.standing.replication_id == other.standing.replication_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_follows_when_its_link_is_up_and_a_master_always() {
        for (text, role, follows) in [
            ("role:master\r\nmaster_replid:a\r\n", Role::Master, true),
            ("role:slave\r\nmaster_link_status:up\r\nmaster_replid:a\r\n", Role::Replica, true),
            ("role:slave\r\nmaster_link_status:down\r\nmaster_replid:a\r\n", Role::Replica, false),
        ] {
            let expected = Standing { role, replication_id: "a".to_owned(), follows };
            assert_eq!(Standing::read(&Info::parse(text)).unwrap(), expected, "{text}");
        }
        assert!(Standing::read(&Info::parse("role:slave\r\nmaster_replid:a\r\n")).is_err());
    }
}
