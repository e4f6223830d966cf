//! Lists in aligned columns. On a terminal that is too narrow each entry becomes a small block of its own, so nothing is
//! wrapped in the middle of a row.

use super::text::{Paint, Style, harmless};

const GAP: usize = 2;

/// A list: headings and rows of cells.
#[derive(Debug, Clone)]
pub(crate) struct Columns {
    headings: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

/// One cell.
#[derive(Debug, Clone)]
pub(crate) struct Cell {
    text: String,
    style: Option<Style>,
}

impl Cell {
    /// A cell in a style.
    pub(crate) fn styled(text: impl AsRef<str>, style: Style) -> Self {
        Self { style: Some(style), ..Self::from(text.as_ref()) }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        let one_line = text.lines().next().unwrap_or_default();
        Self { text: harmless(one_line).into_owned(), style: None }
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::from(text.as_str())
    }
}

impl Columns {
    /// An empty list with these headings.
    pub(crate) fn new(headings: &[&'static str]) -> Self {
        Self { headings: headings.to_vec(), rows: Vec::new() }
    }

    /// Adds a row; it has as many cells as there are headings.
    pub(crate) fn row<const N: usize>(&mut self, cells: [Cell; N]) {
        debug_assert_eq!(N, self.headings.len());
        self.rows.push(cells.into());
    }

    /// Adds a row of as many cells as there are headings, whose number only the caller knows.
    pub(crate) fn row_of(&mut self, cells: Vec<Cell>) {
        debug_assert_eq!(cells.len(), self.headings.len());
        self.rows.push(cells);
    }

    /// The list as text, no line wider than `width` unless one single cell is.
    pub(crate) fn render(&self, width: Option<usize>, paint: Paint) -> String {
        let widths = self.widths();
        let total = widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1);
        match width {
            Some(width) if total > width => self.as_blocks(paint),
            _ => self.as_table(&widths, paint),
        }
    }

    fn widths(&self) -> Vec<usize> {
        let cells = |column: usize| self.rows.iter().filter_map(move |row| row.get(column)).map(|cell| cell.text.chars().count());
        self.headings.iter().enumerate().map(|(n, heading)| cells(n).max().unwrap_or(0).max(heading.len())).collect()
    }

    fn as_table(&self, widths: &[usize], paint: Paint) -> String {
        let headings: Vec<_> = self.headings.iter().map(|text| Cell::styled(text.to_uppercase(), Style::Dim)).collect();
        let mut text = String::new();
        for row in std::iter::once(&headings).chain(&self.rows) {
            let mut line = String::new();
            let mut owed = 0;
            for (cell, width) in row.iter().zip(widths) {
                // Padding is written only when something follows it: no line ends with spaces.
                if cell.text.is_empty() {
                    owed += width + GAP;
                    continue;
                }
                line.push_str(&" ".repeat(owed));
                line.push_str(&show(cell, paint));
                owed = width - cell.text.chars().count() + GAP;
            }
            text.push_str(&line);
            text.push('\n');
        }
        text
    }

    fn as_blocks(&self, paint: Paint) -> String {
        let label = self.headings.iter().map(|heading| heading.len()).max().unwrap_or(0);
        let mut text = String::new();
        for (n, row) in self.rows.iter().enumerate() {
            if n > 0 {
                text.push('\n');
            }
            for (heading, cell) in self.headings.iter().zip(row).filter(|(_, cell)| !cell.text.is_empty()) {
                let heading = paint.with(Style::Dim, format!("{heading:label$}"));
                text.push_str(&format!("{heading}  {}\n", show(cell, paint)));
            }
        }
        text
    }
}

fn show(cell: &Cell, paint: Paint) -> String {
    match cell.style {
        Some(style) => paint.with(style, &cell.text),
        None => cell.text.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list() -> Columns {
        let mut columns = Columns::new(&["instance", "state", "since"]);
        columns.row(["shop.v3.web.1".into(), Cell::styled("running", Style::Green), "2 m".into()]);
        columns.row(["shop.v3.cron.nightly.1".into(), "exited".into(), "".into()]);
        columns
    }

    #[test]
    fn columns_are_aligned_and_lines_do_not_end_with_spaces() {
        insta::assert_snapshot!(list().render(None, Paint(false)), @r"
        INSTANCE                STATE    SINCE
        shop.v3.web.1           running  2 m
        shop.v3.cron.nightly.1  exited
        ");
    }

    #[test]
    fn on_a_narrow_terminal_each_entry_is_a_block() {
        insta::assert_snapshot!(list().render(Some(30), Paint(false)), @r"
        instance  shop.v3.web.1
        state     running
        since     2 m

        instance  shop.v3.cron.nightly.1
        state     exited
        ");
    }

    #[test]
    fn a_cell_of_others_making_stays_on_its_line() {
        let mut columns = Columns::new(&["cause"]);
        columns.row(["first\nsecond\x1b[2J".into()]);
        assert_eq!(columns.render(None, Paint(false)), "CAUSE\nfirst\n");
    }
}
