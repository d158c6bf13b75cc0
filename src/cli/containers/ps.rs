//! `ps`: what there is, and which of it is asked for.

use super::{failure, open};
use crate::cli::image_commands::list_with;
use crate::cli::table::{cut, human_size, table};
use crate::cli::template::Template;
use crate::cli::{CliError, CommandResult, Ctx};
use crate::image::ago;
use crate::runtime::{Container, Containers, MountSource, State, Status, time};
use clap::Args;
use serde_json::{Value, json};
use std::process::ExitCode;

/// `ps`.
#[derive(Debug, Args)]
pub(in crate::cli) struct PsArgs {
    /// Also those that do not run
    #[arg(short, long)]
    all: bool,
    /// Only what fits: id= name= label= status= exited= ancestor= before= since= volume= network= health= publish= expose=
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Print with a template, as a table, or as json
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Only so many of the newest
    #[arg(short = 'n', long, value_name = "N", default_value_t = -1, hide_default_value = true, allow_hyphen_values = true)]
    last: i64,
    /// Only the newest
    #[arg(short, long)]
    latest: bool,
    /// Do not cut ids and commands
    #[arg(long)]
    no_trunc: bool,
    /// Only ids
    #[arg(short, long)]
    quiet: bool,
    /// Show how much the containers have written
    #[arg(short, long)]
    size: bool,
}

/// Lists containers.
pub(in crate::cli) fn run(args: &PsArgs, ctx: &Ctx) -> CommandResult {
    let containers = open(ctx)?;
    let filters = Filters::parse(&args.filter, &containers)?;
    let format = args.format.as_deref().filter(|f| !matches!(*f, "table" | ""));
    let template = format.map(Template::parse).transpose()?;
    let last = if args.latest { 1 } else { args.last };
    let everything = args.all || last > 0 || filters.about_state;
    let mut shown: Vec<Container> = containers.list().map_err(failure)?;
    shown.retain(|c| (everything || c.state.status.is_live()) && filters.fit(c));
    if let Ok(last @ 1..) = usize::try_from(last) {
        shown.truncate(last);
    }
    let wants_size = args.size || format.is_some_and(|format| format.contains(".Size"));
    let rows: Vec<Value> = shown.iter().map(|c| row(c, args.no_trunc, wants_size)).collect();
    let text = match &template {
        Some(template) => list_with(template, &rows, &title)?,
        None if args.quiet => rows.iter().map(|row| format!("{}\n", cell(row, "ID"))).collect(),
        None => plain(&rows, args.size),
    };
    ctx.out.text(&text)?;
    Ok(ExitCode::SUCCESS)
}

const COLUMNS: [&str; 7] = ["ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names"];

fn plain(rows: &[Value], size: bool) -> String {
    let columns: Vec<&str> = COLUMNS.into_iter().chain(size.then_some("Size")).collect();
    let head = columns.iter().map(|c| title(c)).collect();
    let lines = rows.iter().map(|row| columns.iter().map(|column| cell(row, column)).collect());
    table(&std::iter::once(head).chain(lines).collect::<Vec<_>>())
}

fn title(field: &str) -> String {
    match field {
        "ID" => "CONTAINER ID".into(),
        "RunningFor" => "CREATED".into(),
        "CreatedAt" => "CREATED AT".into(),
        "LocalVolumes" => "LOCAL VOLUMES".into(),
        other => other.to_uppercase(),
    }
}

fn cell(row: &Value, column: &str) -> String {
    row[column].as_str().unwrap_or_default().to_owned()
}

fn row(container: &Container, whole: bool, wants_size: bool) -> Value {
    let (record, state) = (&container.record, &container.state);
    let command = record.config.argv.iter().map(|w| String::from_utf8_lossy(w)).collect::<Vec<_>>().join(" ");
    let command = if whole { command } else { cut(&command, 20) };
    let image = record
        .image
        .strip_prefix("sha256:")
        .filter(|_| !whole)
        .map_or(record.image.as_str(), |id| id.get(..12).unwrap_or(id));
    let seconds = |nanos: i128| i64::try_from(nanos / 1_000_000_000).unwrap_or(0);
    let labels: Vec<String> = record.config.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
    let mounts: Vec<String> = record.mounts.iter().filter_map(|m| mount_name(&m.source, whole)).collect();
    let volumes = record.mounts.iter().filter(|m| matches!(m.source, MountSource::Volume { .. })).count();
    let size = if wants_size { human_size(written(container)) } else { String::new() };
    let networks: Vec<String> = networks(container);
    let ports = if state.status.has_process() { state.network.ports(record) } else { String::new() };
    json!({
        "ID": if whole { record.id.as_str() } else { record.id.short() },
        "Image": image,
        "Command": format!("{command:?}"),
        "CreatedAt": time::column(record.created),
        "RunningFor": ago(seconds(record.created), seconds(time::now())),
        "Ports": ports,
        "State": state.status.word(),
        "Status": status(state),
        "HealthStatus": state.health.as_ref().filter(|_| state.status.has_process()).map_or("", |h| h.status.word()),
        "Size": size,
        "Names": record.name.as_str(),
        "Labels": labels.join(","),
        "LabelMap": record.config.labels,
        "Mounts": mounts.join(","),
        "LocalVolumes": volumes.to_string(),
        "Networks": networks.join(","),
        "Platform": record.platform,
    })
}

