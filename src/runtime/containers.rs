//! The containers of a store: where each one is, how it is found, and what is done about one whose monitor was killed.
//!
//! ```text
//! containers/<id>/
//!     config.json       the record; written last when the container is made, so that half of one is invisible
//!     state.json        what changes in its life, replaced by rename
//!     top               the snapshot that it stands on: a root for garbage collection
//!     lock              held by the monitor as long as it lives
//!     starting          held by a `run` until the monitor has the lock
//!     socket            where the monitor listens
//!     <id>-json.log     what it wrote
//!     fs/ work/         its writable layer
//! containers/names/<name> -> <id>
//! ```
//!
//! A name is taken by making the link, which only one can. A link whose container is gone, or has another name by
//! now, is nobody's.

use super::network::NetworkRequest;
use super::record::Record;
use super::state::{State, Status};
use super::{ContainerId, ContainerName, RunError};
use crate::fault;
use crate::store::{Lock, LockKind, Store, StoreError};
pub(super) use crate::sys::process::start_time;
use crate::sys::{boot, fsutil};
use std::fs::File;
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// More is not read of a record, in bytes.
const RECORD_LIMIT: u64 = 8 << 20;

/// What a container is that a monitor was taken away from.
const KILLED: i32 = 137;

/// What docker gives one that ran when the machine went down.
const LOST: i32 = 255;

const WENT_DOWN: &str = "the machine went down while the container ran";

/// All containers of a store.
#[derive(Debug, Clone)]
pub struct Containers {
    store: Store,
}

/// One container as it was when it was looked at.
#[derive(Debug, Clone)]
pub struct Container {
    /// What it was made with.
    pub record: Record,
    /// What it is now.
    pub state: State,
    /// Its directory.
    pub dir: PathBuf,
}

impl Containers {
    /// Opens the containers of a store.
    pub fn new(store: &Store) -> Self {
        Self { store: store.clone() }
    }

    /// Gives the store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Gives the directory of a container.
    pub fn dir(&self, id: &ContainerId) -> PathBuf {
        self.store.root().join("containers").join(id.as_str())
    }

    fn rel(id: &ContainerId, file: &str) -> String {
        format!("containers/{id}/{file}")
    }

    /// Lists the containers, newest first. One that cannot be read is left out.
    pub fn list(&self) -> Result<Vec<Container>, RunError> {
        let dir = self.store.root().join("containers");
        let entries = std::fs::read_dir(&dir).map_err(StoreError::io("list", &dir))?;
        let ids = entries.flatten().filter_map(|e| e.file_name().to_str()?.parse::<ContainerId>().ok());
        let mut all: Vec<Container> = ids.filter_map(|id| self.get(&id).ok().flatten()).collect();
        all.sort_by(|a, b| b.record.created.cmp(&a.record.created).then(a.record.id.cmp(&b.record.id)));
        Ok(all)
    }

