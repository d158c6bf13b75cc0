//! What the user asked for beside the Dockerfile.

use super::op::RunNetwork;
use crate::dockerfile::mount::RawMount;
use crate::platform::Platform;
use crate::reference::Reference;
use std::collections::BTreeMap;

/// The options of a build that change its plan.
#[derive(Debug, Clone)]
pub struct PlanOptions {
    /// `--build-arg`; a name without a value counts as not given.
    pub build_args: BTreeMap<String, Option<String>>,
    /// `--target`: a stage name in any case; the last stage when absent.
    pub target: Option<String>,
    /// `--label`, set over those of the file.
    pub labels: Vec<(String, String)>,
    /// `--platform`; when absent the build platform is meant, and a base image of another platform may change it.
    pub platform: Option<Platform>,
    /// Write platforms into the labels of steps, since the build is for several.
    pub label_platforms: bool,
    /// Where the build runs: `BUILDPLATFORM`.
    pub build_platform: Platform,
    /// `--no-cache`: every RUN, COPY and ADD runs.
    pub no_cache: bool,
    /// `--no-cache-filter`: names of stages whose RUN, COPY and ADD run.
    pub no_cache_filter: Vec<String>,
    /// `--build-context`: names and what stands behind them.
    pub contexts: BTreeMap<String, NamedContext>,
    /// `--mount`: for every RUN, after its own.
    pub mounts: Vec<RawMount>,
    /// `--network`, for RUN without a `--network` of its own.
    pub network: RunNetwork,
    /// Host name inside RUN; `BUILDKIT_SANDBOX_HOSTNAME` goes over it, `buildkitsandbox` is the default.
    pub hostname: Option<String>,
    /// `--allow network.host`: RUN may say `--network=host`.
    pub allow_host_network: bool,
    /// `--allow security.insecure`: RUN may say `--security=insecure`.
    pub allow_insecure: bool,
    /// Plan every stage, needed or not, so that all of them are checked.
    pub all_stages: bool,
}

impl PlanOptions {
    /// Makes the options of a plain build for this machine.
    pub fn new() -> Self {
        Self {
            build_args: BTreeMap::new(),
            target: None,
            labels: Vec::new(),
            platform: None,
            label_platforms: false,
            build_platform: Platform::host(),
            no_cache: false,
            no_cache_filter: Vec::new(),
            contexts: BTreeMap::new(),
            mounts: Vec::new(),
            network: RunNetwork::Default,
            hostname: None,
            allow_host_network: false,
            allow_insecure: false,
            all_stages: false,
        }
    }

    /// Gives the platform to build for.
    pub(super) fn target_platform(&self) -> &Platform {
        self.platform.as_ref().unwrap_or(&self.build_platform)
    }

    /// Finds the context that stands for a stage name or image reference. `name::os/arch` is looked for first; a tag
    /// `latest` does not count. The reserved names never stand for something else.
    pub(super) fn context(&self, name: &str, platform: &Platform) -> Option<(&str, &NamedContext)> {
        if self.contexts.is_empty() || ["scratch", "context"].contains(&name.to_ascii_lowercase().as_str()) {
            return None;
        }
        let name = familiar(name);
        let exact = format!("{name}::{platform}");
        let wanted = |key: &str| {
            let (bare, at) = key.split_once("::").map_or((key, None), |(bare, at)| (bare, Some(at)));
            match at {
                Some(at) => format!("{}::{at}", familiar(bare)),
                None => familiar(bare),
            }
        };
        let find = |want: &str| self.contexts.iter().find(|(key, _)| wanted(key) == want);
        find(&exact).or_else(|| find(&name)).map(|(key, context)| (key.as_str(), context))
    }
}

impl Default for PlanOptions {
    fn default() -> Self {
        Self::new()
    }
}

/// What stands behind the name of a `--build-context`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamedContext {
    /// Files: a directory, an archive, a git repository. Ops name it by [`From::Context`](super::From::Context).
    Files,
    /// An image, by the name that [`BaseImages`](super::BaseImages) is asked for.
    Image(String),
}

/// Shortens an image reference as people write it, without the tag `latest`; what is no reference stays.
fn familiar(name: &str) -> String {
    let short = name.parse::<Reference>().map_or_else(|_| name.to_owned(), |reference| reference.familiar());
    short.strip_suffix(":latest").map_or(short.clone(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_are_found_by_stage_or_image_name() {
        let platform: Platform = "linux/amd64".parse().unwrap();
        let mut options = PlanOptions::new();
        for key in
            ["alpine", "docker.io/library/debian:latest", "busybox::linux/amd64", "busybox", "Src", "app:1"]
        {
            options.contexts.insert(key.into(), NamedContext::Files);
        }
        let find = |name: &str| options.context(name, &platform).map(|(key, _)| key);
        assert_eq!(find("alpine:latest"), Some("alpine"));
        assert_eq!(find("docker.io/library/alpine"), Some("alpine"));
        assert_eq!(find("debian"), Some("docker.io/library/debian:latest"));
        assert_eq!(find("busybox"), Some("busybox::linux/amd64"));
        assert_eq!(find("Src"), Some("Src"));
        assert_eq!(find("app:1"), Some("app:1"));
        assert_eq!((find("app"), find("alpine:3"), find("scratch")), (None, None, None));
    }
}
