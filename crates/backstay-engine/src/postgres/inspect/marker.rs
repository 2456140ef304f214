//! The end of statements: the line that `pg_dump` writes last, so that a script which was
//! cut off between two statements is not taken for a whole one.

use super::InspectKind;

/// The last bytes of statements.
#[derive(Default)]
pub(in crate::postgres) struct Tail(Vec<u8>);

impl Tail {
    /// The marker stands among the last lines; a newer `pg_dump` writes one more after it.
    const KEPT: usize = 4096;

    pub fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(&bytes[bytes.len().saturating_sub(Self::KEPT)..]);
        let surplus = self.0.len().saturating_sub(Self::KEPT);
        self.0.drain(..surplus);
    }

    /// Whether nothing that does something follows the marker.
    pub fn ends_as(&self, kind: InspectKind) -> bool {
        let marker: &[u8] = match kind {
            InspectKind::Cluster => b"-- PostgreSQL database cluster dump complete",
            _ => b"-- PostgreSQL database dump complete",
        };
        let lines = self.0.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end);
        // A key that was cut is no key: whoever feeds it to `psql` is refused.
        if lines.clone().next_back().is_some_and(|last| last.starts_with(b"\\unrestrict")) {
            return false;
        }
        let does_nothing =
            |line: &&[u8]| line.is_empty() || line.starts_with(b"--") || line.starts_with(b"\\unrestrict ");
        lines.rev().take_while(does_nothing).any(|line| line == marker)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail(script: &str, piece: usize) -> Tail {
        let mut tail = Tail::default();
        script.as_bytes().chunks(piece).for_each(|bytes| tail.push(bytes));
        tail
    }

    #[test]
    fn the_marker_counts_at_the_end_only_however_the_bytes_are_cut() {
        let long = "x".repeat(9000);
        let end = "--\n-- PostgreSQL database dump complete\n--\n\n";
        for piece in [1, 7, 4096, 20_000] {
            assert!(tail(&format!("{long}\n{end}"), piece).ends_as(InspectKind::Statements));
            assert!(
                tail(&format!("{long}\r\n{end}\\unrestrict abc\n\n"), piece).ends_as(InspectKind::Statements)
            );
            assert!(!tail(&format!("{long}\n{end}\\unrestrict ab"), piece).ends_as(InspectKind::Statements));
            assert!(!tail(&format!("{long}\n{end}{long}"), piece).ends_as(InspectKind::Statements));
            assert!(!tail(&format!("{end}SELECT 1;\n"), piece).ends_as(InspectKind::Statements));
        }
        assert!(!tail("", 1).ends_as(InspectKind::Statements));
    }

    #[test]
    fn the_end_of_one_database_is_not_that_of_a_cluster() {
        let one = tail("--\n-- PostgreSQL database dump complete\n--\n", 100);
        assert!(one.ends_as(InspectKind::Statements) && !one.ends_as(InspectKind::Cluster));
        let whole = tail("--\n-- PostgreSQL database cluster dump complete\n--\n", 100);
        assert!(whole.ends_as(InspectKind::Cluster) && !whole.ends_as(InspectKind::Statements));
    }
}
