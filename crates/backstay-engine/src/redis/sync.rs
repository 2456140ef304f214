//! A full synchronisation: the snapshot of a server, as its replicas get it.
//!
//! The server says at which offset of its stream the snapshot was begun. It holds exactly what
//! the stream up to there had made; what comes behind belongs to the stream.
//!
//! To its server this is one more replica for that time: `INFO replication` of a master lists it, and a
//! Sentinel that reads so keeps it in its own list, with port 0 and as one that is away, until somebody
//! runs `SENTINEL RESET`. It could never be promoted. Of the replicas of a replica no Sentinel hears.
//!
//! Invariant: a snapshot has ended when the server says so, by its length or by the mark that it
//! announced. A connection that ends before is an error.

use std::time::Duration;

use bytes::Bytes;

use super::aux_fields::{AuxFields, HEAD_BYTES};
use super::connection::Connection;
use super::error::RedisError;
use super::reply::Reply;
use super::stream::StreamReceiver;
use crate::{Error, Result};

const ACTION: &str = "ask for a full synchronisation";
const RECEIVE: &str = "receive the snapshot";
/// A server that writes its snapshot to its disk first says `\n` each second; one that waits for
/// another child of its own as well.
const SILENCE: Duration = Duration::from_secs(60);
const MARK_BYTES: usize = 40;
/// What is handed on at once.
const PIECE: usize = 256 << 10;

/// A place in the stream of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamPlace {
    /// Forty hexadecimal digits. Offsets of another one are of another stream.
    pub replication_id: String,
    /// Bytes that came before.
    pub offset: u64,
}

/// A snapshot on its way.
pub struct FullSync {
    connection: Connection,
    pub place: StreamPlace,
    received: u64,
    /// What says in which database the stream goes on.
    head: Vec<u8>,
    rest: Rest,
}

/// What is to come.
enum Rest {
    Unknown,
    Bytes(u64),
    Until([u8; MARK_BYTES]),
    Nothing,
}

impl FullSync {
    /// Asks for a snapshot, and for nothing behind it: the server keeps no stream for us.
    ///
    /// # Errors
    ///
    /// [`RedisError::Refused`] where the user may not, or a replica has lost its master.
    pub async fn begin(mut connection: Connection) -> Result<FullSync> {
        introduce(&mut connection).await?;
        connection.call(ACTION, &["REPLCONF", "rdb-only", "1"]).await?;
        match psync(&mut connection, "?", "-1").await? {
            Answer::Full(place) => Ok(FullSync::of(connection, place)),
            Answer::Continues(_) => Err(Error::Protocol { reason: "nothing was to be continued".to_owned() }),
        }
    }

    fn of(connection: Connection, place: StreamPlace) -> FullSync {
        FullSync { connection, place, received: 0, head: Vec::new(), rest: Rest::Unknown }
    }

    /// What follows the snapshot, of a synchronisation that was [attached](attach).
    ///
    /// # Errors
    ///
    /// Before its end.
    pub fn into_stream(self) -> Result<StreamReceiver> {
        match self.rest {
            Rest::Nothing => {
                let database = AuxFields::of(&self.head).selected_database().unwrap_or(0);
                Ok(StreamReceiver::new(self.connection, self.place, database))
            }
            _ => Err(Error::Protocol { reason: "the stream begins behind the snapshot".to_owned() }),
        }
    }

    /// The next piece; nothing behind the last.
    ///
    /// # Errors
    ///
    /// [`RedisError::SnapshotBroken`] where the connection ends first.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        if matches!(self.rest, Rest::Unknown) {
            self.rest = self.announced().await.map_err(|error| self.broken(error))?;
        }
        loop {
            let held = self.connection.incoming();
            match self.rest {
                Rest::Unknown | Rest::Nothing | Rest::Bytes(0) => {
                    self.rest = Rest::Nothing;
                    return Ok(None);
                }
                Rest::Bytes(left) if !held.is_empty() => {
                    let length = held.len().min(PIECE).min(usize::try_from(left).unwrap_or(PIECE));
                    let piece = held.split_to(length).freeze();
                    self.rest = Rest::Bytes(left - piece.len() as u64);
                    return Ok(Some(self.count(piece)));
                }
                Rest::Until(mark) if held.ends_with(&mark) => {
                    // Nothing follows it before this side says that it has all.
                    let piece = held.split_to(held.len() - MARK_BYTES).freeze();
                    held.clear();
                    self.rest = Rest::Nothing;
                    return Ok(Some(self.count(piece)).filter(|piece| !piece.is_empty()));
                }
                // The last bytes may be the beginning of the mark.
                Rest::Until(_) if held.len() > MARK_BYTES => {
                    let length = (held.len() - MARK_BYTES).min(PIECE);
                    let piece = held.split_to(length).freeze();
                    return Ok(Some(self.count(piece)));
                }
                Rest::Bytes(_) | Rest::Until(_) => {}
            }
            let read = self.connection.read_more(RECEIVE, SILENCE).await;
            read.map_err(|error| self.broken(error))?;
        }
    }

    fn broken(&self, error: Error) -> Error {
        match error {
            Error::ConnectionLost { .. } => RedisError::SnapshotBroken { received: self.received }.into(),
            error => error,
        }
    }

    pub fn received(&self) -> u64 {
        self.received
    }

    fn count(&mut self, piece: Bytes) -> Bytes {
        let room = HEAD_BYTES.saturating_sub(self.head.len());
        self.head.extend_from_slice(piece.get(..room.min(piece.len())).unwrap_or_default());
        self.received += piece.len() as u64;
        piece
    }

    /// `$1234`, or `$EOF:` and a mark.
    async fn announced(&mut self) -> Result<Rest> {
        skip_newlines(&mut self.connection, RECEIVE).await?;
        let line = loop {
            let held = self.connection.incoming();
            if let Some(end) = memchr::memchr(b'\n', held) {
                break held.split_to(end + 1).freeze();
            }
            if held.len() > MARK_BYTES * 2 {
                return Err(Error::Protocol { reason: "a snapshot was to be announced".to_owned() });
            }
            self.connection.read_more(RECEIVE, SILENCE).await?;
        };
        let text = String::from_utf8_lossy(line.trim_ascii_end()).into_owned();
        if let Some(message) = text.strip_prefix('-') {
            return Err(RedisError::Refused { action: RECEIVE, message: message.to_owned() }.into());
        }
        let strange = || Error::Protocol { reason: format!("a snapshot is announced with {text:?}") };
        let said = text.strip_prefix('$').ok_or_else(strange)?;
        match said.strip_prefix("EOF:") {
            Some(mark) => Ok(Rest::Until(mark.as_bytes().try_into().map_err(|_| strange())?)),
            None => Ok(Rest::Bytes(said.parse().map_err(|_| strange())?)),
        }
    }
}

