//! Reload: a portable dump put back into a database of a server.
//!
//! Order: choose → open → look at the target → confirm → stop the application → dump
//! what is there → fill → check → swap → start the application. Invariant: up to the
//! filling nothing is changed; a database that was made for it and did not come to its
//! end is dropped again; one that was there changes in one transaction or not at all,
//! and a dump that turns out to be damaged at its last byte is never committed.

mod apart;
pub(crate) mod choose;
mod fill;
pub mod globals;
mod hooks;
mod input;
mod target;

use std::time::Duration;

use backstay_engine::postgres::PostgresSettings;
use backstay_engine::postgres::dump::RelationName;
use backstay_engine::postgres::reload::{ReloadTarget, swap};
use backstay_model::dump::DumpContent;
use backstay_model::plan::Refusal;
use backstay_model::plan::reload::{Consent, Destination, ReloadChecks, ReloadPlan, at_stake, refusal};
use backstay_model::{BackupId, Finding, FindingLevel};
use serde::Serialize;

use crate::clock::Stopwatch;
use crate::critical;
use crate::dump::{self, DumpPolicy, DumpRequest, DumpedFile};
use crate::error::{Error, Result};
use crate::instance::Instance;
use crate::run::Run;

pub use hooks::Hooks;
use input::Input;
pub use target::Server;

/// Where a person wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    Database(String),
    Swap(String),
    /// Only to see whether it can be restored.
    Test,
}

/// What a person may say of one reload.
#[derive(Debug, Clone)]
pub struct ReloadRequest {
    /// The newest whole one of the database when none is named.
    pub dump: Option<BackupId>,
    /// Whose dump, where somebody said it: else of the database that is to be swapped, or of
    /// the one of the address.
    pub database: Option<String>,
    pub wanted: Wanted,
    pub server: Server,
    pub tables: Vec<RelationName>,
    pub schemas: Vec<String>,
    /// No trigger fires and no foreign key is looked at while rows come in; they are
    /// looked at afterwards.
    pub triggers_off: bool,
    pub owners: bool,
    pub privileges: bool,
    pub jobs: u32,
    pub consent: Consent,
    pub safety_dump: bool,
    /// Of the server that the dump goes to; for a database that somebody may use.
    pub hooks: Hooks,
}

impl ReloadRequest {
    fn is_of_parts(&self) -> bool {
        !self.tables.is_empty() || !self.schemas.is_empty()
    }
}

/// What `restore` tells of a dump.
#[derive(Debug, Clone, Serialize)]
pub struct ReloadReport {
    #[serde(flatten)]
    pub plan: ReloadPlan,
    pub restored_bytes: u64,
    pub duration_seconds: f64,
    /// The dump of what was there before.
    pub safety: Option<DumpedFile>,
    /// The name under which the old database is kept after a swap.
    pub kept: Option<String>,
    /// Sessions that a swap ended.
    pub sessions_ended: u64,
    /// What was looked at of a database that nobody used before.
    pub checks: Option<ReloadChecks>,
    /// Nothing that came to light since the plan is an error.
    pub sound: bool,
}

/// A plan, and everything that was opened to make it.
pub struct Prepared<'a> {
    pub plan: ReloadPlan,
    run: &'a Run,
    instance: &'a Instance,
    policy: &'a DumpPolicy,
    request: &'a ReloadRequest,
    settings: PostgresSettings,
    target: ReloadTarget,
    facts: backstay_model::plan::reload::TargetFacts,
    input: Input,
    /// Nobody uses a database that is not there yet.
    hooks: Hooks,
    /// The database that all of the statements come into, where parts of them were chosen.
    apart: Option<String>,
}

