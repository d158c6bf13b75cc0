//! The volumes of a store: `volumes/<name>/_data` with the files, `volumes/<name>/volume.json` with what was said when it
//! was made. A directory without the second file is a plain named volume.
//!
//! Who uses a volume is told by the records of the containers, so it cannot be forgotten and needs no counting.

use super::containers::Containers;
use super::record::MountSource;
use super::volume::VolumeName;
use super::{ContainerId, RunError};
use crate::fault;
use crate::sandbox::{MountKind, Source, TmpfsOptions};
use crate::store::{Lock, LockKind, Store, StoreError};
use crate::sys::fsutil;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

/// More is not read of a description, in bytes.
const LIMIT: u64 = 1 << 20;

/// What is known of a volume beside its files.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct VolumeInfo {
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// When it was made, RFC 3339.
    #[serde(default)]
    pub created: String,
    /// Labels of the user.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// `type`, `device` and `o`: what is mounted in place of its own files.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    /// It was made for one container, and nobody gave it a name.
    #[serde(default)]
    pub anonymous: bool,
}

/// All volumes of a store.
#[derive(Debug, Clone)]
pub struct Volumes {
    store: Store,
}

impl Volumes {
    /// Opens the volumes of a store.
    #[must_use]
    pub fn new(store: &Store) -> Self {
        Self { store: store.clone() }
    }

    /// Gives the directory of a volume's files.
    #[must_use]
    pub fn data(&self, name: &str) -> PathBuf {
        self.store.root().join("volumes").join(name).join("_data")
    }

    /// Makes a volume, with a random name if none is given; one that is there stays as it is.
    ///
    /// # Errors
    /// The options make no sense, or the one that is there has others.
    pub fn create(
        &self,
        name: Option<VolumeName>,
        labels: BTreeMap<String, String>,
        options: BTreeMap<String, String>,
    ) -> Result<VolumeInfo, RunError> {
        let anonymous = name.is_none();
        let name = match name {
            Some(name) => name.as_str().to_owned(),
            None => ContainerId::random()?.to_string(),
        };
        Backing::of(&options).map_err(|why| RunError::Volume { name: name.clone(), why })?;
        let _lock = self.store.lock(&lock_name(&name), LockKind::Exclusive)?;
        if let Some(there) = self.get(&name)? {
            return if options.is_empty() || options == there.options {
                Ok(there)
            } else {
                Err(RunError::Volume { name, why: "it exists already, with other options".into() })
            };
        }
        let info = VolumeInfo { name, created: now(), labels, options, anonymous };
        self.describe(&info)?;
        fault::point("volume.described");
        let data = self.data(&info.name);
        std::fs::DirBuilder::new()
            .mode(0o755)
            .recursive(true)
            .create(&data)
            .map_err(StoreError::io("make the directory", &data))?;
        self.store.sync_dir(&format!("volumes/{}", info.name))?;
        fault::point("volume.made");
        self.event("create", &info.name);
        Ok(info)
    }

    /// Writes down what a volume is that has just been filled.
    pub(super) fn describe_new(
        &self,
        name: &str,
        labels: &BTreeMap<String, String>,
        anonymous: bool,
    ) -> Result<(), RunError> {
        let info = VolumeInfo {
            name: name.to_owned(),
            created: now(),
            labels: labels.clone(),
            anonymous,
            ..VolumeInfo::default()
        };
        self.describe(&info)?;
        self.event("create", name);
        Ok(())
    }

    /// Says what has become of a volume, for `events`.
    fn event(&self, action: &str, name: &str) {
        super::record_other(self.store.root(), "volume", action, name, &[("driver", "local".to_owned())]);
    }

    /// Writes down what a volume is; its directory is made with it.
    pub(super) fn describe(&self, info: &VolumeInfo) -> Result<(), RunError> {
        let text = serde_json::to_vec(info)
            .map_err(|e| RunError::io("describe the volume")(std::io::Error::from(e)))?;
        Ok(self.store.write_atomic(&format!("volumes/{}/volume.json", info.name), &text, true)?)
    }

    /// Gives one by its whole name; `None` when there is none.
    ///
    /// # Errors
    /// The disk's.
    pub fn get(&self, name: &str) -> Result<Option<VolumeInfo>, RunError> {
        if VolumeName::parse(name.as_bytes()).is_none() {
            return Ok(None);
        }
        let text = self.store.read(&format!("volumes/{name}/volume.json"), LIMIT)?;
        let told = text.and_then(|text| serde_json::from_slice::<VolumeInfo>(&text).ok());
        match told {
            Some(info) => Ok(Some(VolumeInfo { name: name.to_owned(), ..info })),
            None if self.data(name).is_dir() => Ok(Some(self.undescribed(name))),
            None => Ok(None),
        }
    }

