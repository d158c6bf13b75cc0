//! Where values of build arguments come from: the command line, the platforms, the `ARG`s above the first `FROM`.

use super::env::Env;
use super::options::PlanOptions;
use super::output::OutlineArg;
use super::words::Words;
use crate::dockerfile::ast::{ArgVar, Dockerfile, Instruction, Kind};
use crate::dockerfile::diagnostic::Diagnostic;
use crate::platform::Platform;
use std::collections::{BTreeMap, BTreeSet};

/// Arguments that never become variables of a step.
const NOT_IN_ENV: [&str; 2] = ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];

/// Proxy settings: any case is accepted, both cases are set.
const PROXIES: [&str; 5] = ["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"];

/// Arguments that mean something although no ARG asks for them.
const PREDEFINED: [&str; 12] = [
    "BUILDPLATFORM",
    "BUILDOS",
    "BUILDOSVERSION",
    "BUILDARCH",
    "BUILDVARIANT",
    "TARGETPLATFORM",
    "TARGETOS",
    "TARGETOSVERSION",
    "TARGETARCH",
    "TARGETVARIANT",
    "TARGETSTAGE",
    "SOURCE_DATE_EPOCH",
];

/// Says whether an argument becomes a variable.
pub(super) fn enters_env(name: &str) -> bool {
    !NOT_IN_ENV.contains(&name)
}

/// The values given on the command line; an empty `SOURCE_DATE_EPOCH` counts as not given.
pub(super) fn given(options: &PlanOptions) -> BTreeMap<String, String> {
    let args = options.build_args.iter();
    args.filter_map(|(name, value)| Some((name.clone(), value.clone()?)))
        .filter(|(name, value)| name != "SOURCE_DATE_EPOCH" || !value.is_empty())
        .collect()
}

/// Gives the proxy settings as variables, upper and lower case, those that are not empty.
pub(super) fn proxies(given: &BTreeMap<String, String>) -> Vec<(String, String)> {
    let mut out = Vec::new();
    for proxy in PROXIES {
        let value = given.iter().rfind(|(name, _)| name.eq_ignore_ascii_case(proxy)).map(|(_, value)| value);
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            out.push((proxy.to_owned(), value.clone()));
            out.push((proxy.to_ascii_lowercase(), value.clone()));
        }
    }
    out
}

/// Gives the arguments that every build has: both platforms and the target stage.
pub(super) fn platform_args(options: &PlanOptions, given: &BTreeMap<String, String>, stage: &str) -> Env {
    let mut env = Env::default();
    let mut set = |name: &str, value: &str| {
        env.set(name, given.get(name).map_or(value, String::as_str));
    };
    for (prefix, platform) in [("BUILD", &options.build_platform), ("TARGET", options.target_platform())] {
        let Platform { os, architecture, variant } = platform;
        set(&format!("{prefix}PLATFORM"), &platform.to_string());
        set(&format!("{prefix}OS"), os);
        set(&format!("{prefix}OSVERSION"), "");
        set(&format!("{prefix}ARCH"), architecture);
        set(&format!("{prefix}VARIANT"), variant.as_deref().unwrap_or_default());
    }
    set("TARGETSTAGE", if stage.is_empty() { "default" } else { stage });
    env
}

/// Adds the `ARG`s above the first `FROM`, each seeing those before it.
pub(super) fn global_args(
    file: &Dockerfile,
    words: &Words,
    given: &BTreeMap<String, String>,
    mut env: Env,
) -> Result<(Env, Vec<OutlineArg>), Diagnostic> {
    let mut outline = Vec::new();
    for instruction in &file.global_args {
        let Kind::Arg(vars) = &instruction.kind else { continue };
        for var in vars {
            let name = var.name.as_str();
            let value = match (given.get(name), &var.default) {
                (Some(value), _) => Some(value.clone()),
                (None, Some(default)) => Some(words.word(default, &env)?.text),
                (None, None) => None,
            };
            if let Some(value) = &value {
                env.set(name, value);
            }
            outline.push(outline_arg(instruction, var, name, value));
        }
    }
    Ok((env, outline))
}

