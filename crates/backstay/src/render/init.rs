//! What `init` made, and what to do next.

use super::Output;
use super::lines::{findings, labelled, quiet};
use crate::config::USUAL_PLACES;
use crate::verbs::init::Made;

pub fn made(output: &Output, made: &Made) -> String {
    if output.quiet {
        return quiet(output, &format!("repository {}", made.report.repository), &made.report.findings);
    }
    let mut text = format!("made repository {} at {}\n", made.report.repository, made.report.store);
    text.push_str(&labelled("configuration", &made.config.display().to_string()));
    match &made.report.key_file {
        Some(key) => text.push_str(&labelled("key", &key.display().to_string())),
        None => text.push_str(&labelled("key", "none: the backups are NOT encrypted")),
    }
    text.push_str(&labelled("recovery kit", &made.recovery_kit.display().to_string()));
    if let (Some(instance), Some(server)) = (&made.instance, &made.server) {
        text.push_str(&labelled("instance", &format!("{instance}: {server}")));
    }
    text.push_str(&findings(output, &made.report.findings));
    text + &next(made)
}

/// The commands that follow, as they are to be typed.
fn next(made: &Made) -> String {
    let usual = USUAL_PLACES
        .iter()
        .filter_map(|place| std::path::absolute(place).ok())
        .any(|place| place == made.config);
    let config = if usual { String::new() } else { format!(" --config {}", made.config.display()) };
    let mut steps = Vec::new();
    if made.report.encrypted {
        steps.push(
            "copy the key and the recovery kit to a place outside this machine:\n     without the key nobody can read the backups".to_owned(),
        );
    }
    match &made.instance {
        None => {
            steps.push(format!("fill in [instance.NAME] in {}", made.config.display()));
            steps.push(format!("backstay{config} config check --connect"));
            steps.push(format!("backstay{config} backup"));
            steps.push(format!("backstay{config} drill               # proves that it can be restored"));
        }
        Some(instance) => {
            steps.push(format!("backstay{config} backup {instance}"));
            steps.push(format!("backstay{config} drill {instance}    # proves that it can be restored"));
        }
    }
    let numbered: Vec<String> =
        steps.iter().enumerate().map(|(number, step)| format!("  {}. {step}\n", number + 1)).collect();
    format!("next:\n{}", numbered.concat())
}
