//! Limits that few machines can set: what this one cannot do is left out with a warning, as docker does, and not an
//! error as with the common ones.

use super::cgroup::{Tree, Version};
use super::spec::{DeviceLimitKind, Limits};

/// Takes out of limits what this machine cannot do, and gives docker's words for each.
#[must_use]
pub fn discard_unsupported(limits: &mut Limits) -> Vec<String> {
    let mut warnings = Vec::new();
    if limits.rare == super::spec::RareLimits::default() {
        return warnings;
    }
    let tree = Tree::read();
    // of version 1 by the file, of version 2 by the controller
    let has = |controller: &str, file: &str, two: Option<&str>| match tree.place(controller) {
        Some((Version::One, dir)) => dir.join(file).exists(),
        Some((Version::Two, _)) => two.is_some(),
        None => two.is_some_and(|name| tree.place(name).is_some_and(|(version, _)| version == Version::Two)),
    };
    let mut warn = |what: &str| warnings.push(what.to_owned());
    let rare = &mut limits.rare;
    if rare.swappiness.is_some() && !has("memory", "memory.swappiness", None) {
        warn(
            "Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. Memory swappiness discarded.",
        );
        rare.swappiness = None;
    }
    if rare.oom_kill_disable && !has("memory", "memory.oom_control", None) {
        warn("Your kernel does not support OomKillDisable. OomKillDisable discarded.");
        rare.oom_kill_disable = false;
    }
    if rare.oom_kill_disable && limits.memory.is_none() {
        warn(
            "OOM killer is disabled for the container, but no memory limit is set, this can result in the system running \
             out of resources.",
        );
    }
    if rare.blkio_weight.is_some() && !has("blkio", "blkio.weight", Some("io")) {
        warn("Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded.");
        rare.blkio_weight = None;
    }
    for kind in DeviceLimitKind::ALL {
        let (file, words) = match kind {
            DeviceLimitKind::Weight => (
                "blkio.weight_device",
                "Block I/O weight_device or the cgroup is not mounted. Weight-device discarded.",
            ),
            DeviceLimitKind::ReadBps => (
                "blkio.throttle.read_bps_device",
                "BPS Block I/O read limit or the cgroup is not mounted. Block I/O BPS read limit discarded.",
            ),
            DeviceLimitKind::WriteBps => (
                "blkio.throttle.write_bps_device",
                "BPS Block I/O write limit or the cgroup is not mounted. Block I/O BPS write limit discarded.",
            ),
            DeviceLimitKind::ReadIops => (
                "blkio.throttle.read_iops_device",
                "IOPS Block read limit or the cgroup is not mounted. Block I/O IOPS read limit discarded.",
            ),
            DeviceLimitKind::WriteIops => (
                "blkio.throttle.write_iops_device",
                "IOPS Block write limit or the cgroup is not mounted. Block I/O IOPS write limit discarded.",
            ),
        };
        let asked = rare.devices.iter().any(|limit| limit.kind == kind);
        if asked && !has("blkio", file, Some("io")) {
            warn(&format!("Your kernel does not support {words}"));
            rare.devices.retain(|limit| limit.kind != kind);
        }
    }
    warnings
}
