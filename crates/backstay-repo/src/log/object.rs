//! One span as an object: a container whose first frame says what it is, then the bytes,
//! then the marks (`docs/format.md`, section 11).

use backstay_model::{LogMark, LogMarkKind, LogSpan};
use bytes::{Bytes, BytesMut};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{LogForm, LogPiece, PreviousSpan, SPAN_BYTES_MAX};
use crate::container::{Container, ContainerBuilder};
use crate::frame::{FrameOpener, FrameSealer, UNCOMPRESSED};
use crate::large_buffer::large_buffer;
use crate::layout::ObjectName;
use crate::seal::{ObjectKind, SealKeys};
use crate::varint::{self, Input, Malformed};
use crate::{Error, Result};

const FORMAT: u32 = 2;
/// Of content as it is, which the programs of the first format read as well.
const FORMAT_OF_BYTES: u32 = 1;
/// Raw bytes of a frame of content: all of it. Pages come again and again in a log, and whole
/// spans are a sixth smaller than in frames of 128 KiB.
const CONTENT_FRAME: usize = SPAN_BYTES_MAX as usize;
/// The same of content that is not folded. What a frame became is held twice while it is looked at
/// again, and a stream that hardly compresses has little to lose from shorter ones.
const BYTES_FRAME: usize = CONTENT_FRAME / 4;
/// Raw bytes of a frame of marks, about.
const MARKS_FRAME: usize = 64 << 10;
const COMMIT: u8 = 0;
const ABORT: u8 = 1;
const POINT: u8 = 2;
const INSTANT: u8 = 3;

/// What an object says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogHead {
    pub format: u32,
    #[serde(flatten)]
    pub span: LogSpan,
    /// Of the content, as hexadecimal digits.
    pub digest: String,
    /// Of what the frames hold; the digest is of the content itself.
    #[serde(default, skip_serializing_if = "LogForm::is_bytes")]
    pub form: LogForm,
    pub previous: Option<PreviousSpan>,
    /// Frames that hold content, behind this one; those behind them hold marks.
    pub content_frames: u32,
    pub marks: u64,
    /// Of the marks.
    pub first_time: Option<Timestamp>,
    pub last_time: Option<Timestamp>,
    #[serde(default)]
    pub facts: serde_json::Value,
}

#[derive(Deserialize)]
struct FormatOnly {
    format: u32,
}

/// The object, and the digest of its content. Compresses and encrypts: not for a thread
/// that others wait for. Takes the piece, for its content is folded where it lies.
pub(super) fn seal(
    keys: &SealKeys,
    name: &ObjectName,
    piece: LogPiece,
    level: i32,
) -> Result<(Bytes, String)> {
    let broken = |error: &dyn std::error::Error| Error::broken(format!("seal {name}: {error}"));
    let span = piece.span().ok_or_else(|| Error::broken("nothing of a log is to be sealed"))?;
    let digest = hex(&keys.hash_block(&piece.content));
    // Where nothing is compressed, nothing would be won.
    let form = if level == UNCOMPRESSED { LogForm::Bytes } else { piece.form };
    let mut content = match piece.content.try_into_mut() {
        Ok(content) => content,
        Err(shared) => {
            let mut copy = large_buffer(shared.len());
            copy.extend_from_slice(&shared);
            BytesMut::from(Bytes::from(copy))
        }
    };
    form.fold(span.start, &mut content);
    let frame_bytes = if form.is_bytes() { BYTES_FRAME } else { CONTENT_FRAME };
    let head = LogHead {
        format: if form.is_bytes() { FORMAT_OF_BYTES } else { FORMAT },
        span,
        digest: digest.clone(),
        form,
        previous: piece.previous,
        content_frames: content.len().div_ceil(frame_bytes) as u32,
        marks: piece.marks.len() as u64,
        first_time: piece.marks.iter().map(|mark| mark.time).min(),
        last_time: piece.marks.iter().map(|mark| mark.time).max(),
        facts: piece.facts,
    };
    let head = serde_json::to_vec(&head).map_err(|error| broken(&error))?;
    let mut sealer = FrameSealer::for_log(level, true).map_err(|error| broken(&error))?;
    let mut builder = ContainerBuilder::new(keys, ObjectKind::Log, name).map_err(|error| broken(&error))?;
    builder.make_room(content.len());
    let frames = std::iter::once(&head[..]).chain(content.chunks(frame_bytes));
    for frame in frames {
        builder.push(&mut sealer, frame).map_err(|error| broken(&error))?;
    }
    for frame in marks_frames(span.start, &piece.marks) {
        builder.push(&mut sealer, &frame).map_err(|error| broken(&error))?;
    }
    builder.finish().map_err(|error| broken(&error))?;
    if !form.is_bytes() {
        // What the frames hold was compared by the sealer; this is whether it comes back from there.
        form.unfold(span.start, &mut content);
        if hex(&keys.hash_block(&content)) != digest {
            return Err(Error::broken(format!("seal {name}: what was folded does not unfold")));
        }
    }
    Ok((builder.take(), digest))
}

/// An object that was read whole.
pub(super) struct Opened {
    pub head: LogHead,
    pub content: Vec<u8>,
    pub marks: Vec<LogMark>,
}

