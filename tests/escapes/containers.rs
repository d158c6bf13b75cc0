//! What a process in a step or container can try: descriptors, rbuild's own program, kernel files, a root file system of
//! links, and a `cp` that goes on meanwhile.

use crate::canary::Canary;
use crate::common::process::{Running, eventually, finish};
use crate::common::{Done, TestSpace, base};
use crate::hostile::{Tar, config, docker_archive};
use crate::spaces;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);

/// The binary, started by a shell that has opened a directory and a file of the host and not closed them again.
fn with_descriptors(space: &TestSpace, canary: &Canary, args: &[&str]) -> Command {
    let script =
        format!("exec 7< {0} 8< {1} 9>> {1}; exec \"$0\" \"$@\"", canary.path("dir"), canary.path("secret"));
    let mut shell = space.tool("sh");
    shell.arg("-c").arg(script).arg(space.binary()).args(args);
    shell
}

fn run_with_descriptors(space: &TestSpace, canary: &Canary, args: &[&str]) -> Done {
    finish(&mut with_descriptors(space, canary, args), None, MINUTE)
}

#[test]
fn descriptors_of_the_caller_stay_outside() {
    for space in spaces() {
        let canary = Canary::plant(&space);
        let list = "ls -l /proc/self/fd /proc/1/fd; cat /proc/self/fd/8 /proc/1/fd/8; ls /proc/self/fd/7/ /proc/1/fd/7/; echo owned > /proc/1/fd/9; echo seen";
        space.dockerfile(&format!("FROM busybox\nRUN {list}\n"));
        let built =
            run_with_descriptors(&space, &canary, &["build", "--progress", "plain", "-t", "x", "ctx"]).ok();
        let ran = run_with_descriptors(
            &space,
            &canary,
            &["run", "--rm", "--network", "none", "busybox", "sh", "-c", list],
        )
        .ok();
        let kept = ["run", "-d", "--name", "box", "--network", "none", "busybox", "sleep", "3600"];
        run_with_descriptors(&space, &canary, &kept).ok();
        let inside = run_with_descriptors(&space, &canary, &["exec", "box", "sh", "-c", list]).ok();
        for (what, done) in [("a step", built), ("a container", ran), ("exec", inside)] {
            let said = done.stdout + &done.stderr;
            assert!(said.contains("seen"), "{what}\n{said}");
            assert!(
                !said.contains("outside") && !said.contains("inner") && !said.contains("the host's own"),
                "{what}\n{said}"
            );
        }
        // Nor does what goes on in the background hold on to them.
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Ok(fds) = fs::read_dir(entry.path().join("fd")) else { continue };
            for fd in fds.flatten() {
                let target = fs::read_link(fd.path()).unwrap_or_default();
                assert!(
                    !target.starts_with(canary.path("")),
                    "{} holds {}",
                    fd.path().display(),
                    target.display()
                );
            }
        }
        for dir in
            ["/proc/self/fd/7", "/proc/self/fd/7/..", "/proc/1/fd/7", "/proc/thread-self/fd/3", "/dev/fd/7"]
        {
            for args in [
                vec!["run", "--rm", "--network", "none", "-w", dir, "busybox", "ls"],
                vec!["exec", "-w", dir, "box", "ls"],
            ] {
                let done = run_with_descriptors(&space, &canary, &args);
                assert!(!done.status.success() && !done.stdout.contains("inner"), "{args:?}\n{done}");
            }
            space
                .dockerfile(&format!("FROM busybox\nWORKDIR {dir}\nRUN ls; pwd\nRUN ls .. ../.. ../../..\n"));
            let done = run_with_descriptors(&space, &canary, &["build", "--progress", "plain", "ctx"]);
            assert!(!done.stderr.contains("inner\n"), "{dir}\n{done}");
        }
        canary.assert_untouched("descriptors");
    }
}