    /// One that a container made, or an older rbuild.
    fn undescribed(&self, name: &str) -> VolumeInfo {
        let made = std::fs::metadata(self.data(name)).and_then(|m| m.created().or_else(|_| m.modified()));
        let secs =
            made.ok().and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok()).map_or(0, |d| d.as_secs());
        VolumeInfo {
            name: name.to_owned(),
            created: crate::image::format_time(i64::try_from(secs).unwrap_or(0)),
            anonymous: name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit()),
            ..VolumeInfo::default()
        }
    }

    /// Lists them by name.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn list(&self) -> Result<Vec<VolumeInfo>, RunError> {
        let dir = self.store.root().join("volumes");
        let entries = std::fs::read_dir(&dir).map_err(StoreError::io("list", &dir))?;
        let mut names: Vec<String> =
            entries.flatten().filter_map(|e| e.file_name().into_string().ok()).collect();
        names.sort();
        names.iter().filter_map(|name| self.get(name).transpose()).collect()
    }

    /// Says which containers use which volumes: short ids by name.
    ///
    /// # Errors
    /// The containers cannot be listed.
    pub fn users(&self) -> Result<BTreeMap<String, Vec<String>>, RunError> {
        let mut users: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for container in Containers::new(&self.store).list()? {
            for mount in &container.record.mounts {
                if let MountSource::Volume { name, .. } = &mount.source {
                    users.entry(name.clone()).or_default().push(container.record.id.to_string());
                }
            }
        }
        Ok(users)
    }

    /// Removes directories of volumes that a killed command did not get to make.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn sweep(&self) -> Result<(), RunError> {
        let dir = self.store.root().join("volumes");
        for entry in std::fs::read_dir(&dir).map_err(StoreError::io("list", &dir))?.flatten() {
            let Ok(name) = entry.file_name().into_string() else { continue };
            if VolumeName::parse(name.as_bytes()).is_some()
                && let Some(_alone) = self.store.try_lock(&lock_name(&name), LockKind::Exclusive)?
            {
                // one with anything in it stays
                let _ = std::fs::remove_dir(entry.path());
            }
        }
        Ok(())
    }

    /// Removes a volume that no container uses.
    ///
    /// # Errors
    /// [`RunError::NoVolume`], [`RunError::VolumeInUse`].
    pub fn remove(&self, name: &str) -> Result<(), RunError> {
        if self.get(name)?.is_none() {
            return Err(RunError::NoVolume(name.to_owned()));
        }
        // not while a container is made that may want it and is not among the users yet
        let _settled = self.store.lock(TAKING, LockKind::Exclusive)?;
        let _lock = self.store.lock(&lock_name(name), LockKind::Exclusive)?;
        if let Some(by) = self.users()?.remove(name) {
            return Err(RunError::VolumeInUse { name: name.to_owned(), by: by.join(", ") });
        }
        self.destroy(name)
    }

    /// Keeps volumes from being removed while a container is made.
    pub(super) fn hold(&self) -> Result<Lock, RunError> {
        Ok(self.store.lock(TAKING, LockKind::Shared)?)
    }

    /// Takes a volume away, whoever uses it.
    pub(super) fn destroy(&self, name: &str) -> Result<(), RunError> {
        let dir = self.store.root().join("volumes").join(name);
        // by a rename, so that nobody finds half of it; what a kill leaves in tmp/ is swept
        let grave = self.store.temp_dir("volume")?;
        let gone = grave.path().join("gone");
        std::fs::rename(&dir, &gone).map_err(StoreError::io("remove", &dir))?;
        fault::point("volume.buried");
        self.event("destroy", name);
        Ok(fsutil::remove_tree(&gone).map_err(StoreError::io("remove", &gone))?)
    }

    /// Measures what its files take on the disk, in bytes.
    #[must_use]
    pub fn size(&self, name: &str) -> u64 {
        crate::sys::usage::measure(&self.data(name)).unwrap_or(0)
    }

    /// Says what a container sees of a volume, or of a path in it.
    ///
    /// # Errors
    /// There is no such volume.
    pub(super) fn mount(&self, name: &str, subpath: &[u8]) -> Result<MountKind, RunError> {
        let info = self.get(name)?.ok_or_else(|| RunError::NoVolume(name.to_owned()))?;
        let backing =
            Backing::of(&info.options).map_err(|why| RunError::Volume { name: name.to_owned(), why })?;
        Ok(match backing {
            Backing::Own => MountKind::Bind(Source::InDir { root: self.data(name), path: subpath.to_vec() }),
            Backing::Bind(root) if subpath.is_empty() => MountKind::Bind(Source::Host(root)),
            Backing::Bind(root) => MountKind::Bind(Source::InDir { root, path: subpath.to_vec() }),
            Backing::Memory(options) => MountKind::TmpfsWith(options),
        })
    }
}

/// The lock that is shared by those who make containers, from when they look for volumes until they count as users.
const TAKING: &str = "volumes-taking";

fn lock_name(name: &str) -> String {
    format!("volume-{name}")
}

