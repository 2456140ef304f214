//! The database that is backed up: filled once, then changed by a rule that any
//! run repeats.

use std::path::Path;

use anyhow::{Context, Result};
use testkit::{Installation, Postgres, PostgresOptions, Workspace};

/// Part of all pages that is changed before an increment.
pub const CHANGED_PART: f64 = 0.04;

/// Pages of pgbench's accounts at this fill factor have room for a new version of
/// a row, so that an update changes its own page and nothing else.
const FILL_FACTOR: u32 = 90;

/// What one unit of scale comes to at that fill factor, measured.
const MEBIBYTES_PER_SCALE: f64 = 16.5;

const PAGE_BYTES: u64 = 8192;

pub struct Cluster {
    pub server: Postgres,
    pages: u64,
    heap_pages: u64,
}

impl Cluster {
    /// Fills a new cluster. Nothing runs in it by itself: what changes, changes by our rule.
    pub fn fill(below: &Path, installation: &Installation, size_mib: u64) -> Result<Cluster> {
        let options = PostgresOptions::default()
            .configure("fsync = on")
            .configure("shared_buffers = 256MB")
            .configure("max_wal_size = 4GB")
            .configure("checkpoint_timeout = 1h")
            .configure("autovacuum = off")
            .configure("summarize_wal = on")
            // Recycled segments hold nothing; those who copy files should not pay for them.
            .configure("wal_recycle = off")
            // Archiving is what pgBackRest needs; it begins when it has a repository.
            .configure("archive_mode = on")
            .configure("archive_command = '/bin/true'");
        let server = Postgres::start_in(Workspace::below(below)?, installation, &options)?;
        let scale = (size_mib as f64 / MEBIBYTES_PER_SCALE).round().max(1.0);
        let mut fill = server.tool("pgbench");
        fill.args([
            "--initialize",
            "--quiet",
            &format!("--scale={scale}"),
            &format!("--fillfactor={FILL_FACTOR}"),
        ]);
        crate::process::run_quietly(&mut fill).context("fill the cluster")?;
        // pgbench begins with a balance of zero everywhere, which compresses to nothing;
        // this rewrites the table as that of a bank that has been open for a while.
        server.sql(
            "ALTER TABLE pgbench_accounts ALTER COLUMN abalance TYPE int USING hashint4(aid) % 100000",
        )?;
        server.sql("VACUUM FREEZE; CHECKPOINT; SELECT pg_switch_wal(); CHECKPOINT")?;
        let bytes: u64 =
            server.query_value("SELECT sum(pg_database_size(oid))::bigint FROM pg_database")?.parse()?;
        let heap: u64 = server.query_value("SELECT pg_relation_size('pgbench_accounts')")?.parse()?;
        Ok(Cluster { server, pages: bytes / PAGE_BYTES, heap_pages: heap / PAGE_BYTES })
    }

    pub fn bytes(&self) -> u64 {
        self.pages * PAGE_BYTES
    }

    /// Updates one row in each of the chosen pages and writes them out. Pages are
    /// chosen by a hash of their number and the round: scattered, and the same in
    /// every run. Returns how many were changed.
    pub fn change(&self, round: u32) -> Result<u64> {
        const DENOMINATOR: u64 = 1 << 20;
        let part = CHANGED_PART * self.pages as f64 / self.heap_pages as f64;
        let threshold = (part * DENOMINATOR as f64).round();
        let changed = self.server.query_value(&format!(
            "WITH changed AS (
                 UPDATE pgbench_accounts SET abalance = abalance + 1
                 WHERE (ctid::text::point)[1] = 1
                   AND hashint8extended((ctid::text::point)[0]::bigint, {round}) & {} < {threshold}
                 RETURNING 1)
             SELECT count(*) FROM changed",
            DENOMINATOR - 1
        ))?;
        // The next reader of a changed page prunes it, which changes it again: now,
        // and not in the next round.
        self.server.sql("SELECT count(*) FROM pgbench_accounts")?;
        self.settle()?;
        changed.parse().context("count the changed pages")
    }

    /// Leaves no work behind that the next measurement would pay for.
    pub fn settle(&self) -> Result<()> {
        self.server.sql("CHECKPOINT")?;
        rustix::fs::sync();
        Ok(())
    }
}
