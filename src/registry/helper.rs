//! Credential helpers: programs named `docker-credential-NAME` that keep secrets elsewhere.
//!
//! The protocol is docker-credential-helpers': the verb is the argument, the question goes to standard input, the answer
//! comes as JSON on standard output. A helper that knows nothing fails and says so in words.

use super::credential::{Credential, TOKEN_USER};
use super::error::{RegistryError, harmless};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::process::{Command, Stdio};

/// Most bytes of an answer.
const MAX_ANSWER: u64 = 1 << 20;
/// What helpers say when they have nothing.
const NOTHING: &str = "credentials not found";

/// Asks a helper for the credentials of a server.
pub(super) fn get(program: &str, server: &str) -> Result<Option<Credential>, RegistryError> {
    let Some(answer) = ask(program, "get", server)? else { return Ok(None) };
    let value: Value =
        serde_json::from_str(&answer).map_err(|e| fail(program, format!("its answer is not JSON: {e}")))?;
    let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let (user, secret) = (text("Username"), text("Secret"));
    Ok(match (user.as_str(), secret.is_empty()) {
        (_, true) => None,
        (TOKEN_USER, false) => Some(Credential::Identity(secret)),
        _ => Some(Credential::Password { user, password: secret }),
    })
}

/// Gives credentials to a helper.
pub(super) fn store(program: &str, server: &str, credential: &Credential) -> Result<(), RegistryError> {
    let (user, secret) = match credential {
        Credential::Password { user, password } => (user.as_str(), password),
        Credential::Identity(token) | Credential::Bearer(token) => (TOKEN_USER, token),
    };
    let question = json!({ "ServerURL": server, "Username": user, "Secret": secret }).to_string();
    ask(program, "store", &question).map(|_| ())
}

/// Lets a helper forget; says whether it had anything.
pub(super) fn erase(program: &str, server: &str) -> Result<bool, RegistryError> {
    Ok(ask(program, "erase", server)?.is_some())
}

/// Runs a helper; `None` when it has nothing.
fn ask(program: &str, verb: &str, question: &str) -> Result<Option<String>, RegistryError> {
    if program.contains('/') {
        return Err(fail(program, "its name in config.json may not hold a slash"));
    }
    let mut command = Command::new(program);
    command.arg(verb).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => {
            fail(program, "config.json names this credential helper, and it is not in PATH")
        }
        _ => fail(program, e),
    })?;
    let mut stdin = child.stdin.take().expect("it was asked for");
    // a helper that does not read has ended, and its status tells why
    let _ = stdin.write_all(question.as_bytes());
    drop(stdin);
    let mut answer = String::new();
    let stdout = child.stdout.take().expect("it was asked for");
    let read = stdout.take(MAX_ANSWER).read_to_string(&mut answer);
    let mut errors = String::new();
    let stderr = child.stderr.take().expect("it was asked for");
    let _ = stderr.take(MAX_ANSWER).read_to_string(&mut errors);
    let status = child.wait().map_err(|e| fail(program, e))?;
    read.map_err(|e| fail(program, e))?;
    if status.success() {
        return Ok(Some(answer));
    }
    let words = if answer.trim().is_empty() { errors } else { answer };
    if words.contains(NOTHING) {
        return Ok(None);
    }
    Err(fail(program, format!("{verb} failed ({status}): {}", harmless(&words))))
}

fn fail(program: &str, why: impl ToString) -> RegistryError {
    RegistryError::Helper { program: program.to_owned(), why: why.to_string() }
}
