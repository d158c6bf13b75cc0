//! How a cache key is made: one walk over an op feeds the hash and the parts that explain it, so they never disagree.

use crate::digest::{CacheKey, hex};
use serde::{Deserialize, Serialize};

/// Longest field value that is kept word for word in the parts, in bytes; of longer ones the hash is kept.
const VERBATIM: usize = 300;

/// One named input of a step, as kept for explanations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyPart {
    /// For example `command`, `env PATH`, `base`.
    pub name: String,
    /// The value, or `#` and its hash when it is long or not text.
    pub value: String,
}

/// Collects all that can change a step's result, in a fixed order.
#[derive(Debug)]
pub struct KeyBuilder {
    hasher: blake3::Hasher,
    parts: Vec<KeyPart>,
}

impl KeyBuilder {
    /// Starts a key for one kind of op; the kind keeps keys of different ops apart.
    pub fn new(kind: &str) -> Self {
        let mut made =
            Self { hasher: blake3::Hasher::new_derive_key("rbuild cache key v1"), parts: Vec::new() };
        made.bytes("kind", kind.as_bytes());
        made
    }

    /// Feeds a field; its name counts too, so that equal values of different fields differ.
    pub fn bytes(&mut self, name: &str, value: &[u8]) -> &mut Self {
        for field in [name.as_bytes(), value] {
            self.hasher.update(&(field.len() as u64).to_le_bytes());
            self.hasher.update(field);
        }
        let value = match std::str::from_utf8(value) {
            Ok(text) if text.len() <= VERBATIM => text.to_owned(),
            _ => format!("#{}", &blake3::hash(value).to_hex()[..16]),
        };
        self.parts.push(KeyPart { name: name.to_owned(), value });
        self
    }

    /// Feeds a text.
    pub fn text(&mut self, name: &str, value: &str) -> &mut Self {
        self.bytes(name, value.as_bytes())
    }

    /// Feeds a 32-byte id.
    pub fn id(&mut self, name: &str, value: &[u8; 32]) -> &mut Self {
        self.text(name, &hex(value))
    }

    /// Feeds a list as one field: its length, then each item with its length.
    pub fn list<T: AsRef<[u8]>>(&mut self, name: &str, items: impl IntoIterator<Item = T>) -> &mut Self {
        let mut count = 0;
        for item in items {
            self.bytes(name, item.as_ref());
            count += 1;
        }
        self.text(&format!("{name} count"), &format!("{count}"))
    }

    /// Ends the key.
    pub fn finish(self) -> (CacheKey, Vec<KeyPart>) {
        (self.hasher.finalize().into(), self.parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(feed: impl Fn(&mut KeyBuilder)) -> CacheKey {
        let mut k = KeyBuilder::new("RUN");
        feed(&mut k);
        k.finish().0
    }

    #[test]
    fn every_border_counts() {
        let keys = [
            key(|k| drop(k.text("a", "bc"))),
            key(|k| drop(k.text("ab", "c"))),
            key(|k| drop(k.list("a", ["b", "c"]))),
            key(|k| drop(k.list("a", ["bc"]))),
            key(|k| drop(k.list("a", ["bc", ""]))),
            key(|_| ()),
            KeyBuilder::new("COPY").finish().0,
        ];
        for (i, a) in keys.iter().enumerate() {
            assert!(keys[i + 1..].iter().all(|b| a != b), "{i}");
        }
    }

    fn drop(_: &mut KeyBuilder) {}

    #[test]
    fn long_values_are_kept_as_hashes() {
        let mut k = KeyBuilder::new("RUN");
        k.text("command", &"x".repeat(1000));
        let (_, parts) = k.finish();
        assert!(parts[1].value.starts_with('#'));
    }
}
