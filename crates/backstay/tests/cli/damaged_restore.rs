//! A restore that meets a damaged object: what it offers does not need it, can be typed
//! as it stands, and the next verbs know.

use std::path::PathBuf;
use std::process::Command;

use testkit::Postgres;
use testkit::ownership;

use super::program::{Home, Ran, flip_a_bit, protected, run};

/// Backups of a server to which a table was added before each.
struct Taken {
    server: Postgres,
    home: Home,
    /// Oldest first, and the packs that each was the first to need.
    backups: Vec<String>,
    packs: Vec<Vec<PathBuf>>,
}

impl Taken {
    fn times(number: usize) -> Option<Taken> {
        let (server, home) = protected("orders")?;
        let mut taken = Taken { server, home, backups: Vec::new(), packs: Vec::new() };
        for _ in 0..number {
            taken.another(&[]);
        }
        Some(taken)
    }

    fn another(&mut self, more: &[&str]) {
        let table = format!("t{}", self.backups.len());
        let rows = "AS SELECT n, md5(n::text) FROM generate_series(1, 20000) AS n; CHECKPOINT";
        self.server.sql(&format!("CREATE TABLE {table} {rows}")).unwrap();
        let before = self.home.objects("/packs/");
        self.home.run(["backup", "orders"].iter().chain(more)).good();
        let new = self.home.objects("/packs/").into_iter().filter(|pack| !before.contains(pack));
        self.packs.push(new.collect());
        self.backups.push(self.home.backups().remove(0));
    }

    /// The largest pack that came with this backup is damaged from now on.
    fn spoil(&self, number: usize) -> String {
        let size = |pack: &&PathBuf| std::fs::metadata(pack).unwrap().len();
        let pack = self.packs[number].iter().max_by_key(size).unwrap();
        flip_a_bit(pack);
        pack.file_name().unwrap().to_str().unwrap().to_owned()
    }

    fn restore(&self, more: &[&str]) -> Ran {
        let into = self.home.path("restored");
        let words = ["restore", "orders", "--into", into.to_str().unwrap()];
        self.home.run(words.iter().chain(more))
    }

    fn state(&self, number: usize) -> String {
        let listed = self.home.run(["list"]).good().out;
        let line = listed.lines().find(|line| line.starts_with(&self.backups[number]));
        line.unwrap().to_owned()
    }

    fn follow(&self, ran: &Ran) -> Ran {
        follow(&self.home, ran)
    }
}

