//! The contexts and the Dockerfile that the command line names: read first, fetched when everything else is known to
//! be right.

use super::args::BuildArgs;
use crate::build::{
    ContextSource, DockerfileOrigin, GatherError, Gathered, Gatherer, IgnoreFrom, NamedOrigin, Origin,
    OriginError,
};
use crate::cli::{CliError, near_command};
use crate::context::{ContextError, Dockerfile};
use crate::plan::NamedContext;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// Where everything is.
pub(super) struct Origins {
    context: Origin,
    dockerfile: DockerfileOrigin,
    named: Vec<(String, NamedOrigin)>,
    ignore_file: Option<PathBuf>,
}

/// Everything, here.
pub(super) struct Contexts {
    pub(super) context: ContextSource,
    pub(super) dockerfile: Dockerfile,
    pub(super) ignore: IgnoreFrom,
    pub(super) named: BTreeMap<String, ContextSource>,
    pub(super) plan: BTreeMap<String, NamedContext>,
}

impl Origins {
    /// Understands the command line without fetching anything.
    pub(super) fn read(args: &BuildArgs) -> Result<Self, CliError> {
        let Some(text) = &args.context else {
            return Err(CliError::new("rbuild build needs one argument: the build context")
                .hint("usage: rbuild build [OPTIONS] PATH | URL | -, where . is the current directory"));
        };
        let context = Origin::parse(text).map_err(|error| bad_context(text, &error))?;
        let dockerfile = DockerfileOrigin::parse(args.file.as_deref());
        if context == Origin::Stdin && dockerfile == DockerfileOrigin::Stdin {
            return Err(CliError::new("the context and the Dockerfile cannot both be standard input"));
        }
        let named = args.build_context.iter().map(|text| named(text)).collect::<Result<_, _>>()?;
        Ok(Self { context, dockerfile, named, ignore_file: args.ignorefile.clone() })
    }

    /// Fetches what is not here.
    pub(super) fn gather(&self, gatherer: &Gatherer<'_>) -> Result<Contexts, CliError> {
        let failed = |error: GatherError| self.explain(error);
        let gathered = gatherer.context(&self.context, std::io::stdin()).map_err(failed)?;
        let (dockerfile, mut ignore) = gatherer
            .dockerfile(&self.dockerfile, &gathered, &self.context, std::io::stdin().lock())
            .map_err(failed)?;
        if let Some(path) = &self.ignore_file {
            ignore = IgnoreFrom::File(path.clone());
        }
        let (mut named, mut plan) = (BTreeMap::new(), BTreeMap::new());
        for (name, origin) in &self.named {
            let (contexts, files) = gatherer.named(name, origin).map_err(|error| {
                let error = CliError::from_error(&error);
                CliError::new(format!("--build-context {name}: {}", error.message))
            })?;
            plan.extend(contexts);
            named.extend(files.map(|files| (name.clone(), files)));
        }
        let context = match gathered {
            Gathered::Files(files) => files,
            Gathered::Dockerfile(_) => ContextSource::Empty,
        };
        Ok(Contexts { context, dockerfile, ignore, named, plan })
    }

    fn explain(&self, error: GatherError) -> CliError {
        let hint = match (&error, &self.dockerfile) {
            (GatherError::Context(ContextError::NotInContext { .. }), DockerfileOrigin::Path(path)) => {
                let here = path.exists().then(|| std::path::absolute(path).ok()).flatten();
                Some(match here {
                    Some(path) => format!(
                        "-f names a file in the context, which is {}; for the one that is here write -f {}",
                        self.context,
                        path.display()
                    ),
                    None => format!("-f names a file in the context, which is {}", self.context),
                })
            }
            (GatherError::TwoDockerfiles { .. }, _) => {
                Some("leave -f out, or give a directory as context".to_owned())
            }
            _ => None,
        };
        let shown = CliError::from_error(&error);
        hint.map_or(CliError::new(&shown.message), |hint| CliError::new(&shown.message).hint(hint))
    }
}

fn bad_context(text: &OsStr, error: &OriginError) -> CliError {
    let text = text.to_string_lossy();
    let shown = CliError::new(format!("build context {error}"));
    match error {
        OriginError::NoDirectory { .. } => shown.hint(near_command(&text).unwrap_or_else(|| {
            "the last argument is the build context: a directory such as . or - for standard input".into()
        })),
        _ => shown,
    }
}

fn named(text: &OsStr) -> Result<(String, NamedOrigin), CliError> {
    let bad = |why: String| CliError::new(format!("--build-context {:?}: {why}", text.to_string_lossy()));
    let bytes = text.as_bytes();
    let at = bytes.iter().position(|b| *b == b'=');
    let Some(at) = at.filter(|at| *at > 0) else {
        return Err(bad("write NAME=VALUE".into()).hint(
            "a value is a directory, docker-image://REF, oci-layout://DIR[:TAG], a git or HTTP address",
        ));
    };
    let name = std::str::from_utf8(&bytes[..at]).map_err(|_| bad("the name is not UTF-8".into()))?;
    let origin = NamedOrigin::parse(OsStr::from_bytes(&bytes[at + 1..])).map_err(|e| bad(e.to_string()))?;
    Ok((name.to_ascii_lowercase(), origin))
}
