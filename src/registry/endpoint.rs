//! How one host is reached: scheme, certificates, proxy, time limits.
//!
//! https always, except for hosts that may do without: those on this machine, and those that the user named. These
//! are asked over https first, and only when they do not speak it at all over http. A bad certificate is an error.

use super::error::{RegistryError, redact};
use super::settings::{Settings, bare_host, is_loopback};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use ureq::tls::{Certificate, ClientCert, PemItem, RootCerts, TlsConfig};

const CONNECT: Duration = Duration::from_secs(20);
/// The longest file with certificates, in bytes.
const MAX_PEM: u64 = 4 << 20;
/// The host behind Docker Hub's name.
const HUB_HOST: &str = "registry-1.docker.io";

/// Gives the host that answers for a registry.
pub(super) fn host_of(registry: &str) -> &str {
    if registry == "docker.io" { HUB_HOST } else { registry }
}

/// Makes a client for one host (`host[:port]`).
pub(super) fn agent(settings: &Settings, host: &str) -> Result<ureq::Agent, RegistryError> {
    let insecure = settings.is_insecure(host);
    let (roots, client) = certificates(settings, host)?;
    let roots = match roots {
        roots if roots.is_empty() => RootCerts::PlatformVerifier,
        mut roots => {
            let platform = rustls_native_certs::load_native_certs().certs;
            roots.extend(platform.iter().map(|der| Certificate::from_der(der).to_owned()));
            RootCerts::Specific(Arc::new(roots))
        }
    };
    let tls =
        TlsConfig::builder().root_certs(roots).client_cert(client).disable_verification(insecure).build();
    let mut config = ureq::Agent::config_builder()
        .tls_config(tls)
        .http_status_as_error(false)
        // redirects are followed by hand: who is told our name is decided there
        .max_redirects(0)
        .max_redirects_will_error(false)
        .timeout_connect(Some(CONNECT.min(settings.patience)))
        .timeout_send_request(Some(settings.patience))
        .timeout_per_read(Some(settings.patience))
        .timeout_per_write(Some(settings.patience))
        .max_response_header_size(64 << 10)
        .max_idle_connections_per_host(8)
        .user_agent(concat!("rbuild/", env!("CARGO_PKG_VERSION")));
    if is_loopback(host) {
        config = config.proxy(None);
    }
    Ok(config.build().into())
}

/// Finds out under which scheme a host answers; `None` in `scheme` of a mirror's address means the same question.
pub(super) fn base_url(
    settings: &Settings,
    host: &str,
    agent: &ureq::Agent,
) -> Result<String, RegistryError> {
    let https = format!("https://{host}");
    if !is_loopback(host) && !settings.is_insecure(host) {
        return Ok(https);
    }
    let ping = |base: &str| agent.get(format!("{base}/v2/")).call();
    let error = match ping(&https) {
        Ok(_) => return Ok(https),
        Err(error) => error,
    };
    if tls_error(&error).is_some_and(is_certificate) {
        return Err(transport(&https, &error));
    }
    let http = format!("http://{host}");
    match ping(&http) {
        // what a TLS server answers to words in the clear
        Ok(answer)
            if answer.status() == 400
                && !answer.headers().contains_key("docker-distribution-api-version") =>
        {
            Err(transport(&https, &error))
        }
        Ok(_) => Ok(http),
        Err(error) => Err(transport(&http, &error)),
    }
}

/// Finds the error of TLS in one of the client's, where there is one.
pub(super) fn tls_error(error: &ureq::Error) -> Option<&rustls::Error> {
    match error {
        ureq::Error::Rustls(error) => Some(error),
        ureq::Error::Io(error) => error.get_ref()?.downcast_ref(),
        _ => None,
    }
}

pub(super) fn is_certificate(error: &rustls::Error) -> bool {
    matches!(error, rustls::Error::InvalidCertificate(_) | rustls::Error::AlertReceived(_))
}

