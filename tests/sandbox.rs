//! What a RUN step sees, may and leaves: the same little world as in Docker's builder.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::fs;

use common::{TestSpace, archive, is_root};

/// Builds `lines` on busybox and returns what the steps wrote into `/out`.
fn out_of(space: &TestSpace, lines: &str) -> String {
    space.build_text("probe", &format!("FROM busybox\n{lines}\n"));
    space.stdout_of("probe", &["cat", "/out"])
}

fn lines_of(text: &str) -> Vec<&str> {
    text.lines().collect()
}

#[test]
fn it_is_the_first_process_and_has_no_input() {
    let space = TestSpace::new().with_busybox();
    let out = out_of(
        &space,
        "RUN { echo $$; hostname; cat | wc -c; ls /proc/self/fd | wc -l; umask; pwd; } > /out",
    );
    // The descriptors are the three of the step and the one with which ls reads the directory.
    assert_eq!(lines_of(&out), ["1", "buildkitsandbox", "0", "4", "0022", "/"]);
}

#[test]
fn it_has_dockers_default_rights() {
    let space = TestSpace::new().with_busybox();
    // Without a shell between, as that ignores SIGQUIT for its children.
    let out = out_of(&space, r#"RUN ["cp", "/proc/self/status", "/out"]"#);
    let of = |name: &str| {
        let line =
            out.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name} in\n{out}"));
        line.split_whitespace().nth(1).unwrap().to_owned()
    };
    for set in ["CapEff", "CapPrm", "CapBnd"] {
        assert_eq!(of(set), "00000000a80425fb", "{set}");
    }
    for set in ["CapInh", "CapAmb", "SigBlk"] {
        assert_eq!(of(set), "0000000000000000", "{set}");
    }
    // The C library keeps 32 and 33 for itself and may leave them ignored in what it starts.
    let ignored = u64::from_str_radix(&of("SigIgn"), 16).unwrap() & !(0b11 << 31);
    assert_eq!(ignored, 0, "ignored signals, as a mask {ignored:x}");
    assert_eq!(of("Seccomp"), "2", "a filter is in force");
}

#[test]
fn an_ordinary_user_in_it_has_no_rights() {
    let space = TestSpace::new().with_busybox();
    let out = out_of(
        &space,
        "RUN touch /out && chmod 666 /out\nUSER nobody\nRUN { id -u; id -g; grep CapEff /proc/self/status | cut -f2; echo $HOME; touch /root/x 2>/dev/null || echo kept out; } > /out",
    );
    assert_eq!(lines_of(&out), ["65534", "65534", "0000000000000000", "/home", "kept out"]);
}

#[test]
fn the_kernels_files_are_out_of_reach() {
    let space = TestSpace::new().with_busybox();
    let out = out_of(
        &space,
        r"RUN { echo 1 > /proc/sys/kernel/domainname || echo sysctl; echo b > /proc/sysrq-trigger || echo sysrq; \
 mkdir /sys/x || echo sys; cat /proc/kcore /proc/keys /proc/timer_list | wc -c; ls /proc/acpi /sys/firmware | grep -v : | tr -d '\n' | wc -c; \
 mount -t tmpfs none /mnt || echo mount; mount -t proc proc /proc || echo proc; umount /dev/shm || echo umount; \
 unshare -U true || echo unshare; dmesg >/dev/null || echo dmesg; chroot / true && echo chroot; } > /out 2>/dev/null",
    );
    assert_eq!(
        lines_of(&out),
        ["sysctl", "sysrq", "sys", "0", "0", "mount", "proc", "umount", "unshare", "dmesg", "chroot"]
    );
}

#[test]
fn dev_holds_what_every_program_expects() {
    let space = TestSpace::new().with_busybox();
    let out = out_of(
        &space,
        "RUN { ls /dev | grep -v -E '^(console|core)$'; echo -; for l in fd stdin ptmx; do readlink /dev/$l; done; echo x > /dev/null; head -c 3 /dev/zero | wc -c; \
 head -c 3 /dev/urandom | wc -c; echo x > /dev/full || echo full; touch /dev/shm/x && echo shm; stat -c %a /dev/shm /dev/null; } > /out 2>/dev/null",
    );
    let (names, rest) = out.split_once("-\n").unwrap();
    assert_eq!(
        lines_of(names),
        [
            "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout",
            "tty", "urandom", "zero"
        ]
    );
    assert_eq!(
        lines_of(rest),
        ["/proc/self/fd", "/proc/self/fd/0", "pts/ptmx", "3", "3", "full", "shm", "1777", "666"]
    );
}

