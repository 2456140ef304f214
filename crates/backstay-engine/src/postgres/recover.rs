//! What a restored directory is told before its server starts.
//!
//! A backup holds its own log, so recovery needs neither `recovery.signal` nor a
//! command: the server replays what lies in `pg_wal`, reaches the end of the
//! backup and opens. What must not survive are the settings of the old life: a
//! copy that archives into the source's archive, or connects to the source's
//! primary, does harm to a server that is still alive.

/// The file the server itself writes settings to; it wins over `postgresql.conf`.
pub const AUTO_CONF: &str = "postgresql.auto.conf";

/// Settings of an older recovery or of a life as a standby.
const OLD_LIFE: [&str; 9] = [
    "restore_command",
    "recovery_end_command",
    "archive_cleanup_command",
    "primary_conninfo",
    "primary_slot_name",
    "promote_trigger_file",
    "synchronized_standby_slots",
    "sync_replication_slots",
    // A copy has no standbys, and would wait for them at every commit.
    "synchronous_standby_names",
];

/// The lines that say where the settings below come from.
const MARK: &str = "# Set by backstay at restore:";

/// The name of a cluster's present life. A server carries settings with a dot in
/// their name without knowing them.
pub const INCARNATION: &str = "backstay.incarnation";

/// What the lines behind the mark say of themselves.
const REASONS: [&str; 3] = [
    "# a copy must not write into the archive of its source",
    "# tells this life of the cluster from that of its source: leave it as it is",
    super::recovery::REASON,
];

/// `postgresql.auto.conf` of the restored copy, made of the one in the backup.
pub fn auto_conf(old: &str, keep_archiving: bool, incarnation: &str) -> String {
    let mut text = String::with_capacity(old.len() + 512);
    for line in old.lines().filter(|line| line.trim() != MARK && !REASONS.contains(&line.trim())) {
        let name = setting_of(line);
        if name.as_deref() == Some(INCARNATION) {
            continue;
        }
        let old_life = name.as_deref().is_some_and(|name| {
            OLD_LIFE.contains(&name) || name.starts_with("recovery_target") || name == "archive_mode"
        });
        let keep = !old_life || (keep_archiving && name.as_deref() == Some("archive_mode"));
        if !keep {
            text.push('#');
        }
        text.push_str(line);
        text.push('\n');
    }
    let [of_archive, of_incarnation, _] = REASONS;
    text.push_str(&format!("{MARK}\n{of_incarnation}\n{INCARNATION} = '{incarnation}'\n"));
    if !keep_archiving {
        text.push_str(&format!("{of_archive}\narchive_mode = 'off'\n"));
    }
    text
}

/// The main file of settings, by the name it has inside of a data directory.
pub const MAIN_CONF: &str = "postgresql.conf";

/// A `postgresql.conf` that lay outside of its data directory, made to fit into
/// the restored one: what leads back to the old places is commented out.
pub fn moved_in_conf(old: &str) -> String {
    const OLD_PLACES: [&str; 7] = [
        "data_directory",
        "hba_file",
        "ident_file",
        "external_pid_file",
        "include",
        "include_dir",
        "include_if_exists",
    ];
    let mut text = String::with_capacity(old.len() + 64);
    for line in old.lines() {
        if setting_of(line).is_some_and(|name| OLD_PLACES.contains(&name.as_str())) {
            text.push_str("#restored elsewhere: ");
        }
        text.push_str(line);
        text.push('\n');
    }
    text
}

/// The name a line sets, in lower case, as the server reads it.
fn setting_of(line: &str) -> Option<String> {
    let name: String = line
        .trim_start()
        .chars()
        .take_while(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '.'))
        .collect();
    if name.is_empty() { None } else { Some(name.to_ascii_lowercase()) }
}

/// One line of `tablespace_map`: which link leads where. Line ends and backslashes
/// in a path are escaped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MappedTablespace {
    pub oid: u32,
    pub location: String,
}

/// `None` when it is not such a file.
pub fn parse_tablespace_map(text: &str) -> Option<Vec<MappedTablespace>> {
    let mut entries = Vec::new();
    let mut line = String::new();
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => line.push(letters.next()?),
            '\n' | '\r' => {
                if !line.is_empty() {
                    let (oid, location) = line.split_once(' ')?;
                    entries.push(MappedTablespace { oid: oid.parse().ok()?, location: location.to_owned() });
                }
                line.clear();
            }
            letter => line.push(letter),
        }
    }
    if line.is_empty() { Some(entries) } else { None }
}

pub fn tablespace_map(entries: &[MappedTablespace]) -> String {
    let mut text = String::new();
    for entry in entries {
        text.push_str(&format!("{} ", entry.oid));
        for letter in entry.location.chars() {
            if matches!(letter, '\n' | '\r' | '\\') {
                text.push('\\');
            }
            text.push(letter);
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_the_old_life_are_commented_out() {
        let old = "# Do not edit this file manually!\n\
                   work_mem = '8MB'\n\
                   recovery_target_time = '2020-01-01'\n\
                   Primary_ConnInfo = 'host=primary password=x'\n\
                   archive_mode = 'on'\n";
        let new = auto_conf(old, false, "1a");
        let active: Vec<&str> =
            new.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect();
        assert_eq!(active, ["work_mem = '8MB'", "backstay.incarnation = '1a'", "archive_mode = 'off'"]);
        assert!(new.contains("#recovery_target_time"));
        let kept = auto_conf(old, true, "1a");
        assert!(kept.contains("\narchive_mode = 'on'\n") && !kept.contains("'off'"));
        assert!(kept.contains("\nbackstay.incarnation = '1a'\n"), "its log is another one all the same");
    }

    #[test]
    fn a_copy_of_a_copy_is_told_only_once() {
        let twice = auto_conf(&auto_conf("", false, "1a"), false, "2b");
        assert_eq!(twice.lines().filter(|line| *line == "archive_mode = 'off'").count(), 1);
        assert_eq!(twice.lines().filter(|line| *line == MARK).count(), 1);
        assert!(!twice.contains("1a") && twice.contains("2b"), "each life has its own name: {twice}");
        assert_eq!(twice.lines().count(), auto_conf("", false, "1a").lines().count() + 1, "{twice}");
    }

    #[test]
    fn settings_that_lead_back_to_the_old_place_are_commented_out() {
        let old = "data_directory = '/var/lib/postgresql/15/main'\n\
                   # include_dir is below\n  include_dir = 'conf.d'\nwork_mem = 8MB\n";
        let new = moved_in_conf(old);
        let active: Vec<&str> = new.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(active, ["work_mem = 8MB"]);
        assert_eq!(new.lines().count(), 4, "nothing is lost");
    }

    #[test]
    fn a_tablespace_map_reads_back() {
        let entries = [
            MappedTablespace { oid: 16385, location: "/mnt/with space".into() },
            MappedTablespace { oid: 16386, location: "/mnt/back\\slash\nline".into() },
        ];
        let text = tablespace_map(&entries);
        assert_eq!(text, "16385 /mnt/with space\n16386 /mnt/back\\\\slash\\\nline\n");
        assert_eq!(parse_tablespace_map(&text).unwrap(), entries);
        assert_eq!(parse_tablespace_map("").unwrap(), []);
        for bad in ["16385", "x /mnt\n", "16385\n"] {
            assert_eq!(parse_tablespace_map(bad), None, "{bad:?}");
        }
    }
}
