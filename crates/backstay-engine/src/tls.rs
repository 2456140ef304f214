//! TLS as libpq understands it, on rustls.
//!
//! `sslmode` decides two things: whether TLS must be there, and how much of the
//! server's certificate is looked at. The hash of that certificate is handed to
//! SCRAM (`tls-server-end-point`), so that a password proof given to a man in the
//! middle is worth nothing even when nobody checked the name.

mod own;

use std::io;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use sha2::{Digest, Sha256, Sha384, Sha512};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub use own::OwnCertificate;

use crate::{Error, Result};

/// `sslmode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsMode {
    Disable,
    /// TLS when the server offers it; nobody is checked.
    Prefer,
    /// TLS or nothing. The certificate is checked only when a root is named.
    Require,
    /// The certificate must be signed by a trusted authority.
    VerifyCa,
    /// And it must be the certificate of the host.
    VerifyFull,
}

impl TlsMode {
    pub fn name(self) -> &'static str {
        match self {
            TlsMode::Disable => "disable",
            TlsMode::Prefer => "prefer",
            TlsMode::Require => "require",
            TlsMode::VerifyCa => "verify-ca",
            TlsMode::VerifyFull => "verify-full",
        }
    }
}

impl FromStr for TlsMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "disable" => Ok(TlsMode::Disable),
            // `allow` begins without TLS and only then tries it; nobody is safer for it.
            "allow" | "prefer" => Ok(TlsMode::Prefer),
            "require" => Ok(TlsMode::Require),
            "verify-ca" => Ok(TlsMode::VerifyCa),
            "verify-full" => Ok(TlsMode::VerifyFull),
            other => Err(format!(
                "has sslmode={other}, which is none of disable, prefer, require, verify-ca, verify-full"
            )),
        }
    }
}

/// Makes TLS sessions of one kind.
#[derive(Clone)]
pub struct Tls(TlsConnector);

impl Tls {
    /// `None` when the mode wants no TLS. `own` is shown to a server that asks for it.
    pub fn new(
        mode: TlsMode,
        root_certificate: Option<&Path>,
        own: Option<&OwnCertificate>,
    ) -> Result<Option<Tls>> {
        let checked = match mode {
            TlsMode::Disable => return Ok(None),
            TlsMode::Prefer => Checked::Nothing,
            TlsMode::Require if root_certificate.is_none() => Checked::Nothing,
            TlsMode::Require | TlsMode::VerifyCa => Checked::Authority,
            TlsMode::VerifyFull => Checked::AuthorityAndName,
        };
        let provider = Arc::new(aws_lc_rs::default_provider());
        let inner = match checked {
            Checked::Nothing => None,
            Checked::Authority | Checked::AuthorityAndName => {
                let roots = Arc::new(trusted_roots(root_certificate)?);
                let built = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider)).build();
                Some(built.map_err(|error| root_setting(&error))?)
            }
        };
        let verifier = Verifier { checked, inner, provider: Arc::clone(&provider) };
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| root_setting(&error))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let config = match own {
            Some(own) => own.show(config)?,
            None => config.with_no_client_auth(),
        };
        Ok(Some(Tls(TlsConnector::from(Arc::new(config)))))
    }

    /// Shakes hands over a stream on which the server has already agreed to TLS.
    pub async fn connect<S>(&self, host: &str, stream: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        self.0.connect(name, stream).await
    }
}

fn root_setting(error: &dyn std::fmt::Display) -> Error {
    Error::Setting { setting: "ssl_root_certificate", reason: error.to_string() }
}

