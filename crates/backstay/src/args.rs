//! What a person may type, exactly as the command-line contract has it.
//!
//! Text becomes types here (backup ids, targets, times, levels), so that a wrong
//! argument ends the program before anything is opened. Verbs of later versions
//! are not shown.

use std::path::PathBuf;

use backstay_engine::postgres::dump::RelationName;
use backstay_model::dump::{DumpCipher, DumpCompression, DumpFormat, Layout};
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use jiff::Timestamp;

use crate::config::values::Address;

mod keeping;
mod key;
mod log;

pub use keeping::{ExportArguments, HoldAddArguments, HoldVerb, PassphraseArguments};
pub use key::{KeyAddArguments, KeyRotateArguments, KeyVerb};
pub use log::{ArchiveArguments, StopArguments, WalFetchArguments, WalPushArguments, WalVerb};

#[derive(Debug, Parser)]
#[command(
    name = "backstay",
    version,
    about = "Backs up databases, and proves that it can bring them back",
    after_help = "Begin with `backstay init --store file:///var/lib/backstay --postgresql postgresql://…`; \
                  `backstay help VERB` says more about a verb.\n\n\
                  Exit codes: 0 done, 1 a bug, 2 wrong configuration or arguments, 3 not found, 4 conflict, 5 denied, \
                  6 unavailable, 7 unsupported, 8 stored data damaged, 9 cannot be restored, 10 stopped; \
                  verify and drill: 20 findings, 21 could not look.",
    disable_help_subcommand = false,
    max_term_width = 100
)]
pub struct Arguments {
    #[command(flatten)]
    pub global: GlobalOptions,
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub struct GlobalOptions {
    /// The configuration [default: backstay.toml, then /etc/backstay/backstay.toml]
    #[arg(long, global = true, value_name = "FILE", env = "BACKSTAY_CONFIG", hide_env = true)]
    pub config: Option<PathBuf>,
    /// Print one JSON document on standard output and nothing else there
    #[arg(long, global = true)]
    pub json: bool,
    /// Say nothing of work that went well
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// Tell what is done on standard error; twice for every detail
    #[arg(long, short, global = true, action = ArgAction::Count)]
    pub verbose: u8,
    /// Show no progress bars
    #[arg(long, global = true)]
    pub no_progress: bool,
    /// When to colour the output
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub color: ColorChoice,
    /// Set one key of the configuration for this run, such as policy.rpo=5s
    #[arg(long, global = true, value_name = "KEY=VALUE", value_parser = assignment)]
    pub set: Vec<(String, String)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ColorChoice {
    Auto,
    Always,
    Never,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Write backstay.toml, make the repository, its key and the recovery kit
    Init(InitArguments),
    /// Check, show and explain the configuration
    #[command(subcommand)]
    Config(ConfigVerb),
    /// Take a base backup now
    Backup(BackupArguments),
    /// Receive the log of servers as it is written, until stopped
    Archive(ArchiveArguments),
    /// Write databases into portable files that open without Backstay
    Dump(DumpArguments),
    /// Take in dumps that other programs left, where they lie
    Adopt(AdoptArguments),
    /// Write a dump or a base backup into plain files that need no Backstay
    Export(ExportArguments),
    /// List backups, newest first
    List(ListArguments),
    /// Show everything about one backup
    Show(ShowArguments),
    /// Show health, recovery windows, last proof and objectives
    Status(StatusArguments),
    /// Check what is stored: exit 0 sound, 20 findings, 21 could not look
    Verify(VerifyArguments),
    /// Bring a backup back into an empty directory
    Restore(Box<RestoreArguments>),
    /// Restore into a scratch server, prove it, measure it and remove it
    Drill(DrillArguments),
    /// Apply retention: which backups may go, and why each stays
    Expire(ExpireArguments),
    /// Keep a backup whatever retention says, or leave it to retention again
    #[command(subcommand)]
    Hold(HoldVerb),
    /// Delete what nothing refers to
    Collect(CollectArguments),
    /// Fetch and push single files of the log, for restore_command and archive_command
    #[command(subcommand)]
    Wal(WalVerb),
    /// List, add, remove and rotate the keys that open the repository
    #[command(subcommand)]
    Key(KeyVerb),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man,
}

#[derive(Debug, Args)]
pub struct InitArguments {
    /// Where the backups are kept
    #[arg(long, value_name = "URL", default_value = "file:///var/lib/backstay")]
    pub store: Address,
    /// Write a section for this PostgreSQL server, after checking the connection
    #[arg(long, value_name = "URL", group = "server")]
    pub postgresql: Option<Address>,
    /// Write a section for this server of Redis or Valkey, after checking the connection
    #[arg(long, value_name = "URL", group = "server")]
    pub redis: Option<Address>,
    /// The name of the instance in that section [default: the database of the URL, or main]
    #[arg(long, value_name = "NAME", requires = "server")]
    pub name: Option<String>,
    /// The server's data directory, when this machine can read it
    #[arg(long, value_name = "DIR", requires = "server")]
    pub data_directory: Option<PathBuf>,
    /// Where to write the recovery kit; must be empty or new [default: beside the configuration]
    #[arg(long, value_name = "DIR")]
    pub kit: Option<PathBuf>,
    /// Store without encryption; every list will say so
    #[arg(long)]
    pub no_encryption: bool,
}

#[derive(Debug, Subcommand)]
pub enum ConfigVerb {
    /// Read the configuration strictly, and with --connect reach everything it names
    Check {
        /// Reach every server and the store, with the rights a backup needs
        #[arg(long)]
        connect: bool,
    },
    /// Print the settings in force
    Show {
        /// Say where each value comes from
        #[arg(long)]
        origin: bool,
    },
    /// Print the reference of all settings as Markdown
    Reference,
    /// Print the JSON Schema of the configuration
    Schema,
}

#[derive(Debug, Args)]
pub struct BackupArguments {
    /// The instances; all when none is named
    #[arg(value_name = "INSTANCE")]
    pub instances: Vec<String>,
    /// Compare with no earlier backup: read and store everything
    #[arg(long)]
    pub full: bool,
}

#[derive(Debug, Args)]
pub struct DumpArguments {
    /// The instance
    #[arg(value_name = "INSTANCE")]
    pub instance: String,
    /// A database; all of them, and the roles, when none is named
    #[arg(long, value_name = "NAME")]
    pub database: Vec<String>,
    /// Only this table: TABLE or SCHEMA.TABLE, in the case in which it is written
    #[arg(long, value_name = "TABLE", conflicts_with = "schema")]
    pub table: Vec<RelationName>,
    /// Only this schema
    #[arg(long, value_name = "SCHEMA")]
    pub schema: Vec<String>,
    /// What `pg_dump` writes: custom, plain or directory
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<DumpFormat>,
    /// The directory to write to [default: dump.to]
    #[arg(long, value_name = "PATH|URL")]
    pub to: Option<Address>,
    /// How that directory is ordered: plain, tiers, or as a known set of scripts had it
    #[arg(long, value_name = "LAYOUT", value_parser = Layout::PRESETS)]
    pub layout: Option<String>,
    /// zstd, gzip, none, or inside for archives that `pg_dump` compresses itself; with a level as in zstd:3
    #[arg(long, value_name = "HOW", value_parser = compression)]
    pub compress: Option<(DumpCompression, Option<i32>)>,
    /// openssl, openpgp or none
    #[arg(long, value_name = "HOW")]
    pub encrypt: Option<DumpCipher>,
    /// Sessions that read at once, for the directory format
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub jobs: Option<u32>,
}

#[derive(Debug, Args)]
pub struct AdoptArguments {
    /// The directory
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
    /// Whose dumps they are; not needed where the configuration has one instance
    #[arg(long, value_name = "NAME")]
    pub instance: Option<String>,
    /// How the directory is ordered: plain, tiers, or as a known set of scripts had it
    #[arg(long, value_name = "LAYOUT", value_parser = Layout::PRESETS)]
    pub layout: Option<String>,
    /// Say what each file is, and write nothing
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub passphrases: PassphraseArguments,
}

#[derive(Debug, Args)]
pub struct ListArguments {
    /// One instance; all when none is named
    #[arg(value_name = "INSTANCE")]
    pub instance: Option<String>,
    /// Only backups of this type
    #[arg(long = "type", value_name = "TYPE")]
    pub only: Option<ListType>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ListType {
    /// Base backups, full and incremental
    Base,
    /// Portable dumps
    Dump,
}

#[derive(Debug, Args)]
pub struct ShowArguments {
    /// The backup's id, as `backstay list` shows it
    #[arg(value_name = "BACKUP")]
    pub backup: String,
}

#[derive(Debug, Args)]
pub struct StatusArguments {
    /// One instance; all when none is named
    #[arg(value_name = "INSTANCE")]
    pub instance: Option<String>,
}

#[derive(Debug, Args)]
pub struct VerifyArguments {
    /// One instance or one backup; everything when neither is named
    #[arg(value_name = "INSTANCE|BACKUP")]
    pub subject: Option<String>,
    /// How deep to look
    #[arg(long, value_name = "LEVEL", default_value = "digest")]
    pub level: VerifyDepth,
    #[command(flatten)]
    pub passphrases: PassphraseArguments,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum VerifyDepth {
    /// Every object is there and of the right size
    Existence,
    /// Every manifest, map and table opens and resolves
    Structure,
    /// Every stored byte is read and compared with its digest
    Digest,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("destination"))]
#[command(group = clap::ArgGroup::new("meant").args(["backup", "into", "into_database", "swap", "test"]).required(true).multiple(true))]
pub struct RestoreArguments {
    /// The instance
    #[arg(value_name = "INSTANCE")]
    pub instance: String,
    /// The backup or dump to restore; the newest sound one when none is named. One of roles and tablespaces
    /// alone goes into no database, and needs no further word
    #[arg(long, value_name = "ID")]
    pub backup: Option<String>,
    /// How far to recover: latest, immediate, a time with its offset, lsn:0/3000028, xid:1234 or name:before-deploy;
    /// of Redis latest, immediate, a time or offset:12345
    #[arg(long, value_name = "TARGET")]
    pub to: Option<String>,
    #[command(flatten)]
    pub stop: StopArguments,
    /// The empty or new directory to restore a base backup into
    #[arg(long, value_name = "DIR", group = "destination")]
    pub into: Option<PathBuf>,
    /// That directory is of a stopped server of Redis or Valkey: keep what it has in before-restore-TIME in there
    #[arg(long, requires = "into", conflicts_with_all = ["start", "standby"])]
    pub set_aside: bool,
    /// Put a tablespace to the directory NEW; OLD is where it lay, its name or its number
    #[arg(long, value_name = "OLD=NEW", value_parser = tablespace, conflicts_with_all = ["into_database", "swap", "test"])]
    pub tablespace: Vec<(String, PathBuf)>,
    /// Start a private server on the restored directory and prove that it is readable
    #[arg(long, conflicts_with_all = ["into_database", "swap", "test"])]
    pub start: bool,
    /// Make a standby of it, which follows the archive until it is promoted
    #[arg(long, requires = "into", conflicts_with_all = ["to", "exclusive", "target_timeline", "target_action", "start"])]
    pub standby: bool,
    /// The server that the standby streams from as well, in PostgreSQL's words: host=… user=… passfile=…
    #[arg(long, value_name = "TEXT", requires = "standby")]
    pub primary_conninfo: Option<String>,
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub reload: ReloadArguments,
}

/// What is said of restoring a dump.
#[derive(Debug, Args)]
#[command(next_help_heading = "Restoring a dump")]
pub struct ReloadArguments {
    /// The database to restore a dump into; it is made when it is not there. {database} in it is the name of the one that is
    /// restored
    #[arg(long, value_name = "NAME", group = "destination")]
    pub into_database: Option<String>,
    /// Restore a dump beside this database, check it, and put it in its place; the old one is kept
    #[arg(long, value_name = "NAME", group = "destination", conflicts_with_all = ["table", "schema"])]
    pub swap: Option<String>,
    /// Restore a dump beside everything else, check it, say what was found, and drop it again
    #[arg(long, group = "destination", conflicts_with_all = ["force", "confirm", "no_safety_backup"])]
    pub test: bool,
    #[command(flatten)]
    pub passphrases: PassphraseArguments,
    /// Another server: an instance of the configuration, or an address
    #[arg(long, value_name = "INSTANCE|URL", conflicts_with = "into")]
    pub to_server: Option<String>,
    /// The file with the password for that address
    #[arg(long, value_name = "FILE", requires = "to_server")]
    pub password_file: Option<PathBuf>,
    /// Whose dump is restored, each of them when several are named; of a set of dumps --backup names any [default: the database of the instance's address, or of --swap]
    #[arg(long, value_name = "NAME", conflicts_with = "into", requires = "destination")]
    pub database: Vec<String>,
    /// Only this table: TABLE or SCHEMA.TABLE; where it is there already, its rows
    #[arg(long, value_name = "TABLE", conflicts_with_all = ["schema", "into"], requires = "destination")]
    pub table: Vec<RelationName>,
    /// Only this schema
    #[arg(long, value_name = "SCHEMA", conflicts_with = "into", requires = "destination")]
    pub schema: Vec<String>,
    /// Let no trigger fire while rows come in; foreign keys are looked at afterwards
    #[arg(long, conflicts_with = "into", requires = "destination")]
    pub triggers_off: bool,
    /// Leave out who owns what
    #[arg(long, conflicts_with = "into", requires = "destination")]
    pub no_owner: bool,
    /// Leave out who may do what
    #[arg(long, conflicts_with = "into", requires = "destination")]
    pub no_privileges: bool,
    /// Sessions that write at once; more than one has no transaction in common
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=64), conflicts_with = "into",
        requires = "destination")]
    pub jobs: Option<u32>,
    /// Change what is there, together with --confirm
    #[arg(long, conflicts_with = "into")]
    pub force: bool,
    /// The name of the database that is changed, typed again
    #[arg(long, value_name = "NAME", conflicts_with = "into")]
    pub confirm: Option<String>,
    /// Take no dump of a database that is changed
    #[arg(long, conflicts_with = "into", requires = "destination")]
    pub no_safety_backup: bool,
}

