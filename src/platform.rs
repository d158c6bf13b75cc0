//! Platforms as images name them: `os/architecture[/variant]` (image-spec image-index.md, "platform").

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// An operating system, a CPU architecture in Go's words and, for some, its variant.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// `linux`, `windows`, ...
    pub os: String,
    /// `amd64`, `arm64`, `arm`, ...
    pub architecture: String,
    /// `v7`, `v8`, ...; left out where the architecture has one form only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// A text that names no platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a platform: expected os/architecture[/variant], for example linux/amd64")]
pub struct ParsePlatformError(String);

impl Platform {
    /// Gives the platform that this binary runs on.
    pub fn host() -> Self {
        let (architecture, variant) = normalise(std::env::consts::ARCH, None);
        Self { os: "linux".into(), architecture, variant }
    }

    /// Says whether programs of `other` run here without emulation.
    pub fn runs(&self, other: &Platform) -> bool {
        self.os == other.os
            && self.architecture == other.architecture
            && (self.variant == other.variant || other.variant.is_none() || self.variant.is_none())
    }

    /// Gives the spelling that images use: `linux/aarch64` is `linux/arm64`. Fields that say nothing stay as they are.
    pub fn normal(&self) -> Self {
        self.to_string().parse().unwrap_or_else(|_| self.clone())
    }

    /// Says how well what is made for `own` serves who wants this platform, more is better; `None` for not at all. An arm
    /// runs what older ones run.
    pub fn fitness(&self, own: &Platform) -> Option<u32> {
        let own = own.normal();
        if own == *self {
            return Some(100);
        }
        if self.os != own.os || self.architecture != own.architecture {
            return None;
        }
        let level =
            |p: &Platform| p.variant.as_deref().and_then(|v| v.trim_start_matches('v').parse::<u32>().ok());
        match (level(self), level(&own)) {
            (Some(most), Some(level)) => (level <= most).then_some(level + 1),
            (None, Some(_)) | (Some(_), None) => self.runs(&own).then_some(50),
            (None, None) => self.runs(&own).then_some(1),
        }
    }
}

/// Brings the many spellings of an architecture to the one that images use (containerd platforms, "Normalize").
fn normalise(architecture: &str, variant: Option<&str>) -> (String, Option<String>) {
    let (arch, implied) = match architecture {
        "x86_64" | "x86-64" => ("amd64", None),
        "i386" | "i686" | "x86" => ("386", None),
        "aarch64" => ("arm64", None),
        "armhf" => ("arm", Some("v7")),
        "armel" => ("arm", Some("v6")),
        "loongarch64" => ("loong64", None),
        "powerpc64" => ("ppc64le", None),
        other => (other, None),
    };
    let variant = match (arch, variant.or(implied)) {
        ("amd64", Some("v1")) | ("arm64", Some("v8" | "8")) => None,
        ("arm", None) => Some("v7"),
        ("arm", Some(v @ ("5" | "6" | "7" | "8"))) => {
            Some(["v5", "v6", "v7", "v8"][usize::from(v.as_bytes()[0] - b'5')])
        }
        (_, v) => v,
    };
    (arch.to_owned(), variant.map(str::to_owned))
}

impl FromStr for Platform {
    type Err = ParsePlatformError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || ParsePlatformError(text.to_owned());
        let lower = text.to_ascii_lowercase();
        let parts: Vec<&str> = lower.split('/').collect();
        let word = |w: &str| {
            w.starts_with(|c: char| c.is_ascii_alphanumeric())
                && w.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.()".contains(&b))
        };
        if !parts.iter().all(|p| word(p)) {
            return Err(bad());
        }
        let (os, arch, variant) = match parts[..] {
            ["local"] => return Ok(Self::host()),
            ["linux" | "windows" | "freebsd" | "darwin"] => (parts[0], Self::host().architecture, None),
            [arch] => ("linux", arch.to_owned(), None),
            [os, arch] => (os, arch.to_owned(), None),
            [os, arch, variant] => (os, arch.to_owned(), Some(variant)),
            _ => return Err(bad()),
        };
        let (architecture, variant) = normalise(&arch, variant);
        Ok(Self { os: os.to_owned(), architecture, variant })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |v| write!(f, "/{v}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_are_normalised() {
        for (text, want) in [
            ("linux/amd64", "linux/amd64"),
            ("linux/x86_64", "linux/amd64"),
            ("Linux/ARM64/v8", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/arm/v6", "linux/arm/v6"),
            ("arm64", "linux/arm64"),
            ("linux/armhf", "linux/arm/v7"),
        ] {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), want, "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "/", "linux/", "a/b/c/d", "linux/am d64", "../x"] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
    }
}
