//! `backstay verify`: exit 0 sound, 20 findings, 21 could not look.

use backstay_model::verify::{VerifyLevel, VerifyReport};
use backstay_model::{BackupId, Fault, InstanceId};
use backstay_ops::verify::Subject;

use super::could_not_look;
use crate::args::{VerifyArguments, VerifyDepth};
use crate::error::Error;
use crate::render::errors::Told;
use crate::render::verify;
use crate::session::Session;

pub async fn run(session: &Session, arguments: &VerifyArguments) -> Result<u8, Fault> {
    let level = match arguments.level {
        VerifyDepth::Existence => VerifyLevel::Existence,
        VerifyDepth::Structure => VerifyLevel::Structure,
        VerifyDepth::Digest => VerifyLevel::Digest,
    };
    let subject = subject(arguments.subject.as_deref())?;
    let looked = async {
        let context = session.context().await?;
        let _bar = session.bar("verify");
        backstay_ops::verify::run(&context, &subject, level).await.map_err(Fault::from)
    };
    match looked.await {
        Ok(report) => {
            session.output.result(&report, |output| verify::report(output, &report)).map_err(Error::Print)?;
            Ok(report.exit_code())
        }
        Err(fault) if could_not_look(fault.kind()) => {
            session.output.error(&Told::fault(&fault));
            Ok(VerifyReport::EXIT_UNSEEN)
        }
        Err(fault) => Err(fault),
    }
}

fn subject(text: Option<&str>) -> Result<Subject, Fault> {
    Ok(match text {
        None => Subject::All,
        Some(text) => match text.parse::<BackupId>() {
            Ok(backup) => Subject::Backup(backup),
            Err(_) => Subject::Instance(text.parse::<InstanceId>()?),
        },
    })
}
