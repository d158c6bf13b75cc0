//! Sandboxes on the real kernel: a small busybox root, one process each, and what it can and cannot see.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test may")]

use rbuild::sandbox::{
    CapSet, Exit, Launcher, Limits, MountKind, MountSpec, Network, ProcessSpec, Rlimit, RlimitKind, Rootfs,
    SandboxSpec, Source, Status, Stdio,
};
use std::io::{Read, Seek};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

const BUSYBOX: &str = "/bin/busybox";

/// Root and busybox are needed; a test without them says so and ends.
fn able() -> bool {
    let able = rustix::process::geteuid().is_root() && Path::new(BUSYBOX).exists();
    if !able {
        eprintln!("skipped: needs root and {BUSYBOX}");
    }
    able
}

fn launcher() -> &'static Launcher {
    static LAUNCHER: OnceLock<Launcher> = OnceLock::new();
    LAUNCHER.get_or_init(|| Launcher::start_program(Path::new(env!("CARGO_BIN_EXE_rbuild")), &[]).unwrap())
}

/// A base layer, an upper and a work directory.
struct Bed {
    dir: tempfile::TempDir,
}

impl Bed {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["base/bin", "base/etc", "base/tmp", "base/proc", "base/dev", "base/sys", "upper", "work"]
        {
            std::fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        std::fs::copy(BUSYBOX, dir.path().join("base/bin/busybox")).unwrap();
        let applets = "sh cat ls id env echo sleep kill ps mount mknod touch mkdir rm chmod grep stat wc ip tr true false \
                       pwd hostname dd head readlink nproc unshare test sort tty stty nohup setsid umask";
        for applet in applets.split_whitespace() {
            symlink("busybox", dir.path().join("base/bin").join(applet)).unwrap();
        }
        std::fs::write(
            dir.path().join("base/etc/passwd"),
            "root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/home/app:\n",
        )
        .unwrap();
        std::fs::write(dir.path().join("base/etc/group"), "root:x:0:\napp:x:1001:\nwheel:x:10:app\n")
            .unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn rootfs(&self) -> Rootfs {
        Rootfs::Overlay {
            lowers: vec![self.path("base")],
            upper: self.path("upper"),
            work: self.path("work"),
            volatile: true,
        }
    }

    fn spec(&self, argv: &[&str]) -> SandboxSpec {
        let mut process = ProcessSpec::new(argv.iter().map(|a| a.as_bytes()));
        process.env = vec![b"PATH=/bin".to_vec()];
        let mut spec = SandboxSpec::new(self.rootfs(), process);
        spec.hostname = Some("testhost".into());
        spec.network = Network::Host;
        spec
    }

    fn sh(&self, script: &str) -> SandboxSpec {
        self.spec(&["/bin/sh", "-c", script])
    }

