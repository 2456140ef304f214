//! The database that an archive was taken of: how it was made, and what was set for all
//! of it. `pg_restore` gives either only to a database of the same name.

use super::super::super::facts::quoted_identifier;
use super::super::script::{Token, tokens};
use super::Archive;

/// How a database is made: encoding and locale, in the order of the statement.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DatabaseShape {
    pub(in crate::postgres::reload) options: Vec<(String, String)>,
}

/// What is taken over; a tablespace or an owner may not exist elsewhere.
const KEPT: [&str; 8] = [
    "encoding",
    "locale_provider",
    "locale",
    "lc_collate",
    "lc_ctype",
    "icu_locale",
    "icu_rules",
    "builtin_locale",
];

impl DatabaseShape {
    /// A statement that makes such a database. Of `template0`, in which nothing stands in
    /// the way of any encoding or of the dump.
    pub fn statement(&self, name: &str) -> String {
        let mut statement = format!("CREATE DATABASE {} WITH TEMPLATE = template0", quoted_identifier(name));
        for (key, value) in &self.options {
            let value = match key.as_str() {
                // A keyword there.
                "locale_provider" => quoted_identifier(value),
                _ => format!("'{}'", value.replace('\'', "''")),
            };
            statement.push_str(&format!(" {} = {value}", key.to_uppercase()));
        }
        statement
    }
}

impl Archive {
    /// `None` when the archive does not say.
    pub fn database_shape(&self) -> Option<DatabaseShape> {
        let definition = &self.of_kind("DATABASE").next()?.definition;
        let tokens = tokens(definition);
        let mut options = Vec::new();
        for three in tokens.windows(3) {
            let [Token::Word(key), Token::Mark('='), value] = three else { continue };
            let value = match value {
                Token::Text(text) => text,
                Token::Word(word) => word,
                Token::Name(_) | Token::Mark(_) => continue,
            };
            if KEPT.contains(&key.as_str()) {
                options.push((key.clone(), value.clone()));
            }
        }
        Some(DatabaseShape { options })
    }

    /// The statements that give another database the settings and the grants of this one.
    pub fn database_settings(&self, name: &str) -> Vec<String> {
        let new = quoted_identifier(name);
        // `pg_dump` also quotes keywords.
        let old = [quoted_identifier(&self.database), format!("\"{}\"", self.database.replace('"', "\"\""))];
        let mut statements = Vec::new();
        let is_acl = |kind: &str, name: &str| kind == "ACL" && name.starts_with("DATABASE ");
        for entry in &self.entries {
            if entry.kind != "DATABASE PROPERTIES" && !is_acl(&entry.kind, &entry.name) {
                continue;
            }
            for line in entry.definition.lines() {
                let renamed = old.iter().find_map(|old| {
                    ["ALTER DATABASE ", "IN DATABASE ", "ON DATABASE "].iter().find_map(|words| {
                        let (before, after) = line.split_once(&format!("{words}{old} "))?;
                        Some(format!("{before}{words}{new} {after}"))
                    })
                });
                // It says that a restore is going on; one here says so itself.
                statements.extend(renamed.filter(|line| !line.contains("timescaledb.restoring")));
            }
        }
        statements
    }
}

#[cfg(test)]
mod tests {
    use super::super::Entry;
    use super::*;

    fn archive(entries: &[(&str, &str, &str)]) -> Archive {
        let entry = |(kind, name, definition): &(&str, &str, &str)| Entry {
            id: 1,
            kind: (*kind).to_owned(),
            schema: None,
            name: (*name).to_owned(),
            owner: None,
            tablespace: None,
            definition: (*definition).to_owned(),
            depends_on: Vec::new(),
        };
        Archive {
            database: "it's WITH LOCALE = 'x'".into(),
            server_version: "17.1".into(),
            tool_version: "17.1".into(),
            begun_at: None,
            entries: entries.iter().map(entry).collect(),
            layout: Default::default(),
        }
    }

    #[test]
    fn a_new_database_has_the_locale_of_the_old_and_nothing_of_its_name() {
        let made = "CREATE DATABASE \"it's WITH LOCALE = 'x'\" WITH TEMPLATE = template0 ENCODING = 'UTF8' \
                    LOCALE_PROVIDER = icu LOCALE = 'C' ICU_LOCALE = 'de-u-it''s' TABLESPACE = fast;";
        let shape = archive(&[("DATABASE", "x", made)]).database_shape().unwrap();
        assert_eq!(
            shape.statement("new one"),
            "CREATE DATABASE \"new one\" WITH TEMPLATE = template0 ENCODING = 'UTF8' LOCALE_PROVIDER = icu \
             LOCALE = 'C' ICU_LOCALE = 'de-u-it''s'"
        );
        assert_eq!(archive(&[]).database_shape(), None);
    }

    #[test]
    fn settings_and_grants_follow_to_the_new_name() {
        let old = "\"it's WITH LOCALE = 'x'\"";
        let settings = format!(
            "ALTER DATABASE {old} SET search_path TO 'a', 'b';\nALTER DATABASE {old} SET \"timescaledb.restoring\" \
             TO 'on';\nALTER ROLE r IN DATABASE {old} SET work_mem TO '1MB';\n"
        );
        let grants = format!(
            "REVOKE CONNECT,TEMPORARY ON DATABASE {old} FROM PUBLIC;\nGRANT CONNECT ON DATABASE {old} TO app;"
        );
        let found = archive(&[
            ("DATABASE PROPERTIES", "x", settings.as_str()),
            ("ACL", "DATABASE x", grants.as_str()),
            ("ACL", "TABLE t", "GRANT ALL ON TABLE t TO app;"),
        ]);
        assert_eq!(
            found.database_settings("new"),
            [
                "ALTER DATABASE new SET search_path TO 'a', 'b';",
                "ALTER ROLE r IN DATABASE new SET work_mem TO '1MB';",
                "REVOKE CONNECT,TEMPORARY ON DATABASE new FROM PUBLIC;",
                "GRANT CONNECT ON DATABASE new TO app;",
            ]
        );
    }
}