/// Finds the dump, opens it, and looks at the target. Changes nothing.
pub async fn prepare<'a>(
    run: &'a Run,
    instance: &'a Instance,
    policy: &'a DumpPolicy,
    request: &'a ReloadRequest,
) -> Result<Prepared<'a>> {
    instance.postgres()?;
    run.progress.enter("look for the dump");
    let chosen = choose::choose(run, instance, policy, request).await?;
    run.progress.enter("open the dump");
    let of = choose::database(instance, request)?;
    let shelf = chosen.shelf.location().to_owned();
    let input = Input::open(run, policy, request, chosen, &of).await;
    let input = input.map_err(|error| error.of_shelf(&shelf))?;
    run.progress.enter("ask the server");
    let settings = request.server.settings(instance)?;
    let target = target::open(run, &settings).await?;
    let time = run.clock.now().strftime("%Y%m%dT%H%M%SZ").to_string();
    let name = match &request.wanted {
        Wanted::Database(name) | Wanted::Swap(name) => name.clone(),
        Wanted::Test => swap::temporary_name(&swap::kept_name(&of, &time)),
    };
    let record = &input.chosen.record;
    // One that is shut cannot be looked into.
    let remains = target.remains_of_swap(&name).await?;
    let facts = target::look(run, &target, &settings, request, instance, record, &name).await?;
    let time = run.clock.now().strftime("%Y%m%dT%H%M%SZ").to_string();
    let kept = swap::kept_name(&name, &time);
    let apart = (input.is_statements() && request.is_of_parts()).then(|| swap::temporary_name(&kept));
    let destination = match &request.wanted {
        Wanted::Database(name) => Destination::Database { name: name.clone() },
        Wanted::Swap(name) => Destination::Swap { name: name.clone(), kept },
        Wanted::Test => Destination::Test { name: name.clone() },
    };
    if matches!(destination, Destination::Swap { .. }) && matches!(record.content, DumpContent::Parts { .. })
    {
        return Err(Error::SwapOfParts { dump: record.id.clone(), name });
    }
    let meant = request.database.as_deref().unwrap_or(&name);
    let reasons = at_stake(record, &facts, &destination, &instance.id, meant);
    let mut refusals: Vec<Refusal> = refusal(&reasons, &destination, &request.consent).into_iter().collect();
    let into = matches!(request.wanted, Wanted::Database(_)).then_some(name.as_str());
    let into = into.filter(|_| facts.is_there);
    let looked = target.preflight(into.filter(|_| apart.is_none()), &input.needs(request)?).await?;
    refusals.extend(looked.refusals);
    let is_whole = !request.is_of_parts() && !matches!(record.content, DumpContent::Parts { .. });
    if into.is_some() && facts.is_used && is_whole && input.timescaledb() == Some(true) {
        refusals.push(fill::refuse_used(&name));
    }
    let mut findings = input.chosen.findings.clone();
    findings.extend(looked.findings);
    findings.extend(remains);
    if input.is_statements() {
        findings.extend(target.statement_findings()?);
    }
    let safety_dump = request.safety_dump && facts.is_used && into.is_some();
    let back = way_back(&destination, safety_dump);
    findings
        .extend(reasons.iter().map(|reason| Finding::warning(name.as_str(), reason.clone(), back.clone())));
    let mut plan = ReloadPlan {
        instance: instance.id.clone(),
        dump: record.id.clone(),
        file: input.chosen.path.to_string(),
        content: record.content.clone(),
        server: facts.server.clone(),
        destination,
        tables: request.tables.iter().map(ToString::to_string).collect(),
        schemas: request.schemas.clone(),
        safety_dump,
        raw_bytes: record.raw_bytes,
        steps: Vec::new(),
        refusals,
        findings,
    };
    let hooks = match &plan.destination {
        Destination::Database { .. } if !facts.is_there => Hooks::default(),
        // The application goes on while something is only tried.
        Destination::Test { .. } => Hooks::default(),
        _ => request.hooks.clone(),
    };
    plan.steps = steps(&plan, &facts, request, &input, &hooks);
    if let Some(temporary) = &apart {
        plan.steps.insert(0, apart::step(&plan, temporary));
    }
    Ok(Prepared { plan, run, instance, policy, request, settings, target, facts, input, hooks, apart })
}

/// What helps whoever let it happen and is sorry: the refusal told the others already.
fn way_back(destination: &Destination, safety_dump: bool) -> String {
    match destination {
        Destination::Swap { name, kept } => format!(
            "the old one is kept as {kept}: `ALTER DATABASE … RENAME TO` gives it its name back, \
             `DROP DATABASE \"{kept}\"` lets it go when {name} is as it should be"
        ),
        Destination::Test { name } => format!("{name} is dropped again in any case"),
        Destination::Database { name } if safety_dump => format!(
            "the dump of {name} as it was is the newest of `backstay list --type dump` that says `before a restore`: \
             `backstay restore … --backup ID` brings it back"
        ),
        Destination::Database { name } => format!(
            "nothing of {name} as it was is kept: stop with Ctrl-C as long as it runs, and leave \
             `--no-safety-backup` out the next time"
        ),
    }
}

