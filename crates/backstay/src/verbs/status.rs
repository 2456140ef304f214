//! `backstay status`: what could be lost, how long it would take, what is promised.

use backstay_model::Fault;

use super::Verdict;
use crate::args::StatusArguments;
use crate::error::Error;
use crate::render::status;
use crate::session::Session;

pub async fn run(session: &Session, arguments: &StatusArguments) -> Result<u8, Fault> {
    let names: Vec<String> = arguments.instance.iter().cloned().collect();
    let instances = session.instances(&names)?;
    let context = session.context().await?;
    let mut told = Vec::new();
    let mut verdict = Verdict::default();
    for (id, instance) in instances {
        let looked = async {
            let instance = instance?;
            let expected = session.archive_expected(&id);
            backstay_ops::status::run(&context, &instance, expected.as_ref()).await.map_err(Fault::from)
        };
        match looked.await {
            Ok(status) => told.push(status),
            Err(fault) => verdict.failed(session, &fault),
        }
    }
    session.output.result(&told, |output| status::status(output, &told)).map_err(Error::Print)?;
    Ok(verdict.code())
}
