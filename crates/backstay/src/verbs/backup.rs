//! `backstay backup`: one instance after the other; one that fails stops no other.

use backstay_model::Fault;
use backstay_ops::backup::BackupOptions;

use super::Verdict;
use crate::args::BackupArguments;
use crate::error::Error;
use crate::render::backups;
use crate::session::Session;

pub async fn run(session: &Session, arguments: &BackupArguments) -> Result<u8, Fault> {
    let named = session.instances(&arguments.instances)?;
    let context = session.context().await?;
    let options = BackupOptions {
        full: arguments.full,
        compression_level: Some(session.config.settings.repository.level()),
    };
    let mut taken = Vec::new();
    let mut verdict = Verdict::default();
    for (id, instance) in named {
        let backed_up = async {
            let instance = instance?;
            let _bar = session.bar(id.as_str());
            backstay_ops::backup::run(&context, &instance, &options).await.map_err(Fault::from)
        };
        match backed_up.await {
            Ok(summary) => {
                if !session.output.json {
                    session.output.print(&backups::taken(&session.output, &summary)).map_err(Error::Print)?;
                }
                taken.push(summary);
            }
            Err(fault) => verdict.failed(session, &fault),
        }
        if session.cancel.is_cancelled() {
            break;
        }
    }
    if session.output.json {
        session.output.result(&taken, |_| String::new()).map_err(Error::Print)?;
    }
    Ok(verdict.code())
}
