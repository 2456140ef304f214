//! Status: health, what can be reached, and the objectives beside what was measured.
//!
//! A server that is away does not make the status fail: that is the hour at which
//! somebody asks for it.

use backstay_engine::postgres::connect::Session;
use backstay_engine::postgres::reload::swap::left_by_swaps;
use backstay_engine::postgres::{BackupFacts, PostgresSettings, facts};
use backstay_model::drill::DrillReport;
use backstay_model::error::Classified;
use backstay_model::status::{
    ArchiveState, ArchiveStatus, Health, InstanceStatus, LastDrill, RecoveryWindow,
};
use backstay_model::{BackupSummary, ErrorKind, FindingLevel};

use crate::context::Context;
use crate::error::Result;
use crate::future::is_from_the_future;
use crate::instance::Instance;
use crate::known::Known;

pub async fn run(context: &Context, instance: &Instance) -> Result<InstanceStatus> {
    let known = Known::of(context, &instance.id).await?;
    let newest_first = known.newest_first();
    let last_backup = newest_first.first().map(|(record, marks)| BackupSummary::new(record, marks.clone()));
    let sound: Vec<_> = newest_first.iter().filter(|(_, marks)| !marks.is_damaged()).collect();

    // No log is archived yet: what can be reached are the ends of the sound backups.
    let recovery_windows = sound
        .iter()
        .rev()
        .map(|(record, _)| RecoveryWindow { from: record.finished_at, to: record.finished_at })
        .collect();
    let now = context.clock.now();
    let from_the_future = newest_first.first().filter(|(record, _)| is_from_the_future(record, now));
    let dated = sound.first().filter(|(record, _)| !is_from_the_future(record, now));
    let recovery_point_age_seconds =
        dated.map(|(record, _)| now.duration_since(record.finished_at).as_secs_f64().max(0.0));
    let last_drill = known.proofs.last().map(LastDrill::from);
    let objectives = instance.policy.objectives.compare(recovery_point_age_seconds, last_drill.as_ref());

    let Probed { mut health, reason: mut health_reason, system_identifier } =
        probe(instance.postgres()?).await;
    if let (Health::Ok, Some((record, _)), Some(found)) = (health, newest_first.first(), system_identifier)
        && let Ok(facts) = BackupFacts::from_json(&record.facts)
        && facts.server.system_identifier != found
    {
        health = Health::Degraded;
        health_reason = Some("the server is another cluster than the one in the last backup".to_owned());
    }
    if let (Health::Ok, Some(finding)) =
        (health, known.findings.iter().find(|finding| finding.level == FindingLevel::Error))
    {
        (health, health_reason) = (Health::Degraded, Some(finding.message.clone()));
    }
    if let (Health::Ok, Some(proof)) = (health, known.proofs.last().filter(|proof| !proof.sound)) {
        (health, health_reason) = (Health::Degraded, Some(of_failed_drill(proof)));
    }
    if let (Health::Ok, Some((record, _))) = (health, from_the_future) {
        let reason =
            format!("{} is from the future, so nobody knows how old it is: a clock is wrong", record.id);
        (health, health_reason) = (Health::Degraded, Some(reason));
    }
    context.check_cancelled()?;
    Ok(InstanceStatus {
        instance: instance.id.clone(),
        engine: instance.kind(),
        health,
        health_reason,
        recovery_windows,
        holes: Vec::new(),
        recovery_point_age_seconds,
        archive: ArchiveStatus {
            state: ArchiveState::Off,
            position: None,
            source_position: None,
            lag_bytes: None,
        },
        last_backup,
        last_drill,
        objectives,
    })
}

/// What the last drill says, which outweighs every sound one before it.
fn of_failed_drill(proof: &DrillReport) -> String {
    let fault = proof.fault().map(|fault| format!(": {fault}")).unwrap_or_default();
    format!("the drill of backup {} at {} was NOT sound{fault}", proof.backup, proof.at)
}

struct Probed {
    health: Health,
    reason: Option<String>,
    system_identifier: Option<u64>,
}

/// Whether the server answers as it should, and who it is.
async fn probe(settings: &PostgresSettings) -> Probed {
    let asked = async {
        let address = settings.address()?;
        let session = Session::open(&address).await?;
        // First: sessions of ours in other databases would be taken for a swap that runs.
        let left = left_by_swaps(&session).await?;
        Ok::<_, backstay_engine::Error>((facts::read(&session, &address).await?, left))
    };
    match asked.await {
        Ok((server, left)) => {
            let reason = left.first().map(|finding| {
                format!("database {}: {}; {}", finding.subject, finding.message, finding.remedy)
            });
            let health = if left.is_empty() { Health::Ok } else { Health::Degraded };
            Probed { health, reason, system_identifier: Some(server.system_identifier) }
        }
        Err(error) => {
            let health = match error.kind() {
                ErrorKind::Unavailable => Health::Down,
                // It is there, and does not let us look.
                ErrorKind::Denied | ErrorKind::Conflict => Health::Degraded,
                _ => Health::Unknown,
            };
            let hint = error.hints().into_iter().next().map(|hint| format!("; {hint}")).unwrap_or_default();
            let reason = Some(format!("{}{hint}", with_causes(&error)));
            Probed { health, reason, system_identifier: None }
        }
    }
}

pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        text.push_str(": ");
        text.push_str(&source.to_string());
        cause = source.source();
    }
    text
}
