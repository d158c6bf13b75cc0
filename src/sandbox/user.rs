//! Who `USER` names: the container's own passwd and group files, read by descriptor and parsed here.
//!
//! No library of the image or of the host is asked (CVE-2019-14271), and a pipe or link in place of a file neither
//! hangs nor leads out. The rules are docker's: see [`resolve`].

use super::error::{Setup, SetupError, show};
use crate::sys::inroot::open_in_root;
use rustix::fs::{FileType, Mode, OFlags, fstat};
use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;

/// Larger ids are negative numbers to some programs (CVE-2024-40635).
const MAX_ID: u32 = i32::MAX as u32;

/// More of a passwd or group file is not read, bytes.
const MAX_FILE: u64 = 16 << 20;

/// Numbers and home of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    /// `/` when the user is not listed.
    pub home: Vec<u8>,
}

/// Looks `user`, `user:group` (names or numbers, empty for root) and further groups up below `root`.
///
/// A listed user without an explicit group has its own group and its supplementary groups; with one it has that group
/// alone. The group is always a supplementary one, too. Numbers need not be listed, names must be.
pub(super) fn resolve(root: impl AsFd, user: &str, extra: &[String]) -> Setup<Identity> {
    let passwd = read(&root, "etc/passwd");
    let needs_groups = user.contains(':') || !extra.is_empty() || passwd.is_some();
    let group = if needs_groups { read(&root, "etc/group") } else { None };
    lookup(user, extra, &passwd.unwrap_or_default(), &group.unwrap_or_default())
}

fn read(root: impl AsFd, path: &str) -> Option<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = open_in_root(root, path, flags, Mode::empty()).ok()?;
    if FileType::from_raw_mode(fstat(&file).ok()?.st_mode) != FileType::RegularFile {
        return None;
    }
    let mut text = Vec::new();
    File::from(file).take(MAX_FILE).read_to_end(&mut text).ok()?;
    Some(text)
}

fn lookup(user: &str, extra: &[String], passwd: &[u8], group: &[u8]) -> Setup<Identity> {
    let (name, group_name) = user.split_once(':').unwrap_or((user, ""));
    let name = if name.is_empty() { "0" } else { name };
    let number = id(name.as_bytes());
    let listed =
        entries(passwd).find(|e| e.name == name.as_bytes() || number.is_some_and(|n| e.uid() == Some(n)));
    let uid = match listed.as_ref().and_then(Entry::uid).or(number) {
        Some(uid) => uid,
        None => return Err(unknown("user", name, "passwd")),
    };
    let mut groups = Vec::new();
    let gid = if group_name.is_empty() {
        if let Some(entry) = &listed {
            groups = entries(group)
                .filter(|g| g.has_member(entry.name))
                .filter_map(|g| g.gid_of_group())
                .collect();
        }
        listed.as_ref().and_then(Entry::gid_of_user).unwrap_or(0)
    } else {
        find_group(group_name, group)?
    };
    for more in extra {
        groups.push(find_group(more, group)?);
    }
    // the own group is among them, lest a file that denies it be read by way of "others" (CVE-2023-25173)
    groups.push(gid);
    groups.sort_unstable();
    groups.dedup();
    let home = entries(passwd).find(|e| e.uid() == Some(uid)).and_then(|e| e.home()).unwrap_or(b"/");
    Ok(Identity { uid, gid, groups, home: home.to_vec() })
}

fn find_group(name: &str, group: &[u8]) -> Setup<u32> {
    let number = id(name.as_bytes());
    entries(group)
        .find(|g| g.name == name.as_bytes() || number.is_some_and(|n| g.gid_of_group() == Some(n)))
        .and_then(|g| g.gid_of_group())
        .or(number)
        .ok_or_else(|| unknown("group", name, "group"))
}

fn unknown(kind: &str, name: &str, file: &str) -> SetupError {
    let doing = format!("unable to find {kind} {}", show(name.as_bytes()));
    match name.parse::<u64>() {
        Ok(_) => SetupError::new(doing, format!("ids go up to {MAX_ID}")),
        Err(_) => SetupError::new(doing, format!("no matching entries in {file} file")).hint(format!(
            "create it in an earlier step or use a number; looked in /etc/{file} of the image"
        )),
    }
}

/// One line of passwd or group.
struct Entry<'a> {
    name: &'a [u8],
    fields: Vec<&'a [u8]>,
}

