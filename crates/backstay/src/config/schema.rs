//! The JSON Schema of the configuration, made from the settings' types, and the
//! questions that it answers: which keys there are at a place, and what they mean.
//!
//! One source for the strict check, the reference and the editors' completion, so
//! that the three cannot disagree.

use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::error::Problem;
use super::nearest::nearest;
use super::settings::Settings;
use super::tree::{Content, Node};

/// The JSON Schema of `backstay.toml`.
pub fn json_schema() -> Value {
    let schema = SchemaSettings::draft2020_12()
        .with(|settings| settings.inline_subschemas = true)
        .into_generator()
        .into_root_schema_for::<Settings>();
    let mut value = schema.to_value();
    if let Some(root) = value.as_object_mut() {
        root.insert("title".to_owned(), "backstay.toml".into());
    }
    value
}

/// A part of the schema.
#[derive(Debug, Clone, Copy)]
pub struct Shape<'a>(&'a Value);

impl<'a> Shape<'a> {
    pub fn root(schema: &'a Value) -> Self {
        Self(schema)
    }

    pub fn description(self) -> &'a str {
        self.0["description"].as_str().unwrap_or_default()
    }

    pub fn default(self) -> Option<&'a Value> {
        self.0.get("default").filter(|default| !default.is_null())
    }

    /// The forms a value can have: of an optional one the form itself, of an
    /// instance one for each engine.
    pub fn forms(self) -> Vec<Shape<'a>> {
        let choices = ["oneOf", "anyOf"].iter().find_map(|key| self.0[*key].as_array());
        match choices {
            Some(choices) => choices.iter().flat_map(|choice| Shape(choice).forms()).collect(),
            None if self.0["type"] == "null" => Vec::new(),
            None => vec![self],
        }
    }

    /// The keys of this one form, in the order of the declaration's names.
    pub fn properties(self) -> impl Iterator<Item = (&'a str, Shape<'a>)> {
        self.0["properties"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, shape)| (name.as_str(), Shape(shape)))
    }

    pub fn requires(self, key: &str) -> bool {
        self.0["required"].as_array().is_some_and(|keys| keys.iter().any(|required| required == key))
    }

    /// What every value of a table with free keys is like.
    pub fn values(self) -> Option<Shape<'a>> {
        self.0.get("additionalProperties").filter(|shape| shape.is_object()).map(Shape)
    }

    /// The fixed text of a form's `engine`.
    pub fn engine(self) -> Option<&'a str> {
        self.0["properties"]["engine"]["const"].as_str()
    }

    pub fn is_type(self, name: &str) -> bool {
        match &self.0["type"] {
            Value::String(one) => one == name,
            Value::Array(many) => many.iter().any(|one| one == name),
            _ => false,
        }
    }

    /// The shape of the value under a key, given the table it stands in.
    pub fn below(self, table: &Node, key: &str) -> Option<Shape<'a>> {
        let forms = self.forms();
        let engine = table.get("engine").and_then(Node::text);
        let chosen: Vec<Shape<'a>> = match engine
            .and_then(|engine| forms.iter().find(|form| form.engine().is_some_and(|known| known == engine)))
        {
            Some(form) => vec![*form],
            None => forms,
        };
        chosen.iter().find_map(|form| {
            form.properties().find(|(name, _)| *name == key).map(|(_, shape)| shape).or_else(|| form.values())
        })
    }

    fn known_keys(self, table: &Node) -> Vec<&'a str> {
        let mut keys: Vec<&str> = self
            .forms()
            .iter()
            .flat_map(|form| form.properties())
            .map(|(name, _)| name)
            .filter(|name| self.below(table, name).is_some())
            .collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    /// Every key of the tree that means nothing.
    pub fn unknown_keys(self, tree: &Node) -> Vec<Problem> {
        let mut problems = Vec::new();
        self.check(tree, "", &mut problems);
        problems
    }

    fn check(self, node: &Node, path: &str, problems: &mut Vec<Problem>) {
        let Content::Table(table) = &node.content else { return };
        for (key, child) in table {
            match self.below(node, key) {
                Some(shape) => {
                    let below = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                    shape.check(child, &below, problems);
                }
                None => {
                    let known = self.known_keys(node);
                    let section =
                        if path.is_empty() { "at the top".to_owned() } else { format!("in [{path}]") };
                    let hint = match nearest(key, known.iter().copied()) {
                        Some(meant) => format!("the nearest known key {section} is `{meant}`"),
                        None if known.is_empty() => format!("remove it: [{path}] is a value, not a section"),
                        None => format!("the known keys {section} are: {}", known.join(", ")),
                    };
                    problems.push(Problem {
                        place: child.place.clone(),
                        message: format!("unknown key `{key}` {section}"),
                        hint: Some(hint),
                    });
                }
            }
        }
    }
}