fn mount_name(source: &MountSource, whole: bool) -> Option<String> {
    match source {
        MountSource::Bind { path, .. } => Some(path.display().to_string()),
        MountSource::Volume { name, .. } if whole || name.len() < 64 => Some(name.clone()),
        MountSource::Volume { name, .. } => Some(cut(name, 15)),
        MountSource::Image { name, .. } => Some(name.clone()),
        _ => None,
    }
}

/// Names the networks that a container is in.
fn networks(container: &Container) -> Vec<String> {
    let settings = container.state.network.settings(&container.record);
    settings["Networks"].as_object().map(|all| all.keys().cloned().collect()).unwrap_or_default()
}

/// Gives the bytes of what a container has written into its own layer.
pub(super) fn written(container: &Container) -> u64 {
    let upper = container.dir.join("fs");
    let mut seen = std::collections::HashSet::new();
    let entries = walkdir::WalkDir::new(upper).into_iter().flatten();
    let size = |entry: walkdir::DirEntry| {
        use std::os::unix::fs::MetadataExt;
        let meta = entry.metadata().ok().filter(|meta| meta.is_file())?;
        seen.insert(meta.ino()).then_some(meta.len())
    };
    entries.filter_map(size).sum()
}

/// Says in docker's words what a container is doing.
pub(super) fn status(state: &State) -> String {
    let since = |then: i128| time::span(time::now() - then);
    let code = state.exit_code;
    match state.status {
        Status::Created => "Created".into(),
        Status::Running => match &state.health {
            Some(health) if health.status.word() == "starting" => {
                format!("Up {} (health: starting)", since(state.started))
            }
            Some(health) => format!("Up {} ({})", since(state.started), health.status.word()),
            None => format!("Up {}", since(state.started)),
        },
        Status::Paused => format!("Up {} (Paused)", since(state.started)),
        Status::Restarting => format!("Restarting ({code}) {} ago", since(state.finished)),
        Status::Removing => "Removal In Progress".into(),
        Status::Exited => format!("Exited ({code}) {} ago", since(state.finished)),
        Status::Dead => "Dead".into(),
    }
}

/// One `--filter`.
enum Filter {
    Id(String),
    Name(regex::Regex),
    Label(String, Option<String>),
    Status(Status),
    Exited(i32),
    Ancestor(String),
    Before(i128),
    Since(i128),
    Volume(String),
    Network(String),
    Health(String),
    Publish(String),
    Expose(String),
}

struct Filters {
    all: Vec<Filter>,
    /// One of them asks for containers that do not run.
    about_state: bool,
}

impl Filters {
    fn parse(texts: &[String], containers: &Containers) -> Result<Self, CliError> {
        let mut out = Self { all: Vec::new(), about_state: false };
        for text in texts {
            let bad = |why: String| CliError::new(format!("--filter {text:?}: {why}"));
            let (key, value) = text.split_once('=').ok_or_else(|| bad("expected KEY=VALUE".into()))?;
            let created = || containers.find(value).map(|c| c.record.created).map_err(failure);
            out.all.push(match key {
                "id" => Filter::Id(value.to_owned()),
                "name" => Filter::Name(regex::Regex::new(value).map_err(|e| bad(e.to_string()))?),
                "label" => match value.split_once('=') {
                    Some((name, value)) => Filter::Label(name.into(), Some(value.into())),
                    None => Filter::Label(value.into(), None),
                },
                "status" => {
                    out.about_state = true;
                    Filter::Status(Status::parse(value).ok_or_else(|| {
                        bad("expected created, running, paused, restarting, removing, exited or dead".into())
                    })?)
                }
                "exited" => {
                    out.about_state = true;
                    Filter::Exited(value.parse().map_err(|_| bad("expected an exit code".into()))?)
                }
                "ancestor" => Filter::Ancestor(value.to_owned()),
                "before" => Filter::Before(created()?),
                "since" => Filter::Since(created()?),
                "volume" => Filter::Volume(value.to_owned()),
                "network" => Filter::Network(value.to_owned()),
                "health" if matches!(value, "starting" | "healthy" | "unhealthy" | "none") => {
                    Filter::Health(value.to_owned())
                }
                "publish" => Filter::Publish(value.to_owned()),
                "expose" => Filter::Expose(value.to_owned()),
                "is-task" if value == "false" => continue,
                _ => return Err(bad("there is no such filter".into())),
            });
        }
        Ok(out)
    }

