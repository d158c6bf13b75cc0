//! `rm`: containers go, with what they have written.

use super::{failure, for_each_that, lifecycle, open};
use crate::cli::{CliError, CommandResult, Ctx};
use crate::runtime::{Container, Containers, RunError, record_event};
use clap::Args;
use std::time::Duration;

/// `rm`.
#[derive(Debug, Args)]
pub(in crate::cli) struct RmArgs {
    /// Names, ids or beginnings of ids
    #[arg(required = true, value_name = "CONTAINER")]
    names: Vec<String>,
    /// Kill those that run, and do not mind those that are not there
    #[arg(short, long)]
    force: bool,
    /// Also the volumes that were made for them alone
    #[arg(short, long)]
    volumes: bool,
    /// Remove the link, not the container; links are part of containers here
    #[arg(short, long, hide = true)]
    link: bool,
}

/// Removes containers.
pub(in crate::cli) fn run(args: &RmArgs, ctx: &Ctx) -> CommandResult {
    if args.link {
        return Err(CliError::new("rm --link: links are part of containers and cannot be removed alone"));
    }
    let containers = open(ctx)?;
    for_each_that(&args.names, ctx, &|name| match containers.find(name) {
        Err(RunError::NoContainer(_)) if args.force => Ok(false),
        Err(error) => Err(failure(error)),
        Ok(container) => remove(&containers, container, args.force, args.volumes).map(|()| true),
    })
}

/// Removes one container; `force` kills it first.
pub(super) fn remove(
    containers: &Containers,
    mut container: Container,
    force: bool,
    volumes: bool,
) -> Result<(), CliError> {
    let id = container.record.id.clone();
    let status = container.state.status;
    if status.is_live() && !force {
        return Err(CliError::new(format!(
            "cannot remove container {:?}: container is {status}: stop the container before removing or force remove",
            container.record.name.as_str()
        )));
    }
    for _ in 0..100 {
        if container.state.status.is_live() && force {
            let name = id.as_str();
            if container.state.status.has_process() {
                // one that ends by itself at this moment is what is wanted
                let _ = lifecycle::kill_one(containers, name, 9);
            } else {
                let _ = lifecycle::stop_one(containers, name, None, Some(0), false);
            }
        }
        match containers.get(&id).map_err(failure)? {
            None => return Ok(()),
            Some(now) => container = now,
        }
        match containers.remove(&mut container, volumes) {
            Ok(()) => {
                record_event(containers, &container.record, "destroy", &[]);
                return Ok(());
            }
            // its monitor is on its way out, or somebody else is removing it
            Err(RunError::Running(_) | RunError::NoContainer(_)) => {
                std::thread::sleep(Duration::from_millis(20))
            }
            Err(error) => return Err(failure(error)),
        }
    }
    Err(CliError::new(format!(
        "container {} cannot be removed: its monitor does not let go of it",
        id.short()
    )))
}