    /// Lists the containers that cannot be read, with what is wrong.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn audit(&self) -> Result<Vec<(ContainerId, String)>, RunError> {
        let dir = self.store.root().join("containers");
        let entries = std::fs::read_dir(&dir).map_err(StoreError::io("list", &dir))?;
        let ids = entries.flatten().filter_map(|e| e.file_name().to_str()?.parse::<ContainerId>().ok());
        let wrong = |id: ContainerId| match self.get(&id) {
            Ok(Some(_)) => None,
            Ok(None) => self.dir(&id).exists().then(|| (id, "its record is gone".to_owned())),
            Err(error) => Some((id, error.to_string())),
        };
        Ok(ids.filter_map(wrong).collect())
    }

    /// Removes the names that lead to no container, as a kill while one was made leaves them.
    ///
    /// # Errors
    /// The store cannot be locked.
    pub fn sweep_names(&self) -> Result<(), RunError> {
        let _alone = self.lock_names()?;
        let entries = std::fs::read_dir(self.store.root().join("containers/names")).into_iter().flatten();
        for entry in entries.flatten() {
            let target = std::fs::read_link(entry.path()).ok();
            let id = target.and_then(|target| target.to_str()?.parse::<ContainerId>().ok());
            if !id.is_some_and(|id| self.dir(&id).exists()) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
        Ok(())
    }

    /// Reads a container, and puts right what a killed monitor has left; `None` when there is none.
    pub fn get(&self, id: &ContainerId) -> Result<Option<Container>, RunError> {
        let Some(mut container) = self.get_unhealed(id)? else { return Ok(None) };
        if container.state.status.is_live() || container.state.status == Status::Removing {
            self.heal(&mut container)?;
        }
        Ok(self.dir(id).exists().then_some(container))
    }

    fn get_unhealed(&self, id: &ContainerId) -> Result<Option<Container>, RunError> {
        let Some(record) = self.read::<Record>(id, "config.json")? else { return Ok(None) };
        let state = self.read_state(&record)?;
        Ok(Some(Container { record, state, dir: self.dir(id) }))
    }

    /// Reads what a container is.
    ///
    /// The state of one that runs is not synced, so a power cut can leave a file without bytes, or with zeros for them.
    /// Whose file that is was started, and runs no more.
    fn read_state(&self, record: &Record) -> Result<State, RunError> {
        let rel = Self::rel(&record.id, "state.json");
        let Some(bytes) = self.store.read(&rel, RECORD_LIMIT)? else { return Ok(State::default()) };
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok(State {
                status: Status::Exited,
                exit_code: LOST,
                error: WENT_DOWN.into(),
                started: record.created,
                finished: record.created,
                ..State::default()
            });
        }
        parse(&record.id, "state.json", &bytes)
    }

    fn read<T: serde::de::DeserializeOwned>(
        &self,
        id: &ContainerId,
        file: &str,
    ) -> Result<Option<T>, RunError> {
        let Some(bytes) = self.store.read(&Self::rel(id, file), RECORD_LIMIT)? else { return Ok(None) };
        parse(id, file, &bytes).map(Some)
    }

    /// A container whose file says that it lives while nobody holds its lock has lost its monitor.
    fn heal(&self, container: &mut Container) -> Result<(), RunError> {
        let id = container.record.id.clone();
        let Some(lock) = self.try_lock(&id)? else { return Ok(()) };
        // it may have ended in good order meanwhile
        container.state = self.read_state(&container.record)?;
        if container.state.status == Status::Removing {
            return self.remove_files(container, lock);
        }
        if !container.state.status.is_live() {
            return Ok(());
        }
        super::network::clean(self, &container.record, &container.state.network);
        let state = &mut container.state;
        state.go(Status::Exited);
        let (code, why) = match state.boot.is_empty() || state.boot == boot::id() {
            true => (KILLED, "the container's monitor was killed, and its processes with it"),
            false => (LOST, WENT_DOWN),
        };
        (state.exit_code, state.pid, state.error) = (code, 0, why.into());
        crate::sandbox::remove_cgroups(&std::mem::take(&mut state.cgroups));
        state.finished = super::time::now();
        state.network = Default::default();
        self.save_state(&container.record, &container.state)?;
        if container.record.auto_remove {
            self.remove_locked(container, true, lock)?;
        }
        Ok(())
    }

    /// Finds a container by id, name or the beginning of an id, in this order.
    ///
    /// # Errors
    /// [`RunError::NoContainer`], or several ids begin so.
    pub fn find(&self, text: &str) -> Result<Container, RunError> {
        let none = || RunError::NoContainer(text.to_owned());
        if let Ok(id) = text.parse::<ContainerId>()
            && let Some(found) = self.get(&id)?
        {
            return Ok(found);
        }
        if let Ok(name) = text.trim_start_matches('/').parse::<ContainerName>()
            && let Some(found) = self.named(&name)?
        {
            return Ok(found);
        }
        if text.is_empty() || !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(none());
        }
        let mut fits = self.list()?.into_iter().filter(|c| c.record.id.as_str().starts_with(text));
        match (fits.next(), fits.next()) {
            (Some(found), None) => Ok(found),
            (None, _) => Err(none()),
            (Some(_), Some(_)) => Err(RunError::AmbiguousContainer(text.to_owned())),
        }
    }

    fn named(&self, name: &ContainerName) -> Result<Option<Container>, RunError> {
        let target = std::fs::read_link(self.name_path(name)).ok();
        let id = target.and_then(|target| target.to_str()?.parse::<ContainerId>().ok());
        let found = id.map(|id| self.get(&id)).transpose()?.flatten();
        Ok(found.filter(|container| container.record.name == *name))
    }

    fn name_path(&self, name: &ContainerName) -> PathBuf {
        self.store.root().join("containers/names").join(name.as_str())
    }

    /// Makes a container visible: takes the wanted name for it, or a random one that is free, writes the record into
    /// the staged directory and renames that to its place.
    ///
    /// # Errors
    /// [`RunError::NameInUse`].
    pub(super) fn publish(
        &self,
        staged: &Path,
        mut record: Record,
        wanted: Option<&ContainerName>,
    ) -> Result<Record, RunError> {
        let names = self.store.root().join("containers/names");
        match std::fs::DirBuilder::new().mode(0o700).create(&names) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                return Err(StoreError::io("make the directory", &names)(e).into());
            }
            _ => {}
        }
        let _alone = self.lock_names()?;
        record.name = loop {
            let name = wanted.map_or_else(ContainerName::random, |name| Ok(name.clone()))?;
            match self.owner_of(&name)? {
                None => break name,
                Some(by) if wanted.is_some() => {
                    return Err(RunError::NameInUse { name: name.to_string(), by: by.short().to_owned() });
                }
                Some(_) => {}
            }
        };
        let config = staged.join("config.json");
        std::fs::write(&config, to_json(&record)?).map_err(StoreError::io("write", &config))?;
        // one that goes with its process is gone after a power cut anyway
        let durable = !record.auto_remove;
        if durable {
            let synced = File::open(&config).and_then(|file| file.sync_all());
            synced.map_err(StoreError::io("write", &config))?;
        }
        fault::point("container.record_written");
        self.link_name(&record.name, &record.id)?;
        fault::point("container.name_taken");
        let dir = self.dir(&record.id);
        std::fs::rename(staged, &dir).map_err(StoreError::io("publish", &dir))?;
        fault::point("container.renamed");
        if durable {
            self.store.sync_dir("containers/names")?;
            self.store.sync_dir("containers")?;
        }
        Ok(record)
    }

    fn lock_names(&self) -> Result<Lock, RunError> {
        Ok(self.store.lock("container-names", LockKind::Exclusive)?)
    }

    fn link_name(&self, name: &ContainerName, id: &ContainerId) -> Result<(), RunError> {
        let path = self.name_path(name);
        Ok(std::os::unix::fs::symlink(id.as_str(), &path).map_err(StoreError::io("make the name", &path))?)
    }

    /// Gives whose a name is; one that is nobody's any more is free afterwards. Only under the lock of names.
    fn owner_of(&self, name: &ContainerName) -> Result<Option<ContainerId>, RunError> {
        let path = self.name_path(name);
        let Ok(target) = std::fs::read_link(&path) else { return Ok(None) };
        if let Some(id) = target.to_str().and_then(|id| id.parse::<ContainerId>().ok())
            && self.get(&id)?.is_some_and(|owner| owner.record.name == *name)
        {
            return Ok(Some(id));
        }
        std::fs::remove_file(&path).map_err(StoreError::io("free the name", &path))?;
        Ok(None)
    }

    /// Takes the lock of a container, which its monitor holds as long as it lives; `None` when somebody has it.
    pub(super) fn try_lock(&self, id: &ContainerId) -> Result<Option<Lock>, RunError> {
        let path = self.dir(id).join("lock");
        let file =
            File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = match file {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(RunError::NoContainer(id.short().to_owned()));
            }
            Err(e) => return Err(StoreError::io("open the lock", &path)(e).into()),
        };
        Ok(Lock::on(file, LockKind::Exclusive).map_err(StoreError::io("lock", &path))?)
    }

    /// Says whether a command has just made a container and is about to start it.
    pub fn is_starting(&self, id: &ContainerId) -> bool {
        let path = self.dir(id).join(STARTING);
        path.exists() && !fsutil::is_unlocked(&path)
    }

    /// Writes what a container was made with.
    pub(super) fn save_record(&self, record: &Record) -> Result<(), RunError> {
        let durable = !record.auto_remove;
        Ok(self.store.write_atomic(&Self::rel(&record.id, "config.json"), &to_json(record)?, durable)?)
    }

    /// Keeps a changed record.
    pub fn update(&self, record: &Record) -> Result<(), RunError> {
        self.save_record(record)
    }

    /// Writes what a container is now. Only for whoever holds its lock.
    ///
    /// Only an end has to survive a power cut: whatever else the file says then, the container does not run.
    pub(super) fn save_state(&self, record: &Record, state: &State) -> Result<(), RunError> {
        let durable = state.status == Status::Exited && !record.auto_remove;
        Ok(self.store.write_atomic(&Self::rel(&record.id, "state.json"), &to_json(state)?, durable)?)
    }

    /// Lists the containers that `system boot` starts: by their policy they run always, or until their user stops
    /// them; they ran once, and nobody has started or ended them since the machine came up.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn due_at_boot(&self) -> Result<Vec<Container>, RunError> {
        let now = boot::id();
        let mut all = self.list()?;
        all.retain(|container| {
            let state = &container.state;
            let wanted = container.record.restart.at_boot(state.stopped_by_user);
            wanted && state.started != 0 && state.status.can_start() && state.boot != now
        });
        all.reverse();
        Ok(all)
    }

    /// Notes that a container was stopped because the machine goes down, so that `system boot` starts it again.
    ///
    /// # Errors
    /// The state cannot be written.
    pub fn shut_down(&self, id: &ContainerId) -> Result<(), RunError> {
        let Some(_lock) = self.try_lock(id)? else { return Ok(()) };
        let Some(container) = self.get_unhealed(id)? else { return Ok(()) };
        let state = State { stopped_by_user: false, boot: String::new(), ..container.state };
        self.save_state(&container.record, &state)
    }

    /// Gives a container another name.
    ///
    /// # Errors
    /// [`RunError::NameInUse`].
    pub fn rename(&self, container: &Container, name: &ContainerName) -> Result<(), RunError> {
        let id = &container.record.id;
        let _alone = self.lock_names()?;
        if let Some(by) = self.owner_of(name)? {
            return Err(RunError::NameInUse { name: name.to_string(), by: by.short().to_owned() });
        }
        self.link_name(name, id)?;
        self.save_record(&Record { name: name.clone(), ..container.record.clone() })?;
        let _ = std::fs::remove_file(self.name_path(&container.record.name));
        Ok(())
    }

    /// Keeps which networks a container shall be in from its next start on.
    pub fn set_network(&self, container: &Container, network: NetworkRequest) -> Result<(), RunError> {
        let _alone = self.lock_names()?;
        // read again: its name may have changed meanwhile
        let now = self.read::<Record>(&container.record.id, "config.json")?;
        self.save_record(&Record { network, ..now.unwrap_or_else(|| container.record.clone()) })
    }

    /// Removes a container that does not run: its files and its name, with `volumes` also the volumes that were
    /// made for it alone.
    ///
    /// # Errors
    /// [`RunError::Running`] when it lives.
    pub fn remove(&self, container: &mut Container, volumes: bool) -> Result<(), RunError> {
        let Some(lock) = self.try_lock(&container.record.id)? else {
            return Err(RunError::Running(container.record.name.to_string()));
        };
        self.remove_locked(container, volumes, lock)
    }

    /// The same for the holder of its lock.
    pub(super) fn remove_locked(
        &self,
        container: &mut Container,
        volumes: bool,
        lock: Lock,
    ) -> Result<(), RunError> {
        if container.state.status != Status::Removing {
            container.state.status = Status::Removing;
            self.save_state(&container.record, &container.state)?;
        }
        fault::point("container.before_remove");
        super::network::forget(self, &container.record);
        fault::point("container.network_left");
        if volumes {
            super::mounts::remove_anonymous(&self.store, &container.record.mounts);
        }
        self.remove_files(container, lock)
    }

    fn remove_files(&self, container: &Container, lock: Lock) -> Result<(), RunError> {
        let dir = &container.dir;
        // by a rename, so that nobody sees half of it; what a kill leaves in tmp/ is swept
        let grave = self.store.temp_dir("container")?;
        let _ = std::fs::remove_file(self.name_path(&container.record.name));
        fault::point("container.name_free");
        std::fs::rename(dir, grave.path().join("gone")).map_err(StoreError::io("remove", dir))?;
        fault::point("container.buried");
        drop(lock);
        let path = grave.path().join("gone");
        fsutil::remove_tree(&path).map_err(StoreError::io("remove", &path))?;
        Ok(())
    }
}