    fn upper_files(&self) -> Vec<String> {
        fn walk(dir: &Path, under: &str, out: &mut Vec<String>) {
            for entry in std::fs::read_dir(dir).unwrap().flatten() {
                let name = format!("{under}{}", entry.file_name().to_string_lossy());
                if entry.file_type().unwrap().is_dir() {
                    walk(&entry.path(), &format!("{name}/"), out);
                }
                out.push(name);
            }
        }
        let mut out = Vec::new();
        walk(&self.path("upper"), "", &mut out);
        out.sort();
        out
    }
}

/// Runs a sandbox to its end and gives what it wrote.
fn run(spec: &SandboxSpec) -> (Exit, String) {
    let mut log = tempfile::tempfile().unwrap();
    let stdio = Stdio::output(log.try_clone().unwrap(), log.try_clone().unwrap()).unwrap();
    let exit = launcher().spawn(spec, stdio).unwrap().wait().unwrap();
    let mut text = String::new();
    log.rewind().unwrap();
    log.read_to_string(&mut text).unwrap();
    (exit, text)
}

fn output(spec: &SandboxSpec) -> String {
    let (exit, text) = run(spec);
    assert_eq!(exit.status, Status::Code(0), "{text}");
    text
}

fn failure(spec: &SandboxSpec) -> String {
    launcher().spawn(spec, Stdio::null().unwrap()).map(|_| ()).unwrap_err().to_string()
}

fn bind(target: &str, root: &Path, path: &str, readonly: bool) -> MountSpec {
    let source = Source::InDir { root: root.to_owned(), path: path.into() };
    MountSpec { target: target.into(), kind: MountKind::Bind(source), readonly }
}

fn file(target: &str, content: &str, mode: u32, uid: u32) -> MountSpec {
    let kind = MountKind::File { content: content.into(), mode, uid, gid: uid };
    MountSpec { target: target.into(), kind, readonly: false }
}

#[test]
fn exit_codes_and_signals_come_back() {
    if !able() {
        return;
    }
    let bed = Bed::new();
    for (script, want) in [
        ("exit 0", Status::Code(0)),
        ("exit 42", Status::Code(42)),
        ("exit 255", Status::Code(255)),
        // A shell that is process 1 cannot be ended by its own signals, SIGKILL included, but its child can.
        ("sh -c 'kill -9 $$'; exit $?", Status::Code(137)),
    ] {
        assert_eq!(run(&bed.sh(script)).0.status, want, "{script}");
    }
    let mut running = launcher().spawn(&bed.sh("sleep 100"), Stdio::null().unwrap()).unwrap();
    assert_eq!(running.wait_timeout(Duration::from_millis(20)).unwrap(), None);
    running.kill().unwrap();
    assert_eq!(running.wait().unwrap().status, Status::Signal(9));
    assert_eq!(running.wait().unwrap().status.code(), 137);
}

#[test]
fn a_program_that_cannot_start_is_127_or_126() {
    if !able() {
        return;
    }
    let bed = Bed::new();
    std::fs::write(bed.path("base/bin/plain"), "text").unwrap();
    std::fs::write(bed.path("base/bin/noint"), "#!/no/such/interpreter\n").unwrap();
    std::fs::write(bed.path("base/bin/junk"), "\x7fELFjunk").unwrap();
    for name in ["noint", "junk"] {
        std::fs::set_permissions(
            bed.path("base/bin").join(name),
            std::os::unix::fs::PermissionsExt::from_mode(0o755),
        )
        .unwrap();
    }
    for (program, code, text) in [
        ("nofoo", 127, "exec: \"nofoo\": executable file not found in $PATH"),
        ("/bin/nofoo", 127, "stat /bin/nofoo: no such file or directory"),
        ("plain", 126, "permission denied"),
        ("/bin/plain", 126, "permission denied"),
        ("/etc", 126, "is a directory"),
        ("/bin/noint", 127, "interpreter"),
        ("noint", 127, "interpreter"),
        ("/bin/junk", 126, "exec format error"),
    ] {
        let (exit, _) = run(&bed.spec(&[program]));
        assert_eq!(exit.status, Status::Code(code), "{program}: {exit:?}");
        assert!(exit.exec_error.as_deref().unwrap_or_default().contains(text), "{program}: {exit:?}");
    }
}

#[test]
fn environment_directory_and_user_are_the_specs() {
    if !able() {
        return;
    }
    let bed = Bed::new();
    let mut spec = bed.sh("pwd; id; env | sort; umask; hostname");
    spec.process.cwd = b"/tmp".to_vec();
    spec.process.env.push(b"A=b c".to_vec());
    spec.process.user = "app".into();
    let text = output(&spec);
    let want = "/tmp\nuid=1000(app) gid=1001(app) groups=10(wheel),1001(app)\nA=b c\nHOME=/home/app\nPATH=/bin\nPWD=/tmp\nSHLVL=1\n\
                0022\ntesthost\n";
    assert_eq!(text, want);

    spec = bed.sh("pwd");
    spec.process.cwd = b"/new/dir".to_vec();
    assert!(failure(&spec).contains("change to the working directory /new/dir"), "{}", failure(&spec));
    spec.process.create_cwd = true;
    assert_eq!(output(&spec), "/new/dir\n");

    spec = bed.sh("id -u");
    spec.process.user = "nobody".into();
    assert!(failure(&spec).contains("unable to find user nobody"), "{}", failure(&spec));
    spec.process.user = "4242:7".into();
    spec.process.argv = ["id"].map(|a| a.as_bytes().to_vec()).to_vec();
    assert_eq!(output(&spec), "uid=4242 gid=7 groups=7\n");
}

#[test]
fn capabilities_filter_and_descriptors_are_dockers() {
    if !able() {
        return;
    }
    let bed = Bed::new();
    let status = |spec: &SandboxSpec| {
        let text = output(spec);
        let get = |key: &str| {
            let line = text.lines().find(|l| l.starts_with(key)).unwrap_or_else(|| panic!("{key} in {text}"));
            line.split_whitespace().nth(1).unwrap().to_owned()
        };
        ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:", "Seccomp:", "NoNewPrivs:"].map(get)
    };
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    let permitted = own.lines().find_map(|l| l.strip_prefix("CapPrm:")).unwrap();
    let permitted = u64::from_str_radix(permitted.trim(), 16).unwrap();
    let hex = |bits: u64| format!("{:016x}", bits & permitted);
    let (none, some) = (hex(0), hex(CapSet::DEFAULT.0));
    let mut spec = bed.spec(&["cat", "/proc/self/status"]);
    assert_eq!(status(&spec), [&none, &some, &some, &some, &none, "2", "0"].map(String::from));
    spec.process.user = "app".into();
    spec.process.no_new_privs = true;
    assert_eq!(status(&spec), [&none, &none, &none, &some, &none, "2", "1"].map(String::from));
    spec.process.user.clear();
    spec.process.seccomp = false;
    spec.process.no_new_privs = false;
    spec.process.capabilities = CapSet::parse("NET_ADMIN").unwrap();
    let admin = hex(1 << 12);
    assert_eq!(status(&spec), [&none, &admin, &admin, &admin, &none, "0", "0"].map(String::from));
    spec.privileged = true;
    assert_eq!(status(&spec)[1], hex(u64::MAX >> 1));

    // ls itself has 3 open; nothing else is.
    assert_eq!(output(&bed.spec(&["ls", "/proc/self/fd"])), "0\n1\n2\n3\n");
    let (exit, text) = run(&bed.sh("unshare -U true"));
    assert!(!exit.status.success() && text.contains("not permitted"), "{text}");
    let (exit, _) = run(&bed.sh("mount -t tmpfs none /tmp"));
    assert!(!exit.status.success());
}

#[test]
fn proc_sys_and_dev_show_what_docker_shows() {
    if !able() {
        return;
    }
    let bed = Bed::new();
    let text = output(&bed.sh(
        "ls /dev; head -c 4 /dev/zero | wc -c; echo x > /dev/null; for f in kcore keys timer_list; do \
         test ! -e /proc/$f || cat /proc/$f; done | wc -c; ls /proc/scsi /sys/firmware 2>/dev/null | \
         grep -v : | wc -w; echo $$; ls /proc | grep -c '^[0-9]'",
    ));
    let mut lines: Vec<_> = text.lines().collect();
    let rest = lines.split_off(lines.len() - 5);
    assert_eq!(
        lines,
        [
            "core", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin",
            "stdout", "tty", "urandom", "zero"
        ]
    );
    assert_eq!(rest[..4], ["4", "0", "0", "1"]);
    assert!(rest[4].parse::<u32>().unwrap() <= 4, "only own processes: {rest:?}");
    for write in ["/proc/sys/kernel/hostname", "/proc/sysrq-trigger", "/sys/kernel/mm/ksm/run", "/sys/x"] {
        let (exit, text) = run(&bed.sh(&format!("echo 1 > {write}")));
        assert!(!exit.status.success(), "{write} is writable: {text}");
    }
    // Root may make nodes but not reach the machine through them.
    for dir in ["/", "/dev", "/tmp"] {
        let (exit, text) = run(
            &bed.sh(&format!("cd {dir}; mknod mem c 1 1 && mknod zero2 c 1 5; head -c 1 zero2; cat mem"))
        );
        // the one where no node can be opened, the other where the kernel guards the devices
        let refused =
            text.contains("mem': Permission denied") || text.contains("mem': Operation not permitted");
        assert!(!exit.status.success() && refused, "{dir}: {text}");
    }
    let mounts = output(&bed.spec(&["cat", "/proc/self/mountinfo"]));
    assert!(!mounts.contains(" / /mnt") && !mounts.contains("oldroot"), "{mounts}");
    for line in mounts.lines() {
        let at = line.split(' ').nth(4).unwrap();
        assert!(at == "/" || ["/proc", "/sys", "/dev"].iter().any(|p| at.starts_with(p)), "{line}");
    }
}

/// Once the nodes were the host's own, and a package's script that changed the mode of /dev/null inside did so outside.
#[test]
fn the_hosts_device_nodes_cannot_be_changed_from_inside() {
    if !able() {
        return;
    }
    let nodes = ["/dev/null", "/dev/zero", "/dev/tty"];
    let look = || nodes.map(|node| std::fs::metadata(node).unwrap()).map(|m| (m.mode(), m.uid(), m.gid()));
    let before = look();
    for privileged in [false, true] {
        let bed = Bed::new();
        let mut spec = bed
            .sh("chmod 600 /dev/null /dev/zero /dev/tty /proc/keys; chown 7:7 /dev/null /dev/zero; \
             echo x > /dev/null && head -c 4 /dev/zero | wc -c");
        spec.privileged = privileged;
        let (_, text) = run(&spec);
        let after = look();
        for (node, (mode, uid, gid)) in nodes.iter().zip(before) {
            std::fs::set_permissions(node, std::fs::Permissions::from_mode(mode)).unwrap();
            std::os::unix::fs::chown(node, Some(uid), Some(gid)).unwrap();
        }
        assert_eq!(before, after, "privileged: {privileged}");
        assert!(text.ends_with("4\n"), "{text}");
    }
}

#[test]
fn no_network_is_lo_alone_and_up() {
    if !able() {
        return;
    }
    let bed = Bed::new();
    let mut spec = bed.sh("ls /sys/class/net; ip -o addr show up");
    spec.network = Network::None;
    let text = output(&spec);
    assert!(text.starts_with("lo\n1: lo"), "{text}");
    assert!(text.contains("127.0.0.1"), "{text}");
    spec.network = Network::JoinPath("/proc/self/ns/net".into());
    assert!(output(&spec).lines().next().is_some());
}

#[test]
fn every_kind_of_mount_does_its_work_and_leaves_no_stub() {
    if !able() {
        return;
    }
    let bed = Bed::new();
    std::fs::create_dir_all(bed.path("ctx/dir")).unwrap();
    std::fs::write(bed.path("ctx/dir/f"), "ctx\n").unwrap();
    std::fs::write(bed.path("outside"), "outside\n").unwrap();
    symlink("../../outside", bed.path("ctx/dir/escape")).unwrap();
    std::fs::create_dir_all(bed.path("layer/a")).unwrap();
    std::fs::create_dir_all(bed.path("layer2/a")).unwrap();
    std::fs::write(bed.path("layer/a/one"), "1\n").unwrap();
    std::fs::write(bed.path("layer2/a/two"), "2\n").unwrap();
    std::fs::create_dir_all(bed.path("cache")).unwrap();

    let mut spec = bed.sh(
        "cat /in/f; ! touch /in/x 2>/dev/null && cat /run/secrets/s && stat -c '%a %u' /run/secrets/s && ls /stage && \
         echo new > /rw/f && cat /rw/f && echo kept > /cache/k && stat -c %a /scratch && touch /scratch/t && /dev/pipes/go && \
         cat /etc/resolv.conf && echo edit >> /etc/hosts && echo mine > /result && cat /one && echo z >> /one",
    );
    let discard = |target: &str, path: &str| MountSpec {
        target: target.into(),
        kind: MountKind::Discard {
            source: Source::InDir { root: bed.path("ctx"), path: path.into() },
            scratch: None,
        },
        readonly: false,
    };
    spec.mounts = vec![
        file("/run/secrets/s", "secret\n", 0o400, 7),
        bind("/in", &bed.path("ctx"), "dir", true),
        MountSpec {
            target: b"/stage".to_vec(),
            kind: MountKind::Bind(Source::InLayers {
                lowers: vec![bed.path("layer"), bed.path("layer2")],
                path: b"a".to_vec(),
            }),
            readonly: true,
        },
        discard("/rw", "dir"),
        discard("/one", "dir/f"),
        bind("/cache", &bed.path("cache"), "", false),
        MountSpec {
            target: b"/scratch".to_vec(),
            kind: MountKind::Tmpfs { size: Some(1 << 20), mode: Some(0o711) },
            readonly: false,
        },
        MountSpec { readonly: true, ..file("/dev/pipes/go", "#!/bin/sh\necho script\n", 0o755, 0) },
        file("/etc/resolv.conf", "nameserver 1.2.3.4\n", 0o644, 0),
        file("/etc/hosts", "127.0.0.1 localhost\n", 0o644, 0),
    ];
    let (exit, text) = run(&spec);
    assert_eq!(exit.status, Status::Code(0), "{text}");
    assert_eq!(
        text,
        "ctx\nsecret\n400 7\none\ntwo\nnew\nkept\n711\nscript\nnameserver 1.2.3.4\nctx\n"
            .replace("kept\n", "")
    );
    assert_eq!(bed.upper_files(), ["result"]);
    assert_eq!(std::fs::read_to_string(bed.path("ctx/dir/f")).unwrap(), "ctx\n");
    assert_eq!(std::fs::read_to_string(bed.path("cache/k")).unwrap(), "kept\n");
    let stubs: Vec<_> = exit.stubs.iter().map(ToString::to_string).collect();
    assert!(
        stubs.contains(&"/run/secrets".to_owned()) && stubs.contains(&"/etc/hosts".to_owned()),
        "{stubs:?}"
    );

    spec.mounts = vec![bind("/in", &bed.path("ctx"), "dir/escape", true)];
    assert!(failure(&spec).contains("open the mount source"), "{}", failure(&spec));
    spec.mounts = vec![bind("/", &bed.path("ctx"), "", true)];
    assert!(failure(&spec).contains("cannot be the root"));
    spec.mounts = vec![MountSpec {
        target: b"/x".to_vec(),
        kind: MountKind::Bind(Source::Host("/nonexistent/thing".into())),
        readonly: false,
    }];
    assert!(failure(&spec).contains("/nonexistent/thing"), "{}", failure(&spec));
}

#[test]
fn a_stub_directory_that_was_used_stays() {
    if !able() {
        return;
    }
    let bed = Bed::new();
    let mut spec = bed.sh("echo x > /run/secrets/mine; chmod 700 /run");
    spec.mounts = vec![file("/run/secrets/s", "secret", 0o400, 0), file("/opt/deep/er/f", "", 0o644, 0)];
    let (exit, text) = run(&spec);
    assert!(exit.status.success(), "{text}");
    assert_eq!(bed.upper_files(), ["run", "run/secrets", "run/secrets/mine"]);
}

#[test]
fn a_root_from_scratch_needs_nothing() {
    if !able() {
        return;
    }
    let bed = Bed::new();
    let mut spec = bed.spec(&["/busybox", "sh", "-c", "/busybox ls /; /busybox touch /made"]);
    spec.rootfs =
        Rootfs::Overlay { lowers: vec![], upper: bed.path("upper"), work: bed.path("work"), volatile: true };
    spec.mounts = vec![bind("/busybox", &bed.path("base"), "bin/busybox", true)];
    assert_eq!(output(&spec), "busybox\ndev\nproc\nsys\n");
    assert_eq!(bed.upper_files(), ["made"]);
}

#[test]
fn a_hostile_root_reaches_nothing_outside() {
    if !able() {
        return;
    }
    for name in ["dev", "proc", "sys"] {
        let bed = Bed::new();
        let victim = bed.path("victim");
        std::fs::create_dir(&victim).unwrap();
        std::fs::remove_dir(bed.path("base").join(name)).unwrap();
        symlink(&victim, bed.path("base").join(name)).unwrap();
        assert!(failure(&bed.sh("true")).contains("symbolic link"), "{name}");
        assert_eq!(std::fs::read_dir(&victim).unwrap().count(), 0);
    }
    let bed = Bed::new();
    std::fs::write(bed.path("victim"), "safe").unwrap();
    symlink(bed.path("victim"), bed.path("base/etc/resolv.conf")).unwrap();
    symlink("/proc/1/root/etc", bed.path("base/etc/link")).unwrap();
    let mut spec = bed.sh("cat /etc/resolv.conf; echo changed > /etc/resolv.conf");
    spec.mounts = vec![file("/etc/resolv.conf", "inside\n", 0o644, 0)];
    assert_eq!(output(&spec), "inside\n");
    assert_eq!(std::fs::read_to_string(bed.path("victim")).unwrap(), "safe");
    spec.mounts = vec![file("/etc/link/f", "x", 0o644, 0)];
    failure(&spec);
    // Files of users that are pipes or lead out.
    std::fs::remove_file(bed.path("base/etc/passwd")).unwrap();
    symlink("/proc/self/root/etc/passwd", bed.path("base/etc/passwd")).unwrap();
    let mut spec = bed.sh("id -u");
    spec.process.user = "app".into();
    failure(&spec);
    // A working directory through a descriptor of the engine.
    for cwd in ["/proc/self/fd/3", "/proc/self/fd/7/../..", "/proc/1/root/.."] {
        let mut spec = bed.sh("pwd; ls");
        spec.process.cwd = cwd.into();
        if let Ok(mut running) = launcher().spawn(&spec, Stdio::null().unwrap()) {
            assert_eq!(cwd, "/proc/1/root/..");
            running.wait().unwrap();
        }
    }
    // The program behind the sandbox cannot be overwritten.
    std::fs::write(bed.path("base/self"), "#!/proc/self/exe\n").unwrap();
    let (exit, _) = run(&bed.sh("echo x > /proc/1/exe"));
    assert!(!exit.status.success());
}

#[test]
fn more_layers_than_a_page_of_options_holds() {
    if !able() {
        return;
    }
    let bed = Bed::new();
    let mut lowers: Vec<_> = (0..150)
        .map(|n| {
            let layer = bed.path(&format!("{}{n}", "long".repeat(20)));
            std::fs::create_dir(&layer).unwrap();
            std::fs::write(layer.join(format!("f{n}")), "").unwrap();
            layer
        })
        .collect();
    lowers.push(bed.path("base"));
    let mut spec = bed.sh("ls / | grep -c '^f[0-9]'");
    spec.rootfs = Rootfs::Overlay {
        lowers: lowers.clone(),
        upper: bed.path("upper"),
        work: bed.path("work"),
        volatile: true,
    };
    assert_eq!(output(&spec), "150\n");
    spec.rootfs = Rootfs::ReadOnlyOverlay { lowers };
    spec.process.argv = ["sh", "-c", "touch /x"].map(|a| a.as_bytes().to_vec()).to_vec();
    let (exit, text) = run(&spec);
    assert!(text.contains("Read-only"), "{exit:?} {text}");
}

#[test]
fn a_read_only_root_keeps_writable_mounts() {
    if !able() {
        return;
    }
    let bed = Bed::new();
    let mut spec = bed
        .sh("touch /x 2>/dev/null && exit 1; touch /m/y && touch /dev/shm/z && df / >/dev/null 2>&1; exit 0");
    spec.readonly_rootfs = true;
    std::fs::create_dir(bed.path("m")).unwrap();
    std::fs::create_dir(bed.path("base/m")).unwrap();
    spec.mounts = vec![bind("/m", &bed.path("m"), "", false)];
    output(&spec);
    assert!(bed.path("m/y").exists());
}

#[test]
fn background_processes_end_with_the_first() {
    if !able() {
        return;
    }
    let bed = Bed::new();
    let begin = Instant::now();
    output(&bed.sh("(setsid nohup sleep 4242 >/dev/null 2>&1 &) ; sleep 0.1"));
    assert!(begin.elapsed() < Duration::from_secs(5));
    assert_eq!(processes_with("4242"), 0);
}

fn processes_with(argument: &str) -> usize {
    std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|e| std::fs::read(e.path().join("cmdline")).ok())
        .filter(|line| line.split(|b| *b == 0).any(|arg| arg == argument.as_bytes()))
        .count()
}

