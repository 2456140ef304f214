//! The two ways into a server, and which of them a configuration gives.

use std::path::Path;

use backstay_engine::postgres::PostgresSettings;
use backstay_model::{Finding, InstanceId};
use serde::Serialize;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// From the data directory.
    Local,
    /// Through the replication protocol.
    Remote,
}

impl Way {
    /// Local when the data directory is named and readable. A directory that is
    /// named and cannot be read is told: the other way works, and is slower.
    pub fn choose(instance: &InstanceId, settings: &PostgresSettings) -> (Way, Vec<Finding>) {
        let Some(directory) = &settings.data_directory else { return (Way::Remote, Vec::new()) };
        match look_into(directory) {
            Ok(()) => (Way::Local, Vec::new()),
            Err(reason) => {
                let finding = Finding::warning(
                    directory.display().to_string(),
                    format!("the data directory cannot be read ({reason}), so backups come over the network"),
                    format!(
                        "run as the owner of the directory, or take `data_directory` out of [instance.{instance}]"
                    ),
                );
                (Way::Remote, vec![finding])
            }
        }
    }
}

fn look_into(directory: &Path) -> std::io::Result<()> {
    std::fs::read_dir(directory)?;
    std::fs::File::open(directory.join("global/pg_control")).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_is_named_and_cannot_be_read_is_told() {
        let id: InstanceId = "orders".parse().unwrap();
        let empty = tempfile::tempdir().unwrap();
        let mut settings = PostgresSettings::default();
        assert_eq!(Way::choose(&id, &settings), (Way::Remote, Vec::new()));
        settings.data_directory = Some(empty.path().to_owned());
        let (way, findings) = Way::choose(&id, &settings);
        assert_eq!((way, findings.len()), (Way::Remote, 1));
        assert!(findings[0].remedy.contains("[instance.orders]"));

        std::fs::create_dir(empty.path().join("global")).unwrap();
        std::fs::write(empty.path().join("global/pg_control"), b"").unwrap();
        assert_eq!(Way::choose(&id, &settings), (Way::Local, Vec::new()));
    }
}