/// Opens every frame, and compares the content with its digest. The content comes into `buffer`
/// where there is room for it; `object` is of no use afterwards, for its frames are decrypted
/// where they lie: a copy of a span that does not compress would be the third that is in memory.
pub(super) fn open(
    keys: &SealKeys,
    name: &ObjectName,
    span: LogSpan,
    object: &mut [u8],
    buffer: Vec<u8>,
) -> Result<Opened> {
    let damaged = |reason: &str| Error::damaged(name, reason.to_owned());
    let container = Container::of_bytes(keys, ObjectKind::Log, name, object)?;
    let mut opener = FrameOpener::new().map_err(|error| Error::broken(error.to_string()))?;
    let mut frame = |number: u32, to: &mut Vec<u8>| -> Result<()> {
        let place = container.place(number)?;
        let end = place.offset + u64::from(place.entry.stored_length);
        let stored = object.get_mut(place.offset as usize..end as usize);
        let stored = stored.ok_or_else(|| damaged("it is cut short"))?;
        container.open_frame_into(&mut opener, number, stored, to)
    };
    let mut json = Vec::new();
    frame(0, &mut json)?;
    let head = parse_head(name, span, &json)?;
    let mut content = buffer;
    content.clear();
    if (content.capacity() as u64) < span.length() {
        content = large_buffer(span.length() as usize);
    }
    for number in 1..=head.content_frames {
        frame(number, &mut content)?;
    }
    unfold(name, &head, &mut content)?;
    if content.len() as u64 != span.length() || hex(&keys.hash_block(&content)) != head.digest {
        return Err(damaged("its content is not what its head says"));
    }
    let mut marks = Vec::new();
    for number in head.content_frames + 1..container.frames().len() as u32 {
        let mut raw = Vec::new();
        frame(number, &mut raw)?;
        read_marks(span.start, &raw, &mut marks).map_err(|error| damaged(&error.to_string()))?;
    }
    if marks.len() as u64 != head.marks {
        return Err(damaged("it has not as many marks as its head says"));
    }
    Ok(Opened { head, content, marks })
}

/// The first frame of an object that has this name.
pub(super) fn parse_head(name: &ObjectName, span: LogSpan, json: &[u8]) -> Result<LogHead> {
    let damaged = |error: serde_json::Error| Error::damaged(name, error.to_string());
    // What a newer one says beside it may be anything.
    let FormatOnly { format } = serde_json::from_slice(json).map_err(damaged)?;
    if format > FORMAT {
        return Err(Error::NewerFormat { found: format, known: FORMAT });
    }
    let head: LogHead = serde_json::from_slice(json).map_err(damaged)?;
    if head.span != span || span.length() > SPAN_BYTES_MAX {
        return Err(Error::damaged(name, "its head speaks of another span than its name".to_owned()));
    }
    Ok(head)
}

/// The content, out of what the frames hold.
pub(super) fn unfold(name: &ObjectName, head: &LogHead, content: &mut [u8]) -> Result<()> {
    if content.len() as u64 != head.span.length() {
        return Err(Error::damaged(name, "its content is not as long as its head says".to_owned()));
    }
    head.form.unfold(head.span.start, content);
    Ok(())
}

/// Each frame begins anew, at the start of the span and the year 1970.
fn marks_frames(start: u64, marks: &[LogMark]) -> Vec<Vec<u8>> {
    let mut frames: Vec<Vec<u8>> = Vec::new();
    let (mut at, mut time) = (start, 0);
    for mark in marks {
        if frames.last().is_none_or(|frame| frame.len() >= MARKS_FRAME) {
            frames.push(Vec::new());
            (at, time) = (start, 0);
        }
        let Some(frame) = frames.last_mut() else { break };
        let microseconds = mark.time.as_microsecond();
        varint::put(frame, mark.at.wrapping_sub(at));
        varint::put_signed(frame, microseconds.wrapping_sub(time));
        (at, time) = (mark.at, microseconds);
        match &mark.kind {
            LogMarkKind::Commit { transaction } => {
                frame.push(COMMIT);
                varint::put(frame, *transaction);
            }
            LogMarkKind::Abort { transaction } => {
                frame.push(ABORT);
                varint::put(frame, *transaction);
            }
            LogMarkKind::Point { name } => {
                frame.push(POINT);
                varint::put_text(frame, name);
            }
            LogMarkKind::Instant => frame.push(INSTANT),
        }
    }
    frames
}

pub(super) fn read_marks(start: u64, raw: &[u8], marks: &mut Vec<LogMark>) -> Result<(), Malformed> {
    let mut input = Input::new(raw);
    let (mut at, mut time) = (start, 0i64);
    while !input.is_empty() {
        at = at.wrapping_add(input.number()?);
        time = time.wrapping_add(input.signed()?);
        let kind = match input.byte()? {
            COMMIT => LogMarkKind::Commit { transaction: input.number()? },
            ABORT => LogMarkKind::Abort { transaction: input.number()? },
            POINT => LogMarkKind::Point { name: input.text()?.to_owned() },
            INSTANT => LogMarkKind::Instant,
            _ => return Err(Malformed),
        };
        marks.push(LogMark { at, time: Timestamp::from_microsecond(time).map_err(|_| Malformed)?, kind });
    }
    Ok(())
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_of_tomorrow_is_a_newer_format_and_no_damage() {
        let name: ObjectName = "orders/log/x/y/z".parse().unwrap();
        let span = LogSpan { start: 0, end: 8 };
        let json = br#"{ "format": 3, "start": 0, "end": 8, "form": "of-tomorrow", "digest": 7 }"#;
        let error = parse_head(&name, span, json).unwrap_err();
        assert!(matches!(error, Error::NewerFormat { found: 3, known: FORMAT }), "{error}");
        let error = parse_head(&name, span, br#"{ "start": 0 }"#).unwrap_err();
        assert!(matches!(error, Error::Damaged { .. }), "{error}");
    }
}
