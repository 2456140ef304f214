//! `backstay config`: checked, shown, explained.

use backstay_model::{ErrorKind, Fault};
use backstay_ops::instance::EngineSettings;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::{DONE, Verdict};
use crate::args::{ConfigVerb, GlobalOptions};
use crate::config::origin::{self, Shown};
use crate::config::reference;
use crate::config::schema::json_schema;
use crate::error::Error;
use crate::render::errors::Told;
use crate::render::{Output, settings};
use crate::session::Session;

pub async fn run(
    global: &GlobalOptions,
    verb: &ConfigVerb,
    output: Output,
    cancel: CancellationToken,
) -> Result<u8, Fault> {
    match verb {
        ConfigVerb::Check { connect } => check(&Session::start(global, output, cancel)?, *connect).await,
        ConfigVerb::Show { origin } => {
            let session = Session::start(global, output, cancel)?;
            let rows = origin::shown(&session.config);
            let document =
                ShownSettings { config: session.config.path.display().to_string(), settings: &rows };
            output.result(&document, |_| settings::shown(&rows, *origin)).map_err(Error::Print)?;
            Ok(DONE)
        }
        ConfigVerb::Reference => {
            output.print(&reference::markdown()).map_err(Error::Print)?;
            Ok(DONE)
        }
        ConfigVerb::Schema => {
            // JSON either way.
            let schema = format!("{:#}\n", json_schema());
            output.print(&schema).map_err(Error::Print)?;
            Ok(DONE)
        }
    }
}

#[derive(Serialize)]
struct ShownSettings<'a> {
    config: String,
    settings: &'a [Shown],
}

/// What `config check` tells.
#[derive(Debug, Serialize)]
pub struct CheckReport {
    pub config: String,
    pub sound: bool,
    pub checks: Vec<Checked>,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
pub struct Checked {
    pub subject: String,
    pub ok: bool,
    /// What was seen, in a few words.
    pub detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Told>,
}

/// Every secret and key file is read, so that a check that passes means something;
/// with `connect` every server and the store are reached too.
async fn check(session: &Session, connect: bool) -> Result<u8, Fault> {
    let mut report =
        CheckReport { config: session.config.path.display().to_string(), sound: true, checks: Vec::new() };
    let mut verdict = Verdict::default();
    let repository = async {
        if connect {
            let context = session.context().await?;
            let encrypted = if context.repo.is_encrypted() { "encrypted" } else { "NOT encrypted" };
            return Ok(format!("repository {} opened, {encrypted}", context.repo.id()));
        }
        let key = session.key()?;
        Ok(if key.is_some() { "key read" } else { "no key" }.to_owned())
    };
    take(&mut report, &mut verdict, "repository".to_owned(), repository.await);
    let named =
        if session.config.settings.instance.is_empty() { Vec::new() } else { session.instances(&[])? };
    for (id, instance) in named {
        let looked = async {
            let instance = instance?;
            let redis = match &instance.engine {
                // One whose dumps are adopted leads nowhere.
                EngineSettings::Redis(settings) if !settings.url.is_empty() || settings.replica.is_some() => {
                    Some(settings)
                }
                _ => None,
            };
            if let Some(settings) = redis {
                settings.check()?;
            }
            if !connect {
                return Ok("settings read".to_owned());
            }
            if let Some(settings) = redis {
                return Ok(backstay_ops::check::redis(settings).await?);
            }
            // The section is right; that its server is not reached is for the verbs to say.
            if let Err(error @ backstay_ops::Error::EngineNotReached { .. }) = instance.server() {
                return Ok(error.to_string());
            }
            let checked = backstay_ops::check::run(&instance).await?;
            Ok::<String, Fault>(checked.describe())
        };
        take(&mut report, &mut verdict, format!("instance {id}"), looked.await);
    }
    session
        .output
        .result(&report, |output| settings::checked(output, &report, connect))
        .map_err(Error::Print)?;
    Ok(verdict.code())
}

fn take(report: &mut CheckReport, verdict: &mut Verdict, subject: String, looked: Result<String, Fault>) {
    let checked = match looked {
        Ok(detail) => Checked { subject, ok: true, detail, error: None },
        Err(fault) => {
            verdict.worsen(fault.kind().exit_code());
            report.sound = false;
            let told = Told::fault(&fault);
            let detail = told.message.clone();
            let error = (told.kind != ErrorKind::Cancelled).then_some(told);
            Checked { subject, ok: false, detail, error }
        }
    };
    report.checks.push(checked);
}