fn now() -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    crate::image::format_time(since.map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(0)))
}

/// What holds the files of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Backing {
    /// Its directory in the store.
    Own,
    /// A directory of the host: `type=none`, `o=bind`, `device=/path`.
    Bind(PathBuf),
    /// Memory: `type=tmpfs`. Each container has its own, since no daemon holds one for all.
    Memory(TmpfsOptions),
}

impl Backing {
    /// Reads the options of the driver `local`.
    fn of(options: &BTreeMap<String, String>) -> Result<Self, String> {
        let known = ["type", "device", "o"];
        if let Some(other) = options.keys().find(|key| !known.contains(&key.as_str())) {
            return Err(format!("invalid option: {other:?}; the driver local takes type, device and o"));
        }
        let option = |key: &str| options.get(key).map(String::as_str).filter(|value| !value.is_empty());
        let (kind, device, flags) = (option("type"), option("device"), option("o").unwrap_or_default());
        let words: Vec<&str> = flags.split(',').map(str::trim).filter(|word| !word.is_empty()).collect();
        let bind = words.iter().any(|word| matches!(*word, "bind" | "rbind"));
        match kind {
            None if options.is_empty() => Ok(Self::Own),
            None | Some("none" | "bind") if bind || kind == Some("bind") => {
                let device = device.ok_or("missing required option: \"device\"")?;
                if !device.starts_with('/') {
                    return Err(format!("device {device:?} is not an absolute path"));
                }
                Ok(Self::Bind(device.into()))
            }
            Some("tmpfs") => memory(&words).map(Self::Memory),
            Some(other) => Err(format!(
                "the type {other:?} cannot be mounted; mount it on the host and use type=none, o=bind, device=PATH"
            )),
            None => Err("missing required option: \"type\"".into()),
        }
    }
}

fn memory(words: &[&str]) -> Result<TmpfsOptions, String> {
    let target = format!("/x:{}", words.join(","));
    match super::volume::parse_tmpfs(target.as_bytes()).map(|request| request.source) {
        Ok(super::VolumeSource::Tmpfs(options)) => Ok(options),
        Ok(_) => Err("these are no options of a memory file system".into()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn options_say_what_holds_the_files() {
        let of = |pairs: &[(&str, &str)]| Backing::of(&options(pairs));
        assert_eq!(of(&[]), Ok(Backing::Own));
        let bind = Ok(Backing::Bind("/srv".into()));
        assert_eq!(of(&[("type", "none"), ("o", "bind"), ("device", "/srv")]), bind);
        assert_eq!(of(&[("o", "rbind,rw"), ("device", "/srv")]), bind);
        let Ok(Backing::Memory(memory)) =
            of(&[("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=1m,uid=5")])
        else {
            panic!("memory")
        };
        assert_eq!((memory.size, memory.uid), (Some(1 << 20), 5));
        for (pairs, why) in [
            (&[("what", "1")][..], "invalid option"),
            (&[("type", "none"), ("o", "bind")], "device"),
            (&[("type", "none"), ("o", "bind"), ("device", "rel")], "absolute"),
            (&[("type", "nfs"), ("device", ":/x")], "cannot be mounted"),
            (&[("device", "/x")], "type"),
            (&[("type", "tmpfs"), ("o", "what=1")], "unknown option"),
        ] {
            let message = of(pairs).unwrap_err();
            assert!(message.contains(why), "{message}");
        }
    }

    #[test]
    fn volumes_are_made_once_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let volumes = Volumes::new(&Store::open(&dir.path().join("store")).unwrap());
        let name = || VolumeName::parse(b"data");
        let made = volumes.create(name(), options(&[("a", "b")]), BTreeMap::new()).unwrap();
        assert_eq!((made.name.as_str(), made.anonymous), ("data", false));
        std::fs::write(volumes.data("data").join("x"), "x").unwrap();
        assert_eq!(volumes.create(name(), BTreeMap::new(), BTreeMap::new()).unwrap(), made);
        let other = options(&[("type", "tmpfs")]);
        assert!(matches!(volumes.create(name(), BTreeMap::new(), other), Err(RunError::Volume { .. })));
        let random = volumes.create(None, BTreeMap::new(), BTreeMap::new()).unwrap();
        assert!(random.anonymous && random.name.len() == 64);
        std::fs::create_dir_all(volumes.data("plain")).unwrap();
        let names: Vec<String> = volumes.list().unwrap().into_iter().map(|v| v.name).collect();
        assert!(names.contains(&"data".into()) && names.contains(&"plain".into()) && names.len() == 3);
        volumes.remove("data").unwrap();
        assert!(matches!(volumes.remove("data"), Err(RunError::NoVolume(_))));
        assert!(matches!(volumes.remove("../data"), Err(RunError::NoVolume(_))));
        assert_eq!(std::fs::read_dir(dir.path().join("store/tmp")).unwrap().count(), 0);
    }
}
