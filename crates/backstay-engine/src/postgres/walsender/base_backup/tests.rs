//! The stream of both protocol generations, spoken by a scripted server.

use std::time::Duration;

use bytes::{BufMut, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::*;
use crate::postgres::walsender::Limits;
use crate::postgres::walsender::wire::Wire;

/// A client and the script's end of its connection.
fn client(major: u32) -> (Walsender, DuplexStream) {
    let (server, client) = duplex(1 << 20);
    let limit = Duration::from_secs(5);
    let limits = Limits { statement: limit, backup_start: limit, silence: limit };
    let wire = Wire::new(Box::new(client));
    (Walsender { wire, limits, version: format!("{major}.1"), major, is_bound: false }, server)
}

#[derive(Default)]
struct Script(BytesMut);

impl Script {
    fn frame(mut self, tag: u8, payload: &[u8]) -> Self {
        self.0.put_u8(tag);
        self.0.put_u32(payload.len() as u32 + 4);
        self.0.put_slice(payload);
        self
    }

    /// A result set of one row.
    fn rows(self, rows: &[&[Option<&str>]]) -> Self {
        let mut script = self.frame(b'T', &[0, 0]);
        for row in rows {
            let mut payload = BytesMut::new();
            payload.put_u16(row.len() as u16);
            for value in *row {
                match value {
                    None => payload.put_i32(-1),
                    Some(text) => {
                        payload.put_i32(text.len() as i32);
                        payload.put_slice(text.as_bytes());
                    }
                }
            }
            script = script.frame(b'D', &payload);
        }
        script.frame(b'C', b"SELECT\0")
    }

    fn begun(self) -> Self {
        self.rows(&[&[Some("0/2000028"), Some("1")]])
            .rows(&[&[Some("16385"), Some("/space"), Some("10")], &[None, None, Some("20")]])
    }

    fn ended(self, timeline: &str) -> Self {
        self.rows(&[&[Some("0/2000138"), Some(timeline)]]).frame(b'C', b"SELECT\0").frame(b'Z', b"I")
    }

    fn error(self, code: &str, message: &str) -> Self {
        let payload = format!("SERROR\0C{code}\0M{message}\0\0");
        self.frame(b'E', payload.as_bytes()).frame(b'Z', b"I")
    }

    async fn play(self, server: &mut DuplexStream) {
        server.write_all(&self.0).await.unwrap();
    }
}

fn options(max_rate: Option<&str>) -> BackupOptions {
    let max_rate = max_rate.map(|rate| rate.parse().unwrap());
    BackupOptions { label: "it's".to_owned(), incremental: false, max_rate }
}

async fn begin(walsender: &mut Walsender) -> Result<BaseBackup> {
    walsender.begin_base_backup(&options(None)).await
}

async fn events(walsender: &mut Walsender, backup: &mut BaseBackup) -> Result<Vec<BackupEvent>> {
    let mut events = Vec::new();
    while let Some(event) = backup.next(walsender).await? {
        events.push(event);
    }
    Ok(events)
}

fn expected() -> Vec<BackupEvent> {
    vec![
        BackupEvent::Archive { tablespace: Some(16385) },
        BackupEvent::Content(Bytes::from_static(b"space")),
        BackupEvent::Archive { tablespace: None },
        BackupEvent::Content(Bytes::from_static(b"base")),
        BackupEvent::Manifest(Bytes::from_static(b"{}")),
    ]
}

#[tokio::test]
async fn one_copy_with_typed_frames_is_understood() {
    let (mut walsender, mut server) = client(15);
    let script = Script::default().begun().frame(b'H', &[0, 0, 0]);
    let script = script.frame(b'd', b"n16385.tar\0/space\0").frame(b'd', b"dspace");
    let script = script.frame(b'd', b"p\0\0\0\0\0\0\0\x05").frame(b'd', b"nbase.tar\0\0");
    let script = script.frame(b'd', b"dbase").frame(b'd', b"m").frame(b'd', b"d{}").frame(b'c', b"");
    script.ended("1").play(&mut server).await;
    let mut backup = begin(&mut walsender).await.unwrap();
    assert_eq!(backup.estimated_bytes(), 30 << 10);
    assert_eq!(events(&mut walsender, &mut backup).await.unwrap(), expected());
    assert_eq!(backup.stop().unwrap(), "0/2000138".parse().unwrap());
}

#[tokio::test]
async fn one_copy_per_archive_gives_the_same_events() {
    let (mut walsender, mut server) = client(13);
    let script = Script::default().begun();
    let script = script.frame(b'H', &[0, 0, 0]).frame(b'd', b"space").frame(b'c', b"");
    let script = script.frame(b'H', &[0, 0, 0]).frame(b'd', b"base").frame(b'c', b"");
    let script = script.frame(b'H', &[0, 0, 0]).frame(b'd', b"{}").frame(b'c', b"");
    script.ended("1").play(&mut server).await;
    let mut backup = begin(&mut walsender).await.unwrap();
    assert_eq!(events(&mut walsender, &mut backup).await.unwrap(), expected());
    let mut command = vec![0; 7];
    server.read_exact(&mut command).await.unwrap();
    server.read_buf(&mut command).await.unwrap();
    let text = String::from_utf8_lossy(&command[5..]).into_owned();
    assert!(text.starts_with("BASE_BACKUP LABEL 'it''s' PROGRESS FAST WAL NOWAIT"), "{text}");
}

#[test]
fn the_server_is_asked_for_a_rate_that_it_can_keep_to() {
    for (rate, asked) in [
        (None, None),
        (Some("1KiB"), None),
        (Some("32KiB"), Some(32)),
        (Some("1MB"), Some(977)),
        (Some("1GiB"), Some(1 << 20)),
        (Some("2GiB"), None),
    ] {
        for major in [13, 15, 18] {
            let text = command(major, &options(rate));
            let found = text.split_once("MAX_RATE ").map(|(_, rest)| {
                rest.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse::<u64>().unwrap()
            });
            assert_eq!(found, asked, "{rate:?}: {text}");
        }
    }
}

#[tokio::test]
async fn a_refusal_leaves_the_connection_for_the_next_command() {
    let (mut walsender, mut server) = client(17);
    Script::default().error("55000", "no").begun().play(&mut server).await;
    let refused = begin(&mut walsender).await.unwrap_err();
    assert!(matches!(refused, Error::Server { source, .. } if source.code == "55000"));
    assert!(begin(&mut walsender).await.is_ok());
}

#[tokio::test]
async fn a_missing_segment_of_the_log_is_named_in_any_language() {
    let (mut walsender, mut server) = client(16);
    let script = Script::default().begun().frame(b'H', &[0, 0, 0]);
    script.error("XX000", "WAL-Datei »000000010000000A000000FF« fehlt").play(&mut server).await;
    let mut backup = begin(&mut walsender).await.unwrap();
    match events(&mut walsender, &mut backup).await {
        Err(Error::WalMissing { segment }) => assert_eq!(segment, "000000010000000A000000FF"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_backup_that_ends_on_another_timeline_is_refused() {
    let (mut walsender, mut server) = client(15);
    Script::default().begun().frame(b'H', &[0, 0, 0]).frame(b'c', b"").ended("2").play(&mut server).await;
    let mut backup = begin(&mut walsender).await.unwrap();
    events(&mut walsender, &mut backup).await.unwrap();
    assert!(matches!(backup.stop(), Err(Error::Promoted { .. })));
}

#[tokio::test]
async fn warnings_in_the_stream_are_kept_and_other_notices_are_not() {
    let (mut walsender, mut server) = client(15);
    let refused = Script::default().frame(b'N', b"SWARNUNG\0VWARNING\0C01000\0Maborting\0\0");
    refused.error("55000", "no").play(&mut server).await;
    begin(&mut walsender).await.unwrap_err();
    let script = Script::default().frame(b'N', b"SHINWEIS\0VNOTICE\0C00000\0Marchiving is off\0\0").begun();
    let script = script.frame(b'H', &[0, 0, 0]);
    let script = script.frame(b'N', b"SWARNUNG\0VWARNING\0C01000\0Mskipping \"./base/5/1\"\0\0");
    script.frame(b'c', b"").ended("1").play(&mut server).await;
    let mut backup = begin(&mut walsender).await.unwrap();
    events(&mut walsender, &mut backup).await.unwrap();
    let said: Vec<String> = walsender.take_warnings().into_iter().map(|said| said.message).collect();
    assert_eq!(said, ["skipping \"./base/5/1\""]);
    assert_eq!(walsender.take_warnings(), []);
}
