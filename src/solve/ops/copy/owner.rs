//! `--chown`: user and group, looked up in the root file system that the files go to.

use super::CopyError;
use super::resolve::resolve;
use crate::tree::{SourceNode, SourceTree};
use std::io::{self, Read};

/// As much of passwd and group as BuildKit reads, in bytes.
const LIMIT: u64 = 10 << 20;

/// Owner and group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// Looks `user[:group]` up. A number is itself, and its own group when none is given; a name has the group that
/// passwd gives it; a colon with nothing behind it means root's group, as for BuildKit. Unknown names are errors.
pub(super) fn lookup(value: &str, root: &dyn SourceTree) -> Result<Owner, CopyError> {
    let fail = |why: String| CopyError::Chown { value: value.to_owned(), why };
    let (user, group) = value.split_once(':').map_or((value, None), |(u, g)| (u, Some(g)));
    let number = |text: &str| -> Result<Option<u32>, CopyError> {
        match text {
            "root" => Ok(Some(0)),
            _ if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) => Ok(None),
            _ => match text.parse::<u32>() {
                // the largest one means "leave it" to the kernel
                Ok(id) if id != u32::MAX => Ok(Some(id)),
                _ => Err(fail(format!("{text} is not an id (0 to 4294967294)"))),
            },
        }
    };
    let mut owner = match (user, number(user)?) {
        ("", _) => Owner { uid: 0, gid: 0 },
        (_, Some(id)) => Owner { uid: id, gid: id },
        (name, None) => {
            let fields = find(root, "etc/passwd", name).map_err(|e| fail(e.to_string()))?;
            let id = |at: usize| fields.as_ref().and_then(|f| f.get(at)?.parse().ok());
            match (id(2), id(3)) {
                (Some(uid), Some(gid)) => Owner { uid, gid },
                _ => return Err(fail(missing("user", name, "passwd"))),
            }
        }
    };
    if let Some("") = group {
        owner.gid = 0;
    } else if let Some(group) = group {
        owner.gid = match number(group)? {
            Some(id) => id,
            None => {
                let fields = find(root, "etc/group", group).map_err(|e| fail(e.to_string()))?;
                let id = fields.and_then(|f| f.get(2)?.parse().ok());
                id.ok_or_else(|| fail(missing("group", group, "group")))?
            }
        };
    }
    Ok(owner)
}

fn missing(kind: &str, name: &str, file: &str) -> String {
    format!("there is no {kind} {name} in the image's /etc/{file}; add it before this step or use a number")
}

/// Finds the line of a name and gives its fields.
fn find(root: &dyn SourceTree, file: &str, name: &str) -> io::Result<Option<Vec<String>>> {
    let place = resolve(&|p| root.stat(p), file.as_bytes(), true)?;
    match place.entry.map(|e| e.node) {
        None => return Ok(None),
        Some(SourceNode::File { size }) if size <= LIMIT => {}
        Some(SourceNode::File { .. }) => {
            return Err(io::Error::other(format!("/{file} is larger than 10 MiB")));
        }
        Some(_) => return Err(io::Error::other(format!("/{file} is not a regular file"))),
    }
    let mut text = Vec::new();
    root.open(&place.path)?.take(LIMIT).read_to_end(&mut text)?;
    let line = text
        .split(|b| *b == b'\n')
        .map(<[u8]>::trim_ascii)
        .find(|line| line.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.starts_with(b":")));
    Ok(line.map(|l| l.split(|b| *b == b':').map(|f| String::from_utf8_lossy(f).into_owned()).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::solve::ops::copy::tests::Memory;

    #[test]
    fn owners_are_looked_up_in_the_destination() {
        let tree = Memory::new()
            .dir("etc")
            .file("etc/passwd", "root:x:0:0::/:/bin/sh\n# c\n app:x:1000:100:App:/:\nodd:x\nbig:x:1:2\n")
            .file("real-group", "wheel:x:10:app\nusers:x:100:\n")
            .link("etc/group", "../real-group");
        for (value, uid, gid) in [
            ("1", 1, 1),
            ("1:2", 1, 2),
            ("root", 0, 0),
            ("app", 1000, 100),
            ("app:wheel", 1000, 10),
            ("app:7", 1000, 7),
            ("55:users", 55, 100),
            ("app:root", 1000, 0),
            ("app:", 1000, 0),
            (":wheel", 0, 10),
            ("3000000", 3_000_000, 3_000_000),
        ] {
            assert_eq!(lookup(value, &tree).unwrap(), Owner { uid, gid }, "{value}");
        }
        for value in ["nobody", "ap", "app:none", "odd", "4294967295", "99999999999", "1:99999999999", "-1"] {
            assert!(matches!(lookup(value, &tree), Err(CopyError::Chown { .. })), "{value}");
        }
    }

    #[test]
    fn without_passwd_only_numbers_and_root_are_known() {
        let tree = Memory::new();
        assert_eq!(lookup("root:root", &tree).unwrap(), Owner { uid: 0, gid: 0 });
        assert_eq!(lookup("5", &tree).unwrap(), Owner { uid: 5, gid: 5 });
        assert!(lookup("app", &tree).unwrap_err().to_string().contains("no user app"));
    }
}
