//! The small languages of flags: sizes, limits, secrets, lists of `NAME=VALUE`.

use super::CliError;
use crate::sandbox::{Rlimit, RlimitKind, SeccompProfile};
use crate::solve::SecretSource;
use std::path::{Path, PathBuf};

/// Reads a number of bytes with docker's units: `b k m g t`, with or without a further `b`, powers of 1024.
pub(super) fn bytes(flag: &str, text: &str) -> Result<u64, CliError> {
    let bad = || CliError::new(format!("{flag} {text:?}: expected a number of bytes such as 512m or 2g"));
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let power = match lower[digits.len()..].trim_end_matches("ib").trim_end_matches('b') {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        _ => return Err(bad()),
    };
    let number: f64 = digits.trim().parse().map_err(|_| bad())?;
    let bytes = number * 1024_f64.powi(power);
    if bytes.is_finite() && (0.0..9e18).contains(&bytes) { Ok(bytes as u64) } else { Err(bad()) }
}

/// Reads `NAME=SOFT[:HARD]`; -1 is unlimited.
pub(super) fn ulimit(text: &str) -> Result<Rlimit, CliError> {
    let bad = |why: &str| {
        CliError::new(format!("--ulimit {text:?}: {why}"))
            .hint("write NAME=SOFT[:HARD], for example nofile=1024:4096")
    };
    let (name, value) = text.split_once('=').ok_or_else(|| bad("there is no ="))?;
    let kind = RlimitKind::parse(name).ok_or_else(|| bad("there is no limit of this name"))?;
    let (soft, hard) = value.split_once(':').unwrap_or((value, value));
    let number = |text: &str| match text {
        "-1" | "unlimited" => Ok(None),
        _ => text.parse().map(Some).map_err(|_| bad("the limit is no number")),
    };
    let limit = Rlimit { kind, soft: number(soft)?, hard: number(hard)? };
    match (limit.soft, limit.hard) {
        (Some(soft), Some(hard)) if soft > hard => Err(bad("the soft limit is above the hard one")),
        (None, Some(_)) => Err(bad("the soft limit is above the hard one")),
        _ => Ok(limit),
    }
}

/// Reads `id=ID[,src=FILE][,env=NAME][,type=file|env]`.
pub(super) fn secret(text: &str) -> Result<(String, SecretSource), CliError> {
    let bad = |why: String| {
        CliError::new(format!("--secret {text:?}: {why}")).hint("write id=ID,src=FILE or id=ID,env=NAME")
    };
    let (mut id, mut file, mut env, mut kind) = (None, None, None, None);
    for field in text.split(',') {
        let (key, value) = field.split_once('=').ok_or_else(|| bad(format!("{field:?} has no =")))?;
        match key.to_ascii_lowercase().as_str() {
            "id" => id = Some(value.to_owned()),
            "src" | "source" => file = Some(value.to_owned()),
            "env" => env = Some(value.to_owned()),
            "type" if value == "file" || value == "env" => kind = Some(value.to_owned()),
            "type" => return Err(bad(format!("there is no type {value:?}, only file and env"))),
            _ => return Err(bad(format!("there is no key {key:?}"))),
        }
    }
    // docker takes src for the variable's name when the type is env
    if kind.as_deref() == Some("env") && env.is_none() {
        env = file.take();
    }
    let id = id.filter(|id| !id.is_empty()).ok_or_else(|| bad("there is no id".into()))?;
    let source = match (file, env) {
        (Some(_), Some(_)) => return Err(bad("src and env exclude each other".into())),
        (Some(file), None) => SecretSource::File(PathBuf::from(file)),
        (None, Some(env)) => SecretSource::Env(env),
        (None, None) if kind.as_deref() != Some("file") && std::env::var_os(&id).is_some() => {
            SecretSource::Env(id.clone())
        }
        (None, None) => SecretSource::File(PathBuf::from(&id)),
    };
    if let SecretSource::File(path) = &source {
        std::fs::metadata(path).map_err(|e| bad(format!("{}: {e}", path.display())))?;
    }
    Ok((id, source))
}

