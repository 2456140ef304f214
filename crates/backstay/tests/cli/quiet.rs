//! `--quiet`: a job of every night has nothing to say when it went well, and says
//! what did not.

use super::program::{Home, protected};

#[test]
fn work_that_went_well_is_done_without_a_word() {
    let Some((server, home)) = protected("orders") else { return };
    let store = format!("file://{}", home.path("another-store").display());
    let config = home.path("another.toml");
    let jobs: [&[&str]; 8] = [
        &["init", "--store", &store, "--config", config.to_str().unwrap()],
        &["config", "check"],
        &["config", "check", "--connect"],
        &["backup"],
        &["backup"],
        &["drill"],
        &["expire"],
        &["collect"],
    ];
    for job in jobs {
        let ran = home.run(job.iter().chain(&["--quiet"])).good();
        assert_eq!((ran.out.as_str(), ran.err.as_str()), ("", ""), "{job:?}");
    }
    // What was asked for is printed all the same, and a program gets its document.
    assert_eq!(home.backups().len(), 2);
    assert!(home.run(["list", "--quiet"]).good().out.contains("orders"));
    assert!(home.run(["expire", "--dry-run", "--quiet"]).good().out.contains("stays"));
    assert_eq!(home.run(["backup", "--quiet", "--json"]).good().json()[0]["instance"], "orders");
    drop(server);
    home.run(["backup", "--quiet"]).refused(6, &["connect to the server"]);
}

#[test]
fn a_quiet_check_and_a_quiet_backup_say_what_is_not_as_it_should_be() {
    let Some((_server, home)) = protected("orders") else { return };
    let text = std::fs::read_to_string(home.config()).unwrap();
    let lost: String = text
        .lines()
        .map(|line| match line.starts_with("data_directory") {
            true => "data_directory = \"/nowhere\"\n".to_owned(),
            false => format!("{line}\n"),
        })
        .collect();
    std::fs::write(home.config(), lost).unwrap();
    let ran = home.run(["backup", "--quiet"]).good();
    assert!(ran.out.contains("warning: /nowhere") && ran.out.starts_with("orders: backup "), "{ran:#?}");
    std::fs::remove_file(home.path("orders.password")).unwrap();
    let ran = home.run(["config", "check", "--quiet"]);
    assert!(ran.code != 0 && ran.out.contains("instance orders: WRONG"), "{ran:#?}");
}

#[test]
fn a_refusal_of_init_is_told_in_silence_too() {
    let home = Home::new();
    home.init();
    home.run(["init", "--quiet", "--store", &home.store_url()]).refused(4, &["exists"]);
}
