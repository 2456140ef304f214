//! The chart of the document: one panel per question, one bar per tool. Plain SVG
//! with its own colours for light and dark, since a page that embeds it has no say.

use std::fmt::Write as _;

use super::Findings;
use super::Phase;

const WIDTH: u32 = 760;
const LABELS: u32 = 150;
const VALUES: u32 = 90;
const BAR_HEIGHT: u32 = 18;
const BAR_STEP: u32 = 26;
const TITLE_HEIGHT: u32 = 44;

const STYLE: &str = "
text { font: 13px system-ui, sans-serif; fill: #1f2328; }
.title { font-weight: 600; }
.label { text-anchor: end; }
.bar { fill: #8c959f; }
.ours { fill: #0969da; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; }
  .bar { fill: #6e7681; }
  .ours { fill: #4493f8; }
}
";

struct Panel {
    title: String,
    unit: &'static str,
    bars: Vec<(&'static str, f64)>,
}

pub fn draw(findings: &Findings) -> String {
    let panels = panels(findings);
    let mut body = String::new();
    let mut top = 10;
    for panel in &panels {
        draw_panel(&mut body, panel, top);
        top += height_of(panel);
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {top}\" width=\"{WIDTH}\" height=\"{top}\" role=\"img\">\n\
         <title>Base backups of PostgreSQL: wall time and stored bytes of each tool</title>\n<style>{STYLE}</style>\n{body}</svg>\n"
    )
}

fn panels(findings: &Findings) -> Vec<Panel> {
    let mut panels = Vec::new();
    for phase in Phase::ALL {
        let summaries: Vec<_> = findings
            .tools
            .iter()
            .filter_map(|(tool, _)| findings.summary(tool, phase).map(|summary| (*tool, summary)))
            .collect();
        let walls = summaries.iter().map(|(tool, summary)| (*tool, summary.wall)).collect();
        panels.push(Panel { title: format!("{}: wall time", phase.title()), unit: "s", bars: walls });
        if phase == Phase::Changed {
            let stored = summaries.iter().map(|(tool, summary)| (*tool, summary.stored_mib)).collect();
            panels.push(Panel { title: format!("{}: stored", phase.title()), unit: "MiB", bars: stored });
        }
    }
    panels.retain(|panel| !panel.bars.is_empty());
    panels
}

fn height_of(panel: &Panel) -> u32 {
    TITLE_HEIGHT + BAR_STEP * panel.bars.len() as u32
}

fn draw_panel(body: &mut String, panel: &Panel, top: u32) {
    let longest = panel.bars.iter().map(|(_, value)| *value).fold(f64::MIN_POSITIVE, f64::max);
    let room = f64::from(WIDTH - LABELS - VALUES);
    // Writing to a string does not fail.
    let _ = writeln!(body, "<text class=\"title\" x=\"10\" y=\"{}\">{}</text>", top + 22, panel.title);
    for (number, (tool, value)) in panel.bars.iter().enumerate() {
        let y = top + TITLE_HEIGHT - 10 + BAR_STEP * number as u32;
        let baseline = y + 14;
        let length = (value / longest * room).max(1.0);
        let class = if tool.starts_with("Backstay") { "bar ours" } else { "bar" };
        let _ = writeln!(body, "<text class=\"label\" x=\"{}\" y=\"{baseline}\">{tool}</text>", LABELS - 8);
        let _ = writeln!(
            body,
            "<rect class=\"{class}\" x=\"{LABELS}\" y=\"{y}\" width=\"{length:.1}\" height=\"{BAR_HEIGHT}\" rx=\"2\"/>"
        );
        let _ = writeln!(
            body,
            "<text x=\"{:.1}\" y=\"{baseline}\">{value:.2} {}</text>",
            f64::from(LABELS) + length + 6.0,
            panel.unit
        );
    }
}
