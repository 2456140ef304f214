//! Every setting with its value and where it came from: `config show --origin`.

use serde::Serialize;
use serde_json::Value;

use super::Config;
use super::tree::Place;

/// One setting as it is in force.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Shown {
    pub key: String,
    /// Absent where nothing is set and there is no default. Secrets are `****`.
    pub value: Option<Value>,
    pub origin: String,
}

/// The settings in force, in the order of the file's sections.
pub fn shown(config: &Config) -> Vec<Shown> {
    let mut rows = Vec::new();
    let Ok(Value::Object(sections)) = serde_json::to_value(&config.settings) else { return rows };
    for section in ["repository", "instance", "policy", "drill"] {
        if let Some(value) = sections.get(section) {
            walk(config, section, value, &mut rows);
        }
    }
    rows
}

fn walk(config: &Config, path: &str, value: &Value, rows: &mut Vec<Shown>) {
    match value {
        Value::Object(table) => {
            for (key, value) in table {
                walk(config, &format!("{path}.{key}"), value, rows);
            }
        }
        // What an instance does not say itself is shown once, under `policy`.
        Value::Null if path.starts_with("instance.") && path.contains(".policy.") => {}
        value => {
            let place = config.origin(path).unwrap_or(&Place::Default);
            rows.push(Shown {
                key: path.to_owned(),
                value: (!value.is_null()).then(|| value.clone()),
                origin: place.to_string(),
            });
        }
    }
}
