//! Whether a server still answers, while something that speaks to it for us is silent.
//!
//! A child of ours has no deadline: an index of a large table is built for hours without
//! a word. What is on the way to a server can die and keep its connections open, though,
//! and then nobody would ever end. So a silence is looked into with a connection of our
//! own, and the work is given up when two of them in a row are not answered.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use tracing::debug;

use super::connect::Session;
use super::settings::Address;
use crate::{Error, Result};

/// A silence that is looked into.
const SILENCE: Duration = Duration::from_secs(30);
/// A second look comes sooner.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// What the work comes to, or why the server is taken for gone.
pub(super) async fn while_it_answers<T>(address: &Address, work: impl Future<Output = T>) -> Result<T> {
    let mut work = pin!(work);
    let mut unanswered = 0;
    loop {
        let wait = if unanswered == 0 { SILENCE } else { LOOK_AGAIN };
        if let Ok(done) = tokio::time::timeout(wait, &mut work).await {
            return Ok(done);
        }
        let looked = tokio::select! {
            biased;
            done = &mut work => return Ok(done),
            looked = Session::open(address) => looked,
        };
        match looked {
            // A server that refuses us is there.
            Ok(_) | Err(Error::Login { .. } | Error::Server { .. }) => unanswered = 0,
            Err(error) if unanswered > 0 => return Err(error),
            Err(error) => {
                debug!(%error, "the server does not answer");
                unanswered += 1;
            }
        }
    }
}
