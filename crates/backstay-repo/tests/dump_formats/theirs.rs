//! What other programs wrote, we open, by its content alone.

use backstay_model::error::Classified as _;
use backstay_model::{ErrorKind, Secret};
use backstay_repo::Error;
use backstay_repo::dump::{DumpError, DumpInside, DumpLayer};
use testkit::require_programs;

use super::material::{Place, archive, place, read, read_with, sql};
use super::programs::{GpgHome, OPENSSL, shell};

const PROGRAMS: [&str; 7] = ["openssl", "gpg", "gpg-agent", "gzip", "zstd", "bzip2", "xz"];

fn with(place: &Place, raw: &[u8], line: &str) {
    std::fs::write(place.directory.path().join("raw"), raw).unwrap();
    shell(place.directory.path(), line);
}

#[tokio::test]
async fn files_of_the_usual_commands_are_opened_whatever_they_are_called() {
    if !require_programs(&PROGRAMS) {
        return;
    }
    use DumpLayer::{Bzip2, Gzip, Openpgp, Openssl, Xz, Zstd};
    let home = GpgHome::new();
    let gpg = home.command();
    let cases: Vec<(String, Vec<DumpLayer>)> = vec![
        ("cat raw".to_owned(), vec![]),
        ("gzip -c raw".to_owned(), vec![Gzip]),
        ("gzip -1 -c raw; gzip -9 -c /dev/null".to_owned(), vec![Gzip]),
        ("zstd -c raw".to_owned(), vec![Zstd]),
        ("zstd -19 --long=27 --no-check -c raw".to_owned(), vec![Zstd]),
        ("bzip2 -c raw".to_owned(), vec![Bzip2]),
        ("xz -c raw".to_owned(), vec![Xz]),
        ("xz -9e -C sha256 -c raw; xz -c /dev/null".to_owned(), vec![Xz]),
        (format!("{OPENSSL} -in raw"), vec![Openssl]),
        (format!("gzip -c raw | {OPENSSL} -salt"), vec![Openssl, Gzip]),
        ("gzip -c raw | openssl enc -aes-256-cbc -pbkdf2 -pass file:p".to_owned(), vec![Openssl, Gzip]),
        ("gzip -c raw | openssl enc -aes-256-cbc -pass file:p 2>/dev/null".to_owned(), vec![Openssl, Gzip]),
        (format!("{gpg} --symmetric -o - raw"), vec![Openpgp]),
        (format!("gzip -c raw | {gpg} --symmetric --cipher-algo AES256"), vec![Openpgp, Gzip]),
        (format!("{gpg} --symmetric --armor -o - raw"), vec![Openpgp]),
        (
            format!("{gpg} --symmetric -z 0 --cipher-algo AES128 --s2k-digest-algo SHA1 -o - raw"),
            vec![Openpgp],
        ),
        (format!("{gpg} --symmetric --compress-algo bzip2 --cipher-algo 3DES -o - raw"), vec![Openpgp]),
        (format!("{gpg} --symmetric --compress-algo zlib --cipher-algo CAST5 -o - raw"), vec![Openpgp]),
        (format!("xz -c raw | {OPENSSL} | {gpg} --symmetric"), vec![Openpgp, Openssl, Xz]),
    ];
    for (content, inside) in
        [(sql(2_000_000), DumpInside::PlainSql), (archive(200), DumpInside::CustomArchive)]
    {
        for (line, layers) in &cases {
            let place = place();
            with(&place, &content, &format!("{{ {line}; }} > 'misleading name.xz'"));
            let opened = read(&place, "misleading name.xz").await;
            let opened = opened.unwrap_or_else(|error| panic!("{line}: {error:?}"));
            assert_eq!((&opened.layers, opened.inside), (layers, inside), "{line}");
            assert!(opened.raw == content, "{line}");
            assert!(!opened.read.is_authentic);
        }
    }
}

#[tokio::test]
async fn what_is_encrypted_says_so_when_no_pass_phrase_or_a_wrong_one_is_given() {
    if !require_programs(&PROGRAMS) {
        return;
    }
    let home = GpgHome::new();
    let gpg = home.command();
    for length in [20, 200, 3_000_000] {
        for line in [
            format!("{OPENSSL} -in raw"),
            format!("zstd -c raw | {OPENSSL}"),
            format!("{gpg} --symmetric -o - raw"),
            format!("{gpg} --symmetric -z 0 -o - raw"),
            format!("{gpg} --symmetric --armor -o - raw"),
        ] {
            let place = place();
            with(&place, &archive(length), &format!("{{ {line}; }} > file"));
            let error = read_with(&place, "file", None).await.unwrap_err();
            assert!(matches!(error, Error::Dump(DumpError::PassphraseNeeded { .. })), "{line}: {error:?}");
            for number in 0..4 {
                let wrong = Secret::new(format!("wrong {number}"));
                let error = read_with(&place, "file", Some(&wrong)).await.unwrap_err();
                assert!(matches!(error, Error::Dump(DumpError::WrongPassphrase { .. })), "{line}: {error:?}");
                assert_eq!(error.kind(), ErrorKind::Denied);
            }
        }
    }
}

#[tokio::test]
async fn a_message_for_a_private_key_says_what_it_takes() {
    if !require_programs(&PROGRAMS) {
        return;
    }
    let (place, home) = (place(), GpgHome::new());
    let gpg = home.command();
    let key =
        format!("{gpg} --passphrase '' --quick-generate-key somebody@example.org rsa2048 encrypt never");
    let line = format!(
        "{key} 2>/dev/null || true; {gpg} --trust-model always -r somebody@example.org --encrypt -o file raw"
    );
    with(&place, &archive(5000), &line);
    let error = read(&place, "file").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
    assert!(error.to_string().contains("private OpenPGP key"), "{error}");
}

#[tokio::test]
async fn what_is_nothing_we_know_is_read_and_called_unknown() {
    let place = place();
    std::fs::write(place.directory.path().join("notes.sql.gz"), b"buy milk\n").unwrap();
    let opened = read(&place, "notes.sql.gz").await.unwrap();
    assert_eq!((opened.inside, opened.raw.as_slice()), (DumpInside::Unknown, &b"buy milk\n"[..]));
    let reader =
        backstay_repo::dump::DumpReader::open(&place.shelf, &super::material::path("notes.sql.gz"), None)
            .await
            .unwrap();
    assert!(matches!(reader.known(), Err(DumpError::Unknown { .. })));
}

#[tokio::test]
async fn a_file_that_takes_much_memory_to_unpack_is_refused_and_not_called_damaged() {
    if !require_programs(&PROGRAMS) {
        return;
    }
    for line in ["cat raw | zstd --long=28 -c", "xz --lzma2=dict=256MiB -c raw"] {
        let place = place();
        with(&place, &sql(300_000), &format!("{{ {line}; }} > file"));
        let error = read(&place, "file").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{line}: {error:?}");
        assert!(error.to_string().contains("memory"), "{error}");
    }
}
