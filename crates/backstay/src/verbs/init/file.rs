//! The text of a new `backstay.toml`: as little as works, with what comes next in comments.

use std::path::Path;

use super::Engine;
use crate::config::secret::SecretSource;
use crate::config::values::Address;

/// What is written into the file.
pub struct NewFile<'a> {
    pub store: &'a Address,
    /// Absolute, so that the file can be copied elsewhere; none without encryption.
    pub key: Option<&'a Path>,
    /// None for the usual place.
    pub recovery_kit: Option<&'a Path>,
    pub instance: Option<NewInstance<'a>>,
}

pub struct NewInstance<'a> {
    pub engine: Engine,
    pub name: &'a str,
    pub url: &'a Address,
    pub password: Option<SecretSource>,
    pub data_directory: Option<&'a Path>,
}

pub fn text(file: &NewFile<'_>) -> String {
    let mut text = String::from(
        "# `backstay config reference` explains every setting, `backstay config check` reads this file.\n\n",
    );
    text.push_str("[repository]\n");
    text.push_str(&format!("store = {}\n", quoted(file.store.as_str())));
    match file.key {
        Some(key) => text.push_str(&format!("key = {{ file = {} }}\n", quoted(&key.display().to_string()))),
        None => text.push_str("# not encrypted: whoever reads the store reads the databases\n"),
    }
    if let Some(kit) = file.recovery_kit {
        text.push_str(&format!("recovery_kit = {}\n", quoted(&kit.display().to_string())));
    }
    text.push('\n');
    match &file.instance {
        Some(instance) => text.push_str(&section(instance)),
        None => text.push_str(EXAMPLE),
    }
    text.push_str(POLICY);
    text
}

/// A section to fill in.
const EXAMPLE: &str = "\
# One section for each database server; the name is yours. Take the # away:
# [instance.orders]
# engine = \"postgresql\"
# url = \"postgresql://backstay@localhost:5432/postgres\"
# password = { file = \"orders.password\" }           # a file of mode 0600 beside this one
# data_directory = \"/var/lib/postgresql/15/main\"    # if this machine can read it: faster
# [instance.cache]
# engine = \"redis\"                                  # Redis or Valkey
# url = \"redis://backstay@localhost:6379\"
# password = { file = \"cache.password\" }

";

const POLICY: &str = "\
[policy]
keep = { last = 3, daily = 14, weekly = 8, monthly = 12 }    # what `backstay expire` lets stay
# rpo = \"24h\"                # how much may be lost, and
# rto = \"30m\"                # how long a restore may take: `backstay status` measures both
";

fn section(instance: &NewInstance<'_>) -> String {
    let engine = match instance.engine {
        Engine::Postgresql => "postgresql",
        Engine::Redis => "redis",
    };
    let mut text = format!("[instance.{}]\nengine = \"{engine}\"\n", instance.name);
    text.push_str(&format!("url = {}\n", quoted(instance.url.as_str())));
    match &instance.password {
        Some(SecretSource::File(path)) => {
            text.push_str(&format!("password = {{ file = {} }}\n", quoted(&path.display().to_string())));
        }
        Some(SecretSource::Env(name)) => {
            text.push_str(&format!("password = {{ env = {} }}\n", quoted(name)));
        }
        Some(SecretSource::Onepassword(reference)) => {
            text.push_str(&format!("password = {{ onepassword = {} }}\n", quoted(reference)));
        }
        None => {}
    }
    if let Some(directory) = instance.data_directory {
        text.push_str(&format!("data_directory = {}\n", quoted(&directory.display().to_string())));
    }
    text.push('\n');
    text
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Overlays};

    #[test]
    fn the_file_that_init_writes_reads_back() {
        let store = Address::new("file:///var/lib/back\"stay");
        let url = Address::new("postgresql://backstay@db/postgres?sslmode=require");
        let file = NewFile {
            store: &store,
            key: Some(Path::new("/etc/backstay/backstay.key")),
            recovery_kit: Some(Path::new("/media/safe/kit")),
            instance: Some(NewInstance {
                engine: Engine::Postgresql,
                name: "orders",
                url: &url,
                password: Some(SecretSource::File("/etc/backstay/orders.password".into())),
                data_directory: Some(Path::new("/var/lib/postgresql/15/main")),
            }),
        };
        let config = Config::resolve(Path::new("b"), &text(&file), &Overlays::default()).unwrap();
        assert_eq!(config.settings.repository.store, store);
        assert_eq!(config.recovery_kit(), Path::new("/media/safe/kit"));
        let (_, instance) = config.instance("orders").unwrap();
        assert_eq!(instance.url(), Some(&url));
        assert_eq!(config.policy(instance).keep.unwrap().daily, Some(14));
    }

    #[test]
    fn the_example_in_the_file_is_correct_once_the_comments_go() {
        let store = Address::new("file:///x");
        let empty = text(&NewFile { store: &store, key: None, recovery_kit: None, instance: None });
        let config = Config::resolve(Path::new("b"), &empty, &Overlays::default()).unwrap();
        assert!(config.settings.instance.is_empty());
        assert_eq!(config.recovery_kit(), Path::new("b.recovery-kit"));
        let filled: String = empty
            .lines()
            .map(|line| match line.strip_prefix("# ") {
                Some(rest) if rest.contains(" = ") || rest.starts_with('[') => format!("{rest}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        let config = Config::resolve(Path::new("b"), &filled, &Overlays::default()).unwrap();
        assert!(config.instance("orders").is_ok());
        assert_eq!(config.settings.policy.rto.unwrap().to_string(), "30m");
    }
}
