//! The address of a store as a person writes it into the configuration.

use std::path::PathBuf;
use std::sync::Arc;

use super::disk::DiskStore;
use super::memory::MemoryStore;
use super::{Store, StoreError};

/// Opens nothing yet; says only whether the address is one that we can serve.
pub fn open(url: &str) -> Result<Arc<dyn Store>, StoreError> {
    let invalid = |reason: &str| StoreError::InvalidUrl { url: redacted(url), reason: reason.to_owned() };
    if url == "memory:" {
        return Ok(Arc::new(MemoryStore::new()));
    }
    if let Some(rest) = url.strip_prefix("file://") {
        // `file://localhost/path` is the same place by RFC 8089; other hosts are not here.
        let path = rest.strip_prefix("localhost").unwrap_or(rest);
        if !path.starts_with('/') {
            return Err(invalid("the path after file:// must begin with /"));
        }
        if path.contains(['?', '#', '%', '\0']) {
            return Err(invalid("the path holds one of ? # %"));
        }
        return Ok(Arc::new(DiskStore::new(PathBuf::from(path))));
    }
    match url.split_once(':') {
        Some((scheme, _)) if !scheme.is_empty() && scheme.bytes().all(|b| b.is_ascii_alphanumeric()) => {
            Err(StoreError::UnknownScheme { url: redacted(url) })
        }
        _ => Err(invalid("it does not begin with a scheme such as file://")),
    }
}

/// Without what could be a password: the part before `@` and after `?`.
fn redacted(url: &str) -> String {
    let shown = url.split('?').next().unwrap_or(url);
    match shown.split_once("://") {
        Some((scheme, rest)) => match rest.rsplit_once('@') {
            Some((_, host)) => format!("{scheme}://****@{host}"),
            None => shown.to_owned(),
        },
        None => shown.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use backstay_model::ErrorKind;
    use backstay_model::error::Classified;

    use super::*;

    #[test]
    fn a_path_is_a_disk_store_and_the_rest_says_why_not() {
        assert_eq!(open("file:///var/lib/backstay").unwrap().location(), "file:///var/lib/backstay");
        assert_eq!(open("file://localhost/srv").unwrap().location(), "file:///srv");
        for (url, kind) in [
            ("s3://bucket/prefix", ErrorKind::Unsupported),
            ("sftp://host/path", ErrorKind::Unsupported),
            ("file://relative/path", ErrorKind::Invalid),
            ("/var/lib/backstay", ErrorKind::Invalid),
            ("file:///a%20b", ErrorKind::Invalid),
            ("", ErrorKind::Invalid),
        ] {
            let error = open(url).unwrap_err();
            assert_eq!(error.kind(), kind, "{url}");
            assert!(!error.hints().is_empty(), "{url}");
        }
    }

    #[test]
    fn a_password_in_an_address_is_not_repeated() {
        let text = open("sftp://user:hunter2@host/path?key=hunter3").unwrap_err().to_string();
        assert!(!text.contains("hunter"), "{text}");
    }
}
