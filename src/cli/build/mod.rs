//! `rbuild build`, and `rbuild` with anything that is no command.
//!
//! First all flags are understood, then contexts are fetched, then it builds: a misspelt name must not cost a download.

mod args;
mod contexts;
mod output;
mod progress;
mod settings;
mod tidy;

pub(super) use args::BuildArgs;
pub(super) use progress::terminal_size;

use super::call::{Call, Question};
use super::signals::Interrupt;
use super::{CliError, CommandResult, Ctx};
use crate::build::{self, BuildError, BuildRequest, ContextSource, Gatherer, Tools};
use crate::gc::Collector;
use crate::image::{Dest, Images, OutputKind, OutputSpec};
use crate::interrupt::Stop;
use crate::plan::PlanOptions;
use crate::platform::Platform;
use crate::sandbox::Launcher;
use crate::solve::Processes;
use crate::store::Store;
use contexts::Origins;
use settings::{EPOCH, OF_CONTEXT, Settings};
use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Instant;

/// Builds.
pub(super) fn run(args: &BuildArgs, ctx: &Ctx) -> CommandResult {
    let begun = Instant::now();
    let mut outputs = args.output.iter().map(|o| OutputSpec::parse(o)).collect::<Result<Vec<_>, _>>()?;
    if settings::is_pushed(args) {
        output::push_too(&mut outputs);
    }
    let to_stdout = outputs.iter().any(|o| matches!(o.kind, OutputKind::Export(_, Dest::Stdout)));
    if to_stdout && std::io::stdout().is_terminal() {
        let error = CliError::new("an archive is not written to a terminal");
        return Err(error.hint("redirect standard output, or give dest=FILE"));
    }
    let settings = Settings::read(args, &outputs)?;
    output::check_push(&outputs, &settings.names)?;
    output::check_platforms(&outputs, settings.platforms.len())?;
    let origins = Origins::read(args)?;
    let call = if args.switches.check { Call::CHECK } else { Call::parse(&args.call)? };
    if call.question != Question::Build {
        let (store, _, images) = ctx.open()?;
        return call.answer(&request(args, &settings, &origins, &store, &images, ctx)?, &images, ctx);
    }
    let keep = tidy::keep_storage()?;
    let (sink, live) = progress::progress(args)?;
    // before any thread: the helper process is forked
    let launcher = Launcher::start()?;
    let (store, snapshots, images) = ctx.open()?;
    let records = build::records(&store);
    let collector = Collector::new(store.clone(), snapshots.clone(), images.clone(), records);
    // as long as nothing runs a signal may simply end us
    let mut request = request(args, &settings, &origins, &store, &images, ctx)?;
    // who only gives a name need not wait for the ID
    request.wants_image = !outputs.is_empty() || args.wants_id();
    let processes = Arc::new(Processes::default());
    let (stop, stopping) = (Stop::default(), processes.clone());
    let told = stop.clone();
    let interrupt = Interrupt::watch(move || {
        told.now();
        stopping.stop();
    })?;
    let images = images.until(&stop);
    let images = match output::compression(&outputs) {
        Some(how) => images.exporting(how)?,
        None => images,
    };
    let tools = Tools { store, snapshots, images: images.clone(), launcher, sink };
    let outcome = build::build(&request, tools, &processes);
    drop(live);
    let built = match outcome {
        Ok(built) => built,
        Err(error) => {
            let error = failure(error, interrupt.code(), progress::shows_logs(args));
            if interrupt.code().is_none() {
                tidy::tidy(&collector, keep);
            }
            return Err(error);
        }
    };
    let image = match (&built.index, &built.image, request.names.first()) {
        (Some(index), _, _) => Some(images.get_index(index)?),
        (None, None, _) => None,
        // by its name, since there may be the same image with other annotations
        (None, _, Some(name)) => Some(images.resolve(&name.to_string())?),
        (None, Some(id), None) => Some(images.get(id)?),
    };
    let mut manifest = None;
    for spec in &outputs {
        let Some(image) = &image else { continue };
        let names = &request.names;
        let written = output::export(spec, &settings.notes, names, built.epoch, image, &images)?;
        manifest = manifest.or(written);
        if let Some(push) = spec.push {
            let quiet = args.switches.quiet || progress::is_quiet(args);
            let pushed = output::push(spec, push, &settings.notes, names, image, &images, quiet, &stop, ctx);
            let pushed = pushed.map_err(|error| stopped(&interrupt).unwrap_or(error))?;
            manifest = Some(pushed).or(manifest);
        }
    }
    if let Some(error) = stopped(&interrupt) {
        return Err(error);
    }
    let manifest = manifest.or_else(|| image.map(|image| image.target().clone()));
    let code = output::finish(args, &request, &built, manifest.as_ref(), begun, ctx)?;
    tidy::tidy(&collector, keep);
    Ok(code)
}