/// A container that runs its own runtime, or writes to it while somebody enters (CVE-2019-5736).
#[test]
fn the_program_of_the_host_is_not_written_to() {
    for space in spaces() {
        let canary = Canary::plant(&space);
        // a copy, so that a success of the attack would not spoil what other tests run
        let program = space.path("scratch");
        fs::copy(space.binary(), &program).unwrap();
        let look = || {
            let meta = fs::metadata(&program).unwrap();
            (meta.ino(), meta.len(), meta.mtime_nsec(), blake3::hash(&fs::read(&program).unwrap()))
        };
        let rbuild = |args: &[&str]| finish(space.tool(&program).args(args), None, MINUTE);
        let attack =
            "#!/bin/sh\nwhile :; do for p in /proc/[0-9]*; do echo owned 2>/dev/null > $p/exe; done; done\n";
        space.write("ctx/attack", attack);
        space.write("ctx/self", "#!/proc/self/exe\n");
        space.dockerfile(
            "FROM busybox\nCOPY --chmod=755 attack self /\nRUN timeout 1 /attack; /self; /proc/self/exe --help; true\nENTRYPOINT [\"/proc/self/exe\"]\n",
        );
        let before = look();
        assert!(rbuild(&["build", "-t", "evil:1", "ctx"]).status.success());
        // Whatever runs there, it is not rbuild with the rights to write to itself.
        for args in [
            &["run", "--rm", "--network", "none", "evil:1", "--version"][..],
            &["run", "--rm", "--network", "none", "--entrypoint", "/self", "evil:1"],
            &["run", "--rm", "--network", "none", "--entrypoint", "/proc/1/exe", "evil:1", "--help"],
            &["run", "--rm", "--network", "none", "--init", "evil:1", "--help"],
        ] {
            let done = rbuild(args);
            assert!(matches!(done.status.code(), Some(0 | 1 | 2 | 125 | 126 | 127)), "{args:?}\n{done}");
            assert_eq!(before, look(), "{args:?}");
        }
        rbuild(&["run", "-d", "--name", "box", "--network", "none", "--entrypoint", "/attack", "evil:1"])
            .ok();
        for round in 0..12 {
            let command = ["true", "/proc/self/exe", "/self"][round % 3];
            rbuild(&["exec", "box", command]);
        }
        rbuild(&["rm", "-f", "box"]).ok();
        assert_eq!(before, look(), "after 12 execs");
        fs::remove_file(&program).unwrap();
        canary.assert_untouched("exe");
    }
}

/// Files of the kernel that speak for the whole machine.
const KERNEL_FILES: [&str; 22] = [
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/modprobe",
    "/proc/sys/kernel/hotplug",
    "/proc/sys/kernel/domainname",
    "/proc/sys/vm/drop_caches",
    "/proc/sys/fs/binfmt_misc/register",
    "/proc/sysrq-trigger",
    "/proc/irq/default_smp_affinity",
    "/proc/bus/pci/00",
    "/proc/fs/ext4",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/sched_debug",
    "/proc/scsi/scsi",
    "/proc/acpi/wakeup",
    "/sys/kernel/uevent_helper",
    "/sys/kernel/mm/ksm/run",
    "/sys/firmware/x",
    "/sys/fs/cgroup/cgroup.procs",
    "/sys/devices/virtual/powercap/x",
];

