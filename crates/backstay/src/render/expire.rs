//! Retention: what stays and why, what goes and when.

use backstay_model::policy::ExpirePlan;
use backstay_ops::expire::ExpireReport;

use super::Output;
use super::lines::{count, findings, quiet, time};
use super::table::{Align, Table};

pub fn plans(output: &Output, plans: &[ExpirePlan]) -> String {
    let blocks: Vec<String> = plans.iter().map(|plan| one(output, plan)).collect();
    blocks.join("\n")
}

fn one(output: &Output, plan: &ExpirePlan) -> String {
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
pub fn reports(output: &Output, reports: &[ExpireReport]) -> String {
    if output.quiet {
        let warnings = reports.iter().map(|report| {
            let all = [report.plan.findings.as_slice(), &report.findings].concat();
            quiet(output, &format!("{}: retention", report.plan.instance), &all)
        });
        return warnings.collect();
    }
    let blocks: Vec<String> = reports
        .iter()
        .map(|report| {
            let mut text = one(output, &report.plan);
            for (ids, what) in [
                (
                    &report.condemned,
                    "condemned: nothing new builds on it, and it is deleted after the grace window",
                ),
                (&report.deleted, "deleted; `backstay collect` frees its space"),
            ] {
                for id in ids {
                    text.push_str(&format!("  {id} {what}\n"));
                }
            }
            text + &findings(output, &report.findings)
        })
        .collect();
    blocks.join("\n")
}