/// Says that somebody interrupted what follows a build, if somebody did.
fn stopped(interrupt: &Interrupt) -> Option<CliError> {
    interrupt.code().map(|code| CliError::new("interrupted; the build itself had ended").code(code))
}

/// Puts a request together; fetches contexts that are elsewhere.
fn request(
    args: &BuildArgs,
    settings: &Settings,
    origins: &Origins,
    store: &Store,
    images: &Images,
    ctx: &Ctx,
) -> Result<BuildRequest, CliError> {
    let gatherer = Gatherer {
        store,
        images,
        platforms: match &settings.plan.platform {
            _ if !settings.platforms.is_empty() => settings.platforms.clone(),
            one => vec![one.clone().unwrap_or_else(Platform::host)],
        },
        keep_git_dir: settings.is_on("BUILDKIT_CONTEXT_KEEP_GIT_DIR"),
        secrets: &settings.secrets,
    };
    let contexts = origins.gather(&gatherer)?;
    let mut plan = PlanOptions { contexts: contexts.plan, ..settings.plan.clone() };
    date(&mut plan, &contexts.context)?;
    Ok(BuildRequest {
        context: contexts.context,
        named: contexts.named,
        dockerfile: contexts.dockerfile,
        ignore: contexts.ignore,
        plan,
        names: settings.names.clone(),
        notes: settings.notes.clone(),
        platforms: settings.platforms.clone(),
        squash: args.switches.squash,
        run: settings.run.clone(),
        secrets: settings.secrets.clone(),
        jobs: settings.jobs,
        explain: args.switches.explain,
        wants_image: true,
        pull: settings.pull,
        registry: ctx.registry.clone(),
        cache_from: settings.cache_from.clone(),
        cache_to: settings.cache_to.clone(),
        files: settings.files,
    })
}

/// Puts the time of the context where `SOURCE_DATE_EPOCH=context` asks for it.
fn date(plan: &mut PlanOptions, context: &ContextSource) -> Result<(), CliError> {
    let Some(Some(epoch)) = plan.build_args.get_mut(EPOCH) else { return Ok(()) };
    if epoch != OF_CONTEXT {
        return Ok(());
    }
    let time = match context {
        ContextSource::Fetched(fetched) => fetched.time,
        _ => None,
    };
    let time = time.ok_or_else(|| {
        CliError::new(format!("{EPOCH}={OF_CONTEXT}: the build context has no time of its own"))
            .hint("only a git repository has one; write the seconds since 1970")
    })?;
    *epoch = time.to_string();
    Ok(())
}

/// Words a failed build.
pub(super) fn failure(error: BuildError, interrupted: Option<u8>, log_shown: bool) -> CliError {
    if let Some(code) = interrupted {
        return CliError::new("interrupted; what had ended before stays in the cache").code(code);
    }
    match error {
        BuildError::Dockerfile { name, source_text, diagnostic } => {
            CliError::new(diagnostic.render(&name, &source_text, false).trim_end())
        }
        BuildError::Checks { ref name, ref source_text, ref warnings } => {
            let shown: String = warnings.iter().map(|w| w.render(name, source_text, false)).collect();
            CliError::new(format!("{error}\n{}", shown.trim_end()))
        }
        BuildError::Step { name, source_text, step } => {
            super::step_failure::describe(&name, &source_text, &step, log_shown)
        }
        other => CliError::from_error(&other),
    }
}
