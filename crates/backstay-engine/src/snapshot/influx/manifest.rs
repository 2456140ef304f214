//! What a manifest of `influxd backup` or `influx backup` says of its files.

use std::collections::BTreeSet;

use serde_json::Value;

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Manifest {
    pub files: Vec<NamedFile>,
    pub databases: BTreeSet<String>,
    pub is_of_version_2: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct NamedFile {
    pub name: String,
    pub size_bytes: u64,
}

impl Manifest {
    /// Both forms name a file with `fileName` and `size`, wherever it stands in them.
    pub fn parse(json: &[u8]) -> serde_json::Result<Manifest> {
        let value: Value = serde_json::from_slice(json)?;
        let mut manifest = Manifest { is_of_version_2: value.get("kv").is_some(), ..Manifest::default() };
        manifest.read(&value);
        if manifest.files.is_empty() {
            return Err(serde::de::Error::custom("it names no file"));
        }
        match manifest.files.iter().find(|file| file.name.contains('/') || file.name.starts_with("..")) {
            Some(file) => Err(serde::de::Error::custom(format!("{:?} is no name of a file", file.name))),
            None => Ok(manifest),
        }
    }

    fn read(&mut self, value: &Value) {
        match value {
            Value::Array(values) => values.iter().for_each(|value| self.read(value)),
            Value::Object(fields) => {
                let text =
                    |key: &str| fields.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
                let size = fields.get("size").and_then(Value::as_u64);
                if let (Some(name), Some(size_bytes)) = (text("fileName"), size) {
                    self.files.push(NamedFile { name: name.to_owned(), size_bytes });
                }
                self.databases.extend(text("database").or(text("bucketName")).map(str::to_owned));
                fields.values().for_each(|value| self.read(value));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manifests_of_both_versions_name_their_files() {
        let first = br#"{"meta": {"fileName": "a.meta", "size": 2}, "limited": false, "files": [
            {"database": "d", "policy": "autogen", "shardID": 1, "fileName": "a.s1.tar.gz", "size": 3, "lastModified": 0}]}"#;
        let manifest = Manifest::parse(first).unwrap();
        let names: Vec<_> = manifest.files.iter().map(|file| (file.name.as_str(), file.size_bytes)).collect();
        assert!(names.contains(&("a.meta", 2)) && names.contains(&("a.s1.tar.gz", 3)) && names.len() == 2);
        assert_eq!((manifest.databases.len(), manifest.is_of_version_2), (1, false));

        let second = br#"{"kv": {"fileName": "a.bolt.gz", "size": 1, "compression": "gzip"},
            "buckets": [{"organizationName": "o", "bucketName": "b", "retentionPolicies": [{"name": "autogen",
            "shardGroups": [{"id": 1, "shards": [{"id": 7, "fileName": "a.7.tar.gz", "size": 5}]}]}]}]}"#;
        let manifest = Manifest::parse(second).unwrap();
        assert_eq!((manifest.files.len(), manifest.is_of_version_2), (2, true));
        assert!(manifest.databases.contains("b"));

        for bad in [&b"{"[..], b"{}", b"[]", br#"{"meta": {"fileName": "../a", "size": 1}}"#] {
            assert!(Manifest::parse(bad).is_err());
        }
    }
}
