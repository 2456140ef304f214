//! What `demo --keep` leaves, and the commands to go on with, as they can be typed.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use testkit::Postgres;
use testkit::ownership::{Owner, we_are_root};

use super::story::Story;
use crate::backstay::Backstay;
use crate::process::{quoted, run_quietly};

/// Gives the server and its workspace away.
pub fn go_on(story: &mut Story, server: Postgres, backstay: &Backstay, place: &Path) -> Result<()> {
    let word = |path: &Path| quoted(&path.to_string_lossy()).into_owned();
    let programs = backstay.program().parent().context("find the directory of the program")?;
    let stop = format!("pg_ctl -D {} -m fast stop", word(server.data_directory()));
    let stop = if we_are_root() {
        // PostgreSQL's programs refuse to be root.
        let owner = Owner::of(server.data_directory())?;
        let name = run_quietly(Command::new("id").arg("-nu").arg(owner.user_id.to_string()))?;
        format!("(cd / && runuser -u {} -- {stop})", name.trim())
    } else {
        stop
    };
    story.say("");
    story.say("The database and the repository are yours now:");
    story.quote(&format!(
        "export PATH={}:{}:$PATH BACKSTAY_CONFIG={}\n\
         psql -h {} -p {} -U postgres postgres\n\
         backstay archive & ARCHIVE=$!\n\
         backstay list\n\
         backstay backup\n\
         backstay status\n\
         backstay drill\n\
         backstay restore demo --into {} --start\n\n\
         # when you have seen enough:\n\
         kill -INT $ARCHIVE && wait $ARCHIVE\n\
         {stop}\n\
         rm -r {}",
        word(server.installation().bin_directory()),
        word(programs),
        word(backstay.configuration()),
        word(server.socket_directory()),
        server.port(),
        word(&place.join("another")),
        word(place),
    ));
    server.keep();
    Ok(())
}
