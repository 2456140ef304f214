//! Dumps that are kept: the list, and one in full with the commands that open it on a
//! machine that has no Backstay.

use std::ffi::OsStr;

use backstay_engine::postgres::starting::shell_word;
use backstay_model::EngineKind;
use backstay_model::dump::{DumpCipher, DumpCompression, DumpContent, DumpFormat};
use backstay_ops::dump::shelved::{DumpDetail, DumpSummary};

use super::content;
use crate::render::Output;
use crate::render::lines::{findings, held, labelled, size, span, time};
use crate::render::table::{Align, Table};

/// The tables that are named, largest first.
const TABLES_SHOWN: usize = 10;

pub fn list(output: &Output, dumps: &[DumpSummary]) -> String {
    if dumps.is_empty() {
        return match output.quiet {
            true => String::new(),
            false => "no dumps yet; `backstay dump` takes one\n".to_owned(),
        };
    }
    let mut table = Table::new(&[
        ("DUMP", Align::Left),
        ("INSTANCE", Align::Left),
        ("OF", Align::Left),
        ("TIERS", Align::Left),
        ("FINISHED", Align::Left),
        ("TOOK", Align::Right),
        ("DATA", Align::Right),
        ("STORED", Align::Right),
        ("FORMAT", Align::Left),
        ("STATE", Align::Left),
    ]);
    for dump in dumps {
        let tiers: Vec<String> = dump.tiers.iter().map(|file| file.tier.to_string()).collect();
        table.row([
            dump.id.to_string(),
            dump.instance.to_string(),
            content(&dump.content),
            tiers.join(" "),
            time(dump.finished_at),
            span(dump.duration_seconds),
            size(dump.logical_bytes),
            size(dump.stored_bytes),
            shape(dump),
            state(dump),
        ]);
    }
    table.text()
}

/// `custom, zstd, openssl`.
fn shape(dump: &DumpSummary) -> String {
    let mut words = vec![dump.shape.format.to_string()];
    if dump.shape.compression != DumpCompression::None {
        words.push(dump.shape.compression.to_string());
    }
    if dump.shape.cipher != DumpCipher::None {
        words.push(dump.shape.cipher.to_string());
    }
    words.join(", ")
}

/// The words that matter before a restore, the gravest first.
fn state(dump: &DumpSummary) -> String {
    let bad = dump.tiers.iter().filter(|file| !file.good).map(|file| file.tier.to_string());
    let bad: Vec<String> = bad.collect();
    let mut words = Vec::new();
    if dump.damaged {
        words.push("damaged".to_owned());
    } else if !bad.is_empty() {
        words.push(format!("{} damaged", bad.join(" and ")));
    }
    words.push(if dump.verified_at.is_some() { "verified" } else { "not verified" }.to_owned());
    if let Some(until) = dump.hold {
        words.push(held(until, dump.hold_reason.as_deref()));
    }
    if dump.safety {
        words.push("before a restore".to_owned());
    }
    if dump.adopted {
        words.push("adopted".to_owned());
    }
    if !dump.encrypted {
        words.push("not encrypted".to_owned());
    }
    words.join(", ")
}

