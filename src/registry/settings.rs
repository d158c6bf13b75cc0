//! Which registries are trusted how: certificates, plain http, mirrors, patience.
//!
//! The file has the keys of Docker's `daemon.json`, `registry-mirrors` and `insecure-registries`. Read is the first that
//! exists of `$RBUILD_REGISTRY_CONFIG`, `$XDG_CONFIG_HOME/rbuild/registries.json`, `/etc/rbuild/registries.json` and
//! `/etc/docker/daemon.json`, so what a machine has set up for Docker counts here too. `$RBUILD_REGISTRY_MIRRORS` and
//! flags add to it.

use super::credential::CredentialFiles;
use super::error::RegistryError;
use serde::Deserialize;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// No honest file is longer, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// What a command line says about registries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flags {
    /// No registry needs a certificate, or https at all.
    pub insecure_all: bool,
    /// These do not.
    pub insecure: Vec<String>,
    /// Directory with certificates, looked at first.
    pub certs: Option<PathBuf>,
}

/// What a client needs to know about the world.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where passwords are.
    pub credentials: CredentialFiles,
    /// Registries (`host[:port]`) that may speak plain http or have certificates that nobody vouches for.
    pub insecure: Vec<String>,
    /// `--tls-verify=false`: all of them.
    pub insecure_all: bool,
    /// Asked before Docker Hub, in this order: `https://host[:port]`.
    pub mirrors: Vec<String>,
    /// Directories with a directory `host[:port]` that holds `*.crt` (roots), `*.cert` and `*.key` (ours).
    pub certs: Vec<PathBuf>,
    /// How long a registry may keep silent, and how long a transfer may crawl.
    pub patience: Duration,
    /// Times that one request is made in all.
    pub attempts: u32,
    /// The first pause between two attempts; each next one is twice as long.
    pub pause: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            credentials: CredentialFiles::default(),
            insecure: Vec::new(),
            insecure_all: false,
            mirrors: Vec::new(),
            certs: Vec::new(),
            patience: Duration::from_secs(60),
            attempts: 5,
            pause: Duration::from_millis(300),
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct ConfigFile {
    #[serde(default)]
    registry_mirrors: Vec<String>,
    #[serde(default)]
    insecure_registries: Vec<String>,
}

impl Settings {
    /// Reads environment and configuration files.
    ///
    /// # Errors
    /// A file or variable is there and cannot be understood.
    pub fn from_env() -> Result<Self, RegistryError> {
        let var = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let home = || var("XDG_CONFIG_HOME").or_else(|| Some(var("HOME")?.join(".config")));
        let mut out = Self { credentials: CredentialFiles::from_env(), ..Self::default() };
        let named = var("RBUILD_REGISTRY_CONFIG");
        let places = match &named {
            Some(path) => vec![path.clone()],
            None => home()
                .map(|h| h.join("rbuild/registries.json"))
                .into_iter()
                .chain(["/etc/rbuild/registries.json".into(), "/etc/docker/daemon.json".into()])
                .collect(),
        };
        for path in places {
            if let Some(file) = read(&path, named.is_some())? {
                out.mirrors = file.registry_mirrors;
                out.insecure = file.insecure_registries;
                break;
            }
        }
        if let Some(text) = var("RBUILD_REGISTRY_MIRRORS") {
            let text = text.to_string_lossy().into_owned();
            out.mirrors = text.split([',', ' ']).filter(|m| !m.is_empty()).map(str::to_owned).collect();
        }
        out.certs.extend(var("RBUILD_CERTS"));
        out.certs.extend(home().into_iter().flat_map(|h| {
            [h.join("rbuild/certs.d"), h.join("docker/certs.d"), h.join("containers/certs.d")]
        }));
        out.certs.extend(["/etc/docker/certs.d".into(), "/etc/containers/certs.d".into()]);
        if let Some(text) = var("RBUILD_REGISTRY_TIMEOUT") {
            let seconds = text.to_str().and_then(|t| t.parse().ok()).filter(|s| *s > 0);
            let bad = || {
                RegistryError::config(Path::new("RBUILD_REGISTRY_TIMEOUT"), "expected a number of seconds")
            };
            out.patience = Duration::from_secs(seconds.ok_or_else(bad)?);
        }
        Ok(out)
    }

