//! `backstay expire`: what may go and why each stays, backups and dumps.

use backstay_model::{Fault, InstanceId};
use backstay_ops::Context;
use backstay_ops::dump::expire::{self as dumps, DumpExpire, DumpExpireReport};
use backstay_ops::expire::{ExpireOutlook, ExpireReport};
use jiff::Timestamp;
use serde::Serialize;

use super::Verdict;
use crate::args::ExpireArguments;
use crate::error::Error;
use crate::render::expire;
use crate::session::{Kept, Session};

/// What is said of one instance: of its backups, and of its dumps where they have a place.
#[derive(Debug, Serialize)]
struct Of<B, D> {
    #[serde(skip)]
    instance: InstanceId,
    /// What is said of backups names it too.
    #[serde(rename = "instance", skip_serializing_if = "Option::is_none")]
    named: Option<InstanceId>,
    #[serde(flatten)]
    backups: Option<B>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dumps: Option<D>,
}

type Planned = Of<ExpireOutlook, DumpExpire>;
type Done = Of<ExpireReport, DumpExpireReport>;

pub async fn run(session: &Session, arguments: &ExpireArguments) -> Result<u8, Fault> {
    let instances = session.instances(&arguments.instances)?;
    let mut verdict = Verdict::default();
    let mut shelves = Vec::new();
    for kept in session.shelves(&arguments.instances) {
        match kept {
            Ok(kept) => shelves.push(kept),
            Err(fault) => verdict.failed(session, &fault),
        }
    }
    // Dumps need no repository: one that is away or locked stops the backups alone.
    let context = match session.context().await {
        Ok(context) => Some(context),
        Err(fault) if shelves.is_empty() => return Err(fault),
        Err(fault) => {
            verdict.failed(session, &fault);
            None
        }
    };
    let as_of = arguments.as_of.unwrap_or_else(|| session.clock.now());
    let (mut plans, mut reports) = (Vec::new(), Vec::new());
    for (id, instance) in instances {
        let kept = shelves.iter().find(|kept| kept.instance == id);
        if arguments.dry_run {
            let backups = async {
                let Some(context) = &context else { return Ok(None) };
                Ok(Some(backstay_ops::expire::outlook(context, &instance?, as_of).await?))
            };
            let backups = told(session, &mut verdict, backups).await?;
            let dumps = told(session, &mut verdict, plan_of_dumps(session, kept, as_of)).await?;
            plans.push(Of::new(id, backups, dumps));
        } else {
            let backups = async { expired(context.as_ref(), instance?).await };
            let backups = told(session, &mut verdict, backups).await?;
            let dumps = told(session, &mut verdict, expire_dumps(session, kept)).await?;
            reports.push(Of::new(id, backups, dumps));
        }
    }
    plans.retain(Of::says_something);
    reports.retain(Of::says_something);
    let output = session.output;
    if arguments.dry_run {
        output.result(&plans, |output| {
            text(&plans, |of: &Planned| {
                joined(
                    of.backups.as_ref().map(|plan| expire::outlook(output, plan)),
                    of.dumps.as_ref().map(|planned| expire::dump_plan(output, &of.instance, planned)),
                )
            })
        })
    } else {
        output.result(&reports, |output| {
            text(&reports, |of: &Done| {
                joined(
                    of.backups.as_ref().map(|report| expire::report(output, report)),
                    of.dumps.as_ref().map(|report| expire::dump_report(output, &of.instance, report)),
                )
            })
        })
    }
    .map_err(Error::Print)?;
    Ok(verdict.code())
}

impl<B, D> Of<B, D> {
    fn new(instance: InstanceId, backups: Option<B>, dumps: Option<D>) -> Self {
        let named = backups.is_none().then(|| instance.clone());
        Self { instance, named, backups, dumps }
    }

    fn says_something(&self) -> bool {
        self.backups.is_some() || self.dumps.is_some()
    }
}

/// What failed is told, and stops nothing else but a stop that was asked for.
async fn told<T>(
    session: &Session,
    verdict: &mut Verdict,
    work: impl Future<Output = Result<Option<T>, Fault>>,
) -> Result<Option<T>, Fault> {
    match work.await {
        Ok(done) => Ok(done),
        Err(fault) if session.cancel.is_cancelled() => Err(fault),
        Err(fault) => {
            verdict.failed(session, &fault);
            Ok(None)
        }
    }
}

async fn expired(
    context: Option<&Context>,
    instance: backstay_ops::Instance,
) -> Result<Option<ExpireReport>, Fault> {
    let Some(context) = context else { return Ok(None) };
    Ok(Some(backstay_ops::expire::run(context, &instance).await?))
}

async fn plan_of_dumps(
    session: &Session,
    kept: Option<&Kept>,
    as_of: Timestamp,
) -> Result<Option<DumpExpire>, Fault> {
    let Some(Kept { instance, policy, .. }) = kept else { return Ok(None) };
    Ok(Some(dumps::plan(&session.run(), policy, instance, as_of).await?))
}

async fn expire_dumps(session: &Session, kept: Option<&Kept>) -> Result<Option<DumpExpireReport>, Fault> {
    let Some(Kept { instance, policy, .. }) = kept else { return Ok(None) };
    Ok(Some(dumps::run(&session.run(), policy, instance).await?))
}

/// A block for each instance, with a blank line between two.
fn text<T>(all: &[T], one: impl Fn(&T) -> String) -> String {
    let blocks: Vec<String> = all.iter().map(one).filter(|block| !block.is_empty()).collect();
    blocks.join("\n")
}

fn joined(backups: Option<String>, dumps: Option<String>) -> String {
    backups.unwrap_or_default() + &dumps.unwrap_or_default()
}
