//! The configuration: found, read strictly, resolved once.
//!
//! Responsible for one answer to "which value holds, and who said so": a flag goes
//! over the environment, the environment over the file, the file over the default.
//! An unknown key is an error, because a mistyped `keep` must not mean "keep
//! nothing". Refuses secrets given as text.

pub mod archive;
pub mod catalogue;
pub mod dump;
pub mod error;
mod nearest;
pub mod origin;
mod overlay;
pub mod reference;
pub mod schema;
pub mod secret;
pub mod settings;
pub mod tree;
pub mod values;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use backstay_model::InstanceId;
use backstay_model::error::Classified;
use backstay_ops::backup::DEFAULT_COMPRESSION_LEVEL;

use dump::DumpSettings;
use error::Problem;
pub use error::{Error, Result};
use schema::Shape;
use settings::{InstanceSettings, PolicySettings, Settings};
use tree::{Node, Place};

/// Where the file is looked for when nobody names it.
pub const USUAL_PLACES: [&str; 2] = ["backstay.toml", "/etc/backstay/backstay.toml"];

/// What is laid over the file.
#[derive(Debug, Default)]
pub struct Overlays {
    pub variables: Vec<(String, String)>,
    /// `--set KEY=VALUE`, in order.
    pub assignments: Vec<(String, String)>,
}

/// The settings in force.
#[derive(Debug)]
pub struct Config {
    pub path: PathBuf,
    pub settings: Settings,
    tree: Node,
}

/// The configuration file: the one that was named, or the first usual place that has one.
pub fn find(named: Option<&Path>) -> Result<PathBuf> {
    let looked: Vec<PathBuf> = match named {
        Some(path) => vec![path.to_owned()],
        None => USUAL_PLACES.iter().map(PathBuf::from).collect(),
    };
    match looked.iter().find(|path| path.exists()) {
        Some(path) => Ok(path.clone()),
        None => Err(Error::Missing { looked }),
    }
}

/// Where `init` writes the recovery kit when nobody says where.
pub fn usual_recovery_kit(config: &Path) -> PathBuf {
    config.with_extension("recovery-kit")
}

impl Config {
    pub fn load(path: &Path, overlays: &Overlays) -> Result<Config> {
        let text =
            std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
        Self::resolve(path, &text, overlays)
    }

    pub fn resolve(path: &Path, text: &str, overlays: &Overlays) -> Result<Config> {
        let schema = schema::json_schema();
        let shape = Shape::root(&schema);
        let mut tree = tree::parse(path, text)?;
        let mut problems = shape.unknown_keys(&tree);
        problems.extend(overlay::environment(&mut tree, shape, overlays.variables.iter().cloned()));
        problems.extend(overlay::flags(&mut tree, shape, &overlays.assignments));
        if !problems.is_empty() {
            problems.sort_by(|a, b| a.place.cmp(&b.place));
            return Err(Error::Problems(problems));
        }
        let settings = read_types(&tree, shape)?;
        let config = Config { path: path.to_owned(), settings, tree };
        config.check_values()?;
        Ok(config)
    }

    /// Who said what holds at a dotted path; `None` is the default.
    pub fn origin(&self, path: &str) -> Option<&Place> {
        self.tree.origin(path)
    }

