//! Values as they stand in the name of a file: letters, digits, `.`, `_` and `-` only.
//!
//! Every other byte becomes `_`, and then a hash of the value follows, so that the
//! databases `a b` and `a_b` never meet. A value that could itself be taken for one with
//! a hash gets another. The hash is for ever: old files are found by it.

/// What stands for the roles and tablespaces of a server in the place of a database.
pub const GLOBALS: &str = "globals";

/// Digits of the hash, and the dash before them.
const MARK_LENGTH: usize = 7;

/// The value as it stands in a name; never empty, never with a dot at its beginning.
pub fn spell(value: &str) -> String {
    let plain =
        !value.is_empty() && !value.starts_with('.') && value.bytes().all(is_plain) && !is_marked(value);
    if plain { value.to_owned() } else { marked(value) }
}

/// A database of the name [`GLOBALS`] gets a hash, since the word is taken.
pub fn spell_database(database: Option<&str>) -> String {
    match database {
        None => GLOBALS.to_owned(),
        Some(GLOBALS) => marked(GLOBALS),
        Some(name) => spell(name),
    }
}

pub(super) fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._-".contains(&byte)
}

fn is_marked(value: &str) -> bool {
    let digit = |b: &u8| b.is_ascii_digit() || (b'a'..=b'f').contains(b);
    let Some(at) = value.len().checked_sub(MARK_LENGTH) else { return false };
    let mark = &value.as_bytes()[at..];
    mark[0] == b'-' && mark[1..].iter().all(digit)
}

fn marked(value: &str) -> String {
    let mut name = String::with_capacity(value.len() + MARK_LENGTH);
    for (at, byte) in value.bytes().enumerate() {
        let keeps = is_plain(byte) && !(at == 0 && byte == b'.');
        name.push(if keeps { char::from(byte) } else { '_' });
    }
    if name.is_empty() {
        name.push('_');
    }
    format!("{name}-{:06x}", hash(value.as_bytes()))
}

/// FNV-1a of 32 bits, folded to 24.
fn hash(bytes: &[u8]) -> u32 {
    const PRIME: u32 = 0x0100_0193;
    const BASIS: u32 = 0x811c_9dc5;
    let whole = bytes.iter().fold(BASIS, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(PRIME));
    (whole >> 24) ^ (whole & 0x00ff_ffff)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_a_file_system_bears_stands_as_it_is() {
        for plain in ["orders", "orders-2", "Orders.2024_01", "sql.gz", "a-12345", "shop-20240101"] {
            assert_eq!(spell(plain), plain);
        }
    }

    #[test]
    fn the_spelling_of_what_it_does_not_bear_never_changes() {
        for (value, spelled) in [
            ("a b", "a_b-a3f9e2"),
            ("größe", "gr____e-38f457"),
            ("..", "_.-d4a7ae"),
            ("../etc", "_._etc-7a58e2"),
            ("", "_-1c9d44"),
            ("a_b-a3f9e2", "a_b-a3f9e2-47c4dd"),
        ] {
            assert_eq!(spell(value), spelled, "{value:?}");
        }
        assert_eq!(spell_database(None), "globals");
        assert_ne!(spell_database(Some("globals")), "globals");
    }

    #[test]
    fn no_two_of_all_short_names_meet() {
        let letters = ["a", " ", "_", ".", "-", "/", "é", "1"];
        let mut names = vec![String::new()];
        for _ in 0..4 {
            let longer = names.iter().flat_map(|name| letters.map(|letter| format!("{name}{letter}")));
            names = longer.chain(names.iter().cloned()).collect();
            names.sort();
            names.dedup();
        }
        let mut spelled = BTreeMap::new();
        for name in &names {
            if let Some(other) = spelled.insert(spell(name), name) {
                panic!("{name:?} and {other:?} are spelled alike");
            }
        }
        assert_eq!(spelled.len(), names.len());
    }

    proptest! {
        #[test]
        fn a_spelled_name_is_one_plain_part_of_a_path(value in any::<String>()) {
            let spelled = spell(&value);
            prop_assert!(!spelled.is_empty() && !spelled.starts_with('.'));
            prop_assert!(spelled.bytes().all(is_plain));
        }

        #[test]
        fn a_name_that_looks_spelled_is_told_from_the_one_that_is(value in "[a ]{1,6}") {
            let spelled = spell(&value);
            prop_assert!(spelled == value || spell(&spelled) != spelled);
        }
    }
}
