//! What limits come to in the files of the kernel: one setting a file, for version 1 and version 2.

use crate::sandbox::error::SandboxError;
use crate::sandbox::spec::{DeviceLimitKind, Limits, RareLimits};

/// Length of a period of processor time in microseconds, the kernel's default.
const PERIOD: u64 = 100_000;

pub(super) const RT_RUNTIME: &str = "cpu.rt_runtime_us";

/// One file to write in the directory of one controller.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) controller: &'static str,
    pub(super) what: &'static str,
    /// File and value for version 1 and version 2; `None` where that version has no such setting.
    pub(super) one: Option<(&'static str, String)>,
    pub(super) two: Option<(&'static str, String)>,
    /// Nobody has asked for it: it is left out where the kernel does not know it.
    pub(super) implied: bool,
}

impl Setting {
    /// The value for version 1 as a number; `None` is no limit.
    pub(super) fn clone_value(&self) -> Option<u64> {
        self.one.as_ref().and_then(|(_, value)| value.parse().ok())
    }
}

/// Adds the settings for what is seldom asked for.
fn rare_settings(rare: &RareLimits, out: &mut Vec<Setting>) -> Result<(), SandboxError> {
    let mut set =
        |controller, what, one: Option<(&'static str, String)>, two: Option<(&'static str, String)>| {
            out.push(Setting { controller, what, implied: false, one, two });
        };
    if let Some(swappiness) = rare.swappiness {
        set("memory", "the readiness to swap", Some(("memory.swappiness", swappiness.to_string())), None);
    }
    if rare.oom_kill_disable {
        set("memory", "the killer of processes", Some(("memory.oom_control", "1".into())), None);
    }
    let time = "processor time";
    if let Some(period) = rare.cpu_period {
        let quota = rare.cpu_quota.map_or("max".to_owned(), |quota| quota.to_string());
        let two = Some(("cpu.max", format!("{quota} {period}")));
        set("cpu", time, Some(("cpu.cfs_period_us", period.to_string())), two);
    }
    if let Some(quota) = rare.cpu_quota {
        let two = rare.cpu_period.is_none().then(|| ("cpu.max", quota.to_string()));
        set("cpu", time, Some(("cpu.cfs_quota_us", quota.to_string())), two);
    }
    for (file, value) in [("cpu.rt_period_us", rare.cpu_rt_period), (RT_RUNTIME, rare.cpu_rt_runtime)] {
        if let Some(value) = value {
            set("cpu", "real-time processor time", Some((file, value.to_string())), None);
        }
    }
    if let Some(weight) = rare.blkio_weight {
        set(
            "blkio",
            "the weight at disks",
            Some(("blkio.weight", weight.to_string())),
            Some(("io.weight", spread(weight).to_string())),
        );
    }
    for limit in &rare.devices {
        let what = "the use of a disk";
        let stat = rustix::fs::stat(&limit.path)
            .map_err(|e| SandboxError::Limit { what, why: format!("stat {}: {e}", limit.path.display()) })?;
        let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
        let (one, two, value) = match limit.kind {
            DeviceLimitKind::Weight => ("blkio.weight_device", "", spread(limit.value)),
            DeviceLimitKind::ReadBps => ("blkio.throttle.read_bps_device", "rbps=", limit.value),
            DeviceLimitKind::WriteBps => ("blkio.throttle.write_bps_device", "wbps=", limit.value),
            DeviceLimitKind::ReadIops => ("blkio.throttle.read_iops_device", "riops=", limit.value),
            DeviceLimitKind::WriteIops => ("blkio.throttle.write_iops_device", "wiops=", limit.value),
        };
        let file = if two.is_empty() { "io.weight" } else { "io.max" };
        let of_one = format!("{major}:{minor} {}", limit.value);
        set("blkio", what, Some((one, of_one)), Some((file, format!("{major}:{minor} {two}{value}"))));
    }
    Ok(())
}

/// Maps 10..1000 onto 1..10000 as container runtimes do.
fn spread(weight: u64) -> u64 {
    1 + weight.saturating_sub(10) * 9999 / 990
}

/// What to write where. `fresh` adds what docker takes for granted in a new container.
pub(super) fn settings(limits: &Limits, fresh: bool) -> Result<Vec<Setting>, SandboxError> {
    let mut out = Vec::new();
    let mut set =
        |controller, what, one: Option<(&'static str, String)>, two: Option<(&'static str, String)>| {
            out.push(Setting { controller, what, one, two, implied: false });
        };
    let bytes = |n: u64| {
        if n == u64::MAX { ("-1".to_owned(), "max".to_owned()) } else { (n.to_string(), n.to_string()) }
    };
    if let Some(memory) = limits.memory {
        let (one, two) = bytes(memory);
        set("memory", "memory", Some(("memory.limit_in_bytes", one)), Some(("memory.max", two)));
    }
    if let Some(both) = limits.memory_swap {
        // Version 1 counts memory and swap together as docker does, version 2 swap alone.
        let swap = if both == u64::MAX { both } else { both.saturating_sub(limits.memory.unwrap_or(0)) };
        let (one, two) = (bytes(both).0, bytes(swap).1);
        set("memory", "swap", Some(("memory.memsw.limit_in_bytes", one)), Some(("memory.swap.max", two)));
    }
    let implied_swap = limits.memory.filter(|_| fresh && limits.memory_swap.is_none());
    if let Some(soft) = limits.memory_reservation {
        let (one, two) = bytes(soft);
        set(
            "memory",
            "the memory reservation",
            Some(("memory.soft_limit_in_bytes", one)),
            Some(("memory.low", two)),
        );
    }
    if let Some(millis) = limits.cpu_millis {
        let quota = millis * PERIOD / 1000;
        let two = Some(("cpu.max", format!("{quota} {PERIOD}")));
        set("cpu", "processor time", Some(("cpu.cfs_quota_us", quota.to_string())), two);
    }
    if let Some(shares) = limits.cpu_shares {
        // The range 2..262144 is mapped onto 1..10000 as container runtimes do.
        let weight = 1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142;
        set(
            "cpu",
            "processor shares",
            Some(("cpu.shares", shares.to_string())),
            Some(("cpu.weight", weight.to_string())),
        );
    }
    if let Some(cpus) = &limits.cpuset_cpus {
        let value = || Some(("cpuset.cpus", cpus.clone()));
        set("cpuset", "the set of processors", value(), value());
    }
    if let Some(nodes) = &limits.cpuset_mems {
        let value = || Some(("cpuset.mems", nodes.clone()));
        set("cpuset", "the set of memory nodes", value(), value());
    }
    if let Some(pids) = limits.pids {
        let value = || Some(("pids.max", bytes(pids).1));
        set("pids", "the number of processes", value(), value());
    }
    if let Some(memory) = implied_swap {
        // as much swap as memory; version 1 is left as it is, where the memory could not be raised later
        let two = Some(("memory.swap.max", bytes(memory).1));
        out.push(Setting { controller: "memory", what: "swap", one: None, two, implied: true });
    }
    rare_settings(&limits.rare, &mut out)?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::spec::DeviceLimit;

    #[test]
    fn limits_become_files_of_both_versions() {
        let limits = Limits {
            memory: Some(64 << 20),
            memory_swap: Some(96 << 20),
            cpu_millis: Some(1500),
            cpu_shares: Some(1024),
            pids: Some(100),
            ..Limits::default()
        };
        let files: Vec<_> = settings(&limits, true).unwrap().into_iter().filter_map(|s| s.two).collect();
        let want = [
            ("memory.max", "67108864"),
            ("memory.swap.max", "33554432"),
            ("cpu.max", "150000 100000"),
            ("cpu.weight", "39"),
            ("pids.max", "100"),
        ];
        assert_eq!(files, want.map(|(f, v)| (f, v.to_owned())));
        let one = settings(&Limits { memory: Some(u64::MAX), ..Limits::default() }, true).unwrap();
        assert_eq!(one[0].one, Some(("memory.limit_in_bytes", "-1".to_owned())));
    }

    #[test]
    fn swap_is_as_much_as_memory_when_nothing_is_said() {
        let limits = Limits { memory: Some(64 << 20), ..Limits::default() };
        let swap = |fresh| settings(&limits, fresh).unwrap().into_iter().find(|set| set.what == "swap");
        assert_eq!(swap(true).unwrap().two, Some(("memory.swap.max", "67108864".to_owned())));
        assert!(swap(true).unwrap().implied && swap(false).is_none());
    }

    #[test]
    fn rare_limits_become_files_of_both_versions() {
        let disk = |kind, value| DeviceLimit { kind, path: "/dev/null".into(), value };
        let rare = RareLimits {
            swappiness: Some(0),
            oom_kill_disable: true,
            cpu_period: Some(50_000),
            cpu_quota: Some(25_000),
            cpu_rt_runtime: Some(1000),
            blkio_weight: Some(1000),
            devices: vec![disk(DeviceLimitKind::Weight, 10), disk(DeviceLimitKind::WriteIops, 7)],
            ..RareLimits::default()
        };
        let all = settings(&Limits { rare, ..Limits::default() }, true).unwrap();
        let one: Vec<String> =
            all.iter().filter_map(|s| s.one.as_ref()).map(|(f, v)| format!("{f}={v}")).collect();
        let two: Vec<String> =
            all.iter().filter_map(|s| s.two.as_ref()).map(|(f, v)| format!("{f}={v}")).collect();
        assert_eq!(
            one,
            [
                "memory.swappiness=0",
                "memory.oom_control=1",
                "cpu.cfs_period_us=50000",
                "cpu.cfs_quota_us=25000",
                "cpu.rt_runtime_us=1000",
                "blkio.weight=1000",
                "blkio.weight_device=1:3 10",
                "blkio.throttle.write_iops_device=1:3 7"
            ]
        );
        assert_eq!(two, ["cpu.max=25000 50000", "io.weight=10000", "io.weight=1:3 1", "io.max=1:3 wiops=7"]);
        let rare = RareLimits {
            devices: vec![DeviceLimit { kind: DeviceLimitKind::ReadBps, path: "/no/such".into(), value: 1 }],
            ..RareLimits::default()
        };
        assert!(
            settings(&Limits { rare, ..Limits::default() }, true)
                .unwrap_err()
                .to_string()
                .contains("stat /no/such")
        );
    }
}