/// What a person does who types the command of the first hint.
pub fn follow(home: &Home, ran: &Ran) -> Ran {
    let hint = ran.err.lines().find_map(|line| line.strip_prefix("  hint: `")).unwrap();
    let line = hint.split('`').next().unwrap();
    let program = PathBuf::from(env!("CARGO_BIN_EXE_backstay"));
    let path = format!("{}:{}", program.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let template = home.command([""; 0]);
    let mut shell = Command::new("sh");
    shell.args(["-c", line]).env("PATH", path).current_dir(template.get_current_dir().unwrap());
    for (name, value) in template.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    run(&mut shell)
}

fn offers(ran: &Ran, backup: &str) -> bool {
    ran.err.contains(&format!("--backup {backup}"))
}

#[test]
fn damage_that_all_backups_share_is_met_once_and_no_backup_is_offered() {
    let Some(mut taken) = Taken::times(3) else { return };
    let pack = taken.spoil(0);
    let failed = taken.restore(&[]).refused(8, &[&pack, "no other backup of orders does without", "rm -r"]);
    assert!(!taken.backups.iter().any(|backup| offers(&failed, backup)), "{failed:#?}");
    for number in 0..3 {
        assert!(taken.state(number).contains("damaged, not proved"), "{}", taken.state(number));
    }
    // Nobody waits for the same end again.
    std::fs::remove_dir_all(taken.home.path("restored")).unwrap();
    taken.restore(&[]).refused(8, &[&pack, "no backup of it is sound"]);
    assert!(!taken.home.path("restored").exists());

    taken.another(&[]);
    let drilled = taken.home.run(["drill", "orders", "--json"]).good().json();
    assert_eq!(drilled[0]["backup"], *taken.backups[3]);
    taken.restore(&["--start"]).good();
}

#[test]
fn the_newest_backup_that_does_without_the_damaged_pack_is_offered_with_every_argument() {
    let Some((server, home)) = protected("orders") else { return };
    let mut taken = Taken { server, home, backups: Vec::new(), packs: Vec::new() };
    let place = taken.home.path("the fast one");
    std::fs::create_dir(&place).unwrap();
    ownership::server_owner().unwrap().take(&place).unwrap();
    taken.another(&[]);
    taken.server.sql(&format!("CREATE TABLESPACE fast LOCATION '{}'", place.display())).unwrap();
    taken.server.sql("CREATE TABLE apart TABLESPACE fast AS SELECT generate_series(1, 1000) AS n").unwrap();
    for _ in 0..3 {
        taken.another(&[]);
    }
    // The third and the fourth need a pack of the third.
    taken.spoil(2);
    let moved = taken.home.path("it's moved");
    let argument = format!("fast={}", moved.display());
    let failed =
        taken.restore(&["--tablespace", &argument, "--start"]).refused(8, &["the newest one before"]);
    assert!(offers(&failed, &taken.backups[1]), "{failed:#?}");
    assert!(!offers(&failed, &taken.backups[2]) && !offers(&failed, &taken.backups[0]), "{failed:#?}");
    assert!(taken.state(2).contains("damaged") && taken.state(3).contains("damaged"));
    assert!(!taken.state(0).contains("damaged") && !taken.state(1).contains("damaged"));
    let restored = taken.follow(&failed).good();
    assert!(restored.out.contains("proved: it started and answered"), "{restored:#?}");
    assert!(restored.out.contains(&taken.backups[1]), "{restored:#?}");
    assert!(std::fs::read_dir(&moved).unwrap().count() > 0);

    // The next backup builds on one that is whole, and stores the lost blocks again.
    taken.another(&[]);
    let shown = taken.home.run(["show", &taken.backups[4]]).good().out;
    assert!(shown.contains(&format!("compared with       {} ", taken.backups[1])), "{shown}");
    taken.home.run(["verify", &taken.backups[4]]).good();
    for place in ["restored", "it's moved"] {
        std::fs::remove_dir_all(taken.home.path(place)).unwrap();
    }
    let restored = taken.restore(&["--tablespace", &argument, "--start"]).good();
    assert!(restored.out.contains(&format!("from {}", taken.backups[4])), "{restored:#?}");

    // A backup from before there was the tablespace is offered without its argument.
    for place in ["restored", "it's moved"] {
        std::fs::remove_dir_all(taken.home.path(place)).unwrap();
    }
    taken.spoil(1);
    let failed = taken.restore(&["--backup", &taken.backups[1], "--tablespace", &argument]);
    let failed = failed.refused(8, &["the newest one before"]);
    assert!(offers(&failed, &taken.backups[0]) && !failed.err.contains("--tablespace"), "{failed:#?}");
    taken.follow(&failed).good();
}

#[test]
fn a_newer_backup_is_offered_where_no_older_one_does_without_the_damaged_pack() {
    let Some(mut taken) = Taken::times(2) else { return };
    taken.another(&["--full"]);
    taken.another(&[]);
    taken.spoil(0);
    let failed = taken.restore(&["--backup", &taken.backups[1]]).refused(8, &["the next one after"]);
    assert!(offers(&failed, &taken.backups[2]), "{failed:#?}");
    let restored = taken.follow(&failed).good();
    assert!(restored.out.contains(&taken.backups[2]), "{restored:#?}");
}

#[test]
fn what_a_plan_meets_is_noted_but_by_a_dry_run_and_shared_objects_are_not_offered() {
    let Some(taken) = Taken::times(3) else { return };
    for pack in &taken.packs[1] {
        std::fs::remove_file(pack).unwrap();
    }
    let newest = taken.backups[2].as_str();
    let refused = taken.restore(&["--backup", newest, "--dry-run"]);
    assert!(offers(&refused, &taken.backups[0]) && !offers(&refused, &taken.backups[1]), "{refused:#?}");
    assert!(!taken.state(1).contains("damaged"), "a dry run left a trace");
    let refused = taken.restore(&["--backup", newest]).refused(8, &["it is missing"]);
    assert!(offers(&refused, &taken.backups[0]), "{refused:#?}");
    assert!(taken.state(1).contains("damaged") && taken.state(2).contains("damaged"));
    let restored = taken.restore(&[]).good();
    assert!(restored.err.contains("this newer backup of orders is damaged"), "{restored:#?}");
    assert!(restored.out.contains(&taken.backups[0]), "{restored:#?}");
}
