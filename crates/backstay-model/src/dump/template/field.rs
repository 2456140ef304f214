//! The pieces of a template: what stands there as it is, and what is filled in.
//!
//! Responsible for reading a template and for writing a path from it. A path that comes
//! out of here stays below the shelf's directory and has no hidden part, whatever the
//! values are.

use super::moment::Moment;
use super::{Fields, TemplateError, spelling};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    Literal(String),
    Database,
    Instance,
    Tier,
    Ext,
    Time(Moment),
}

impl Piece {
    pub fn moment(&self) -> Option<&Moment> {
        match self {
            Piece::Time(moment) => Some(moment),
            _ => None,
        }
    }
}

const KNOWN: &str = "{database}, {instance}, {tier}, {ext}, {time} and {time:%Y-%m-%d}";
const FIELDS: [&str; 5] = ["database", "instance", "tier", "ext", "time"];

/// What other programs call the same: no likeness of letters would find these.
const OTHER_WORDS: [(&str, &str); 8] = [
    ("db", "database"),
    ("dbname", "database"),
    ("server", "instance"),
    ("host", "instance"),
    ("date", "time"),
    ("now", "time"),
    ("suffix", "ext"),
    ("period", "tier"),
];

/// The field that was meant, where it can be guessed.
fn nearest(given: &str) -> Option<&'static str> {
    let word = given.split(':').next().unwrap_or(given).trim().to_ascii_lowercase();
    if let Some((_, field)) = OTHER_WORDS.iter().find(|(other, _)| *other == word) {
        return Some(field);
    }
    let likeness = |field: &&str| {
        let (field, word) = (field.as_bytes(), word.as_bytes());
        let same = |pairs: &mut dyn Iterator<Item = (&u8, &u8)>| pairs.take_while(|(a, b)| a == b).count();
        let at_start = same(&mut field.iter().zip(word));
        (at_start + same(&mut field.iter().rev().zip(word.iter().rev()))).min(field.len())
    };
    FIELDS.into_iter().filter(|field| 2 * likeness(field) > field.len()).max_by_key(likeness)
}

pub(super) fn parse(text: &str) -> Result<Vec<Piece>, TemplateError> {
    if let Some(character) = text.chars().find(|c| c.is_control() || *c == '\\') {
        return Err(TemplateError::Character { text: text.to_owned(), character });
    }
    let mut pieces = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let brace = || TemplateError::Brace(text.to_owned());
        let (literal, after) = match rest.find(['{', '}']) {
            None => (rest, ""),
            Some(at) => rest.split_at(at),
        };
        if !literal.is_empty() {
            pieces.push(Piece::Literal(literal.to_owned()));
        }
        rest = after;
        if !after.is_empty() {
            let (name, after) =
                after.strip_prefix('{').and_then(|inside| inside.split_once('}')).ok_or_else(brace)?;
            if name.contains('{') {
                return Err(brace());
            }
            pieces.push(field(name)?);
            rest = after;
        }
    }
    check_path(text, &pieces)?;
    Ok(pieces)
}

fn field(name: &str) -> Result<Piece, TemplateError> {
    Ok(match name {
        "database" => Piece::Database,
        "instance" => Piece::Instance,
        "tier" => Piece::Tier,
        "ext" => Piece::Ext,
        "time" => Piece::Time(Moment::default()),
        other => match other.strip_prefix("time:") {
            Some(format) => {
                Piece::Time(Moment::new(format).ok_or_else(|| TemplateError::NoDay(format.to_owned()))?)
            }
            None => {
                let (given, nearest) = (other.to_owned(), nearest(other));
                return Err(TemplateError::UnknownField { given, nearest, known: KNOWN });
            }
        },
    })
}

/// A value is never empty and never begins with a dot (`spelling`), so one letter in
/// its place shows what path comes out.
fn check_path(text: &str, pieces: &[Piece]) -> Result<(), TemplateError> {
    let owned = || text.to_owned();
    let sample: String = pieces
        .iter()
        .map(|piece| match piece {
            Piece::Literal(literal) => literal.as_str(),
            Piece::Time(moment) => moment.sample(),
            Piece::Database | Piece::Instance | Piece::Tier | Piece::Ext => "x",
        })
        .collect();
    if sample.starts_with('/') {
        return Err(TemplateError::Absolute(owned()));
    }
    for part in sample.split('/') {
        match part {
            "" => return Err(TemplateError::EmptyPart(owned())),
            ".." => return Err(TemplateError::Outside(owned())),
            part if part.starts_with('.') => return Err(TemplateError::Hidden(owned())),
            _ => {}
        }
    }
    let ended = match pieces.last() {
        Some(Piece::Ext) => true,
        Some(Piece::Literal(literal)) => {
            let name = literal.rsplit('/').next().unwrap_or(literal);
            pieces.contains(&Piece::Ext)
                || name.rsplit_once('.').is_some_and(|(_, extension)| !extension.is_empty())
        }
        _ => pieces.contains(&Piece::Ext),
    };
    if ended { Ok(()) } else { Err(TemplateError::NoExtension(owned())) }
}

pub(super) fn render(pieces: &[Piece], fields: &Fields<'_>) -> String {
    let mut path = String::new();
    for piece in pieces {
        match piece {
            Piece::Literal(literal) => path.push_str(literal),
            Piece::Database => path.push_str(&spelling::spell_database(fields.database)),
            Piece::Instance => path.push_str(&spelling::spell(fields.instance.as_str())),
            Piece::Tier => path.push_str(&fields.tier.to_string()),
            Piece::Ext => path.push_str(&spelling::spell(fields.ext)),
            Piece::Time(moment) => path.push_str(&moment.write(fields.time)),
        }
    }
    path
}
