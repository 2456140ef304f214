//! `backstay config`, by its effects.

use super::program::{Home, protected};

#[test]
fn init_writes_a_file_that_checks_and_says_what_comes_next() {
    let home = Home::new();
    let made = home.run(["init", "--store", &home.store_url()]).good();
    for step in ["next:", "fill in [instance.NAME]", "config check --connect", "backup", "drill"] {
        assert!(made.out.contains(step), "no {step:?} in {}", made.out);
    }
    assert!(home.path("backstay.recovery-kit/README.txt").exists());
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(home.path("backstay.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(home.run(["config", "check"]).good().out.contains("correct"));
    assert!(home.run(["config", "check", "--connect"]).good().out.contains(", encrypted"));
}

#[test]
fn show_says_where_each_value_comes_from_and_hides_secrets() {
    let home = Home::new();
    home.init();
    home.append(
        "[instance.orders]\nengine = 'postgresql'\nurl = 'postgresql://u@db/x'\npassword = { env = 'ORDERS' }\n",
    );
    let mut command = home.command(["config", "show", "--origin", "--set", "policy.rto=10m"]);
    command.env("BACKSTAY_POLICY__RPO", "5s").env("ORDERS", "hunter2");
    let shown = super::program::run(&mut command).good().out;
    let line = |key: &str| {
        let line = shown.lines().find(|line| line.starts_with(&format!("{key} ")));
        line.unwrap_or_else(|| panic!("no {key} in {shown}")).split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(line("policy.rpo"), "policy.rpo 5s environment BACKSTAY_POLICY__RPO");
    assert_eq!(line("policy.rto"), "policy.rto 10m flag --set policy.rto");
    let written = std::fs::read_to_string(home.config()).unwrap();
    let keep = 1 + written.lines().position(|line| line.starts_with("keep = ")).unwrap();
    assert_eq!(line("policy.keep.daily"), format!("policy.keep.daily 14 backstay.toml line {keep}"));
    assert!(line("repository.compression_level").ends_with("2 default"));
    assert!(line("instance.orders.password").contains("**** from environment variable ORDERS"));
    assert!(!shown.contains("hunter2"));
}

#[test]
fn the_reference_and_the_schema_come_from_the_same_types() {
    let home = Home::new();
    let reference = home.run(["config", "reference"]).good().out;
    let schema = home.run(["config", "schema"]).good().json();
    for key in schema["properties"]["repository"]["properties"].as_object().unwrap().keys() {
        assert!(reference.contains(&format!("| `{key}` |")), "{key}");
    }
}

#[test]
fn a_list_is_the_same_with_and_without_a_catalogue() {
    let Some((_server, home)) = protected("orders") else { return };
    home.run(["backup"]).good();
    home.run(["backup"]).good();
    let list = |place: &[&str]| {
        let words: Vec<&str> = ["list", "--json"].iter().chain(place).copied().collect();
        home.run(words).good().out
    };
    let without = list(&["--set", "repository.catalogue=none"]);
    std::fs::remove_dir_all(home.path("caches/backstay")).unwrap();
    assert_eq!(list(&["--set", "repository.catalogue=none"]), without);
    assert!(!home.path("caches/backstay").exists());
    // Beside the file, built and then used.
    for _ in 0..2 {
        assert_eq!(list(&["--set", "repository.catalogue=mine"]), without);
    }
    assert!(home.path("mine").is_dir() && !home.path("caches/backstay").exists());
    // In the usual place, and in one where nothing can be made.
    for _ in 0..2 {
        assert_eq!(list(&[]), without);
    }
    assert!(home.path("caches/backstay").is_dir());
    assert_eq!(list(&["--set", "repository.catalogue=backstay.toml"]), without);
}
