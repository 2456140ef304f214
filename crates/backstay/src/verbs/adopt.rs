//! `backstay adopt`: exit 0 when all that is a dump was taken in, 20 when one is damaged
//! or closed.

use backstay_model::Fault;
use backstay_ops::adopt::{self, AdoptRequest};

use super::{DONE, NOT_SOUND};
use crate::args::AdoptArguments;
use crate::error::Error;
use crate::render::adopted;
use crate::session::Session;

pub async fn run(session: &Session, arguments: &AdoptArguments) -> Result<u8, Fault> {
    let known = || session.config.settings.instance.keys().map(ToString::to_string).collect::<Vec<_>>();
    let name = match (&arguments.instance, known().as_slice()) {
        (Some(name), _) => name.clone(),
        (None, [only]) => only.clone(),
        (None, several) => return Err(Fault::new(Error::WhoseDumps { known: several.to_vec() })),
    };
    let (mut policy, instance) = session.dump_policy(&name, arguments.layout.as_deref())?;
    policy.older_passphrases = session.older_passphrases(&arguments.passphrases)?;
    let directory = std::path::absolute(&arguments.directory).unwrap_or_else(|_| arguments.directory.clone());
    let is_shelf = policy.directory().is_some_and(|shelf| shelf == directory);
    let request = AdoptRequest { directory, dry_run: arguments.dry_run };
    let report = {
        let _bar = session.bar(instance.id.as_str());
        adopt::run(&session.run(), &instance, &policy, &request).await?
    };
    let shown = adopted::Shown { dry_run: arguments.dry_run, is_shelf };
    session.output.result(&report, |output| adopted::all(output, &report, shown)).map_err(Error::Print)?;
    Ok(if report.is_sound() { DONE } else { NOT_SOUND })
}
