//! How the log of a stream is named, and where its timelines came from.
//!
//! A lineage begins with a full synchronisation that knows nothing of another one, and is called
//! after the replication id of that. Where a server takes over and goes on in the same stream,
//! it gives that another id: that is the next timeline. Offsets count on.
//!
//! Refuses to guess: a stream with an unknown id that does not go on where another ended is a
//! lineage of its own.

use backstay_model::log::history::History;
use backstay_model::{LogId, Lsn, TimelineId};

use super::sync::is_replication_id;

/// Before the id of the timeline itself.
const OWN: &str = "# ";

/// The name of one timeline of a lineage.
pub fn log_id(lineage: &str, timeline: TimelineId) -> LogId {
    LogId { lineage: lineage.to_owned(), timeline: format!("{:08X}", timeline.0) }
}

/// Where the timelines of one lineage came from, and how the newest is called by servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamHistory {
    /// Oldest first: its number, where the next one goes on, its id.
    pub ancestors: Vec<(TimelineId, u64, String)>,
    pub replication_id: String,
}

impl StreamHistory {
    /// Of the first timeline.
    pub fn first(lineage: &str) -> StreamHistory {
        StreamHistory { ancestors: Vec::new(), replication_id: lineage.to_owned() }
    }

    /// Of a timeline with this number; another server took over behind this offset. What comes then has
    /// any higher number: one may have been given to a timeline of which nothing was stored.
    pub fn goes_on(mut self, own: TimelineId, offset: u64, replication_id: &str) -> StreamHistory {
        let ended = (own, offset, std::mem::take(&mut self.replication_id));
        self.ancestors.push(ended);
        StreamHistory { replication_id: replication_id.to_owned(), ..self }
    }

    /// Lines as those of PostgreSQL's `.history`: timeline, position, and the id for the reason.
    pub fn to_text(&self) -> String {
        let ancestors = self
            .ancestors
            .iter()
            .map(|(timeline, offset, id)| format!("{timeline}\t{}\t{id}\n", Lsn(*offset)));
        ancestors.chain([format!("{OWN}{}\n", self.replication_id)]).collect()
    }

    /// `None` for what is none of a stream.
    pub fn parse(text: &str) -> Option<StreamHistory> {
        let known = History::parse(text).ok()?;
        let ids = text.lines().filter(|line| !line.starts_with(OWN)).map(|line| line.split('\t').nth(2));
        let ids = ids.map(|id| id.filter(|id| is_replication_id(id)).map(str::to_owned));
        let ancestors = known.ancestors.into_iter().zip(ids);
        let ancestors: Option<Vec<_>> =
            ancestors.map(|((timeline, at), id)| Some((timeline, at.0, id?))).collect();
        let own = text.lines().find_map(|line| line.strip_prefix(OWN)).filter(|id| is_replication_id(id))?;
        Some(StreamHistory { ancestors: ancestors?, replication_id: own.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_is_read_as_it_was_written_and_by_whoever_reads_those_of_postgresql() {
        let id = |digit: char| digit.to_string().repeat(40);
        let first = StreamHistory::first(&id('a'));
        let third = first.goes_on(TimelineId(1), 1234, &id('b'));
        let third = third.goes_on(TimelineId(2), 99_999_999_999, &id('c'));
        let text = third.to_text();
        assert_eq!(StreamHistory::parse(&text), Some(third));
        let ways = History::parse(&text).unwrap().ancestors;
        assert_eq!(ways, [(TimelineId(1), Lsn(1234)), (TimelineId(2), Lsn(99_999_999_999))]);
        for text in ["", "1\t0/10\tno recovery target specified\n", "1\t0/10\tx\n# y\n", "# ../../etc\n"] {
            assert_eq!(StreamHistory::parse(text), None, "{text:?}");
        }
    }
}
