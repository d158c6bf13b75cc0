//! A token server for a registry: checks names and passwords, and signs what docker-registry believes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::TestSpace;
use super::web::{Request, Web, reply};

/// Who may push, and everybody's password.
pub(crate) const USER: &str = "me";
/// That user's password; with what could go wrong in it.
pub(crate) const PASSWORD: &str = "s3cret:pass";
/// A refresh token that is as good.
pub(crate) const IDENTITY: &str = "identity-token-1";
/// As registry and server call each other.
pub(crate) const SERVICE: &str = "test registry";
pub(crate) const ISSUER: &str = "test issuer";

/// A running token server.
pub(crate) struct TokenServer {
    web: Web,
    /// What the registry has to trust.
    pub(crate) certificate: PathBuf,
    issued: Arc<AtomicUsize>,
}

impl TokenServer {
    /// Starts one whose tokens are good for so many seconds. Everybody may pull from `open/...`; `me` may do all.
    pub(crate) fn start(space: &TestSpace, seconds: u64) -> Self {
        let (certificate, key) = certificate(space, "token", "token signer");
        let der = space.path("token.der");
        space
            .run_tool("openssl", ["x509", "-in", path(&certificate), "-outform", "der", "-out", path(&der)])
            .ok();
        let chain = STANDARD.encode(std::fs::read(der).expect("openssl wrote it"));
        let issued = Arc::new(AtomicUsize::new(0));
        let count = issued.clone();
        let web = Web::start(move |request, stream| {
            let Some(user) = user_of(request) else {
                let body = br#"{"details":"incorrect username or password"}"#;
                return reply(stream, "401 Unauthorized", &[], body);
            };
            count.fetch_add(1, Ordering::Relaxed);
            let access: Vec<Value> =
                scopes(request).iter().filter_map(|s| grant(s, user.as_deref())).collect();
            let token = sign(&key, &chain, user.as_deref().unwrap_or_default(), &access, seconds);
            let body = json!({"token": token, "access_token": token, "expires_in": seconds}).to_string();
            reply(stream, "200 OK", &[("Content-Type", "application/json")], body.as_bytes())
        });
        Self { web, certificate, issued }
    }

    /// Where tokens are.
    pub(crate) fn realm(&self) -> String {
        format!("http://{}/token", self.web.host())
    }

    /// Tokens that were given out.
    pub(crate) fn issued(&self) -> usize {
        self.issued.load(Ordering::Relaxed)
    }

    /// Its requests.
    pub(crate) fn seen(&self) -> Vec<Request> {
        self.web.seen()
    }
}

/// Makes a CA and, signed by it, a certificate for this machine: gives the CA, the certificate and its key.
pub(crate) fn authority(space: &TestSpace, name: &str) -> (PathBuf, PathBuf, PathBuf) {
    let (ca, ca_key) = certificate(space, &format!("{name}-ca"), "a CA of its own");
    let file = |end: &str| space.path(&format!("{name}.{end}"));
    let (cert, key, request) = (file("crt"), file("key"), file("csr"));
    let ask = ["req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-keyout", path(&key)];
    space.run_tool("openssl", ask.iter().chain(&["-out", path(&request)])).ok();
    let names = space.write(
        &format!("{name}.ext"),
        "subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:false\n",
    );
    let sign = ["x509", "-req", "-days", "2", "-CAcreateserial", "-in", path(&request), "-CA", path(&ca)];
    let rest = ["-CAkey", path(&ca_key), "-extfile", path(&names), "-out", path(&cert)];
    space.run_tool("openssl", sign.iter().chain(&rest)).ok();
    (ca, cert, key)
}

/// Makes a self-signed certificate for this machine and gives it with its key.
pub(crate) fn certificate(space: &TestSpace, name: &str, subject: &str) -> (PathBuf, PathBuf) {
    let (cert, key) = (space.path(&format!("{name}.crt")), space.path(&format!("{name}.key")));
    let subject = format!("/CN={subject}");
    let names = "subjectAltName=DNS:localhost,IP:127.0.0.1";
    let args = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", &subject];
    let rest = ["-addext", names, "-keyout", path(&key), "-out", path(&cert)];
    space.run_tool("openssl", args.iter().chain(&rest)).ok();
    (cert, key)
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

/// Who asks: `None` for a wrong password, `Some(None)` for nobody.
fn user_of(request: &Request) -> Option<Option<String>> {
    if request.method == "POST" {
        let form = String::from_utf8_lossy(&request.body).into_owned();
        let good =
            form.contains(&format!("refresh_token={IDENTITY}")) && form.contains("grant_type=refresh_token");
        return good.then(|| Some(USER.to_owned()));
    }
    match request.header("authorization") {
        None => Some(None),
        Some(basic) => {
            let expected = format!("Basic {}", STANDARD.encode(format!("{USER}:{PASSWORD}")));
            (basic == expected).then(|| Some(USER.to_owned()))
        }
    }
}

fn scopes(request: &Request) -> Vec<String> {
    let query = match request.method.as_str() {
        "POST" => String::from_utf8_lossy(&request.body).into_owned(),
        _ => request.path.split_once('?').map_or(String::new(), |(_, query)| query.to_owned()),
    };
    let scope = |pair: &str| {
        Some(pair.strip_prefix("scope=")?.replace("%3A", ":").replace("%2F", "/").replace("%2C", ","))
    };
    let all = query.split('&').filter_map(scope);
    all.flat_map(|s| s.split("%20").map(str::to_owned).collect::<Vec<_>>())
        .filter(|s| !s.is_empty())
        .collect()
}

fn grant(scope: &str, user: Option<&str>) -> Option<Value> {
    let mut parts = scope.split(':');
    let (kind, name, actions) = (parts.next()?, parts.next()?, parts.next()?);
    let may = |action: &&str| user.is_some() || (*action == "pull" && name.starts_with("open/"));
    let actions: Vec<&str> = actions.split(',').filter(may).collect();
    Some(json!({"type": kind, "name": name, "actions": actions}))
}

fn sign(key: &Path, chain: &str, user: &str, access: &[Value], seconds: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let head = json!({"typ": "JWT", "alg": "RS256", "x5c": [chain]});
    let claims = json!({"iss": ISSUER, "sub": user, "aud": SERVICE, "iat": now, "nbf": now - 5,
        "exp": now + seconds, "jti": now.to_string(), "access": access});
    let text = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(head.to_string()),
        URL_SAFE_NO_PAD.encode(claims.to_string())
    );
    let mut openssl = std::process::Command::new("openssl")
        .args(["dgst", "-sha256", "-sign", path(key)])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("openssl is installed");
    let mut stdin = openssl.stdin.take().expect("it was asked for");
    std::io::Write::write_all(&mut stdin, text.as_bytes()).expect("openssl reads");
    drop(stdin);
    let signature = openssl.wait_with_output().expect("openssl ends").stdout;
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
}
