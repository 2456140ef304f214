//! The roles and tablespaces of a server, made where they are missing.
//!
//! Whoever puts the databases of a whole server back needs these first. Invariant: what is
//! there stays as it is, with its passwords and rights, so there is nothing to be dumped or
//! stopped before. Refuses a script that is not whole before its first statement is run.

use backstay_engine::postgres::reload::{ClusterScan, ReloadTarget};
use backstay_model::dump::DumpContent;
use backstay_model::plan::Refusal;
use backstay_model::plan::reload::{Consent, Destination, TargetFacts, at_stake, refusal};
use backstay_model::{BackupId, Finding, InstanceId};
use backstay_repo::dump::{DumpInside, DumpReader};
use serde::Serialize;

use super::choose::{self, Chosen};
use super::target::{self, Server};
use super::{ReloadRequest, input};
use crate::clock::Stopwatch;
use crate::dump::{DumpPolicy, inside};
use crate::error::{Error, Result};
use crate::instance::Instance;
use crate::run::Run;

/// No server has as many roles.
const SCRIPT_MAX_BYTES: usize = 64 << 20;

/// What a person may say of it.
#[derive(Debug, Clone)]
pub struct GlobalsRequest {
    pub dump: BackupId,
    pub server: Server,
    pub consent: Consent,
}

#[derive(Debug, Clone, Serialize)]
pub struct GlobalsPlan {
    pub instance: InstanceId,
    pub dump: BackupId,
    /// Below the shelf.
    pub file: String,
    pub server: String,
    /// Roles and tablespaces that are missing.
    pub make: Vec<String>,
    /// Those that are there, and are left alone.
    pub left: Vec<String>,
    pub refusals: Vec<Refusal>,
    pub findings: Vec<Finding>,
}

/// What `restore` tells of it.
#[derive(Debug, Clone, Serialize)]
pub struct GlobalsReport {
    #[serde(flatten)]
    pub plan: GlobalsPlan,
    pub made: Vec<String>,
    pub duration_seconds: f64,
}

/// A plan, and everything that was opened to make it.
pub struct PreparedGlobals<'a> {
    pub plan: GlobalsPlan,
    run: &'a Run,
    target: ReloadTarget,
    /// Holds passwords.
    script: String,
}

/// The command that does it, for a dump of this instance.
pub(super) fn command(instance: &InstanceId, dump: &BackupId, request: &ReloadRequest) -> String {
    let to = match request.server {
        Server::Own => "",
        Server::Other { .. } => " --to-server …",
    };
    format!("backstay restore {instance} --backup {dump}{to}")
}

/// Opens the dump and looks at the target. Changes nothing. `None` for a dump of anything
/// else, which needs a place to go to.
pub async fn prepare<'a>(
    run: &'a Run,
    instance: &Instance,
    policy: &DumpPolicy,
    request: &GlobalsRequest,
) -> Result<Option<PreparedGlobals<'a>>> {
    instance.postgres()?;
    run.progress.enter("look for the dump");
    let none = |_| Error::NoSuchBackup { backup: request.dump.clone() };
    let chosen = choose::pick(run, policy, Some(&request.dump), None, |_| false, none).await?;
    let record = &chosen.record;
    if record.content != DumpContent::Globals {
        return Ok(None);
    }
    run.progress.enter("open the dump");
    let shelf = chosen.shelf.location().to_owned();
    let script = read(run, policy, &chosen).await.map_err(|error| error.of_shelf(&shelf))?;
    run.progress.enter("ask the server");
    let settings = request.server.settings(instance)?;
    let target = target::open(run, &settings).await?;
    let facts = TargetFacts {
        server: settings.address()?.describe(),
        environment: request.server.environment(instance).map(str::to_owned),
        // Nothing that is there is changed.
        is_source: false,
        is_there: false,
        is_used: false,
    };
    let server = Destination::Database { name: facts.server.clone() };
    let reasons = at_stake(record, &facts, &server, &instance.id, "");
    let mut refusals: Vec<Refusal> = refusal(&reasons, &server, &request.consent).into_iter().collect();
    let preview = target.preview_globals(&script).await?;
    refusals.extend(preview.refusals);
    let plan = GlobalsPlan {
        instance: instance.id.clone(),
        dump: record.id.clone(),
        file: chosen.path.to_string(),
        server: facts.server,
        make: preview.make,
        left: preview.left,
        refusals,
        findings: chosen.findings.clone(),
    };
    Ok(Some(PreparedGlobals { plan, run, target, script }))
}

/// All of the script, when it is whole.
async fn read(run: &Run, policy: &DumpPolicy, chosen: &Chosen) -> Result<String> {
    let reader = DumpReader::open_with_any(&chosen.shelf, &chosen.path, &policy.passphrases()).await;
    let mut reader = reader.map_err(|error| input::no_longer(chosen, error))?;
    let known = reader.known().map_err(|error| input::no_longer(chosen, error.into()))?;
    if known != DumpInside::PlainCluster {
        return Err(inside::not_reloadable(&chosen.path, known));
    }
    let strange = |what: &str| Error::NotReloadable { file: chosen.path.to_string(), what: what.to_owned() };
    let mut scan = ClusterScan::default();
    let mut script = Vec::new();
    while let Some(bytes) = reader.read().await? {
        run.check_cancelled()?;
        scan.push(&bytes)?;
        script.extend_from_slice(&bytes);
        if script.len() > SCRIPT_MAX_BYTES {
            return Err(strange("it is too long for roles and tablespaces"));
        }
    }
    let read = reader.finish().await?;
    input::as_recorded(chosen, &read)?;
    if !scan.finish()?.databases.is_empty() {
        return Err(strange("it holds databases beside roles and tablespaces"));
    }
    String::from_utf8(script).map_err(|_| strange("its names are not in UTF-8"))
}

impl PreparedGlobals<'_> {
    /// Does what the plan says.
    pub async fn carry_out(self) -> Result<GlobalsReport> {
        let PreparedGlobals { mut plan, run, target, script } = self;
        if let Some(refusal) = plan.refusals.first() {
            return Err(Error::Refused { refusal: refusal.clone() });
        }
        let watch = Stopwatch::start();
        run.progress.enter("make roles and tablespaces");
        let done = tokio::select! {
            biased;
            () = run.cancel.cancelled() => return Err(Error::Cancelled),
            done = target.reload_globals(&script) => done?,
        };
        plan.findings.extend(done.findings);
        Ok(GlobalsReport { plan, made: done.made, duration_seconds: watch.seconds() })
    }
}
