//! Servers that want a certificate of their clients, which is what they do unless told otherwise.

use super::*;

/// An authority, and what it has signed.
struct Signed {
    place: tempfile::TempDir,
    authority: rcgen::CertifiedIssuer<'static, rcgen::KeyPair>,
}

impl Signed {
    fn new() -> Signed {
        let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        // Under one name with it, whatever it signs would look signed by itself.
        parameters.distinguished_name.push(rcgen::DnType::CommonName, "authority");
        let key = rcgen::KeyPair::generate().unwrap();
        let authority = rcgen::CertifiedIssuer::self_signed(parameters, key).unwrap();
        let signed = Signed { place: tempfile::tempdir().unwrap(), authority };
        signed.file("ca.crt", &signed.authority.pem());
        signed
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.place.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn path(&self, name: &str) -> String {
        self.place.path().join(name).to_str().unwrap().to_owned()
    }

    /// Makes `NAME.crt` and `NAME.key`.
    fn sign(&self, name: &str) {
        let key = rcgen::KeyPair::generate().unwrap();
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let certificate =
            rcgen::CertificateParams::new(names).unwrap().signed_by(&key, &self.authority).unwrap();
        self.file(&format!("{name}.crt"), &certificate.pem());
        self.file(&format!("{name}.key"), &key.serialize_pem());
    }

    fn settings(&self, url: &str, client: Option<&str>) -> RedisSettings {
        RedisSettings {
            url: url.to_owned(),
            ssl_root_certificate: Some(self.path("ca.crt").into()),
            ssl_certificate: client.map(|name| self.path(&format!("{name}.crt")).into()),
            ssl_key: client.map(|name| self.path(&format!("{name}.key")).into()),
            ..RedisSettings::default()
        }
    }
}

#[test]
fn a_certificate_of_ones_own_lets_in_and_without_it_the_setting_is_named() {
    let signed = Signed::new();
    signed.sign("server");
    signed.sign("client");
    let (certificate, key, authority) =
        (signed.path("server.crt"), signed.path("server.key"), signed.path("ca.crt"));
    let stranger = Signed::new();
    stranger.sign("client");
    on_both(|installation| {
        for protocols in ["TLSv1.3", "TLSv1.2"] {
            let port = free_port().unwrap().to_string();
            let server = Redis::start_new(
                installation,
                &[
                    ("tls-port", &port),
                    ("tls-cert-file", &certificate),
                    ("tls-key-file", &key),
                    ("tls-ca-cert-file", &authority),
                    ("tls-protocols", protocols),
                ],
            )
            .unwrap();
            let url = format!("rediss://localhost:{port}");
            let source = chosen(&signed.settings(&url, Some("client"))).unwrap();
            assert_from(source, &server, &[]);

            let error = refused(&signed.settings(&url, None));
            assert!(
                matches!(error, Error::Redis(RedisError::TlsEnded { has_certificate: false, .. })),
                "{protocols}: {error:?}"
            );
            assert!(error.hints()[0].contains("`ssl_certificate`"), "{:?}", error.hints());

            let mut foreign = stranger.settings(&url, Some("client"));
            foreign.ssl_root_certificate = Some(authority.clone().into());
            let error = refused(&foreign);
            assert!(
                matches!(error, Error::Redis(RedisError::TlsEnded { has_certificate: true, .. })),
                "{protocols}: {error:?}"
            );
            assert!(error.hints()[0].contains("tls-ca-cert-file"), "{:?}", error.hints());
        }
    });
}

#[test]
fn sentinels_and_their_servers_are_reached_with_tls_alone() {
    let signed = Signed::new();
    signed.sign("server");
    signed.sign("client");
    let (certificate, key, authority) =
        (signed.path("server.crt"), signed.path("server.key"), signed.path("ca.crt"));
    on_both(|installation| {
        let (of_master, of_sentinel) = (free_port().unwrap(), free_port().unwrap());
        let (for_master, for_sentinel) = (of_master.to_string(), of_sentinel.to_string());
        let files =
            [("tls-cert-file", &certificate[..]), ("tls-key-file", &key), ("tls-ca-cert-file", &authority)];
        let tls = |port| [("tls-port", port), ("tls-replication", "yes")].into_iter().chain(files);
        let words: Vec<_> = tls(&for_master).collect();
        let master = Redis::start_new(installation, &words).unwrap();
        let words: Vec<_> = tls(&for_sentinel).collect();
        let _sentinel = Redis::start_sentinel(installation, "main", of_master, &words).unwrap();
        let url = format!("sentinels://localhost:{of_sentinel}/main");
        let source = chosen(&signed.settings(&url, Some("client"))).unwrap();
        assert_eq!(source.choice, Choice::Primary);
        assert_from(source, &master, &[]);
        let error = refused(&signed.settings(&url, None));
        assert!(error.to_string().contains("no Sentinel says where"), "{error}");
        assert!(error.hints().iter().any(|hint| hint.contains("ssl_certificate")), "{:?}", error.hints());
    });
}