fn steps(
    plan: &ReloadPlan,
    facts: &backstay_model::plan::reload::TargetFacts,
    request: &ReloadRequest,
    input: &Input,
    hooks: &Hooks,
) -> Vec<String> {
    let mut steps = Vec::new();
    if let Some(command) = &hooks.before {
        steps.push(format!("run `{command}`; nothing is changed if it fails"));
    }
    if plan.safety_dump {
        steps.push(format!("dump database {} as it is now", plan.destination.name()));
    }
    let what = match (plan.tables.as_slice(), plan.schemas.as_slice()) {
        ([], []) => "everything".to_owned(),
        (tables, []) => tables.join(", "),
        (_, schemas) => format!("schema {}", schemas.join(", ")),
    };
    match &plan.destination {
        Destination::Swap { name, .. } => {
            steps.push(format!("make a database beside {name}, and put {what} of {} into it", plan.file));
        }
        Destination::Test { name } => {
            steps.push(format!("make database {name}, and put {what} of {} into it", plan.file));
            steps.push(
                "look at what came: all of it, its indexes, keys and sequences, and rows of it".to_owned(),
            );
            steps.push(format!("drop {name} again, however it ended"));
            return steps;
        }
        Destination::Database { name } if facts.is_there => {
            let how = if request.jobs > 1 && input.is_seekable() {
                "in several transactions"
            } else {
                "in one transaction"
            };
            steps.push(format!("put {what} of {} into database {name}, {how}", plan.file));
        }
        Destination::Database { name } => {
            steps.push(format!("make database {name}, and put {what} of {} into it", plan.file));
        }
    }
    steps.push("set the sequences right, look at the foreign keys that were not, and analyse".to_owned());
    if !facts.is_used || matches!(plan.destination, Destination::Swap { .. }) {
        steps
            .push("look at what came: all of it, its indexes, keys and sequences, and rows of it".to_owned());
    }
    if let Destination::Swap { name, kept } = &plan.destination {
        steps.push(match facts.is_there {
            true => {
                format!("end the sessions of {name}, rename it to {kept}, and rename the new one to {name}")
            }
            false => format!("rename the new one to {name}"),
        });
    }
    if let Some(command) = &hooks.after {
        steps.push(format!("run `{command}`, however it ended"));
    }
    steps
}

