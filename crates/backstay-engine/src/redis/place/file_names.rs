//! What the settings of a server call its files.
//!
//! Refuses a name that leads elsewhere: it comes out of a repository.

/// What the settings of a server call its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileNames {
    pub snapshot: String,
    pub append_only_directory: String,
    pub append_only: String,
    /// Whether the source appends.
    pub appends: bool,
}

impl Default for FileNames {
    fn default() -> Self {
        FileNames {
            snapshot: "dump.rdb".to_owned(),
            append_only_directory: "appendonlydir".to_owned(),
            append_only: "appendonly.aof".to_owned(),
            appends: false,
        }
    }
}

impl FileNames {
    /// Of the settings that lie in a backup. A name that leads elsewhere is not followed.
    pub fn of(settings: &[u8]) -> FileNames {
        let settings: serde_json::Value = serde_json::from_slice(settings).unwrap_or_default();
        let named = |name: &str, usual: String| match settings[name].as_str() {
            Some(name) if !name.is_empty() && !name.starts_with('.') && !name.contains('/') => {
                name.to_owned()
            }
            _ => usual,
        };
        let usual = FileNames::default();
        FileNames {
            snapshot: named("dbfilename", usual.snapshot),
            append_only_directory: named("appenddirname", usual.append_only_directory),
            append_only: named("appendfilename", usual.append_only),
            appends: settings["appendonly"].as_str() == Some("yes"),
        }
    }

    /// The snapshot as the base of the append-only files, in their directory.
    pub fn base(&self) -> String {
        format!("{}.1.base.rdb", self.append_only)
    }

    /// What names it to a server that appends; without it the server starts empty.
    pub fn manifest(&self) -> String {
        format!("{}.manifest", self.append_only)
    }

    /// What is replayed behind it.
    pub fn increment(&self) -> String {
        format!("{}.1.incr.aof", self.append_only)
    }

    pub fn increment_text(&self) -> String {
        format!("file {} seq 1 type i\n", self.increment())
    }

    pub fn manifest_text(&self) -> String {
        format!("file {} seq 1 type b\n", self.base())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_called_as_the_source_called_them_and_never_lead_elsewhere() {
        let settings = br#"{"dbfilename":"a.rdb","appenddirname":"../up","appendfilename":""}"#;
        let names = FileNames::of(settings);
        assert_eq!(names, FileNames { snapshot: "a.rdb".to_owned(), ..FileNames::default() });
        assert_eq!(FileNames::of(b"not json"), FileNames::default());
    }
}
