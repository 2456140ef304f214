//! The stream of commands that a server sends to its replicas, behind what this side has.
//!
//! Invariant: every byte of it counts, and nothing else does. The server is told of nothing that
//! its user has not called durable.

use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::connection::Connection;
use super::error::RedisError;
use super::sync::StreamPlace;
use crate::{Error, Result};

const RECEIVE: &str = "receive the stream";
const REPORT: &str = "tell the server how far this side is";
/// What is handed on at once.
const PIECE: usize = 1 << 20;

pub struct StreamReceiver {
    connection: Connection,
    /// Behind what was handed on.
    place: StreamPlace,
    database: u32,
}

impl StreamReceiver {
    pub(super) fn new(connection: Connection, place: StreamPlace, database: u32) -> StreamReceiver {
        StreamReceiver { connection, place, database }
    }

    /// Selected where it begins behind a snapshot. What is continued says nothing of it.
    pub fn database(&self) -> u32 {
        self.database
    }

    /// Whose stream it is, and behind which byte of it.
    pub fn place(&self) -> &StreamPlace {
        &self.place
    }

    /// What comes next; nothing where nothing came within the limit. Dropped half-way, it loses
    /// nothing.
    ///
    /// # Errors
    ///
    /// [`RedisError::StreamEnded`].
    pub async fn next(&mut self, limit: Duration) -> Result<Option<Bytes>> {
        if self.connection.incoming().is_empty() {
            let offset = self.place.offset;
            let read = self.connection.read_within(RECEIVE, limit).await.map_err(|error| match error {
                Error::ConnectionLost { source, .. } => RedisError::StreamEnded { offset, source }.into(),
                error => error,
            });
            if !read? {
                return Ok(None);
            }
        }
        let held: &mut BytesMut = self.connection.incoming();
        let piece = held.split_to(held.len().min(PIECE)).freeze();
        self.place.offset += piece.len() as u64;
        Ok(Some(piece))
    }

    /// Says that everything up to here is durable.
    pub async fn acknowledge(&mut self, offset: u64) -> Result<()> {
        self.connection.send(REPORT, &["REPLCONF", "ACK", &offset.to_string()]).await
    }
}