/// Held by a command that has made a container to start it.
const STARTING: &str = "starting";

/// Says in a container's directory that it is about to be started, until what is given is dropped.
pub(super) fn hold_starting(dir: &Path) -> Result<Option<Lock>, RunError> {
    let path = dir.join(STARTING);
    let file = File::options().write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = file.map_err(StoreError::io("make", &path))?;
    Ok(Lock::on(file, LockKind::Exclusive).map_err(StoreError::io("lock", &path))?)
}

fn parse<T: serde::de::DeserializeOwned>(id: &ContainerId, file: &str, bytes: &[u8]) -> Result<T, RunError> {
    serde_json::from_slice(bytes).map_err(|e| RunError::Damaged {
        id: id.short().to_owned(),
        file: file.to_owned(),
        why: e.to_string(),
    })
}

fn to_json<T: serde::Serialize>(what: &T) -> Result<Vec<u8>, RunError> {
    serde_json::to_vec(what).map_err(|e| RunError::io("write the container's record")(io::Error::from(e)))
}

impl Container {
    /// Gives the first process if it is still the one that was started.
    pub fn live_pid(&self) -> Option<u32> {
        let state = &self.state;
        (state.status.has_process() && state.pid != 0 && start_time(state.pid) == Some(state.pid_start))
            .then_some(state.pid)
    }

    /// Gives the file that its output goes to.
    pub fn log_path(&self) -> PathBuf {
        self.dir.join(format!("{}-json.log", self.record.id))
    }
}
