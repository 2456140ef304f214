//! Whether the commands of a stream go on from object to object.
//!
//! Each says in which state of the reading it begins. Whoever has read what is before it can tell
//! whether that is so: bytes of another stream under the right name would not fit.

use std::collections::BTreeMap;

use backstay_engine::redis::commands::CommandReader;
use backstay_model::LogSpan;

use super::objects::Seen;
use crate::archive::redis::instants::SpanFacts;

/// States of the reading, by where they were reached.
#[derive(Default)]
pub(super) struct States(BTreeMap<u64, CommandReader>);

impl States {
    /// What should not be so with an object, in the order of their starts.
    pub fn follow(&mut self, span: LogSpan, seen: &Seen) -> Option<String> {
        self.0.retain(|end, _| *end >= span.start);
        let before = self.0.get(&span.start);
        // Without its state it is read with what is before it.
        let said = match seen.facts.is_null() {
            true => None,
            false => match serde_json::from_value::<SpanFacts>(seen.facts.clone()) {
                Ok(facts) => Some(facts.reader),
                Err(error) => return Some(format!("it does not say in which state it begins: {error}")),
            },
        };
        if said.as_ref().is_some_and(|said| said.at() != span.start) {
            return Some("the state that it says is of another place".to_owned());
        }
        if let (Some(before), Some(said)) = (before, &said)
            && before != said
        {
            return Some("its commands do not go on where those before it ended".to_owned());
        }
        let mut reader = said.or_else(|| before.cloned()).filter(|_| seen.whole)?;
        if let Err(damage) = reader.push(&seen.first) {
            return Some(damage.to_string());
        }
        reader.take_changes();
        reader.take_question();
        self.0.insert(span.end, reader);
        None
    }
}