#[test]
fn files_of_the_kernel_take_nothing() {
    for space in spaces() {
        let canary = Canary::plant(&space);
        let pattern = fs::read("/proc/sys/kernel/core_pattern").unwrap();
        let files = KERNEL_FILES.join(" ");
        // also after every way to change a mount, and through what is mounted elsewhere
        let script = format!(
            "try() {{ for f in {files}; do (echo '|/x' > $1$f) 2>/dev/null && test ! -c $1$f && echo written $1$f; done; }}; try ''; \
             mount -o remount,rw /proc/sys; mount -o remount,rw /sys; umount /proc/kcore; umount /proc/sys; umount -l /sys; \
             mkdir -p /p; mount -t proc proc /p; mount --bind /proc /p; mount --rbind / /p; try ''; try /p; \
             unshare -Urm sh -c 'mount -t proc proc /p' ; unshare -m true && echo unshared; \
             cat /proc/kcore /proc/keys /proc/timer_list 2>/dev/null | wc -c; ls /sys/firmware /proc/acpi 2>/dev/null | grep -v : | grep -c .; \
             for n in 'b 8 0' 'b 254 0' 'b 259 0' 'c 1 1' 'c 1 2' 'c 10 200'; do rm -f /n; mknod /n $n && head -c 1 /n && echo opened $n; \
             mknod /dev/n $n && head -c 1 /dev/n && echo opened $n; rm -f /dev/n; done; echo end"
        );
        let script = format!("{{ {script}; }} 2>/dev/null");
        space.write("ctx/try", &script);
        space.dockerfile("FROM busybox\nCOPY try /\nRUN sh /try > /out\nCMD [\"cat\", \"/out\"]\n");
        space.build(&space.path("ctx"), &["-t", "try"]).ok();
        let step = space.stdout_of("try", &[]);
        let container = space.stdout_of("try", &["sh", "/try"]);
        let user =
            space.rbuild(["run", "--rm", "--network", "none", "-u", "7", "try", "sh", "/try"]).ok().stdout;
        for (what, said) in [("a step", step), ("a container", container), ("a user", user)] {
            assert_eq!(said, "0\n0\nend\n", "{what}");
        }
        assert_eq!(fs::read("/proc/sys/kernel/core_pattern").unwrap(), pattern);
        canary.assert_untouched("files of the kernel");
    }
}

/// Places where an engine mounts and writes are links to the host or pipes in the image.
#[test]
fn a_root_of_links_leads_nowhere() {
    let busybox = fs::read(base("busybox")).unwrap();
    for (at, space) in spaces().into_iter().enumerate() {
        let canary = Canary::plant(&space);
        let targets =
            [canary.path("dir"), canary.dotted("dir"), format!("/proc/self/root{}", canary.path("dir"))];
        let mut refused = 0;
        let places = [
            "dev",
            "proc",
            "sys",
            "etc/hosts",
            "etc/passwd",
            "etc",
            "tmp",
            "run",
            "dev/null",
            "dev/pts",
            "etc/resolv.conf",
            "etc/hostname",
            "etc/group",
            "etc/mtab",
            "run/secrets",
        ];
        // the first of them for the ordinary user, too
        for place in &places[..if at == 0 { places.len() } else { 5 }] {
            // the other forms of a target matter where something is written
            let written = at == 0 && matches!(*place, "etc/hosts" | "etc/resolv.conf");
            for target in targets.iter().take(if written { 3 } else { 1 }) {
                let mut tar = Tar::new();
                if !place.contains('/') {
                    tar = tar.file(format!(".wh.{place}"), "");
                }
                let target =
                    if place.contains('.') { target.replace("/dir", "/secret") } else { target.clone() };
                let layers = [busybox.clone(), tar.symlink(*place, &target).end()];
                refused += usize::from(!try_image(&space, &canary, &format!("{place} -> {target}"), &layers));
            }
        }
        // The three places that are mounted over must be directories; all others work or fail inside.
        assert!((3..12).contains(&refused), "{refused} were refused");
        let pipes = ["etc/passwd", "etc/group", "etc/hosts", "etc/resolv.conf", "dev", "proc", "sys"];
        for pipe in &pipes[..if at == 0 { pipes.len() } else { 1 }] {
            let mut tar = Tar::new();
            if !pipe.contains('/') {
                tar = tar.file(format!(".wh.{pipe}"), "");
            }
            let layers = [busybox.clone(), tar.entry(b'6', *pipe, "", 0o666, b"").end()];
            try_image(&space, &canary, &format!("a pipe at {pipe}"), &layers);
        }
    }
}

