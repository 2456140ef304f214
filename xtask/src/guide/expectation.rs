//! Whether a command printed what the page shows. `…` or `...` stands for any text
//! in a line, and alone on a line for any number of lines.

const ELLIPSES: [&str; 2] = ["…", "..."];

/// What differs, if anything does. A page that shows no output accepts any.
pub fn difference(expected: &[String], output: &str) -> Option<String> {
    if expected.is_empty() {
        return None;
    }
    let wanted: Vec<&str> = trimmed(expected.iter().map(String::as_str));
    let found: Vec<&str> = trimmed(output.lines());
    match first_unmatched(&wanted, &found) {
        Ok(()) => None,
        Err(at) => Some(match wanted.get(at) {
            Some(line) => format!("did not print what the page shows: {line:?}"),
            None => "printed more than the page shows".to_owned(),
        }),
    }
}

/// Without space at the ends of lines and empty lines around the whole.
fn trimmed<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut lines: Vec<&str> = lines.map(str::trim_end).skip_while(|line| line.is_empty()).collect();
    while lines.last().is_some_and(|line| line.is_empty()) {
        lines.pop();
    }
    lines
}

/// The furthest line of the page that found nothing, when the whole does not match.
fn first_unmatched(wanted: &[&str], found: &[&str]) -> Result<(), usize> {
    let Some((line, rest)) = wanted.split_first() else {
        return if found.is_empty() { Ok(()) } else { Err(0) };
    };
    if ELLIPSES.contains(&line.trim()) {
        let mut furthest = 0;
        for from in 0..=found.len() {
            match first_unmatched(rest, &found[from..]) {
                Ok(()) => return Ok(()),
                Err(at) => furthest = furthest.max(at),
            }
        }
        return Err(furthest + 1);
    }
    match found.split_first() {
        Some((other, others)) if line_matches(line, other) => {
            first_unmatched(rest, others).map_err(|at| at + 1)
        }
        _ => Err(0),
    }
}

fn line_matches(pattern: &str, line: &str) -> bool {
    let pattern = pattern.replace(ELLIPSES[1], ELLIPSES[0]);
    let pieces: Vec<&str> = pattern.split(ELLIPSES[0]).collect();
    let [first, middle @ .., last] = pieces.as_slice() else { return pattern == line };
    let Some(mut rest) = line.strip_prefix(first) else { return false };
    for piece in middle {
        let Some((_, after)) = rest.split_once(piece) else { return false };
        rest = after;
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ellipsis_stands_for_anything_and_nothing_else_does() {
        for (expected, output, same) in [
            (vec![], "anything", true),
            (vec!["a", "b"], "a\nb\n", true),
            (vec!["a"], "a\nb\n", false),
            (vec!["a", "…"], "a\nb\nc\n", true),
            (vec!["…", "c"], "a\nb\nc\n", true),
            (vec!["a", "...", "c"], "a\nc\n", true),
            (vec!["a", "…", "d"], "a\nc\n", false),
            (vec!["took … s, … files"], "took 1.5 s, 12 files", true),
            (vec!["took … s, ... files"], "took 1.5 s", false),
            (vec!["ab…ba"], "aba", false),
            (vec!["exact"], "exactly", false),
            (vec!["", "a  "], "a\n\n", true),
        ] {
            let expected: Vec<String> = expected.into_iter().map(str::to_owned).collect();
            assert_eq!(difference(&expected, output).is_none(), same, "{expected:?} {output:?}");
        }
    }

    #[test]
    fn the_line_that_is_missing_is_named() {
        let expected = ["one", "…", "three"].map(str::to_owned);
        assert!(difference(&expected, "one\ntwo").unwrap().contains("three"));
    }
}
