//! The flags of `run` and `create` for limits that are seldom asked for. What this machine cannot do is left out with a
//! warning, as docker does.

use super::on;
use crate::cli::{CliError, values};
use crate::sandbox::{DeviceLimit, DeviceLimitKind, Limits, RareLimits, discard_unsupported};
use clap::Args;

/// Disks, swapping, real time.
#[derive(Debug, Args)]
pub(super) struct RareFlags {
    /// Readiness to swap, 0 to 100; -1 is the machine's
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    memory_swappiness: Option<i64>,
    /// Let what runs out of memory wait, and kill nothing
    #[arg(long, require_equals = true, value_name = "BOOL", hide_possible_values = true)]
    oom_kill_disable: Option<Option<bool>>,
    /// Length of a period of real-time processor time in microseconds
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true)]
    cpu_rt_period: Option<i64>,
    /// Real-time processor time in a period in microseconds
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true)]
    cpu_rt_runtime: Option<i64>,
    /// Weight at the disks against other containers, 10 to 1000
    #[arg(long, value_name = "N")]
    blkio_weight: Option<u16>,
    /// The same at one disk
    #[arg(long, value_name = "DEVICE:N")]
    blkio_weight_device: Vec<String>,
    /// Most bytes to read a second at a disk, for example /dev/sda:1mb
    #[arg(long, value_name = "DEVICE:BYTES")]
    device_read_bps: Vec<String>,
    /// Most bytes to write a second at a disk
    #[arg(long, value_name = "DEVICE:BYTES")]
    device_write_bps: Vec<String>,
    /// Most reads a second at a disk
    #[arg(long, value_name = "DEVICE:N")]
    device_read_iops: Vec<String>,
    /// Most writes a second at a disk
    #[arg(long, value_name = "DEVICE:N")]
    device_write_iops: Vec<String>,
    /// No longer a limit of the kernel
    #[arg(long, hide = true, value_name = "BYTES")]
    kernel_memory: Option<String>,
}

impl RareFlags {
    /// Reads all of them, and the period and quota of processor time with them.
    pub(super) fn limits(
        &self,
        cpus: bool,
        period: Option<u64>,
        quota: Option<i64>,
    ) -> Result<RareLimits, CliError> {
        if self.kernel_memory.is_some() {
            crate::cli::talk(
                "Flag --kernel-memory has been deprecated, and no longer supported by the kernel\n",
            );
        }
        let mut out = processor_time(cpus, period, quota)?;
        out.swappiness = match self.memory_swappiness {
            None | Some(-1) => None,
            Some(n @ 0..=100) => u64::try_from(n).ok(),
            Some(n) => {
                return Err(CliError::new(format!(
                    "invalid value: {n}. Valid memory swappiness range is 0-100"
                )));
            }
        };
        out.oom_kill_disable = on(self.oom_kill_disable);
        out.cpu_rt_period = positive(self.cpu_rt_period);
        out.cpu_rt_runtime = positive(self.cpu_rt_runtime);
        out.blkio_weight = self.blkio_weight.filter(|weight| *weight > 0).map(u64::from);
        for (kind, given) in [
            (DeviceLimitKind::Weight, &self.blkio_weight_device),
            (DeviceLimitKind::ReadBps, &self.device_read_bps),
            (DeviceLimitKind::WriteBps, &self.device_write_bps),
            (DeviceLimitKind::ReadIops, &self.device_read_iops),
            (DeviceLimitKind::WriteIops, &self.device_write_iops),
        ] {
            for text in given {
                out.devices.extend(at_device(kind, text)?);
            }
        }
        Ok(out)
    }
}

fn positive(number: Option<i64>) -> Option<u64> {
    number.and_then(|number| u64::try_from(number).ok()).filter(|number| *number > 0)
}

/// Reads `--cpu-period` and `--cpu-quota`; 0 and less is none.
pub(in crate::cli) fn processor_time(
    cpus: bool,
    period: Option<u64>,
    quota: Option<i64>,
) -> Result<RareLimits, CliError> {
    let (cpu_period, cpu_quota) = (period.filter(|period| *period > 0), positive(quota));
    let clash = |other: &str| {
        let text = format!("conflicting options: Nano CPUs and {other} cannot both be set");
        Err(CliError::new(text).hint("use --cpus alone"))
    };
    match (cpu_period, cpu_quota) {
        (Some(_), _) if cpus => clash("CPU Period"),
        (_, Some(_)) if cpus => clash("CPU Quota"),
        (Some(period), _) if !(1000..=1_000_000).contains(&period) => Err(CliError::new(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
        )),
        (_, Some(quota)) if quota < 1000 => {
            Err(CliError::new("CPU cfs quota can not be less than 1ms (i.e. 1000)"))
        }
        _ => Ok(RareLimits { cpu_period, cpu_quota, ..RareLimits::default() }),
    }
}

