//! What must hold for every short text that comes from outside: ignore files, references, challenges, env files and
//! flag values. Shared by the fuzz targets and by the test that mutates known texts.

use rbuild::context::IgnoreRules;
use rbuild::reference::Reference;
use rbuild::tree::TreePath;
use rbuild::{image, network, registry, runtime, share};
use std::path::Path;

/// Checks one text as an ignore file: shortcuts for directories say the same as asking about each path.
pub(crate) fn check_ignore(source: &[u8]) {
    let Ok(rules) = IgnoreRules::parse(source, ".dockerignore") else { return };
    let own = source.split(|b| *b == b'\n').take(4).map(|line| TreePath::clean(line.trim_ascii()));
    let fixed = [&b"a"[..], b"a/b", b"a/b/c.txt", b"node_modules/x/y", b".git/config"];
    for path in own.chain(fixed.map(TreePath::clean)) {
        let below = path.child(b"x");
        let verdict = rules.verdict(&path);
        assert_eq!(rules.excludes(&path), rules.is_excluded(verdict));
        assert_eq!(rules.excludes(&path), rules.explain(&path).is_some());
        let excluded = rules.is_excluded(rules.verdict_below(verdict, below.as_bytes()));
        assert_eq!(rules.excludes(&below), excluded, "{below:?}");
        if rules.can_prune(&path) {
            assert!(excluded, "{path:?} was passed over, and {below:?} is not excluded");
        }
    }
}

/// Checks one text as the name of an image: what is accepted can be a part of an address and of nothing else.
pub(crate) fn check_reference(source: &[u8]) {
    let Ok(text) = std::str::from_utf8(source) else { return };
    let Ok(reference) = text.parse::<Reference>() else { return };
    assert_eq!(reference.to_string().parse::<Reference>().as_ref(), Ok(&reference));
    assert_eq!(reference.familiar().parse::<Reference>().as_ref(), Ok(&reference));
    let mut parts = reference.repository().split('/').chain(reference.tag());
    assert!(parts.all(|part| !part.is_empty() && part != "." && part != ".." && part.is_ascii()));
    assert!(!reference.to_string().contains(|c: char| c.is_control() || c == ' '));
}

/// Checks one text as a `WWW-Authenticate` header.
pub(crate) fn check_challenge(source: &[u8]) {
    let Ok(text) = std::str::from_utf8(source) else { return };
    for challenge in registry::challenge::parse(text) {
        assert!(!challenge.scheme.is_empty() && challenge.scheme.is_ascii());
        for name in ["realm", "service", "scope"] {
            assert!(challenge.param(name).is_none_or(|value| value.len() <= text.len()));
        }
    }
}

/// Checks one text as an env file.
pub(crate) fn check_env(source: &[u8]) {
    let host = |name: &[u8]| name.starts_with(b"H").then(|| b"host".to_vec());
    let lines = source.split(|b| *b == b'\n').count();
    match runtime::env::parse_file(source, &host) {
        Ok(changes) => {
            assert!(changes.len() <= lines);
            assert!(changes.iter().all(|(name, _)| !name.is_empty() && !name.contains(&b'=')));
        }
        Err((line, why)) => assert!((1..=lines).contains(&line) && !why.is_empty()),
    }
}

/// Checks one text as the value of a flag; its first byte chooses which.
pub(crate) fn check_flag(source: &[u8]) {
    let Some((first, rest)) = source.split_first() else { return };
    let Ok(text) = std::str::from_utf8(rest) else { return };
    let here = Path::new("/here");
    match first % 11 {
        0 => drop(runtime::volume::parse_volume(rest, here)),
        1 => drop(runtime::volume::parse_mount(rest, here)),
        2 => drop(runtime::volume::parse_tmpfs(rest)),
        3 => {
            if let Ok(ports) = network::parse_publish(text) {
                assert!(ports.len() <= 65536);
            }
        }
        4 => drop(network::parse_attachment(text)),
        5 => drop(share::ImportSpec::parse(text)),
        6 => drop(share::ExportSpec::parse(text)),
        7 => drop(image::OutputSpec::parse(text)),
        8 => drop(runtime::time::parse(text)),
        9 => drop(text.parse::<rbuild::platform::Platform>()),
        _ => drop(text.parse::<rbuild::digest::Digest>()),
    }
}
