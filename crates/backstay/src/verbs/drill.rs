//! `backstay drill`: exit 0 proved, 20 a backup cannot be brought back, 21 could not
//! look.
//!
//! Each instance has its own result, also the one of which nothing could be seen.

use backstay_model::{Fault, InstanceId, RecoveryTarget};
use backstay_ops::Context;
use backstay_ops::drill::{DrillOptions, could_not_look};

use super::{NOT_SEEN, NOT_SOUND, Verdict};
use crate::args::DrillArguments;
use crate::config;
use crate::error::Error;
use crate::render::drill::{self, Drilled};
use crate::render::errors::Told;
use crate::session::Session;

pub async fn run(session: &Session, arguments: &DrillArguments) -> Result<u8, Fault> {
    let target = arguments.to.as_deref().map(str::parse::<RecoveryTarget>).transpose()?;
    let instances = session.instances(&arguments.instances)?;
    let directory = match &session.config.settings.drill.directory {
        Some(directory) => session.config.beside(directory),
        None => std::env::temp_dir(),
    };
    let options = DrillOptions { target, directory, keep: arguments.keep, fetch: session.fetch_program() };
    let mut verdict = Verdict::default();
    let drilled = match session.context().await {
        Ok(context) => each(session, &context, instances, &options, &mut verdict).await,
        Err(fault) if super::could_not_look(fault.kind()) => {
            let error = Told::fault(&fault);
            session.output.error(&error);
            verdict.worsen(NOT_SEEN);
            let unseen = |(id, _)| Drilled::not_to_the_end(&id, options.target.as_ref(), error.clone());
            instances.into_iter().map(unseen).collect()
        }
        Err(fault) => return Err(fault),
    };
    session.output.result(&drilled, |output| drill::all(output, &drilled)).map_err(Error::Print)?;
    Ok(verdict.code())
}

async fn each(
    session: &Session,
    context: &Context,
    instances: Vec<(InstanceId, config::Result<backstay_ops::Instance>)>,
    options: &DrillOptions,
    verdict: &mut Verdict,
) -> Vec<Drilled> {
    let mut all = Vec::new();
    for (id, instance) in instances {
        let ended = match instance {
            Err(error) => Err((Fault::from(error), false)),
            Ok(instance) => {
                let _bar = session.bar(id.as_str());
                let ended = backstay_ops::drill::run(context, &instance, options).await;
                ended.map_err(|error| {
                    let unseen = could_not_look(&error);
                    (Fault::from(error), unseen)
                })
            }
        };
        all.push(match ended {
            Ok(report) => {
                if !report.sound {
                    verdict.worsen(NOT_SOUND);
                }
                Drilled::Ended(report)
            }
            Err((fault, unseen)) => {
                let error = Told::fault(&fault);
                session.output.error(&error);
                verdict.worsen(if unseen { NOT_SEEN } else { fault.kind().exit_code() });
                Drilled::not_to_the_end(&id, options.target.as_ref(), error)
            }
        });
        if session.cancel.is_cancelled() {
            break;
        }
    }
    all
}