#[test]
fn dropping_a_launcher_or_its_death_leaves_nothing() {
    if !able() {
        return;
    }
    let bed = Bed::new();
    let other = Launcher::start_program(Path::new(env!("CARGO_BIN_EXE_rbuild")), &[]).unwrap();
    let mut running = other.spawn(&bed.spec(&["sleep", "5353"]), Stdio::null().unwrap()).unwrap();
    let pid = running.pid();
    assert!(Path::new(&format!("/proc/{pid}")).exists());
    drop(other);
    assert_eq!(running.wait().unwrap().status, Status::Signal(9));
    assert_eq!(processes_with("5353"), 0);

    // The helper is killed: its children go with it, and the caller hears of it.
    let other = Launcher::start_program(Path::new(env!("CARGO_BIN_EXE_rbuild")), &[]).unwrap();
    let bed = Bed::new();
    let mut running = other.spawn(&bed.spec(&["sleep", "5454"]), Stdio::null().unwrap()).unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", running.pid())).unwrap();
    let helper = stat.rsplit(')').next().unwrap().split_whitespace().nth(1).unwrap().parse().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(helper), nix::sys::signal::Signal::SIGKILL).unwrap();
    assert!(running.wait().unwrap_err().to_string().contains("ended unexpectedly"));
    let gone = Instant::now();
    while processes_with("5454") > 0 {
        assert!(gone.elapsed() < Duration::from_secs(5));
        std::thread::sleep(Duration::from_millis(5));
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(bed.dir.path().to_str().unwrap()));
}

