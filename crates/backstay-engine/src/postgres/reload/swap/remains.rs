//! What a swap whose process was killed has left at the server: a database that lets
//! nobody in, and the one that was to take its place.
//!
//! Refuses to tell a dead one from one that runs elsewhere where nothing shows it: it
//! names what is there and what helps, and touches nothing.

use backstay_model::{Finding, FindingLevel};

use super::super::super::connect::{Session, column};
use super::super::super::facts::quoted_identifier;
use super::super::target::ReloadTarget;
use super::kept_name;
use crate::{Error, Result};

/// Between the first part of a name and the time, while a database is filled.
const FILLS: &str = "_fills_";

/// Beside the old one until they are swapped, and found by its name when a crash left it.
/// `kept` is `orders_before_20261121T020000Z`, and this one letter shorter.
pub fn temporary_name(kept: &str) -> String {
    let (begin, time) = kept.rsplit_once("_before_").unwrap_or((kept, ""));
    format!("{begin}{FILLS}{time}")
}

/// The beginning of the name of the one whose place it was to take, and the time.
fn of_temporary(found: &str) -> Option<(&str, &str)> {
    let (begin, time) = found.rsplit_once(FILLS)?;
    let is_time = time.len() == 16
        && time.bytes().enumerate().all(|(at, byte)| match at {
            8 => byte == b'T',
            15 => byte == b'Z',
            _ => byte.is_ascii_digit(),
        });
    is_time.then_some((begin, time))
}

fn is_temporary_of(name: &str, found: &str) -> bool {
    of_temporary(found).is_some_and(|(begin, time)| kept_name(name, time) == format!("{begin}_before_{time}"))
}

/// Each database, whether it is open, and whether somebody works on it: people, or whoever
/// fills or swaps it, who marks it, for in between he has no session in it. The server's own
/// workers come to every database now and then. A session whose kind may not be seen counts.
const DATABASES: &str = "SELECT datname::text, datallowconn, \
                         (SELECT count(*) FROM pg_stat_activity a WHERE a.datid = d.oid \
                          AND (a.backend_type = 'client backend' OR a.backend_type IS NULL)) \
                         + (SELECT count(*) FROM pg_locks l WHERE l.locktype = 'advisory' \
                            AND l.classid::int8 = $1::int4 \
                            AND l.objid::int8 = hashtext(d.datname::text)::int8 & 4294967295) \
                         FROM pg_database d WHERE NOT datistemplate ORDER BY 1";
/// The letters of `bkst`: what else locks by numbers has others.
const MARK: i32 = 0x626b_7374;

/// What swaps of any database have left that nobody fills any more, for whoever looks at the
/// server as a whole: each database, and what is known of it.
pub async fn left_by_swaps(session: &Session) -> Result<Vec<Finding>> {
    let mut shut = Vec::new();
    let mut left = Vec::new();
    for row in &session.query("look for what swaps have left", DATABASES, &[&MARK]).await? {
        let (found, is_open, sessions): (String, bool, i64) =
            (column(row, 0)?, column(row, 1)?, column(row, 2)?);
        if of_temporary(&found).is_some() && sessions == 0 {
            left.push(found);
        } else if !is_open {
            shut.push(found);
        }
    }
    let told = left.into_iter().map(|found| {
        let kept = shut.iter().find(|name| is_temporary_of(name, &found));
        match kept {
            Some(name) => Finding::error(
                name,
                format!(
                    "a restore that was killed has left it shut: nobody gets in, and {found} lies beside it"
                ),
                format!("`ALTER DATABASE {} ALLOW_CONNECTIONS true`", quoted_identifier(name)),
            ),
            None => Finding::warning(
                &found,
                "a restore that was killed has left this database",
                format!("if no restore runs now: `DROP DATABASE {} WITH (FORCE)`", quoted_identifier(&found)),
            ),
        }
    });
    let mut told: Vec<Finding> = told.collect();
    // The grave ones first.
    told.sort_by_key(|finding| finding.level != FindingLevel::Error);
    Ok(told)
}

/// A mark that lasts until it is dropped.
pub struct Marked {
    _session: Session,
}

impl ReloadTarget {
    /// Marks `temporary`, which is going to be filled and to take the place of `name`. Only a
    /// sign for others: without a place to stand in, or the right to, there is none.
    pub async fn mark(&self, temporary: &str, name: &str) -> Option<Marked> {
        // Not `template1`: nobody could make a database meanwhile.
        const PLACE: &str = "postgres";
        let marked = async {
            let session = self.session(Some(PLACE)).await?;
            session.hold(self.version_number()).await?;
            let statement = "SELECT pg_advisory_lock_shared($1::int4, hashtext($2::text))::text";
            session.query("mark what is being filled", statement, &[&MARK, &temporary]).await?;
            Ok::<_, Error>(Marked { _session: session })
        };
        if name == PLACE {
            return None;
        }
        marked.await.inspect_err(|error| tracing::debug!(%error, temporary, "it is not marked")).ok()
    }

    /// What lies about of earlier swaps of this database. An error when it is shut.
    pub async fn remains_of_swap(&self, name: &str) -> Result<Vec<Finding>> {
        let session = self.session(None).await?;
        let mut is_shut = false;
        let mut temporary = Vec::new();
        for row in &session.query("look for what swaps have left", DATABASES, &[&MARK]).await? {
            let (found, is_open, sessions): (String, bool, i64) =
                (column(row, 0)?, column(row, 1)?, column(row, 2)?);
            is_shut |= found == name && !is_open;
            if sessions == 0 && is_temporary_of(name, &found) {
                temporary.push(found);
            }
        }
        if is_shut {
            return Err(Error::DatabaseShut { name: name.to_owned(), temporary });
        }
        let told = temporary.into_iter().map(|found| {
            let remedy = format!(
                "if no restore of {name} runs now: `DROP DATABASE {} WITH (FORCE)`",
                quoted_identifier(&found)
            );
            Finding::warning(found, "a restore that was killed has left this database", remedy)
        });
        Ok(told.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_filled_is_called_after_the_one_whose_place_it_takes_and_found_by_that() {
        let time = "20261121T020000Z";
        assert_eq!(temporary_name("orders_before_20261121T020000Z"), "orders_fills_20261121T020000Z");
        for name in ["orders", "a_fills_b", &"ä".repeat(31), "x_before_y"] {
            assert!(is_temporary_of(name, &temporary_name(&kept_name(name, time))), "{name}");
        }
        for other in
            ["orders", "orders_fills_", "orders_fills_20261121T020000", "stock_fills_20261121T020000Z"]
        {
            assert!(!is_temporary_of("orders", other), "{other}");
        }
    }
}
