//! Files that were cut or changed: what was damaged is never called whole, and never
//! mistaken for a wrong pass phrase where the file itself can tell.

use backstay_model::ErrorKind;
use backstay_model::dump::{DumpCipher, DumpCompression, DumpFormat};
use backstay_model::error::Classified as _;
use backstay_repo::Error;
use backstay_repo::dump::DumpError;
use testkit::require_programs;

use super::material::{Opened, Place, archive, path, place, read, recipe, sql, write};
use super::programs::{GpgHome, OPENSSL, shell};

const PROGRAMS: [&str; 7] = ["openssl", "gpg", "gpg-agent", "gzip", "zstd", "bzip2", "xz"];

/// A file, and whether it carries something by which every changed bit is noticed.
struct Sample {
    name: String,
    place: Place,
    file: Vec<u8>,
    notices_all: bool,
    is_encrypted: bool,
}

async fn ours(compression: DumpCompression, cipher: DumpCipher, raw: &[u8], with_line: bool) -> Sample {
    let place = place();
    let recipe = recipe(DumpFormat::Custom, compression, cipher);
    write(&place, "file", &recipe, raw).await;
    let line = path("file.hmac");
    if !with_line {
        place.shelf.delete(&line).await.unwrap();
    }
    let file = std::fs::read(place.directory.path().join("file")).unwrap();
    let name = format!("ours {compression} {cipher} {with_line}");
    // CBC changes bytes without a word; what lies in it as it is has no sum of its own.
    let notices_all = with_line && cipher != DumpCipher::None || cipher == DumpCipher::Openpgp;
    Sample { name, place, file, notices_all, is_encrypted: cipher != DumpCipher::None }
}

fn theirs(line: &str, raw: &[u8], notices_all: bool) -> Sample {
    let place = place();
    std::fs::write(place.directory.path().join("raw"), raw).unwrap();
    shell(place.directory.path(), &format!("{{ {line}; }} > file"));
    let file = std::fs::read(place.directory.path().join("file")).unwrap();
    let is_encrypted = line.contains("openssl") || line.contains("gpg");
    Sample { name: line.to_owned(), place, file, notices_all, is_encrypted }
}

async fn samples(home: &GpgHome, raw: &[u8]) -> Vec<Sample> {
    use {DumpCipher as Cipher, DumpCompression as Packed};
    // A way from pass phrase to key that is short: each sample is read a hundred times.
    let gpg = format!("{} --s2k-count 1024", home.command());
    let mut samples = Vec::new();
    for (compression, cipher, with_line) in [
        (Packed::Gzip, Cipher::None, false),
        (Packed::Zstd, Cipher::None, false),
        (Packed::Zstd, Cipher::Openssl, true),
        (Packed::Gzip, Cipher::Openssl, true),
        (Packed::None, Cipher::Openssl, true),
        (Packed::Gzip, Cipher::Openssl, false),
        (Packed::Zstd, Cipher::Openpgp, true),
        (Packed::Zstd, Cipher::Openpgp, false),
        (Packed::None, Cipher::Openpgp, false),
    ] {
        samples.push(ours(compression, cipher, raw, with_line).await);
    }
    samples.push(theirs("gzip -c raw", raw, false));
    samples.push(theirs("bzip2 -c raw", raw, false));
    samples.push(theirs("xz -c raw", raw, true));
    samples.push(theirs("zstd -c raw", raw, false));
    samples.push(theirs(&format!("gzip -c raw | {OPENSSL}"), raw, false));
    samples.push(theirs(&format!("{gpg} --symmetric -o - raw"), raw, true));
    samples.push(theirs(&format!("{gpg} --symmetric -z 0 -o - raw"), raw, true));
    samples.push(theirs(&format!("gzip -c raw | {gpg} --symmetric --armor"), raw, false));
    samples
}

async fn read_changed(sample: &Sample, file: &[u8]) -> Result<Opened, Error> {
    std::fs::write(sample.place.directory.path().join("file"), file).unwrap();
    read(&sample.place, "file").await
}

/// The first and the last bytes one by one, and some between them.
fn offsets(sample: &Sample) -> Vec<usize> {
    let length = sample.file.len();
    // A key takes its time to be made from a pass phrase, and three where one is looked for.
    let step = if sample.is_encrypted { 11 } else { 1 };
    let mut offsets: Vec<usize> = (0..length.min(40)).step_by(step).collect();
    offsets.extend((0..12).step_by(step).map(|n| 40 + (length.saturating_sub(80)) * n / 12));
    offsets.extend((length.saturating_sub(40)..length).rev().step_by(step));
    offsets.retain(|offset| *offset < length);
    offsets.dedup();
    offsets
}