#[test]
fn many_threads_use_one_launcher() {
    if !able() {
        return;
    }
    std::thread::scope(|scope| {
        for n in 0..6 {
            scope.spawn(move || {
                let bed = Bed::new();
                for round in 0..5 {
                    let code = n * 10 + round;
                    assert_eq!(run(&bed.sh(&format!("exit {code}"))).0.status, Status::Code(code));
                }
            });
        }
    });
}

#[test]
fn limits_are_kept_or_refused() {
    if !able() {
        return;
    }
    let bed = Bed::new();
    let mut spec = bed.sh("ulimit -n; ulimit -c");
    let limit = |kind, soft, hard| Rlimit { kind, soft, hard };
    spec.process.rlimits =
        vec![limit(RlimitKind::Nofile, Some(100), Some(200)), limit(RlimitKind::Core, Some(0), Some(0))];
    assert_eq!(output(&spec), "100\n0\n");
    // More than this machine lets anybody have: lowered, not failed.
    spec.process.rlimits = vec![limit(RlimitKind::Nofile, None, None)];
    output(&spec);

    let mut spec = bed.sh("for i in 1 2 3 4 5 6 7 8; do sleep 1 & done; wait");
    spec.limits = Limits { pids: Some(4), ..Limits::default() };
    match launcher().spawn(&spec, Stdio::null().unwrap()) {
        Ok(mut running) => {
            let dirs = running.cgroup_dirs();
            assert!(dirs.iter().all(|dir| dir.exists()) && !dirs.is_empty());
            assert!(!running.wait().unwrap().status.success());
            assert!(dirs.iter().all(|dir| !dir.exists()), "{dirs:?}");
        }
        Err(e) => assert!(e.to_string().contains("cannot limit the number of processes"), "{e}"),
    }
    let mut spec = bed.sh("dd if=/dev/zero of=/dev/null bs=200M count=1");
    spec.limits = Limits { memory: Some(32 << 20), ..Limits::default() };
    match launcher().spawn(&spec, Stdio::null().unwrap()) {
        Ok(mut running) => {
            let exit = running.wait().unwrap();
            assert!(!exit.status.success() && exit.oom_killed, "{exit:?}");
        }
        Err(e) => assert!(e.to_string().contains("cannot limit memory"), "{e}"),
    }
}

