//! Retention: what stays and why, what goes and when.

use backstay_model::InstanceId;
use backstay_model::policy::ExpirePlan;
use backstay_ops::collect::LogDeletion;
use backstay_ops::dump::expire::{DumpExpire, DumpExpireReport};
use backstay_ops::expire::{ExpireOutlook, ExpireReport};

use super::lines::{count, findings, quiet, size, time};
use super::table::{Align, Table};
use super::{Output, collect, dumps};

/// The backups, and the log that goes with them.
pub fn outlook(output: &Output, outlook: &ExpireOutlook) -> String {
    plan(output, &outlook.plan) + &log(&outlook.log)
}

fn log(deletions: &[LogDeletion]) -> String {
    let mut text = String::new();
    for deletion in deletions {
        let goes = collect::log_of(deletion);
        text.push_str(&format!("  {goes}; `backstay collect` deletes it\n"));
    }
    text
}

pub fn plan(output: &Output, plan: &ExpirePlan) -> String {
    if plan.keep.is_empty() && plan.expire.is_empty() {
        return format!("{}: no backups\n", plan.instance);
    }
    let mut table =
        Table::new(&[("  BACKUP", Align::Left), ("FINISHED", Align::Left), ("DECISION", Align::Left)]);
    for kept in &plan.keep {
        let reasons: Vec<String> = kept.reasons.iter().map(ToString::to_string).collect();
        table.row([
            format!("  {}", kept.id),
            time(kept.finished_at),
            format!("stays: {}", reasons.join(", ")),
        ]);
    }
    for expired in &plan.expire {
        let since = match (expired.condemned, expired.condemned_at) {
            (true, Some(at)) => format!("goes: condemned since {}", time(at)),
            (true, None) => "condemned since an unknown time".to_owned(),
            (false, _) => "goes".to_owned(),
        };
        let until = match expired.deletable_at {
            Some(at) => format!("can be restored until {}", time(at)),
            None => "stays".to_owned(),
        };
        table.row([format!("  {}", expired.id), time(expired.finished_at), format!("{since}, {until}")]);
    }
    let mut text = format!(
        "{}: {} as of {}\n",
        plan.instance,
        count(plan.keep.len() as u64 + plan.expire.len() as u64, "backup", "backups"),
        time(plan.as_of)
    );
    text.push_str(&table.text());
    if plan.expire.is_empty() && !output.quiet {
        text.push_str("  nothing goes\n");
    }
    text + &findings(output, &plan.findings)
}

/// What an `expire` did, below what it had planned.
pub fn report(output: &Output, report: &ExpireReport) -> String {
    if output.quiet {
        let all = [report.plan.findings.as_slice(), &report.findings].concat();
        return quiet(output, &format!("{}: retention", report.plan.instance), &all);
    }
    let mut text = plan(output, &report.plan);
    for (ids, what) in [
        (&report.condemned, "condemned: nothing new builds on it, and it is deleted after the grace window"),
        (&report.deleted, "deleted; `backstay collect` frees its space"),
    ] {
        for id in ids {
            text.push_str(&format!("  {id} {what}\n"));
        }
    }
    text.push_str(&log(&report.log));
    text + &findings(output, &report.findings)
}

/// Every file of every dump, with its reasons.
pub fn dump_plan(output: &Output, instance: &InstanceId, planned: &DumpExpire) -> String {
    let DumpExpire { shelf, plan, unfinished, old_reports, foreign_files, findings: found } = planned;
    let directory = shelf.strip_prefix("file://").unwrap_or(shelf);
    let files = plan.keep.len() as u64 + plan.expire.len() as u64;
    let mut text = format!(
        "{instance}: {} in {directory} as of {}\n",
        count(files, "file of a dump", "files of dumps"),
        time(plan.as_of)
    );
    if files > 0 {
        let mut table = Table::new(&[
            ("  FILE", Align::Left),
            ("TIER", Align::Left),
            ("OF", Align::Left),
            ("FINISHED", Align::Left),
            ("SIZE", Align::Right),
            ("DECISION", Align::Left),
        ]);
        for fate in plan.keep.iter().chain(&plan.expire) {
            let reasons: Vec<String> = fate.reasons.iter().map(ToString::to_string).collect();
            let decision =
                if reasons.is_empty() { "goes".to_owned() } else { format!("stays: {}", reasons.join(", ")) };
            table.row([
                format!("  {}", fate.path),
                fate.tier.to_string(),
                dumps::content(&fate.content),
                time(fate.finished_at),
                size(fate.stored_bytes),
                decision,
            ]);
        }
        text.push_str(&table.text());
    }
    if plan.expire.is_empty() && files > 0 && !output.quiet {
        text.push_str("  nothing goes\n");
    }
    for path in unfinished {
        text.push_str(&format!("  {path} was being removed before, which is ended\n"));
    }
    for path in old_reports {
        text.push_str(&format!("  {path} is older than reports are kept, and goes\n"));
    }
    if *foreign_files > 0 {
        let others = count(*foreign_files, "file", "files");
        text.push_str(&format!("  {others} of others there: never touched\n"));
    }
    text + &findings(output, found)
}

pub fn dump_report(output: &Output, instance: &InstanceId, report: &DumpExpireReport) -> String {
    if output.quiet {
        return quiet(output, &format!("{instance}: retention of dumps"), &report.planned.findings);
    }
    let mut text = dump_plan(output, instance, &report.planned);
    for path in &report.deleted {
        text.push_str(&format!("  {path} deleted\n"));
    }
    for path in &report.pointed {
        text.push_str(&format!("  {path} points to the newest again\n"));
    }
    if report.swept_uploads > 0 {
        let swept = count(report.swept_uploads, "dump that never ended", "dumps that never ended");
        text.push_str(&format!("  removed what was left of {swept}\n"));
    }
    text
}
