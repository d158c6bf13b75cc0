//! The ids of a user namespace: the ranges of `/etc/subuid` and `/etc/subgid`, or the user's own id alone.

use super::RootlessError;
use std::process::Command;

/// Maps the ids of a new user namespace and says how many.
pub(super) fn map(child: i32, uid: u32, gid: u32) -> Result<u32, RootlessError> {
    let names = user_names(uid);
    let ranges = |file: &str| ranges_of(&std::fs::read_to_string(file).unwrap_or_default(), uid, &names);
    let (uids, gids) = (ranges("/etc/subuid"), ranges("/etc/subgid"));
    if !uids.is_empty() && !gids.is_empty() && has_map_tools() {
        run_map_tool("newuidmap", child, uid, &uids)?;
        run_map_tool("newgidmap", child, gid, &gids)?;
        return Ok(1 + uids.iter().map(|r| r.1).sum::<u32>().min(gids.iter().map(|r| r.1).sum()));
    }
    let write = |file: &str, text: String| {
        let path = format!("/proc/{child}/{file}");
        std::fs::write(&path, text)
            .map_err(|e| RootlessError::Mapping { why: format!("writing {path}: {e}") })
    };
    write("setgroups", "deny".into())?;
    write("uid_map", format!("0 {uid} 1"))?;
    write("gid_map", format!("0 {gid} 1"))?;
    Ok(1)
}

fn run_map_tool(tool: &str, child: i32, own: u32, ranges: &[(u32, u32)]) -> Result<(), RootlessError> {
    let mut command = Command::new(tool);
    command.arg(child.to_string()).args(["0", &own.to_string(), "1"]);
    let mut inside = 1u32;
    for (first, count) in ranges {
        command.args([inside, *first, *count].map(|n| n.to_string()));
        inside = inside.saturating_add(*count);
    }
    let out = command
        .output()
        .map_err(|e| RootlessError::Mapping { why: format!("{tool} cannot be executed: {e}") })?;
    if out.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&out.stderr).trim().escape_debug().to_string();
    let hint = "is it setuid root or does it have its file capability, and do its ranges not overlap?";
    Err(RootlessError::Mapping { why: format!("{tool} failed: {said} ({hint})") })
}

/// First id and count of each range of a user in `/etc/subuid` or `/etc/subgid`.
fn ranges_of(file: &str, uid: u32, names: &[String]) -> Vec<(u32, u32)> {
    let number = uid.to_string();
    file.lines()
        .filter_map(|line| {
            let mut fields = line.trim().split(':');
            let owner = fields.next()?;
            let range = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
            let ours = owner == number || names.iter().any(|name| name == owner);
            (ours && range.1 > 0).then_some(range)
        })
        .collect()
}

/// The user's name as the passwd file has it, else as the environment says: newuidmap checks it anyway.
pub(super) fn user_names(uid: u32) -> Vec<String> {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let mut names: Vec<String> = passwd
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
        })
        .collect();
    if names.is_empty() {
        names.extend(["USER", "LOGNAME"].iter().filter_map(|key| std::env::var(key).ok()));
    }
    names
}

pub(super) fn has_map_tools() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    ["newuidmap", "newgidmap"]
        .iter()
        .all(|tool| std::env::split_paths(&path).any(|dir| dir.join(tool).is_file()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_found_by_name_and_number() {
        let file = "other:1:2\nme:100000:65536\n1000:300000:10\nme:bad:1\nme:5\nme:7:0\n";
        assert_eq!(ranges_of(file, 1000, &["me".to_owned()]), [(100_000, 65536), (300_000, 10)]);
        assert!(ranges_of(file, 55, &[]).is_empty());
    }
}
