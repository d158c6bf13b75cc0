//! `ps`: what there is, and which of it is asked for.

use super::{failure, open};
use crate::cli::image_commands::{list_with, open as open_images};
use crate::cli::listing::{split_filter, unknown_filter};
use crate::cli::table::{cut, human_size, table};
use crate::cli::template::Template;
use crate::cli::{CliError, CommandResult, Ctx, talk};
use crate::image::ago;
use crate::runtime::{Container, Containers, MountSource, State, Status, time};
use clap::Args;
use serde_json::{Value, json};
use std::collections::HashMap;
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
    let filters = Filters::parse(&args.filter, &containers, ctx)?;
    let format = match args.format.as_deref() {
        Some("table" | "") | None => None,
        Some("raw") => Some(raw(args)),
        Some(_) if args.quiet => {
            talk("WARNING: Ignoring custom format, because both --format and --quiet are set.\n");
            None
        }
        Some(other) => Some(other.to_owned()),
    };
    let template = format.as_deref().map(Template::parse).transpose()?;
    let last = if args.latest && args.last == -1 { 1 } else { args.last };
    let everything = args.all || last > 0 || filters.about_state;
    let mut shown: Vec<Container> = containers.list().map_err(failure)?;
    shown.retain(|c| (everything || c.state.status.is_live()) && filters.fit(c));
    if let Ok(last @ 1..) = usize::try_from(last) {
        shown.truncate(last);
    }
    let wants_size = args.size || template.as_ref().is_some_and(|template| template.asks_for("Size"));
    let sizes = wants_size.then(|| image_sizes(&shown, ctx));
    let row = |c: &Container| row(c, args.no_trunc, sizes.as_ref());
    let rows: Vec<Value> = shown.iter().map(row).collect();
    let text = match &template {
        Some(template) => list_with(template, &rows, &title, "*formatter.ContainerContext")?,
        None if args.quiet => rows.iter().map(|row| format!("{}\n", cell(row, "ID"))).collect(),
        None => plain(&rows, args.size),
    };
    ctx.out.text(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// The form that docker calls raw.
fn raw(args: &PsArgs) -> String {
    if args.quiet {
        return "container_id: {{.ID}}".into();
    }
    let mut out =
        "container_id: {{.ID}}\nimage: {{.Image}}\ncommand: {{.Command}}\ncreated_at: {{.CreatedAt}}\n\
                   state: {{- pad .State 1 0}}\nstatus: {{- pad .Status 1 0}}\nnames: {{.Names}}\n\
                   labels: {{- pad .Labels 1 0}}\nports: {{- pad .Ports 1 0}}\n"
            .to_owned();
    if args.size {
        out.push_str("size: {{.Size}}\n");
    }
    out
}

const COLUMNS: [&str; 7] = ["ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names"];

/// Gives the bytes of the images of containers by their ids, of those that are still there.
fn image_sizes(containers: &[Container], ctx: &Ctx) -> HashMap<String, u64> {
    let Ok(images) = open_images(ctx) else { return HashMap::new() };
    let (mut out, mut known) = (HashMap::new(), HashMap::new());
    for id in containers.iter().map(|container| &container.record.image_id) {
        if !out.contains_key(id)
            && let Ok(image) = images.resolve(id)
        {
            out.insert(id.clone(), images.size(&image, &mut known));
        }
    }
    out
}

/// Gives lines for other commands, with cut ids and the bytes that were written.
pub(in crate::cli) fn rows(containers: &[Container]) -> Vec<Value> {
    let no_images = HashMap::new();
    containers.iter().map(|container| row(container, false, Some(&no_images))).collect()
}

/// Gives the table of `system df -v`.
pub(in crate::cli) fn usage_table(containers: &[Container]) -> String {
    let columns = ["ID", "Image", "Command", "LocalVolumes", "Size", "RunningFor", "Status", "Names"];
    let rows = rows(containers);
    let cells = rows.iter().map(|row| columns.iter().map(|column| cell(row, column)).collect());
    let head = columns.iter().map(|column| title(column)).collect();
    table(&std::iter::once(head).chain(cells).collect::<Vec<_>>())
}

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
        "HealthStatus" => "HEALTH STATUS".into(),
        other => other.to_uppercase(),
    }
}

fn cell(row: &Value, column: &str) -> String {
    row[column].as_str().unwrap_or_default().to_owned()
}

