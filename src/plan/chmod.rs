//! Whether `--chmod` is a mode: octal, or symbolic as chmod(1) has it.
//!
//! The text stays as it is; the copy engine applies it to each file.

/// Says what is wrong with a mode, or `None`.
pub(super) fn fault(mode: &str) -> Option<String> {
    let numeric = mode.starts_with(|c: char| c.is_ascii_digit());
    let good = if numeric { is_octal(mode) } else { mode.split(',').all(is_clause) };
    (!good).then(|| {
        format!(
            "invalid --chmod {mode:?}: expected octal digits between 0 and 7777 or a mode like u=rwX,go=rX"
        )
    })
}

fn is_octal(mode: &str) -> bool {
    u32::from_str_radix(mode, 8).is_ok_and(|bits| bits <= 0o7777)
}

/// Checks `[ugoa]*` and then one or more of `[-+=][rwxXst]*` or `[-+=][ugo]`.
fn is_clause(clause: &str) -> bool {
    let mut rest = clause.trim_start_matches(['u', 'g', 'o', 'a']);
    if rest.is_empty() {
        return false;
    }
    while let Some(after) = rest.strip_prefix(['-', '+', '=']) {
        let copied = after.strip_prefix(['u', 'g', 'o']);
        rest = copied.unwrap_or_else(|| after.trim_start_matches(['r', 'w', 'x', 'X', 's', 't']));
    }
    rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_octal_or_symbolic() {
        for good in
            ["0", "644", "0755", "7777", "u=rwX,go=rX", "+x", "a-w", "g=u", "u+s", "=", "u=rw-x", "+t,o="]
        {
            assert_eq!(fault(good), None, "{good}");
        }
        for bad in ["", "8", "10000", "0o644", "rwx", "u", "u=rwz", "u=rw,", "go", "u=ux", "75 5", "644,u+x"]
        {
            assert!(fault(bad).is_some(), "{bad}");
        }
    }
}
