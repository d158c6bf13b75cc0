//! "Did you mean": the nearest of some words by edit distance.

/// Words that differ in more places than this are not suggested.
const FARTHEST: usize = 2;

/// Words longer than this are not compared; nobody mistypes them.
const LONGEST: usize = 64;

/// Finds the option nearest to `word`. Nothing is near when an option is the word itself, since then the word was
/// not the fault. Of equally near ones the first wins.
pub fn nearest<'a>(word: &str, options: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let mut best: Option<(usize, &'a str)> = None;
    for option in options {
        if option == word {
            return None;
        }
        if word.len() > LONGEST || option.len() > LONGEST {
            continue;
        }
        let far = distance(word, option);
        if far <= FARTHEST && far < option.chars().count() && best.is_none_or(|(least, _)| far < least) {
            best = Some((far, option));
        }
    }
    best.map(|(_, option)| option)
}

/// Counts the characters to insert, delete or replace to get from `a` to `b` (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_only_what_is_near() {
        let cases = [
            ("frm", Some("from")),
            ("chwon", Some("chown")),
            ("from", None),
            ("platfrom", Some("platform")),
            ("xyz", None),
            ("", None),
        ];
        for (word, near) in cases {
            assert_eq!(nearest(word, ["from", "chown", "platform", "id"]), near, "{word}");
        }
    }
}