fn trusted_roots(file: Option<&Path>) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    match file {
        Some(path) => {
            let wrong =
                |error: &dyn std::fmt::Display| root_setting(&format_args!("{}: {error}", path.display()));
            for certificate in CertificateDer::pem_file_iter(path).map_err(|error| wrong(&error))? {
                let certificate = certificate.map_err(|error| wrong(&error))?;
                roots.add(certificate).map_err(|error| wrong(&error))?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() {
        return Err(root_setting(&"no certificate of an authority was found"));
    }
    Ok(roots)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Checked {
    Nothing,
    Authority,
    AuthorityAndName,
}

/// The ordinary verifier, with the steps that the mode leaves out left out.
#[derive(Debug)]
struct Verifier {
    checked: Checked,
    inner: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(inner) = &self.inner else { return Ok(ServerCertVerified::assertion()) };
        let verdict = inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match verdict {
            // The name is the last thing looked at: everything before it was good.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if self.checked == Checked::Authority => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// `tls-server-end-point` of RFC 5929 for the session's server certificate, or
/// `None` when its signature has no hash of its own (Ed25519).
pub fn end_point_hash<S>(stream: &TlsStream<S>) -> Option<Vec<u8>> {
    let certificate = stream.get_ref().1.peer_certificates()?.first()?;
    certificate_hash(certificate)
}

fn certificate_hash(certificate: &[u8]) -> Option<Vec<u8>> {
    // Certificate ::= SEQUENCE { tbsCertificate, signatureAlgorithm SEQUENCE { OID … } … }
    let (_, body, _) = der_element(certificate)?;
    let (_, _, after_signed_part) = der_element(body)?;
    let (_, algorithm, _) = der_element(after_signed_part)?;
    let (_, oid, parameters) = der_element(algorithm)?;
    const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01];
    const ECDSA_SHA2: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03];
    const ECDSA_SHA1: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x01];
    // MD5 and SHA-1 are too weak for this use: RFC 5929 puts SHA-256 in their place.
    let bits = match oid.split_last()? {
        (4 | 5 | 11, RSA) | (2, ECDSA_SHA2) => 256,
        (12, RSA) | (3, ECDSA_SHA2) => 384,
        (13, RSA) | (4, ECDSA_SHA2) => 512,
        (10, RSA) => pss_hash_bits(parameters)?,
        _ if oid == ECDSA_SHA1 => 256,
        _ => return None,
    };
    Some(match bits {
        256 => Sha256::digest(certificate).to_vec(),
        384 => Sha384::digest(certificate).to_vec(),
        _ => Sha512::digest(certificate).to_vec(),
    })
}

/// RSASSA-PSS names its hash in its parameters; SHA-1 when it does not.
fn pss_hash_bits(parameters: &[u8]) -> Option<u32> {
    const SHA2: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02];
    let (_, fields, _) = der_element(parameters)?;
    let Some((0xa0, hash, _)) = der_element(fields) else { return Some(256) };
    let (_, algorithm, _) = der_element(hash)?;
    let (_, oid, _) = der_element(algorithm)?;
    match oid.split_last()? {
        (1, SHA2) => Some(256),
        (2, SHA2) => Some(384),
        (3, SHA2) => Some(512),
        _ => None,
    }
}

/// Tag, content and what follows of the first element of DER text.
fn der_element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let [tag, first, rest @ ..] = bytes else { return None };
    let (length, rest) = if *first < 0x80 {
        (usize::from(*first), rest)
    } else {
        let count = usize::from(first & 0x7f);
        let (digits, rest) = rest.split_at_checked(count).filter(|_| count <= 4)?;
        (digits.iter().fold(0, |value, digit| value << 8 | usize::from(*digit)), rest)
    };
    let (content, after) = rest.split_at_checked(length)?;
    Some((*tag, content, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_of_a_certificate_is_that_of_its_signature() {
        for (algorithm, length) in [
            (&rcgen::PKCS_ECDSA_P256_SHA256, Some(32)),
            (&rcgen::PKCS_ECDSA_P384_SHA384, Some(48)),
            (&rcgen::PKCS_ED25519, None),
        ] {
            let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
            let certificate =
                rcgen::CertificateParams::new(vec!["db".to_owned()]).unwrap().self_signed(&key).unwrap();
            let hash = certificate_hash(certificate.der());
            assert_eq!(hash.as_ref().map(Vec::len), length);
        }
        assert_eq!(certificate_hash(&[]), None);
        assert_eq!(certificate_hash(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]), None);
    }

    #[test]
    fn a_root_file_without_a_certificate_is_an_error_of_its_setting() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = Tls::new(TlsMode::VerifyFull, Some(file.path()), None).err().unwrap();
        assert!(error.to_string().contains("ssl_root_certificate"), "{error}");
        assert!(Tls::new(TlsMode::Disable, None, None).unwrap().is_none());
        assert!(Tls::new(TlsMode::Require, None, None).unwrap().is_some());
    }
}