/// Says whether the name of a host leads nowhere, which no second try changes.
pub(super) fn is_unknown_host(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::HostNotFound => true,
        // the resolver's errors have no kind of their own
        ureq::Error::Io(why) => why.to_string().contains("failed to lookup address"),
        _ => false,
    }
}

/// Words an error of the client.
pub(super) fn transport(url: &str, error: &ureq::Error) -> RegistryError {
    if let Some(rustls::Error::InvalidCertificate(why)) = tls_error(error) {
        let host = host_in(url);
        let why = format!(
            "its certificate is not trusted ({why}): put the CA of the registry into /etc/docker/certs.d/{host}/ca.crt"
        );
        return RegistryError::Transport { url: redact(url), why };
    }
    let why = match error {
        error if is_unknown_host(error) => {
            "this host is not known: check its name, and that there is a network".to_owned()
        }
        ureq::Error::Io(why) => why.to_string(),
        ureq::Error::Timeout(what) => format!("no answer in time ({what})"),
        other => other.to_string(),
    };
    RegistryError::Transport { url: redact(url), why }
}

/// Gives the `host[:port]` of a URL.
pub(super) fn host_in(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let rest = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
    rest.rsplit_once('@').map_or(rest, |(_, host)| host)
}

/// Reads the certificates for a host: trusted roots, and our own with its key.
fn certificates(
    settings: &Settings,
    host: &str,
) -> Result<(Vec<Certificate<'static>>, Option<ClientCert>), RegistryError> {
    let (mut roots, mut client) = (Vec::new(), None);
    let mut names = vec![host];
    if host == HUB_HOST {
        names.push("docker.io");
    }
    if bare_host(host) != host && !host.starts_with('[') && host.ends_with(":443") {
        names.push(bare_host(host));
    }
    for dir in settings.certs.iter().flat_map(|d| names.iter().map(move |n| d.join(n))) {
        let Ok(entries) = std::fs::read_dir(&dir) else { continue };
        let mut paths: Vec<_> = entries.flatten().map(|e| e.path()).collect();
        paths.sort();
        for path in paths {
            match path.extension().and_then(|e| e.to_str()) {
                Some("crt") => roots.extend(pem_certificates(&path)?),
                Some("cert") if client.is_none() => client = Some(own(&path)?),
                _ => {}
            }
        }
    }
    Ok((roots, client))
}

fn own(cert: &Path) -> Result<ClientCert, RegistryError> {
    let chain = pem_certificates(cert)?;
    let path = cert.with_extension("key");
    let key = pem(&path)?.into_iter().find_map(|item| match item {
        PemItem::PrivateKey(key) => Some(key),
        _ => None,
    });
    let key = key.ok_or_else(|| RegistryError::config(&path, "there is no private key in it"))?;
    Ok(ClientCert::new_with_certs(&chain, key))
}

fn pem_certificates(path: &Path) -> Result<Vec<Certificate<'static>>, RegistryError> {
    let found: Vec<_> = pem(path)?
        .into_iter()
        .filter_map(|item| match item {
            PemItem::Certificate(cert) => Some(cert),
            _ => None,
        })
        .collect();
    if found.is_empty() {
        Err(RegistryError::config(path, "there is no certificate in it"))
    } else {
        Ok(found)
    }
}

fn pem(path: &Path) -> Result<Vec<PemItem<'static>>, RegistryError> {
    let fail = |e: &dyn std::fmt::Display| RegistryError::config(path, e);
    if std::fs::metadata(path).map_err(|e| fail(&e))?.len() > MAX_PEM {
        return Err(RegistryError::config(path, "it is too long for a file of certificates"));
    }
    let bytes = std::fs::read(path).map_err(|e| fail(&e))?;
    ureq::tls::parse_pem(&bytes).collect::<Result<_, _>>().map_err(|e| fail(&e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_cut_out_of_urls() {
        for (url, host) in [
            ("https://r.io/v2/", "r.io"),
            ("http://u:p@r.io:5000?x=/y", "r.io:5000"),
            ("https://[::1]:5000/x@y", "[::1]:5000"),
        ] {
            assert_eq!(host_in(url), host);
        }
    }
}
