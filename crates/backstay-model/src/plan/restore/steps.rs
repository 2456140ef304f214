//! What a restore does, step by step, and how long that should take.

use super::{MeasuredRates, Reached, RestorePlan, RestoreRequest};
use crate::record::{BackupRecord, EngineKind};
use crate::size::ByteSize;

/// Bytes a second that a restore places when nobody has measured this instance:
/// low enough for one spinning disk, since a promise that is too good costs more
/// than one that is too bad.
const PLACE_BYTES_PER_SECOND: f64 = 100.0 * 1024.0 * 1024.0;

/// Seconds to start a server and reach consistency when nobody has measured it.
const RECOVER_SECONDS: f64 = 5.0;

/// Bytes of log a second that a server replays when nobody has measured it.
const REPLAY_BYTES_PER_SECOND: f64 = 50.0 * 1024.0 * 1024.0;

/// Fills in everything that follows from the base.
pub(super) fn describe(
    plan: &mut RestorePlan,
    request: &RestoreRequest,
    base: &BackupRecord,
    rates: MeasuredRates,
) {
    let statistics = &base.statistics;
    plan.base = Some(base.id.clone());
    let end_of_base = || Reached {
        time: base.finished_at,
        position: base.stop_position.as_ref().map(ToString::to_string),
        last_transaction: None,
        stops_before: None,
    };
    let reached = plan.reached.get_or_insert_with(end_of_base).position.clone();
    plan.files = statistics.files;
    plan.bytes = statistics.logical_bytes;

    let rate = rates.place_bytes_per_second.filter(|rate| *rate > 0.0).unwrap_or(PLACE_BYTES_PER_SECOND);
    let recover = rates.recover_seconds.unwrap_or(RECOVER_SECONDS);
    let replayed: u64 = plan.log.iter().map(|range| range.bytes).sum();
    let recover = recover + replayed as f64 / REPLAY_BYTES_PER_SECOND;
    plan.expected_seconds = plan.bytes as f64 / rate + if request.start { recover } else { 0.0 };

    let into = &request.into;
    let size = ByteSize(plan.bytes);
    if base.engine == EngineKind::Redis {
        plan.steps = vec![
            format!("check that {into} is empty, can be written and has {size} free"),
            format!("check that every object of backup {} is there", base.id),
            format!(
                "put the snapshot of backup {} together ({size}) in {into}, under a name that no server loads",
                base.id
            ),
            "make it durable and compare it with its checksum".to_owned(),
            "give it its names: as a snapshot and, last of all, as the base of the append-only files"
                .to_owned(),
        ];
        if plan.recovery.is_some() {
            let log = ByteSize(replayed);
            let written =
                format!("write {log} of the stream behind it, up to the last command before the target");
            plan.steps.insert(3, written);
            if let Some(last) = plan.steps.last_mut() {
                "give both their names, as the base and the increment of the append-only files: no server starts on one alone"
                    .clone_into(last);
            }
        }
        return;
    }
    plan.steps = vec![
        format!("check that {into} is empty, can be written and has {size} free"),
        format!("check that every object of backup {} is there", base.id),
        format!("place {} files ({size}) of backup {} into {into}", plan.files, base.id),
        match request.standby {
            true => "write the settings of the restored server: no archiving, no old standby, no old recovery target",
            false => "write the settings of the restored server: no archiving, no standby, no old recovery target",
        }
        .to_owned(),
        "make everything durable, then put the control file in its place: only now can it start".to_owned(),
    ];
    let before_last = plan.steps.len() - 1;
    if request.standby {
        let follows =
            "write how it recovers: as a standby, which replays what is archived and what comes to it";
        plan.steps.insert(before_last, follows.to_owned());
    } else if let Some(recovery) = &plan.recovery {
        let log = ByteSize(replayed);
        plan.steps.insert(
            before_last,
            format!(
                "write how it recovers: {log} of archived log on timeline {}, then {}",
                recovery.timeline, recovery.action
            ),
        );
    }
    if request.start {
        let end = reached.unwrap_or_else(|| "its end".to_owned());
        plan.steps.push(match &plan.recovery {
            Some(_) => {
                format!("start the server; it replays the log to {end}, and is asked where it came to")
            }
            None => format!("start the server; it replays the log inside the backup to {end}"),
        });
        plan.steps.push("prove it: connect to every database and ask for its tables".to_owned());
    }
}
