//! What a person can do about each error of an operation: a command or a setting.

use std::ffi::OsStr;

use backstay_engine::postgres::facts::quoted_identifier;
use backstay_engine::postgres::starting::shell_word;
use backstay_model::EngineKind;
use backstay_model::error::Classified;

use super::{Error, Instead, Offer, Remains};

pub(super) fn of(error: &Error) -> Vec<String> {
    match error {
        Error::Engine(error) => error.hints(),
        Error::DumpDeadlocks { source, .. } => source.hints(),
        Error::Repo(error) => error.hints(),
        Error::Id(error) => error.hints(),
        Error::LogHole { instance, .. } => vec![format!(
            "`backstay status {instance}` shows the instants that can be reached on both sides of it"
        )],
        Error::TargetNotReached { instance, .. } => vec![
            format!("`backstay restore {instance} --to latest` restores everything that is in the log"),
            format!("`backstay status {instance}` shows the instants that can be reached"),
        ],
        Error::NotThisLog { .. } => {
            vec!["`archive_command` gives it the path that the server names: `backstay wal push %p`".to_owned()]
        }
        Error::NoBaseYet { instance } => vec![format!("run `backstay backup {instance}` first")],
        Error::WriteLogFile { path, source } if source.kind() == std::io::ErrorKind::StorageFull => {
            let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            let shown = shell_word(directory.map_or(OsStr::new("."), std::path::Path::as_os_str));
            vec![format!("make room on the disk of the data directory: `df -h {shown}` shows it")]
        }
        Error::ReadLogFile { .. } | Error::WriteLogFile { .. } => {
            vec!["run it as the owner of the data directory, with the path that the server gives as `%p`".to_owned()]
        }
        Error::OtherCluster { instance, .. } => vec![
            "give another cluster a section `[instance.…]` of its own".to_owned(),
            format!("where it took the place of the old one, `backstay backup {instance}` begins with it; the old \
                     backups and their log stay"),
        ],
        Error::ServerBehind { .. } => vec![
            "this server was brought back to an earlier state without a new timeline: give it a section \
             `[instance.…]` of its own, or restore it with `backstay restore --to`"
                .to_owned(),
        ],
        Error::SlotLost { instance, .. } | Error::LogGone { instance, .. } => vec![
            format!("`backstay archive {instance} --accept-gap` goes on behind what is gone, with a word in the \
                     repository that says why, and takes a new base"),
            "raise `max_slot_wal_keep_size` of the server, or end what kept the archive away".to_owned(),
        ],
        Error::GapNotNoted { .. } | Error::StoreSilent { .. } => vec![
            "see whether the store answers: `backstay list`; or make room in the directory of `archive.spool`"
                .to_owned(),
        ],
        Error::StreamUnknown { spool } => {
            let spool = spool.display();
            vec![format!(
                "`mv {spool} {spool}.kept` keeps it for whoever can read it: the archive goes on where the store ends then, \
                 or begins with a base"
            )]
        }
        Error::LogDamaged { .. } => vec![
            "`pg_waldump` at the server says whether its log reads there; `backstay backup` takes a new base"
                .to_owned(),
        ],
        Error::StreamBroken { .. } => vec![
            "see whether something between here and the server changes what it sends; `backstay backup` takes a new base"
                .to_owned(),
        ],
        Error::Refused { refusal } => refusal.hints.clone(),
        Error::NoSuchBackup { .. } => vec!["`backstay list` shows the ids of all backups".to_owned()],
        Error::RestoreFailed { instance, instead, remains, source, .. }
        | Error::SnapshotNotPlaced { instance, instead, remains, source, .. } => {
            let mut hints = source.hints();
            match instead {
                Instead::Unsaid => {}
                Instead::Other(offer) => hints.insert(0, offer_hint(offer, remains)),
                Instead::Nothing => hints.insert(
                    0,
                    format!(
                        "no other backup of {instance} does without what failed; `backstay backup {instance}` \
                         stores again what the database still has"
                    ),
                ),
            }
            // A backup that is offered is offered with what makes room for it.
            if !remains.is_empty() && !matches!(instead, Instead::Other(_)) {
                hints
                    .push(format!("clear what it left before the next attempt: `{}`", remains.command()));
            }
            hints
        }
        Error::RestoreInterrupted { remains, elsewhere, .. } => vec![
            format!("`{}` clears it, then restore again{}", remains.command(), unless_used(remains)),
            format!("or choose another directory with `{elsewhere}`"),
        ],
        // No command: what clears a directory destroys what is being written.
        Error::RestoreRunning { elsewhere, .. } => {
            vec![format!("wait until it ends, or choose another directory with `{elsewhere}`")]
        }
        // What lies there may be a living server's: it is never to be moved or removed.
        Error::TablespaceNotEmpty { location, .. } => {
            let old = shell_word(OsStr::new(location));
            vec![format!("give it another place with `--tablespace {old}=NEW`")]
        }
        // `--tablespace` cannot move it: its place stands in the log.
        Error::LateTablespaceNotEmpty { .. } => {
            vec!["run `backstay backup` again and restore that one".to_owned()]
        }
        Error::DrillOutside { .. } => {
            vec!["run `backstay backup` again, and drill that one".to_owned()]
        }
        Error::DrillDirectory { .. } | Error::DrillTooSmall { .. } => {
            vec![
                "set drill.directory to a directory with enough space that backstay can write".to_owned(),
            ]
        }
        Error::Remove { path, .. } => vec![format!("`rm -r {}` removes what is left", path.display())],
        Error::WriteKit { .. } => {
            vec!["`backstay key kit --to DIR` writes it to another place".to_owned()]
        }
        Error::NoShelf => vec![
            "set `dump.to` to a directory, such as \"file:///var/backups\", or give `--to DIR`".to_owned(),
        ],
        Error::ShelfAddress { .. } => {
            vec!["set `dump.to` to a directory, such as \"file:///var/backups\"".to_owned()]
        }
        Error::DumpsMeet { .. } => vec![
            "put {database} into `dump.name`, or name one database with `--database`".to_owned(),
        ],
        Error::DumpNameTaken { .. } => vec![
            "put the time of day into `dump.name`, as in {time:%Y%m%d_%H%M%S}, or run `backstay dump` later"
                .to_owned(),
        ],
        Error::DumpNameOfStranger { instance, path, shelf } => {
            let shelf = crate::dump::shelved::full(shelf, "");
            let directory = shell_word(OsStr::new(shelf.trim_end_matches('/'))).into_owned();
            let file = format!("{shelf}{path}");
            let file = shell_word(OsStr::new(&file)).into_owned();
            vec![
                format!(
                    "a `backstay dump` that was killed before it was done leaves such a file, whole: \
                     `backstay adopt {directory} --instance {instance}` reads it and takes it in"
                ),
                format!("or move it away, `mv {file} {file}.old`, and dump again"),
            ]
        }
        Error::DumpShape { hint, .. } => vec![(*hint).to_owned()],
        Error::PartsOfSeveral { .. } => {
            vec!["name one database with `--database`".to_owned()]
        }
        Error::HoldOver { .. } => {
            vec!["give `--until` a time that is to come, or leave it out".to_owned()]
        }
        Error::BeingDeleted { backup, .. } => vec![
            format!("the hold is noted: `backstay hold add {backup}` again in a minute says whether it came in time"),
            "what a run of `backstay expire` has begun that was killed counts for an hour".to_owned(),
        ],
        Error::ExportPlace { .. } => {
            vec!["give `--to` a directory that is there or ends with `/`, or the name of a file that is not hidden".to_owned()]
        }
        Error::ExportTaken { .. } => {
            vec!["give `--to` another name, or move the file that has it with `mv`".to_owned()]
        }
        Error::ExportUnseen { path, .. } | Error::ExportWrite { path, .. } => vec![format!(
            "see whether backstay may write there and whether there is room: `df -h {}`",
            shell_word(path.parent().unwrap_or(path).as_os_str())
        )],
        Error::NoDump { instance, .. } => vec![
            format!("`backstay dump {instance}` takes one"),
            "name the database of the dump with `--database`".to_owned(),
        ],
        Error::DumpNotGood { instead: Some(dump), .. } => {
            vec![format!("`--backup {dump}` restores the newest good one of the same database")]
        }
        Error::DumpNotGood { instead: None, .. } => {
            vec!["`backstay verify` names what is damaged; `backstay dump` takes a new one".to_owned()]
        }
        Error::NoChoiceInStatements { .. } => vec![
            "make the roles that are missing, and leave `--no-owner` and `--no-privileges` out".to_owned(),
            "dumps in the custom format (`dump.format`) can be restored without".to_owned(),
        ],
        Error::NotExportable { instance, id, .. } => vec![format!(
            "`backstay restore {instance} --backup {id} --into DIR` opens it, and writes it to a directory"
        )],
        Error::NotReloadable { .. } => {
            vec!["`backstay list --type dump` shows the dumps of databases".to_owned()]
        }
        Error::NotInDump { .. } => {
            vec!["name one of them with `--database`".to_owned()]
        }
        Error::NothingToExtract { instance, .. } => {
            vec![format!("`backstay adopt DIR --instance {instance}` takes in what others left")]
        }
        Error::EngineNotReached { engine: EngineKind::Redis, instance } => vec![format!(
            "what works with {instance}: `backstay backup`, `archive`, `dump`, `list`, `show`, `verify`, `drill`, `expire`, \
             `status`, `adopt`, `export` of a base, and `backstay restore {instance} --into DIR`"
        )],
        Error::EngineNotReached { instance, .. } => vec![format!(
            "dumps that others took of {instance} work: `backstay adopt`, `list`, `show`, `verify`, `expire`, and \
             `backstay restore {instance} --into DIR`"
        )],
        Error::SomeTablesThere { .. } => vec![
            "restore those that are there and those that are not one after the other, with `--table`".to_owned(),
        ],
        Error::SwapOfParts { .. } => vec![
            "restore it with `--into-database`, or name a dump of the whole database with `--backup`".to_owned(),
        ],
        Error::HookFailed { name, .. } => {
            vec![format!("mend the command, or take `{name}` out of the instance's `hooks`")]
        }
        Error::SwapNotSound { .. } => vec![
            "`backstay restore … --into-database` keeps what is restored, to be looked at".to_owned(),
        ],
        Error::Spool { .. } | Error::SpoolWrite { .. } | Error::SpoolTooSmall { .. } => vec![
            "set `dump.spool` to a directory that backstay can write, with enough space: `df` shows it".to_owned(),
        ],
        Error::HalfRestored { database, source } => {
            let drop = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", quoted_identifier(database));
            let mut hints = vec![format!("run `{drop}` when the server answers again")];
            hints.extend(source.hints());
            hints
        }
        Error::Layout(error) => error.hints(),
        Error::Shelf { .. } => vec![
            "see whether backstay may read and write everything in the directory of `dump.to`, and whether its \
             disk is well: `dmesg`"
                .to_owned(),
        ],
        Error::VerificationUnreadable { .. } => {
            vec!["`backstay verify` looks at every dump, and writes a new one".to_owned()]
        }
        Error::NoKeys => {
            vec!["`backstay init` makes an encrypted repository unless told `--no-encryption`".to_owned()]
        }
        Error::Cancelled | Error::Broken { .. } => Vec::new(),
    }
}

/// The whole way to a backup that is offered, as one line for a shell.
fn offer_hint(offer: &Offer, remains: &Remains) -> String {
    let clear = if remains.is_empty() { String::new() } else { format!("{} && ", remains.command()) };
    let which = if offer.is_older { "the newest one before" } else { "the next one after" };
    format!(
        "`{clear}backstay restore {}` restores {which} that does not need what failed, of {}",
        offer.arguments, offer.finished_at
    )
}

/// A tablespace may be made in a place that holds our mark: PostgreSQL does not mind.
fn unless_used(remains: &Remains) -> &'static str {
    match remains.are_several() {
        true => "; first see that no server has begun to use one of these places",
        false => "",
    }
}
