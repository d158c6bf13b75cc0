//! What a container is called: an id of 64 hexadecimal digits, and a name for people.

use super::RunError;
use crate::digest::hex;
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;
use std::str::FromStr;

/// Names a container for ever: 256 random bits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ContainerId(String);

impl FromStr for ContainerId {
    type Err = RunError;

    /// Reads all 64 digits.
    fn from_str(text: &str) -> Result<Self, RunError> {
        let digits = text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if digits { Ok(Self(text.to_owned())) } else { Err(RunError::NoContainer(text.to_owned())) }
    }
}

impl<'de> Deserialize<'de> for ContainerId {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        super::text::checked(d)
    }
}

impl ContainerId {
    /// Draws a new one.
    pub fn random() -> Result<Self, RunError> {
        let mut bits = [0; 32];
        fill(&mut bits)?;
        Ok(Self(hex(&bits)))
    }

    /// Gives all 64 digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Gives the first 12 digits, which is also the default host name.
    pub fn short(&self) -> &str {
        &self.0[..12]
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A container's name: `[a-zA-Z0-9][a-zA-Z0-9_.-]+`, so also one safe path component.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct ContainerName(String);

impl<'de> Deserialize<'de> for ContainerName {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        super::text::checked(d)
    }
}

/// A file name ends there on Linux, and names are file names.
const LONGEST: usize = 200;

impl ContainerName {
    /// Draws one of the form `adjective_noun`.
    pub fn random() -> Result<Self, RunError> {
        let mut dice = [0; 2];
        fill(&mut dice)?;
        let pick = |list: &[&'static str], at: u8| list[usize::from(at) % list.len()];
        Ok(Self(format!("{}_{}", pick(&ADJECTIVES, dice[0]), pick(&NOUNS, dice[1]))))
    }

    /// Stands for a name that is not known yet.
    pub(super) fn placeholder() -> Self {
        Self("unnamed".into())
    }

    /// Gives the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ContainerName {
    type Err = RunError;

    fn from_str(text: &str) -> Result<Self, RunError> {
        // inspect shows names with a slash before them
        let text = text.strip_prefix('/').unwrap_or(text);
        let plain = |b: u8| b.is_ascii_alphanumeric();
        let first = text.bytes().next().is_some_and(plain);
        let rest = text.bytes().skip(1).all(|b| plain(b) || matches!(b, b'_' | b'.' | b'-'));
        match first && rest && (2..=LONGEST).contains(&text.len()) {
            true => Ok(Self(text.to_owned())),
            false => Err(RunError::Name(text.to_owned())),
        }
    }
}

impl fmt::Display for ContainerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn fill(bytes: &mut [u8]) -> Result<(), RunError> {
    rustix::rand::getrandom(bytes, rustix::rand::GetRandomFlags::empty())
        .map(drop)
        .map_err(RunError::io("get random numbers"))
}

/// 48 words of each kind make some 2300 names; a taken one is drawn again.
const ADJECTIVES: [&str; 48] = [
    "agile", "amber", "ample", "bold", "brave", "brisk", "calm", "clear", "clever", "cosy", "crisp", "deft",
    "eager", "early", "fair", "fleet", "fond", "frank", "fresh", "gentle", "glad", "golden", "hardy",
    "honest", "keen", "kind", "light", "lively", "lucid", "mellow", "merry", "mild", "neat", "nimble",
    "noble", "plain", "polite", "proud", "quick", "quiet", "ready", "sharp", "silent", "solid", "steady",
    "sunny", "warm", "witty",
];
const NOUNS: [&str; 48] = [
    "acorn", "alder", "anchor", "aspen", "badger", "beacon", "birch", "brook", "canyon", "cedar", "cliff",
    "clover", "comet", "coral", "crane", "delta", "dune", "ember", "falcon", "fern", "fjord", "glacier",
    "harbor", "hazel", "heron", "island", "jasper", "lagoon", "larch", "lichen", "maple", "marten", "meadow",
    "nebula", "oak", "orchid", "otter", "pebble", "pine", "quartz", "raven", "reef", "river", "spruce",
    "summit", "thistle", "willow", "wren",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dockers() {
        for good in ["web-1", "a1", "0x", "A.b_c-d"] {
            assert_eq!(good.parse::<ContainerName>().unwrap().as_str(), good);
        }
        let long = "x".repeat(201);
        assert_eq!("/web".parse::<ContainerName>().unwrap().as_str(), "web");
        for bad in ["", "a", "/", "//ab", "-bad", "_bad", ".bad", "a b", "a/b", "..", "ü1", "a\n", &long] {
            assert!(bad.parse::<ContainerName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn random_ones_are_valid_and_differ() {
        let id = ContainerId::random().unwrap();
        assert_eq!((id.as_str().len(), id.short().len()), (64, 12));
        assert_ne!(id, ContainerId::random().unwrap());
        for _ in 0..50 {
            let name = ContainerName::random().unwrap();
            assert_eq!(name.as_str().parse::<ContainerName>().unwrap(), name);
        }
    }
}
