//! `stats`: what containers use of the machine.
//!
//! A container with limits has a cgroup that counts for all its processes; of another one the processes are asked
//! one by one.

use super::{failure, open};
use crate::cli::image_commands::list_with;
use crate::cli::table::table;
use crate::cli::template::Template;
use crate::cli::{CommandResult, Ctx};
use crate::runtime::{Client, Container};
use clap::Args;
use serde_json::{Value, json};
use std::fs;
use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// `stats`.
#[derive(Debug, Args)]
pub(in crate::cli) struct StatsArgs {
    /// Names, ids or beginnings of ids [default: all that run]
    #[arg(value_name = "CONTAINER")]
    names: Vec<String>,
    /// Also those that do not run
    #[arg(short, long)]
    all: bool,
    /// Show one picture, not a film
    #[arg(long)]
    no_stream: bool,
    /// Do not cut ids
    #[arg(long)]
    no_trunc: bool,
    /// Print with a template, as a table, or as json
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

/// What was used until some moment.
#[derive(Debug, Clone, Copy, Default)]
struct Use {
    /// Nanoseconds of processor time.
    cpu: u64,
    memory: u64,
    limit: u64,
    received: u64,
    sent: u64,
    read: u64,
    written: u64,
    pids: u64,
}

const COLUMNS: [&str; 8] = ["ID", "Name", "CPUPerc", "MemUsage", "MemPerc", "NetIO", "BlockIO", "PIDs"];

/// Shows what is used, again and again unless it should not.
pub(in crate::cli) fn run(args: &StatsArgs, ctx: &Ctx) -> CommandResult {
    let containers = open(ctx)?;
    let format = args.format.as_deref().filter(|f| !matches!(*f, "table" | ""));
    let template = format.map(Template::parse).transpose()?;
    loop {
        let shown: Vec<Container> = match args.names.is_empty() {
            true => {
                let all = containers.list().map_err(failure)?;
                all.into_iter().filter(|c| args.all || c.state.status.is_live()).collect()
            }
            false => {
                args.names.iter().map(|n| containers.find(n).map_err(failure)).collect::<Result<_, _>>()?
            }
        };
        let (before, begin) = (shown.iter().map(measure).collect::<Vec<_>>(), Instant::now());
        std::thread::sleep(Duration::from_millis(if args.no_stream { 300 } else { 1000 }));
        let time = begin.elapsed();
        let typed = |at: usize| args.names.get(at).map(String::as_str);
        let rows = shown.iter().zip(before).enumerate();
        let rows = rows.map(|(at, (c, before))| row(c, before, measure(c), time, args.no_trunc, typed(at)));
        let rows: Vec<Value> = rows.collect();
        let text = match &template {
            Some(template) => list_with(template, &rows, &title, "*container.statsContext")?,
            None => {
                let head = COLUMNS.iter().map(|c| title(c)).collect();
                let cells = |row: &Value| {
                    COLUMNS.iter().map(|c| row[*c].as_str().unwrap_or_default().to_owned()).collect()
                };
                table(&std::iter::once(head).chain(rows.iter().map(cells)).collect::<Vec<_>>())
            }
        };
        let clear = !args.no_stream && std::io::stdout().is_terminal();
        ctx.out.text(&if clear { format!("\x1b[2J\x1b[H{text}") } else { text })?;
        if args.no_stream {
            return Ok(ExitCode::SUCCESS);
        }
    }
}

fn title(field: &str) -> String {
    match field {
        "ID" => "CONTAINER ID",
        "CPUPerc" => "CPU %",
        "MemUsage" => "MEM USAGE / LIMIT",
        "MemPerc" => "MEM %",
        "NetIO" => "NET I/O",
        "BlockIO" => "BLOCK I/O",
        other => return other.to_uppercase(),
    }
    .to_owned()
}

fn row(
    container: &Container,
    before: Use,
    now: Use,
    time: Duration,
    whole: bool,
    typed: Option<&str>,
) -> Value {
    let id = if whole { container.record.id.as_str() } else { container.record.id.short() };
    let share = now.cpu.saturating_sub(before.cpu) as f64 / time.as_nanos().max(1) as f64 * 100.0;
    let memory = if now.limit == 0 { 0.0 } else { now.memory as f64 / now.limit as f64 * 100.0 };
    let decimal = crate::cli::table::human_size;
    json!({
        "Container": typed.unwrap_or(id), "ID": id, "Name": container.record.name.as_str(),
        "CPUPerc": format!("{share:.2}%"), "MemPerc": format!("{memory:.2}%"),
        "MemUsage": format!("{} / {}", binary_size(now.memory), binary_size(now.limit)),
        "NetIO": format!("{} / {}", decimal(now.received), decimal(now.sent)),
        "BlockIO": format!("{} / {}", decimal(now.read), decimal(now.written)),
        "PIDs": now.pids.to_string(),
    })
}

/// Writes bytes in powers of 1024 with four digits, as docker writes memory: `1.944MiB`.
fn binary_size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut size, mut unit) = (bytes as f64, 0);
    while size >= 1024.0 && unit + 1 < UNITS.len() {
        (size, unit) = (size / 1024.0, unit + 1);
    }
    let decimals = if size >= 1000.0 || unit == 0 {
        0
    } else if size >= 100.0 {
        1
    } else if size >= 10.0 {
        2
    } else {
        3
    };
    let text = format!("{size:.decimals$}");
    let text =
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text };
    format!("{text}{}", UNITS[unit])
}

