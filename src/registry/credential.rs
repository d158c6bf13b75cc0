//! Who we are for a registry: `config.json` of Docker, credential helpers, and podman's `auth.json` where Docker's
//! file knows nothing.
//!
//! A helper for the registry (`credHelpers`) wins over the store of all (`credsStore`), that over what stands in the
//! file (`auths`), as for docker. The file is written whole beside the old one and renamed, mode 0600, and all that
//! we do not know in it stays.

use super::error::RegistryError;
use super::helper;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The name that Docker Hub has in these files.
const HUB_KEY: &str = "https://index.docker.io/v1/";
/// The user name that stands for "the password is an identity token".
pub(super) const TOKEN_USER: &str = "<token>";
/// No honest file is longer, in bytes.
const MAX_FILE: u64 = 4 << 20;

/// What proves who we are.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// A user and a password or access token.
    Password {
        /// Name of the user.
        user: String,
        /// Password.
        password: String,
    },
    /// An OAuth2 refresh token.
    Identity(String),
    /// A bearer token that is sent as it is.
    Bearer(String),
}

/// Secrets never reach a message.
impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password { user, .. } => write!(f, "Password({user:?})"),
            Self::Identity(_) => f.write_str("Identity"),
            Self::Bearer(_) => f.write_str("Bearer"),
        }
    }
}

/// The files with credentials of this user.
#[derive(Debug, Clone, Default)]
pub struct CredentialFiles {
    /// Docker's `config.json`; also written.
    pub docker: Option<PathBuf>,
    /// Read when Docker's file knows nothing.
    pub others: Vec<PathBuf>,
}

impl CredentialFiles {
    /// Finds them by `$DOCKER_CONFIG`, `$HOME`, `$REGISTRY_AUTH_FILE` and `$XDG_RUNTIME_DIR`.
    pub fn from_env() -> Self {
        let dir = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let docker = dir("DOCKER_CONFIG").or_else(|| Some(dir("HOME")?.join(".docker")));
        let podman = dir("XDG_RUNTIME_DIR").map(|d| d.join("containers/auth.json"));
        let config = dir("XDG_CONFIG_HOME").or_else(|| Some(dir("HOME")?.join(".config")));
        let config = config.map(|d| d.join("containers/auth.json"));
        let others = match dir("REGISTRY_AUTH_FILE") {
            Some(file) => vec![file],
            None => podman.into_iter().chain(config).collect(),
        };
        Self { docker: docker.map(|d| d.join("config.json")), others }
    }

