//! What a server of Redis, its archive and the way between them suffer.

use std::fmt::{self, Display};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    KillServer,
    RestartServer,
    KillArchive,
    RestartArchive,
    KillBoth,
    Stall,
    Cut,
    KillClient,
    FullSpool,
    FullStore,
    FullStoreAndKillArchive,
    Overrun,
    OverrunOfBuffer,
    NewStream,
    NewStreamAndKillArchive,
    Flood,
    Snapshot,
    SwitchOver,
    FailOver,
    Backup,
    Collect,
}

impl Fault {
    pub const ALL: &[Fault] = &[
        Fault::KillServer,
        Fault::RestartServer,
        Fault::KillArchive,
        Fault::RestartArchive,
        Fault::KillBoth,
        Fault::Stall,
        Fault::Cut,
        Fault::KillClient,
        Fault::FullSpool,
        Fault::FullStore,
        Fault::FullStoreAndKillArchive,
        Fault::Overrun,
        Fault::OverrunOfBuffer,
        Fault::NewStream,
        Fault::NewStreamAndKillArchive,
        Fault::Flood,
        Fault::Snapshot,
        Fault::SwitchOver,
        Fault::FailOver,
        Fault::Backup,
        Fault::Collect,
    ];

    pub fn is_about_disks(self) -> bool {
        matches!(self, Fault::FullSpool | Fault::FullStore | Fault::FullStoreAndKillArchive)
    }
}

impl Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fault::KillServer => "kill -9 of the server",
            Fault::RestartServer => "restart of the server in order",
            Fault::KillArchive => "kill -9 of the archive",
            Fault::RestartArchive => "restart of the archive",
            Fault::KillBoth => "kill -9 of both",
            Fault::Stall => "the way hangs",
            Fault::Cut => "the way is cut",
            Fault::KillClient => "the server ends the connections of its replicas",
            Fault::FullSpool => "the disk of the spool is full",
            Fault::FullStore => "the disk of the store is full",
            Fault::FullStoreAndKillArchive => "the disk of the store is full, and kill -9 of the archive",
            Fault::Overrun => "the archive is away for longer than the server remembers",
            Fault::OverrunOfBuffer => "the way hangs for longer than the server waits",
            Fault::NewStream => "the server begins another stream",
            Fault::NewStreamAndKillArchive => "the server begins another stream, and kill -9 within its base",
            Fault::Flood => "more than one span holds",
            Fault::Snapshot => "the server saves",
            Fault::SwitchOver => "switchover: the server stops, its replica takes over",
            Fault::FailOver => "failover: kill -9 of the server, its replica takes over",
            Fault::Backup => "a base",
            Fault::Collect => "a collection",
        })
    }
}
