//! The ports of EXPOSE: `[[ip:]host:]port[-last][/protocol]`, of which only the last part reaches the image.

use std::net::IpAddr;

/// Reads one word after expansion: `port/protocol`, one for each port of a range. The error says what is wrong.
pub(super) fn parse(word: &str) -> Result<Vec<String>, String> {
    let (address, host, container) = split(word);
    let (range, protocol) = container.split_once('/').unwrap_or((container, ""));
    if range.is_empty() {
        return Err(format!("invalid port {word:?}: no port specified"));
    }
    let lower = protocol.to_ascii_lowercase();
    let name = match lower.as_str() {
        "" => "tcp",
        "tcp" | "udp" | "sctp" => &lower,
        _ => return Err(format!("invalid port {word:?}: protocol {protocol:?} is not tcp, udp or sctp")),
    };
    check_address(address)?;
    let (first, last) = port_range(range).map_err(|why| format!("invalid port {range:?}: {why}"))?;
    if !host.is_empty() {
        let (from, to) = port_range(host).map_err(|why| format!("invalid host port {host:?}: {why}"))?;
        if to - from != last - first && first != last {
            return Err(format!("port ranges {host} and {range} do not have the same length"));
        }
    }
    Ok((first..=last).map(|port| format!("{port}/{name}")).collect())
}

/// Cuts at the last two colons; an IPv6 address may hold more.
fn split(word: &str) -> (&str, &str, &str) {
    match word.rsplit_once(':') {
        None => ("", "", word),
        Some((front, container)) => match front.rsplit_once(':') {
            None => ("", front, container),
            Some((address, host)) => (address, host, container),
        },
    }
}

fn check_address(address: &str) -> Result<(), String> {
    let bare = address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(address);
    if address.is_empty() || bare.parse::<IpAddr>().is_ok() {
        return Ok(());
    }
    Err(format!("invalid IP address: {address}"))
}

fn port_range(text: &str) -> Result<(u32, u32), String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (port(first)?, port(last)?);
    if last < first { Err("the range ends before it starts".into()) } else { Ok((first, last)) }
}

fn port(text: &str) -> Result<u32, String> {
    let digits = text.strip_prefix('+').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("{text:?} is not a number"));
    }
    digits
        .parse()
        .ok()
        .filter(|n| *n <= 65535)
        .ok_or_else(|| format!("{text} is not in the range 0 to 65535"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_ranges_and_protocols() {
        for (word, want) in [
            ("80", &["80/tcp"][..]),
            ("80/UDP", &["80/udp"]),
            ("80/", &["80/tcp"]),
            ("8000-8002/sctp", &["8000/sctp", "8001/sctp", "8002/sctp"]),
            ("0", &["0/tcp"]),
            ("65535", &["65535/tcp"]),
            ("080", &["80/tcp"]),
            ("8080:80", &["80/tcp"]),
            ("127.0.0.1:8080:80/udp", &["80/udp"]),
            ("[::1]:8080:80", &["80/tcp"]),
            ("::1:8080:80", &["80/tcp"]),
            ("9000-9010:80", &["80/tcp"]),
            ("9000-9001:80-81", &["80/tcp", "81/tcp"]),
        ] {
            assert_eq!(parse(word).unwrap(), want, "{word}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for word in [
            "",
            "/tcp",
            "80/http",
            "65536",
            "-1",
            "80-70",
            "80-",
            "a",
            "8080:",
            "1.2.3:80:80",
            "1-3:5-6",
            "8 0",
        ] {
            assert!(parse(word).is_err(), "{word}");
        }
    }
}