    /// Finds what is known for a registry (`docker.io`, `host:port`); a more special entry `host/name` wins.
    ///
    /// # Errors
    /// A file is damaged, or a helper fails.
    pub fn find(&self, registry: &str, repository: &str) -> Result<Option<Credential>, RegistryError> {
        for path in self.docker.iter().chain(&self.others) {
            let Some(config) = read(path)? else { continue };
            let found = lookup(&config, registry, repository);
            if let Some(found) = found.map_err(|e| place(path, e))? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Keeps credentials for a registry; says where.
    ///
    /// # Errors
    /// There is no place for the file, it is damaged, cannot be written, or the helper fails.
    pub fn keep(&self, registry: &str, credential: &Credential) -> Result<Kept, RegistryError> {
        let path = self.docker_file()?;
        let mut config = read(path)?.unwrap_or_default();
        let key = key_of(registry);
        if let Some(program) = helper_of(&config, registry) {
            helper::store(&program, key, credential)?;
            // an empty entry says that there is one, as docker writes it
            auths(&mut config).insert(key.to_owned(), Value::Object(Map::new()));
            write(path, &config)?;
            return Ok(Kept::Helper(program));
        }
        let mut entry = Map::new();
        match credential {
            Credential::Password { user, password } => {
                entry.insert("auth".into(), STANDARD.encode(format!("{user}:{password}")).into());
            }
            Credential::Identity(token) => {
                entry.insert("auth".into(), STANDARD.encode(format!("{TOKEN_USER}:")).into());
                entry.insert("identitytoken".into(), token.clone().into());
            }
            Credential::Bearer(token) => drop(entry.insert("registrytoken".into(), token.clone().into())),
        }
        auths(&mut config).insert(key.to_owned(), Value::Object(entry));
        write(path, &config)?;
        Ok(Kept::File(path.to_owned()))
    }

    /// Forgets what is kept for a registry; says whether there was anything.
    ///
    /// # Errors
    /// As [`CredentialFiles::keep`].
    pub fn forget(&self, registry: &str) -> Result<bool, RegistryError> {
        let path = self.docker_file()?;
        let Some(mut config) = read(path)? else { return Ok(false) };
        let mut found = false;
        if let Some(program) = helper_of(&config, registry) {
            found |= helper::erase(&program, key_of(registry))?;
        }
        let spellings = spellings(registry);
        let auths = auths(&mut config);
        let before = auths.len();
        auths.retain(|key, _| !spellings.iter().any(|s| s == key));
        if auths.len() < before {
            found = true;
            write(path, &config)?;
        }
        Ok(found)
    }

    fn docker_file(&self) -> Result<&Path, RegistryError> {
        self.docker.as_deref().ok_or_else(|| {
            let why = "neither DOCKER_CONFIG nor HOME says where it is";
            RegistryError::config(Path::new("config.json"), why)
        })
    }
}

/// Where credentials went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// Into this file, where everybody who can read it can read them.
    File(PathBuf),
    /// To this program.
    Helper(String),
}

fn place(path: &Path, error: RegistryError) -> RegistryError {
    match error {
        RegistryError::Config { why, .. } => RegistryError::config(path, why),
        other => other,
    }
}

/// The name under which a registry stands in `config.json`.
fn key_of(registry: &str) -> &str {
    if registry == "docker.io" { HUB_KEY } else { registry }
}

/// All names under which tools write one registry down.
fn spellings(registry: &str) -> Vec<String> {
    let hosts: &[&str] = match registry {
        "docker.io" => &["index.docker.io", "docker.io", "registry-1.docker.io"],
        other => &[other],
    };
    let forms = ["", "https://", "http://"];
    let tails = ["", "/", "/v1/", "/v2/", "/v1", "/v2"];
    let mut all = vec![key_of(registry).to_owned()];
    for host in hosts {
        all.extend(forms.iter().flat_map(|f| tails.iter().map(move |t| format!("{f}{host}{t}"))));
    }
    all
}

fn lookup(
    config: &Map<String, Value>,
    registry: &str,
    repository: &str,
) -> Result<Option<Credential>, RegistryError> {
    if let Some(program) = helper_of(config, registry)
        && let Some(found) = helper::get(&program, key_of(registry))?
    {
        return Ok(Some(found));
    }
    let Some(auths) = config.get("auths").and_then(Value::as_object) else { return Ok(None) };
    // podman may keep credentials for a part of a registry: host/team/app, host/team
    let mut parts = repository;
    while !parts.is_empty() {
        if let Some(entry) = auths.get(&format!("{registry}/{parts}")) {
            return credential_of(entry);
        }
        parts = parts.rsplit_once('/').map_or("", |(front, _)| front);
    }
    for name in spellings(registry) {
        if let Some(found) = auths.get(&name).map(credential_of).transpose()?.flatten() {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn credential_of(entry: &Value) -> Result<Option<Credential>, RegistryError> {
    let bad = |why: &str| RegistryError::config(Path::new(""), why);
    let text =
        |key: &str| entry.get(key).and_then(Value::as_str).filter(|t| !t.is_empty()).map(str::to_owned);
    if let Some(token) = text("identitytoken") {
        return Ok(Some(Credential::Identity(token)));
    }
    if let Some(token) = text("registrytoken") {
        return Ok(Some(Credential::Bearer(token)));
    }
    if let Some(auth) = text("auth") {
        let bytes = STANDARD.decode(auth.trim()).map_err(|_| bad("an \"auth\" in it is not base64"))?;
        let plain = String::from_utf8(bytes).map_err(|_| bad("an \"auth\" in it is not text"))?;
        let (user, password) = plain.split_once(':').ok_or_else(|| bad("an \"auth\" in it has no colon"))?;
        let (user, password) = (user.to_owned(), password.trim_end_matches('\0').to_owned());
        return Ok(Some(Credential::Password { user, password }));
    }
    Ok(text("username")
        .map(|user| Credential::Password { user, password: text("password").unwrap_or_default() }))
}

/// The program that keeps the credentials of a registry.
fn helper_of(config: &Map<String, Value>, registry: &str) -> Option<String> {
    let named =
        |value: Option<&Value>| value.and_then(Value::as_str).filter(|n| !n.is_empty()).map(str::to_owned);
    let helpers = config.get("credHelpers");
    let special = spellings(registry).iter().find_map(|name| named(helpers?.get(name)));
    special.or_else(|| named(config.get("credsStore"))).map(|name| format!("docker-credential-{name}"))
}

fn auths(config: &mut Map<String, Value>) -> &mut Map<String, Value> {
    let entry = config.entry("auths").or_insert_with(|| Value::Object(Map::new()));
    if !entry.is_object() {
        *entry = Value::Object(Map::new());
    }
    entry.as_object_mut().expect("it was made an object just now")
}

fn read(path: &Path) -> Result<Option<Map<String, Value>>, RegistryError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        // somebody else's home, as for a program with another user's environment
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => return Ok(None),
        Err(e) => return Err(RegistryError::config(path, e)),
    };
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(|e| RegistryError::config(path, e))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(RegistryError::config(path, "it is too long for a file of credentials"));
    }
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(Some(Map::new()));
    }
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|e| RegistryError::config(path, format!("it is not JSON: {e}")))
}

