//! The keys with which a user leaves a container that goes on: `ctrl-p,ctrl-q` unless others are asked for.

use super::RunError;

/// The bytes of the keys in order; none never leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DetachKeys(Vec<u8>);

impl Default for DetachKeys {
    fn default() -> Self {
        Self(vec![16, 17])
    }
}

impl DetachKeys {
    /// Reads keys with commas between them: a character, or `ctrl-` and one of `a` to `z`, `@ [ \ ] ^ _`.
    pub fn parse(text: &str) -> Result<Self, RunError> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let key = |word: &str| match (word.as_bytes(), word.strip_prefix("ctrl-").map(str::as_bytes)) {
            ([one], _) => Some(*one),
            (b"DEL", _) => Some(127),
            (_, Some([letter @ b'a'..=b'z'])) => Some(letter - b'a' + 1),
            (_, Some(b"@")) => Some(0),
            (_, Some([sign @ (b'[' | b'\\' | b']' | b'^' | b'_')])) => Some(sign - b'@'),
            _ => None,
        };
        let keys: Option<Vec<u8>> = text.split(',').map(key).collect();
        keys.map(Self).ok_or_else(|| {
            RunError::flag(
                "--detach-keys",
                text,
                "write keys with commas between them, for example ctrl-p,ctrl-q or ctrl-@",
            )
        })
    }
}

/// Looks for the keys in what is typed; what may be their beginning is held back until it is clear.
#[derive(Debug)]
pub(super) struct Filter {
    keys: Vec<u8>,
    seen: usize,
}

impl Filter {
    pub(super) fn new(keys: &DetachKeys) -> Self {
        Self { keys: keys.0.clone(), seen: 0 }
    }

    /// Gives what is to be passed on, and whether the keys are complete.
    pub(super) fn take(&mut self, bytes: &[u8]) -> (Vec<u8>, bool) {
        let mut out = Vec::with_capacity(bytes.len());
        for byte in bytes {
            if self.keys.get(self.seen) != Some(byte) && self.seen > 0 {
                out.extend_from_slice(&self.keys[..self.seen]);
                self.seen = 0;
            }
            if self.keys.get(self.seen) == Some(byte) {
                self.seen += 1;
                if self.seen == self.keys.len() {
                    return (out, true);
                }
            } else {
                out.push(*byte);
            }
        }
        (out, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read() {
        for (text, keys) in [
            ("ctrl-p,ctrl-q", &[16, 17][..]),
            ("", &[16, 17]),
            ("a", b"a"),
            ("DEL", &[127]),
            ("ctrl-@,x,ctrl-[,ctrl-_,ctrl-^,ctrl-\\", &[0, b'x', 27, 31, 30, 28]),
        ] {
            assert_eq!(DetachKeys::parse(text).unwrap().0, keys, "{text}");
        }
        for bad in ["ctrl-", "ctrl-P", "ab", "ctrl-p,", "ctrl-1"] {
            assert!(DetachKeys::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn they_are_found_in_pieces_and_nothing_is_lost() {
        let mut filter = Filter::new(&DetachKeys::default());
        assert_eq!(filter.take(b"ab\x10"), (b"ab".to_vec(), false));
        assert_eq!(filter.take(b"c"), (b"\x10c".to_vec(), false));
        assert_eq!(filter.take(b"\x10\x10"), (b"\x10".to_vec(), false));
        assert_eq!(filter.take(b"\x11z"), (Vec::new(), true));
    }
}
