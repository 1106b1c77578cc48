//! How Rocks prints a table: the owner first, unless there is only one; columns as wide as their
//! widest cell; an empty cell as hyphens.

/// A table to print.
#[derive(Debug, Default)]
pub struct List {
    header: Vec<&'static str>,
    rows: Vec<Vec<Option<String>>>,
}

impl List {
    /// An empty one; the first column is the owner's.
    pub fn new(header: &[&'static str]) -> Self {
        Self {
            header: header.to_vec(),
            rows: Vec::new(),
        }
    }

    /// Adds a row.
    pub fn add(&mut self, owner: &str, cells: Vec<Option<String>>) {
        let owner = Some(format!("{owner}:"));
        self.rows
            .push(std::iter::once(owner).chain(cells).collect());
    }

    /// The text; nothing for no rows.
    pub fn text(&self) -> String {
        if self.rows.is_empty() {
            return String::new();
        }
        let several = self.rows.iter().any(|row| row[0] != self.rows[0][0]);
        let first = usize::from(!several);
        let header = self.header.iter().map(|name| Some(name.to_uppercase()));
        let lines: Vec<Vec<Option<String>>> = std::iter::once(header.collect())
            .chain(self.rows.iter().cloned())
            .collect();
        let width = |column: usize| {
            let cells = lines.iter().filter_map(|line| line[column].as_ref());
            cells.map(String::len).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.header.len()).map(width).collect();
        let cell = |line: &[Option<String>], column: usize| match &line[column] {
            Some(text) if !text.is_empty() => format!("{text:0$}", widths[column]),
            _ => "-".repeat(widths[column]),
        };
        let line = |line: &Vec<Option<String>>| {
            let cells: Vec<_> = (first..line.len()).map(|c| cell(line, c)).collect();
            cells.join(" ") + "\n"
        };
        lines.iter().map(line).collect()
    }
}
