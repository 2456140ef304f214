//! The reference of the configuration as Markdown, made from the schema.

use std::fmt::Write;

use super::schema::{Shape, json_schema};

/// `backstay config reference`.
pub fn markdown() -> String {
    let schema = json_schema();
    let root = Shape::root(&schema);
    let mut out = String::from(
        "# Configuration reference\n\n\
         The file is `backstay.toml` in the working directory, then `/etc/backstay/backstay.toml`; `--config FILE` or\n\
         `BACKSTAY_CONFIG` names another. A flag goes over the environment, the environment over the file, the file over\n\
         the default. `BACKSTAY_POLICY__RPO=5s` in the environment is `rpo` in `[policy]`; on the command line it is\n\
         `--set policy.rpo=5s`. Relative paths lie beside the file.\n\n\
         A duration is written `\"15m\"` or `\"1h30m\"`; a secret `{ file = \"/run/secrets/orders\" }` or\n\
         `{ env = \"ORDERS_PASSWORD\" }`, never as text.\n",
    );
    for name in ["repository", "instance", "policy", "dump", "drill"] {
        let Some((_, shape)) = root.properties().find(|(key, _)| *key == name) else { continue };
        match shape.values() {
            Some(each) => {
                heading(&mut out, 2, "[instance.NAME]", shape.description());
                for form in each.forms() {
                    let Some(engine) = form.engine() else { continue };
                    heading(&mut out, 3, &format!("engine = \"{engine}\""), form.description());
                    table(&mut out, form);
                }
            }
            None => {
                heading(&mut out, 2, &format!("[{name}]"), shape.description());
                table(&mut out, shape);
            }
        }
    }
    out
}

fn heading(out: &mut String, level: usize, title: &str, text: &str) {
    let _ = write!(out, "\n{} `{title}`\n\n{}\n\n", "#".repeat(level), one_line(text));
}

fn table(out: &mut String, section: Shape<'_>) {
    out.push_str("| key | default | meaning |\n|---|---|---|\n");
    rows(out, section, "");
}

fn rows(out: &mut String, section: Shape<'_>, prefix: &str) {
    for form in section.forms() {
        for (name, shape) in form.properties() {
            if name == "engine" {
                continue;
            }
            let default = match shape.default() {
                Some(value) if !value.is_object() => format!("`{value}`"),
                _ if form.requires(name) => "required".to_owned(),
                _ => "–".to_owned(),
            };
            // In a table it would end the cell, within code as well.
            let meaning = one_line(shape.description()).replace('|', "\\|");
            let _ = writeln!(out, "| `{prefix}{name}` | {default} | {meaning} |");
            if matches!(name, "keep" | "archive") || prefix == "keep." {
                rows(out, shape, &format!("{prefix}{name}."));
            }
        }
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
