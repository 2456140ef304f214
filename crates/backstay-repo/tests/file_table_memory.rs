//! A backup of very many small files takes no more memory than one of a few.
//!
//! One test in a process of its own: it looks at the most memory that the process
//! ever had.

#![allow(clippy::unwrap_used, reason = "functions of a test that are not tests themselves")]

use std::sync::Arc;

use backstay_model::error::Fault;
use backstay_model::parts::{ExtentData, ExtentReader, FileShape, FileSpec, PartKind, PartSource, Step};
use backstay_model::{EngineKind, Progress};
use backstay_repo::init::{InitOptions, init};
use backstay_repo::repo::{Parameters, Repo};
use backstay_repo::store::DiskStore;
use backstay_repo::writer::{RecordDraft, WriterOptions};
use tokio_util::sync::CancellationToken;

/// Without a bound their records alone take 250 bytes each: 60 MB.
const MANY: u32 = 250_000;
const FEW: u32 = 2_000;
/// 8 MiB of records, as much again while the buffer grows, and little else.
const GROWTH_KIB: u64 = 20 << 10;

/// Files of sixteen bytes in an order that has nothing to do with their paths.
struct TinyFiles {
    next: u32,
    count: u32,
    begun: bool,
}

struct Number(u32);

impl ExtentReader for Number {
    fn read(self: Box<Self>, buffer: &mut Vec<u8>) -> Result<(), Fault> {
        buffer.clear();
        buffer.extend_from_slice(format!("{:016}", self.0).as_bytes());
        Ok(())
    }
}

impl PartSource for TinyFiles {
    fn next(&mut self) -> Result<Option<Step>, Fault> {
        if self.next == self.count {
            return Ok(None);
        }
        // Odd, so that every number comes once.
        let number = self.next.wrapping_mul(0x9e37_79b1);
        self.begun = !self.begun;
        if self.begun {
            let kind = PartKind::File(FileShape { size: 16, block_size: 8192 });
            let path = format!("base/{}/{number:010}_with_a_name_of_some_length", number % 512);
            let spec = FileSpec { path, kind, mode: 0o600, user_id: 26, group_id: 26, modified: 1 };
            return Ok(Some(Step::Begin(spec)));
        }
        self.next += 1;
        Ok(Some(Step::Extent { offset: 0, length: 16, data: ExtentData::Read(Box::new(Number(number))) }))
    }
}

fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

async fn backup(repo: &Arc<Repo>, count: u32) {
    let now = "2026-11-21T02:43:00Z".parse().unwrap();
    let options = WriterOptions {
        lanes: 2,
        compression_level: 1,
        verify: false,
        damaged_packs: Default::default(),
        sequence: 1,
    };
    let mut writer = repo.begin_backup(&"orders".parse().unwrap(), None, now, options).await.unwrap();
    let source = TinyFiles { next: 0, count, begun: false };
    let progress = Arc::new(Progress::default());
    writer.copy(Box::new(source), progress, &CancellationToken::new()).await.unwrap();
    let draft = RecordDraft {
        engine: EngineKind::Postgresql,
        finished_at: now,
        start_position: None,
        stop_position: None,
        engine_version: "17".to_owned(),
        facts: serde_json::Value::Null,
        findings: Vec::new(),
    };
    let record = writer.commit(draft).await.unwrap();
    assert_eq!(record.statistics.files, u64::from(count));
}

#[test]
fn many_small_files_take_no_more_memory_than_a_few() {
    let place = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let store = Arc::new(DiskStore::new(place.path().join("repository")));
        let now = "2026-11-21T02:43:00Z".parse().unwrap();
        let made = init(&*store, &InitOptions { slots: Vec::new(), now }).await.unwrap();
        let keys = made.repository.seal_keys();
        let repo = Repo::from_parts(store, keys, Parameters::default());
        let repo = Arc::new(repo.with_catalogue(&place.path().join("cache")));
        backup(&repo, FEW).await;
        let before = peak_kib();
        backup(&repo, MANY).await;
        let grown = peak_kib() - before;
        assert!(grown < GROWTH_KIB, "{MANY} files took {grown} KiB more than {FEW}");
    });
}
