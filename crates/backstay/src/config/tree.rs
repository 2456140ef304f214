//! The configuration as keys and values that know where they came from, before
//! anything says what they mean.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{Error, Result};

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    Default,
    File { path: PathBuf, line: usize },
    Environment(String),
    Flag(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Default => f.write_str("default"),
            Place::File { path, line } => write!(f, "{} line {line}", path.display()),
            Place::Environment(name) => write!(f, "environment {name}"),
            Place::Flag(flag) => write!(f, "flag {flag}"),
        }
    }
}

/// A value or a table of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    pub place: Place,
    pub content: Content,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    Value(toml::Value),
    Table(BTreeMap<String, Node>),
}

impl Node {
    pub fn table(place: Place) -> Self {
        Self { place, content: Content::Table(BTreeMap::new()) }
    }

    pub fn value(place: Place, value: toml::Value) -> Self {
        Self { place, content: Content::Value(value) }
    }

    pub fn get(&self, key: &str) -> Option<&Node> {
        match &self.content {
            Content::Table(table) => table.get(key),
            Content::Value(_) => None,
        }
    }

    pub fn text(&self) -> Option<&str> {
        match &self.content {
            Content::Value(value) => value.as_str(),
            Content::Table(_) => None,
        }
    }

    /// Puts a value at a path, over what was there, and makes the tables on the way.
    pub fn set(&mut self, path: &[String], place: &Place, value: toml::Value) {
        match path.split_first() {
            None => *self = Node::value(place.clone(), value),
            Some((key, rest)) => {
                if let Content::Value(_) = self.content {
                    *self = Node::table(place.clone());
                }
                if let Content::Table(table) = &mut self.content {
                    table
                        .entry(key.clone())
                        .or_insert_with(|| Node::table(place.clone()))
                        .set(rest, place, value);
                }
            }
        }
    }

    /// The place of the deepest node that exists on the path.
    pub fn place_of(&self, path: &str) -> &Place {
        let mut node = self;
        for key in path.split('.') {
            match node.get(key) {
                Some(next) => node = next,
                None => break,
            }
        }
        &node.place
    }

    /// The place of the node at the path, when something was said there.
    pub fn origin(&self, path: &str) -> Option<&Place> {
        path.split('.').try_fold(self, |node, key| node.get(key)).map(|node| &node.place)
    }

    pub fn to_toml(&self) -> toml::Value {
        match &self.content {
            Content::Value(value) => value.clone(),
            Content::Table(table) => toml::Value::Table(
                table.iter().map(|(key, node)| (key.clone(), node.to_toml())).collect::<toml::Table>(),
            ),
        }
    }
}

/// Reads TOML into nodes that remember their lines.
pub fn parse(path: &Path, text: &str) -> Result<Node> {
    let reader = Reader { path, text };
    let table = DeTable::parse(text).map_err(|error| Error::Syntax {
        place: reader.place(error.span().map_or(0, |span| span.start)),
        message: error.message().replace('\n', ", "),
    })?;
    reader.table(table.get_ref(), 0)
}

struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Reader<'_> {
    fn place(&self, offset: usize) -> Place {
        let before = self.text.get(..offset).unwrap_or(self.text);
        Place::File { path: self.path.to_owned(), line: before.matches('\n').count() + 1 }
    }

    fn table(&self, table: &DeTable<'_>, offset: usize) -> Result<Node> {
        let mut children = BTreeMap::new();
        for (key, value) in table {
            children.insert(key.get_ref().to_string(), self.node(key.span().start, value)?);
        }
        Ok(Node { place: self.place(offset), content: Content::Table(children) })
    }

    fn node(&self, key_offset: usize, value: &Spanned<DeValue<'_>>) -> Result<Node> {
        match value.get_ref() {
            DeValue::Table(table) => self.table(table, key_offset),
            other => Ok(Node::value(self.place(key_offset), self.value(key_offset, other)?)),
        }
    }

    fn value(&self, offset: usize, value: &DeValue<'_>) -> Result<toml::Value> {
        let wrong = |message: &str| Error::Syntax { place: self.place(offset), message: message.to_owned() };
        Ok(match value {
            DeValue::String(text) => toml::Value::String(text.to_string()),
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
                .map(toml::Value::Integer)
                .map_err(|_| wrong("the number is too large"))?,
            DeValue::Float(number) => {
                number.as_str().parse().map(toml::Value::Float).map_err(|_| wrong("this is not a number"))?
            }
            DeValue::Boolean(value) => toml::Value::Boolean(*value),
            DeValue::Datetime(time) => toml::Value::Datetime(*time),
            DeValue::Array(items) => toml::Value::Array(
                items.iter().map(|item| self.value(offset, item.get_ref())).collect::<Result<_>>()?,
            ),
            DeValue::Table(table) => self.table(table, offset)?.to_toml(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(text: &str) -> Node {
        parse(Path::new("b.toml"), text).unwrap()
    }

    #[test]
    fn every_value_remembers_its_line() {
        let tree = tree("[policy]\nbase = '0 2 * * *'\n\nkeep = { daily = 30 }\n[instance.a]\nurl = 'x'\n");
        for (path, line) in [("policy.base", 2), ("policy.keep.daily", 4), ("instance.a.url", 6)] {
            assert_eq!(tree.origin(path), Some(&Place::File { path: "b.toml".into(), line }), "{path}");
        }
        assert_eq!(tree.origin("policy.rpo"), None);
        assert_eq!(tree.get("policy").unwrap().get("base").unwrap().text(), Some("0 2 * * *"));
    }

    #[test]
    fn what_is_not_toml_names_the_line() {
        let error = parse(Path::new("b.toml"), "[policy]\nbase = \n").unwrap_err().to_string();
        assert!(error.starts_with("read b.toml line 2: "), "{error}");
    }

    #[test]
    fn a_later_source_goes_over_an_earlier_one() {
        let mut tree = tree("[policy]\nrpo = '5s'\n");
        let place = Place::Environment("X".into());
        tree.set(&["policy".into(), "rpo".into()], &place, "1s".into());
        tree.set(&["drill".into(), "directory".into()], &place, "/tmp".into());
        assert_eq!(tree.origin("policy.rpo"), Some(&place));
        assert_eq!(tree.to_toml()["drill"]["directory"].as_str(), Some("/tmp"));
        assert_eq!(tree.place_of("drill.nothing.at.all"), &place);
    }
}
