//! The flags of `run` and `create` that are about mounts.

use super::CliError;
use crate::runtime::{RunError, VolumeRequest, volume};
use clap::Args;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

/// Volumes, directories of the host and memory file systems.
#[derive(Debug, Args)]
pub(super) struct VolumeFlags {
    /// Mount a directory of the host or a named volume
    #[arg(short, long, value_name = "[SOURCE:]TARGET[:OPTIONS]")]
    volume: Vec<OsString>,
    /// Mount, in the long form: type=bind|volume|tmpfs|image,source=...,target=...[,readonly]
    #[arg(long, value_name = "SPEC")]
    mount: Vec<OsString>,
    /// Mount an empty memory file system
    #[arg(long, value_name = "TARGET[:OPTIONS]")]
    tmpfs: Vec<OsString>,
}

impl VolumeFlags {
    /// Reads all of them.
    pub(super) fn requests(&self) -> Result<Vec<VolumeRequest>, CliError> {
        if self.volume.is_empty() && self.mount.is_empty() && self.tmpfs.is_empty() {
            return Ok(Vec::new());
        }
        let cwd = std::env::current_dir()
            .map_err(|e| CliError::new(format!("cannot find the working directory: {e}")))?;
        if self.volume.iter().any(|text| volume::wants_label(text.as_bytes()))
            && super::values::selinux_enforces()
        {
            super::talk(
                "warning: nothing is relabelled for SELinux (z, Z): use `chcon -Rt container_file_t DIR`\n",
            );
        }
        let volumes = self.volume.iter().map(|text| volume::parse_volume(text.as_bytes(), &cwd));
        let mounts = self.mount.iter().map(|text| volume::parse_mount(text.as_bytes(), &cwd));
        let tmpfs = self.tmpfs.iter().map(|text| volume::parse_tmpfs(text.as_bytes()));
        let all: Result<Vec<_>, RunError> = volumes.chain(mounts).chain(tmpfs).collect();
        Ok(all?)
    }
}
