//! Which tablespaces a backup has, and which came into being while it ran.
//!
//! The server notes them when the backup begins, after its checkpoint; a restore
//! puts only these where it was told to. One that is made later is in the log, and
//! the log knows nothing of a restore: replaying it makes a link to the *old* place.
//! On the machine of the source that is the directory of a living server. So late
//! ones are noted, a person is told, and a place of theirs that is in use is
//! refused like any other target.
//!
//! One that lies in the data directory itself is no tablespace for a backup: PostgreSQL
//! 15 sends nothing of it where its map of tablespaces is asked for, and recovery stops
//! at the directory unless `allow_in_place_tablespaces` is on.

use backstay_model::Finding;

use super::connect::{Session, column};
use super::facts::Tablespace;
use super::walsender;
use crate::{Error, Result};

/// What the server has now.
pub async fn list(session: &Session) -> Result<Vec<Tablespace>> {
    let statement = "SELECT oid, spcname::text, pg_tablespace_location(oid) FROM pg_tablespace \
                     WHERE pg_tablespace_location(oid) <> '' ORDER BY oid";
    let rows = session.query("list the tablespaces", statement, &[]).await?;
    let space =
        |row| Ok(Tablespace { oid: column(row, 0)?, name: column(row, 1)?, location: column(row, 2)? });
    rows.iter().map(space).collect()
}

/// Refuses those that lie inside of the data directory.
pub fn refuse_inside(spaces: &[Tablespace]) -> Result<()> {
    let inside = spaces.iter().filter(|space| !space.location.starts_with('/'));
    let names: Vec<String> = inside.map(|space| space.name.clone()).collect();
    if names.is_empty() { Ok(()) } else { Err(Error::TablespacesInside { names }) }
}

/// What the server sends, under the names that a list of about the same time has.
pub(super) fn sent(spaces: &[walsender::Tablespace], listed: &[Tablespace]) -> Vec<Tablespace> {
    let mut sent: Vec<Tablespace> = spaces
        .iter()
        .filter_map(|space| Some((space.oid?, space.location.clone()?)))
        .map(|(oid, location)| {
            let known = listed.iter().find(|space| space.oid == oid);
            Tablespace { oid, name: known.map(|space| space.name.clone()).unwrap_or_default(), location }
        })
        .collect();
    sent.sort_by_key(|space| space.oid);
    sent
}

/// Those of a later list that the backup's own does not have.
pub(super) fn late(listed: Vec<Tablespace>, noted: &[u32]) -> Result<Vec<Tablespace>> {
    refuse_inside(&listed)?;
    Ok(listed.into_iter().filter(|space| !noted.contains(&space.oid)).collect())
}

pub(super) fn finding(late: &[Tablespace]) -> Option<Finding> {
    let first = late.first()?;
    let names: Vec<&str> = late.iter().map(|space| space.name.as_str()).collect();
    Some(Finding::warning(
        format!("tablespace {}", names.join(", ")),
        format!(
            "was made while the backup ran: a restore puts it at its old place, {}, and is refused where that \
             is in use",
            first.location
        ),
        "run `backstay backup` again",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space(oid: u32, location: &str) -> Tablespace {
        Tablespace { oid, name: format!("space{oid}"), location: location.to_owned() }
    }

    #[test]
    fn what_is_sent_keeps_the_name_it_was_listed_by() {
        let root = walsender::Tablespace { oid: None, location: None, size_kib: 9 };
        let of = |oid, location: &str| walsender::Tablespace {
            oid: Some(oid),
            location: Some(location.to_owned()),
            size_kib: 1,
        };
        let found = sent(&[of(17, "/b"), of(16, "/a"), root], &[space(16, "/a"), space(18, "/c")]);
        assert_eq!(found[0], space(16, "/a"));
        assert_eq!((found[1].oid, found[1].name.as_str(), found.len()), (17, "", 2));
    }

    #[test]
    fn a_tablespace_that_the_backup_did_not_begin_with_is_late() {
        let listed = vec![space(16, "/a"), space(17, "/b")];
        assert_eq!(late(listed.clone(), &[16]).unwrap(), [space(17, "/b")]);
        assert_eq!(late(listed, &[16, 17]).unwrap(), []);
        assert_eq!(finding(&[]), None);
        assert!(finding(&[space(17, "/b")]).unwrap().message.contains("/b"));
    }

    #[test]
    fn a_tablespace_inside_of_the_data_directory_is_refused_from_the_beginning_and_late() {
        let listed = vec![space(16, "/a"), space(18, "pg_tblspc/18")];
        refuse_inside(&listed[..1]).unwrap();
        let error = refuse_inside(&listed).unwrap_err();
        assert!(error.to_string().contains("tablespace space18 lies inside"), "{error}");
        assert!(late(listed, &[16]).is_err());
    }
}
