//! What we write, other programs open, and we too.

use backstay_model::dump::{DumpCipher, DumpCompression, DumpFormat};
use backstay_repo::dump::{BLOCK_BYTES, DumpInside, DumpLayer};
use testkit::require_programs;

use super::material::{archive, place, read, recipe, sql, write};
use super::programs::{GpgHome, OPENSSL, shell};

const PROGRAMS: [&str; 5] = ["openssl", "gpg", "gpg-agent", "gzip", "zstd"];

#[tokio::test]
async fn every_shape_opens_with_the_programs_that_its_extension_names() {
    if !require_programs(&PROGRAMS) {
        return;
    }
    let home = GpgHome::new();
    for cipher in [DumpCipher::None, DumpCipher::Openssl, DumpCipher::Openpgp] {
        for compression in
            [DumpCompression::None, DumpCompression::Inside, DumpCompression::Gzip, DumpCompression::Zstd]
        {
            // Around the block's edge, and the smallest dump.
            for length in [100, BLOCK_BYTES, BLOCK_BYTES * 3 + 17] {
                let place = place();
                let raw = sql(length);
                let recipe = recipe(DumpFormat::Plain, compression, cipher);
                let name = format!("orders.{}", recipe.shape.extension());
                let written = write(&place, &name, &recipe, &raw).await;
                let open = match cipher {
                    DumpCipher::None => format!("cat {name}"),
                    DumpCipher::Openssl => format!("{OPENSSL} -d -in {name}"),
                    DumpCipher::Openpgp => format!("{} --decrypt {name}", home.command()),
                };
                let unpack = match compression {
                    DumpCompression::Gzip => "gunzip -c",
                    DumpCompression::Zstd => "zstd -dc",
                    _ => "cat",
                };
                let back = shell(place.directory.path(), &format!("{open} > plain; {unpack} < plain"));
                assert!(back == raw, "{name}, {length} bytes");

                let opened = read(&place, &name).await.unwrap();
                assert!(opened.raw == raw, "{name}, {length} bytes");
                assert_eq!(opened.inside, DumpInside::PlainSql);
                assert_eq!(opened.read.sha256, written.sha256);
                assert_eq!(opened.read.stored_bytes, written.stored_bytes);
                assert_eq!((opened.read.raw_bytes, written.raw_bytes), (length as u64, length as u64));
                assert_eq!(opened.read.is_authentic, cipher != DumpCipher::None);
                let outer = match cipher {
                    DumpCipher::None => None,
                    DumpCipher::Openssl => Some(DumpLayer::Openssl),
                    DumpCipher::Openpgp => Some(DumpLayer::Openpgp),
                };
                let inner = match compression {
                    DumpCompression::Gzip => Some(DumpLayer::Gzip),
                    DumpCompression::Zstd => Some(DumpLayer::Zstd),
                    _ => None,
                };
                assert_eq!(opened.layers, outer.into_iter().chain(inner).collect::<Vec<_>>());
            }
        }
    }
}

#[tokio::test]
async fn the_digest_and_the_authentication_are_those_that_openssl_finds() {
    if !require_programs(&["openssl"]) {
        return;
    }
    let place = place();
    let recipe = recipe(DumpFormat::Custom, DumpCompression::Zstd, DumpCipher::Openssl);
    let written = write(&place, "orders", &recipe, &archive(3_000_000)).await;
    let digest = shell(place.directory.path(), "openssl dgst -sha256 -r orders");
    assert!(String::from_utf8(digest).unwrap().starts_with(&written.sha256));
    // As the module's documentation has it.
    let checked = shell(
        place.directory.path(),
        "SALT=$(sed 's/.* salt=\\([0-9a-f]*\\) .*/\\1/' orders.hmac)
         KEY=$(openssl kdf -keylen 32 -kdfopt digest:SHA256 -kdfopt pass:\"$(cat p)\" \\
               -kdfopt hexsalt:$SALT -kdfopt iter:100000 PBKDF2 | tr -d ':\\n')
         openssl dgst -sha256 -mac HMAC -macopt hexkey:$KEY -r orders",
    );
    let hmac = String::from_utf8(checked).unwrap();
    let hmac = hmac.split_whitespace().next().unwrap();
    let line = String::from_utf8(written.hmac.unwrap().to_vec()).unwrap();
    assert!(line.ends_with(&format!(" hmac-sha256={hmac}\n")), "{line} {hmac}");
}

#[tokio::test]
async fn an_empty_dump_is_a_file_that_the_programs_open() {
    if !require_programs(&PROGRAMS) {
        return;
    }
    for (compression, unpack) in [(DumpCompression::Gzip, "gunzip -c"), (DumpCompression::Zstd, "zstd -dc")] {
        let place = place();
        let recipe = recipe(DumpFormat::Plain, compression, DumpCipher::None);
        let written = write(&place, "empty", &recipe, b"").await;
        assert!(written.stored_bytes > 0);
        assert!(shell(place.directory.path(), &format!("{unpack} < empty")).is_empty());
        let opened = read(&place, "empty").await.unwrap();
        assert_eq!((opened.inside, opened.read.raw_bytes), (DumpInside::Unknown, 0));
    }
}

#[tokio::test]
async fn two_dumps_of_the_same_bytes_share_no_byte_of_cipher_text() {
    let place = place();
    let raw = archive(10_000);
    for cipher in [DumpCipher::Openssl, DumpCipher::Openpgp] {
        let recipe = recipe(DumpFormat::Custom, DumpCompression::None, cipher);
        write(&place, &format!("a.{cipher}"), &recipe, &raw).await;
        write(&place, &format!("b.{cipher}"), &recipe, &raw).await;
        let file =
            |name: &str| std::fs::read(place.directory.path().join(format!("{name}.{cipher}"))).unwrap();
        let (a, b) = (file("a"), file("b"));
        let same = a.iter().zip(&b).skip(100).filter(|(a, b)| a == b).count();
        assert!(same < a.len() / 50, "{cipher}: {same} of {} bytes are the same", a.len());
        assert!(!a.windows(8).any(|window| window == &raw[5000..5008]));
    }
}
