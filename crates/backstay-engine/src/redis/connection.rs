//! A connection that is logged in.
//!
//! Invariant: connecting, the TLS handshake and the log-in stay within the address's limit, and
//! every answer has one of its own.

use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::error::RedisError;
use super::reply::{self, Reply};
use super::settings::Address;
use crate::address::{Endpoint, Socket};
use crate::tls::TlsMode;
use crate::{Error, Result};

/// How long a server may take for an answer: all that is asked reads a few kilobytes.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// Room that is kept for one read of the socket.
const READ_AHEAD: usize = 256 << 10;

pub struct Connection {
    socket: Box<dyn Socket>,
    incoming: BytesMut,
    server: String,
}

impl Connection {
    /// # Errors
    ///
    /// [`Error::Connect`], [`Error::ConnectTimeout`], [`Error::Tls`], [`RedisError::TlsEnded`] for a server that
    /// wants another certificate of its clients, and [`RedisError::Refused`] for a user or a password that it
    /// does not take.
    pub async fn open(address: &Address) -> Result<Connection> {
        let server = address.endpoint.to_string();
        let opening = async {
            let mut connection =
                Connection { socket: link(address, &server).await?, incoming: BytesMut::new(), server };
            // With TLS 1.3 a server looks at its client's certificate when the client is done with it.
            connection.log_in(address).await.map_err(|error| ended_behind_tls(address, error))?;
            Ok(connection)
        };
        match timeout(address.connect_limit, opening).await {
            Ok(opened) => opened,
            Err(_) => Err(Error::ConnectTimeout {
                server: address.endpoint.to_string(),
                seconds: address.connect_limit.as_secs(),
            }),
        }
    }