impl ReloadArguments {
    /// Nobody said which database it goes into.
    pub fn is_without_place(&self) -> bool {
        self.into_database.is_none() && self.swap.is_none() && !self.test
    }
}

#[derive(Debug, Args)]
pub struct DrillArguments {
    /// The instances; all when none is named
    #[arg(value_name = "INSTANCE")]
    pub instances: Vec<String>,
    /// How far to recover, as in restore [default: any instant of the archived log, or latest where there is none]
    #[arg(long, value_name = "TARGET")]
    pub to: Option<String>,
    /// Leave the restored directory there to be looked at
    #[arg(long)]
    pub keep: bool,
}

#[derive(Debug, Args)]
pub struct ExpireArguments {
    /// The instances; all when none is named
    #[arg(value_name = "INSTANCE")]
    pub instances: Vec<String>,
    /// Say which backups may go and why each stays, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Pretend that it is this time; only with --dry-run
    #[arg(long, value_name = "TIME", value_parser = time, requires = "dry_run")]
    pub as_of: Option<Timestamp>,
}

#[derive(Debug, Args)]
pub struct CollectArguments {
    /// Say what would be deleted, and delete nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Let more than the usual share of all objects go at once
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(1..=100))]
    pub max_share: Option<u8>,
    /// Go on although a backup is gone that nobody condemned
    #[arg(long)]
    pub accept_loss: bool,
}