fn entries(file: &[u8]) -> impl Iterator<Item = Entry<'_>> {
    file.split(|b| *b == b'\n')
        .map(<[u8]>::trim_ascii)
        .filter(|line| !line.is_empty() && line[0] != b'#')
        .map(|line| {
            let fields: Vec<_> = line.split(|b| *b == b':').collect();
            Entry { name: fields[0], fields }
        })
}

impl<'a> Entry<'a> {
    fn uid(&self) -> Option<u32> {
        id(self.fields.get(2)?)
    }

    fn gid_of_user(&self) -> Option<u32> {
        id(self.fields.get(3)?)
    }

    fn gid_of_group(&self) -> Option<u32> {
        id(self.fields.get(2)?)
    }

    fn home(&self) -> Option<&'a [u8]> {
        self.fields.get(5).copied().filter(|home| !home.is_empty())
    }

    fn has_member(&self, user: &[u8]) -> bool {
        !user.is_empty()
            && self.fields.get(3).is_some_and(|list| list.split(|b| *b == b',').any(|m| m == user))
    }
}

fn id(text: &[u8]) -> Option<u32> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok().filter(|id| *id <= MAX_ID)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] =
        b"root:x:0:0:root:/root:/bin/sh\n# comment\n\napp:x:1000:1001::/home/app:/bin/sh\nbad:x:zz:1::/:\n\
        42:x:7:8::/seven:\nhomeless:x:9:9:::\n";
    const GROUP: &[u8] =
        b"root:x:0:\nbin:x:1:root,daemon\nwheel:x:10:root,app\napp:x:1001:\ndocker:x:999:other\n";

    fn who(user: &str) -> Result<(u32, u32, Vec<u32>, String), String> {
        let found = lookup(user, &[], PASSWD, GROUP).map_err(|e| e.to_string())?;
        Ok((found.uid, found.gid, found.groups, String::from_utf8_lossy(&found.home).into_owned()))
    }

    #[test]
    fn users_and_groups_follow_docker() {
        for (user, uid, gid, groups, home) in [
            ("", 0, 0, &[0, 1, 10][..], "/root"),
            ("root", 0, 0, &[0, 1, 10], "/root"),
            ("0", 0, 0, &[0, 1, 10], "/root"),
            ("app", 1000, 1001, &[10, 1001], "/home/app"),
            ("1000", 1000, 1001, &[10, 1001], "/home/app"),
            ("app:docker", 1000, 999, &[999], "/home/app"),
            ("1000:5", 1000, 5, &[5], "/home/app"),
            ("app:", 1000, 1001, &[10, 1001], "/home/app"),
            ("5555", 5555, 0, &[0], "/"),
            ("5555:wheel", 5555, 10, &[10], "/"),
            ("42", 7, 8, &[8], "/seven"),
            ("homeless", 9, 9, &[9], "/"),
        ] {
            assert_eq!(who(user), Ok((uid, gid, groups.to_vec(), home.to_owned())), "{user}");
        }
    }

    #[test]
    fn unknown_names_and_huge_numbers_are_errors() {
        for (user, text) in [
            ("nobody", "unable to find user nobody: no matching entries in passwd file"),
            ("app:staff", "unable to find group staff: no matching entries in group file"),
            ("2147483648", "ids go up to 2147483647"),
            ("0:4294967296", "ids go up to"),
            ("bad", "unable to find user bad"),
            ("-1", "unable to find user -1"),
        ] {
            let error = who(user).unwrap_err();
            assert!(error.contains(text), "{user}: {error}");
        }
    }

    #[test]
    fn further_groups_are_added_once() {
        let found = lookup("app", &["docker".into(), "10".into(), "77".into()], PASSWD, GROUP).unwrap();
        assert_eq!(found.groups, [10, 77, 999, 1001]);
    }

    #[test]
    fn numbers_need_no_files_and_a_pipe_does_not_hang() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        let root = crate::sys::inroot::open_root(dir.path()).unwrap();
        assert_eq!(resolve(&root, "12:34", &[]).unwrap().gid, 34);
        assert_eq!(resolve(&root, "", &[]).unwrap().uid, 0);
        let etc = crate::sys::inroot::open_dir_in_root(&root, "etc").unwrap();
        crate::sys::file::mknod_at(&etc, std::ffi::OsStr::new("passwd"), FileType::Fifo, 0o644, 0, 0)
            .unwrap();
        assert_eq!(resolve(&root, "12", &[]).unwrap().uid, 12);
        assert!(resolve(&root, "app", &[]).is_err());
    }
}
