//! Finds the program that runs a server of Redis or Valkey on this machine.
//!
//! A server reads what one of its own product wrote that is as old or older. The two products
//! have gone apart since Redis 7.2, and what either makes of the other's files is nobody's promise,
//! so a program of the other product is as good as none, whatever its name is: both are found
//! under the name `redis-server`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use super::error::RedisError;
use super::facts::{Product, ServerFacts, numbers};
use crate::{Error, Result};

/// What only prints a line.
const VERSION_LIMIT: Duration = Duration::from_secs(10);
/// Debian's own place, that of a build by hand, and that of Redis's own packages.
const USUAL_PLACES: [&str; 4] = ["/usr/bin", "/usr/local/bin", "/usr/sbin", "/opt/redis/bin"];

/// A program that can run a server on what another one has written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisPrograms {
    server: PathBuf,
    version: String,
}

impl RedisPrograms {
    /// Looks into the directory that was set and nowhere else, or, when none was, along the search
    /// path and in the usual places. The first that will do is taken.
    ///
    /// # Errors
    ///
    /// [`RedisError::ProgramMissing`]; where there are only unfit ones, why the first of them is:
    /// [`RedisError::ProgramOfOther`], [`RedisError::ProgramTooOld`].
    pub async fn find(source: &ServerFacts, bin_directory: Option<&Path>) -> Result<RedisPrograms> {
        let directories = match bin_directory {
            Some(directory) => vec![directory.to_owned()],
            None => search_places(std::env::var_os("PATH").as_deref()),
        };
        let mut unfit = None;
        // All places by the product's own name come first: under the other one lies a link at best.
        for name in names(source.product) {
            for directory in &directories {
                let program = directory.join(name);
                if !program.is_file() {
                    continue;
                }
                match check(program, source).await {
                    Ok(programs) => return Ok(programs),
                    Err(error) => unfit = unfit.or(Some(error)),
                }
            }
        }
        Err(unfit.unwrap_or_else(|| {
            let (product, release) = (source.product, source.release());
            RedisError::ProgramMissing { product, release, directory: bin_directory.map(Path::to_owned) }
                .into()
        }))
    }

    pub fn server(&self) -> &Path {
        &self.server
    }

    /// What it says of itself.
    pub fn version(&self) -> &str {
        &self.version
    }
}

/// What the server's program may be called: Valkey's own build leaves links with the old names.
fn names(product: Product) -> &'static [&'static str] {
    match product {
        Product::Redis => &["redis-server"],
        Product::Valkey => &["valkey-server", "redis-server"],
    }
}

fn search_places(search_path: Option<&OsStr>) -> Vec<PathBuf> {
    let mut places: Vec<PathBuf> = search_path.into_iter().flat_map(std::env::split_paths).collect();
    places.extend(USUAL_PLACES.map(PathBuf::from));
    places
}

async fn check(program: PathBuf, source: &ServerFacts) -> Result<RedisPrograms> {
    let said = ask_version(&program).await?;
    let Some((product, version)) = parse_version(&said) else {
        let (expected, found) = (source.product, said.lines().next().unwrap_or_default().to_owned());
        return Err(RedisError::ProgramOfOther { program, found, expected }.into());
    };
    if product != source.product {
        let found = format!("{} {version}", product.name());
        return Err(RedisError::ProgramOfOther { program, found, expected: source.product }.into());
    }
    // Within one release the formats stay, and a distribution's fix is not always that of the source.
    if numbers(&version) < source.release() {
        let needed = source.version.clone();
        return Err(RedisError::ProgramTooOld { program, product, found: version, needed }.into());
    }
    Ok(RedisPrograms { server: program, version })
}

