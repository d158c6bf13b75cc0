//! Bytes in JSON records: as text where they are UTF-8, else as hexadecimal digits in an object.
//!
//! Arguments, variables and paths are bytes on Linux. Records are for people to read too, so an array of numbers will
//! not do; and a replacement character would change what runs.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Text {
    Plain(String),
    Hex { hex: String },
}

impl Text {
    fn of(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Plain(text.to_owned()),
            Err(_) => Self::Hex { hex: crate::digest::hex(bytes) },
        }
    }

    fn bytes<E: serde::de::Error>(self) -> Result<Vec<u8>, E> {
        let hex = match self {
            Self::Plain(text) => return Ok(text.into_bytes()),
            Self::Hex { hex } => hex,
        };
        let digit = |pair: &[u8]| {
            std::str::from_utf8(pair)
                .ok()
                .filter(|p| p.len() == 2)
                .and_then(|p| u8::from_str_radix(p, 16).ok())
        };
        let bytes: Option<Vec<u8>> = hex.as_bytes().chunks(2).map(digit).collect();
        bytes.ok_or_else(|| E::custom("not hexadecimal"))
    }
}

/// One piece of bytes; for `#[serde(with)]`.
pub(super) fn serialize<S: Serializer>(bytes: &[u8], s: S) -> Result<S::Ok, S::Error> {
    Text::of(bytes).serialize(s)
}

/// The other way.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<u8>, D::Error> {
    Text::deserialize(d)?.bytes()
}

/// A list of pieces.
pub(super) mod list {
    use super::{Deserialize, Deserializer, Serializer, Text};

    pub(in crate::runtime) fn serialize<S: Serializer>(all: &[Vec<u8>], s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(all.iter().map(|bytes| Text::of(bytes)))
    }

    pub(in crate::runtime) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<Vec<u8>>, D::Error> {
        Vec::<Text>::deserialize(d)?.into_iter().map(Text::bytes).collect()
    }
}

/// A path.
pub(super) mod path {
    use super::{Deserializer, Serializer};
    use std::ffi::OsString;
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    use std::path::{Path, PathBuf};

    pub(in crate::runtime) fn serialize<S: Serializer>(path: &Path, s: S) -> Result<S::Ok, S::Error> {
        super::serialize(path.as_os_str().as_bytes(), s)
    }

    pub(in crate::runtime) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<PathBuf, D::Error> {
        super::deserialize(d).map(|bytes| OsString::from_vec(bytes).into())
    }
}

/// A moment: nanoseconds since 1970 in memory, RFC 3339 in a record; 0 is never.
pub(super) mod moment {
    use super::{Deserialize, Deserializer, Serializer};
    use serde::de::Error as _;

    pub(in crate::runtime) fn serialize<S: Serializer>(time: &i128, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&super::super::time::format(*time))
    }

    pub(in crate::runtime) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<i128, D::Error> {
        let text = String::deserialize(d)?;
        super::super::time::parse(&text).ok_or_else(|| D::Error::custom("not a time"))
    }
}

/// A name or id that has a form to keep.
pub(super) fn checked<'de, D: Deserializer<'de>, T: std::str::FromStr>(d: D) -> Result<T, D::Error>
where
    T::Err: std::fmt::Display,
{
    String::deserialize(d)?.parse().map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Sample {
        #[serde(with = "super::list")]
        argv: Vec<Vec<u8>>,
        #[serde(with = "super::path")]
        path: std::path::PathBuf,
    }

    #[test]
    fn any_bytes_come_back_and_text_stays_readable() {
        let sample =
            Sample { argv: vec![b"sh".to_vec(), b"\xff\x00".to_vec(), b"{}".to_vec()], path: "/a".into() };
        let text = serde_json::to_string(&sample).unwrap();
        assert_eq!(text, r#"{"argv":["sh",{"hex":"ff00"},"{}"],"path":"/a"}"#);
        assert_eq!(serde_json::from_str::<Sample>(&text).unwrap(), sample);
        for bad in [r#"{"argv":[{"hex":"f"}],"path":"/"}"#, r#"{"argv":[{"hex":"xx"}],"path":"/"}"#] {
            assert!(serde_json::from_str::<Sample>(bad).is_err(), "{bad}");
        }
    }
}
