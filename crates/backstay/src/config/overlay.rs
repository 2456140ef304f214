//! Settings from the environment and from `--set`, laid over the file.
//!
//! `BACKSTAY_POLICY__RPO=5s` is `policy.rpo`: two underscores stand between the
//! levels. A variable without two underscores (`BACKSTAY_LOG`) is none of these.

use super::error::Problem;
use super::schema::Shape;
use super::tree::{Content, Node, Place};

const PREFIX: &str = "BACKSTAY_";
const SEPARATOR: &str = "__";

/// Lays the variables over the tree; what means nothing is a problem, as in the file.
pub fn environment(
    tree: &mut Node,
    shape: Shape<'_>,
    variables: impl IntoIterator<Item = (String, String)>,
) -> Vec<Problem> {
    let mut variables: Vec<_> = variables
        .into_iter()
        .filter(|(name, _)| name.strip_prefix(PREFIX).is_some_and(|rest| rest.contains(SEPARATOR)))
        .collect();
    variables.sort();
    let mut problems = Vec::new();
    for (name, text) in variables {
        let path = keys_of_variable(tree, &name[PREFIX.len()..]);
        lay(tree, shape, &path, &Place::Environment(name), &text, &mut problems);
    }
    problems
}

/// Lays `--set KEY=VALUE` over the tree.
pub fn flags(tree: &mut Node, shape: Shape<'_>, assignments: &[(String, String)]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (key, text) in assignments {
        let path: Vec<String> = key.split('.').map(str::to_owned).collect();
        lay(tree, shape, &path, &Place::Flag(format!("--set {key}")), text, &mut problems);
    }
    problems
}

/// The keys of a variable's name. An instance such as `eu-orders` is found under
/// `EU_ORDERS`, because a variable's name can hold no `-`.
fn keys_of_variable(tree: &Node, name: &str) -> Vec<String> {
    let mut node = Some(tree);
    let mut path = Vec::new();
    for part in name.split(SEPARATOR) {
        let wanted = part.to_lowercase();
        let known = match node.map(|node| &node.content) {
            Some(Content::Table(table)) => table.keys().find(|key| key.replace('-', "_") == wanted).cloned(),
            _ => None,
        };
        let key = known.unwrap_or(wanted);
        node = node.and_then(|node| node.get(&key));
        path.push(key);
    }
    path
}

fn lay(
    tree: &mut Node,
    shape: Shape<'_>,
    path: &[String],
    place: &Place,
    text: &str,
    problems: &mut Vec<Problem>,
) {
    let mut probe = Node::table(place.clone());
    probe.set(path, place, toml::Value::String(text.to_owned()));
    // The engine of an instance decides which keys it has, and stands in the file.
    if let [section, name, ..] = path
        && let Some(engine) =
            tree.get(section).and_then(|node| node.get(name)).and_then(|node| node.get("engine"))
        && path.get(2).is_some_and(|key| key != "engine")
        && let Some(engine) = engine.text()
    {
        let engine_path = [section.clone(), name.clone(), "engine".to_owned()];
        probe.set(&engine_path, place, toml::Value::String(engine.to_owned()));
    }
    let unknown = shape.unknown_keys(&probe);
    if !unknown.is_empty() {
        problems.extend(unknown);
        return;
    }
    match typed(shape, &probe, path, text) {
        Ok(value) => tree.set(path, place, value),
        Err(message) => problems.push(Problem { place: place.clone(), message, hint: None }),
    }
}

/// The text as the type that the schema wants at the path.
fn typed(shape: Shape<'_>, probe: &Node, path: &[String], text: &str) -> Result<toml::Value, String> {
    let mut shape = shape;
    let mut node = probe;
    for key in path {
        let (Some(below), Some(next)) = (shape.below(node, key), node.get(key)) else { break };
        (shape, node) = (below, next);
    }
    let wrong = |what: &str| format!("`{}` is {what}", path.join("."));
    if shape.is_type("integer") {
        text.parse().map(toml::Value::Integer).map_err(|_| wrong("a whole number"))
    } else if shape.is_type("boolean") {
        text.parse().map(toml::Value::Boolean).map_err(|_| wrong("true or false"))
    } else {
        Ok(toml::Value::String(text.to_owned()))
    }
}
