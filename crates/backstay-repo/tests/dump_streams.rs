//! Streams of any length go through our ciphers and those of `openssl` and `gpg`, both
//! ways, in memory that does not grow with them.
//!
//! One test in a process of its own: it looks at the most memory that the process ever had.
//! Nothing is stored: the shelf is a pipe to the other program, or from it. The stream has
//! 256 MiB, and any other length with `BACKSTAY_STREAM_MIB=5120`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "functions of a test that are not tests themselves")]

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use aws_lc_rs::digest::{Context, SHA256};
use backstay_model::Secret;
use backstay_model::dump::{DumpCipher, DumpCompression, DumpFormat, DumpShape};
use backstay_repo::dump::{DumpReader, DumpRecipe, DumpWriter};
use backstay_repo::shelf::{Shelf, ShelfFile, ShelfListing, ShelfLock, ShelfPath, ShelfUpload};
use backstay_repo::store::{StoreError, Upload};
use bytes::Bytes;
use jiff::Timestamp;
use testkit::require_programs;
use tokio::sync::Mutex;

const PIECE_BYTES: usize = 1 << 20;
const USUAL_MIB: u64 = 256;
/// What was promised for dumps of any length.
const MOST_KIB: u64 = 100 << 10;
const PHRASE: &str = "correct horse";

/// A line of shell, of which one end is ours.
fn shell(line: &str) -> Child {
    let mut command = Command::new("sh");
    command.args(["-c", line]).stdin(Stdio::piped()).stdout(Stdio::piped());
    command.spawn().unwrap()
}

/// A shelf with one file: what is written to it goes into a program, what is read from it
/// comes out of one, in order and once.
#[derive(Debug)]
struct Pipe {
    stored_bytes: u64,
    program: Mutex<Option<Child>>,
    output: Mutex<Option<ChildStdout>>,
}

impl Pipe {
    fn to(program: Child) -> Pipe {
        Pipe { stored_bytes: 0, program: Mutex::new(Some(program)), output: Mutex::new(None) }
    }

    fn from(mut program: Child, stored_bytes: u64) -> Pipe {
        let output = program.stdout.take();
        Pipe { stored_bytes, program: Mutex::new(Some(program)), output: Mutex::new(output) }
    }
}

struct IntoProgram {
    input: Option<ChildStdin>,
    written_bytes: u64,
}

#[async_trait]
impl Upload for IntoProgram {
    async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        self.written_bytes += bytes.len() as u64;
        let mut input = self.input.take().unwrap();
        let written = tokio::task::spawn_blocking(move || {
            input.write_all(&bytes).unwrap();
            input
        });
        self.input = Some(written.await.unwrap());
        Ok(())
    }

    async fn commit(&mut self) -> Result<u64, StoreError> {
        self.input = None;
        Ok(self.written_bytes)
    }

    async fn abort(&mut self) -> Result<(), StoreError> {
        self.input = None;
        Ok(())
    }
}

#[async_trait]
impl ShelfUpload for IntoProgram {
    async fn rename(&mut self, path: &ShelfPath) -> Result<(), StoreError> {
        nothing(path)
    }
}

fn nothing<T>(path: &ShelfPath) -> Result<T, StoreError> {
    Err(StoreError::NotFound { object: path.to_string() })
}

#[async_trait]
impl Shelf for Pipe {
    fn location(&self) -> &str {
        "a pipe"
    }

    async fn create(&self, _path: &ShelfPath) -> Result<Box<dyn ShelfUpload>, StoreError> {
        let input = self.program.lock().await.as_mut().unwrap().stdin.take();
        Ok(Box::new(IntoProgram { input, written_bytes: 0 }))
    }

    async fn read_range(&self, _path: &ShelfPath, _offset: u64, length: u64) -> Result<Bytes, StoreError> {
        let mut output = self.output.lock().await;
        let mut pipe = output.take().unwrap();
        let read = tokio::task::spawn_blocking(move || {
            let mut bytes = vec![0; usize::try_from(length).unwrap()];
            pipe.read_exact(&mut bytes).unwrap();
            (pipe, bytes)
        });
        let (pipe, bytes) = read.await.unwrap();
        *output = Some(pipe);
        Ok(bytes.into())
    }