/// Builds on and runs an image; says whether a container of it started.
fn try_image(space: &TestSpace, canary: &Canary, what: &str, layers: &[Vec<u8>]) -> bool {
    let archive = space.write("evil.tar", docker_archive(&config(layers), layers));
    space.rbuild(["load".as_ref(), "-i".as_ref(), archive.as_os_str()]).ok();
    let script = "echo owned > /etc/resolv.conf; echo owned >> /etc/hosts; echo owned > /dev/x; echo owned > /proc/x; echo owned > /run/x; true";
    let context = space.dockerfile(&format!("FROM evil:1\nRUN {script}\n"));
    let built = space.build(&context, &["--no-cache"]);
    assert!(matches!(built.status.code(), Some(0 | 1)), "{what}\n{built}");
    let ran = space.rbuild(["run", "--rm", "--network", "none", "evil:1", "sh", "-c", script]);
    // a name is looked up in files of the image
    let named = what.contains("passwd") || what.contains("group");
    let user =
        named.then(|| space.rbuild(["run", "--rm", "--network", "none", "-u", "daemon", "evil:1", "true"]));
    for done in [&built, &ran].into_iter().chain(&user) {
        assert!(matches!(done.status.code(), Some(0 | 1 | 125 | 126 | 127)), "{what}\n{done}");
        assert!(
            !done.stderr.contains("panicked") && !done.stderr.contains("the host's own"),
            "{what}\n{done}"
        );
    }
    canary.assert_untouched(what);
    ran.status.success()
}

/// `cp` in both directions while a process exchanges what it goes through (CVE-2018-15664).
#[test]
fn cp_is_not_led_out_by_a_running_container() {
    for space in spaces() {
        let canary = Canary::plant(&space);
        let outside = canary.path("");
        let swap = format!(
            "mkdir /d /d/sub; echo inside > /d/secret; echo inside > /d/sub/inner; echo inside > /f; ln -s {outside} /l; ln -s {outside}secret /lf; touch /ready; \
             while :; do mv /d /t; mv /l /d; mv /t /l; mv /f /t; mv /lf /f; mv /t /lf; mv /d /t; mv /l /d; mv /t /l; mv /f /t; mv /lf /f; mv /t /lf; done"
        );
        space.rbuild(["run", "-d", "--name", "box", "--network", "none", "busybox", "sh", "-c", &swap]).ok();
        eventually("it is ready", MINUTE, || {
            space.rbuild(["exec", "box", "test", "-e", "/ready"]).status.success()
        });
        space.write("ctx/planted", "owned\n");
        space.write("ctx/tree/secret", "owned\n");
        let out = space.path("out");
        let mut copied = 0;
        for _ in 0..5 {
            for args in [
                &["cp", "box:/d/secret", "out"][..],
                &["cp", "box:/d", "out"],
                &["cp", "-L", "box:/d/.", "out"],
                &["cp", "box:/f", "out"],
                &["cp", "-L", "box:/f", "out"],
                &["cp", "ctx/planted", "box:/d/planted"],
                &["cp", "ctx/planted", "box:/d"],
                &["cp", "ctx/tree/.", "box:/d"],
                &["cp", "ctx/planted", "box:/f"],
            ] {
                let done = space.rbuild(args);
                assert!(matches!(done.status.code(), Some(0 | 1)), "{args:?}\n{done}");
                copied += usize::from(done.status.success());
                assert_eq!(holding(&out, "the host's own"), None, "{args:?} brought a file of the host");
                let _ = fs::remove_dir_all(&out).or_else(|_| fs::remove_file(&out));
            }
        }
        canary.assert_untouched("cp");
        assert!(copied > 0, "nothing was copied at all");
        space.rbuild(["rm", "-f", "box"]).ok();
    }
}

/// Gives a regular file at or below a path that holds a text, with what is around it; links are not followed.
pub(crate) fn holding(path: &std::path::Path, needle: &str) -> Option<String> {
    let meta = path.symlink_metadata().ok()?;
    if meta.is_dir() {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        return entries.into_iter().find_map(|entry| holding(&entry.path(), needle));
    }
    let bytes = meta.is_file().then(|| fs::read(path).ok())??;
    let text = String::from_utf8_lossy(&bytes);
    let at = text.find(needle)?;
    let around: String = text[at..].chars().take(200).collect();
    Some(format!("{}: {around:?}", path.display()))
}