/// Reads `DEVICE:NUMBER`; a weight of 0 is none.
fn at_device(kind: DeviceLimitKind, text: &str) -> Result<Option<DeviceLimit>, CliError> {
    let (path, number) = text
        .split_once(':')
        .filter(|(path, _)| !path.is_empty())
        .ok_or_else(|| CliError::new(format!("bad format: {text}")))?;
    if !path.starts_with("/dev/") {
        return Err(CliError::new(format!("bad format for device path: {text}")));
    }
    let rate = |unit: &str| {
        CliError::new(format!(
            "invalid rate for device: {text}. The correct format is <device-path>:<number>{unit}"
        ))
    };
    let value = match kind {
        DeviceLimitKind::Weight => number
            .parse()
            .ok()
            .filter(|weight| *weight == 0 || (10..=1000).contains(weight))
            .ok_or_else(|| CliError::new(format!("invalid weight for device: {text}")))?,
        DeviceLimitKind::ReadBps | DeviceLimitKind::WriteBps => values::bytes("", number).map_err(|_| {
            rate("[<unit>]. Number must be a positive integer. Unit is optional and can be kb, mb, or gb")
        })?,
        DeviceLimitKind::ReadIops | DeviceLimitKind::WriteIops => {
            number.parse().map_err(|_| rate(". Number must be a positive integer"))?
        }
    };
    let wanted = value > 0 || kind != DeviceLimitKind::Weight;
    Ok(wanted.then(|| DeviceLimit { kind, path: path.into(), value }))
}

/// Leaves out what this machine cannot do, says so, and checks what is left.
pub(in crate::cli) fn settle(limits: &mut Limits) -> Result<(), CliError> {
    for warning in discard_unsupported(limits) {
        crate::cli::talk(&format!("WARNING: {warning}\n"));
    }
    match limits.rare.blkio_weight {
        Some(weight) if !(10..=1000).contains(&weight) => {
            Err(CliError::new("Range of blkio weight is from 10 to 1000"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_at_disks() {
        use DeviceLimitKind::{ReadBps, Weight, WriteIops};
        let value = |kind, text: &str| at_device(kind, text).map(|limit| limit.map(|limit| limit.value));
        assert_eq!(value(Weight, "/dev/sda:500").unwrap(), Some(500));
        assert_eq!(value(Weight, "/dev/sda:0").unwrap(), None);
        assert_eq!(value(ReadBps, "/dev/sda:1mb").unwrap(), Some(1 << 20));
        assert_eq!(value(WriteIops, "/dev/sda:100").unwrap(), Some(100));
        for (kind, text, why) in [
            (Weight, "/dev/sda", "bad format: /dev/sda"),
            (Weight, "sda:5", "bad format for device path: sda:5"),
            (Weight, "/dev/sda:5", "invalid weight for device: /dev/sda:5"),
            (Weight, "/dev/sda:1001", "invalid weight for device"),
            (ReadBps, "/dev/sda:x", "Unit is optional and can be kb, mb, or gb"),
            (WriteIops, "/dev/sda:1k", "<device-path>:<number>. Number must be"),
        ] {
            let message = value(kind, text).unwrap_err().message;
            assert!(message.contains(why), "{text}: {message}");
        }
    }

    #[test]
    fn times_are_in_dockers_ranges() {
        assert_eq!(processor_time(true, Some(0), Some(-1)).unwrap(), RareLimits::default());
        let both = processor_time(false, Some(1000), Some(1000)).unwrap();
        assert_eq!((both.cpu_period, both.cpu_quota), (Some(1000), Some(1000)));
        for (cpus, period, quota, why) in [
            (true, Some(5000), None, "Nano CPUs and CPU Period"),
            (true, None, Some(5000), "Nano CPUs and CPU Quota"),
            (false, Some(999), None, "cfs period"),
            (false, Some(1_000_001), None, "cfs period"),
            (false, None, Some(999), "cfs quota"),
        ] {
            let message = processor_time(cpus, period, quota).unwrap_err().message;
            assert!(message.contains(why), "{message}");
        }
    }
}
