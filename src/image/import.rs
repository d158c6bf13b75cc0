//! `import`: a root file system becomes an image of one layer.
//!
//! The layer's tar is written anew from the unpacked tree, so the same tree gives the same image whatever tool made the
//! archive, and no second copy of it is kept.
//!
//! Docker's import leaves the config empty, so that nothing can run without being told what. Here an imported system
//! gets what the official base images have: the standard PATH, and as CMD the shell that is in it, bash before sh.
//! `--change` has the last word.

use super::assemble::{NewLayer, plain_layer};
use super::time::{format_time, now};
use super::{ImageError, Images};
use crate::digest::{ChainId, ImageId, ResultId};
use crate::layer::{self, LayerError, UnpackOptions, decoder};
use crate::oci::{Config, Descriptor, History, ImageConfig, Manifest, RootFs, media_type};
use crate::platform::Platform;
use crate::reference::Reference;
use crate::snapshot::SnapshotMode;
use crate::sys::fsutil;
use std::collections::BTreeMap;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;

/// What Docker gives a process whose image has none.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Where a shell is looked for, and what CMD becomes, best first.
const SHELLS: [(&str, &str); 4] =
    [("/bin/bash", "bash"), ("/usr/bin/bash", "bash"), ("/bin/sh", "sh"), ("/usr/bin/sh", "sh")];

/// Changes a config in place; the error is a text for the user.
pub type ConfigEdit<'a> = &'a dyn Fn(&mut ImageConfig) -> Result<(), String>;

/// What [`Images::import`] needs to know.
pub struct ImportRequest<'a> {
    /// The name; `None` leaves the image without.
    pub name: Option<Reference>,
    /// Comment in the history.
    pub message: String,
    /// What the programs in it are made for; `None` is this machine.
    pub platform: Option<Platform>,
    /// SOURCE_DATE_EPOCH, in seconds.
    pub epoch: Option<i64>,
    /// `--change`: works on the config before it is stored.
    pub edit: Option<ConfigEdit<'a>>,
}

impl Images {
    /// Makes an image of a root file system tar, plain or compressed. Importing the same tree, name and settings again
    /// gives the same image.
    ///
    /// # Errors
    /// The archive is damaged or hostile, an edit fails, or the store cannot be written.
    pub fn import(
        &self,
        tar: Box<dyn Read + Send>,
        request: &ImportRequest<'_>,
    ) -> Result<ImageId, ImageError> {
        let _held = self.hold_blobs()?;
        let layer = self.import_layer(tar, request.epoch)?;
        let mut config = self.import_config(&layer, request)?;
        if let Some(edit) = request.edit {
            edit(&mut config).map_err(ImageError::Assemble)?;
        }
        self.keep_time(&mut config, request);
        let manifest = |config: Descriptor| Manifest {
            schema_version: 2,
            media_type: Some(media_type::MANIFEST.into()),
            config,
            layers: vec![plain_layer(&layer, request.epoch)],
            annotations: Default::default(),
        };
        // there is no blob of which the layer could be made again
        self.store.sync_everything()?;
        self.store_image(&config, manifest, &BTreeMap::new(), request.name.as_slice())
    }

    fn import_layer(&self, tar: Box<dyn Read + Send>, epoch: Option<i64>) -> Result<NewLayer, ImageError> {
        let prepared = self.snapshots.prepare(&ResultId::scratch())?;
        let options = UnpackOptions {
            userxattr: matches!(self.snapshots.mode(), SnapshotMode::Overlay { userxattr: true }),
            chown_ok: fsutil::can_chown(),
            ..UnpackOptions::default()
        };
        let mut tar = decoder(tar).map_err(LayerError::Read)?;
        let diff = layer::unpack(&mut tar, &prepared.upper, &options)?;
        let root =
            fsutil::open_dir(&prepared.upper).map_err(ImageError::io("open", Path::new("the import")))?;
        let open = |path: &crate::tree::TreePath| fsutil::open_regular(root.as_fd(), path.as_os_str());
        let (diff_id, tar_size) = layer::diff_id(&diff, &open, epoch)?;
        let chain = ChainId::push(None, &diff_id);
        let result = self.snapshots.commit_base(prepared, &chain, &diff_id, diff, Some(tar_size), None)?;
        Ok(NewLayer { result, diff_id, tar_size })
    }

    fn import_config(
        &self,
        layer: &NewLayer,
        request: &ImportRequest<'_>,
    ) -> Result<ImageConfig, ImageError> {
        let platform = request.platform.clone().unwrap_or_else(Platform::host);
        let view = self.snapshots.get(&layer.result)?.view();
        let is_there =
            |path: &str| view.resolve(path.as_bytes(), true).is_ok_and(|found| found.entry.is_some());
        let shell = SHELLS.iter().find(|(path, _)| is_there(path));
        let config = Config {
            env: vec![DEFAULT_PATH.to_owned()],
            cmd: shell.map(|(_, name)| vec![(*name).to_owned()]),
            ..Config::default()
        };
        Ok(ImageConfig {
            architecture: platform.architecture,
            os: platform.os,
            variant: platform.variant,
            created: None,
            author: None,
            config,
            rootfs: RootFs { diff_ids: vec![layer.diff_id.clone()], ..RootFs::default() },
            history: vec![History { comment: Some(request.message.clone()), ..History::default() }],
            other: Default::default(),
        })
    }

    /// Dates the image: the epoch, or the time of the image of that name when nothing else differs, or now.
    fn keep_time(&self, config: &mut ImageConfig, request: &ImportRequest<'_>) {
        let before = request.name.as_ref().and_then(|n| self.resolve(&n.to_string()).ok());
        let date = |config: &mut ImageConfig, time: Option<String>| {
            config.history.iter_mut().for_each(|line| line.created = time.clone());
            config.created = time;
        };
        if let Some(before) = before.filter(|_| request.epoch.is_none()) {
            date(config, before.config.created.clone());
            if *config == before.config {
                return;
            }
        }
        date(config, Some(format_time(request.epoch.unwrap_or_else(now))));
    }
}
