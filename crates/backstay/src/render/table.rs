//! Tables of words in columns: no borders, numbers to the right, one line a row.

use comfy_table::{CellAlignment, ContentArrangement, Table as Grid, presets};

/// How a column is aligned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    Left,
    Right,
}

pub struct Table(Grid);

impl Table {
    pub fn new(columns: &[(&str, Align)]) -> Self {
        let mut grid = Self::bare(columns.len());
        grid.set_header(columns.iter().map(|(name, _)| *name));
        for (column, (_, align)) in grid.column_iter_mut().zip(columns) {
            column.set_cell_alignment(match align {
                Align::Left => CellAlignment::Left,
                Align::Right => CellAlignment::Right,
            });
        }
        for column in grid.column_iter_mut() {
            column.set_padding((0, 2));
        }
        Self(grid)
    }

    // The terminal's width is left alone: a row that is cut cannot be searched for.
    fn bare(_columns: usize) -> Grid {
        let mut grid = Grid::new();
        grid.load_style(presets::NOTHING);
        grid.set_content_arrangement(ContentArrangement::Disabled);
        grid.force_no_tty();
        grid
    }

    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.0.add_row(cells);
    }

    pub fn text(&self) -> String {
        let mut text = String::new();
        for line in self.0.lines() {
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}
