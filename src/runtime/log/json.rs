//! One line of a log file, written and read.

use super::Stream;
use serde::Deserialize;
use std::collections::BTreeMap;

/// Appends bytes as a JSON string the way docker's logger does: what is not UTF-8 becomes U+FFFD.
pub(super) fn push_string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    for chunk in bytes.utf8_chunks() {
        push_valid(out, chunk.valid());
        if !chunk.invalid().is_empty() {
            out.extend_from_slice(b"\\ufffd");
        }
    }
    out.push(b'"');
}

fn push_valid(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    let mut start = 0;
    for (at, byte) in bytes.iter().enumerate() {
        let escape: &[u8] = match byte {
            b'"' => b"\\\"",
            b'\\' => b"\\\\",
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            b'<' => b"\\u003c",
            b'>' => b"\\u003e",
            b'&' => b"\\u0026",
            // U+2028 and U+2029, which end lines for JavaScript
            0xe2 if bytes[at + 1] == 0x80 && matches!(bytes[at + 2], 0xa8 | 0xa9) => {
                out.extend_from_slice(&bytes[start..at]);
                out.extend_from_slice(if bytes[at + 2] == 0xa8 { b"\\u2028" } else { b"\\u2029" });
                start = at + 3;
                continue;
            }
            0..0x20 => b"",
            _ => continue,
        };
        out.extend_from_slice(&bytes[start..at]);
        start = at + 1;
        match escape {
            b"" => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            escape => out.extend_from_slice(escape),
        }
    }
    out.extend_from_slice(&bytes[start..]);
}

/// Appends a whole line.
pub(super) fn push_line(out: &mut Vec<u8>, text: &[u8], stream: Stream, attrs: &[u8], time: &str) {
    out.extend_from_slice(b"{\"log\":");
    push_string(out, text);
    out.extend_from_slice(match stream {
        Stream::Out => b",\"stream\":\"stdout\"",
        Stream::Err => b",\"stream\":\"stderr\"",
    });
    if !attrs.is_empty() {
        out.extend_from_slice(b",\"attrs\":");
        out.extend_from_slice(attrs);
    }
    out.extend_from_slice(b",\"time\":\"");
    out.extend_from_slice(time.as_bytes());
    out.extend_from_slice(b"\"}\n");
}

/// A line as it is read.
#[derive(Debug, Deserialize)]
pub(super) struct Line {
    #[serde(default)]
    pub(super) log: String,
    #[serde(default)]
    pub(super) stream: String,
    #[serde(default)]
    pub(super) time: String,
    #[serde(default)]
    pub(super) attrs: BTreeMap<String, String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_line_is_dockers() {
        let mut out = Vec::new();
        push_line(&mut out, b"a\t<\"\\\xff\n", Stream::Err, b"", "T");
        let want = "{\"log\":\"a\\u0009\\u003c\\\"\\\\\\ufffd\\n\",\"stream\":\"stderr\",\"time\":\"T\"}\n";
        assert_eq!(String::from_utf8(out).unwrap(), want);
    }

    #[test]
    fn line_ends_of_javascript_are_escaped() {
        let mut out = Vec::new();
        push_string(&mut out, "a\u{2028}\u{2029}b\u{2027}\u{20ac}".as_bytes());
        assert_eq!(String::from_utf8(out).unwrap(), "\"a\\u2028\\u2029b\u{2027}\u{20ac}\"");
    }

    proptest! {
        #[test]
        fn any_text_comes_back(text in ".*") {
            let mut out = Vec::new();
            push_line(&mut out, text.as_bytes(), Stream::Out, b"{\"a\":\"b\"}", "T");
            let line: Line = serde_json::from_slice(&out).unwrap();
            prop_assert_eq!(line.log, text);
            prop_assert_eq!(&line.attrs["a"], "b");
        }
    }
}