impl Prepared<'_> {
    /// Does what the plan says.
    pub async fn carry_out(self) -> Result<ReloadReport> {
        if let Some(refusal) = fill::all_in_one(self.plan.refusals.clone()) {
            return Err(Error::Refused { refusal });
        }
        let watch = Stopwatch::start();
        let (run, hooks) = (self.run, self.hooks.clone());
        run.check_cancelled()?;
        // The application can run on as long as that takes.
        let prepared = self.taken_apart().await?;
        let told = prepared.plan.findings.len();
        let done = match hooks::before(run, &hooks).await {
            Ok(()) => prepared.change().await,
            Err(error) => Err(error),
        };
        let started = hooks::after(run, &hooks, done.is_ok()).await;
        let mut report = done?;
        report.plan.findings.extend(started);
        let new = report.plan.findings.iter().skip(told);
        report.sound = !new.into_iter().any(|finding| finding.level == FindingLevel::Error);
        report.duration_seconds = watch.seconds();
        Ok(report)
    }

    /// What was chosen is an archive, whatever it came from.
    async fn taken_apart(self) -> Result<Self> {
        let Some(temporary) = &self.apart else { return Ok(self) };
        let (run, policy, request, target) = (self.run, self.policy, self.request, &self.target);
        let apart = apart::Apart { run, policy, request, target, temporary };
        let shelf = self.input.chosen.shelf.location().to_owned();
        let taken = apart.take(self.input).await.map_err(|error| error.of_shelf(&shelf))?;
        let (input, findings) = taken;
        let mut plan = self.plan;
        plan.findings.extend(findings);
        let into = self.facts.is_there.then(|| plan.destination.name());
        let looked = self.target.preflight(into, &input.needs(self.request)?).await?;
        if let Some(refusal) = fill::all_in_one(looked.refusals) {
            return Err(Error::Refused { refusal });
        }
        Ok(Prepared { plan, input, ..self })
    }

    async fn change(self) -> Result<ReloadReport> {
        let Prepared { plan, run, instance, policy, request, settings, target, facts, input, .. } = self;
        let mut report = ReloadReport {
            restored_bytes: 0,
            duration_seconds: 0.0,
            safety: None,
            kept: None,
            sessions_ended: 0,
            checks: None,
            sound: true,
            plan,
        };
        if report.plan.safety_dump {
            let there = Instance {
                engine: crate::instance::EngineSettings::Postgresql(settings.clone()),
                // Of the server that is changed, wherever the dump came from.
                environment: facts.environment.clone(),
                ..instance.clone()
            };
            let of = DumpRequest {
                databases: vec![report.plan.destination.name().to_owned()],
                safety: true,
                ..DumpRequest::default()
            };
            let of_target =
                dump::of_server(run, &there, dump::Server::Postgresql(target.address()), policy, &of).await?;
            report.safety = of_target.dumps.into_iter().next_back();
        }
        let into = match &report.plan.destination {
            Destination::Database { name } | Destination::Test { name } => name.clone(),
            Destination::Swap { kept, .. } => swap::temporary_name(kept),
        };
        let _mark = match &report.plan.destination {
            Destination::Swap { name, .. } => target.mark(&into, name).await,
            Destination::Test { name } => target.mark(&into, name).await,
            Destination::Database { .. } => None,
        };
        let is_new = !matches!(report.plan.destination, Destination::Database { .. }) || !facts.is_there;
        let is_test = matches!(report.plan.destination, Destination::Test { .. });
        let is_used = !is_new && facts.is_used;
        let filling = fill::Filling {
            run,
            policy,
            request,
            target: &target,
            into: &into,
            is_new,
            is_for_queries: !is_test,
            is_used,
            is_to_swap: matches!(report.plan.destination, Destination::Swap { .. }),
            is_test,
        };
        let shelf = input.chosen.shelf.location().to_owned();
        let filled = filling.fill(input).await.map_err(|error| error.of_shelf(&shelf))?;
        report.restored_bytes = filled.raw_bytes;
        report.checks = filled.checks;
        // Of what was restored; that a newer dump was passed over is no fault of this one.
        let bad = filled.findings.iter().find(|finding| finding.level == FindingLevel::Error);
        let bad = bad.map(|finding| format!("{}: {}", finding.subject, finding.message));
        report.plan.findings.extend(filled.findings);
        if is_test {
            run.progress.enter("drop what was tried");
            let dropped = fill::drop_within(&target, &into, fill::Made::Surely, fill::DROP_LIMIT).await;
            report.plan.findings.extend(dropped.err().map(|error| left(&into, &error)));
        }
        if let Destination::Swap { name, kept } = &report.plan.destination {
            if let Some(reason) = bad {
                let error = Error::SwapNotSound { name: name.clone(), reason };
                return Err(fill::let_go(&target, &into, fill::Made::Surely, error, fill::DROP_LIMIT).await);
            }
            run.progress.enter("swap the databases");
            // Not ended half-way, whoever asks and however often: the old one would stay shut.
            let section = critical::Section::enter();
            let swapped = swap::swap(&target, name, &into, kept, &mut |_| Ok(())).await;
            drop(section);
            match swapped {
                Ok(swapped) => {
                    report.kept = swapped.kept;
                    report.plan.findings.extend(swapped.findings);
                    report.sessions_ended = swapped.sessions_ended;
                }
                Err(error) => {
                    // The swap has waited for the server already.
                    return Err(fill::let_go(
                        &target,
                        &into,
                        fill::Made::Surely,
                        error.into(),
                        Duration::ZERO,
                    )
                    .await);
                }
            }
        }
        Ok(report)
    }
}

fn left(database: &str, error: &backstay_engine::Error) -> Finding {
    Finding::error(
        database,
        format!("was only tried, and cannot be dropped: {error}"),
        format!("`DROP DATABASE \"{database}\" WITH (FORCE)`"),
    )
}