#[test]
fn names_are_resolved_and_never_captured() {
    let space = TestSpace::new().with_busybox();
    let context = space.dockerfile(
        "FROM busybox\nRUN grep -c nameserver /etc/resolv.conf > /out; grep -w localhost /etc/hosts >> /out\n\
         RUN (echo '192.0.2.7 seven' >> /etc/hosts; echo '# mine' >> /etc/resolv.conf) || true\n\
         RUN grep -c seven /etc/hosts > /gone || true\n",
    );
    let dest = space.path("flat.tar");
    space.build(&context, &["-t", "probe", "-o", &format!("type=tar,dest={}", dest.display())]).ok();
    let tree = archive::read(&dest);
    let out = String::from_utf8_lossy(&tree["out"].content).into_owned();
    assert!(out.lines().next().unwrap().parse::<u32>().unwrap() >= 1, "{out}");
    assert!(out.contains("127.0.0.1"), "{out}");
    assert_eq!(tree["gone"].content, b"0\n", "each step gets its own");
    let left: Vec<_> = ["etc/hosts", "etc/resolv.conf", "etc/hostname", "etc/mtab", ".dockerenv"]
        .into_iter()
        .filter(|name| tree.contains_key(*name))
        .collect();
    assert!(left.is_empty(), "captured: {left:?}");
    let inside = |dir: &str| tree.keys().filter(|name| name.starts_with(dir)).cloned().collect::<Vec<_>>();
    assert_eq!((inside("proc/"), inside("sys/"), inside("dev/")), (vec![], vec![], vec![]));
}

#[test]
fn a_file_of_the_image_at_those_places_stays_as_it_was() {
    let space = TestSpace::new().with_busybox();
    space.write("ctx/hosts", "192.0.2.1 from-the-image\n");
    let context = space.dockerfile("FROM busybox\nCOPY hosts /etc/hosts\nRUN echo extra >> /etc/hosts; ! grep from-the-image /etc/hosts\n");
    let dest = space.path("flat.tar");
    space.build(&context, &["-o", &format!("type=tar,dest={}", dest.display())]).ok();
    assert_eq!(archive::read(&dest)["etc/hosts"].content, b"192.0.2.1 from-the-image\n");
}

#[test]
fn the_network_is_what_was_asked_for() {
    let space = TestSpace::new().with_busybox();
    let dockerfile = |line: &str| {
        format!(
            "FROM busybox\nRUN {line} {{ ls /sys/class/net | grep -v -E '^(sit|tunl|ip6|gre|erspan|teql)' | tr '\\n' ' '; readlink /proc/self/ns/net; ip route | grep -c ^default || true; }} > /out\n"
        )
    };
    let host = fs::read_link("/proc/self/ns/net").unwrap().display().to_string();
    let parts = |tag: &str| {
        let out = space.stdout_of(tag, &["cat", "/out"]);
        let mut words: Vec<String> = out.split_whitespace().map(str::to_owned).collect();
        let (routes, namespace) = (words.pop().unwrap(), words.pop().unwrap());
        (words, namespace, routes)
    };

    space.build_text("none", &dockerfile("--network=none"));
    let (devices, namespace, routes) = parts("none");
    assert_eq!((devices, routes.as_str()), (vec!["lo".to_owned()], "0"));
    assert_ne!(namespace, host);

    let context = space.dockerfile(&dockerfile("--network=host"));
    space.build(&context, &["-t", "host"]).refuses(1, &["network.host", "Dockerfile:2"]);
    space.build(&context, &["-t", "host", "--allow", "network.host"]).ok();
    assert_eq!(parts("host").1, host);

    space.build_text("private", &dockerfile(""));
    let (devices, namespace, routes) = parts("private");
    assert_ne!(namespace, host);
    assert!(devices.len() >= 2 && routes == "1", "{devices:?}, {routes} default routes");

    // The flag of the build goes for all steps that say nothing.
    let context = space.dockerfile(&dockerfile(""));
    space.build(&context, &["-t", "flag", "--network", "none"]).ok();
    assert_eq!(parts("flag").0, ["lo"]);
}

