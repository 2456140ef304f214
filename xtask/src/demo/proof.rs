//! Whether the restored database is the one that was protected.

use anyhow::{Context, Result, bail};
use testkit::Postgres;
use testkit::postgres::PgbenchSums;

use super::story::Story;

pub fn prove(
    story: &mut Story,
    server: &Postgres,
    accounts: &str,
    protected: PgbenchSums,
    restored: PgbenchSums,
) -> Result<()> {
    let counted = server.query_value("SELECT count(*) FROM pgbench_accounts")?;
    let mut checks = vec![
        ("rows of pgbench_accounts", accounts.to_owned(), counted),
        ("transactions", protected.transactions.to_string(), restored.transactions.to_string()),
        ("sum of the accounts", protected.accounts.to_string(), restored.accounts.to_string()),
        ("sum of the tellers", restored.accounts.to_string(), restored.tellers.to_string()),
        ("sum of the branches", restored.accounts.to_string(), restored.branches.to_string()),
        ("sum of the history", restored.accounts.to_string(), restored.history.to_string()),
    ];
    server.sql("CREATE EXTENSION IF NOT EXISTS amcheck")?;
    // Compares every index with its table; raises an error at the first difference.
    let indexes = server
        .query_value(
            "SELECT count(bt_index_check(c.oid, true)::text) FROM pg_class c JOIN pg_index i ON i.indexrelid = c.oid \
             WHERE c.relname LIKE 'pgbench%'",
        )
        .context("compare the indexes with their tables")?;
    checks.push(("indexes that agree with their tables", "3".to_owned(), indexes));
    let mut wrong = Vec::new();
    for (what, expected, found) in &checks {
        let verdict = if expected == found { "ok" } else { "WRONG" };
        story.say(&format!("{verdict:<6}{what}: {found}"));
        if expected != found {
            wrong.push(*what);
        }
    }
    if !wrong.is_empty() {
        bail!("the restored database differs in: {}", wrong.join(", "));
    }
    Ok(())
}
