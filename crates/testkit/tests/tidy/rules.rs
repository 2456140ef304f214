//! The rules themselves: from a text to complaints.

/// One file of the project.
pub struct Source {
    /// Relative to the root, with `/`.
    pub path: String,
    pub text: String,
}

impl Source {
    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    fn is_code(&self) -> bool {
        self.is_rust() || self.path.ends_with(".py") || self.path.ends_with(".sh")
    }

    /// A file that holds nothing but tests.
    fn is_test_file(&self) -> bool {
        self.path.contains("/tests/") || self.path.ends_with("/tests.rs")
    }

    /// The line on which inline tests begin, counted from zero.
    fn inline_tests_begin(&self) -> Option<usize> {
        let lines: Vec<&str> = self.text.lines().collect();
        (0..lines.len()).find(|&at| {
            lines[at].trim() == "#[cfg(test)]"
                && lines.get(at + 1).is_some_and(|next| next.starts_with("mod ") && next.ends_with('{'))
        })
    }

    fn complain(&self, line: usize, about: &str) -> String {
        format!("{}:{}: {about}", self.path, line + 1)
    }

    /// Complains about each line for which the rule has something to say.
    fn lines_with<'a>(&'a self, found: impl Fn(&str) -> Option<&'a str>) -> Vec<String> {
        self.text
            .lines()
            .enumerate()
            .filter_map(|(at, line)| found(line).map(|about| self.complain(at, about)))
            .collect()
    }
}

/// Where `std::fs::rename` may stand: each of these files surrounds it with the
/// syncs that make it durable, or says why none is needed.
const HOMES_OF_RENAME: &[&str] = &[
    "crates/backstay-repo/src/store/disk",
    "crates/backstay-repo/src/log/spool/history.rs",
    "crates/backstay-engine/src/postgres/place",
    "crates/backstay-ops/src/kit.rs",
    "xtask/src/setup.rs",
];

const LONGEST_FILE: usize = 500;
const LONGEST_INLINE_TESTS: usize = 200;

pub fn length(source: &Source) -> Vec<String> {
    let lines = source.text.lines().count();
    if source.is_code() && lines > LONGEST_FILE {
        return vec![source.complain(LONGEST_FILE, &format!("{lines} lines; split it by ideas"))];
    }
    Vec::new()
}

pub fn inline_tests(source: &Source) -> Vec<String> {
    let Some(begin) = source.inline_tests_begin().filter(|_| source.is_rust()) else { return Vec::new() };
    let lines = source.text.lines().count() - begin;
    if lines > LONGEST_INLINE_TESTS {
        return vec![
            source.complain(begin, &format!("{lines} lines of inline tests; move them to tests.rs")),
        ];
    }
    Vec::new()
}

pub fn names(source: &Source) -> Vec<String> {
    const DRAWERS: [&str; 7] = ["util", "utils", "common", "helper", "helpers", "misc", "manager"];
    if !source.is_code() {
        return Vec::new();
    }
    let complaint = |part: &str| {
        let stem = part.split('.').next().unwrap_or(part);
        if part == "mod.rs" {
            return Some("write foo.rs beside foo/ instead of foo/mod.rs".to_owned());
        }
        let last_word = stem.rsplit('_').next().unwrap_or(stem);
        DRAWERS.contains(&last_word).then(|| format!("{stem:?} says nothing of what is inside"))
    };
    source.path.split('/').filter_map(complaint).map(|about| source.complain(0, &about)).collect()
}

pub fn module_doc(source: &Source) -> Vec<String> {
    let begins_with_doc = source.text.starts_with("//!");
    if source.is_rust() && !source.is_test_file() && !begins_with_doc {
        return vec![
            source.complain(0, "a module begins with `//!`: its duty, its invariant, what it refuses"),
        ];
    }
    Vec::new()
}

