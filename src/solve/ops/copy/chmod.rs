//! `--chmod`: octal as it is, or symbolic as chmod(1) and BSD's setmode have it, with umask 0.

use super::CopyError;

const USER: u32 = 0o4700;
const GROUP: u32 = 0o2070;
const OTHER: u32 = 0o0007;
const ALL: u32 = USER | GROUP | OTHER;
const STICKY: u32 = 0o1000;
const EXECUTE: u32 = 0o111;

/// A parsed `--chmod`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Chmod {
    /// The mode itself.
    Octal(u32),
    /// Changes to the mode that is there.
    Symbolic(Vec<Change>),
}

/// One change; they are done in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    Clear(u32),
    Set(u32),
    /// `X`: set when it is a directory or could be executed before.
    SetIfExecutable(u32),
    /// `g=u` and the like: the three bits at shift `from`, to those of `to`.
    Copy {
        op: u8,
        from: u32,
        to: u32,
    },
}

impl Chmod {
    /// Parses the value of the flag.
    pub(super) fn parse(value: &str) -> Result<Self, CopyError> {
        let fail = || CopyError::Chmod { value: value.to_owned() };
        if value.starts_with(|c: char| c.is_ascii_digit()) {
            let octal = value.bytes().all(|b| b.is_ascii_digit());
            let mode = u32::from_str_radix(value, 8).ok().filter(|m| octal && *m <= 0o7777);
            return mode.map(Self::Octal).ok_or_else(fail);
        }
        let mut changes = Vec::new();
        for clause in value.split(',') {
            changes.extend(parse_clause(clause.as_bytes()).ok_or_else(fail)?);
        }
        Ok(Self::Symbolic(changes))
    }

    /// Gives the new mode of something that has `mode`.
    pub(super) fn apply(&self, mode: u32, is_dir: bool) -> u32 {
        let changes = match self {
            Self::Octal(mode) => return *mode,
            Self::Symbolic(changes) => changes,
        };
        let executable = is_dir || mode & EXECUTE != 0;
        changes.iter().fold(mode, |mode, change| match change {
            Change::Clear(bits) => mode & !bits,
            Change::Set(bits) => mode | bits,
            Change::SetIfExecutable(bits) if executable => mode | bits,
            Change::SetIfExecutable(_) => mode,
            Change::Copy { op, from, to } => {
                let spread = (((mode >> from) & 7) * EXECUTE) & to;
                match op {
                    b'+' => mode | spread,
                    b'-' => mode & !spread,
                    _ => mode & !(0o777 & to) | spread,
                }
            }
        })
    }

    /// Gives the mode for directories that the copy has to make on the way: octal counts for them, symbolic does not.
    pub(super) fn implied_dirs(this: Option<&Self>) -> u32 {
        match this {
            Some(Self::Octal(mode)) => mode & 0o777,
            _ => 0o755,
        }
    }
}

/// Reads `who op perms [op perms ...]`.
fn parse_clause(clause: &[u8]) -> Option<Vec<Change>> {
    let ops = clause.iter().position(|b| !b"augo".contains(b))?;
    let who = clause[..ops].iter().fold(0, |who, b| {
        who | match b {
            b'u' => USER,
            b'g' => GROUP,
            b'o' => OTHER,
            _ => ALL,
        }
    });
    let mut changes = Vec::new();
    let mut rest = &clause[ops..];
    while let [op @ (b'+' | b'-' | b'='), more @ ..] = rest {
        let len = more.iter().position(|b| b"+-=".contains(b)).unwrap_or(more.len());
        perms(*op, who, &more[..len], &mut changes)?;
        rest = &more[len..];
    }
    rest.is_empty().then_some(changes)
}

fn perms(op: u8, who: u32, perms: &[u8], changes: &mut Vec<Change>) -> Option<()> {
    let target = if who == 0 { ALL } else { who };
    // set-id and sticky bits mean nothing for others alone
    let special = who != OTHER;
    let (mut bits, mut if_executable, mut copies) = (0, 0, Vec::new());
    for perm in perms {
        match perm {
            b'r' => bits |= 0o444 & target,
            b'w' => bits |= 0o222 & target,
            b'x' => bits |= EXECUTE & target,
            b'X' if op == b'-' => bits |= EXECUTE & target,
            b'X' => if_executable |= EXECUTE & target,
            b's' if special => bits |= 0o6000 & target,
            b't' if special => bits |= STICKY,
            b's' | b't' => {}
            b'u' => copies.push(6),
            b'g' => copies.push(3),
            b'o' => copies.push(0),
            _ => return None,
        }
    }
    match op {
        b'=' if copies.is_empty() || bits != 0 => {
            changes.extend([Change::Clear(target | bits & STICKY), Change::Set(bits)]);
        }
        b'-' => changes.push(Change::Clear(bits)),
        _ => changes.push(Change::Set(bits)),
    }
    if if_executable != 0 {
        changes.push(Change::SetIfExecutable(if_executable));
    }
    changes.extend(copies.into_iter().map(|from| Change::Copy { op, from, to: target & 0o777 }));
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_change_as_chmod_changes_them() {
        // (value, mode, directory, result); results are chmod(1)'s own with umask 0
        for (value, mode, dir, want) in [
            ("755", 0o600, false, 0o755),
            ("0", 0o600, false, 0),
            ("07777", 0o600, false, 0o7777),
            ("4755", 0o600, true, 0o4755),
            ("u=rwX,go=rX", 0o640, false, 0o644),
            ("u=rwX,go=rX", 0o740, false, 0o755),
            ("u=rwX,go=rX", 0o700, true, 0o755),
            ("u=rwX,go=rX", 0o600, true, 0o755),
            ("+x", 0o644, false, 0o755),
            ("a+x", 0o644, false, 0o755),
            ("+X", 0o644, false, 0o644),
            ("+X", 0o644, true, 0o755),
            ("-w", 0o666, false, 0o444),
            ("go=", 0o777, false, 0o700),
            ("go-rwx", 0o777, false, 0o700),
            ("g=u", 0o740, false, 0o770),
            ("g+u", 0o741, false, 0o771),
            ("o-u", 0o757, false, 0o750),
            ("u+s", 0o755, false, 0o4755),
            ("g+s", 0o755, true, 0o2755),
            ("+t", 0o777, true, 0o1777),
            ("o+s", 0o755, false, 0o755),
            ("u=rw", 0o4755, false, 0o655),
            ("=r", 0o777, false, 0o444),
            ("u+r-x", 0o300, false, 0o600),
            ("u=rwx,g=u,o=g", 0o000, false, 0o777),
            ("ug+rw,o-rwx", 0o407, false, 0o660),
            ("a-X", 0o755, false, 0o644),
        ] {
            assert_eq!(Chmod::parse(value).unwrap().apply(mode, dir), want, "{value} on {mode:o}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for value in [
            "",
            "8",
            "10000",
            "0o755",
            "7x5",
            "u",
            "rwx",
            "u+q",
            "u=rw,",
            ",u=r",
            "z+x",
            "+x;",
            "99999999999",
        ] {
            assert!(matches!(Chmod::parse(value), Err(CopyError::Chmod { .. })), "{value}");
        }
    }

    #[test]
    fn only_octal_counts_for_implied_directories() {
        let implied = |value: &str| Chmod::implied_dirs(Some(&Chmod::parse(value).unwrap()));
        assert_eq!(implied("644"), 0o644);
        assert_eq!(implied("4755"), 0o755);
        assert_eq!(implied("u=rw"), 0o755);
        assert_eq!(Chmod::implied_dirs(None), 0o755);
    }
}