    /// Filters of one kind are alternatives, those of different kinds must all fit; labels must all fit.
    fn fit(&self, container: &Container) -> bool {
        let kinds = self.all.iter().map(std::mem::discriminant).collect::<std::collections::HashSet<_>>();
        kinds.into_iter().all(|kind| {
            let mut of_kind = self.all.iter().filter(|f| std::mem::discriminant(*f) == kind);
            if matches!(of_kind.clone().next(), Some(Filter::Label(..))) {
                of_kind.all(|filter| filter.fits(container))
            } else {
                of_kind.any(|filter| filter.fits(container))
            }
        })
    }
}

impl Filter {
    fn fits(&self, container: &Container) -> bool {
        let (record, state) = (&container.record, &container.state);
        match self {
            Self::Id(id) => record.id.as_str().starts_with(id.as_str()),
            Self::Name(name) => {
                name.is_match(record.name.as_str()) || name.is_match(&format!("/{}", record.name))
            }
            Self::Label(name, value) => record
                .config
                .labels
                .get(name)
                .is_some_and(|v| value.as_ref().is_none_or(|wanted| wanted == v)),
            Self::Status(status) => state.status == *status,
            Self::Exited(code) => state.status == Status::Exited && state.exit_code == *code,
            Self::Ancestor(image) => {
                let id = record.image_id.trim_start_matches("sha256:");
                let name = record.image.as_str();
                name == image
                    || name.strip_suffix(":latest") == Some(image)
                    || image.strip_suffix(":latest") == Some(name)
                    || name.split_once(':').is_some_and(|(repository, _)| repository == image)
                    || image.len() >= 4 && id.starts_with(image.trim_start_matches("sha256:"))
            }
            Self::Before(time) => record.created < *time,
            Self::Since(time) => record.created > *time,
            Self::Volume(volume) => record.mounts.iter().any(|mount| {
                mount.target == volume.as_bytes() || mount_name(&mount.source, true).as_ref() == Some(volume)
            }),
            Self::Network(network) => networks(container).contains(network),
            Self::Health(wanted) => {
                let health = state.health.as_ref().filter(|_| state.status.has_process());
                health.map_or("none", |health| health.status.word()) == wanted
            }
            Self::Publish(port) => state.network.published().iter().any(|(inside, host)| {
                let (number, transport) = port.split_once('/').unwrap_or((port, "tcp"));
                host.rsplit_once(':').is_some_and(|(_, host)| host == number) && inside.ends_with(transport)
            }),
            Self::Expose(port) => {
                let full = if port.contains('/') { port.clone() } else { format!("{port}/tcp") };
                record
                    .config
                    .exposed
                    .iter()
                    .chain(&record.network.expose)
                    .any(|port| port.to_string() == full)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::health::{Health, HealthStatus};

    #[test]
    fn states_are_told_in_dockers_words() {
        let now = time::now();
        let minute = 61_000_000_000;
        let state = |status| State {
            status,
            started: now - 5 * minute,
            finished: now - minute,
            exit_code: 3,
            ..State::default()
        };
        for (status_, want) in [
            (Status::Created, "Created"),
            (Status::Running, "Up 5 minutes"),
            (Status::Paused, "Up 5 minutes (Paused)"),
            (Status::Exited, "Exited (3) About a minute ago"),
            (Status::Restarting, "Restarting (3) About a minute ago"),
            (Status::Removing, "Removal In Progress"),
            (Status::Dead, "Dead"),
        ] {
            assert_eq!(status(&state(status_)), want);
        }
        for (health, want) in [
            (HealthStatus::Starting, "Up 5 minutes (health: starting)"),
            (HealthStatus::Healthy, "Up 5 minutes (healthy)"),
            (HealthStatus::Unhealthy, "Up 5 minutes (unhealthy)"),
        ] {
            let mut state = state(Status::Running);
            state.health = Some(Health { status: health, ..Health::default() });
            assert_eq!(status(&state), want);
        }
    }
}