    async fn head(&self, path: &ShelfPath) -> Result<ShelfFile, StoreError> {
        Ok(ShelfFile { path: path.clone(), size_bytes: self.stored_bytes, modified: None })
    }

    async fn get(&self, path: &ShelfPath, _max_bytes: u64) -> Result<Bytes, StoreError> {
        nothing(path)
    }

    async fn put_if_absent(&self, path: &ShelfPath, _bytes: Bytes) -> Result<(), StoreError> {
        nothing(path)
    }

    async fn replace(&self, path: &ShelfPath, _bytes: Bytes) -> Result<(), StoreError> {
        nothing(path)
    }

    async fn link(&self, from: &ShelfPath, _to: &ShelfPath) -> Result<(), StoreError> {
        nothing(from)
    }

    async fn point(&self, name: &ShelfPath, _target: &ShelfPath) -> Result<(), StoreError> {
        nothing(name)
    }

    async fn list(&self, _under: Option<&ShelfPath>) -> Result<Box<dyn ShelfListing>, StoreError> {
        panic!("nobody lists a pipe");
    }

    async fn delete(&self, path: &ShelfPath) -> Result<(), StoreError> {
        nothing(path)
    }

    async fn lock(&self) -> Result<ShelfLock, StoreError> {
        Ok(ShelfLock { held: None })
    }

    async fn sweep_unfinished(&self, _written_before: Timestamp) -> Result<u64, StoreError> {
        Ok(0)
    }
}

/// Pieces of noise, no two alike, after a head by which a dump is known.
struct Pieces {
    noise: Bytes,
    number: u64,
    count: u64,
}

impl Pieces {
    fn of(count: u64) -> Pieces {
        let mut state = 1u64;
        let mut noise = Vec::with_capacity(PIECE_BYTES);
        while noise.len() < PIECE_BYTES {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            noise.extend_from_slice(&(state >> 16).to_le_bytes()[..4]);
        }
        Pieces { noise: noise.into(), number: 0, count }
    }
}

impl Iterator for Pieces {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.number == self.count {
            return None;
        }
        let mut piece = self.noise.to_vec();
        piece[4096..4104].copy_from_slice(&self.number.to_le_bytes());
        if self.number == 0 {
            piece[..5].copy_from_slice(b"PGDMP");
        }
        self.number += 1;
        Some(piece.into())
    }
}

fn digest_of(count: u64) -> String {
    let mut sum = Context::new(&SHA256);
    Pieces::of(count).for_each(|piece| sum.update(&piece));
    hex::encode(sum.finish())
}

fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Through our cipher into the program; the digest of what came out of that.
async fn ours_to(line: &str, cipher: DumpCipher, count: u64) -> String {
    let pipe = Pipe::to(shell(&format!("{line} | sha256sum")));
    let shape = DumpShape { format: DumpFormat::Custom, compression: DumpCompression::None, cipher };
    let recipe = DumpRecipe { shape, level: None, workers: 2 };
    let path: ShelfPath = "orders.dump".parse().unwrap();
    let mut writer = DumpWriter::begin(&pipe, &path, &recipe, Some(&Secret::new(PHRASE))).await.unwrap();
    for piece in Pieces::of(count) {
        writer.write(piece).await.unwrap();
    }
    let mut finished = writer.finish().await.unwrap();
    assert_eq!(finished.commit().await.unwrap().raw_bytes, count * PIECE_BYTES as u64);
    let program = pipe.program.lock().await.take().unwrap();
    let output = tokio::task::spawn_blocking(move || program.wait_with_output().unwrap()).await.unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap().split_whitespace().next().unwrap().to_owned()
}

/// The pieces through a line of shell, whose other end is handed on.
fn feed(line: &str, count: u64) -> (Child, std::thread::JoinHandle<()>) {
    let mut program = shell(line);
    let mut input = program.stdin.take().unwrap();
    let feeding = std::thread::spawn(move || {
        Pieces::of(count).for_each(|piece| input.write_all(&piece).unwrap());
    });
    (program, feeding)
}

