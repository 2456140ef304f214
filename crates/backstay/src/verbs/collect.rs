//! `backstay collect`: delete what nothing refers to.

use backstay_model::Fault;
use backstay_ops::collect::CollectOptions;

use super::DONE;
use crate::args::CollectArguments;
use crate::error::Error;
use crate::render::collect;
use crate::session::Session;

pub async fn run(session: &Session, arguments: &CollectArguments) -> Result<u8, Fault> {
    let context = session.context().await?;
    let options = CollectOptions {
        dry_run: arguments.dry_run,
        max_share_percent: arguments.max_share,
        accept_loss: arguments.accept_loss,
    };
    let mut report = {
        let _bar = session.bar("collect");
        backstay_ops::collect::run(&context, &options).await?
    };
    let failure = report.failure.take();
    session.output.result(&report, |output| collect::report(output, &report)).map_err(Error::Print)?;
    match failure {
        Some(failure) => Err(failure.into()),
        None => Ok(DONE),
    }
}
