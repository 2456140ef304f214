//! A session for ordinary statements.
//!
//! Every wait has a limit, an error carries what was being done, and the task that
//! moves the session's bytes lives and dies with the [`Session`]: when a backup is
//! dropped half-way, its session closes and the server forgets the backup.
//!
//! Invariant: our statements mean what the server's own catalogue means by them. Who
//! owns a database can make functions with the names of built-in ones and set a search
//! path that finds them first; they would run with the rights of our role.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::JoinSet;
use tokio_postgres::error::SqlState;
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect};
use tokio_postgres::types::ToSql;
use tokio_postgres::{CancelToken, Client, Config, NoTls, Row, Socket};
use tokio_rustls::client::TlsStream;
use tracing::debug;

use super::settings::{Address, STATEMENT_LIMIT};
use crate::error::ServerMessage;
use crate::tls::{Tls, end_point_hash};
use crate::{Error, Result};

/// A connection that runs statements one after the other.
pub struct Session {
    client: Client,
    tls: Option<Tls>,
    /// Moves bytes; aborted when the session is dropped.
    _driver: JoinSet<()>,
}

impl Session {
    pub async fn open(address: &Address) -> Result<Session> {
        let tls = Tls::new(address.tls, address.root_certificate.as_deref(), None)?;
        let mut driver = JoinSet::new();
        // The driver's own limit is per address and does not cover the log-in.
        let limit = address.connect_limit * address.endpoints().len().max(1) as u32 + Duration::from_secs(5);
        let attempt = async {
            match connect(&with_own_names(&address.config), tls.as_ref(), &mut driver).await {
                Err(error) if is_refused_option(&error) => {
                    connect(&address.config, tls.as_ref(), &mut driver).await
                }
                other => other,
            }
        };
        let client = tokio::time::timeout(limit, attempt)
            .await
            .map_err(|_| Error::ConnectTimeout { server: address.describe(), seconds: limit.as_secs() })?
            .map_err(|error| connect_error(address, error))?;
        let session = Session { client, tls, _driver: driver };
        // Also behind a pooler that takes the option and forgets it.
        session.execute("use the server's own names only", "SET search_path = pg_catalog").await?;
        Ok(session)
    }

    /// Ends on the server what runs here when it is dropped before it is told that all
    /// is done: a server does not notice that nobody waits for an answer any more.
    pub fn leash(&self) -> Leash {
        Leash { token: Some(self.client.cancel_token()), tls: self.tls.clone() }
    }

    /// Runs one statement with parameters and returns its rows.
    pub async fn query(
        &self,
        action: &'static str,
        statement: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>> {
        self.query_within(STATEMENT_LIMIT, action, statement, parameters).await
    }

    pub async fn query_within(
        &self,
        limit: Duration,
        action: &'static str,
        statement: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>> {
        tokio::time::timeout(limit, self.client.query(statement, parameters))
            .await
            .map_err(|_| Error::Timeout { action, seconds: limit.as_secs() })?
            .map_err(|error| Error::sql(action, error))
    }

    /// The only row of a statement that always has one.
    pub async fn row(
        &self,
        action: &'static str,
        statement: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Row> {
        self.row_within(STATEMENT_LIMIT, action, statement, parameters).await
    }

    pub async fn row_within(
        &self,
        limit: Duration,
        action: &'static str,
        statement: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Row> {
        let rows = self.query_within(limit, action, statement, parameters).await?;
        rows.into_iter()
            .next()
            .ok_or_else(|| Error::Protocol { reason: format!("no row came back: {action}") })
    }

    /// Runs a statement without a result.
    pub async fn execute(&self, action: &'static str, statement: &str) -> Result<()> {
        tokio::time::timeout(STATEMENT_LIMIT, self.client.batch_execute(statement))
            .await
            .map_err(|_| Error::Timeout { action, seconds: STATEMENT_LIMIT.as_secs() })?
            .map_err(|error| Error::sql(action, error))
    }

    /// Readies the session for being held through a whole backup: however long it
    /// rests or works, no limit of the server's ends it.
    pub async fn hold(&self, version_number: u32) -> Result<()> {
        let mut quiet = "SET client_encoding = 'UTF8'; SET statement_timeout = 0; SET lock_timeout = 0; \
                         SET idle_in_transaction_session_timeout = 0"
            .to_owned();
        if version_number >= 140_000 {
            quiet.push_str("; SET idle_session_timeout = 0");
        }
        self.execute("prepare the session of the backup", &quiet).await
    }

    /// Whether the server has ended the session.
    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }
}

/// See [`Session::leash`].
pub struct Leash {
    token: Option<CancelToken>,
    tls: Option<Tls>,
}

impl Leash {
    /// There is nothing to end.
    pub fn done(mut self) {
        self.token = None;
    }
}

impl Drop for Leash {
    #[allow(
        clippy::disallowed_methods,
        reason = "nobody is left to await it: a courtesy of five seconds at most, on which nothing depends"
    )]
    fn drop(&mut self) {
        const LIMIT: Duration = Duration::from_secs(5);
        let Some(token) = self.token.take() else { return };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let tls = self.tls.take();
        runtime.spawn(async move {
            let asked = async {
                match tls {
                    None => token.cancel_query(NoTls).await,
                    Some(tls) => token.cancel_query(Handshake(tls)).await,
                }
            };
            match tokio::time::timeout(LIMIT, asked).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => debug!(%error, "the server could not be asked to end a statement"),
                Err(_) => debug!("the server could not be asked to end a statement in time"),
            }
        });
    }
}