    async fn log_in(&mut self, address: &Address) -> Result<()> {
        const ACTION: &str = "log in";
        let logged_in = match (&address.user, &address.password) {
            (None, None) => Ok(Reply::Nothing),
            (None, Some(password)) => self.call(ACTION, &["AUTH", password.reveal()]).await,
            // A user without a password is one that was made with `nopass`: any is taken.
            (Some(user), password) => {
                let password = password.as_ref().map_or("", |password| password.reveal());
                self.call(ACTION, &["AUTH", user, password]).await
            }
        };
        logged_in.map_err(without_arguments)?;
        // Where it is not asked for, a server without users says yes to all.
        self.call(ACTION, &["PING"]).await?;
        // Its lists of clients then say whose this is. It may not be allowed, which costs nothing.
        match self.call(ACTION, &["CLIENT", "SETNAME", "backstay"]).await {
            Err(Error::Redis(RedisError::Refused { .. })) | Ok(_) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Where it leads, for messages.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// A command and its answer.
    ///
    /// # Errors
    ///
    /// [`RedisError::Refused`] for an answer that is an error.
    pub async fn call<T: AsRef<[u8]>>(&mut self, action: &'static str, words: &[T]) -> Result<Reply> {
        self.call_within(ANSWER_LIMIT, action, words).await
    }

    /// A command that may take its time.
    ///
    /// # Errors
    ///
    /// Those of [`Connection::call`]. After [`Error::Timeout`] the answer is still to come, and the connection
    /// is of no more use.
    pub async fn call_within<T: AsRef<[u8]>>(
        &mut self,
        limit: Duration,
        action: &'static str,
        words: &[T],
    ) -> Result<Reply> {
        self.send(action, words).await?;
        match self.receive(action, limit).await? {
            Reply::Error(message) => Err(RedisError::Refused { action, message }.into()),
            reply => Ok(reply),
        }
    }

    /// A command whose answer is received apart, or not at all.
    pub async fn send<T: AsRef<[u8]>>(&mut self, action: &'static str, words: &[T]) -> Result<()> {
        let mut bytes = BytesMut::new();
        reply::encode(words, &mut bytes);
        let sending = async {
            self.socket.write_all_buf(&mut bytes).await?;
            self.socket.flush().await
        };
        match timeout(ANSWER_LIMIT, sending).await {
            Ok(sent) => sent.map_err(|source| lost(action, source)),
            Err(_) => Err(Error::Timeout { action, seconds: ANSWER_LIMIT.as_secs() }),
        }
    }

    pub(super) async fn receive(&mut self, action: &'static str, limit: Duration) -> Result<Reply> {
        loop {
            let decoded = reply::decode(&mut self.incoming);
            if let Some(reply) = decoded.map_err(|error| Error::Protocol { reason: error.0 })? {
                return Ok(reply);
            }
            self.read_more(action, limit).await?;
        }
    }

    /// What came and was not taken yet.
    pub(super) fn incoming(&mut self) -> &mut BytesMut {
        &mut self.incoming
    }

    /// Adds to what came, if something comes within the limit. Dropped half-way, it loses nothing.
    ///
    /// # Errors
    ///
    /// [`Error::ConnectionLost`] at the end of the connection, too.
    pub(super) async fn read_within(&mut self, action: &'static str, limit: Duration) -> Result<bool> {
        match self.read_more(action, limit).await {
            Err(Error::Timeout { .. }) => Ok(false),
            read => read.map(|()| true),
        }
    }

    /// Adds to what came. Dropped half-way, it loses nothing.
    ///
    /// # Errors
    ///
    /// [`Error::ConnectionLost`] at the end of the connection, too.
    pub(super) async fn read_more(&mut self, action: &'static str, limit: Duration) -> Result<()> {
        self.incoming.reserve(READ_AHEAD);
        match timeout(limit, self.socket.read_buf(&mut self.incoming)).await {
            Ok(Ok(0)) => Err(lost(action, std::io::ErrorKind::UnexpectedEof.into())),
            Ok(Ok(_)) => Ok(()),
            Ok(Err(source)) => Err(lost(action, source)),
            Err(_) => Err(Error::Timeout { action, seconds: limit.as_secs() }),
        }
    }
}

/// What a server says of an `AUTH` that it does not know holds what stood behind it.
fn without_arguments(error: Error) -> Error {
    match error {
        Error::Redis(RedisError::Refused { action, message }) => {
            let known = ["WRONGPASS ", "NOAUTH ", "NOPERM ", "ERR AUTH <password> called without"];
            let message = match known.iter().any(|known| message.starts_with(known)) {
                true => message,
                false => "ERR AUTH is refused".to_owned(),
            };
            RedisError::Refused { action, message }.into()
        }
        error => error,
    }
}

fn lost(action: &'static str, source: std::io::Error) -> Error {
    Error::ConnectionLost { action, source: source.into() }
}

async fn link(address: &Address, server: &str) -> Result<Box<dyn Socket>> {
    let unreachable =
        |source: std::io::Error| Error::Connect { server: server.to_owned(), source: source.into() };
    let (host, port) = match &address.endpoint {
        Endpoint::Unix(path) => {
            return Ok(Box::new(UnixStream::connect(path).await.map_err(unreachable)?));
        }
        Endpoint::Tcp { host, port } => (host, *port),
    };
    // A file that cannot be read is a mistake whether or not somebody listens there.
    let tls = address.tls()?;
    let socket = TcpStream::connect((host.as_str(), port)).await.map_err(unreachable)?;
    socket.set_nodelay(true).map_err(unreachable)?;
    match tls {
        None => Ok(Box::new(socket)),
        // The server speaks TLS from the first byte.
        Some(tls) => match tls.connect(host, socket).await {
            Ok(encrypted) => Ok(Box::new(encrypted)),
            Err(source) => Err(ended_behind_tls(
                address,
                Error::Tls { server: server.to_owned(), source: source.into() },
            )),
        },
    }
}

/// A server that wants a certificate of its clients ends the connection with an alert, or so
/// suddenly that the alert is lost.
fn ended_behind_tls(address: &Address, error: Error) -> Error {
    let (source, is_loss) = match error {
        Error::Tls { source, .. } if is_alert(&*source) => (source, false),
        Error::ConnectionLost { source, .. } if address.tls != TlsMode::Disable => (source, true),
        error => return error,
    };
    let has_certificate = address.own_certificate.is_some();
    let is_certain = !is_loss || is_alert(&*source);
    RedisError::TlsEnded { server: address.endpoint.to_string(), has_certificate, is_certain, source }.into()
}

fn is_alert(error: &(dyn std::error::Error + 'static)) -> bool {
    let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    let inner = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(inner, Some(rustls::Error::AlertReceived(_)))
}
