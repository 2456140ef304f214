//! What a server answers: error fields and rows of the simple query protocol.

use bytes::Bytes;
use fallible_iterator::FallibleIterator;
use postgres_protocol::message::backend::{DataRowBody, ErrorFields};

use crate::error::ServerMessage;
use crate::{Error, Result};

/// Collects an `ErrorResponse` or a notice. Text that is not UTF-8 (a server may
/// speak before it knows the encoding) is made readable, not refused.
pub(super) fn server_message(fields: &mut ErrorFields<'_>) -> ServerMessage {
    let mut said =
        ServerMessage { code: "XX000".to_owned(), message: String::new(), detail: None, hint: None };
    while let Ok(Some(field)) = fields.next() {
        let text = String::from_utf8_lossy(field.value_bytes()).into_owned();
        match field.type_() {
            b'C' => said.code = text,
            b'M' => said.message = text,
            b'D' => said.detail = Some(text),
            b'H' => said.hint = Some(text),
            _ => {}
        }
    }
    said
}

/// Whether a notice is a warning. The field that says so in any language is `V`.
pub(super) fn is_warning(fields: &mut ErrorFields<'_>) -> bool {
    while let Ok(Some(field)) = fields.next() {
        if field.type_() == b'V' {
            return field.value_bytes() == b"WARNING";
        }
    }
    false
}

/// One row: the values as the server wrote them, `None` for NULL.
pub(super) struct Row(Vec<Option<Bytes>>);

impl Row {
    pub(super) fn parse(body: &DataRowBody) -> Result<Self> {
        let buffer = body.buffer_bytes();
        body.ranges()
            .map(|range| Ok(range.map(|range| buffer.slice(range))))
            .collect()
            .map(Row)
            .map_err(|source| Error::Protocol { reason: source.to_string() })
    }

    pub(super) fn bytes(&self, column: usize) -> Option<Bytes> {
        self.0.get(column).cloned().flatten()
    }

    /// The text of a column that must not be NULL.
    pub(super) fn text(&self, column: usize, name: &'static str) -> Result<&str> {
        self.optional_text(column)
            .ok_or_else(|| Error::Protocol { reason: format!("the answer has no {name}") })
    }

    pub(super) fn optional_text(&self, column: usize) -> Option<&str> {
        self.0.get(column)?.as_deref().and_then(|bytes| std::str::from_utf8(bytes).ok())
    }

    pub(super) fn parsed<T: std::str::FromStr>(&self, column: usize, name: &'static str) -> Result<T> {
        let text = self.text(column, name)?;
        text.parse().map_err(|_| Error::Protocol { reason: format!("{text:?} is no {name}") })
    }
}
