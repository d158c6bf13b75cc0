//! From what the command line says to a container that can be started.

use super::config::{ContainerConfig, Overrides};
use super::confinement::Confinement;
use super::containers::{self, Containers};
use super::log::LogConfig;
use super::network::NetworkRequest;
use super::record::Record;
use super::restart::RestartPolicy;
use super::volume::VolumeRequest;
use super::volumes::Volumes;
use super::{ContainerId, ContainerName, RunError, mounts, time};
use crate::fault;
use crate::image::Image;
use crate::network::ContainerNetwork;
use crate::oci::Healthcheck;
use crate::snapshot::Snapshots;
use crate::store::Lock;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

/// Everything that the command line says about a container.
#[derive(Debug, Clone)]
pub struct RunRequest {
    /// What it is made from.
    pub image: Image,
    /// The image's name as typed.
    pub image_name: String,
    /// The process.
    pub process: Overrides,
    /// `--name`; `None` draws one.
    pub name: Option<ContainerName>,
    /// `--hostname`; `None` is the short id, or the host's name on the host's network.
    pub hostname: Option<String>,
    /// `--domainname`.
    pub domainname: String,
    /// Takes the id; must not exist yet.
    pub cidfile: Option<PathBuf>,
    /// `-v`, `--mount`, `--tmpfs`.
    pub volumes: Vec<VolumeRequest>,
    /// `--volumes-from`: containers, and whether theirs become read-only.
    pub volumes_from: Vec<(String, Option<bool>)>,
    /// Namespace, hosts, name servers.
    pub network: NetworkRequest,
    /// `-i`: standard input stays open.
    pub interactive: bool,
    /// Input ends with the command that makes the container.
    pub stdin_once: bool,
    /// What that command is attached to: input, output, errors.
    pub attached: [bool; 3],
    /// `--rm`.
    pub auto_remove: bool,
    /// `--restart`.
    pub restart: RestartPolicy,
    /// The image's health check with the command line's over it.
    pub health: Option<Healthcheck>,
    /// `--stop-timeout`, in seconds.
    pub stop_timeout: Option<i64>,
    /// `--log-driver`, `--log-opt`.
    pub log: LogConfig,
    /// `--annotation`.
    pub annotations: BTreeMap<String, String>,
    /// What the process may do and use.
    pub confinement: Confinement,
}

/// Makes a container; it does not run yet.
///
/// # Errors
/// The name is taken, a value makes no sense, or something that it needs cannot be made. Nothing is left then.
pub fn create(
    request: &RunRequest,
    containers: &Containers,
    snapshots: &Snapshots,
) -> Result<Record, RunError> {
    make(request, containers, snapshots, false).map(|(record, _)| record)
}

/// Makes a container that is about to be started: as long as what is given beside the record is held, no clean-up takes
/// it for one that is not used.
///
/// # Errors
/// As [`create`].
pub fn create_to_start(
    request: &RunRequest,
    containers: &Containers,
    snapshots: &Snapshots,
) -> Result<(Record, Option<Lock>), RunError> {
    make(request, containers, snapshots, true)
}