/// The same, with a search path that no setting of a role or a database overrides.
fn with_own_names(config: &Config) -> Config {
    const OWN_NAMES: &str = "-c search_path=pg_catalog";
    let mut config = config.clone();
    // Of two options for one setting the last counts.
    let options = match config.get_options() {
        Some(given) if !given.trim().is_empty() => format!("{given} {OWN_NAMES}"),
        _ => OWN_NAMES.to_owned(),
    };
    config.options(options);
    config
}

/// Whether a pooler stands before the server that passes no options on.
fn is_refused_option(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().is_some_and(|refusal| {
        *refusal.code() == SqlState::PROTOCOL_VIOLATION && refusal.message().contains("startup parameter")
    })
}

async fn connect(
    config: &Config,
    tls: Option<&Tls>,
    driver: &mut JoinSet<()>,
) -> std::result::Result<Client, tokio_postgres::Error> {
    match tls {
        None => {
            let (client, connection) = config.connect(NoTls).await?;
            driver.spawn(drive(connection));
            Ok(client)
        }
        Some(tls) => {
            let (client, connection) = config.connect(Handshake(tls.clone())).await?;
            driver.spawn(drive(connection));
            Ok(client)
        }
    }
}

/// One column of a row, as the type the statement promises.
pub fn column<'a, T: tokio_postgres::types::FromSql<'a>>(row: &'a Row, index: usize) -> Result<T> {
    row.try_get(index).map_err(|error| Error::Protocol { reason: error.to_string() })
}

/// The connection's own future ends with the session; an error it ends with is
/// the error that the running statement gets too.
async fn drive<T>(connection: tokio_postgres::Connection<Socket, T>)
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    if let Err(error) = connection.await {
        debug!(%error, "the connection ended");
    }
}

fn connect_error(address: &Address, error: tokio_postgres::Error) -> Error {
    let server = address.describe();
    if let Some(message) = error.as_db_error().map(ServerMessage::from) {
        return Error::Login { server, user: address.user.clone(), source: Box::new(message) };
    }
    let text = error.to_string();
    let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
    if cause.contains("does not support TLS") {
        return Error::TlsRefused { server, mode: address.tls.name() };
    }
    if cause.contains("password missing") {
        return Error::Setting {
            setting: "password",
            reason: format!("the server at {server} asks for one"),
        };
    }
    match text.contains("TLS") {
        true => Error::Tls { server, source: Box::new(error) },
        false => Error::Connect { server, source: Box::new(error) },
    }
}

/// Our TLS, in the shape the driver asks for.
#[derive(Clone)]
struct Handshake(Tls);

struct HostHandshake {
    tls: Tls,
    host: String,
}

impl<S> MakeTlsConnect<S> for Handshake
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = Encrypted<S>;
    type TlsConnect = HostHandshake;
    type Error = io::Error;

    fn make_tls_connect(&mut self, host: &str) -> io::Result<HostHandshake> {
        Ok(HostHandshake { tls: self.0.clone(), host: host.to_owned() })
    }
}

impl<S> TlsConnect<S> for HostHandshake
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = Encrypted<S>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Encrypted<S>>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        Box::pin(
            async move { self.tls.connect(&self.host, stream).await.map(|tls| Encrypted(Box::new(tls))) },
        )
    }
}

struct Encrypted<S>(Box<TlsStream<S>>);

impl<S: AsyncRead + AsyncWrite + Unpin> tokio_postgres::tls::TlsStream for Encrypted<S> {
    fn channel_binding(&self) -> ChannelBinding {
        match end_point_hash(&self.0) {
            Some(hash) => ChannelBinding::tls_server_end_point(hash),
            None => ChannelBinding::none(),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Encrypted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Encrypted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_search_path_comes_last_among_the_options() {
        let options = |text: &str| {
            let config: Config = text.parse().unwrap();
            with_own_names(&config).get_options().unwrap().to_owned()
        };
        assert_eq!(options("host=db user=b"), "-c search_path=pg_catalog");
        assert_eq!(
            options("host=db user=b options='-c search_path=public -c geqo=off'"),
            "-c search_path=public -c geqo=off -c search_path=pg_catalog"
        );
    }
}