/// Reads `default`, `ID` or `ID=SOCKET`.
pub(super) fn agent(text: &str) -> Result<(String, PathBuf), CliError> {
    let bad = |why: &str| CliError::new(format!("--ssh {text:?}: {why}"));
    match text.split_once('=') {
        Some((id, path)) if is_socket(Path::new(path)) => Ok((id.to_owned(), PathBuf::from(path))),
        Some(_) => Err(bad("that is no agent socket; keys must be added to an agent first (ssh-add)")),
        None => match std::env::var_os("SSH_AUTH_SOCK") {
            Some(path) => Ok((text.to_owned(), path.into())),
            None => Err(bad("SSH_AUTH_SOCK is not set; start ssh-agent or name a socket: --ssh ID=SOCKET")),
        },
    }
}

fn is_socket(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    std::fs::metadata(path).is_ok_and(|m| m.file_type().is_socket())
}

/// What `--security-opt` changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Security {
    pub(super) no_new_privs: bool,
    pub(super) seccomp: bool,
    /// A filter of the user's own.
    pub(super) profile: Option<SeccompProfile>,
    /// Nothing of `/proc` and `/sys` is hidden.
    pub(super) bare_paths: bool,
    /// The cgroup tree can be written to.
    pub(super) writable_cgroups: bool,
    /// An AppArmor profile.
    pub(super) apparmor: Option<String>,
    /// What is said of SELinux labels.
    pub(super) labels: Vec<String>,
}

/// The option that docker's client keeps to itself.
pub(super) const BARE_PATHS: &str = "systempaths=unconfined";

/// Says whether SELinux is there and refuses what its policy does not allow.
pub(super) fn selinux_enforces() -> bool {
    std::fs::read_to_string("/sys/fs/selinux/enforce").is_ok_and(|text| text.trim() == "1")
}

/// More is not read of a profile, in bytes.
const PROFILE_LIMIT: u64 = 4 << 20;

fn profile(path: &str) -> Result<SeccompProfile, CliError> {
    use std::io::Read;
    let bad = |why: String| CliError::new(format!("--security-opt seccomp={path}: {why}"));
    let mut text = Vec::new();
    let file = std::fs::File::open(path);
    file.and_then(|file| file.take(PROFILE_LIMIT).read_to_end(&mut text)).map_err(|e| bad(e.to_string()))?;
    SeccompProfile::parse(&text).map_err(bad)
}

/// Reads the values of `--security-opt`.
pub(super) fn security(options: &[String]) -> Result<Security, CliError> {
    let mut out = Security {
        no_new_privs: false,
        seccomp: true,
        profile: None,
        bare_paths: false,
        writable_cgroups: false,
        apparmor: None,
        labels: Vec::new(),
    };
    for option in options {
        // the colon is docker's older way
        let colon = option.find(':').filter(|at| !option[..*at].contains('='));
        let option = match colon {
            Some(at) => format!("{}={}", &option[..at], &option[at + 1..]),
            None => option.clone(),
        };
        if let Some(path) =
            option.strip_prefix("seccomp=").filter(|path| !matches!(*path, "unconfined" | "builtin"))
        {
            out.profile = Some(profile(path)?);
            continue;
        }
        match option.as_str() {
            "no-new-privileges" | "no-new-privileges=true" => out.no_new_privs = true,
            "no-new-privileges=false" => out.no_new_privs = false,
            "seccomp=unconfined" => out.seccomp = false,
            "seccomp=builtin" => {}
            BARE_PATHS => out.bare_paths = true,
            "writable-cgroups" | "writable-cgroups=true" => out.writable_cgroups = true,
            "writable-cgroups=false" => out.writable_cgroups = false,
            other => match other.split_once('=') {
                // rbuild gives its processes no label, as docker without --selinux-enabled
                Some(("label", label)) if !label.is_empty() => out.labels.push(label.to_owned()),
                Some(("apparmor", profile)) if !profile.is_empty() && !profile.contains(['\n', '\0']) => {
                    out.apparmor = Some(profile.to_owned());
                }
                _ => {
                    return Err(CliError::new(format!("invalid --security-opt: {option:?}")).hint(
                        "no-new-privileges, seccomp=PROFILE.json, seccomp=unconfined, apparmor=PROFILE, label=..., \
                         systempaths=unconfined and writable-cgroups are available",
                    ));
                }
            },
        }
    }
    Ok(out)
}

