//! What base backups are too large for: one table that somebody emptied, and one database
//! of a server that is spoiled while the others are well. A portable dump gives both back.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use testkit::Postgres;

use super::story::Story;
use crate::backstay::Backstay;

/// May make databases, and things that belong to others.
const ROLE: &str = "restorer";
const PASSWORD: &str = "only-for-this-demo";
const ROWS: &str =
    "SELECT concat_ws(' orders of ', count(*), count(DISTINCT customer)) || ' customers' FROM orders";

pub fn give_back(story: &mut Story, backstay: &Backstay, server: &Postgres, place: &Path) -> Result<()> {
    server.create_role(ROLE, PASSWORD, "SUPERUSER")?;
    server.sql("GRANT pg_read_all_data TO backstay")?;
    server.sql("CREATE DATABASE shop")?;
    server.sql_in(
        "shop",
        "CREATE TABLE customers (id int PRIMARY KEY);
         CREATE TABLE orders (id serial PRIMARY KEY, customer int REFERENCES customers, what text);
         INSERT INTO customers SELECT generate_series(1, 500);
         INSERT INTO orders (customer, what) SELECT 1 + g % 500, md5(g::text) FROM generate_series(1, 50000) g",
    )?;
    let before = server.query_value_in("shop", ROWS)?;
    let password = place.join("restorer.password");
    fs::write(&password, PASSWORD).context("write the password of the restorer")?;
    let dumps = format!("dump.to=file://{}", place.join("dumps").display());
    let programs = format!("instance.demo.bin_directory={}", server.installation().bin_directory().display());
    let settings = ["--set", &dumps, "--set", &programs];
    let (url, password) = (server.url_as(ROLE), password.to_string_lossy().into_owned());
    let restore = |words: &[&str]| {
        let to = ["--force", "--confirm", "shop", "--to-server", &url, "--password-file", &password];
        backstay.command(&[&settings[..], &["restore", "demo", "--database", "shop"], words, &to].concat())
    };

    story.show(&mut backstay.command(&[&settings[..], &["dump", "demo", "--database", "shop"]].concat()))?;
    server.sql_in("shop", "DELETE FROM orders WHERE customer <> 7")?;
    story.say(&format!("somebody forgot half of a WHERE: {} are left", server.query_value_in("shop", ROWS)?));
    server.sql_in("shop", "DELETE FROM orders")?;
    story.show(&mut restore(&["--into-database", "shop", "--table", "orders"]))?;
    let table = server.query_value_in("shop", ROWS)?;
    ensure!(table == before, "the table came back with {table}, and not with {before}");
    story.done(&format!("ok: {table} again"));

    server.sql_in("shop", "DROP TABLE orders, customers")?;
    story.say("then a migration went wrong: the tables are gone");
    story.show(&mut restore(&["--swap", "shop"]))?;
    let database = server.query_value_in("shop", ROWS)?;
    ensure!(database == before, "the database came back with {database}, and not with {before}");
    story.done(&format!("ok: {database} again, and the spoiled database is kept until it is dropped"));
    Ok(())
}
