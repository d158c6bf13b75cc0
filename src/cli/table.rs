//! Tables, sizes and short ids as docker prints them.

use crate::dockerfile::visible;

/// Lines up cells: each column as wide as its widest cell and three spaces, at least ten characters. The last
/// column is not padded. Control characters are made visible: each row stays one line.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    table_of(rows, 10)
}

/// The same with another least width.
pub(super) fn table_of(rows: &[Vec<String>], least: usize) -> String {
    let rows: Vec<Vec<_>> = rows.iter().map(|row| row.iter().map(|cell| visible(cell)).collect()).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        (cells.map(|cell| cell.chars().count()).max().unwrap_or(0) + 3).max(least)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in &rows {
        for (at, cell) in row.iter().enumerate() {
            out.push_str(cell);
            if at + 1 < row.len() {
                let pad = widths[at].saturating_sub(cell.chars().count());
                out.extend(std::iter::repeat_n(' ', pad));
            }
        }
        out.push('\n');
    }
    out
}

/// Writes bytes in powers of 1000 with three digits: `1.24MB`.
pub(super) fn human_size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let mut size = bytes as f64;
    let mut unit = 0;
    while size >= 1000.0 && unit + 1 < UNITS.len() {
        size /= 1000.0;
        unit += 1;
    }
    let decimals = if size >= 100.0 {
        0
    } else if size >= 10.0 {
        1
    } else {
        2
    };
    let text = format!("{size:.decimals$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{}", UNITS[unit])
}

/// Cuts a text to `width` characters, the last of them an ellipsis; control bytes become spaces.
pub(super) fn cut(text: &str, width: usize) -> String {
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if clean.chars().count() <= width {
        return clean;
    }
    clean.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_dockers() {
        for (bytes, want) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (1536, "1.54kB"),
            (77_800_000, "77.8MB"),
            (4_261_502, "4.26MB"),
            (123_456_789, "123MB"),
            (1_200_000_000, "1.2GB"),
        ] {
            assert_eq!(human_size(bytes), want);
        }
    }

    #[test]
    fn columns_line_up() {
        let rows = [vec!["A".to_owned(), "B".into()], vec!["a long cell".into(), "x".into()]];
        assert_eq!(table(&rows), "A             B\na long cell   x\n");
        assert_eq!(cut("one\ntwo three", 8), "one two…");
        assert_eq!(cut("short", 8), "short");
    }
}
