//! The little that is needed of URLs: encoding, and where a `Location` leads. Pure.

/// Writes a text as a value of a query or form (RFC 3986, 2.3: only unreserved characters stay).
pub(super) fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(byte as char),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// Gives scheme, host and port, in lower case and with the port that a scheme implies left out.
pub(super) fn origin(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let scheme = scheme.to_ascii_lowercase();
    let rest = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host).to_ascii_lowercase();
    let implied = match scheme.as_str() {
        "http" => ":80",
        "https" => ":443",
        _ => return None,
    };
    let host = host.strip_suffix(implied).unwrap_or(&host);
    (!host.is_empty()).then(|| format!("{scheme}://{host}"))
}

/// Finds where a `Location` leads from the URL that was asked; `None` for what is neither http nor https.
pub(super) fn join(from: &str, location: &str) -> Option<String> {
    let location = location.split('#').next().unwrap_or_default();
    if location.bytes().any(|b| !b.is_ascii_graphic()) {
        return None;
    }
    if location.contains("://") && origin(location).is_some() {
        // user and password in it are somebody else's wish
        return (!location.split('/').nth(2)?.contains('@')).then(|| location.to_owned());
    }
    if let Some(rest) = location.strip_prefix("//") {
        let (scheme, _) = from.split_once("://")?;
        return join(from, &format!("{scheme}://{rest}"));
    }
    if location.split(['/', '?']).next()?.contains(':') {
        return None;
    }
    let start = from.find("://")? + 3;
    let host_end = from[start..].find(['/', '?']).map_or(from.len(), |at| start + at);
    if location.starts_with('/') {
        return Some(format!("{}{location}", &from[..host_end]));
    }
    let path = from[..].split('?').next().unwrap_or(from);
    let dir = path[host_end.min(path.len())..].rfind('/').map_or(host_end, |at| host_end + at);
    Some(format!("{}/{location}", &from[..dir]))
}

/// Adds a parameter to a URL that may have some.
pub(super) fn with_query(url: &str, name: &str, value: &str) -> String {
    let join = if url.contains('?') { '&' } else { '?' };
    format!("{url}{join}{name}={}", encode(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_followed() {
        let from = "https://r.io:5000/v2/a/blobs/x?q=1";
        for (location, want) in [
            ("/y", Some("https://r.io:5000/y")),
            ("https://s.io/y?sig=1#f", Some("https://s.io/y?sig=1")),
            ("//s.io/y", Some("https://s.io/y")),
            ("z", Some("https://r.io:5000/v2/a/blobs/z")),
            ("?page=2", Some("https://r.io:5000/v2/a/blobs/?page=2")),
            ("file:///etc/passwd", None),
            ("ftp://s.io/x", None),
            ("https://u:p@s.io/x", None),
            ("/a b", None),
            ("https://", None),
        ] {
            assert_eq!(join(from, location).as_deref(), want, "{location}");
        }
    }

    #[test]
    fn origins_are_compared() {
        assert_eq!(origin("https://R.io:443/x"), origin("HTTPS://r.io?y"));
        assert_ne!(origin("https://r.io"), origin("http://r.io"));
        assert_ne!(origin("https://r.io"), origin("https://r.io:5000"));
        assert_eq!(origin("https://a@b.io/x").as_deref(), Some("https://b.io"));
        assert_eq!(encode("a b:c/d,e"), "a%20b%3Ac%2Fd%2Ce");
        assert_eq!(with_query("h/x?a=1", "d", "s:1"), "h/x?a=1&d=s%3A1");
    }
}
