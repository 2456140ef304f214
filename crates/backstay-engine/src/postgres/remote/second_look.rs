//! The ordinary session beside a base backup: it reads a page again, which a role
//! may do that has been granted the function, and asks what came late.
//!
//! It rests for hours and is asked in a moment, so limits of the server are lifted,
//! and when it is lost all the same it is opened once more. What it cannot say is
//! no reason to fail: the first look at a page stands then.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use backstay_model::Finding;
use tokio::runtime::Handle;
use tokio_postgres::types::ToSql;

use crate::postgres::connect::{Session, column};
use crate::postgres::facts::{ServerFacts, Tablespace};
use crate::postgres::outcome::Outcome;
use crate::postgres::settings::Address;
use crate::postgres::{tablespaces, walsender};
use crate::{Error, Result};

/// Pages that are read a second time. A torn page is rare; a disk that gives
/// thousands of wrong pages needs no second look at each.
const SECOND_LOOKS: u32 = 1000;

/// SQLSTATE of a right that is missing.
const NOT_PERMITTED: &str = "42501";

/// Used from threads that may block and do not drive the runtime.
pub(super) struct SecondLook {
    session: Mutex<Arc<Session>>,
    may_open_again: AtomicBool,
    address: Address,
    version_number: u32,
    runtime: Handle,
    outcome: Outcome,
    taken: AtomicU32,
    has_complained: AtomicBool,
}

impl SecondLook {
    /// Takes the session over, on the runtime that it is to be used with.
    pub(super) async fn new(
        session: Session,
        address: &Address,
        server: &ServerFacts,
        outcome: Outcome,
    ) -> Result<Self> {
        session.hold(server.version_number).await?;
        Ok(Self {
            session: Mutex::new(Arc::new(session)),
            may_open_again: AtomicBool::new(true),
            address: address.clone(),
            version_number: server.version_number,
            runtime: Handle::current(),
            outcome,
            taken: AtomicU32::new(0),
            has_complained: AtomicBool::new(false),
        })
    }

    /// What the server has by now.
    pub(super) fn tablespaces(&self) -> Result<Vec<Tablespace>> {
        self.ask(&async |session: &Session| tablespaces::list(session).await)
    }

    pub(super) fn read(&self, path: &str, offset: u64, page: &mut [u8]) -> io::Result<usize> {
        if self.taken.fetch_add(1, Ordering::Relaxed) >= SECOND_LOOKS {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        let (offset, length) = (offset as i64, page.len() as i64);
        let parameters: [&(dyn ToSql + Sync); 3] = [&path, &offset, &length];
        let statement = "SELECT pg_read_binary_file($1, $2, $3, true)";
        let row = self
            .ask(&async |session: &Session| session.row("read a page again", statement, &parameters).await)
            .map_err(|error| {
                if !self.has_complained.swap(true, Ordering::Relaxed) {
                    self.outcome.find(complaint(&error));
                }
                io::Error::other(error)
            })?;
        // NULL: the file is gone, and with it the page.
        let bytes: Option<&[u8]> = column(&row, 0).map_err(io::Error::other)?;
        let bytes = bytes.unwrap_or_default();
        let length = bytes.len().min(page.len());
        page[..length].copy_from_slice(&bytes[..length]);
        Ok(length)
    }

    /// Asks, and asks again through another session when this one is lost.
    fn ask<T>(&self, question: &impl AsyncFn(&Session) -> Result<T>) -> Result<T> {
        let session = Arc::clone(&self.session.lock().unwrap_or_else(PoisonError::into_inner));
        match self.runtime.block_on(question(&session)) {
            // A server that ends a session may still answer with the reason.
            Err(lost) if matches!(lost, Error::ConnectionLost { .. }) || session.is_closed() => {
                let session = self.open_again(&session, lost)?;
                self.runtime.block_on(question(&session))
            }
            answer => answer,
        }
    }

    /// Several may have lost the same session; one of them opens the next.
    fn open_again(&self, lost: &Arc<Session>, error: Error) -> Result<Arc<Session>> {
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        if Arc::ptr_eq(&session, lost) {
            if !self.may_open_again.swap(false, Ordering::Relaxed) {
                return Err(error);
            }
            *session = Arc::new(self.runtime.block_on(async {
                let opened = Session::open(&self.address).await?;
                opened.hold(self.version_number).await?;
                Ok::<_, Error>(opened)
            })?);
        }
        Ok(Arc::clone(&session))
    }
}

/// What a person is told, once, of pages that could be looked at once only.
fn complaint(error: &Error) -> Finding {
    let remedy = match walsender::refusal(error) {
        Some(said) if said.code == NOT_PERMITTED => {
            "`GRANT EXECUTE ON FUNCTION pg_read_binary_file(text, bigint, bigint, boolean)` to the role of the \
             backup"
        }
        _ => "see the server's log, then run `backstay backup` again",
    };
    Finding::warning(
        "page checksums",
        format!(
            "a page could not be read a second time, so that a wrong one may only have been in the middle of a \
             write: {error}"
        ),
        remedy,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ServerMessage;

    #[test]
    fn only_who_lacks_the_right_is_told_to_grant_it() {
        let refused = |code: &str| {
            let said = ServerMessage { code: code.into(), message: "no".into(), detail: None, hint: None };
            complaint(&said.during("read a page again")).remedy
        };
        assert!(refused("42501").contains("GRANT EXECUTE"));
        assert!(!refused("58030").contains("GRANT"));
        let lost = Error::ConnectionLost { action: "read a page again", source: "closed".into() };
        assert!(!complaint(&lost).remedy.contains("GRANT"));
    }
}
