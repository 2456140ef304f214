//! The manifest of the append-only files: pairs of a word and a value in each line.
//!
//! Newer servers write more pairs than older ones; those that are not known mean nothing here.
//! Refuses what a server refuses: a second base, increments that are not in their order, a file
//! elsewhere.

/// One of its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AofFile {
    pub name: String,
    pub sequence: u64,
    /// Where in the server's stream it begins and ends, where the server says it.
    pub start_offset: Option<u64>,
    pub end_offset: Option<u64>,
}

/// What is loaded: files that are only waiting for their deletion are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AofManifest {
    pub base: Option<AofFile>,
    /// In their order.
    pub increments: Vec<AofFile>,
}

impl AofManifest {
    /// # Errors
    ///
    /// The reason.
    pub fn parse(text: &str) -> Result<AofManifest, String> {
        let mut found = AofManifest::default();
        for (number, line) in text.lines().enumerate() {
            if line.starts_with('#') || line.trim().is_empty() {
                continue;
            }
            let (file, kind) =
                parse_line(line).ok_or_else(|| format!("line {} names no file", number + 1))?;
            match kind.as_str() {
                "b" if found.base.is_some() => return Err("two bases are listed".to_owned()),
                "b" => found.base = Some(file),
                "i" if found.increments.last().is_some_and(|last| last.sequence >= file.sequence) => {
                    return Err(format!("{} is not behind the increment before it", file.name));
                }
                "i" => found.increments.push(file),
                "h" => {}
                other => return Err(format!("{} is of type {other:?}", file.name)),
            }
        }
        match found.base.is_none() && found.increments.is_empty() {
            true => Err("no file is listed".to_owned()),
            false => Ok(found),
        }
    }
}

fn parse_line(line: &str) -> Option<(AofFile, String)> {
    let words = words(line)?;
    let value = |wanted: &str| {
        words
            .chunks_exact(2)
            .find(|pair| pair.first().is_some_and(|word| word == wanted))
            .and_then(|pair| pair.get(1))
    };
    if words.len() % 2 > 0 {
        return None;
    }
    let name = value("file")
        .filter(|name| !name.is_empty() && !name.contains('/') && !name.starts_with('.'))?
        .clone();
    let number = |wanted: &str| value(wanted).and_then(|text| text.parse().ok());
    let file = AofFile {
        name,
        sequence: number("seq")?,
        start_offset: number("startoffset"),
        end_offset: number("endoffset"),
    };
    Some((file, value("type")?.clone()))
}

/// A name with a space in it stands in quotes, as servers write such words.
fn words(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut rest = line.trim();
    while !rest.is_empty() {
        if let Some(quoted) = rest.strip_prefix('"') {
            let (mut word, mut letters) = (Vec::new(), quoted.bytes().enumerate());
            let end = loop {
                match letters.next()? {
                    (at, b'"') => break at + 1,
                    (_, b'\\') => match letters.next()?.1 {
                        b'x' => {
                            let digits = [letters.next()?.1, letters.next()?.1];
                            word.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
                        }
                        b'n' => word.push(b'\n'),
                        b'r' => word.push(b'\r'),
                        b't' => word.push(b'\t'),
                        other => word.push(other),
                    },
                    (_, letter) => word.push(letter),
                }
            };
            words.push(String::from_utf8(word).ok()?);
            rest = quoted.get(end..)?.trim_start();
        } else {
            let (word, behind) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
            words.push(word.to_owned());
            rest = behind.trim_start();
        }
    }
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_read_in_any_number_and_what_is_to_be_deleted_is_left_out() {
        let text = "file a.aof.2.base.rdb seq 2 type b\n# said\nfile a.aof.1.incr.aof seq 1 type h\n\
            file a.aof.4.incr.aof seq 4 type i startoffset 10 endoffset 20\n\
            file \"a \\\"\\xc3\\xa4.incr.aof\" seq 5 type i startoffset 21 later new\n";
        let found = AofManifest::parse(text).unwrap();
        assert_eq!(found.base.unwrap().name, "a.aof.2.base.rdb");
        let increments: Vec<_> = found
            .increments
            .iter()
            .map(|file| (file.name.as_str(), file.start_offset, file.end_offset))
            .collect();
        assert_eq!(
            increments,
            [("a.aof.4.incr.aof", Some(10), Some(20)), ("a \"ä.incr.aof", Some(21), None)]
        );
    }

    #[test]
    fn what_a_server_would_not_start_on_is_refused() {
        for text in [
            "",
            "file a seq 1 type b\nfile b seq 2 type b\n",
            "file a seq 2 type i\nfile b seq 2 type i\n",
            "file ../a seq 1 type b\n",
            "file a seq 1 type x\n",
            "file a seq x type b\n",
            "file a seq 1 type\n",
            "file \"a seq 1 type b\n",
        ] {
            assert!(AofManifest::parse(text).is_err(), "{text:?}");
        }
    }
}
