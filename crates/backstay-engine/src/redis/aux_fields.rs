//! What a snapshot says of itself before its first key: when it was made, where in the stream of its
//! server it stands, and which database that had selected there.
//!
//! Refuses nothing: what it does not understand it has not found.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::sync::{StreamPlace, is_replication_id};

/// `REDIS` or `VALKEY`, and digits.
const MAGIC_BYTES: usize = 9;
const AUX: u8 = 0xFA;
/// So many bytes at the beginning are enough: some ten short fields.
pub const HEAD_BYTES: usize = 4096;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuxFields(BTreeMap<String, String>);

impl AuxFields {
    /// Of the first bytes of a snapshot.
    pub fn of(head: &[u8]) -> AuxFields {
        let mut fields = AuxFields::default();
        let mut rest = head.get(MAGIC_BYTES..).unwrap_or_default();
        while let Some((AUX, behind)) = rest.split_first().map(|(opcode, behind)| (*opcode, behind)) {
            let Some((name, behind)) = text(behind) else { break };
            let Some((value, behind)) = text(behind) else { break };
            fields.0.insert(name, value);
            rest = behind;
        }
        fields
    }

    /// By the clock of the server, when it began: to the second.
    pub fn made_at(&self) -> Option<Timestamp> {
        Timestamp::from_second(self.number("ctime")?).ok()
    }

    /// The database that the stream goes on in.
    pub fn selected_database(&self) -> Option<u32> {
        u32::try_from(self.number("repl-stream-db")?).ok()
    }

    /// Where it stands in the stream of the server that saved it. One that keeps no stream for anybody
    /// does not say it.
    pub fn place(&self) -> Option<StreamPlace> {
        let replication_id = self.0.get("repl-id").filter(|id| is_replication_id(id))?.clone();
        let offset = u64::try_from(self.number("repl-offset")?).ok()?;
        Some(StreamPlace { replication_id, offset })
    }

    fn number(&self, name: &str) -> Option<i64> {
        self.0.get(name)?.parse().ok()
    }
}

/// A string as the format has it, with a length before it or as a number.
fn text(bytes: &[u8]) -> Option<(String, &[u8])> {
    let (first, rest) = bytes.split_first()?;
    let low = usize::from(first & 0x3F);
    let (length, rest) = match (first >> 6, low) {
        (0, length) => (length, rest),
        (1, high) => {
            let (next, rest) = rest.split_first()?;
            (high << 8 | usize::from(*next), rest)
        }
        (3, 0) => {
            let (number, rest) = rest.split_first_chunk::<1>()?;
            return Some((i8::from_le_bytes(*number).to_string(), rest));
        }
        (3, 1) => {
            let (number, rest) = rest.split_first_chunk::<2>()?;
            return Some((i16::from_le_bytes(*number).to_string(), rest));
        }
        (3, 2) => {
            let (number, rest) = rest.split_first_chunk::<4>()?;
            return Some((i32::from_le_bytes(*number).to_string(), rest));
        }
        _ => return None,
    };
    let (text, rest) = rest.split_at_checked(length)?;
    Some((String::from_utf8_lossy(text).into_owned(), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(name: &str, value: &[u8]) -> Vec<u8> {
        [&[AUX, name.len() as u8], name.as_bytes(), value].concat()
    }

    #[test]
    fn fields_are_read_up_to_the_first_key_and_not_beyond_what_is_there() {
        let head = [
            b"REDIS0010".to_vec(),
            field("redis-ver", b"\x067.0.15"),
            field("ctime", &[&[0xC2], &1_700_000_000i32.to_le_bytes()[..]].concat()),
            field("repl-stream-db", &[0xC0, 9]),
            field("long", &[&[0x41, 0x00][..], &[b'x'; 256]].concat()),
            field("repl-id", &[&[40], &[b'a'; 40][..]].concat()),
            field("repl-offset", b"\x0b12345678901"),
            field("behind", &[0xC1, 0xFF, 0xFF]),
            b"\xFE\x00".to_vec(),
            field("ctime", &[0xC0, 1]),
        ]
        .concat();
        let fields = AuxFields::of(&head);
        assert_eq!(fields.made_at().map(|at| at.as_second()), Some(1_700_000_000));
        assert_eq!((fields.selected_database(), fields.number("behind")), (Some(9), Some(-1)));
        let place = StreamPlace { replication_id: "a".repeat(40), offset: 12_345_678_901 };
        assert_eq!(fields.place(), Some(place));
        for cut in 0..head.len() {
            AuxFields::of(&head[..cut]);
        }
        assert_eq!(AuxFields::of(b"REDIS0010\xFA\xC3").made_at(), None);
        // Half of it is nothing.
        let head = [b"REDIS0010".to_vec(), field("repl-id", &[&[40], &[b'a'; 40][..]].concat())].concat();
        assert_eq!(AuxFields::of(&head).place(), None);
    }
}