#[test]
fn a_terminal_is_the_processs_own() {
    if !able() {
        return;
    }
    let bed = Bed::new();
    let mut spec =
        bed.sh("tty; stty size; ls /dev/console; test -t 0 && echo yes; read line; echo got $line");
    spec.process.terminal = true;
    spec.process.terminal_size = Some((91, 17));
    let mut running = launcher().spawn(&spec, Stdio::null().unwrap()).unwrap();
    let mut master = std::fs::File::from(running.terminal().unwrap());
    std::io::Write::write_all(&mut master, b"hello\n").unwrap();
    let mut text = Vec::new();
    let mut buffer = [0; 512];
    // The end of the other side is EIO on a terminal.
    while let Ok(n @ 1..) = master.read(&mut buffer) {
        text.extend_from_slice(&buffer[..n]);
    }
    assert!(running.wait().unwrap().status.success());
    let text = String::from_utf8(text).unwrap().replace('\r', "");
    for want in ["/dev/pts/0\n", "17 91\n", "/dev/console\n", "yes\n", "got hello\n"] {
        assert!(text.contains(want), "{want:?} in {text:?}");
    }
}

#[test]
fn init_reaps_and_passes_signals_on() {
    if !able() {
        return;
    }
    let bed = Bed::new();
    let mut spec = bed.sh("echo $$; trap 'exit 33' TERM; echo ready; while :; do sleep 0.05; done");
    spec.process.init = true;
    let (mut out, into) = std::io::pipe().unwrap();
    let stdio = Stdio::output(into.try_clone().unwrap(), into).unwrap();
    let mut running = launcher().spawn(&spec, stdio).unwrap();
    let mut text = String::new();
    let mut byte = [0];
    while !text.ends_with("ready\n") {
        out.read_exact(&mut byte).unwrap();
        text.push(byte[0] as char);
    }
    assert_eq!(text, "2\nready\n");
    running.signal(15).unwrap();
    assert_eq!(running.wait().unwrap().status, Status::Code(33));
}