#[test]
fn its_environment_is_the_images_and_nothing_of_the_callers() {
    let space = TestSpace::new().with_busybox();
    let context = space.dockerfile(
        "FROM busybox\nARG SEEN=arg\nARG UNSET\nENV COLOUR=\"dark green\"\nRUN env | sort > /out\n",
    );
    let mut command = space.command(["build", "--progress", "plain", "-t", "probe", "."]);
    command.current_dir(&context).env("LEAK", "secret").env("UNSET", "no");
    common::process::finish(&mut command, None, std::time::Duration::from_secs(120)).ok();
    let out = space.stdout_of("probe", &["cat", "/out"]);
    let names: Vec<&str> =
        out.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
    assert!(
        out.contains("COLOUR=dark green\n") && out.contains("SEEN=arg\n") && out.contains("HOME=/root\n"),
        "{out}"
    );
    assert!(out.contains("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"), "{out}");
    for absent in ["LEAK", "UNSET", "RBUILD_ROOT", "TMPDIR", "LC_ALL"] {
        assert!(!names.contains(&absent), "{absent} leaks in:\n{out}");
    }
}

#[test]
fn what_it_leaves_running_is_ended() {
    let space = TestSpace::new().with_busybox();
    let start = std::time::Instant::now();
    let out = out_of(&space, "RUN sleep 3600 & echo started > /out");
    assert_eq!(out, "started\n");
    assert!(start.elapsed().as_secs() < 60);
    space.assert_nothing_runs();
}

#[test]
fn its_output_is_kept_in_full_and_shown_in_order() {
    let space = TestSpace::new().with_busybox();
    let built = space
        .build_text("probe", "FROM busybox\nRUN echo out; echo err >&2; seq 1 3000; printf 'no newline'\n");
    let step = built.steps().into_iter().find(|step| step.title.starts_with("RUN")).unwrap();
    // The two streams are pipes of their own, so only the order within each is certain.
    let (errors, lines): (Vec<&str>, Vec<&str>) =
        step.log.iter().map(String::as_str).partition(|line| *line == "err");
    assert_eq!(errors.len(), 1, "{built}");
    assert_eq!(lines.len(), 3002, "{built}");
    assert_eq!((lines[0], lines[1], lines[3000], lines[3001]), ("out", "1", "3000", "no newline"));
}

#[test]
fn removals_and_replacements_reach_the_next_step() {
    let space = TestSpace::new().with_busybox();
    let out = out_of(
        &space,
        "RUN mkdir -p /d/sub && touch /d/sub/old /d/file && ln -s /d /link\nRUN rm -r /d/sub && mkdir /d/sub && touch /d/sub/new && rm /d/file && mkdir /d/file && rm /link && echo was a link > /link\n\
         RUN { ls /d/sub; stat -c %F /d/file /link; cat /link; } > /out",
    );
    assert_eq!(lines_of(&out), ["new", "directory", "regular file", "was a link"]);
}

#[test]
fn owners_are_kept() {
    let space = TestSpace::new().with_busybox();
    let out = out_of(
        &space,
        "RUN touch /f && chown 1234:4321 /f && chmod 6711 /f && mknod /null c 1 3; mkfifo /p\nRUN stat -c '%u:%g %a' /f > /out; stat -c %F /p >> /out; stat -c '%F %t,%T' /null >> /out 2>/dev/null || true",
    );
    let lines = lines_of(&out);
    assert_eq!(&lines[..2], ["1234:4321 6711", "fifo"]);
    if is_root() {
        assert_eq!(lines[2], "character special file 1,3");
    }
}

#[test]
fn more_steps_than_a_mount_option_page_holds() {
    let space = TestSpace::new().with_busybox();
    let mut text = String::from("FROM busybox\n");
    for step in 0..130 {
        text.push_str(&format!("RUN echo {step} > /f{step}\n"));
    }
    text.push_str("RUN cat /f* | wc -l > /out\n");
    space.build_text("deep", &text);
    assert_eq!(space.stdout_of("deep", &["cat", "/out"]), "130\n");
}