    /// Reads environment and configuration files, and adds what the command line says.
    ///
    /// # Errors
    /// As [`Settings::from_env`].
    pub fn with_flags(flags: &Flags) -> Result<Self, RegistryError> {
        let mut settings = Self::from_env()?;
        settings.insecure.extend(flags.insecure.iter().cloned());
        settings.insecure_all |= flags.insecure_all;
        settings.certs.splice(0..0, flags.certs.clone());
        Ok(settings)
    }

    /// Says whether the user allowed plain http and unknown certificates for a registry.
    pub(super) fn is_insecure(&self, host: &str) -> bool {
        self.insecure_all || self.insecure.iter().any(|rule| matches_host(rule, host))
    }
}

fn read(path: &Path, must: bool) -> Result<Option<ConfigFile>, RegistryError> {
    match std::fs::metadata(path) {
        Ok(meta) if meta.len() > MAX_FILE => {
            return Err(RegistryError::config(path, "it is too long for a configuration file"));
        }
        Ok(_) => {}
        Err(e) if must => return Err(RegistryError::config(path, e)),
        Err(_) => return Ok(None),
    }
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied && !must => return Ok(None),
        Err(e) => return Err(RegistryError::config(path, e)),
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|e| RegistryError::config(path, format!("it cannot be read: {e}")))
}

/// An entry is `host`, `host:port` or a network `10.0.0.0/8`; one without port fits every port, as for docker.
fn matches_host(rule: &str, host: &str) -> bool {
    let rule = rule.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
    let bare = bare_host(host);
    if rule == host || rule == bare {
        return true;
    }
    let Some((network, bits)) = rule.split_once('/') else { return false };
    match (network.parse(), bare.parse(), bits.parse::<u32>()) {
        (Ok(IpAddr::V4(network)), Ok(IpAddr::V4(ip)), Ok(bits @ 0..=32)) => {
            let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
            u32::from(network) & mask == u32::from(ip) & mask
        }
        (Ok(IpAddr::V6(network)), Ok(IpAddr::V6(ip)), Ok(bits @ 0..=128)) => {
            let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
            u128::from(network) & mask == u128::from(ip) & mask
        }
        _ => false,
    }
}

/// Takes the port off, and the brackets of an IPv6 address.
pub(super) fn bare_host(host: &str) -> &str {
    match host.strip_prefix('[').and_then(|v6| v6.split_once(']')) {
        Some((v6, _)) => v6,
        None => host.split_once(':').map_or(host, |(bare, _)| bare),
    }
}

/// Says whether a host is this machine, where nobody listens in between.
pub(super) fn is_loopback(host: &str) -> bool {
    let bare = bare_host(host);
    bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_told_apart() {
        for (host, loopback) in [
            ("localhost:5000", true),
            ("127.0.0.1", true),
            ("127.9.9.9:80", true),
            ("[::1]:5000", true),
            ("localhost.evil.org", false),
            ("10.0.0.1:5000", false),
            ("127.0.0.1.evil.org", false),
        ] {
            assert_eq!(is_loopback(host), loopback, "{host}");
        }
        for (rule, host, fits) in [
            ("r.io", "r.io", true),
            ("r.io", "r.io:5000", true),
            ("r.io:5000", "r.io:5001", false),
            ("10.0.0.0/8", "10.1.2.3:5000", true),
            ("10.0.0.0/8", "11.1.2.3", false),
            ("::/0", "[fe80::1]:5000", true),
            ("http://r.io:1/", "r.io:1", true),
            ("io", "r.io", false),
        ] {
            assert_eq!(matches_host(rule, host), fits, "{rule} {host}");
        }
    }

    #[test]
    fn docker_s_keys_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("daemon.json");
        std::fs::write(
            &path,
            r#"{"registry-mirrors":["https://m.io"],"insecure-registries":["r:5000"],"dns":["1.1.1.1"]}"#,
        )
        .unwrap();
        let file = read(&path, true).unwrap().unwrap();
        assert_eq!(
            (file.registry_mirrors, file.insecure_registries),
            (vec!["https://m.io".to_owned()], vec!["r:5000".to_owned()])
        );
        std::fs::write(&path, "{").unwrap();
        assert!(read(&path, false).is_err());
        assert!(
            read(&dir.path().join("none"), true).is_err()
                && read(&dir.path().join("none"), false).unwrap().is_none()
        );
    }
}
