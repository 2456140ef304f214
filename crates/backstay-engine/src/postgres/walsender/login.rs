//! Start-up of a connection: parameters, authentication, the server's version.
//!
//! Answers the methods a server may ask for with a password: SCRAM-SHA-256, with
//! the connection bound to the certificate of the server where TLS gives one,
//! MD5, and clear text — the last only where nobody can listen.
//!
//! Refuses Kerberos and SSPI, and a server that wants the password in the clear
//! over a connection that is not encrypted.

use std::time::Duration;

use fallible_iterator::FallibleIterator;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{
    ChannelBinding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256,
};
use postgres_protocol::message::backend::{AuthenticationSaslBody, Message};
use postgres_protocol::message::frontend;

use super::reply::server_message;
use super::wire::{Frame, Wire, malformed, out_of_turn};
use crate::error::ServerMessage;
use crate::{Error, Result, model};

const ACTION: &str = "log in";

/// Who logs in, and over what.
pub(super) struct Login<'a> {
    /// For error texts: `db:5432`.
    pub server: &'a str,
    pub user: &'a str,
    pub password: Option<&'a model::Secret>,
    /// The hash of the server's certificate, when the connection is encrypted.
    pub end_point: Option<Vec<u8>>,
    /// Nobody on a network can listen: TLS or a Unix socket.
    pub is_private: bool,
    pub limit: Duration,
}

/// What a server says of itself while a connection starts.
#[derive(Debug, Default)]
pub(super) struct Greeting {
    /// `17.2 (Debian 17.2-1)`.
    pub version: String,
    /// The password was proved for this TLS connection and no other.
    pub is_bound: bool,
}

impl Login<'_> {
    pub(super) async fn run(self, wire: &mut Wire) -> Result<Greeting> {
        let parameters = [
            ("user", self.user),
            // Physical replication; the value `database` would mean the logical kind.
            ("replication", "true"),
            ("application_name", "backstay"),
            ("client_encoding", "UTF8"),
        ];
        frontend::startup_message(parameters, &mut wire.outgoing).map_err(|error| malformed(&error))?;
        wire.send(self.limit, ACTION).await?;
        let mut greeting = Greeting::default();
        let mut scram = None;
        loop {
            let message = match wire.frame(self.limit, ACTION).await? {
                Frame::Message(message) => message,
                frame => return Err(out_of_turn(&frame, ACTION)),
            };
            match message {
                Message::AuthenticationOk => scram = None,
                Message::AuthenticationCleartextPassword => {
                    if !self.is_private {
                        return Err(
                            self.refused("it asks for the password in clear text over an open network")
                        );
                    }
                    let password = self.password()?;
                    frontend::password_message(password.as_bytes(), &mut wire.outgoing)
                        .map_err(|error| malformed(&error))?;
                    wire.send(self.limit, ACTION).await?;
                }
                Message::AuthenticationMd5Password(body) => {
                    let hash = md5_hash(self.user.as_bytes(), self.password()?.as_bytes(), body.salt());
                    frontend::password_message(hash.as_bytes(), &mut wire.outgoing)
                        .map_err(|error| malformed(&error))?;
                    wire.send(self.limit, ACTION).await?;
                }
                Message::AuthenticationSasl(body) => {
                    let (exchange, is_bound) = self.begin_scram(&body, wire).await?;
                    scram = Some(exchange);
                    greeting.is_bound = is_bound;
                }
                Message::AuthenticationSaslContinue(body) => {
                    let Some(exchange) = &mut scram else {
                        return Err(self.refused("it goes on with a SASL exchange that never began"));
                    };
                    exchange.update(body.data()).map_err(|error| self.refused(&error.to_string()))?;
                    frontend::sasl_response(exchange.message(), &mut wire.outgoing)
                        .map_err(|error| malformed(&error))?;
                    wire.send(self.limit, ACTION).await?;
                }
                Message::AuthenticationSaslFinal(body) => {
                    // Here the server proves that it knows the password, too.
                    let Some(exchange) = &mut scram else {
                        return Err(self.refused("it ends a SASL exchange that never began"));
                    };
                    exchange.finish(body.data()).map_err(|error| self.refused(&error.to_string()))?;
                }
                Message::ParameterStatus(body) => {
                    if let (Ok("server_version"), Ok(value)) = (body.name(), body.value()) {
                        value.clone_into(&mut greeting.version);
                    }
                }
                Message::ErrorResponse(body) => {
                    return Err(self.failed(server_message(&mut body.fields())));
                }
                Message::BackendKeyData(_) | Message::NoticeResponse(_) => {}
                Message::ReadyForQuery(_) => return Ok(greeting),
                Message::AuthenticationGss
                | Message::AuthenticationKerberosV5
                | Message::AuthenticationSspi
                | Message::AuthenticationScmCredential => {
                    return Err(self.refused(
                        "it asks for a method other than a password; `scram-sha-256` in pg_hba.conf would do",
                    ));
                }
                message => return Err(out_of_turn(&Frame::Message(message), ACTION)),
            }
        }
    }

    async fn begin_scram(
        &self,
        body: &AuthenticationSaslBody,
        wire: &mut Wire,
    ) -> Result<(ScramSha256, bool)> {
        let (mut plain, mut bound) = (false, false);
        let mut mechanisms = body.mechanisms();
        while let Some(mechanism) = mechanisms.next().map_err(|error| malformed(&error))? {
            plain |= mechanism == SCRAM_SHA_256;
            bound |= mechanism == SCRAM_SHA_256_PLUS;
        }
        let (mechanism, binding) = match (&self.end_point, bound, plain) {
            (Some(hash), true, _) => (SCRAM_SHA_256_PLUS, ChannelBinding::tls_server_end_point(hash.clone())),
            // "I could have, you did not offer": a server that did offer it then
            // notices somebody between who took the offer away.
            (Some(_), false, true) => (SCRAM_SHA_256, ChannelBinding::unrequested()),
            (None, _, true) => (SCRAM_SHA_256, ChannelBinding::unsupported()),
            _ => return Err(self.refused("it offers no SASL mechanism that is known here")),
        };
        let exchange = ScramSha256::new(self.password()?.as_bytes(), binding);
        frontend::sasl_initial_response(mechanism, exchange.message(), &mut wire.outgoing)
            .map_err(|error| malformed(&error))?;
        wire.send(self.limit, ACTION).await?;
        Ok((exchange, mechanism == SCRAM_SHA_256_PLUS))
    }

    fn password(&self) -> Result<&str> {
        match self.password {
            Some(password) => Ok(password.reveal()),
            None => Err(self.failed(ServerMessage {
                code: "28P01".to_owned(),
                message: "the server asks for a password and none is configured".to_owned(),
                detail: None,
                hint: None,
            })),
        }
    }

    fn refused(&self, reason: &str) -> Error {
        self.failed(ServerMessage {
            code: "28000".to_owned(),
            message: format!("the server's authentication is not accepted: {reason}"),
            detail: None,
            hint: None,
        })
    }

    fn failed(&self, source: ServerMessage) -> Error {
        Error::Login { server: self.server.to_owned(), user: self.user.to_owned(), source: Box::new(source) }
    }
}
