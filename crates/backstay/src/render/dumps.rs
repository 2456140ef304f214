//! Dumps: what was taken, and what opens it.

pub mod kept;

use backstay_model::dump::{DumpCipher, DumpCompression, DumpContent, DumpFormat, DumpShape};
use backstay_ops::dump::{DumpReport, DumpedFile};

use super::Output;
use super::lines::{findings, labelled, quiet, size, span};

pub fn taken(output: &Output, report: &DumpReport) -> String {
    if output.quiet {
        return quiet(output, "dump", &report.findings);
    }
    let mut text = String::new();
    for dump in &report.dumps {
        text.push_str(&one(dump));
    }
    text.push_str(&findings(output, &report.findings));
    text
}

fn one(dump: &DumpedFile) -> String {
    let record = &dump.record;
    let mut text = format!(
        "{}: dump {} of {} in {}: {} from {}\n",
        record.instance,
        record.id,
        content(&record.content),
        span(record.duration_seconds),
        size(record.stored_bytes),
        size(record.raw_bytes),
    );
    let directory = dump.shelf.strip_prefix("file://").unwrap_or(&dump.shelf);
    for path in &dump.paths {
        text.push_str(&labelled(&path.tier.to_string(), &format!("{directory}/{}", path.path)));
    }
    text.push_str(&labelled("opened with", &opened_with(&record.shape)));
    text
}

pub fn content(content: &DumpContent) -> String {
    match content {
        DumpContent::Database { database } => database.clone(),
        DumpContent::Parts { database, tables, schemas } => {
            let parts = if tables.is_empty() { schemas } else { tables };
            format!("{} of {database}", parts.join(", "))
        }
        DumpContent::Globals => "roles and tablespaces".to_owned(),
    }
}

/// The programs that open it one after the other, without Backstay.
fn opened_with(shape: &DumpShape) -> String {
    let mut programs = Vec::new();
    match shape.cipher {
        DumpCipher::None => {}
        DumpCipher::Openssl => {
            programs.push("openssl enc -d -aes-256-cbc -pbkdf2 -iter 100000 -pass file:…");
        }
        DumpCipher::Openpgp => programs.push("gpg --decrypt"),
    }
    match shape.compression {
        DumpCompression::None | DumpCompression::Inside => {}
        DumpCompression::Gzip => programs.push("gunzip"),
        DumpCompression::Zstd => programs.push("zstd -d"),
    }
    programs.push(match shape.format {
        DumpFormat::Custom => "pg_restore",
        DumpFormat::Plain => "psql",
        DumpFormat::Directory => "tar -x and pg_restore --format=directory",
    });
    programs.join(" | ")
}
