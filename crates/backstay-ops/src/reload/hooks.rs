//! Commands around a reload: what stops the application, and what starts it.
//!
//! A command that fails before stops everything while nothing is changed. The one after
//! runs however it ended, also when the one before failed half-way, because an application
//! that was stopped for a restore that did not take place is as down as any.

use std::process::Stdio;
use std::time::Duration;

use backstay_model::Finding;
use tokio::process::Command;

use crate::error::{Error, Result};
use crate::run::Run;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hooks {
    /// For `sh -c`, such as `docker compose stop app`.
    pub before: Option<String>,
    pub after: Option<String>,
    pub limit: Option<Duration>,
}

/// A stop of an application takes seconds; one that hangs must not hold a restore.
const LIMIT: Duration = Duration::from_secs(5 * 60);

pub(super) async fn before(run: &Run, hooks: &Hooks) -> Result<()> {
    let Some(command) = &hooks.before else { return Ok(()) };
    run.progress.enter("run before_restore");
    tokio::select! {
        biased;
        () = run.cancel.cancelled() => Err(Error::Cancelled),
        ended = shell(command, hooks, "before") => {
            ended.map_err(|reason| Error::HookFailed { name: "before_restore", command: command.clone(), reason })
        }
    }
}

/// Not ended by a request to stop: the application is to come up again.
pub(super) async fn after(run: &Run, hooks: &Hooks, went_well: bool) -> Option<Finding> {
    let command = hooks.after.as_ref()?;
    run.progress.enter("run after_restore");
    let outcome = if went_well { "done" } else { "failed" };
    let reason = shell(command, hooks, outcome).await.err()?;
    tracing::warn!(%command, %reason, "after_restore failed");
    Some(Finding::warning(
        "after_restore",
        format!("`{command}` {reason}"),
        format!("run `{command}` by hand"),
    ))
}

async fn shell(command: &str, hooks: &Hooks, outcome: &str) -> std::result::Result<(), String> {
    let limit = hooks.limit.unwrap_or(LIMIT);
    let child = Command::new("sh")
        .args(["-c", command])
        .env("BACKSTAY_OUTCOME", outcome)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        // A Ctrl-C is for us: what starts the application again is not to hear it.
        .process_group(0)
        .kill_on_drop(true)
        .spawn();
    let child = child.map_err(|error| format!("could not be started: {error}"))?;
    let mut group = Group(child.id());
    let ended = tokio::time::timeout(limit, child.wait_with_output()).await;
    if ended.is_ok() {
        group.0 = None;
    }
    match ended {
        Err(_) => Err(format!("did not end within {} s", limit.as_secs())),
        Ok(Err(error)) => Err(format!("could not be waited for: {error}")),
        Ok(Ok(output)) if output.status.success() => Ok(()),
        Ok(Ok(output)) => {
            let said = String::from_utf8_lossy(&output.stderr);
            let last = said.trim().lines().last().map(|line| format!(": {line}")).unwrap_or_default();
            Err(format!("ended with {}{last}", output.status))
        }
    }
}

/// The command with all that it started, killed when it is given up.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        let leader = self.0.and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
        if let Some(leader) = leader {
            // It may have ended meanwhile; that is what is wanted.
            let _ = rustix::process::kill_process_group(leader, rustix::process::Signal::KILL);
        }
    }
}
