//! `backstay dump`: portable files, without the repository.

use backstay_model::Fault;
use backstay_ops::dump::{DumpPolicy, DumpRequest};

use super::DONE;
use crate::args::DumpArguments;
use crate::error::Error;
use crate::render::dumps;
use crate::session::Session;

pub async fn run(session: &Session, arguments: &DumpArguments) -> Result<u8, Fault> {
    let (mut policy, instance) = session.dump_policy(&arguments.instance, arguments.layout.as_deref())?;
    overrule(&mut policy, arguments);
    let request = DumpRequest {
        databases: arguments.database.clone(),
        tables: arguments.table.clone(),
        schemas: arguments.schema.clone(),
        safety: false,
    };
    let report = {
        let _bar = session.bar(instance.id.as_str());
        backstay_ops::dump::run(&session.run(), &instance, &policy, &request).await?
    };
    session.output.result(&report, |output| dumps::taken(output, &report)).map_err(Error::Print)?;
    Ok(DONE)
}

/// What is typed wins over what is set.
fn overrule(policy: &mut DumpPolicy, arguments: &DumpArguments) {
    if let Some(to) = &arguments.to {
        policy.to = Some(to.as_str().to_owned());
    }
    if let Some(format) = arguments.format {
        policy.shape.format = format;
    }
    if let Some((compression, level)) = arguments.compress {
        policy.shape.compression = compression;
        // A level that is set is one of the compression that is set.
        policy.level = level;
    }
    if let Some(cipher) = arguments.encrypt {
        policy.shape.cipher = cipher;
    }
    if let Some(jobs) = arguments.jobs {
        policy.jobs = jobs;
    }
}
