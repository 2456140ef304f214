//! What belongs to a database and is in no dump of it under another name: its owner, the
//! settings that hold in it, and who may connect.

use super::super::super::connect::{Session, column};
use crate::Result;

/// Settings whose value is a list of names that is quoted already.
const LISTS: &str =
    "'search_path', 'temp_tablespaces', 'session_preload_libraries', 'local_preload_libraries'";

/// Statements that give `to` what `from` has.
pub(super) async fn statements(session: &Session, from: &str, to: &str) -> Result<Vec<String>> {
    let statement = format!(
        "SELECT format('ALTER DATABASE %I OWNER TO %I', t.datname, pg_get_userbyid(f.datdba))
             FROM pg_database f, pg_database t
             WHERE f.datname = $1 AND t.datname = $2 AND f.datdba <> t.datdba
         UNION ALL
         SELECT format('ALTER DATABASE %I CONNECTION LIMIT %s', $2::text, f.datconnlimit)
             FROM pg_database f WHERE f.datname = $1 AND f.datconnlimit >= 0
         UNION ALL
         SELECT format(CASE WHEN s.setrole = 0 THEN 'ALTER DATABASE %2$I SET %3$I TO %4$s'
                            ELSE 'ALTER ROLE %1$I IN DATABASE %2$I SET %3$I TO %4$s' END,
                       pg_get_userbyid(s.setrole), $2::text, k.name,
                       CASE WHEN k.name IN ({LISTS}) THEN k.value ELSE quote_literal(k.value) END)
             FROM pg_db_role_setting s JOIN pg_database f ON f.oid = s.setdatabase,
                  unnest(s.setconfig) AS c(pair),
                  LATERAL (SELECT split_part(c.pair, '=', 1) AS name,
                                  substr(c.pair, strpos(c.pair, '=') + 1) AS value) k
             WHERE f.datname = $1 AND k.name <> 'timescaledb.restoring'
         UNION ALL
         SELECT format('REVOKE ALL ON DATABASE %I FROM PUBLIC', $2::text)
             FROM pg_database f WHERE f.datname = $1 AND f.datacl IS NOT NULL
         UNION ALL
         SELECT format('GRANT %s ON DATABASE %I TO %s%s', a.privilege_type, $2::text,
                       CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END,
                       CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
             FROM pg_database f, aclexplode(f.datacl) a
             WHERE f.datname = $1 AND a.grantee <> f.datdba"
    );
    let rows = session.query("read what the old database has", &statement, &[&from, &to]).await?;
    rows.iter().map(|row| column(row, 0)).collect()
}
