//! What a server says beside a backup, in warnings that nobody else reads.
//!
//! A server goes on when it meets what it cannot send: a link or a device where it
//! expects a file. It says so in a warning, and the backup lacks the file. Where
//! databases live that is data, and what is restored is not what was there.

use backstay_model::Finding;

use crate::error::ServerMessage;

/// Where nothing may lie that a server passes over.
const DATA: [&str; 3] = ["base/", "global/", "pg_tblspc/"];

pub(super) fn finding(said: &ServerMessage) -> Finding {
    let message = format!("the server warned: {said}");
    match names_data(&said.message) {
        true => Finding::error(
            "base backup",
            message,
            "put the file itself in the place of what is there, then run `backstay backup --full`; or set \
             `data_directory`: the local way follows links",
        ),
        false => {
            Finding::warning("base backup", message, "see the server's log, then run `backstay backup` again")
        }
    }
}

/// Texts and quotes are in the server's language, paths are not: from the data
/// directory on, with or without `./`.
fn names_data(message: &str) -> bool {
    let begins = |at: usize| {
        let before = &message[..at];
        let before = before.strip_suffix("./").unwrap_or(before);
        !before.ends_with(|letter: char| letter.is_alphanumeric() || matches!(letter, '/' | '.' | '_' | '-'))
    };
    DATA.iter().any(|directory| message.match_indices(directory).any(|(at, _)| begins(at)))
}

#[cfg(test)]
mod tests {
    use backstay_model::FindingLevel;

    use super::*;

    fn level(message: &str) -> FindingLevel {
        let said = ServerMessage { code: "01000".into(), message: message.into(), detail: None, hint: None };
        let finding = finding(&said);
        assert!(finding.message.contains(message) && finding.remedy.contains('`'));
        finding.level
    }

    #[test]
    fn a_file_of_a_database_that_was_passed_over_is_an_error_in_every_language() {
        for message in [
            "skipping special file \"./base/5/16384\"",
            "überspringe besondere Datei »./global/1262«",
            "skipping special file \"pg_tblspc/16385/PG_17_202406281/5/16390\"",
            "skipping special file or directory \"./base/5\"",
        ] {
            assert_eq!(level(message), FindingLevel::Error, "{message}");
        }
    }

    #[test]
    fn anything_else_is_a_warning() {
        for message in [
            "skipping special file \"./server.sock\"",
            "skipping special file \"./my_base/pipe\"",
            "skipping special file \"./mine/base/pipe\"",
            "could not read symbolic link",
        ] {
            assert_eq!(level(message), FindingLevel::Warning, "{message}");
        }
    }
}