#[test]
fn a_second_process_can_enter() {
    if !able() {
        return;
    }
    let bed = Bed::new();
    let mut running = launcher().spawn(&bed.spec(&["sleep", "100"]), Stdio::null().unwrap()).unwrap();
    let mut process = ProcessSpec::new(["sh", "-c", "hostname; id -u; ps | grep -c '[s]leep 100'; exit 5"]);
    process.env = vec![b"PATH=/bin".to_vec()];
    process.user = "app".into();
    let mut log = tempfile::tempfile().unwrap();
    let stdio = Stdio::output(log.try_clone().unwrap(), log.try_clone().unwrap()).unwrap();
    let exit = launcher().spawn_in(&running, &process, false, stdio).unwrap().wait().unwrap();
    log.rewind().unwrap();
    let mut text = String::new();
    log.read_to_string(&mut text).unwrap();
    assert_eq!(exit.status, Status::Code(5), "{text}");
    assert_eq!(text, "testhost\n1000\n1\n");
    running.kill().unwrap();
    running.wait().unwrap();
}

#[test]
fn a_large_secret_and_a_large_environment_arrive() {
    if !able() {
        return;
    }
    let bed = Bed::new();
    let mut spec = bed.sh("wc -c < /s; echo ${#BIG}");
    spec.mounts = vec![file("/s", &"x".repeat(500_000), 0o400, 0)];
    spec.process.env.push(format!("BIG={}", "y".repeat(100_000)).into_bytes());
    assert_eq!(output(&spec), "500000\n100000\n");
}