fn measure(container: &Container) -> Use {
    let pids = match container.state.status.has_process() {
        true => Client::connect(container).and_then(|client| client.processes()).unwrap_or_default(),
        false => Vec::new(),
    };
    let mut out = Use { pids: pids.len() as u64, ..Use::default() };
    for pid in &pids {
        of_process(*pid, &mut out);
    }
    let mut counted = false;
    for dir in &container.state.cgroups {
        counted |= of_cgroup(dir, &mut out);
    }
    if !pids.is_empty() {
        out.limit = container.record.confinement.limits.memory.unwrap_or_else(all_memory);
    }
    if !counted {
        out.memory = pids.iter().map(|pid| private_memory(*pid)).sum();
    }
    if let Some(first) = pids.first() {
        (out.received, out.sent) = network(*first);
    }
    out
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Takes what the cgroup counts; says whether it counts memory.
fn of_cgroup(dir: &Path, out: &mut Use) -> bool {
    let memory = number(&dir.join("memory.current")).or_else(|| number(&dir.join("memory.usage_in_bytes")));
    out.memory = memory.unwrap_or(out.memory);
    memory.is_some()
}

/// Adds the processor time and the transfers of a process.
fn of_process(pid: u32, out: &mut Use) {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> =
        stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect()).unwrap_or_default();
    let ticks: u64 =
        fields.get(11..13).unwrap_or_default().iter().filter_map(|n| n.parse::<u64>().ok()).sum();
    // a tick is a hundredth of a second on every Linux that people use
    out.cpu += ticks * 10_000_000;
    for line in fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default().lines() {
        match line.split_once(": ") {
            Some(("read_bytes", n)) => out.read += n.parse::<u64>().unwrap_or(0),
            Some(("write_bytes", n)) => out.written += n.parse::<u64>().unwrap_or(0),
            _ => {}
        }
    }
}

/// Gives the memory of a process, shared parts by share where the kernel tells.
fn private_memory(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok();
    let pss = text
        .as_deref()
        .and_then(|text| text.lines().find_map(|line| line.strip_prefix("Pss:")).and_then(kilobytes));
    pss.unwrap_or_else(|| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")).and_then(kilobytes).unwrap_or(0)
    })
}

fn kilobytes(text: &str) -> Option<u64> {
    text.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kb| kb * 1024)
}

/// Gives the bytes of memory of the machine.
pub(in crate::cli) fn all_memory() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    text.lines().find_map(|line| line.strip_prefix("MemTotal:")).and_then(kilobytes).unwrap_or(0)
}

/// Adds up the interfaces of a process's network but the loopback.
fn network(pid: u32) -> (u64, u64) {
    let text = fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default();
    let lines =
        text.lines().skip(2).filter_map(|line| line.split_once(':')).filter(|(name, _)| name.trim() != "lo");
    let counts =
        lines.map(|(_, rest)| rest.split_whitespace().filter_map(|n| n.parse().ok()).collect::<Vec<u64>>());
    counts.fold((0, 0), |(received, sent), n| {
        (received + n.first().copied().unwrap_or(0), sent + n.get(8).copied().unwrap_or(0))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_written_as_docker_does() {
        for (bytes, want) in
            [(0, "0B"), (512, "512B"), (2_038_432, "1.944MiB"), (64 << 20, "64MiB"), (3 << 30, "3GiB")]
        {
            assert_eq!(binary_size(bytes), want);
        }
    }
}
