//! The tables that `rocks list` prints. Pure.

use std::collections::BTreeMap;

/// One row: values by heading, in lower case. What is empty is missing.
pub type Row = BTreeMap<String, String>;

/// Reads a table. Columns begin where their headings do: a value may have spaces in it. Where all
/// rows have one owner Rocks leaves the first column out; then it is missing here too.
pub fn parse(text: &str) -> Vec<Row> {
    let mut lines = text.lines();
    let Some(header) = lines.next() else {
        return Vec::new();
    };
    let columns = columns(header);
    let row = |line: &str| {
        let cell = |(number, (start, name)): (usize, &(usize, String))| {
            let end = columns
                .get(number + 1)
                .map_or(line.len(), |(next, _)| *next);
            let text = line.get(*start..end.min(line.len()))?.trim();
            // The owner's column ends with a colon, an empty cell is all hyphens.
            let text = text
                .strip_suffix(':')
                .filter(|_| number == 0)
                .unwrap_or(text);
            let empty = text.bytes().all(|b| b == b'-');
            (!empty).then(|| (name.clone(), text.to_owned()))
        };
        columns.iter().enumerate().filter_map(cell).collect::<Row>()
    };
    lines.map(row).filter(|row| !row.is_empty()).collect()
}

/// Where each heading begins.
fn columns(header: &str) -> Vec<(usize, String)> {
    let mut columns = Vec::new();
    let mut at = 0;
    for word in header.split(' ') {
        if !word.is_empty() {
            columns.push((at, word.to_lowercase()));
        }
        at += word.len() + 1;
    }
    columns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_with_spaces_and_empty_ones_are_read() {
        let text = "\
HOST          MEMBERSHIP      CPUS IP
cluster:      Frontend        2    ----------
switch-0-0:   Ethernet Switch 1    10.1.255.1
";
        let rows = parse(text);
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[0]["host"], "cluster");
        assert!(!rows[0].contains_key("ip"));
        assert_eq!(rows[1]["membership"], "Ethernet Switch");
        assert_eq!(rows[1]["ip"], "10.1.255.1");
    }

    #[test]
    fn a_table_of_one_owner_has_no_owner_and_no_table_no_rows() {
        let rows = parse("SUBNET  IFACE MAC\nprivate eth0  ---\n");
        assert_eq!(rows[0]["subnet"], "private");
        assert_eq!(rows[0].get("host"), None);
        assert_eq!(rows[0].get("mac"), None);
        assert_eq!(parse(""), Vec::<Row>::new());
    }
}