#[test]
fn streams_of_a_user_can_be_reopened() {
    if !able() {
        return;
    }
    let bed = Bed::new();
    let mut spec = bed.sh("echo again > /dev/stdout");
    spec.process.user = "app".into();
    let (mut out, into) = std::io::pipe().unwrap();
    let stdio = Stdio::output(into.try_clone().unwrap(), into).unwrap();
    assert!(launcher().spawn(&spec, stdio).unwrap().wait().unwrap().status.success());
    let mut text = String::new();
    out.read_to_string(&mut text).unwrap();
    assert_eq!(text, "again\n");
    assert_eq!(std::fs::metadata(bed.path("upper")).unwrap().uid(), 0);
}

/// The example program, executed as a whole: it launches sandboxes from a `main` of its own.
fn example() -> Option<PathBuf> {
    let built = Path::new(env!("CARGO_BIN_EXE_rbuild")).parent()?.join("examples/sandbox");
    if !built.exists() {
        eprintln!("skipped: the example program is not built");
        return None;
    }
    Some(built)
}

#[test]
fn kill_9_leaves_neither_processes_nor_mounts() {
    if !able() {
        return;
    }
    let Some(example) = example() else { return };
    let bed = Bed::new();
    let mut main =
        std::process::Command::new(example).arg(bed.path("base")).args(["sleep", "6161"]).spawn().unwrap();
    let begin = Instant::now();
    while processes_with("6161") < 2 {
        assert!(begin.elapsed() < Duration::from_secs(20), "the sandbox did not start");
        std::thread::sleep(Duration::from_millis(5));
    }
    main.kill().unwrap();
    main.wait().unwrap();
    let begin = Instant::now();
    while processes_with("6161") > 0 {
        assert!(begin.elapsed() < Duration::from_secs(5), "processes were left");
        std::thread::sleep(Duration::from_millis(5));
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(bed.dir.path().to_str().unwrap()));
}

