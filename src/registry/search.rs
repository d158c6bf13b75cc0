//! Repositories by name: Docker's search interface, else the catalogue of the distribution-spec.

use super::client::Client;
use super::error::{RegistryError, harmless};
use super::token::Scope;
use super::transport::{Call, Endpoint, Payload};
use super::url::encode;
use serde_json::Value;
use std::sync::Arc;

/// Where Docker Hub is searched; its registry itself has no such thing.
const HUB: &str = "https://index.docker.io";
/// Most names of a catalogue that are looked at.
const MAX_NAMES: usize = 10_000;

/// A repository that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    /// With the registry in front when it is not Docker Hub.
    pub name: String,
    /// One line.
    pub description: String,
    /// How many like it.
    pub stars: u64,
    /// Whether Docker looks after it.
    pub official: bool,
}

/// Gives the name of a registry as it stands in names of images: `https://r.io/v2/` is `r.io`, nothing is Docker Hub.
///
/// # Errors
/// It is none.
pub fn registry_name(text: Option<&str>) -> Result<String, crate::reference::ParseReferenceError> {
    let text = text.unwrap_or("docker.io");
    let bare = text.trim_start_matches("https://").trim_start_matches("http://");
    let host = bare.split('/').next().unwrap_or_default();
    // a host without dot or port would be taken for a part of the repository
    let dotted = host.contains(['.', ':']) || host == "localhost";
    let host = if dotted { host.to_owned() } else { format!("{host}:443") };
    let name: crate::reference::Reference = format!("{host}/x").parse()?;
    Ok(if dotted { name.registry().to_owned() } else { text.to_owned() })
}

impl Client {
    /// Searches a registry for repositories whose name or description has `term` in it.
    ///
    /// # Errors
    /// No answer (search needs the network), or the registry can neither be searched nor lists what it has.
    pub fn search(&self, registry: &str, term: &str, limit: usize) -> Result<Vec<Repository>, RegistryError> {
        let at = match registry {
            "docker.io" => self.mirror(HUB)?,
            other => self.upstream(other)?,
        };
        let path = format!("/v1/search?q={}&n={limit}", encode(term));
        match self.json(&at, &path, &Scope::none()) {
            Ok(found) => Ok(read(&found, registry, limit)),
            Err(error) if error.is_not_found() && registry != "docker.io" => {
                let all = self.json(&at, "/v2/_catalog?n=1000", &Scope::catalog())?;
                Ok(pick(&all, registry, term, limit))
            }
            Err(error) => Err(error),
        }
    }

    fn json(&self, at: &Arc<Endpoint>, path: &str, scope: &Scope) -> Result<Value, RegistryError> {
        let url = format!("{}{path}", at.base);
        let headers = vec![("accept", "application/json".to_owned())];
        let call = Call {
            method: "GET",
            url: url.clone(),
            headers,
            payload: Payload::Nothing,
            scope,
            repository: "",
        };
        let mut answer = self.inner.transport.send(at, &call)?;
        let bytes = self.document(&mut answer, &url)?;
        serde_json::from_slice(&bytes)
            .map_err(|e| RegistryError::protocol(&url, format!("it cannot be read: {e}")))
    }
}

fn read(found: &Value, registry: &str, limit: usize) -> Vec<Repository> {
    let text = |value: &Value| harmless(value.as_str().unwrap_or_default());
    let one = |r: &Value| Repository {
        name: full(registry, &text(&r["name"])),
        description: text(&r["description"]),
        stars: r["star_count"].as_u64().unwrap_or(0),
        official: r["is_official"].as_bool().unwrap_or(false),
    };
    found["results"].as_array().into_iter().flatten().take(limit).map(one).collect()
}

fn pick(all: &Value, registry: &str, term: &str, limit: usize) -> Vec<Repository> {
    let names =
        all["repositories"].as_array().into_iter().flatten().take(MAX_NAMES).filter_map(Value::as_str);
    let one = |name: &str| Repository {
        name: full(registry, &harmless(name)),
        description: String::new(),
        stars: 0,
        official: false,
    };
    names.filter(|name| name.contains(term)).take(limit).map(one).collect()
}

fn full(registry: &str, name: &str) -> String {
    if registry == "docker.io" { name.to_owned() } else { format!("{registry}/{name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_have_one_name() {
        for (text, want) in [
            (None, "docker.io"),
            (Some("https://index.docker.io/v1/"), "docker.io"),
            (Some("docker.io"), "docker.io"),
            (Some("http://localhost:5000/"), "localhost:5000"),
            (Some("r.io"), "r.io"),
            (Some("myhost"), "myhost"),
        ] {
            assert_eq!(registry_name(text).unwrap(), want, "{text:?}");
        }
        assert!(registry_name(Some("a b")).is_err() && registry_name(Some("")).is_err());
    }

    #[test]
    fn answers_become_rows() {
        let answer = serde_json::json!({"results": [
            {"name": "nginx", "description": "web\nserver", "star_count": 7, "is_official": true}, {"name": 3}]});
        let rows = read(&answer, "docker.io", 10);
        assert_eq!(
            (rows[0].name.as_str(), rows[0].description.as_str(), rows[0].stars),
            ("nginx", "web server", 7)
        );
        let all = serde_json::json!({"repositories": ["a/app", "b", "app2"]});
        let names: Vec<_> = pick(&all, "r:1", "app", 10).into_iter().map(|r| r.name).collect();
        assert_eq!(names, ["r:1/a/app", "r:1/app2"]);
    }
}
