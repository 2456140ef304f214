//! A path read back by the template that may have made it.
//!
//! From the end to the beginning, because the end of a name is its most certain part:
//! an extension, and before it usually the time. What is ambiguous is read so that the
//! known extension is as long as can be; every reading, written again, gives the path.

use jiff::Timestamp;

use super::super::Tier;
use super::field::Piece;
use super::moment::{self, Moment};
use super::spelling::is_plain;

/// What a path says of its dump.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matched {
    /// As it is spelled in the path (`spelling::spell_database`).
    pub database: Option<String>,
    pub instance: Option<String>,
    pub tier: Option<Tier>,
    /// As exactly as the template writes it.
    pub time: Timestamp,
    /// It writes no time of day, and this is the midnight before.
    pub is_of_day: bool,
    /// A name that the layout has for what is taken beside the dumps of the days.
    pub is_by_hand: bool,
}

#[derive(Clone, Default)]
struct Reading<'a> {
    database: Option<&'a str>,
    instance: Option<&'a str>,
    ext: Option<&'a str>,
    tier: Option<Tier>,
    times: Vec<(&'a Moment, &'a str)>,
}

pub(super) fn read(pieces: &[Piece], path: &str) -> Option<Matched> {
    read_from_the_end(pieces, path, &Reading::default(), finish)
}

/// Whether the pieces, none of which is a time, could have made the path.
pub(super) fn could_be(pieces: &[Piece], path: &str) -> bool {
    read_from_the_end(pieces, path, &Reading::default(), |_| Some(())).is_some()
}

fn read_from_the_end<'a, T>(
    pieces: &'a [Piece],
    text: &'a str,
    reading: &Reading<'a>,
    finish: fn(&Reading<'_>) -> Option<T>,
) -> Option<T> {
    let Some((last, before)) = pieces.split_last() else {
        return if text.is_empty() { finish(reading) } else { None };
    };
    let go_on = |value: &str, with: Reading<'a>| {
        read_from_the_end(before, text.get(..text.len() - value.len())?, &with, finish)
    };
    match last {
        Piece::Literal(literal) => {
            read_from_the_end(before, text.strip_suffix(literal.as_str())?, reading, finish)
        }
        Piece::Tier => Tier::ALL
            .into_iter()
            .filter(|tier| reading.tier.is_none_or(|known| known == *tier))
            .map(|tier| (tier, tier.to_string()))
            .filter(|(_, word)| text.ends_with(word))
            .find_map(|(tier, word)| go_on(&word, Reading { tier: Some(tier), ..reading.clone() })),
        Piece::Time(moment) => moment.widths().find_map(|width| {
            let value = text.get(text.len().checked_sub(width)?..)?;
            let mut with = reading.clone();
            with.times.push((moment, value));
            moment.could_be(value).then(|| go_on(value, with)).flatten()
        }),
        Piece::Database => values(text, reading.database)
            .find_map(|value| go_on(value, Reading { database: Some(value), ..reading.clone() })),
        Piece::Instance => values(text, reading.instance)
            .find_map(|value| go_on(value, Reading { instance: Some(value), ..reading.clone() })),
        Piece::Ext => extensions(text, reading.ext)
            .into_iter()
            .find_map(|value| go_on(value, Reading { ext: Some(value), ..reading.clone() })),
    }
}

fn finish(reading: &Reading<'_>) -> Option<Matched> {
    Some(Matched {
        database: reading.database.map(str::to_owned),
        instance: reading.instance.map(str::to_owned),
        tier: reading.tier,
        time: moment::read(&reading.times)?,
        is_of_day: moment::say_the_day_only(&reading.times),
        is_by_hand: false,
    })
}

/// Every value with which the text can end, the longest first; one that is known
/// already can only be itself.
fn values<'a>(text: &'a str, known: Option<&'a str>) -> impl Iterator<Item = &'a str> {
    let longest = text.bytes().rev().take_while(|byte| is_plain(*byte)).count();
    let start = text.len() - longest;
    (start..text.len())
        .map(move |at| &text[at..])
        .filter(move |value| !value.starts_with('.') && known.is_none_or(|known| known == *value))
}

/// The extensions with which the text can end: the known ones first.
fn extensions<'a>(text: &'a str, known: Option<&'a str>) -> Vec<&'a str> {
    let mut all: Vec<&str> = values(text, known).filter(|value| is_extension(value)).collect();
    // Stable, so the longest still comes first within each kind.
    all.sort_by_key(|value| !is_known_extension(value));
    all
}

/// Words with dots between them, each beginning with a letter: `sql.gz`, but no date.
pub(in crate::dump) fn is_extension(text: &str) -> bool {
    text.split('.').all(|word| {
        word.starts_with(|c: char| c.is_ascii_alphabetic()) && word.bytes().all(|b| b.is_ascii_alphanumeric())
    })
}

fn is_known_extension(text: &str) -> bool {
    const INNER: [&str; 4] = ["dump", "sql", "tar", "rdb"];
    const PACKED: [&str; 4] = ["gz", "zst", "bz2", "xz"];
    const SEALED: [&str; 2] = ["enc", "gpg"];
    let mut words = text.split('.').peekable();
    words.next().is_some_and(|word| INNER.contains(&word)) && {
        words.next_if(|word| PACKED.contains(word));
        words.next_if(|word| SEALED.contains(word));
        words.next().is_none()
    }
}
