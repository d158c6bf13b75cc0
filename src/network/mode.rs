//! The user's choice of a network for a step or container.

use std::{fmt, str::FromStr};

use super::NetworkError;

/// The network a process runs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize)]
pub enum NetworkMode {
    /// A private network that reaches the outside through NAT: `default`, or by its other name `bridge`.
    #[default]
    Private,
    /// A loopback interface and nothing else.
    None,
    /// The network namespace of the host, shared.
    Host,
}

impl NetworkMode {
    /// The words accepted by `--network`, for help texts and completions.
    pub const WORDS: [&'static str; 4] = ["default", "none", "host", "bridge"];
}

impl FromStr for NetworkMode {
    type Err = NetworkError;

    fn from_str(word: &str) -> Result<Self, NetworkError> {
        match word {
            "default" | "bridge" => Ok(Self::Private),
            "none" => Ok(Self::None),
            "host" => Ok(Self::Host),
            _ => Err(NetworkError::UnknownMode { word: word.to_owned() }),
        }
    }
}

impl fmt::Display for NetworkMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Private => "default",
            Self::None => "none",
            Self::Host => "host",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        for (word, mode) in [
            ("default", NetworkMode::Private),
            ("bridge", NetworkMode::Private),
            ("none", NetworkMode::None),
            ("host", NetworkMode::Host),
        ] {
            assert_eq!(word.parse::<NetworkMode>().unwrap(), mode);
            assert!(NetworkMode::WORDS.contains(&word));
        }
        for mode in [NetworkMode::Private, NetworkMode::None, NetworkMode::Host] {
            assert_eq!(mode.to_string().parse::<NetworkMode>().unwrap(), mode);
        }
    }

    #[test]
    fn a_wrong_word_is_named_with_the_right_ones() {
        for word in ["", "Host", "nat", "container:x"] {
            let text = word.parse::<NetworkMode>().unwrap_err().to_string();
            assert!(text.contains(&format!("\"{word}\"")) && text.contains("default, none, host"), "{text}");
        }
    }
}
