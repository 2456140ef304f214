//! The words of the statements that `pg_dump` writes: enough to find names in them.

/// One word or mark of a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    /// As it is written, in lower case: a keyword or a name without quotes.
    Word(String),
    /// A name in double quotes.
    Name(String),
    /// A text in single quotes.
    Text(String),
    Mark(char),
}

impl Token {
    pub fn is_word(&self, word: &str) -> bool {
        matches!(self, Token::Word(found) if found == word)
    }

    /// What it names, if it can name something.
    pub fn name(&self) -> Option<&str> {
        match self {
            Token::Word(name) | Token::Name(name) => Some(name),
            Token::Text(_) | Token::Mark(_) => None,
        }
    }
}

pub(super) fn tokens(script: &str) -> Vec<Token> {
    let mut found = Vec::new();
    let mut letters = script.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            letter if letter.is_whitespace() => {}
            '-' if letters.next_if_eq(&'-').is_some() => {
                while letters.next_if(|letter| *letter != '\n').is_some() {}
            }
            '"' | '\'' => {
                let mut text = String::new();
                while let Some(next) = letters.next() {
                    if next != letter {
                        text.push(next);
                    } else if letters.next_if_eq(&letter).is_some() {
                        text.push(letter);
                    } else {
                        break;
                    }
                }
                found.push(if letter == '"' { Token::Name(text) } else { Token::Text(text) });
            }
            letter if letter.is_alphanumeric() || letter == '_' => {
                let mut word = letter.to_lowercase().to_string();
                while let Some(next) = letters.next_if(|c| c.is_alphanumeric() || matches!(c, '_' | '$')) {
                    word.extend(next.to_lowercase());
                }
                found.push(Token::Word(word));
            }
            mark => found.push(Token::Mark(mark)),
        }
    }
    found
}

/// The statements one by one, without comments and without commands to `psql`.
pub(super) fn statements(script: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut statement = String::new();
    let mut letters = script.chars().peekable();
    let mut quote = None;
    while let Some(letter) = letters.next() {
        let is_comment = letter == '-' && letters.peek() == Some(&'-');
        // `\restrict` and the like stand where a statement would begin.
        let is_command = letter == '\\' && statement.trim().is_empty();
        match (letter, quote) {
            (_, None) if is_comment || is_command => {
                while letters.next_if(|letter| *letter != '\n').is_some() {}
            }
            (';', None) => found.push(std::mem::take(&mut statement).trim().to_owned()),
            ('"' | '\'', None) => {
                quote = Some(letter);
                statement.push(letter);
            }
            // One that is doubled ends and begins again, which comes to the same.
            (letter, Some(open)) if letter == open => {
                quote = None;
                statement.push(letter);
            }
            _ => statement.push(letter),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_cut_at_the_ends_of_its_statements_only() {
        let script = "--\n-- it's; a comment\n\\restrict abc;\nCREATE ROLE \"a;b\";\nALTER ROLE x PASSWORD 'a''b;--c' ;\n\
                      SET a = 1; -- rest\nunfinished";
        let expected = ["CREATE ROLE \"a;b\"", "ALTER ROLE x PASSWORD 'a''b;--c'", "SET a = 1"];
        assert_eq!(statements(script), expected);
    }

    #[test]
    fn words_names_and_texts_are_told_apart() {
        let word = |text: &str| Token::Word(text.into());
        assert_eq!(
            tokens("GRANT ALL ON \"a \"\"b\"\".c\" -- to nobody\n TO R_1, 'it''s';"),
            [
                word("grant"),
                word("all"),
                word("on"),
                Token::Name("a \"b\".c".into()),
                word("to"),
                word("r_1"),
                Token::Mark(','),
                Token::Text("it's".into()),
                Token::Mark(';'),
            ]
        );
    }
}
