//! Finds the program that runs a server of Redis or Valkey on this machine.
//!
//! A server reads what one of its own product wrote that is as old or older. Valkey began as Redis
//! 7.2 and reads what that one and those before it wrote; since then the two have gone apart, and
//! what either makes of the other's newer files is nobody's promise. Which product a program is of, it
//! says itself: both are found under the name `redis-server`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use backstay_model::Finding;
use backstay_model::error::Classified;

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
    product: Product,
    version: String,
}

impl RedisPrograms {
    /// Looks into the directory that was set and nowhere else, or, when none was, along the search
    /// path and in the usual places. The first that will do is taken, and one of the other product only
    /// where there is none of the same.
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
        let (mut unfit, mut other) = (None, None);
        // All places by the product's own name come first: under the other one lies a link at best.
        for name in names(source.product) {
            for directory in &directories {
                let program = directory.join(name);
                if !program.is_file() {
                    continue;
                }
                match check(program, source).await {
                    Ok(programs) if programs.product == source.product => return Ok(programs),
                    Ok(programs) => other = other.or(Some(programs)),
                    Err(error) => unfit = unfit.or(Some(error)),
                }
            }
        }
        if let Some(other) = other {
            return Ok(other);
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

    pub fn product(&self) -> Product {
        self.product
    }

    /// What a person should know of it: it proves what it loads, and the server of that product was
    /// not tried.
    pub fn finding(&self, source: &ServerFacts) -> Option<Finding> {
        let RedisPrograms { product, version, .. } = self;
        let (of, name) = (&source.version, source.product.name());
        (*product != source.product).then(|| {
            Finding::info(
                "the private server",
                format!("it is of {} {version}, which reads what {name} {of} wrote", product.name()),
                format!("`bin_directory` of the instance names the directory of a server of {name}"),
            )
        })
    }

    /// What it says of itself.
    pub fn version(&self) -> &str {
        &self.version
    }
}

/// Of programs that there are, and of which none will do.
pub fn unfit(error: &Error) -> Option<Finding> {
    let is_there =
        matches!(error, Error::Redis(RedisError::ProgramOfOther { .. } | RedisError::ProgramTooOld { .. }));
    let hint = error.hints().into_iter().next().filter(|_| is_there)?;
    Some(Finding::warning("the server of this machine", error.to_string(), hint))
}

/// The last release of Redis that Valkey grew out of: both write version 11 of the format at most.
const LAST_IN_COMMON: (u32, u32) = (7, 2);

/// Whether every server of Valkey reads what a server wrote.
pub fn valkey_reads(source: &ServerFacts) -> bool {
    source.product == Product::Valkey || source.release() <= LAST_IN_COMMON
}

/// What the server's program may be called: Valkey's own build leaves links with the old names.
fn names(product: Product) -> &'static [&'static str] {
    match product {
        Product::Redis => &["redis-server", "valkey-server"],
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
        let found = said.lines().next().unwrap_or_default().to_owned();
        return Err(of_other(program, found, source));
    };
    let is_same = product == source.product;
    let reads = is_same || product == Product::Valkey && valkey_reads(source);
    if !reads {
        return Err(of_other(program, format!("{} {version}", product.name()), source));
    }
    // Within one release the formats stay, and a distribution's fix is not always that of the source.
    if is_same && numbers(&version) < source.release() {
        let needed = source.version.clone();
        return Err(RedisError::ProgramTooOld { program, product, found: version, needed }.into());
    }
    Ok(RedisPrograms { server: program, product, version })
}

fn of_other(program: PathBuf, found: String, source: &ServerFacts) -> Error {
    let (expected, version) = (source.product, source.version.clone());
    RedisError::ProgramOfOther { program, found, expected, version }.into()
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
        program(place.path(), name, says);
        place
    }

    fn program(place: &Path, name: &str, says: &str) {
        let program = place.join(name);
        fs::write(&program, format!("#!/bin/sh\necho '{says}'\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
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
            RedisPrograms::find(&source(Product::Redis, "7.4.0"), Some(place.path())).await.unwrap_err();
        assert!(
            error.to_string().contains("is of Valkey 8.1.1, and does not read what Redis 7.4.0"),
            "{error}"
        );
        assert!(error.hints()[0].contains("`bin_directory`"), "{:?}", error.hints());
    }

    #[tokio::test]
    async fn valkey_reads_what_redis_wrote_before_they_parted_where_there_is_none_of_redis() {
        let place = place("valkey-server", VALKEY);
        for version in ["7.0.15", "7.2.9"] {
            let source = source(Product::Redis, version);
            let found = RedisPrograms::find(&source, Some(place.path())).await.unwrap();
            assert_eq!(found.product(), Product::Valkey, "{version}");
            assert!(found.finding(&source).unwrap().message.contains("Valkey 8.1.1"), "{version}");
        }
        program(place.path(), "redis-server", REDIS);
        let source = source(Product::Redis, "7.0.15");
        let found = RedisPrograms::find(&source, Some(place.path())).await.unwrap();
        assert_eq!((found.product(), found.finding(&source)), (Product::Redis, None));
    }

    #[tokio::test]
    async fn redis_does_not_read_what_valkey_wrote() {
        let place = place("redis-server", REDIS.replace("7.0.15", "8.2.0").as_str());
        let error =
            RedisPrograms::find(&source(Product::Valkey, "7.2.4"), Some(place.path())).await.unwrap_err();
        assert!(matches!(error, Error::Redis(RedisError::ProgramOfOther { .. })), "{error}");
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