async fn ask_version(program: &Path) -> Result<String> {
    let failed = |source| Error::Program { program: program.display().to_string(), source };
    let mut command = tokio::process::Command::new(program);
    command.arg("--version").stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    match tokio::time::timeout(VERSION_LIMIT, command.output()).await {
        Ok(output) => Ok(String::from_utf8_lossy(&output.map_err(failed)?.stdout).into_owned()),
        Err(_) => {
            Err(Error::ProgramTimeout { program: "redis-server --version", seconds: VERSION_LIMIT.as_secs() })
        }
    }
}

/// `Valkey server v=8.1.1 sha=00000000:0 malloc=…`.
fn parse_version(text: &str) -> Option<(Product, String)> {
    let (product, rest) = text.split_once(" server v=")?;
    let product = [Product::Redis, Product::Valkey].into_iter().find(|known| known.name() == product)?;
    let version = rest.split_whitespace().next()?;
    Some((product, version.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use backstay_model::ErrorKind;
    use backstay_model::error::Classified;

    use super::super::facts::facts_of_a_server;
    use super::*;

    fn source(product: Product, version: &str) -> ServerFacts {
        ServerFacts { product, version: version.to_owned(), ..facts_of_a_server() }
    }

    /// A directory with a program that says what it is told to.
    fn place(name: &str, says: &str) -> tempfile::TempDir {
        let place = tempfile::tempdir().unwrap();
        let program = place.path().join(name);
        fs::write(&program, format!("#!/bin/sh\necho '{says}'\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        place
    }

    const REDIS: &str = "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=a";
    const VALKEY: &str = "Valkey server v=8.1.1 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=b";

    #[test]
    fn product_and_version_are_read_from_what_the_program_says() {
        assert_eq!(parse_version(REDIS), Some((Product::Redis, "7.0.15".to_owned())));
        assert_eq!(parse_version(VALKEY), Some((Product::Valkey, "8.1.1".to_owned())));
        for other in ["", "KeyDB server v=6.3.4 sha=0", "Redis server v="] {
            assert_eq!(parse_version(other), None, "{other}");
        }
    }

    #[tokio::test]
    async fn a_program_of_the_same_release_or_a_newer_one_will_do() {
        let place = place("redis-server", REDIS);
        for version in ["7.0.0", "7.0.16"] {
            let found = RedisPrograms::find(&source(Product::Redis, version), Some(place.path())).await;
            assert_eq!(found.unwrap().version(), "7.0.15", "{version}");
        }
    }

    #[tokio::test]
    async fn valkey_is_known_by_what_it_says_and_not_by_its_name() {
        let place = place("redis-server", VALKEY);
        let found = RedisPrograms::find(&source(Product::Valkey, "8.0.2"), Some(place.path())).await.unwrap();
        assert_eq!(found.server(), place.path().join("redis-server"));
        let error =
            RedisPrograms::find(&source(Product::Redis, "7.0.1"), Some(place.path())).await.unwrap_err();
        assert!(error.to_string().ends_with("is of Valkey 8.1.1, and not of Redis"), "{error}");
        assert!(error.hints()[0].contains("`bin_directory`"), "{:?}", error.hints());
    }

    #[tokio::test]
    async fn an_older_program_is_refused() {
        let place = place("redis-server", REDIS);
        let error =
            RedisPrograms::find(&source(Product::Redis, "7.2.4"), Some(place.path())).await.unwrap_err();
        assert!(matches!(error, Error::Redis(RedisError::ProgramTooOld { .. })), "{error}");
        assert!(error.to_string().contains("Redis 7.0.15") && error.to_string().contains("7.2.4"), "{error}");
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }

    #[tokio::test]
    async fn a_directory_that_was_set_is_the_only_one_looked_into() {
        let empty = tempfile::tempdir().unwrap();
        let error =
            RedisPrograms::find(&source(Product::Valkey, "8.1.1"), Some(empty.path())).await.unwrap_err();
        let expected =
            format!("find the program `valkey-server` of Valkey 8.1 or newer in {}", empty.path().display());
        assert_eq!(error.to_string(), expected);
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }
}
