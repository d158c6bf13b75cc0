//! The environment of a container: `-e`, `--env-file`, the image's own, and what every container gets.
//!
//! Names and values are bytes. A name without a value takes the caller's, and where the caller has none it is taken
//! away from what the image sets, as docker does.

use super::RunError;
use std::path::Path;

/// One setting: a name, and its value or the wish that it be unset.
pub type EnvChange = (Vec<u8>, Option<Vec<u8>>);

/// What a container without a `PATH` of its own gets.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Longest `--env-file`, in bytes.
const FILE_LIMIT: u64 = 16 << 20;

/// Reads one `-e` value: `NAME=VALUE`, or `NAME` for the caller's value as `host` gives it.
pub fn parse_flag(text: &[u8], host: &dyn Fn(&[u8]) -> Option<Vec<u8>>) -> Result<EnvChange, RunError> {
    let bad = |why: &str| RunError::flag("--env", text, why);
    match split(text) {
        (b"", _) => Err(bad("the name is empty")),
        _ if text.contains(&0) => Err(bad("it holds a NUL byte")),
        (name, Some(value)) => Ok((name.to_vec(), Some(value.to_vec()))),
        (name, None) => Ok((name.to_vec(), host(name))),
    }
}

/// Reads an `--env-file`.
pub fn read_file(path: &Path, host: &dyn Fn(&[u8]) -> Option<Vec<u8>>) -> Result<Vec<EnvChange>, RunError> {
    use std::io::Read;
    let fail = RunError::io(format!("read the env file {}", path.display()));
    let mut text = Vec::new();
    std::fs::File::open(path).and_then(|f| f.take(FILE_LIMIT).read_to_end(&mut text)).map_err(fail)?;
    parse_file(&text, host).map_err(|(line, why)| {
        RunError::flag("--env-file", path.as_os_str().as_encoded_bytes(), format!("line {line}: {why}"))
    })
}

/// Reads the text of an `--env-file`; lines count from 1.
///
/// Blanks before a name go, those after a value stay. A line that begins with `#` is a comment. There are no quotes
/// and nothing is expanded.
///
/// # Errors
/// The number of the first wrong line and what is wrong with it.
pub fn parse_file(
    text: &[u8],
    host: &dyn Fn(&[u8]) -> Option<Vec<u8>>,
) -> Result<Vec<EnvChange>, (usize, String)> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let mut out = Vec::new();
    for (number, line) in text.split(|b| *b == b'\n').enumerate() {
        let bad = |why: &str| Err((number + 1, why.to_owned()));
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if std::str::from_utf8(line).is_err() {
            return bad("it is not UTF-8");
        }
        let line = line.trim_ascii_start();
        if line.is_empty() || line[0] == b'#' {
            continue;
        }
        let (name, value) = split(line);
        match value {
            _ if line.contains(&0) => return bad("it holds a NUL byte"),
            _ if name.is_empty() => return bad("there is no name before the ="),
            Some(_) if name.iter().any(u8::is_ascii_whitespace) => return bad("the name holds a blank"),
            None if name.trim_ascii_end().iter().any(u8::is_ascii_whitespace) => {
                return bad("the name holds a blank");
            }
            Some(value) => out.push((name.to_vec(), Some(value.to_vec()))),
            // a name alone counts only where the caller has it
            None => {
                let name = name.trim_ascii_end();
                if let Some(value) = host(name) {
                    out.push((name.to_vec(), Some(value)));
                }
            }
        }
    }
    Ok(out)
}

fn split(text: &[u8]) -> (&[u8], Option<&[u8]>) {
    match text.iter().position(|b| *b == b'=') {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    }
}

/// Lays changes over `NAME=VALUE` entries: a name keeps its first place and gets its last value.
pub fn merge<'a>(base: Vec<Vec<u8>>, changes: impl IntoIterator<Item = &'a EnvChange>) -> Vec<Vec<u8>> {
    let mut out = base;
    for (name, value) in changes {
        let at = out.iter().position(|entry| split(entry).0 == &name[..]);
        let entry = value.as_ref().map(|value| [name, &b"="[..], value].concat());
        match (at, entry) {
            (Some(at), Some(entry)) => out[at] = entry,
            (Some(at), None) => drop(out.remove(at)),
            (None, Some(entry)) => out.push(entry),
            (None, None) => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &[u8]) -> Option<Vec<u8>> {
        (name == b"HERE").then(|| b"host value".to_vec())
    }

    fn shown(changes: &[EnvChange]) -> Vec<String> {
        let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
        changes
            .iter()
            .map(|(n, v)| format!("{}={}", text(n), v.as_deref().map_or("(unset)".into(), text)))
            .collect()
    }

    #[test]
    fn flags() {
        for (text, want) in [
            ("A=b", "A=b"),
            ("A=", "A="),
            ("A=b=c d", "A=b=c d"),
            ("HERE", "HERE=host value"),
            ("NOT_HERE", "NOT_HERE=(unset)"),
        ] {
            assert_eq!(shown(&[parse_flag(text.as_bytes(), &host).unwrap()]), [want], "{text}");
        }
        for bad in ["", "=x", "A=\0"] {
            assert!(parse_flag(bad.as_bytes(), &host).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn files() {
        let text =
            "\u{feff}# comment\n\nA=1\n  B=two words  \n\t#also one\nHERE\nGONE\nC=\"q\" $A #x\r\nD=\n";
        let found = parse_file(text.as_bytes(), &host).unwrap();
        assert_eq!(shown(&found), ["A=1", "B=two words  ", "HERE=host value", "C=\"q\" $A #x", "D="]);
        for (text, line) in [("A=1\nB C=2", 2), ("=x", 1), ("\n\ntwo words", 3), ("a=\0", 1)] {
            assert_eq!(parse_file(text.as_bytes(), &host).unwrap_err().0, line, "{text:?}");
        }
        assert_eq!(parse_file(b"A=1\nB=\xff", &host).unwrap_err().0, 2);
    }

    #[test]
    fn the_last_value_wins_in_the_first_place() {
        let base = vec![b"A=1".to_vec(), b"B=2".to_vec()];
        let changes: Vec<EnvChange> = vec![
            (b"C".to_vec(), Some(b"3".to_vec())),
            (b"A".to_vec(), Some(b"x".to_vec())),
            (b"B".to_vec(), None),
            (b"C".to_vec(), Some(b"4".to_vec())),
        ];
        assert_eq!(merge(base, &changes), [b"A=x".to_vec(), b"C=4".to_vec()]);
    }
}
