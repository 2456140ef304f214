//! The words of the program's own help.

use insta::assert_snapshot;

use super::program::{backstay, run};

#[test]
fn the_help_of_the_program_and_of_every_verb() {
    let mut text = String::new();
    for words in [
        "",
        "init",
        "config",
        "config check",
        "config show",
        "backup",
        "export",
        "list",
        "show",
        "status",
        "verify",
        "restore",
        "drill",
        "expire",
        "hold",
        "hold add",
        "hold remove",
        "collect",
        "key",
        "key add",
        "key remove",
        "key rotate",
        "completions",
    ] {
        let ran = run(backstay().args(words.split_whitespace()).arg("--help"));
        assert_eq!(ran.code, 0, "{ran:#?}");
        text.push_str(&format!("$ backstay {words} --help\n{}\n", ran.out));
    }
    assert_snapshot!(text);
}

#[test]
fn the_manual_page_and_the_completions_name_every_verb() {
    let verbs = [
        "init",
        "config",
        "backup",
        "export",
        "list",
        "show",
        "status",
        "verify",
        "restore",
        "drill",
        "expire",
        "hold",
        "collect",
        "key",
        "completions",
    ];
    let man = run(backstay().arg("man")).good();
    assert!(man.out.starts_with(".ie"), "{}", &man.out[..40.min(man.out.len())]);
    for verb in verbs {
        assert!(
            man.out.contains(&format!("BACKSTAY {}", verb.to_uppercase())),
            "{verb} is not in the manual page"
        );
    }
    for shell in ["bash", "zsh", "fish"] {
        let script = run(backstay().args(["completions", shell])).good();
        assert!(verbs.iter().all(|verb| script.out.contains(verb)), "{shell}");
    }
}

#[test]
fn wrong_arguments_end_with_2_and_with_json_are_a_document() {
    let ran = run(backstay().args(["restore", "orders"]));
    assert_eq!(ran.code, 2, "{ran:#?}");
    assert!(ran.err.contains("--into <DIR>"), "{ran:#?}");
    for words in
        [["list", "--jsno", "--json"], ["verify", "--level=all", "--json"], ["expire", "--as-of=1", "--json"]]
    {
        let ran = run(backstay().args(words));
        assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{ran:#?}");
        let told: serde_json::Value = serde_json::from_str(&ran.err).unwrap();
        assert_eq!(told["error"]["kind"], "invalid");
        assert!(told["error"]["message"].as_str().unwrap().contains(words[1].split('=').next().unwrap()));
    }
}

#[test]
fn verbs_of_later_versions_are_not_shown() {
    let help = run(backstay().arg("--help")).good().out;
    for later in ["serve", "copy"] {
        assert!(!help.lines().any(|line| line.trim_start().starts_with(&format!("{later} "))), "{later}");
        assert_eq!(run(backstay().arg(later)).code, 2);
    }
}