/// More processes than are good: the limit holds, and the host and rbuild do not notice.
#[test]
fn a_fork_bomb_ends_with_its_container() {
    if !crate::common::root_or_skip() {
        return;
    }
    let space = TestSpace::new().with_busybox();
    let bomb = "b() { b | b & }; b; sleep 3600";
    let mut command = space.command([
        "run",
        "--rm",
        "--name",
        "box",
        "--network",
        "none",
        "--pids-limit",
        "64",
        "busybox",
        "sh",
        "-c",
        bomb,
    ]);
    let running = Running::start(&mut command);
    eventually("it is full", MINUTE, || {
        running.so_far().contains("fork") || running.so_far().contains("temporarily")
    });
    space.rbuild(["rm", "-f", "box"]).ok();
    let _ = running.wait(MINUTE);
    space.assert_nothing_runs();
}

/// Nodes that lead to the machine's disks, memory and virtual machines: made inside, brought by an image, in a volume, in
/// a device file system mounted inside; from the first process, from `exec`, after a restart. None can be opened.
#[test]
fn nodes_do_not_lead_to_the_machines_devices() {
    if !crate::common::root_or_skip() {
        return;
    }
    let space = TestSpace::new().with_busybox();
    let mut nodes = vec!["c 1 1".to_owned(), "c 1 4".to_owned(), "c 10 232".to_owned(), "b 7 0".to_owned()];
    for entry in fs::read_dir("/sys/block").into_iter().flatten().flatten() {
        let numbers = fs::read_to_string(entry.path().join("dev")).unwrap_or_default();
        nodes.extend(numbers.trim().split_once(':').map(|(major, minor)| format!("b {major} {minor}")));
    }
    let make: String = nodes.iter().enumerate().map(|(n, node)| format!("mknod $1/n{n} {node}; ")).collect();
    let make = format!("make() {{ mkdir -p $1; {make} }}");
    // read and written: opening is enough
    let open = "open() { for n in $1/*; do (exec 3< $n) && echo OPENED $n; (exec 3<> $n) && echo OPENED $n; done; }; exec 2> /dev/null";
    space.build_text("nodes", &format!("FROM busybox\nRUN {make}; make /image\nRUN --network=none {open}; {make}; make /step; open /image; open /step; test -z \"$(open /step)$(open /image)\"\n"));
    let volume = space.mkdir("volume").display().to_string();
    let script = format!(
        "{make}; {open}; make /dev/more; make /v; make /tmp/t; make /dev/shm/t; \
        for d in /image /step /v /dev/more /tmp/t /dev/shm/t; do open $d; done; \
        mkdir /fs && mount -t devtmpfs none /fs && open /fs/[sv]d; mount -t tmpfs none /fs && make /fs/t && open /fs/t; echo done"
    );
    let bind = format!("{volume}:/v");
    let run = |flags: &[&str]| {
        let mut args = vec!["run", "--rm", "--network", "none", "-v", &bind, "--tmpfs", "/tmp:dev"];
        args.extend(flags);
        args.extend(["nodes", "sh", "-c", &script]);
        space.rbuild(args).ok().stdout
    };
    assert_eq!(run(&[]), "done\n");
    assert_eq!(run(&["--init", "-m", "64m", "--pids-limit", "100"]), "done\n");
    assert_eq!(run(&["--device", "/dev/null:/dev/nothing", "--pid", "host", "--cgroupns", "host"]), "done\n");
    if crate::common::guards_devices() {
        // who may mount can also mount without nodev
        assert_eq!(run(&["--cap-add", "SYS_ADMIN", "--security-opt", "seccomp=unconfined"]), "done\n");
    }
    let kept = ["run", "-d", "--name", "box", "--network", "none", "-v", &bind, "nodes", "sleep", "3600"];
    space.rbuild(kept).ok();
    for round in ["first", "after a restart", "after a pause"] {
        for flags in [&["exec"][..], &["exec", "-t"], &["exec", "--privileged"]] {
            let done = space.rbuild([flags, &["box", "sh", "-c", &script]].concat()).ok();
            assert!(
                done.stdout.trim_end().ends_with("done") && !done.stdout.contains("OPENED"),
                "{round} {flags:?}\n{done}"
            );
        }
        match round {
            "first" => drop(space.rbuild(["restart", "-t", "0", "box"]).ok()),
            _ => {
                space.rbuild(["pause", "box"]).ok();
                space.rbuild(["unpause", "box"]).ok();
            }
        }
    }
    space.rbuild(["rm", "-f", "box"]).ok();
}
