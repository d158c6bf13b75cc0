//! Runs a command in a directory as its root file system, in a sandbox and without changing the directory:
//!
//!     sandbox [--repeat N] [--no-network] DIR COMMAND [ARG...]
//!
//! With `--repeat` it prints how long one sandbox takes from spawn to exit. As an ordinary user it goes rootless first.

use rbuild::sandbox::{Launcher, Network, ProcessSpec, Rootfs, SandboxSpec, Stdio, helper_main, rootless};
use std::error::Error;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

fn main() -> ExitCode {
    if let Some(code) = helper_main() {
        return code;
    }
    match run() {
        Ok(code) => ExitCode::from(code as u8),
        Err(e) => {
            let _ = writeln!(std::io::stderr(), "sandbox: {e}");
            ExitCode::from(125)
        }
    }
}

fn run() -> Result<i32, Box<dyn Error>> {
    let state = rootless::enter(false)?;
    let mut args = std::env::args().skip(1).peekable();
    let (mut repeat, mut network) = (1, Network::Host);
    while let Some(flag) = args.next_if(|arg| arg.starts_with("--")) {
        match flag.as_str() {
            "--repeat" => repeat = args.next().ok_or("--repeat takes a number")?.parse()?,
            "--no-network" => network = Network::None,
            "--state" => writeln!(std::io::stdout(), "{state:?}")?,
            other => return Err(format!("unknown flag {other}").into()),
        }
    }
    let base = PathBuf::from(args.next().ok_or("a directory is needed")?);
    let mut process = ProcessSpec::new(args.collect::<Vec<_>>());
    process.env = vec![b"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_vec()];
    let launcher = Launcher::start()?;
    let scratch = base.with_extension(format!("scratch-{}", std::process::id()));
    let mut times = Vec::with_capacity(repeat);
    let mut code = 0;
    for _ in 0..repeat {
        let rootfs = fresh(&base, &scratch)?;
        let mut spec = SandboxSpec::new(rootfs, process.clone());
        spec.network = network.clone();
        let stream = |fd: std::os::fd::BorrowedFd<'_>| fd.try_clone_to_owned();
        let stdio = Stdio {
            stdin: stream(std::io::stdin().as_fd())?,
            stdout: stream(std::io::stdout().as_fd())?,
            stderr: stream(std::io::stderr().as_fd())?,
        };
        let begin = Instant::now();
        let exit = launcher.spawn(&spec, stdio)?.wait()?;
        times.push(begin.elapsed());
        code = exit.status.code();
        exit.exec_error.iter().try_for_each(|text| writeln!(std::io::stderr(), "{text}"))?;
        std::fs::remove_dir_all(&scratch)?;
    }
    if repeat > 1 {
        times.sort();
        let ms = |at: usize| times[at].as_secs_f64() * 1000.0;
        let (low, middle, high) = (ms(0), ms(repeat / 2), ms(repeat - 1));
        writeln!(
            std::io::stderr(),
            "{repeat} sandboxes: least {low:.2} ms, median {middle:.2} ms, most {high:.2} ms"
        )?;
    }
    Ok(code)
}

fn fresh(base: &Path, scratch: &Path) -> std::io::Result<Rootfs> {
    let (upper, work) = (scratch.join("upper"), scratch.join("work"));
    std::fs::create_dir_all(&upper)?;
    std::fs::create_dir_all(&work)?;
    Ok(Rootfs::Overlay { lowers: vec![base.to_owned()], upper, work, volatile: true })
}
