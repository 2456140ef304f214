//! Whether sequences stand behind their columns: one that does not hands out numbers that
//! are taken.

use std::time::Instant;

use backstay_model::Finding;

use super::super::super::connect::{Session, column};
use super::super::super::dump::RelationName;
use super::super::expected::{Expected, Stand};
use super::super::used_sequences::USED;
use super::sample::{Asked, ask};
use super::{NAMED, Sound};
use crate::Result;

/// One question for each sequence that a column owns or takes its default from: where it
/// stands, and the last number of the column in its direction. Behind [`USED`]; a partition's
/// column, and that of a chunk, is asked with its parent.
const SEQUENCES: &str = "
    SELECT sn.nspname::text, s.relname::text, format('%I.%I.%I', tn.nspname, t.relname, a.attname),
           q.seqincrement > 0,
           format('SELECT (SELECT %s(%I)::int8 FROM %I.%I), last_value, is_called FROM %I.%I',
                  CASE WHEN q.seqincrement > 0 THEN 'max' ELSE 'min' END, a.attname, tn.nspname, t.relname,
                  sn.nspname, s.relname)
    FROM used u JOIN pg_class s ON s.oid = u.sequence AND s.relkind = 'S'
    JOIN pg_sequence q ON q.seqrelid = s.oid JOIN pg_namespace sn ON sn.oid = s.relnamespace
    JOIN pg_class t ON t.oid = u.relation JOIN pg_namespace tn ON tn.oid = t.relnamespace
    JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = u.number JOIN pg_type y ON y.oid = a.atttypid
    WHERE NOT (u.by_default AND EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = u.relation))
      AND coalesce(nullif(y.typbasetype, 0), y.oid)
          IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype, 'numeric'::regtype)
      AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = 'pg_class'::regclass AND e.objid = s.oid
                      AND e.deptype = 'e') ORDER BY 1, 2, 3";

pub(super) async fn look(
    session: &Session,
    expected: &Expected,
    deadline: Instant,
    sound: &mut Sound,
) -> Result<()> {
    let (mut behind, mut as_dumped, mut unseen) = (Vec::new(), Vec::new(), Vec::new());
    for row in &session.query("list the sequences", &format!("{USED}{SEQUENCES}"), &[]).await? {
        let name = RelationName { schema: column(row, 0)?, name: column(row, 1)? };
        let (of, rises, statement): (String, bool, String) =
            (column(row, 2)?, column(row, 3)?, column(row, 4)?);
        let row = match ask(session, deadline, "look at a sequence", &statement).await? {
            Asked::Answered(row) => row,
            Asked::Unseen(reason) | Asked::Bad(reason) => {
                unseen.push(format!("{name}: {reason}"));
                continue;
            }
        };
        sound.checks.sequences += 1;
        let taken: Option<i64> = column(&row, 0)?;
        let stand = Stand { last: column(&row, 1)?, is_called: column(&row, 2)? };
        let is_behind = taken.is_some_and(|taken| match rises {
            true => taken > stand.last || (taken == stand.last && !stand.is_called),
            false => taken < stand.last || (taken == stand.last && !stand.is_called),
        });
        if is_behind {
            let was = expected.sequences.as_ref().map(|known| known.get(&name));
            let told = format!("sequence {name} of {of}");
            match was {
                Some(was) if was != Some(&stand) => behind.push(told),
                _ => as_dumped.push(told),
            }
        }
    }
    sound.miss("behind the numbers of its column, and was not in the dump", &behind);
    sound.doubt(
        "behind the numbers of its column, so that it hands out numbers that are taken",
        &as_dumped,
        "as it was dumped: `SELECT setval(…)` moves it",
    );
    for told in unseen.iter().take(NAMED) {
        sound.findings.push(Finding::warning(
            "sequences",
            format!("could not be compared with its column: {told}"),
            "`SELECT last_value` of it, and `max` of the column",
        ));
    }
    Ok(())
}
