//! From an address to a connection that is logged in.
//!
//! Invariant: connecting, the TLS handshake and the log-in together stay within
//! the address's limit, for each server tried.
//!
//! Refuses to go on without TLS where `sslmode` asks for it, and bytes that come
//! before the handshake: they could only be somebody else's.

use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::login::{Greeting, Login};
use super::wire::Wire;
use crate::address::Endpoint;
use crate::address::Socket;
use crate::postgres::settings::Address;
use crate::tls::{Tls, TlsMode, end_point_hash};
use crate::{Error, Result};

/// What a server answers to a request for TLS: `S` for yes, `N` for no.
const YES: u8 = b'S';

/// Tries the servers of the address in order. A server that answers and says no
/// ends the search: the next one would be another server with other data.
pub(super) async fn connect(address: &Address) -> Result<(Wire, Greeting)> {
    let tls = Tls::new(address.tls, address.root_certificate.as_deref(), None)?;
    let mut unreachable = Error::Setting { setting: "url", reason: "names no host".to_owned() };
    for endpoint in address.endpoints() {
        match connect_one(address, &endpoint, tls.as_ref()).await {
            Err(error @ (Error::Connect { .. } | Error::ConnectTimeout { .. })) => unreachable = error,
            answered => return answered,
        }
    }
    Err(unreachable)
}

async fn connect_one(address: &Address, endpoint: &Endpoint, tls: Option<&Tls>) -> Result<(Wire, Greeting)> {
    let server = endpoint.to_string();
    let attempt = async {
        let link = link(address, endpoint, tls, &server).await?;
        let mut wire = Wire::new(link.socket);
        let login = Login {
            server: &server,
            user: &address.user,
            password: address.password.as_ref(),
            end_point: link.end_point,
            // Who writes `sslmode=disable` has decided that the network is private.
            is_private: link.is_private || address.tls == TlsMode::Disable,
            limit: address.connect_limit,
        };
        let greeting = login.run(&mut wire).await?;
        Ok((wire, greeting))
    };
    match timeout(address.connect_limit, attempt).await {
        Ok(result) => result,
        Err(_) => {
            Err(Error::ConnectTimeout { server: server.clone(), seconds: address.connect_limit.as_secs() })
        }
    }
}

struct Link {
    socket: Box<dyn Socket>,
    is_private: bool,
    end_point: Option<Vec<u8>>,
}

async fn link(address: &Address, endpoint: &Endpoint, tls: Option<&Tls>, server: &str) -> Result<Link> {
    let unreachable =
        |source: std::io::Error| Error::Connect { server: server.to_owned(), source: source.into() };
    let (host, port) = match endpoint {
        Endpoint::Unix(path) => {
            let socket = UnixStream::connect(path).await.map_err(unreachable)?;
            return Ok(Link { socket: Box::new(socket), is_private: true, end_point: None });
        }
        Endpoint::Tcp { host, port } => (host, *port),
    };
    let mut socket = TcpStream::connect((host.as_str(), port)).await.map_err(unreachable)?;
    socket.set_nodelay(true).map_err(unreachable)?;
    let Some(tls) = tls else {
        return Ok(Link { socket: Box::new(socket), is_private: false, end_point: None });
    };
    let mut request = bytes::BytesMut::new();
    frontend::ssl_request(&mut request);
    socket.write_all(&request).await.map_err(unreachable)?;
    // One byte, not a buffer full: what follows belongs to the handshake.
    if socket.read_u8().await.map_err(unreachable)? != YES {
        if address.tls != TlsMode::Prefer {
            return Err(Error::TlsRefused { server: server.to_owned(), mode: address.tls.name() });
        }
        return Ok(Link { socket: Box::new(socket), is_private: false, end_point: None });
    }
    let encrypted = tls
        .connect(host, socket)
        .await
        .map_err(|source| Error::Tls { server: server.to_owned(), source: source.into() })?;
    let end_point = end_point_hash(&encrypted);
    Ok(Link { socket: Box::new(encrypted), is_private: true, end_point })
}
