//! Prove: ask a restored server whether it holds what the backup held, and stop it.

use backstay_engine::postgres::prove::{self, ProveOptions};
use backstay_engine::postgres::scratch::Scratch;
use backstay_model::drill::Check;
use backstay_model::{Finding, TargetAction};

use super::place::Placed;
use super::reached;
use super::recover::{Afterlife, LogSupply};
use crate::context::Context;
use crate::error::{Error, Result};

/// The answers. The server is stopped whatever they are; when it is asked to
/// stop, by an error or on request, dropping it ends it.
pub(crate) async fn run(
    context: &Context,
    mut server: Scratch,
    placed: &Placed,
    supply: Option<&LogSupply>,
    afterlife: Afterlife,
) -> Result<(Vec<Check>, Vec<Finding>)> {
    context.progress.enter("prove");
    let mut options = ProveOptions::default();
    if afterlife == Afterlife::Used {
        // Walking indexes needs an extension, and nothing is added to a copy that stays.
        options.indexes = 0;
    }
    if let Some(supply) = supply {
        options.has_gone_on = true;
        options.is_paused = supply.recovery.action == TargetAction::Pause;
    }
    let asked = async {
        let mut checks = Vec::new();
        if let Some(supply) = supply {
            let reached = backstay_engine::postgres::reached::reached(&server).await?;
            checks = reached::checks(&supply.recovery, &reached);
        }
        Ok((checks, prove::prove(&server, &placed.facts, &options).await?))
    };
    let (mut checks, proof) = match context.unless_cancelled(asked).await {
        Err(Error::Engine(lost)) if prove::broke_off(&lost) => {
            return Err(server.why_lost(lost).await.into());
        }
        asked => asked?,
    };
    let stopped = server.stop().await?;
    checks.extend(proof.checks.into_iter().map(in_common_words));
    if afterlife == Afterlife::Discarded && placed.facts.server.data_checksums {
        context.check_cancelled()?;
        context.progress.enter("check every page");
        let pages = prove::prove_pages(&stopped, prove::PAGES_LIMIT, &context.cancel).await?;
        checks.push(in_common_words(pages));
    }
    Ok((checks, proof.findings))
}

fn in_common_words(check: prove::Check) -> Check {
    Check { name: check.name, expected: check.expected, found: check.found, ok: check.ok }
}