fn row(container: &Container, whole: bool, wants_size: Option<&HashMap<String, u64>>) -> Value {
    let (record, state) = (&container.record, &container.state);
    let command = command_line(&record.config.argv);
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
    let size = match wants_size {
        None => String::new(),
        Some(images) => match images.get(&record.image_id) {
            Some(of_image) => {
                let own = written(container);
                format!("{} (virtual {})", human_size(own), human_size(own.saturating_add(*of_image)))
            }
            None => human_size(written(container)),
        },
    };
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

/// Writes a command as docker does: what comes after the program is in quotation marks when it has blanks.
fn command_line(argv: &[Vec<u8>]) -> String {
    let word = |(at, word): (usize, &Vec<u8>)| {
        let text = String::from_utf8_lossy(word).into_owned();
        if at > 0 && text.contains(' ') { format!("'{text}'") } else { text }
    };
    argv.iter().enumerate().map(word).collect::<Vec<_>>().join(" ")
}

fn mount_name(source: &MountSource, whole: bool) -> Option<String> {
    let name = match source {
        MountSource::Bind { path, .. } => path.display().to_string(),
        MountSource::Volume { name, .. } | MountSource::Image { name, .. } => name.clone(),
        _ => return None,
    };
    Some(if whole { name } else { cut(&name, 15) })
}

/// Names the networks that a container is in.
fn networks(container: &Container) -> Vec<String> {
    let settings = container.state.network.settings(&container.record, None);
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
    /// `None` is a pattern that cannot be read, which nothing fits.
    Name(Option<regex::Regex>),
    Label(String, Option<String>),
    Status(Status),
    Exited(i32),
    /// A name or the beginning of an id, and the ids of the image that it is the name of.
    Ancestor(String, Vec<String>),
    Before(i128),
    Since(i128),
    Volume(String),
    Network(String),
    Health(String),
    Publish(PortRange),
    Expose(PortRange),
    /// A container is no task of a swarm.
    Nothing,
}

/// Ports of one protocol.
struct PortRange {
    first: u16,
    last: u16,
    transport: String,
}

impl PortRange {
    /// Reads `80`, `80/udp`, `80-90` or `80-90/tcp`.
    fn parse(text: &str) -> Result<Self, String> {
        let (ports, transport) = text.split_once('/').unwrap_or((text, "tcp"));
        let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
        let number = |text: &str| text.parse::<u16>().map_err(|_| format!("{text:?} is no port"));
        Ok(Self { first: number(first)?, last: number(last)?, transport: transport.to_ascii_lowercase() })
    }

    /// Says whether a port, with `/tcp` or another protocol after it, is one of them.
    fn holds(&self, number: &str, transport: &str) -> bool {
        transport == self.transport
            && number.parse::<u16>().is_ok_and(|port| (self.first..=self.last).contains(&port))
    }
}

struct Filters {
    all: Vec<Filter>,
    /// One of them asks for containers that do not run.
    about_state: bool,
}

impl Filters {
    fn parse(texts: &[String], containers: &Containers, ctx: &Ctx) -> Result<Self, CliError> {
        let mut out = Self { all: Vec::new(), about_state: false };
        for text in texts {
            let bad = |why: String| CliError::new(format!("--filter {text:?}: {why}"));
            let (key, value) = split_filter(text)?;
            let invalid = || CliError::new(format!("invalid filter '{key}={value}'"));
            let created = || containers.find(value).map(|c| c.record.created).map_err(failure);
            out.all.push(match key.as_str() {
                "id" => Filter::Id(value.to_owned()),
                "name" => Filter::Name(regex::Regex::new(value).ok()),
                "label" => match value.split_once('=') {
                    Some((name, value)) => Filter::Label(name.into(), Some(value.into())),
                    None => Filter::Label(value.into(), None),
                },
                "status" => {
                    out.about_state = true;
                    Filter::Status(Status::parse(value).ok_or_else(|| {
                        invalid().hint("a status is created, running, paused, restarting, removing, exited or dead")
                    })?)
                }
                "exited" => Filter::Exited(value.parse().map_err(|_| bad("expected an exit code".into()))?),
                "ancestor" => {
                    let image = open_images(ctx)?.resolve(value).ok();
                    let ids = image.map_or_else(Vec::new, |i| i.ids().iter().map(ToString::to_string).collect());
                    Filter::Ancestor(value.to_owned(), ids)
                }
                "before" => Filter::Before(created()?),
                "since" => Filter::Since(created()?),
                "volume" => Filter::Volume(value.to_owned()),
                "network" => Filter::Network(value.to_owned()),
                "health" if matches!(value, "starting" | "healthy" | "unhealthy" | "none") => {
                    Filter::Health(value.to_owned())
                }
                "health" => {
                    return Err(CliError::new(format!("unrecognized filter value for health: {value}"))
                        .hint("it is starting, healthy, unhealthy or none"));
                }
                "publish" => Filter::Publish(PortRange::parse(value).map_err(bad)?),
                "expose" => Filter::Expose(PortRange::parse(value).map_err(bad)?),
                "is-task" => match value {
                    "false" | "0" => continue,
                    "true" | "1" => Filter::Nothing,
                    _ => return Err(invalid()),
                },
                // Windows has kinds of isolation
                "isolation" => continue,
                _ => {
                    return Err(unknown_filter(
                        &key,
                        "id, name, label, status, exited, ancestor, before, since, volume, network, health, publish and expose",
                    ));
                }
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
            Self::Name(name) => name.as_ref().is_some_and(|name| {
                name.is_match(record.name.as_str()) || name.is_match(&format!("/{}", record.name))
            }),
            Self::Label(name, value) => record
                .config
                .labels
                .get(name)
                .is_some_and(|v| value.as_ref().is_none_or(|wanted| wanted == v)),
            Self::Status(status) => state.status == *status,
            Self::Exited(code) => state.status == Status::Exited && state.exit_code == *code,
            Self::Ancestor(_, ids) if ids.contains(&record.image_id) => true,
            Self::Ancestor(image, _) => {
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
            Self::Network(network) => {
                let settings = container.state.network.settings(record, None);
                let all = settings["Networks"].as_object();
                let id_fits =
                    |one: &Value| one["NetworkID"].as_str().is_some_and(|id| id.starts_with(network));
                all.is_some_and(|all| all.contains_key(network) || all.values().any(id_fits))
            }
            Self::Health(wanted) => {
                let health = state.health.as_ref().filter(|_| state.status.has_process());
                health.map_or("none", |health| health.status.word()) == wanted
            }
            Self::Publish(wanted) => state.network.published().iter().any(|(inside, host)| {
                let transport = inside.rsplit_once('/').map_or("tcp", |(_, transport)| transport);
                host.rsplit_once(':').is_some_and(|(_, port)| wanted.holds(port, transport))
            }),
            Self::Expose(wanted) => {
                let mut exposed = record.config.exposed.iter().chain(&record.network.expose);
                exposed.any(|port| {
                    let port = port.to_string();
                    port.split_once('/').is_some_and(|(number, transport)| wanted.holds(number, transport))
                })
            }
            Self::Nothing => false,
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