/// The kind of error, and that nothing came out that was not in it.
fn is_told(error: &Error, sample: &Sample, what: &str) {
    match error {
        Error::Dump(DumpError::Damaged { offset_bytes, .. }) => {
            assert!(*offset_bytes <= sample.file.len() as u64, "{}: {what}", sample.name);
            assert_eq!(error.kind(), ErrorKind::Corrupt);
        }
        // The first bytes decide what a file is taken for.
        Error::Dump(DumpError::WrongPassphrase { .. } | DumpError::Unsupported { .. })
            if sample.is_encrypted => {}
        other => panic!("{}: {what}: {other:?}", sample.name),
    }
}

#[tokio::test]
async fn a_file_that_was_cut_is_damaged_wherever_it_was_cut() {
    if !require_programs(&PROGRAMS) {
        return;
    }
    let home = GpgHome::new();
    let raw = archive(400_000);
    for sample in samples(&home, &raw).await {
        for length in offsets(&sample) {
            match read_changed(&sample, &sample.file[..length]).await {
                Err(error) => {
                    is_told(&error, &sample, &format!("cut to {length}"));
                    let wrong = matches!(error, Error::Dump(DumpError::WrongPassphrase { .. }));
                    assert!(!wrong || length < 64, "{}: cut to {length}: {error}", sample.name);
                }
                // The last lines of a text form, after which nothing is missing.
                Ok(opened) if sample.name.contains("--armor") && !opened.layers.is_empty() => {
                    assert!(opened.raw == raw, "{}: cut to {length}", sample.name);
                }
                // So little is left that nothing says what it was.
                Ok(opened) => {
                    assert!(opened.layers.is_empty() && length < 28, "{}: cut to {length}", sample.name);
                    assert!(opened.raw == sample.file[..length]);
                }
            }
        }
    }
}

#[tokio::test]
async fn one_changed_bit_is_noticed_or_changes_nothing() {
    if !require_programs(&PROGRAMS) {
        return;
    }
    let home = GpgHome::new();
    let raw = archive(100_000);
    for sample in samples(&home, &raw).await {
        for (number, offset) in offsets(&sample).into_iter().enumerate() {
            let mut file = sample.file.clone();
            file[offset] ^= 1 << (number % 8);
            match read_changed(&sample, &file).await {
                Err(error) => is_told(&error, &sample, &format!("changed at {offset}")),
                // The first bytes are another kind's now, so it is taken as it is.
                Ok(opened) if opened.layers.is_empty() => {
                    assert!(opened.raw == file, "{}: changed at {offset}", sample.name);
                }
                // Names and times in a header, which nothing is made of.
                Ok(opened) => {
                    assert!(!sample.notices_all, "{}: changed at {offset}", sample.name);
                    assert!(opened.raw == raw, "{}: changed at {offset}", sample.name);
                }
            }
        }
    }
}

#[tokio::test]
async fn a_plain_dump_in_cbc_alone_is_caught_by_the_line_beside_it() {
    for (with_line, is_caught) in [(true, true), (false, false)] {
        let raw = sql(100_000);
        let sample = ours(DumpCompression::None, DumpCipher::Openssl, &raw, with_line).await;
        let mut file = sample.file.clone();
        file[50_000] ^= 4;
        let read = read_changed(&sample, &file).await;
        assert_eq!(read.is_err(), is_caught, "why the line is there");
        // The line itself: of another file, and cut.
        if with_line {
            let other = ours(DumpCompression::None, DumpCipher::Openssl, &raw, true).await;
            let line = std::fs::read(other.place.directory.path().join("file.hmac")).unwrap();
            let beside = sample.place.directory.path().join("file.hmac");
            std::fs::write(&beside, &line).unwrap();
            let error = read_changed(&sample, &sample.file).await.unwrap_err();
            assert!(error.to_string().contains("authentication"), "{error}");
            std::fs::write(&beside, &line[..40]).unwrap();
            let error = read_changed(&sample, &sample.file).await.unwrap_err();
            assert!(matches!(&error, Error::Dump(DumpError::Damaged { file, .. }) if file == "file.hmac"));
        }
    }
}
