//! `rbuild info`: what rbuild found on this machine, and what is missing for more. `rbuild version`: which rbuild.

use super::{CommandResult, Ctx};
use crate::network;
use crate::platform::Platform;
use crate::sandbox::{self, Feature, rootless};
use clap::Args;
use serde::Serialize;
use std::process::ExitCode;

/// Shows what works here and what is missing.
#[derive(Debug, Args)]
pub(super) struct InfoArgs {
    /// Form of the output: text or json
    #[arg(long, value_name = "FORM", default_value = "text", value_parser = ["text", "json"])]
    pub format: String,
}

/// Shows the version.
#[derive(Debug, Args)]
pub(super) struct VersionArgs {
    /// Form of the output: text or json
    #[arg(long, value_name = "FORM", default_value = "text", value_parser = ["text", "json"])]
    pub format: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Info {
    version: &'static str,
    platform: String,
    kernel: String,
    root: String,
    rootless: Option<Rootless>,
    snapshotter: &'static str,
    network: Option<String>,
    cgroups: String,
    seccomp: bool,
    features: Vec<Line>,
    missing: Vec<Missing>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Rootless {
    uid: u32,
    gid: u32,
    mapped_ids: u32,
}

#[derive(Debug, Serialize)]
struct Line {
    name: &'static str,
    works: bool,
    detail: String,
}

#[derive(Debug, Serialize)]
struct Missing {
    what: String,
    remedy: String,
    /// Whether nothing can be run without it.
    needed: bool,
}

/// Shows what works here.
pub(super) fn run(args: &InfoArgs, ctx: &Ctx) -> CommandResult {
    let info = Info::gather(ctx);
    match args.format.as_str() {
        "json" => ctx.out.line(&serde_json::to_string_pretty(&info)?)?,
        _ => ctx.out.text(&info.text())?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Shows the version.
pub(super) fn version(args: &VersionArgs, ctx: &Ctx) -> CommandResult {
    let (version, platform) = (env!("CARGO_PKG_VERSION"), Platform::host().to_string());
    match args.format.as_str() {
        "json" => {
            ctx.out.line(&serde_json::json!({ "version": version, "platform": platform }).to_string())?
        }
        _ => ctx.out.line(&format!("rbuild {version} ({platform})"))?,
    }
    Ok(ExitCode::SUCCESS)
}

impl Info {
    /// Tries everything. Before any thread is started.
    fn gather(ctx: &Ctx) -> Self {
        let features = sandbox::probe();
        let state = rootless::state();
        let network = network::probe(state.is_some());
        let find = |name: &str| features.iter().find(|feature| feature.name == name);
        let works = |name: &str| find(name).is_some_and(|feature| feature.works);
        let uname = rustix::system::uname();
        let text = |part: &std::ffi::CStr| part.to_string_lossy().into_owned();
        let mut missing: Vec<Missing> = features.iter().filter(|f| !f.works).map(Missing::from).collect();
        missing.extend(network.missing.iter().map(|m| Missing {
            what: m.what.to_owned(),
            remedy: m.remedy.to_owned(),
            needed: false,
        }));
        if let Some(advice) = state.as_ref().and_then(|state| state.advice()) {
            let (what, remedy) = advice.split_once("; ").unwrap_or((&advice, ""));
            missing.push(Missing { what: what.to_owned(), remedy: remedy.to_owned(), needed: false });
        }
        Self {
            version: env!("CARGO_PKG_VERSION"),
            platform: Platform::host().to_string(),
            kernel: format!("{} {}", text(uname.sysname()), text(uname.release())),
            root: ctx.root.display().to_string(),
            rootless: state.map(|s| Rootless { uid: s.real_uid, gid: s.real_gid, mapped_ids: s.mapped_ids }),
            snapshotter: if works("overlayfs") { "overlay" } else { "copy" },
            network: network.private.map(|kind| kind.to_string()),
            cgroups: find("cgroups").map(|feature| feature.detail.clone()).unwrap_or_default(),
            seccomp: works("seccomp"),
            features: features.into_iter().map(Line::from).collect(),
            missing,
        }
    }

    fn text(&self) -> String {
        let rootless = match &self.rootless {
            None => "no".to_owned(),
            Some(r) => format!("yes, user {}:{} with {} mapped ids", r.uid, r.gid, r.mapped_ids),
        };
        let network = self.network.clone().unwrap_or_else(|| "none; --network host and none work".into());
        let rows = [
            ("Version", self.version.to_owned()),
            ("Platform", self.platform.clone()),
            ("Kernel", self.kernel.clone()),
            ("Root", self.root.clone()),
            ("Rootless", rootless),
            ("Snapshotter", self.snapshotter.to_owned()),
            ("Private network", network),
            ("Cgroups", self.cgroups.clone()),
            ("Seccomp", if self.seccomp { "yes".into() } else { "no".into() }),
        ];
        let mut out: String = rows.iter().map(|(name, value)| format!("{name:16} {value}\n")).collect();
        out.push_str("\nWhat works:\n");
        for line in &self.features {
            let mark = if line.works { "yes" } else { "no " };
            out.push_str(&format!("  {mark}  {:22} {}\n", line.name, line.detail));
        }
        out.push_str(if self.missing.is_empty() { "\nMissing: nothing\n" } else { "\nMissing:\n" });
        for missing in &self.missing {
            let needed = if missing.needed { " (nothing can be run without it)" } else { "" };
            out.push_str(&format!("  {}{needed}\n    how to get it: {}\n", missing.what, missing.remedy));
        }
        out
    }
}

impl From<Feature> for Line {
    fn from(feature: Feature) -> Self {
        Self { name: feature.name, works: feature.works, detail: feature.detail }
    }
}

impl From<&Feature> for Missing {
    fn from(feature: &Feature) -> Self {
        let what = format!("{}: {}", feature.name, feature.detail);
        Self { what, remedy: feature.hint.clone(), needed: feature.needed }
    }
}