fn make(
    request: &RunRequest,
    containers: &Containers,
    snapshots: &Snapshots,
    starts: bool,
) -> Result<(Record, Option<Lock>), RunError> {
    let id = ContainerId::random()?;
    let mut network = request.network.clone();
    network.resolve(containers)?;
    let (hostname, domainname) = match (&network.choice, &request.hostname) {
        (ContainerNetwork::Container(_), Some(_)) => {
            return Err(RunError::Refused("conflicting options: hostname and the network mode".into()));
        }
        // who shares the network shares the names that others know it by
        (ContainerNetwork::Container(other), None) if !request.confinement.host_uts => {
            let other = containers.find(other)?.record;
            (other.hostname, other.domainname)
        }
        _ => (hostname(request, &id)?, request.domainname.clone()),
    };
    let config = ContainerConfig::new(&request.image.config.config, &request.process, &hostname)?;
    let store = containers.store();
    let parent = snapshots.get(&request.image.top())?;
    let staged = store.temp_dir("container")?;
    let dir = staged.path().join("container");
    std::os::unix::fs::DirBuilderExt::mode(&mut std::fs::DirBuilder::new(), 0o700)
        .create(&dir)
        .map_err(RunError::io("make the container's directory"))?;
    snapshots.make_writable(&dir, &parent)?;
    let starting = if starts { containers::hold_starting(&dir)? } else { None };
    fault::point("container.staged");
    let _held = Volumes::new(store).hold()?;
    let inherited = inherited(request, containers)?;
    let mounts = mounts::prepare(&request.volumes, inherited, &config.volumes, &parent, store)?;
    // held until the container can be seen to need them
    let _images = mounts::hold_images(&mounts, snapshots)
        .and_then(|held| {
            snapshots.pin_for(&dir, held.iter().map(|image| image.id)).map(|()| held).map_err(Into::into)
        })
        .inspect_err(|_| mounts::remove_anonymous(store, &mounts))?;
    let image_config = &request.image.config.config;
    let record = Record {
        id,
        name: ContainerName::placeholder(),
        created: time::now(),
        image: request.image_name.clone(),
        image_id: request.image.id.to_string(),
        platform: request.image.platform().to_string(),
        top: request.image.top(),
        config,
        hostname,
        own_hostname: request.hostname.is_some(),
        domainname,
        interactive: request.interactive,
        stdin_once: request.stdin_once,
        terminal: request.process.terminal,
        attached: request.attached,
        auto_remove: request.auto_remove,
        restart: request.restart,
        health: request.health.clone(),
        shell: image_config.shell.clone(),
        stop_timeout: request.stop_timeout.or(image_config.stop_timeout),
        log: request.log.clone(),
        mounts,
        network,
        confinement: request.confinement.clone(),
        annotations: request.annotations.clone(),
        cidfile: request.cidfile.as_ref().map(|p| p.display().to_string()).unwrap_or_default(),
    };
    let mounts = record.mounts.clone();
    let made = write_cidfile(request, &record.id).and_then(|()| {
        containers.publish(&dir, record, request.name.as_ref()).inspect_err(|_| remove_cidfile(request))
    });
    match &made {
        Ok(record) => super::record_event(containers, record, "create", &[]),
        Err(_) => mounts::remove_anonymous(store, &mounts),
    }
    made.map(|record| (record, starting))
}

/// Gives the mounts of the containers of `--volumes-from`.
fn inherited(request: &RunRequest, containers: &Containers) -> Result<Vec<super::MountPoint>, RunError> {
    let mut out = Vec::new();
    for (name, readonly) in &request.volumes_from {
        let from = containers.find(name)?;
        for mount in from.record.mounts {
            let mut mount = mount;
            mount.readonly = readonly.unwrap_or(mount.readonly);
            // it stays the other one's
            if let super::MountSource::Volume { anonymous, .. } = &mut mount.source {
                *anonymous = false;
            }
            if !matches!(mount.source, super::MountSource::Tmpfs(_)) {
                out.push(mount);
            }
        }
    }
    Ok(out)
}

fn hostname(request: &RunRequest, id: &ContainerId) -> Result<String, RunError> {
    match &request.hostname {
        // the kernel takes 64 bytes
        Some(name) if name.is_empty() || name.len() > 64 => {
            Err(RunError::flag("--hostname", name, "a host name has 1 to 64 bytes"))
        }
        Some(name) if name.chars().any(|c| c.is_whitespace() || c.is_control()) => {
            Err(RunError::flag("--hostname", name, "it holds a blank or a control character"))
        }
        Some(name) => Ok(name.clone()),
        None if request.network.choice == ContainerNetwork::Host || request.confinement.host_uts => {
            Ok(rustix::system::uname().nodename().to_string_lossy().into_owned())
        }
        None => Ok(id.short().to_owned()),
    }
}

fn write_cidfile(request: &RunRequest, id: &ContainerId) -> Result<(), RunError> {
    let Some(path) = &request.cidfile else { return Ok(()) };
    let file = std::fs::File::options().write(true).create_new(true).open(path);
    file.and_then(|mut file| file.write_all(id.as_str().as_bytes())).map_err(|e| {
        let why = match e.kind() {
            std::io::ErrorKind::AlreadyExists => "the file exists: delete it, or name another".to_owned(),
            _ => e.to_string(),
        };
        RunError::flag("--cidfile", path.as_os_str().as_encoded_bytes(), why)
    })
}

fn remove_cidfile(request: &RunRequest) {
    if let Some(path) = &request.cidfile {
        let _ = std::fs::remove_file(path);
    }
}
