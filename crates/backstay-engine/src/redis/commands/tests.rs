use bytes::BytesMut;
use proptest::prelude::*;

use super::*;
use crate::redis::reply::encode;

fn command(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    encode(words, &mut bytes);
    bytes.to_vec()
}

fn all(commands: &[&[&[u8]]]) -> (Vec<u8>, Vec<u64>) {
    let (mut bytes, mut ends) = (Vec::new(), Vec::new());
    for words in commands {
        bytes.extend(command(words));
        ends.push(1000 + bytes.len() as u64);
    }
    (bytes, ends)
}

#[test]
fn a_stream_is_cut_between_commands_and_never_within_a_transaction() {
    let (bytes, ends) = all(&[
        &[b"select", b"3"],
        &[b"SET", b"k", b"\r\n*1\r\n$5\r\nMULTI\r\n"],
        &[b"MULTI"],
        &[b"SELECT", b"12"],
        &[b"INCR", b"k"],
        &[b"EXEC"],
        &[b"REPLCONF", b"GETACK", b"*"],
        &[b"PING"],
    ]);
    let mut reader = CommandReader::new(1000, 0);
    let mut seen = Vec::new();
    for byte in &bytes {
        reader.push(&[*byte]).unwrap();
        if seen.last() != Some(&(reader.boundary(), reader.database())) {
            seen.push((reader.boundary(), reader.database()));
        }
    }
    let places = [(1000, 0), (ends[0], 3), (ends[1], 3), (ends[5], 12), (ends[6], 12), (ends[7], 12)];
    assert_eq!(seen, places);
    assert!(reader.take_question() && !reader.take_question());
    assert!(reader.take_changes() && !reader.take_changes());
    reader.push(&command(&[b"PING"])).unwrap();
    assert!(!reader.take_changes());
}

#[test]
fn what_is_no_command_is_an_error_that_says_where() {
    for (bytes, at) in [
        (&b"PING\r\n"[..], 6),
        (b"*0\r\n", 4),
        (b"*-1\r\n", 5),
        (b"*1\n", 3),
        (b"*1\r\n:4\r\n", 8),
        (b"*1\r\n$-1\r\n", 9),
        (b"*1\r\n$1\r\nx\r\n\0\n", 13),
        (b"*1\r\n$99999999999999999999\r\n", 27),
    ] {
        let broken = CommandReader::new(0, 0).push(bytes).unwrap_err();
        assert_eq!(broken.at, at, "{broken} in {}", String::from_utf8_lossy(bytes));
    }
    assert!(CommandReader::new(0, 0).push(&[b'*'; 40]).is_err());
}

proptest! {
    #[test]
    fn the_same_places_are_found_however_it_comes_and_wherever_it_is_written_down(
        commands in prop::collection::vec(
            prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..5), 1..12),
        special in prop::collection::vec(0usize..5, 12),
        cuts in prop::collection::vec(0usize..400, 0..6),
    ) {
        let mut bytes = Vec::new();
        for (words, kind) in commands.iter().zip(&special) {
            let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
            match kind {
                0 => bytes.extend(command(&[b"MULTI"])),
                1 => bytes.extend(command(&[b"EXEC"])),
                2 => bytes.extend(command(&[b"SELECT", b"7"])),
                _ => bytes.extend(command(&words)),
            }
        }
        let mut whole = CommandReader::new(5, 1);
        whole.push(&bytes).unwrap();
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let mut pieces = CommandReader::new(5, 1);
        for pair in cuts.windows(2) {
            pieces.push(&bytes[pair[0]..pair[1]]).unwrap();
            let written = serde_json::to_string(&pieces).unwrap();
            pieces = serde_json::from_str(&written).unwrap();
        }
        prop_assert_eq!((pieces.at(), pieces.boundary(), pieces.database()),
            (whole.at(), whole.boundary(), whole.database()));
        prop_assert_eq!(whole.at(), 5 + bytes.len() as u64);
    }
}
