//! Fewer lines that say enough: the store may be away for days, with four lines in each second.
//!
//! The state of reading is needed where a span can begin, which may be at the end of any flush. It is
//! read from the bytes (see [`super::super::marking`]), which lie in the spool from the beginning of
//! their cut on, or from where something began to lie there. So the states of those places are kept.
//!
//! Times are not in the bytes. All of them are kept until they are many: then the last of each
//! moment is, and moments become as long as they have to. Whoever asks for an instant later gets
//! what had come so long before it at most, and never anything that came after it.

use backstay_repo::log::spool::SpooledSpan;

use super::super::super::STREAM_CUT_BYTES;
use super::super::keeper::MARK_EVERY;
use super::{Line, keep_newest};

/// Of all lines together: 4 MiB in memory, and some 7 MiB of the disk. With the store away for a
/// day, moments are of 640 ms.
const MARKS: usize = 1 << 18;
/// Moments become no longer, in microseconds.
const MOMENT_LAST: i64 = 3_600_000_000;

/// Of each cut the marks stay, and the state of its beginning. The last line of all stays as it is.
pub(super) fn join(lines: &mut Vec<Line>, spooled: &[SpooledSpan]) {
    let mut joined: Vec<Line> = Vec::new();
    for line in lines.drain(..) {
        match joined.last_mut() {
            Some(last) if goes_into(last, &line, spooled) => {
                let mut marks = std::mem::take(&mut last.marks);
                marks.extend(&line.marks);
                let mut witnesses = std::mem::take(&mut last.witnesses);
                witnesses.extend(line.witnesses.iter().cloned());
                keep_newest(&mut witnesses);
                *last = Line { marks, witnesses, ..line };
            }
            _ => joined.push(line),
        }
    }
    thin(&mut joined);
    *lines = joined;
}

/// Whether the next line can say what this one says.
fn goes_into(line: &Line, next: &Line, spooled: &[SpooledSpan]) -> bool {
    let end = line.end();
    let begins = |one: &SpooledSpan| one.log == line.log && one.span.start == end;
    let is_needed = end.is_multiple_of(STREAM_CUT_BYTES) || spooled.iter().any(begins);
    let is_same = end == next.end() && line.replication_id == next.replication_id;
    line.log == next.log && (is_same || !is_needed && end <= next.end())
}

fn thin(lines: &mut [Line]) {
    let mut moment = MARK_EVERY;
    while lines.iter().map(|line| line.marks.len()).sum::<usize>() > MARKS && moment < MOMENT_LAST {
        moment *= 2;
        for line in lines.iter_mut() {
            // In the order of the stream: a clock that was set back is seen to have been.
            let mut thinned: Vec<(u64, i64)> = Vec::new();
            for mark in line.marks.drain(..) {
                match thinned.last_mut() {
                    Some(last) if last.1.div_euclid(moment) == mark.1.div_euclid(moment) => *last = mark,
                    _ => thinned.push(mark),
                }
            }
            line.marks = thinned;
        }
    }
}
