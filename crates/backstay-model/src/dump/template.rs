//! How a dump's file is called: the template of its path, read forwards and backwards.
//!
//! `{tier}/{database}_{time}.{ext}` makes the path of a new dump, and finds the database
//! and the time in the path of an old one. A template that could give two dumps one name
//! for want of a time, or that leads out of the shelf, is refused when it is read and not
//! when the dump is taken. Values that a file system would not bear are spelled so that
//! two of them never meet ([`spelling`]).

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Tier;
use crate::error::{Classified, ErrorKind};
use crate::id::InstanceId;

mod field;
mod matching;
mod moment;
pub mod spelling;

use field::{Piece, render};
pub use matching::Matched;
pub(super) use matching::is_extension;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    #[error("{{{given}}} is no field of a dump's name, which may have {known}{}", near(*.nearest))]
    UnknownField { given: String, nearest: Option<&'static str>, known: &'static str },
    #[error("a brace in {0:?} has no partner")]
    Brace(String),
    #[error("{0:?} is an absolute path, where one below the directory of the dumps is needed")]
    Absolute(String),
    #[error("{0:?} leads out of the directory of the dumps")]
    Outside(String),
    #[error("{0:?} has an empty part between its slashes")]
    EmptyPart(String),
    #[error("a part of {0:?} begins with a dot, so that a listing would hide it")]
    Hidden(String),
    #[error("{text:?} holds {character:?}, which is not for the name of a file")]
    Character { text: String, character: char },
    #[error("{0:?} has no {{time}}, so that the second dump would meet the first")]
    NoTime(String),
    #[error(
        "from a name made with {{time:{0}}} the day cannot be read, so that dumps of two days could meet"
    )]
    NoDay(String),
    #[error("{0:?} ends without {{ext}} or an extension, so that nothing would say what opens the file")]
    NoExtension(String),
    #[error("{{{field}}} in {text:?} would give the pointer another name with every dump")]
    Moving { text: String, field: &'static str },
}

fn near(field: Option<&str>) -> String {
    field.map(|field| format!("; was {{{field}}} meant?")).unwrap_or_default()
}

impl Classified for TemplateError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }

    fn hints(&self) -> Vec<String> {
        vec![match self {
            TemplateError::Moving { .. } => "write `dump.pointer` as in \"latest_{database}.{ext}\"".into(),
            _ => "write the names of a layout as in \"{tier}/{database}_{time:%Y%m%d_%H%M%S}.{ext}\"".into(),
        }]
    }
}

/// What a name is made from.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a> {
    /// `None` for what belongs to no database: the roles and tablespaces of a server.
    pub database: Option<&'a str>,
    pub instance: &'a InstanceId,
    pub tier: Tier,
    /// Without the dot before it.
    pub ext: &'a str,
    pub time: Timestamp,
}

/// The template of the paths of dumps, relative to the directory of the shelf.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NameTemplate {
    text: String,
    pieces: Vec<Piece>,
}

impl NameTemplate {
    pub fn render(&self, fields: &Fields<'_>) -> String {
        render(&self.pieces, fields)
    }

    /// Reads a path back. Values come as they are spelled in it; of the time, what the
    /// template writes of it, with midnight for a day.
    pub fn matches(&self, path: &str) -> Option<Matched> {
        matching::read(&self.pieces, path)
    }

    /// Whether the dumps of two databases that were taken in one second have two names.
    pub fn tells_databases_apart(&self) -> bool {
        self.pieces.contains(&Piece::Database)
    }

    /// Whether two instances can share a shelf without meeting.
    pub fn tells_instances_apart(&self) -> bool {
        self.pieces.contains(&Piece::Instance)
    }
}

impl FromStr for NameTemplate {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, TemplateError> {
        let pieces = field::parse(text)?;
        if !pieces.iter().any(|piece| matches!(piece, Piece::Time(_))) {
            return Err(TemplateError::NoTime(text.to_owned()));
        }
        let whole: Vec<_> = pieces.iter().filter_map(Piece::moment).collect();
        if !moment::give_back_the_day(&whole) {
            let formats: Vec<_> = whole.iter().map(|moment| moment.format()).collect();
            return Err(TemplateError::NoDay(formats.join("} and {time:")));
        }
        Ok(Self { text: text.to_owned(), pieces })
    }
}

/// The name of the link to the newest dump: `latest_backup.{ext}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PointerName {
    text: String,
    pieces: Vec<Piece>,
}

impl PointerName {
    pub fn render(&self, fields: &Fields<'_>) -> String {
        render(&self.pieces, fields)
    }

    /// Whether it names the database that it leads to.
    pub fn tells_databases_apart(&self) -> bool {
        self.pieces.contains(&Piece::Database)
    }

    /// Whether a path is that of such a pointer.
    pub fn matches(&self, path: &str) -> bool {
        matching::could_be(&self.pieces, path)
    }
}

impl FromStr for PointerName {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, TemplateError> {
        let pieces = field::parse(text)?;
        let moving = pieces.iter().find_map(|piece| match piece {
            Piece::Time(_) => Some("time"),
            Piece::Tier => Some("tier"),
            _ => None,
        });
        match moving {
            Some(field) => Err(TemplateError::Moving { text: text.to_owned(), field }),
            None => Ok(Self { text: text.to_owned(), pieces }),
        }
    }
}

macro_rules! text_template {
    ($template:ty) => {
        impl fmt::Display for $template {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.text)
            }
        }

        impl From<$template> for String {
            fn from(template: $template) -> String {
                template.text
            }
        }

        impl TryFrom<String> for $template {
            type Error = TemplateError;

            fn try_from(text: String) -> Result<Self, TemplateError> {
                text.parse()
            }
        }
    };
}

text_template!(NameTemplate);
text_template!(PointerName);

#[cfg(test)]
mod tests;