    /// The directory that relative paths of the file start from.
    pub fn directory(&self) -> &Path {
        match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        }
    }

    /// A path of the file, made relative to it.
    pub fn beside(&self, path: &Path) -> PathBuf {
        self.directory().join(path)
    }

    /// Where the recovery kit lies: beside the file, unless that says otherwise.
    pub fn recovery_kit(&self) -> PathBuf {
        match &self.settings.repository.recovery_kit {
            Some(place) => self.beside(place),
            None => usual_recovery_kit(&self.path),
        }
    }

    /// The named instances, or all when none is named.
    pub fn instances(&self, names: &[String]) -> Result<Vec<(&InstanceId, &InstanceSettings)>> {
        if names.is_empty() {
            return if self.settings.instance.is_empty() {
                Err(Error::NoInstance)
            } else {
                Ok(self.settings.instance.iter().collect())
            };
        }
        names.iter().map(|name| self.instance(name)).collect()
    }

    pub fn instance(&self, name: &str) -> Result<(&InstanceId, &InstanceSettings)> {
        let known = || self.settings.instance.keys().map(InstanceId::as_str);
        self.settings.instance.iter().find(|(id, _)| id.as_str() == name).ok_or_else(|| {
            Error::NoSuchInstance {
                name: name.to_owned(),
                known: known().map(str::to_owned).collect(),
                nearest: nearest::nearest(name, known()).map(str::to_owned),
            }
        })
    }

    pub fn policy(&self, settings: &InstanceSettings) -> PolicySettings {
        settings.policy().over(&self.settings.policy)
    }

    pub fn dump(&self, settings: &InstanceSettings) -> DumpSettings {
        settings.dump().over(&self.settings.dump)
    }

    /// What the types cannot say.
    fn check_values(&self) -> Result<()> {
        let mut problems = Vec::new();
        let mut refuse = |path: &str, message: String, hint: String| {
            problems.push(Problem { place: self.tree.place_of(path).clone(), message, hint: Some(hint) });
        };
        let level = self.settings.repository.compression_level;
        if !(1..=19).contains(&level) {
            refuse(
                "repository.compression_level",
                format!("`compression_level` is {level}, not 1 to 19"),
                format!("leave `compression_level` out for the default of {DEFAULT_COMPRESSION_LEVEL}"),
            );
        }
        for (id, instance) in &self.settings.instance {
            if instance.url().is_some_and(values::Address::holds_password) {
                refuse(
                    &format!("instance.{id}.url"),
                    format!("`url` of instance {id} holds a password"),
                    format!(
                        "take it out of `url`, put it into a file of mode 0600 and write `password = {{ file = \"…\" }}` in [instance.{id}]"
                    ),
                );
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(Error::Problems(problems)) }
    }
}

/// From keys and values to settings, with the line of what does not fit.
///
/// Instances are read one by one: a type chosen by its `engine` would lose the path to the value at fault.
fn read_types(tree: &Node, shape: Shape<'_>) -> Result<Settings> {
    let mut whole = tree.to_toml();
    if let toml::Value::Table(table) = &mut whole {
        table.remove("instance");
    }
    let mut settings: Settings = read_type(tree, "", whole)?;
    let Some(tree::Content::Table(instances)) = tree.get("instance").map(|node| &node.content) else {
        return Ok(settings);
    };
    for (name, node) in instances {
        let path = format!("instance.{name}");
        let id: InstanceId = name.parse().map_err(|error: backstay_model::id::IdError| {
            let hint = error.hints().pop();
            Error::Problems(vec![Problem { place: node.place.clone(), message: error.to_string(), hint }])
        })?;
        let mut section = node.to_toml();
        if let toml::Value::Table(table) = &mut section {
            table.remove("engine");
        }
        let instance = match node.get("engine").and_then(Node::text) {
            Some("postgresql") => InstanceSettings::Postgresql(read_type(tree, &path, section)?),
            Some("influxdb") => InstanceSettings::Influxdb(read_type(tree, &path, section)?),
            Some("redis") => InstanceSettings::Redis(read_type(tree, &path, section)?),
            _ => return Err(Error::Problems(vec![engine_problem(name, node, shape)])),
        };
        settings.instance.insert(id, instance);
    }
    Ok(settings)
}

fn read_type<T: serde::de::DeserializeOwned>(tree: &Node, section: &str, value: toml::Value) -> Result<T> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let below = error.path().to_string();
        let path = match (section, below.as_str()) {
            (section, ".") => section.to_owned(),
            ("", below) => below.to_owned(),
            (section, below) => format!("{section}.{below}"),
        };
        let message = error.into_inner().message().replace('\n', ", ");
        let message = if path.is_empty() { message } else { format!("`{path}`: {message}") };
        Error::Problems(vec![Problem { place: tree.place_of(&path).clone(), message, hint: None }])
    })
}

/// An instance without an engine, or with one that nobody knows, said in plain words.
fn engine_problem(name: &str, instance: &Node, shape: Shape<'_>) -> Problem {
    let root = Node::table(Place::Default);
    let forms = shape.below(&root, "instance").and_then(Shape::values).map(Shape::forms).unwrap_or_default();
    let engines: Vec<&str> = forms.iter().filter_map(|form| form.engine()).collect();
    match instance.get("engine") {
        None => Problem {
            place: instance.place.clone(),
            message: format!("[instance.{name}] has no `engine`"),
            hint: Some(format!("write `engine = \"postgresql\"` into [instance.{name}]")),
        },
        Some(node) => Problem {
            place: node.place.clone(),
            message: format!("[instance.{name}] has an `engine` that is not known"),
            hint: Some(match node.text().and_then(|text| nearest::nearest(text, engines.iter().copied())) {
                Some(meant) => format!("the nearest is `engine = \"{meant}\"`"),
                None => format!("`engine` is one of: {}", engines.join(", ")),
            }),
        },
    }
}
