//! The certificate of this side, for servers that want one of their clients.
//!
//! Refuses before the first byte is sent what a server could only refuse without a reason: files
//! that hold something else, and a key that is not the certificate's.

use std::path::{Path, PathBuf};

use rustls::ClientConfig;
use rustls::client::WantsClientCert;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::{Error, Result};

/// Two PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnCertificate {
    /// The certificate first, then those that lead to its authority.
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl OwnCertificate {
    pub(super) fn show(
        &self,
        builder: rustls::ConfigBuilder<ClientConfig, WantsClientCert>,
    ) -> Result<ClientConfig> {
        let wrong_certificate = wrong("ssl_certificate", &self.certificate);
        let chain =
            CertificateDer::pem_file_iter(&self.certificate).map_err(|error| wrong_certificate(&error))?;
        let chain: Vec<_> = chain.collect::<Result<_, _>>().map_err(|error| wrong_certificate(&error))?;
        if chain.is_empty() {
            return Err(wrong_certificate(&"holds no certificate"));
        }
        let wrong_key = wrong("ssl_key", &self.key);
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|error| match error {
            pem::Error::NoItemsFound => {
                wrong_key(&"holds no key that can be read; `openssl pkey` writes one without its pass phrase")
            }
            error => wrong_key(&error),
        })?;
        builder.with_client_auth_cert(chain, key).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => wrong_key(&format_args!(
                "is not the key of the certificate in {}",
                self.certificate.display()
            )),
            error => wrong_key(&error),
        })
    }
}

/// The one form of what is wrong with a file.
fn wrong(setting: &'static str, path: &Path) -> impl Fn(&dyn std::fmt::Display) -> Error {
    move |reason| Error::Setting { setting, reason: format!("{}: {reason}", path.display()) }
}

#[cfg(test)]
mod tests {
    use super::super::{Tls, TlsMode};
    use super::*;

    #[test]
    fn what_is_wrong_with_either_file_is_said_of_its_setting() {
        let place = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = place.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec!["client".to_owned()]).unwrap();
        let good = file("good.crt", &certificate.self_signed(&key).unwrap().pem());
        let own = file("own.key", &key.serialize_pem());
        let other = file("other.key", &rcgen::KeyPair::generate().unwrap().serialize_pem());
        let locked = file(
            "locked.key",
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
        );
        let (empty, none) = (file("empty", ""), place.path().join("none"));
        let open = |certificate: &Path, key: &Path| {
            let own = OwnCertificate { certificate: certificate.to_owned(), key: key.to_owned() };
            Tls::new(TlsMode::Require, None, Some(&own)).map(|_| ())
        };
        open(&good, &own).unwrap();
        for (certificate, key, words) in [
            (&none, &own, ["`ssl_certificate`", "none"]),
            (&empty, &own, ["`ssl_certificate`", "no certificate"]),
            (&good, &none, ["`ssl_key`", "none"]),
            (&good, &empty, ["`ssl_key`", "no key"]),
            (&good, &locked, ["`ssl_key`", "pass phrase"]),
            (&good, &other, ["`ssl_key`", "not the key of the certificate"]),
        ] {
            let error = open(certificate, key).unwrap_err().to_string();
            assert!(words.iter().all(|word| error.contains(word)), "{words:?}: {error}");
        }
    }
}
