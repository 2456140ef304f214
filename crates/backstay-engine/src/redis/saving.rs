//! A server that saves its snapshot to its own disk, because it is asked to.
//!
//! That it has is known from its counter of saves: the time of the last one has a resolution of a
//! second, and is that of the start where there was none. A save that somebody killed, as a flush
//! does, is no failure to the server, and leaves the counter where it was.
//!
//! Refuses to take a save for its own that was under way before: what it holds is older than the
//! question.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::connection::Connection;
use super::error::RedisError;
use super::facts::Info;
use crate::{Error, Result};

pub(super) const ACTION: &str = "ask the server to save its snapshot";
/// As a restore has it where a server writes all that it holds.
const LIMIT: Duration = Duration::from_secs(3600);
/// How often the server is asked how far it is: the answer costs it nothing.
const PAUSE: Duration = Duration::from_millis(100);
/// Others may save, or kill a save, at the same moment; one that does all the time is at fault.
const TRIES: u32 = 20;

/// What a server says of its saves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Saves {
    is_saving: bool,
    count: u64,
    is_good: bool,
}

impl Saves {
    async fn ask(connection: &mut Connection) -> Result<Saves> {
        let info = Info::ask(connection, ACTION, "persistence").await?;
        Ok(Saves {
            is_saving: info.number("rdb_bgsave_in_progress")? > 0,
            count: info.number("rdb_saves")?,
            is_good: info.text("rdb_last_bgsave_status")? == "ok",
        })
    }
}

/// Returns when a snapshot of now or later lies on the server's disk.
///
/// # Errors
///
/// [`RedisError::SaveFailed`], a refusal where the user may not, and [`Error::Timeout`].
pub(super) async fn save(connection: &mut Connection) -> Result<()> {
    match timeout(LIMIT, save_without_limit(connection)).await {
        Ok(saved) => saved,
        Err(_) => Err(Error::Timeout { action: ACTION, seconds: LIMIT.as_secs() }),
    }
}

async fn save_without_limit(connection: &mut Connection) -> Result<()> {
    for _ in 0..TRIES {
        let before = idle(connection).await?;
        // While the append-only files are rewritten, it is put off.
        let asked = connection.call(ACTION, &["BGSAVE", "SCHEDULE"]).await;
        let has_begun = match asked {
            Ok(answer) => answer.text().is_some_and(|text| text.ends_with("started")),
            Err(Error::Redis(RedisError::Refused { message, .. })) if message.contains("in progress") => {
                continue;
            }
            Err(error) => return Err(error),
        };
        if is_saved(connection, before, has_begun).await? {
            return Ok(());
        }
    }
    Err(RedisError::SaveFailed { reason: "its saves were given up, one after the other" }.into())
}

/// When nobody's save is under way.
async fn idle(connection: &mut Connection) -> Result<Saves> {
    loop {
        let now = Saves::ask(connection).await?;
        if !now.is_saving {
            return Ok(now);
        }
        sleep(PAUSE).await;
    }
}

/// Whether it has come to its end; not, where it was given up without a failure.
async fn is_saved(connection: &mut Connection, before: Saves, has_begun: bool) -> Result<bool> {
    let mut has_begun = has_begun;
    loop {
        let now = Saves::ask(connection).await?;
        match ended(before, now, has_begun) {
            Some(Ended::Saved) => return Ok(true),
            Some(Ended::GivenUp) => return Ok(false),
            Some(Ended::Failed) => {
                let reason = "its log says why, as a full disk or no memory for another process";
                return Err(RedisError::SaveFailed { reason }.into());
            }
            None => {}
        }
        has_begun |= now.is_saving;
        sleep(PAUSE).await;
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Saved,
    Failed,
    GivenUp,
}

/// What became of a save, once it has begun. Of one that was put off nothing is known before.
fn ended(before: Saves, now: Saves, has_begun: bool) -> Option<Ended> {
    match (now.is_saving, now.count != before.count, now.is_good) {
        (true, ..) => None,
        // An older failure says nothing of one that has not begun.
        (false, _, false) => (has_begun || before.is_good).then_some(Ended::Failed),
        (false, true, true) => Some(Ended::Saved),
        (false, false, true) => has_begun.then_some(Ended::GivenUp),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_save_has_ended_when_it_was_seen_to_begin_or_to_count() {
        let at = |is_saving, count, is_good| Saves { is_saving, count, is_good };
        let before = at(false, 3, true);
        for (now, has_begun, found) in [
            (at(true, 3, true), true, None),
            (at(false, 4, true), true, Some(Ended::Saved)),
            (at(false, 4, true), false, Some(Ended::Saved)),
            (at(false, 3, true), false, None),
            (at(false, 3, true), true, Some(Ended::GivenUp)),
            (at(false, 3, false), false, Some(Ended::Failed)),
            (at(false, 4, false), true, Some(Ended::Failed)),
            // The counters were set to zero meanwhile.
            (at(false, 1, true), true, Some(Ended::Saved)),
        ] {
            assert_eq!(ended(before, now, has_begun), found, "{now:?} {has_begun}");
        }
        let failing = at(false, 3, false);
        assert_eq!(ended(failing, failing, false), None);
        assert_eq!(ended(failing, failing, true), Some(Ended::Failed));
    }
}
