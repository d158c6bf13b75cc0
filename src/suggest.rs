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

/// Counts the characters to insert, delete, replace or exchange with the next one to get from `a` to `b`, no place
/// touched twice (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let (mut before, mut last): (Vec<usize>, Vec<usize>) = (Vec::new(), (0..=b.len()).collect());
    for i in 0..a.len() {
        let mut row = Vec::with_capacity(b.len() + 1);
        row.push(i + 1);
        for j in 0..b.len() {
            let replaced = last[j] + usize::from(a[i] != b[j]);
            let mut least = replaced.min(row[j] + 1).min(last[j + 1] + 1);
            if i > 0 && j > 0 && a[i] == b[j - 1] && a[i - 1] == b[j] {
                least = least.min(before[j - 1] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
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

    #[test]
    fn two_letters_that_changed_places_are_one_slip() {
        for (word, near) in
            [("RNU", "RUN"), ("EVN", "ENV"), ("AGR", "ARG"), ("ADD1", "ADD"), ("FORM", "FROM")]
        {
            assert_eq!(nearest(word, ["ADD", "ARG", "ENV", "FROM", "RUN"]), Some(near), "{word}");
        }
        assert_eq!(
            [distance("ca", "abc"), distance("ab", "ba"), distance("", "ab"), distance("ab", "")],
            [3, 1, 2, 2]
        );
    }
}
