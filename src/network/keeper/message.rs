//! As much of DNS messages (RFC 1035) as a resolver for container names needs: one question, answers of three kinds.
//! Pure; the bytes come from a container and are not trusted.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Bytes of a message's head.
const HEAD: usize = 12;
/// An answer over UDP may be so long, in bytes, for a client that says nothing else.
const SHORT: usize = 512;
/// How long an answer may be remembered, in seconds: docker's choice.
const TIME_TO_LIVE: u32 = 600;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// IPv4 addresses of a name.
    A,
    /// IPv6 addresses of a name.
    Aaaa,
    /// The name of an address.
    Ptr,
    /// Something that containers have none of.
    Other,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The question makes no sense.
    Format = 1,
    /// The servers that could know do not answer.
    Server = 2,
}

/// A question as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Question {
    /// Lower case, labels joined by dots, no dot at the end.
    pub(super) name: String,
    pub(super) kind: Kind,
    /// Where the question ends in the message.
    end: usize,
}

impl Question {
    /// Reads a query; `None` for what is no query with one question about the Internet.
    pub(super) fn read(message: &[u8]) -> Option<Self> {
        let head = message.get(..HEAD)?;
        // a response, or an operation other than a query
        if head[2] & 0xf8 != 0 || head[4..6] != [0, 1] {
            return None;
        }
        let (mut at, mut name) = (HEAD, String::new());
        loop {
            let length = usize::from(*message.get(at)?);
            at += 1;
            if length == 0 {
                break;
            }
            let label = message.get(at..at + length).filter(|_| length < 64)?;
            // a name of ours has no such bytes; as text they could be mistaken
            if name.len() + length > 254 {
                return None;
            }
            if !name.is_empty() {
                name.push('.');
            }
            let plain = |b: &u8| {
                if b.is_ascii_graphic() && *b != b'.' { b.to_ascii_lowercase() as char } else { '?' }
            };
            name.extend(label.iter().map(plain));
            at += length;
        }
        let number = |at: usize| Some(u16::from_be_bytes(message.get(at..at + 2)?.try_into().ok()?));
        let (kind, class) = (number(at)?, number(at + 2)?);
        if class != 1 && class != 255 {
            return None;
        }
        let kind = match kind {
            1 => Kind::A,
            28 => Kind::Aaaa,
            12 => Kind::Ptr,
            _ => Kind::Other,
        };
        Some(Self { name, kind, end: at + 4 })
    }

    /// The address that a question of kind [`Kind::Ptr`] is about.
    pub(super) fn address(&self) -> Option<IpAddr> {
        if let Some(rest) = self.name.strip_suffix(".in-addr.arpa") {
            let bytes: Vec<u8> =
                rest.split('.').rev().map(|part| part.parse().ok()).collect::<Option<_>>()?;
            let bytes: [u8; 4] = bytes.try_into().ok()?;
            return Some(Ipv4Addr::from(bytes).into());
        }
        let rest = self.name.strip_suffix(".ip6.arpa")?;
        let digit = |part: &str| (part.len() == 1).then(|| u128::from_str_radix(part, 16).ok()).flatten();
        let digits: Vec<u128> = rest.split('.').rev().map(digit).collect::<Option<_>>()?;
        (digits.len() == 32).then(|| Ipv6Addr::from(digits.iter().fold(0, |sum, d| sum << 4 | d)).into())
    }

    /// Answers with addresses; those of the other family are left out. `short` cuts to what UDP takes.
    pub(super) fn addresses(&self, query: &[u8], ips: &[IpAddr], short: bool) -> Vec<u8> {
        let data = ips.iter().filter_map(|ip| match (ip, self.kind) {
            (IpAddr::V4(ip), Kind::A) => Some((1_u16, ip.octets().to_vec())),
            (IpAddr::V6(ip), Kind::Aaaa) => Some((28, ip.octets().to_vec())),
            _ => None,
        });
        self.answer(query, data, short)
    }

    /// Answers with a name.
    pub(super) fn pointer(&self, query: &[u8], name: &str) -> Vec<u8> {
        let mut data = Vec::new();
        for label in name.split('.').filter(|label| !label.is_empty()) {
            let label = &label.as_bytes()[..label.len().min(63)];
            data.push(label.len() as u8);
            data.extend_from_slice(label);
        }
        data.push(0);
        self.answer(query, [(12, data)].into_iter(), true)
    }