/// Reads `--memory-swap`, which counts memory and swap together; -1 is no limit, 0 the usual one.
pub(super) fn memory_swap(text: Option<&str>, memory: Option<u64>) -> Result<Option<u64>, CliError> {
    let swap = match text {
        // memory without a limit has swap without one
        Some("-1") => memory.map(|_| u64::MAX),
        Some(text) => Some(bytes("--memory-swap", text)?).filter(|swap| *swap > 0),
        None => None,
    };
    if let Some(swap) = swap
        && memory.is_none_or(|memory| swap < memory)
    {
        return Err(CliError::new(
            "--memory-swap counts memory and swap together: it needs --memory, and no less than that",
        ));
    }
    Ok(swap)
}

/// Lets through what can stand as one word in `/etc/resolv.conf`.
pub(super) fn words(flag: &str, given: &[String]) -> Result<Vec<String>, CliError> {
    let bad =
        |word: &&String| word.is_empty() || word.contains(|c: char| c.is_whitespace() || c.is_control());
    match given.iter().find(bad) {
        Some(word) => Err(CliError::new(format!("{flag} takes one word, not {word:?}"))),
        None => Ok(given.to_vec()),
    }
}

/// Reads `NAME=VALUE`; a name alone has no value.
pub(super) fn pair(text: &str) -> (String, Option<String>) {
    match text.split_once('=') {
        Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
        None => (text.to_owned(), None),
    }
}

/// Gives an address without the user and password that may be in it.
pub(super) fn without_user(address: &str) -> String {
    match (address.find("://"), address.rfind('@')) {
        (Some(scheme), Some(at)) if at > scheme => {
            format!("{}{}", &address[..scheme + 3], &address[at + 1..])
        }
        _ => address.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_dockers() {
        for (text, want) in
            [("0", 0), ("512", 512), ("1k", 1024), ("64MB", 64 << 20), ("1.5g", 3 << 29), ("2GiB", 2 << 30)]
        {
            assert_eq!(bytes("-m", text).unwrap(), want, "{text}");
        }
        for text in ["", "x", "1q", "-1", "1e999", "1 2"] {
            assert!(bytes("-m", text).is_err(), "{text}");
        }
    }

    #[test]
    fn limits_are_checked() {
        let limit = ulimit("nofile=10:20").unwrap();
        assert_eq!((limit.soft, limit.hard), (Some(10), Some(20)));
        assert_eq!(ulimit("core=-1").unwrap().hard, None);
        for text in ["nofile", "nofile=x", "nofile=20:10", "nofile=-1:10", "what=1"] {
            assert!(ulimit(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_secret_has_one_source() {
        assert!(
            matches!(secret("id=a,env=HOME").unwrap(), (id, SecretSource::Env(n)) if id == "a" && n == "HOME")
        );
        assert!(matches!(secret("type=env,id=a,src=HOME").unwrap().1, SecretSource::Env(n) if n == "HOME"));
        assert!(matches!(secret("id=a,src=/dev/null").unwrap().1, SecretSource::File(_)));
        for text in [
            "",
            "id=",
            "src=x",
            "id=a,src=/dev/null,env=B",
            "id=a,what=b",
            "id=a,src=/does/not/exist",
            "type=x,id=a",
        ] {
            assert!(secret(text).is_err(), "{text}");
        }
    }
}