/// Describes an argument.
pub(super) fn outline_arg(
    instruction: &Instruction,
    var: &ArgVar,
    name: &str,
    value: Option<String>,
) -> OutlineArg {
    let description = instruction.head.doc_comment(var.name.as_str()).map(str::to_owned);
    OutlineArg { name: name.to_owned(), value, description, span: instruction.span() }
}

/// Reads `SOURCE_DATE_EPOCH` from the command line or a global ARG.
pub(super) fn epoch(given: &BTreeMap<String, String>, globals: &Env) -> Result<Option<i64>, Diagnostic> {
    let name = "SOURCE_DATE_EPOCH";
    let value = given.get(name).map(String::as_str).or_else(|| globals.get(name)).unwrap_or_default();
    if value.is_empty() {
        return Ok(None);
    }
    value.parse().map(Some).map_err(|_| {
        Diagnostic::new("rbuild::epoch", format!("invalid SOURCE_DATE_EPOCH: {value:?}"))
            .help("give the number of seconds since 1970-01-01 00:00 UTC")
    })
}

/// Finds the `--build-arg` names that neither an ARG of the file nor one that was planned (`planned`) asks for.
pub(super) fn unused(
    file: &Dockerfile,
    given: &BTreeMap<String, String>,
    planned: &BTreeSet<String>,
) -> Vec<String> {
    let predefined = |name: &str| {
        PREDEFINED.contains(&name)
            || name.starts_with("BUILDKIT_")
            || PROXIES.iter().any(|proxy| name.eq_ignore_ascii_case(proxy))
    };
    let staged = || file.stages.iter().flat_map(|stage| &stage.instructions);
    let asked = |name: &str| file.global_args.iter().chain(staged()).any(|at| asks_for(at, name));
    given
        .keys()
        .filter(|name| !planned.contains(*name) && !predefined(name) && !asked(name))
        .cloned()
        .collect()
}

/// Says whether an instruction, or the trigger that it stores, may be an ARG of that name.
fn asks_for(instruction: &Instruction, name: &str) -> bool {
    match &instruction.kind {
        Kind::Arg(vars) => vars.iter().any(|var| var.name.as_str() == name),
        Kind::Onbuild(trigger) => {
            let mut parts = trigger.text.as_str().split_whitespace();
            parts.next().is_some_and(|word| word.eq_ignore_ascii_case("ARG"))
                && parts.any(|word| word.split('=').next() == Some(name))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn proxies_are_set_in_both_cases() {
        let got =
            proxies(&args(&[("https_proxy", "p"), ("NO_PROXY", ""), ("Ftp_Proxy", "f"), ("X_PROXY", "x")]));
        let want = [("HTTPS_PROXY", "p"), ("https_proxy", "p"), ("FTP_PROXY", "f"), ("ftp_proxy", "f")];
        assert_eq!(got, want.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn platforms_fill_their_arguments() {
        let options = PlanOptions {
            platform: Some("linux/arm/v6".parse().unwrap()),
            build_platform: "linux/amd64".parse().unwrap(),
            ..PlanOptions::new()
        };
        let env = platform_args(&options, &args(&[("BUILDARCH", "mine")]), "");
        let get = |name| env.get(name).unwrap();
        assert_eq!(
            (get("BUILDPLATFORM"), get("BUILDARCH"), get("BUILDVARIANT")),
            ("linux/amd64", "mine", "")
        );
        assert_eq!(
            (get("TARGETPLATFORM"), get("TARGETARCH"), get("TARGETVARIANT")),
            ("linux/arm/v6", "arm", "v6")
        );
        assert_eq!(get("TARGETSTAGE"), "default");
    }

    #[test]
    fn epochs_are_seconds() {
        let read = |value| epoch(&args(&[("SOURCE_DATE_EPOCH", value)]), &Env::default());
        assert_eq!(read("1700000000").unwrap(), Some(1_700_000_000));
        assert_eq!(read("").unwrap(), None);
        assert!(read("yesterday").is_err());
    }
}
