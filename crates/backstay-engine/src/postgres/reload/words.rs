//! The words of one statement: enough to know where it ends and what it is about.

/// What says what a statement is about stands among the first.
const WORDS_KEPT: usize = 48;
/// Longer ones are names, of which nothing depends.
const WORD_MAX_BYTES: usize = 64;

/// In lower case; names in quotes and texts are empty ones.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Words {
    first: Vec<String>,
    last_is_from: bool,
    last_is_begin: bool,
    is_from_stdin: bool,
    parentheses: u32,
    /// Of `BEGIN` and `CASE` in the body of a function.
    blocks: u32,
    /// The script has said that a backslash escapes in every text.
    escapes: bool,
    says_escapes: bool,
}

impl Words {
    pub fn begin(&mut self) {
        *self = Words { escapes: self.escapes, ..Words::default() };
    }

    pub fn word(&mut self, word: &[u8]) {
        let word = &word[..word.len().min(WORD_MAX_BYTES)];
        let is = |other: &str| word.eq_ignore_ascii_case(other.as_bytes());
        if self.parentheses == 0 && self.is_routine() {
            // A routine may be called `begin`, and a column of a body too.
            if (is("atomic") && self.last_is_begin) || (is("case") && self.blocks > 0) {
                self.blocks += 1;
            } else if is("end") {
                self.blocks = self.blocks.saturating_sub(1);
            }
        }
        self.is_from_stdin |= self.last_is_from && is("stdin") && self.parentheses == 0;
        self.last_is_from = is("from");
        self.last_is_begin = is("begin");
        self.says_escapes |= is("standard_conforming_strings");
        if self.has_room() {
            self.first.push(String::from_utf8_lossy(word).to_lowercase());
        }
    }

    /// A name or a text in quotes.
    pub fn other(&mut self) {
        self.last_is_from = false;
        self.last_is_begin = false;
        if self.has_room() {
            self.first.push(String::new());
        }
    }

    pub fn mark(&mut self, mark: u8) {
        match mark {
            b'(' => self.parentheses += 1,
            b')' => self.parentheses = self.parentheses.saturating_sub(1),
            _ => {}
        }
        self.last_is_from &= mark.is_ascii_whitespace();
        self.last_is_begin &= mark.is_ascii_whitespace();
        if mark == b';' && self.says_escapes && self.starts_with(&["set", "standard_conforming_strings"]) {
            self.escapes = self.first.last().is_some_and(|value| value == "off");
        }
    }

    /// Rows that are written as statements have millions of words that nobody asks for.
    fn has_room(&self) -> bool {
        self.first.len() < WORDS_KEPT && self.first.first().is_none_or(|word| word != "insert")
    }

    /// `CREATE [OR REPLACE] FUNCTION | PROCEDURE`, whose body may hold statements.
    fn is_routine(&self) -> bool {
        let word = |at: usize| self.first.get(at).map_or("", String::as_str);
        let kind = if word(1) == "or" { word(3) } else { word(1) };
        word(0) == "create" && matches!(kind, "function" | "procedure")
    }

    /// Whether a `;` here is the end.
    pub fn has_ended(&self) -> bool {
        self.parentheses == 0 && self.blocks == 0
    }

    pub fn is_followed_by_rows(&self) -> bool {
        self.is_from_stdin && self.first.first().is_some_and(|word| word == "copy")
    }

    pub fn backslash_escapes(&self) -> bool {
        self.escapes
    }

    /// The first words; quoted ones are empty.
    pub fn first(&self) -> &[String] {
        &self.first
    }

    pub fn starts_with(&self, words: &[&str]) -> bool {
        self.first.len() >= words.len() && self.first.iter().zip(words).all(|(own, word)| own == word)
    }

    /// Whether it makes, changes or describes a database rather than what is in one: such
    /// a statement would change the database of the same name beside.
    pub fn is_about_a_database(&self) -> bool {
        let follow = |words: &[&str]| {
            self.first.windows(words.len()).any(|own| own.iter().zip(words).all(|(own, word)| own == word))
        };
        match self.first.first().map_or("", String::as_str) {
            "create" | "drop" => self.first.get(1).is_some_and(|word| word == "database"),
            "alter" if self.starts_with(&["alter", "database"]) => true,
            "alter" => {
                let is_of_role = self.first.get(1).is_some_and(|word| word == "role" || word == "user");
                is_of_role && self.first.get(3).is_some_and(|w| w == "in") && follow(&["in", "database"])
            }
            "comment" => self.starts_with(&["comment", "on", "database"]),
            "security" | "grant" | "revoke" => follow(&["on", "database"]),
            "update" => self.starts_with(&["update", "pg_catalog", "pg_database"]),
            _ => false,
        }
    }
}