pub fn show(output: &Output, detail: &DumpDetail) -> String {
    let dump = &detail.summary;
    let mut text = format!("{} of {}\n", dump.id, dump.instance);
    let mut line = |label: &str, value: String| text.push_str(&labelled(label, &value));
    line("type", "dump".to_owned());
    line("of", content(&dump.content));
    if let Some(set) = dump.set.as_ref().filter(|set| **set != dump.id) {
        line("taken together with", set.to_string());
    }
    if let Some(environment) = &dump.environment {
        line("environment", environment.clone());
    }
    let version = dump.engine_version.as_deref().unwrap_or("of an unknown version");
    line("engine", format!("{} {version}", dump.engine));
    if let Some(tool) = &detail.tool_version {
        line("taken with", format!("pg_dump {tool}"));
    }
    line("started", time(dump.started_at));
    line("finished", format!("{}, took {}", time(dump.finished_at), span(dump.duration_seconds)));
    if let Some(position) = &dump.stop_position {
        line("position", position.clone());
    }
    line("data", size(dump.logical_bytes));
    line("stored", format!("{}, {:.1} times smaller", size(dump.stored_bytes), detail.compression_ratio));
    if let Some(bytes) = detail.database_bytes {
        line("database", size(bytes));
    }
    line("format", shape(dump));
    line("sha256", detail.sha256.clone());
    line("state", state(dump));
    line("verified", dump.verified_at.map_or("never".to_owned(), time));
    if let Some(until) = dump.hold {
        line("hold", held(until, dump.hold_reason.as_deref()));
    }
    let directory = directory(dump);
    for file in &dump.tiers {
        let note = if file.good { "" } else { ", NOT good" };
        line(&file.tier.to_string(), format!("{directory}/{}{note}", file.path));
    }
    for (name, version) in &detail.extensions {
        line("extension", format!("{name} {version}"));
    }
    for table in detail.tables.iter().take(TABLES_SHOWN) {
        let rows =
            table.estimated_rows.map_or("not analysed".to_owned(), |rows| format!("about {rows} rows"));
        line("table", format!("{}.{}: {rows}, {}", table.schema, table.name, size(table.bytes)));
    }
    if detail.tables.len() > TABLES_SHOWN {
        line("tables", format!("{} in its sidecar", detail.tables.len()));
    }
    for warning in &detail.warnings {
        let why = warning.harmless.as_ref().map(|why| format!(" (harmless: {why})")).unwrap_or_default();
        let label = if dump.engine == EngineKind::Postgresql { "pg_dump said" } else { "noted" };
        line(label, format!("{}{why}", warning.message));
    }
    text.push_str("  opened without Backstay by\n");
    for command in commands(detail) {
        text.push_str(&format!("    {command}\n"));
    }
    text.push_str(&findings(output, &dump.findings));
    text
}

fn directory(dump: &DumpSummary) -> &str {
    dump.shelf.strip_prefix("file://").unwrap_or(&dump.shelf)
}

/// Of the manifest of append-only files: its directory, and what their names begin with.
fn set_of(path: &str) -> Option<(&str, &str)> {
    let (directory, name) = path.rsplit_once('/')?;
    Some((directory, name.strip_suffix(".manifest")?))
}

/// What a shell does to get the database back; words in capitals are for a person to choose.
fn commands(detail: &DumpDetail) -> Vec<String> {
    let dump = &detail.summary;
    let whole = dump.tiers.iter().find(|file| file.good).map_or(&dump.path, |file| &file.path);
    let path = format!("{}/{whole}", directory(dump));
    let file = shell_word(OsStr::new(&path)).into_owned();
    let is_globals = dump.content == DumpContent::Globals;
    let database = if is_globals { "postgres" } else { "DATABASE" };
    let has_timescaledb = detail.extensions.contains_key("timescaledb");
    let mut commands = vec![format!("echo '{}  '{file} | sha256sum --check", detail.sha256)];
    let sql = |statement: &str| format!("psql --dbname={database} --command='{statement}'");
    if !is_globals && dump.shape.format.is_of_pg_dump() {
        commands.push(format!("createdb {database}"));
    }
    if has_timescaledb {
        commands.push(sql("CREATE EXTENSION timescaledb"));
        commands.push(sql("SELECT timescaledb_pre_restore()"));
    }
    let mut steps = Vec::new();
    match dump.shape.cipher {
        DumpCipher::None => {}
        DumpCipher::Openssl => steps.push(format!(
            "openssl enc -d -aes-256-cbc -pbkdf2 -iter 100000 -pass file:PASSPHRASE -in {file}"
        )),
        DumpCipher::Openpgp => steps.push(format!(
            "gpg --batch --pinentry-mode loopback --passphrase-file PASSPHRASE --decrypt {file}"
        )),
    }
    // The first reads the file, whatever its name ends with.
    let source = |is_first: bool| if is_first { format!(" < {file}") } else { String::new() };
    match dump.shape.compression {
        DumpCompression::None | DumpCompression::Inside => {}
        DumpCompression::Gzip => steps.push(format!("gunzip{}", source(steps.is_empty()))),
        DumpCompression::Zstd => steps.push(format!("zstd -d{}", source(steps.is_empty()))),
    }
    let is_first = steps.is_empty();
    match dump.shape.format {
        DumpFormat::Custom => steps.push(format!("pg_restore --dbname={database}{}", source(is_first))),
        DumpFormat::Plain => {
            let stop = if is_globals { "" } else { " --set=ON_ERROR_STOP=1" };
            steps.push(format!("psql --quiet{stop} --dbname={database}{}", source(is_first)));
        }
        DumpFormat::Directory => {
            commands.push("mkdir DIRECTORY".to_owned());
            steps.push(format!("tar -x -C DIRECTORY{}", source(is_first)));
        }
        DumpFormat::Rdb | DumpFormat::Influxdb | DumpFormat::AppendOnly => {}
    }
    if let (DumpFormat::AppendOnly, Some((directory, set))) = (dump.shape.format, set_of(&path)) {
        let (directory, name) = (shell_word(OsStr::new(directory)), shell_word(OsStr::new(set)));
        commands.push(format!("mkdir appendonlydir && cp {directory}/{name}* appendonlydir"));
        commands.push(format!("redis-server --dir . --appendonly yes --appendfilename {name}"));
        return commands;
    }
    // What scripts packed with `tar` comes out as an archive.
    let is_snapshot = dump.shape.format == DumpFormat::Rdb && !whole.contains(".tar");
    match (is_snapshot, steps.is_empty()) {
        (true, true) => commands.push(format!("cp {file} dump.rdb")),
        (true, false) => commands.push(format!("{} > dump.rdb", steps.join(" | "))),
        (false, _) => commands.push(steps.join(" | ")),
    }
    if is_snapshot {
        commands.push("redis-server --dir . --dbfilename dump.rdb --appendonly no".to_owned());
    }
    if dump.shape.format == DumpFormat::Directory {
        commands.push(format!("pg_restore --format=directory --jobs=2 --dbname={database} DIRECTORY"));
    }
    if has_timescaledb {
        commands.push(sql("SELECT timescaledb_post_restore()"));
    }
    commands
}