/// Through the program into our reader; the digest of what came out of that.
async fn theirs(line: &str, stored_bytes: u64, count: u64) -> String {
    let (program, feeding) = feed(line, count);
    let pipe: Arc<dyn Shelf> = Arc::new(Pipe::from(program, stored_bytes));
    let path: ShelfPath = "theirs".parse().unwrap();
    let mut reader = DumpReader::open(&pipe, &path, Some(&Secret::new(PHRASE))).await.unwrap();
    let mut sum = Context::new(&SHA256);
    while let Some(chunk) = reader.read().await.unwrap() {
        sum.update(&chunk);
    }
    assert_eq!(reader.finish().await.unwrap().raw_bytes, count * PIECE_BYTES as u64);
    feeding.join().unwrap();
    hex::encode(sum.finish())
}

/// How much comes out of a program for so much: OpenPGP does not say it beforehand.
fn measured(line: &str, count: u64) -> u64 {
    let (program, feeding) = feed(&format!("{line} | wc -c"), count);
    let output = program.wait_with_output().unwrap();
    feeding.join().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
}

#[test]
fn a_stream_of_any_length_goes_through_every_cipher_both_ways_in_the_same_memory() {
    if !require_programs(&["openssl", "gpg", "gpg-agent"]) {
        return;
    }
    let wanted = std::env::var("BACKSTAY_STREAM_MIB").ok().and_then(|text| text.parse().ok());
    let count: u64 = wanted.unwrap_or(USUAL_MIB);
    if wanted.is_none() {
        println!("SKIPPED: 5 GiB, which BACKSTAY_STREAM_MIB=5120 asks for; these are {USUAL_MIB} MiB");
    }
    let private = std::fs::Permissions::from_mode(0o700);
    let home = tempfile::Builder::new().prefix("gpg").permissions(private).tempdir_in("/tmp").unwrap();
    let place = home.path().display();
    std::fs::write(home.path().join("p"), PHRASE).unwrap();
    let gpg =
        format!("gpg --homedir {place} --batch --quiet --pinentry-mode loopback --passphrase-file {place}/p");
    let openssl = format!("openssl enc -aes-256-cbc -pbkdf2 -iter 100000 -pass file:{place}/p");
    let expected = digest_of(count);
    let bytes = count * PIECE_BYTES as u64;
    // Sixteen of the header, and the padding, which a whole last block has as well.
    let sealed_bytes = 16 + bytes + 16;
    let gpg_seals = format!("{gpg} --symmetric --cipher-algo AES256 -z 0");
    let gpg_bytes = measured(&gpg_seals, count);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let told = |way: &str, begun: Instant, digest: String| {
        let seconds = begun.elapsed().as_secs_f64();
        let peak = peak_kib();
        println!(
            "{way}: {count} MiB in {seconds:.1} s, {:.0} MiB/s, peak {:.1} MiB",
            count as f64 / seconds,
            peak as f64 / 1024.0
        );
        assert_eq!(digest, expected, "{way}");
        assert!(peak < MOST_KIB, "{way} took {peak} KiB");
    };
    runtime.block_on(async {
        let begun = Instant::now();
        told("ours to openssl", begun, ours_to(&format!("{openssl} -d"), DumpCipher::Openssl, count).await);
        let begun = Instant::now();
        told("ours to gpg", begun, ours_to(&format!("{gpg} --decrypt"), DumpCipher::Openpgp, count).await);
        let begun = Instant::now();
        told("openssl to ours", begun, theirs(&openssl, sealed_bytes, count).await);
        let begun = Instant::now();
        told("gpg to ours", begun, theirs(&gpg_seals, gpg_bytes, count).await);
    });
    let agent =
        Command::new("gpgconf").arg("--homedir").arg(home.path()).args(["--kill", "gpg-agent"]).status();
    assert!(agent.is_ok());
}