/// How a server takes up one who wants its stream.
pub enum Attached {
    /// Behind what he has.
    Continues(StreamReceiver),
    /// With a snapshot first.
    Full(FullSync),
}

/// Asks for the stream behind a place, and for a snapshot where the server does not have it any
/// more, or nothing is known yet.
///
/// # Errors
///
/// As those of [`FullSync::begin`].
pub async fn attach(mut connection: Connection, from: Option<&StreamPlace>) -> Result<Attached> {
    introduce(&mut connection).await?;
    let answer = match from {
        Some(place) => {
            // The server counts from one.
            let next = (place.offset + 1).to_string();
            psync(&mut connection, &place.replication_id, &next).await?
        }
        None => psync(&mut connection, "?", "-1").await?,
    };
    match (answer, from) {
        (Answer::Full(place), _) => Ok(Attached::Full(FullSync::of(connection, place))),
        (Answer::Continues(id), Some(from)) => {
            let replication_id = id.unwrap_or_else(|| from.replication_id.clone());
            let place = StreamPlace { replication_id, offset: from.offset };
            Ok(Attached::Continues(StreamReceiver::new(connection, place, 0)))
        }
        (Answer::Continues(_), None) => {
            Err(Error::Protocol { reason: "nothing was to be continued".to_owned() })
        }
    }
}

async fn introduce(connection: &mut Connection) -> Result<()> {
    // No port: a Sentinel must not take this for a replica that it could promote.
    connection.call(ACTION, &["REPLCONF", "listening-port", "0"]).await?;
    // Without `eof` the server would write its own dump file.
    connection.call(ACTION, &["REPLCONF", "capa", "eof", "capa", "psync2"]).await?;
    Ok(())
}

enum Answer {
    Full(StreamPlace),
    /// With another id, where another server has taken over.
    Continues(Option<String>),
}

async fn psync(connection: &mut Connection, id: &str, next: &str) -> Result<Answer> {
    connection.send(ACTION, &["PSYNC", id, next]).await?;
    skip_newlines(connection, ACTION).await?;
    let line = match connection.receive(ACTION, SILENCE).await? {
        Reply::Status(line) => line,
        Reply::Error(message) => return Err(RedisError::Refused { action: ACTION, message }.into()),
        other => return Err(Error::Protocol { reason: format!("PSYNC is answered with {other:?}") }),
    };
    let continues = || {
        let mut words = line.split(' ').filter(|word| !word.is_empty());
        let is_so = words.next() == Some("CONTINUE");
        let id = words.next().map(str::to_owned);
        (is_so && id.as_deref().is_none_or(is_replication_id)).then_some(Answer::Continues(id))
    };
    let answer = full_resync(&line).map(Answer::Full).or_else(continues);
    answer.ok_or_else(|| Error::Protocol { reason: format!("PSYNC is answered with {line:?}") })
}

/// What a server says while it is not ready counts for nothing.
async fn skip_newlines(connection: &mut Connection, action: &'static str) -> Result<()> {
    loop {
        let held = connection.incoming();
        let empty = held.iter().take_while(|byte| matches!(byte, b'\n' | b'\r')).count();
        drop(held.split_to(empty));
        if !held.is_empty() {
            return Ok(());
        }
        connection.read_more(action, SILENCE).await?;
    }
}

/// `FULLRESYNC <id> <offset>`.
fn full_resync(line: &str) -> Option<StreamPlace> {
    let mut words = line.strip_prefix("FULLRESYNC ")?.split(' ');
    let replication_id = words.next().filter(|id| is_replication_id(id))?.to_owned();
    let offset = words.next()?.parse().ok()?;
    Some(StreamPlace { replication_id, offset })
}

/// It becomes a part of names.
pub fn is_replication_id(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_place_is_one() {
        let id = "8371b4fb1155b71f4a04d3e1bc3e18c4a990aeeb";
        let place = full_resync(&format!("FULLRESYNC {id} 1234")).unwrap();
        assert_eq!(place, StreamPlace { replication_id: id.to_owned(), offset: 1234 });
        for line in [
            format!("FULLRESYNC {id}"),
            format!("FULLRESYNC {id} -1"),
            format!("FULLRESYNC {} 1", &id[1..]),
            format!("FULLRESYNC ../{} 1", &id[3..]),
            "CONTINUE".to_owned(),
        ] {
            assert_eq!(full_resync(&line), None, "{line}");
        }
    }
}