/// A user with a range of further ids: an existing one, else `None`.
fn user_with_ids() -> Option<(String, u32, u32)> {
    let subuid = std::fs::read_to_string("/etc/subuid").unwrap_or_default();
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    subuid.lines().filter_map(|line| line.split(':').next()).find_map(|name| {
        let line = passwd.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2).map_while(|f| f.parse().ok());
        Some((name.to_owned(), fields.next()?, fields.next()?))
    })
}

fn give_to(path: &Path, uid: u32, gid: u32) {
    std::os::unix::fs::lchown(path, Some(uid), Some(gid)).unwrap();
    if path.symlink_metadata().unwrap().is_dir() {
        for entry in std::fs::read_dir(path).unwrap().flatten() {
            give_to(&entry.path(), uid, gid);
        }
    }
}

fn as_user(bed: &Bed, uid: u32, gid: u32, args: &[&str]) -> Option<std::process::Output> {
    use std::os::unix::process::CommandExt;
    let copy = bed.path("program");
    std::fs::copy(example()?, &copy).unwrap();
    give_to(bed.dir.path(), uid, gid);
    let mut command = std::process::Command::new(copy);
    command.uid(uid).gid(gid).arg("--state").arg(bed.path("base")).args(args);
    Some(command.output().unwrap())
}

#[test]
fn an_ordinary_user_is_root_inside() {
    if !able() {
        return;
    }
    let Some((_, uid, gid)) = user_with_ids() else {
        eprintln!("skipped: no user has a range in /etc/subuid");
        return;
    };
    let bed = Bed::new();
    let script = "id -u; touch /f && busybox chown 4242:7 /f && stat -c '%u %g' /f; ls /dev/null /dev/pts; echo x >/dev/null; \
                  cat /proc/sys/kernel/hostname >/dev/null; grep -c . /proc/self/mountinfo >/dev/null; exit 3";
    let Some(out) = as_user(&bed, uid, gid, &["sh", "-c", script]) else { return };
    let (text, errors) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(text.contains(&format!("real_uid: {uid}")), "{text} {errors}");
    assert!(text.contains("0\n4242 7\n/dev/null\n"), "{text} {errors}");
    assert_eq!(out.status.code(), Some(3), "{text} {errors}");
}

#[test]
fn without_ranges_one_id_is_mapped() {
    if !able() {
        return;
    }
    let bed = Bed::new();
    // Nobody has this number.
    let script = "id -u; touch /f; busybox chown 5 /f 2>/dev/null || echo refused";
    let Some(out) = as_user(&bed, 54321, 54321, &["sh", "-c", script]) else { return };
    let (text, errors) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(text.contains("mapped_ids: 1"), "{text} {errors}");
    assert!(text.ends_with("0\nrefused\n"), "{text} {errors}");
}

#[test]
fn a_rootless_run_ends_with_its_waiter_and_passes_signals_on() {
    use std::os::unix::process::{CommandExt, ExitStatusExt};
    if !able() {
        return;
    }
    let Some(example) = example() else { return };
    for (signal, argument) in [(9, "7171"), (15, "7272")] {
        let bed = Bed::new();
        let copy = bed.path("program");
        std::fs::copy(&example, &copy).unwrap();
        give_to(bed.dir.path(), 54321, 54321);
        let mut command = std::process::Command::new(copy);
        command.uid(54321).gid(54321).arg(bed.path("base")).args(["sleep", argument]);
        let mut main = command.spawn().unwrap();
        let begin = Instant::now();
        // The waiter, the program inside and the sandboxed process.
        while processes_with(argument) < 3 {
            assert!(begin.elapsed() < Duration::from_secs(20), "the sandbox did not start");
            std::thread::sleep(Duration::from_millis(5));
        }
        let pid = nix::unistd::Pid::from_raw(main.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::try_from(signal).unwrap()).unwrap();
        assert_eq!(main.wait().unwrap().signal(), Some(signal));
        let begin = Instant::now();
        while processes_with(argument) > 0 {
            assert!(begin.elapsed() < Duration::from_secs(5), "processes were left");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