#[cfg(test)]
mod tests {
    use backstay_model::dump::{DumpShape, Tier};
    use backstay_ops::dump::shelved::TierFile;
    use insta::assert_snapshot;

    use super::*;

    fn dump(cipher: DumpCipher) -> DumpSummary {
        let file = |tier: Tier, good| TierFile { tier, path: format!("{tier}/orders it's.sql.gz.enc"), good };
        DumpSummary {
            id: "20240901T020000Z-7q3f".parse().unwrap(),
            instance: "main".parse().unwrap(),
            engine: EngineKind::Postgresql,
            backup_type: "dump",
            parent: None,
            set: None,
            environment: Some("production".to_owned()),
            started_at: "2024-09-01T02:00:00Z".parse().unwrap(),
            finished_at: "2024-09-01T02:00:12Z".parse().unwrap(),
            duration_seconds: 12.0,
            start_position: None,
            stop_position: Some("0/3000028".to_owned()),
            timeline: None,
            logical_bytes: 10 << 20,
            read_bytes: 10 << 20,
            new_bytes: 2 << 20,
            stored_bytes: 2 << 20,
            files: 2,
            engine_version: Some("15.18".to_owned()),
            encrypted: cipher != DumpCipher::None,
            hold: None,
            hold_reason: None,
            verified_at: Some("2024-09-01T06:00:00Z".parse().unwrap()),
            drilled_at: None,
            damaged: false,
            adopted: false,
            safety: false,
            content: DumpContent::Database { database: "orders".to_owned() },
            shape: DumpShape { format: DumpFormat::Plain, compression: DumpCompression::Gzip, cipher },
            shelf: "file:///srv/dumps".to_owned(),
            path: "daily/orders it's.sql.gz.enc".to_owned(),
            tiers: vec![file(Tier::Daily, false), file(Tier::Weekly, true)],
            findings: Vec::new(),
        }
    }

    #[test]
    fn a_list_has_a_row_for_each_dump_with_what_matters_before_a_restore() {
        let damaged = DumpSummary { damaged: true, verified_at: None, ..dump(DumpCipher::None) };
        assert_snapshot!(list(&Output::plain(), &[dump(DumpCipher::Openssl), damaged]));
        assert_snapshot!(list(&Output::plain(), &[]), @"no dumps yet; `backstay dump` takes one");
    }

    #[test]
    fn one_in_full_ends_with_the_commands_that_open_it() {
        let detail = DumpDetail {
            summary: dump(DumpCipher::Openssl),
            sha256: "ab".repeat(32),
            compression_ratio: 5.0,
            database_bytes: Some(40 << 20),
            system_identifier: None,
            tool_version: Some("15.18".to_owned()),
            backstay_version: "1".to_owned(),
            extensions: [("timescaledb".to_owned(), "2.17.2".to_owned())].into(),
            tables: Vec::new(),
            warnings: Vec::new(),
        };
        assert_snapshot!(show(&Output::plain(), &detail));
    }
}