/// Writes the file beside the old one and renames; a link stays one.
fn write(path: &Path, config: &Map<String, Value>) -> Result<(), RegistryError> {
    let fail = |e: io::Error| RegistryError::config(path, format!("cannot write it: {e}"));
    let target = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    if let Some(dir) = target.parent() {
        let mut builder = std::fs::DirBuilder::new();
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.recursive(true).create(dir).map_err(fail)?;
    }
    let mut random = [0u8; 8];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
        .map_err(|e| fail(e.into()))?;
    let staged = target.with_file_name(format!(".config.json.{}", crate::digest::hex(&random)));
    let mut text = serde_json::to_vec_pretty(config).expect("plain data always prints");
    text.push(b'\n');
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(&staged).map_err(fail)?;
    let done =
        file.write_all(&text).and_then(|()| file.sync_all()).and_then(|()| std::fs::rename(&staged, &target));
    done.map_err(|e| {
        let _ = std::fs::remove_file(&staged);
        fail(e)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    fn password(user: &str, password: &str) -> Credential {
        Credential::Password { user: user.into(), password: password.into() }
    }

    fn files(dir: &Path, text: &str) -> CredentialFiles {
        let path = dir.join("config.json");
        std::fs::write(&path, text).unwrap();
        CredentialFiles { docker: Some(path), others: Vec::new() }
    }

    #[test]
    fn entries_are_found_under_all_their_names() {
        let dir = tempfile::tempdir().unwrap();
        let files = files(
            dir.path(),
            r#"{"auths":{"https://index.docker.io/v1/":{"auth":"aHViOnA6cQ=="},"r.io:5000":{"username":"u","password":"p"},
            "https://old.io/v2/":{"auth":"bzpw"},"t.io":{"auth":"PHRva2VuPjo=","identitytoken":"idt"},
            "p.io/team":{"auth":"dGVhbTpw"},"p.io":{"auth":"YWxsOnA="},"e.io":{}}}"#,
        );
        for (registry, repository, want) in [
            ("docker.io", "library/x", Some(password("hub", "p:q"))),
            ("r.io:5000", "x", Some(password("u", "p"))),
            ("old.io", "x", Some(password("o", "p"))),
            ("t.io", "x", Some(Credential::Identity("idt".into()))),
            ("p.io", "team/app", Some(password("team", "p"))),
            ("p.io", "teammate/app", Some(password("all", "p"))),
            ("e.io", "x", None),
            ("r.io", "x", None),
        ] {
            assert_eq!(files.find(registry, repository).unwrap(), want, "{registry}");
        }
    }

    #[test]
    fn logging_in_and_out_keeps_what_is_not_known() {
        let dir = tempfile::tempdir().unwrap();
        let files = files(
            dir.path(),
            r#"{"proxies":{"default":{}},"auths":{"a.io":{"auth":"YTpi"}},"psFormat":"x"}"#,
        );
        let path = files.docker.clone().unwrap();
        assert_eq!(files.keep("docker.io", &password("me", "s:t")).unwrap(), Kept::File(path.clone()));
        assert_eq!(files.find("docker.io", "library/x").unwrap(), Some(password("me", "s:t")));
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let text = std::fs::read_to_string(&path).unwrap();
        let value: Value = serde_json::from_str(&text).unwrap();
        assert!(value["proxies"]["default"].is_object() && value["psFormat"] == "x", "{text}");
        assert_eq!(value["auths"]["a.io"]["auth"], "YTpi");
        assert!(files.forget("docker.io").unwrap());
        assert!(!files.forget("docker.io").unwrap());
        assert_eq!(files.find("docker.io", "library/x").unwrap(), None);
        assert_eq!(files.find("a.io", "x").unwrap(), Some(password("a", "b")));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing stays beside the file");
    }

    #[test]
    fn damaged_files_are_named() {
        let dir = tempfile::tempdir().unwrap();
        for text in ["{", r#"{"auths":{"r.io":{"auth":"%%"}}}"#, r#"{"auths":{"r.io":{"auth":"YQ=="}}}"#] {
            let error = files(dir.path(), text).find("r.io", "x").unwrap_err().to_string();
            assert!(error.contains("config.json"), "{error}");
        }
        assert_eq!(CredentialFiles::default().find("r.io", "x").unwrap(), None);
    }
}
