//! House rules that a compiler does not know, checked over the text of every file.
//!
//! Each rule is a pure function from a path and a text to complaints; the last
//! test shows each of them a text it must complain about.
#![allow(clippy::unwrap_used, reason = "a test reports by panicking, also in its helpers")]

#[path = "tidy/rules.rs"]
mod rules;

use std::fs;
use std::path::{Path, PathBuf};

use rules::Source;

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().to_owned()
}

/// Every text file of the project, with its path relative to the root.
fn sources() -> Vec<Source> {
    let root = project();
    let mut found = Vec::new();
    let mut directories = vec![root.clone()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let hidden = name.starts_with('.') && ![".ci", ".cargo", ".config"].contains(&name.as_str());
            if hidden || ["target", "__pycache__", "Cargo.lock"].contains(&name.as_str()) {
                continue;
            }
            if path.is_dir() {
                directories.push(path);
            } else if let Ok(text) = fs::read_to_string(&path) {
                let relative = path.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
                found.push(Source { path: relative, text });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(found.iter().any(|source| source.path == "Cargo.toml"), "this is not the project");
    assert!(found.len() > 30, "only {} files were found", found.len());
    found
}

type Rule = fn(&Source) -> Vec<String>;

fn assert_tidy(rule: Rule) {
    let complaints: Vec<String> = sources().iter().flat_map(rule).collect();
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn no_file_is_longer_than_500_lines() {
    assert_tidy(rules::length);
}

#[test]
fn inline_tests_move_out_at_200_lines() {
    assert_tidy(rules::inline_tests);
}

#[test]
fn modules_are_named_after_what_they_are() {
    assert_tidy(rules::names);
}

#[test]
fn every_module_says_first_what_it_is_for() {
    assert_tidy(rules::module_doc);
}

#[test]
fn no_test_sleeps() {
    assert_tidy(rules::sleep);
}

#[test]
fn nothing_is_left_to_do() {
    assert_tidy(rules::leftovers);
}

#[test]
fn every_exception_has_a_reason() {
    assert_tidy(rules::allowances);
}

#[test]
fn no_machine_of_a_developer_is_named() {
    assert_tidy(rules::machine_paths);
}

#[test]
fn files_are_renamed_only_where_it_is_done_durably() {
    assert_tidy(rules::renames);
}

#[test]
fn model_touches_nothing_outside() {
    assert_tidy(rules::pure_model);
}

#[test]
fn an_error_never_prints_its_source_as_its_own_text() {
    assert_tidy(rules::doubled_errors);
}

#[test]
fn links_between_documents_lead_somewhere() {
    let root = project();
    let mut dead = Vec::new();
    for source in sources().iter().filter(|source| source.path.ends_with(".md")) {
        for link in rules::links(&source.text) {
            let place = root.join(&source.path).parent().unwrap().join(&link);
            if !place.exists() {
                dead.push(format!("{}: {link} is not there", source.path));
            }
        }
    }
    assert!(dead.is_empty(), "\n{}", dead.join("\n"));
}

#[test]
fn each_rule_sees_what_it_forbids() {
    let long = "// line\n".repeat(501);
    let inline = format!("//! Doc.\n#[cfg(test)]\nmod tests {{\n{}}}\n", "    fn f() {}\n".repeat(200));
    let sleeping = "//! Doc.\n#[cfg(test)]\nmod tests {\n    fn f() { std::thread::sleep(x); }\n}\n";
    let cases: [(Rule, &str, &str); 18] = [
        (rules::length, "crates/a/src/x.rs", &long),
        (rules::length, "rescue/x.py", &long),
        (rules::inline_tests, "crates/a/src/x.rs", &inline),
        (rules::names, "crates/a/src/x/mod.rs", ""),
        (rules::names, "crates/a/src/utils.rs", ""),
        (rules::names, "crates/a/src/job_manager.rs", ""),
        (rules::names, "crates/a/src/helpers/x.rs", ""),
        (rules::module_doc, "crates/a/src/x.rs", "use std::fs;\n"),
        (rules::sleep, "crates/a/src/x.rs", sleeping),
        (rules::sleep, "crates/a/tests/x.rs", "fn f() { tokio::time::sleep(x).await; }\n"),
        (rules::leftovers, "crates/a/src/x.rs", concat!("// TO", "DO: finish\n")),
        (rules::leftovers, "docs/x.md", concat!("FIX", "ME\n")),
        (rules::allowances, "crates/a/src/x.rs", "#[allow(dead_code)]\nfn f() {}\n"),
        (rules::allowances, "crates/a/src/x.rs", "#![allow(\n    dead_code\n)]\n"),
        (rules::machine_paths, "docs/x.md", concat!("see /wo", "rk/main\n")),
        (rules::renames, "crates/a/src/x.rs", concat!("std::fs::ren", "ame(a, b)?;\n")),
        (rules::pure_model, "crates/backstay-model/src/x.rs", "use std::fs;\n"),
        (rules::doubled_errors, "crates/a/src/error.rs", concat!("#[error(\"{", "0}\")]\nA(#[source] E),\n")),
    ];
    for (rule, path, text) in cases {
        let source = Source { path: path.to_owned(), text: text.to_owned() };
        assert!(!rule(&source).is_empty(), "nothing was said of {path}: {text:.80}");
    }
    let text =
        "[a](x.md#part) `[no](code)` [b](https://example.org) [c](#here) ![d](y.svg)\n```\n[e](z)\n```\n";
    assert_eq!(rules::links(text), ["x.md", "y.svg"]);
}
