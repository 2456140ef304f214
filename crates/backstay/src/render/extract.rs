//! What a restore into a directory of a dump of Redis or InfluxDB does, and did.

use std::fmt::Write;

use backstay_ops::extract::{ExtractPlan, ExtractReport};

use super::Output;
use super::dumps;
use super::lines::{findings, labelled, quiet, size, span, steps};

pub fn plan(output: &Output, plan: &ExtractPlan) -> String {
    let mut text = format!("restore a dump of {} into {}\n", plan.instance, plan.into);
    let mut line = |label: &str, value: String| text.push_str(&labelled(label, &value));
    line("dump", format!("{} of {}", plan.dump, dumps::content(&plan.content)));
    line("file", plan.file.clone());
    line("writes", format!("about {}", size(plan.raw_bytes)));
    text.push_str(&steps(&plan.steps));
    text.push_str(&findings(output, &plan.findings));
    text
}

/// What was written, and what a person runs now.
pub fn done(output: &Output, report: &ExtractReport) -> String {
    let plan = &report.plan;
    if output.quiet {
        return quiet(output, &format!("{}: dump {} in {}", plan.instance, plan.dump, plan.into), &[]);
    }
    let mut text = format!(
        "{}: restored {} from dump {} into {} in {}\n",
        plan.instance,
        size(report.restored_bytes),
        plan.dump,
        plan.into,
        span(report.duration_seconds),
    );
    text.push_str("  what brings it into the server\n");
    for command in &report.next {
        let _ = writeln!(text, "    {command}");
    }
    text
}