pub fn sleep(source: &Source) -> Vec<String> {
    if !source.is_rust() {
        return Vec::new();
    }
    let from = if source.is_test_file() { Some(0) } else { source.inline_tests_begin() };
    let Some(from) = from else { return Vec::new() };
    let call = concat!("sleep", "(");
    let complaint = "a test waits for a condition with a limit: testkit::wait_until";
    let lines = source.text.lines().enumerate().skip(from);
    lines
        // A statement that lasts is the server's business (`pg_sleep`), and this file
        // and its samples speak of what they forbid.
        .filter(|(_, line)| {
            line.replace(concat!("pg_", "sleep("), "").contains(call) && !source.path.contains("/tests/tidy")
        })
        .map(|(at, _)| source.complain(at, complaint))
        .collect()
}

pub fn leftovers(source: &Source) -> Vec<String> {
    const MARKS: [&str; 2] = [concat!("TO", "DO"), concat!("FIX", "ME")];
    source.lines_with(|line| {
        MARKS.iter().any(|mark| line.contains(mark)).then_some("do it, or open an issue and say nothing here")
    })
}

pub fn allowances(source: &Source) -> Vec<String> {
    if !source.is_rust() || source.path.contains("/tests/tidy") {
        return Vec::new();
    }
    let mut complaints = Vec::new();
    for opening in ["#[allow(", "#![allow(", "#[expect(", "#![expect("] {
        for (at, _) in source.text.match_indices(opening) {
            let attribute = &source.text[at..];
            let attribute = attribute.split_once(")]").map_or(attribute, |(inside, _)| inside);
            if !attribute.contains("reason") {
                let line = source.text[..at].lines().count().saturating_sub(1);
                complaints.push(source.complain(line, "an exception needs `reason = \"…\"`"));
            }
        }
    }
    complaints
}

pub fn machine_paths(source: &Source) -> Vec<String> {
    const PLACES: [&str; 2] = [concat!("/wo", "rk/"), concat!("/ro", "ot/")];
    source.lines_with(|line| {
        PLACES.iter().any(|place| line.contains(place)).then_some("a path of one machine helps nobody else")
    })
}

pub fn renames(source: &Source) -> Vec<String> {
    let at_home = HOMES_OF_RENAME.iter().any(|home| source.path.starts_with(home));
    if !source.is_rust() || at_home {
        return Vec::new();
    }
    let call = concat!("fs::ren", "ame(");
    source.lines_with(|line| line.contains(call).then_some("rename through the crash-safe functions"))
}

pub fn pure_model(source: &Source) -> Vec<String> {
    const OUTSIDE: [&str; 9] = [
        "std::fs",
        "std::net",
        "std::env",
        "std::io",
        "std::process",
        "std::thread",
        "SystemTime",
        "Instant::now",
        "Timestamp::now",
    ];
    if !source.path.starts_with("crates/backstay-model/src/") {
        return Vec::new();
    }
    let complaint = "model does no input or output and reads no clock";
    source.lines_with(|line| OUTSIDE.iter().any(|word| line.contains(word)).then_some(complaint))
}

/// `#[error("{0}")]` with a source prints the same sentence twice in a chain.
pub fn doubled_errors(source: &Source) -> Vec<String> {
    let attribute = concat!("#[error(\"{", "0}\")]");
    let lines: Vec<&str> = source.text.lines().collect();
    let doubled = |at: &usize| {
        lines[*at].trim() == attribute
            && lines.get(at + 1).is_some_and(|next| next.contains("#[source]") || next.contains("#[from]"))
    };
    (0..lines.len())
        .filter(doubled)
        .map(|at| source.complain(at, "say what was being done; the source speaks for itself"))
        .collect()
}

/// The relative targets of Markdown links, without their anchors.
pub fn links(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut in_block = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        }
        if in_block {
            continue;
        }
        // Every second piece between backticks is code.
        let prose: String = line.split('`').step_by(2).collect();
        for part in prose.split("](").skip(1) {
            let target = part.split([')', ' ', '#']).next().unwrap_or_default();
            if !target.is_empty() && !target.contains(':') {
                found.push(target.to_owned());
            }
        }
    }
    found
}