fn compression(text: &str) -> Result<(DumpCompression, Option<i32>), String> {
    let (word, level) = match text.split_once(':') {
        None => (text, None),
        Some((word, level)) => {
            let level = level.parse().map_err(|_| format!("{level:?} is not a level, such as 3"))?;
            (word, Some(level))
        }
    };
    let how = word.parse().map_err(|error: backstay_model::dump::UnknownWord| error.to_string())?;
    Ok((how, level))
}

/// A point in time with its offset, so that nobody guesses a time zone.
fn time(text: &str) -> Result<Timestamp, String> {
    text.parse().map_err(|_| {
        "this is not a time with its offset, such as 2026-05-03T14:30:00Z or \"2026-05-03 14:30:00+02:00\""
            .to_owned()
    })
}

fn assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_owned(), value.trim().to_owned())),
        _ => Err("this is not KEY=VALUE, such as policy.rpo=5s".to_owned()),
    }
}

fn named_file(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, file)) if !name.is_empty() && !file.is_empty() => Ok((name.to_owned(), file.into())),
        _ => Err("this is not NAME=FILE, such as laptop=/media/stick/laptop.key".to_owned()),
    }
}

/// OLD is a location, a name or a number; what has a slash is a location, and those are
/// absolute.
fn tablespace(text: &str) -> Result<(String, PathBuf), String> {
    let is_meant = |old: &str| old.starts_with('/') || !old.is_empty() && !old.contains('/');
    match text.split_once('=') {
        Some((old, new)) if is_meant(old) && new.starts_with('/') => Ok((old.to_owned(), new.into())),
        _ => Err("this is not OLD=NEW with the place or the name of a tablespace and an absolute path, \
                  such as /mnt/fast=/restore/fast or fast=/restore/fast"
            .to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tablespace_is_named_by_its_place_its_name_or_its_number_and_goes_to_an_absolute_path() {
        for old in ["/mnt/fast", "fast", "16385", "the fast one"] {
            let (named, new) = tablespace(&format!("{old}=/restore/fast")).unwrap();
            assert_eq!((&*named, new), (old, PathBuf::from("/restore/fast")));
        }
        for bad in ["", "fast", "=/restore/fast", "fast=", "fast=restore/fast", "mnt/fast=/restore/fast"] {
            assert!(tablespace(bad).is_err(), "{bad:?}");
        }
    }
}