    fn answer(&self, query: &[u8], data: impl Iterator<Item = (u16, Vec<u8>)>, short: bool) -> Vec<u8> {
        let mut out = self.head(query, 0);
        let mut count = 0_u16;
        for (kind, value) in data {
            if short && out.len() + 12 + value.len() > SHORT {
                // says that there is more, by TCP
                out[2] |= 0x02;
                break;
            }
            // the name is that of the question, which stands behind the head
            out.extend_from_slice(&[0xc0, HEAD as u8]);
            out.extend_from_slice(&kind.to_be_bytes());
            out.extend_from_slice(&1_u16.to_be_bytes());
            out.extend_from_slice(&TIME_TO_LIVE.to_be_bytes());
            out.extend_from_slice(&(value.len() as u16).to_be_bytes());
            out.extend_from_slice(&value);
            count += 1;
        }
        out[6..8].copy_from_slice(&count.to_be_bytes());
        out
    }

    /// Says that there is no answer.
    pub(super) fn fail(&self, query: &[u8], why: Failure) -> Vec<u8> {
        self.head(query, why as u8)
    }

    /// The head of a response, with the question behind it.
    fn head(&self, query: &[u8], code: u8) -> Vec<u8> {
        let mut out = query[..self.end].to_vec();
        // a response; recursion stays wanted as it was, and is available
        out[2] = 0x80 | (query[2] & 0x01);
        out[3] = 0x80 | code;
        out[4..12].copy_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0]);
        out
    }
}

/// Answers what is no question of the usual kind, if it can be answered at all.
pub(super) fn refuse(query: &[u8]) -> Option<Vec<u8>> {
    let mut out = query.get(..HEAD)?.to_vec();
    if out[2] & 0x80 != 0 {
        return None;
    }
    out[2] = 0x80;
    out[3] = Failure::Format as u8;
    out[4..12].fill(0);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn query(name: &str, kind: u16) -> Vec<u8> {
        let mut out = vec![0xab, 0xcd, 0x01, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.').filter(|l| !l.is_empty()) {
            out.push(label.len() as u8);
            out.extend_from_slice(label.as_bytes());
        }
        out.push(0);
        out.extend_from_slice(&kind.to_be_bytes());
        out.extend_from_slice(&[0, 1]);
        out
    }

    #[test]
    fn questions_are_read_and_answered() {
        let bytes = query("Web.Net", 1);
        let question = Question::read(&bytes).unwrap();
        assert_eq!((question.name.as_str(), question.kind), ("web.net", Kind::A));
        let ips = ["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
        let answer = question.addresses(&bytes, &ips, true);
        assert_eq!(&answer[..12], &[0xab, 0xcd, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
        assert!(answer.ends_with(&[0, 4, 10, 0, 0, 1]));
        let failed = question.fail(&bytes, Failure::Server);
        assert_eq!((failed[3] & 15, failed.len()), (2, bytes.len()));

        let many = vec![IpAddr::from([10, 0, 0, 1]); 100];
        let cut = question.addresses(&bytes, &many, true);
        assert!(cut.len() <= 512 && cut[2] & 2 != 0);
        assert!(question.addresses(&bytes, &many, false).len() > 1600);
    }

    #[test]
    fn addresses_are_read_backwards() {
        let of = |name: &str| Question::read(&query(name, 12)).unwrap().address();
        assert_eq!(of("4.3.2.10.in-addr.arpa"), Some(IpAddr::from([10, 2, 3, 4])));
        let six = format!("1.{}0.0.d.f.ip6.arpa", "0.".repeat(27));
        assert_eq!(of(&six), Some("fd00::1".parse().unwrap()));
        for bad in ["3.2.10.in-addr.arpa", "x.3.2.1.in-addr.arpa", "1.ip6.arpa", "web"] {
            assert_eq!(of(bad), None, "{bad}");
        }
        let bytes = query("4.3.2.10.in-addr.arpa", 12);
        let answer = Question::read(&bytes).unwrap().pointer(&bytes, "web.net");
        assert!(answer.ends_with(b"\x03web\x03net\0"));
    }

    #[test]
    fn what_is_no_question_is_refused() {
        let mut response = query("web", 1);
        response[2] |= 0x80;
        assert_eq!((Question::read(&response), refuse(&response)), (None, None));
        let mut two = query("web", 1);
        two[5] = 2;
        assert_eq!(Question::read(&two), None);
        assert_eq!(refuse(&two).unwrap()[3], 1);
        assert_eq!(refuse(b"short"), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Some(question) = Question::read(&bytes) {
                let _ = question.address();
                let answer = question.addresses(&bytes, &["10.0.0.1".parse().unwrap()], true);
                prop_assert!(answer.len() <= 512);
            }
            let _ = refuse(&bytes);
        }
    }
}
