//! `backstay expire`: what may go and why each stays.

use backstay_model::Fault;

use super::Verdict;
use crate::args::ExpireArguments;
use crate::error::Error;
use crate::render::expire;
use crate::session::Session;

pub async fn run(session: &Session, arguments: &ExpireArguments) -> Result<u8, Fault> {
    let instances = session.instances(&arguments.instances)?;
    let context = session.context().await?;
    let as_of = arguments.as_of.unwrap_or_else(|| session.clock.now());
    let mut verdict = Verdict::default();
    let (mut plans, mut reports) = (Vec::new(), Vec::new());
    for (_, instance) in instances {
        let done = async {
            let instance = instance?;
            if arguments.dry_run {
                plans.push(backstay_ops::expire::plan(&context, &instance, as_of).await?);
            } else {
                reports.push(backstay_ops::expire::run(&context, &instance).await?);
            }
            Ok::<(), Fault>(())
        };
        if let Err(fault) = done.await {
            verdict.failed(session, &fault);
        }
    }
    let output = session.output;
    if arguments.dry_run {
        output.result(&plans, |output| expire::plans(output, &plans)).map_err(Error::Print)?;
    } else {
        output.result(&reports, |output| expire::reports(output, &reports)).map_err(Error::Print)?;
    }
    Ok(verdict.code())
}
