//! What `pg_dump` writes beside a dump, with a word on what is known to be harmless.

use backstay_model::dump::DumpWarning;

/// Tables of TimescaleDB's own that refer to each other in a circle.
const CIRCULAR: [&str; 3] = ["hypertable", "chunk", "continuous_agg"];

pub(super) fn understood(messages: Vec<String>, left_out: u64) -> Vec<DumpWarning> {
    let mut warnings: Vec<DumpWarning> = messages
        .into_iter()
        .map(|message| {
            let harmless = why_harmless(&message).map(str::to_owned);
            DumpWarning { message, harmless }
        })
        .collect();
    if left_out > 0 {
        let message = format!("{left_out} more messages were left out");
        warnings.push(DumpWarning { message, harmless: None });
    }
    warnings
}

fn why_harmless(message: &str) -> Option<&'static str> {
    if message.contains("circular foreign-key constraints") {
        let mut details = message.split("; ").filter_map(|part| part.strip_prefix("detail: "));
        let is_own = details.any(|table| CIRCULAR.contains(&table.trim()));
        return Some(match is_own {
            true => {
                "tables of TimescaleDB's own catalogue refer to each other; a whole dump makes the constraints \
                 after the rows"
            }
            false => "a whole dump makes the constraints after the rows",
        });
    }
    let says_chunks =
        message.contains("hypertable data are in the chunks") || message.contains("stored in the chunks");
    says_chunks
        .then_some("the rows of a hypertable lie in its chunks, which are dumped as tables of their own")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_timescaledb_says_is_known_and_what_is_not_is_kept_as_it_is() {
        let messages = [
            "warning: there are circular foreign-key constraints on this table:; detail: hypertable; hint: You",
            "NOTICE:  hypertable data are in the chunks, no data will be copied",
            "warning: could not find where to insert IF EXISTS",
        ];
        let understood = understood(messages.map(str::to_owned).to_vec(), 3);
        assert!(understood[0].harmless.as_deref().unwrap().contains("TimescaleDB"));
        assert!(understood[1].harmless.as_deref().unwrap().contains("chunks"));
        assert_eq!(understood[2].harmless, None);
        assert_eq!(understood[3].message, "3 more messages were left out");
    }
}
