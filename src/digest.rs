//! Typed hashes: one newtype an idea, so that the compiler keeps them apart.
//!
//! [`Digest`] and the types made from it name bytes that other tools see (OCI image-spec, descriptor.md,
//! "Digests"); [`ContentId`], [`ResultId`] and [`CacheKey`] are blake3 and never leave rbuild's own store.
//! The strict parser is the only way from text to a digest, so a digest can be used as a file name.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::str::FromStr;

/// A text that is not a digest or id of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {want}")]
pub struct ParseDigestError {
    text: String,
    want: &'static str,
}

impl ParseDigestError {
    fn new(text: &str, want: &'static str) -> Self {
        Self { text: text.chars().take(160).collect(), want }
    }
}

/// The digest of a blob as stored or sent: `sha256:<64 hex>` or `sha512:<128 hex>`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(Box<str>);

impl Digest {
    /// Names the bytes with sha256.
    pub fn sha256_of(bytes: &[u8]) -> Self {
        Self::from_sha256(Sha256::digest(bytes).into())
    }

    /// Wraps a finished sha256 sum.
    pub fn from_sha256(sum: [u8; 32]) -> Self {
        Self(format!("sha256:{}", hex(&sum)).into())
    }

    /// Gives `sha256` or `sha512`.
    pub fn algorithm(&self) -> &str {
        self.0.split_once(':').map_or("", |(a, _)| a)
    }

    /// Gives the hex part, safe as a file name.
    pub fn encoded(&self) -> &str {
        self.0.split_once(':').map_or("", |(_, h)| h)
    }

    /// Gives the whole text, `algorithm:hex`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Gives the first 12 hex digits, as tools print an image id.
    pub fn short(&self) -> &str {
        &self.encoded()[..12]
    }
}

impl FromStr for Digest {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let want = "a digest (sha256: or sha512: and lower-case hex)";
        let len = match text.split_once(':') {
            Some(("sha256", _)) => 7 + 64,
            Some(("sha512", _)) => 7 + 128,
            _ => return Err(ParseDigestError::new(text, want)),
        };
        if text.len() == len && is_lower_hex(&text[7..]) {
            Ok(Self(text.into()))
        } else {
            Err(ParseDigestError::new(text, want))
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

macro_rules! digest_kind {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Digest);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = ParseDigestError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Digest::from_str(text).map(Self)
            }
        }
    };
}

digest_kind! {
    /// The digest of an uncompressed layer tar (image-spec config.md, "Layer DiffID").
    DiffId
}
digest_kind! {
    /// Diff IDs folded from the base up; names a stack of layers (image-spec config.md, "Layer ChainID").
    ChainId
}
digest_kind! {
    /// The digest of an image's config JSON (image-spec config.md, "ImageID").
    ImageId
}

impl ChainId {
    /// Folds one more layer onto the stack: `sha256(parent + " " + diff ID)`, the first layer is its own chain.
    pub fn push(parent: Option<&ChainId>, diff: &DiffId) -> Self {
        match parent {
            None => Self(diff.0.clone()),
            Some(p) => Self(Digest::sha256_of(format!("{} {}", p.0, diff.0).as_bytes())),
        }
    }
}

macro_rules! blake3_kind {
    ($(#[$doc:meta])* $name:ident, $want:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 32]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex(&self.0))
            }
        }

        impl FromStr for $name {
            type Err = ParseDigestError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                from_hex(text).map(Self).ok_or_else(|| ParseDigestError::new(text, $want))
            }
        }

        impl From<blake3::Hash> for $name {
            fn from(hash: blake3::Hash) -> Self {
                Self(*hash.as_bytes())
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                if s.is_human_readable() { s.serialize_str(&hex(&self.0)) } else { self.0.serialize(s) }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                if d.is_human_readable() {
                    String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
                } else {
                    <[u8; 32]>::deserialize(d).map(Self)
                }
            }
        }
    };
}

blake3_kind! {
    /// blake3 of a regular file's bytes.
    ContentId, "a content id (64 hex digits)"
}
blake3_kind! {
    /// blake3 over what a step produced, timestamps left out; names a snapshot.
    ResultId, "a result id (64 hex digits)"
}
blake3_kind! {
    /// blake3 over an op and the result ids of its inputs.
    CacheKey, "a cache key (64 hex digits)"
}

impl ResultId {
    /// Names the empty root file system that `FROM scratch` starts with.
    pub fn scratch() -> Self {
        blake3::derive_key("rbuild result v1 scratch", &[]).into()
    }

    /// Names what a step made: the state it stands on and the content id of its diff.
    pub fn step(parent: &ResultId, diff: &ContentId) -> Self {
        let mut h = blake3::Hasher::new_derive_key("rbuild result v1 step");
        h.update(&parent.0).update(&diff.0);
        h.finalize().into()
    }

    /// Names the state of an image's layer stack. It is known from the image's config alone, so that a
    /// cached build needs no layer of its base.
    pub fn chain(chain: &ChainId) -> Self {
        let mut h = blake3::Hasher::new_derive_key("rbuild result v1 chain");
        h.update(chain.0.as_str().as_bytes());
        h.finalize().into()
    }
}

impl From<[u8; 32]> for ResultId {
    fn from(sum: [u8; 32]) -> Self {
        Self(sum)
    }
}

/// Writes bytes as lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|b| [DIGITS[usize::from(b >> 4)] as char, DIGITS[usize::from(b & 15)] as char])
        .collect()
}

fn is_lower_hex(text: &str) -> bool {
    text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn from_hex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !is_lower_hex(text) {
        return None;
    }
    let mut out = [0; 32];
    for (i, byte) in out.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()?;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_parsed_strictly() {
        let good = Digest::sha256_of(b"");
        assert_eq!(good.as_str().parse::<Digest>().unwrap(), good);
        assert_eq!(good.short(), "e3b0c44298fc");
        for bad in
            ["", "sha256:", "sha256:../../etc/passwd", "md5:d41d8cd98f00b204e9800998ecf8427e", "sha256:E3"]
        {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
        assert!(good.as_str().to_uppercase().parse::<Digest>().is_err());
        assert!(format!("{good}0").parse::<Digest>().is_err());
        // 71 bytes, but not at character boundaries
        assert!(format!("sha256:{}", "é".repeat(32)).parse::<Digest>().is_err());
    }

    #[test]
    fn chain_ids_fold_as_the_spec_says() {
        let (a, b) = (DiffId(Digest::sha256_of(b"a")), DiffId(Digest::sha256_of(b"b")));
        let first = ChainId::push(None, &a);
        assert_eq!(first.0, a.0);
        let second = ChainId::push(Some(&first), &b);
        assert_eq!(second.0, Digest::sha256_of(format!("{} {}", a.0, b.0).as_bytes()));
    }

    #[test]
    fn ids_survive_text_and_json() {
        let id = ResultId::scratch();
        assert_eq!(id.to_string().parse::<ResultId>().unwrap(), id);
        let json = serde_json::to_string(&id).unwrap();
        assert_eq!(serde_json::from_str::<ResultId>(&json).unwrap(), id);
        assert!("é".repeat(32).parse::<ResultId>().is_err());
    }
}
