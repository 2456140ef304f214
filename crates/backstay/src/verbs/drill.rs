//! `backstay drill`: exit 0 proved, 20 when a proof failed.

use backstay_model::{Fault, RecoveryTarget};
use backstay_ops::drill::DrillOptions;

use super::{NOT_SOUND, Verdict};
use crate::args::DrillArguments;
use crate::error::Error;
use crate::render::drill;
use crate::session::Session;

pub async fn run(session: &Session, arguments: &DrillArguments) -> Result<u8, Fault> {
    let target = arguments.to.as_deref().map(str::parse::<RecoveryTarget>).transpose()?.unwrap_or_default();
    let instances = session.instances(&arguments.instances)?;
    let directory = match &session.config.settings.drill.directory {
        Some(directory) => session.config.beside(directory),
        None => std::env::temp_dir(),
    };
    let options = DrillOptions { target, directory, keep: arguments.keep };
    let context = session.context().await?;
    let mut reports = Vec::new();
    let mut verdict = Verdict::default();
    for (id, instance) in instances {
        let drilled = async {
            let instance = instance?;
            let _bar = session.bar(id.as_str());
            backstay_ops::drill::run(&context, &instance, &options).await.map_err(Fault::from)
        };
        match drilled.await {
            Ok(report) => {
                if !report.sound {
                    verdict.worsen(NOT_SOUND);
                }
                reports.push(report);
            }
            Err(fault) => verdict.failed(session, &fault),
        }
        if session.cancel.is_cancelled() {
            break;
        }
    }
    session.output.result(&reports, |output| drill::reports(output, &reports)).map_err(Error::Print)?;
    Ok(verdict.code())
}
