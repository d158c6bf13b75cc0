//! What starting a step costs: namespaces, overlay, a shell, and its end. Needs root and a static busybox.

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use rbuild::sandbox::{Launcher, Network, ProcessSpec, Rootfs, SandboxSpec, Status, Stdio};
use std::io::Write;
use std::path::Path;

const BUSYBOX: &str = "/bin/busybox";

fn base(root: &Path) {
    for name in ["bin", "etc", "tmp", "proc", "dev", "sys"] {
        std::fs::create_dir_all(root.join("base").join(name)).expect("a directory in the temp directory");
    }
    std::fs::copy(BUSYBOX, root.join("base/bin/busybox")).expect("busybox can be copied");
    std::os::unix::fs::symlink("busybox", root.join("base/bin/sh")).expect("a new link");
}

fn step(base: &Path, dir: &Path) -> SandboxSpec {
    for name in ["upper", "work"] {
        std::fs::create_dir(dir.join(name)).expect("a directory in the temp directory");
    }
    let rootfs = Rootfs::Overlay {
        lowers: vec![base.join("base")],
        upper: dir.join("upper"),
        work: dir.join("work"),
        volatile: true,
    };
    let mut spec = SandboxSpec::new(rootfs, ProcessSpec::new(["/bin/sh", "-c", "echo 1 > /f"]));
    spec.network = Network::Host;
    spec
}

fn spawn(c: &mut Criterion) {
    if !rustix::process::geteuid().is_root() || !Path::new(BUSYBOX).exists() {
        // criterion has no word for a bench that cannot run
        let _ = writeln!(std::io::stderr(), "skipped: starting steps needs root and {BUSYBOX}");
        return;
    }
    let dir = tempfile::tempdir().expect("a temp directory");
    base(dir.path());
    let launcher = Launcher::start_program(Path::new(env!("CARGO_BIN_EXE_rbuild")), &[]).expect("a helper");
    c.bench_function("start a step and wait for it", |b| {
        let make = || {
            let own = tempfile::tempdir_in(dir.path()).expect("a temp directory");
            let spec = step(dir.path(), own.path());
            (own, spec)
        };
        let run = |(own, spec): (tempfile::TempDir, SandboxSpec)| {
            let stdio = Stdio::null().expect("/dev/null opens");
            let exit =
                launcher.spawn(&spec, stdio).and_then(|mut running| running.wait()).expect("it starts");
            assert_eq!(exit.status, Status::Code(0));
            own
        };
        b.iter_batched(make, run, BatchSize::PerIteration)
    });
}

criterion_group!(benches, spawn);
criterion_main!(benches);
