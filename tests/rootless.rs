//! Everything as an ordinary user: builds, runs, networks and archives without root.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt;

use common::TestSpace;
use common::archive::Image;

#[test]
fn an_ordinary_user_builds_and_runs() {
    let Some(space) = TestSpace::rootless() else { return };
    let space = space.with_busybox();
    space.write("ctx/words", "hello\n");
    let context = space.dockerfile(
        "FROM busybox AS build\nCOPY --chown=33:44 words /words\nRUN id -u > /id && tr a-z A-Z < /words > /loud && chown 1234:4321 /loud && chmod 4711 /loud\n\
         FROM busybox\nCOPY --from=build /words /loud /id /\nRUN stat -c '%u:%g %a' /words /loud > /owners\nUSER nobody\nRUN id -u > /tmp/user\nCMD [\"cat\", \"/id\", \"/loud\", \"/owners\", \"/tmp/user\"]\n",
    );
    space.build(&context, &["-t", "app"]).ok();
    assert_eq!(
        space.stdout_of("app", &["sh", "-c", "cat /id /owners /tmp/user"]),
        "0\n33:44 644\n1234:4321 4711\n65534\n"
    );
    space.build(&context, &["-t", "app"]).ok().assert_executed(&[]);
    let named = ["run", "--rm", "--network", "none", "-h", "box", "--domainname", "example"];
    let script = ["busybox", "cat", "/proc/sys/kernel/hostname", "/proc/sys/kernel/domainname"];
    assert_eq!(space.rbuild([&named[..], &script[..]].concat()).ok().stdout, "box\nexample\n");
    space.assert_nothing_runs();
}

/// What a container shares with the machine is not the user's to join, and `exec` gets in all the same.
#[test]
fn namespaces_of_the_machine_are_no_hindrance() {
    let Some(space) = TestSpace::rootless() else { return };
    let space = space.with_busybox();
    let flags = ["--pid", "--network", "--uts", "--ipc", "--cgroupns"];
    for flag in flags {
        space.rbuild(["run", "-d", "--name", &flag[2..], flag, "host", "busybox", "sleep", "3600"]).ok();
        let said = space.rbuild(["exec", &flag[2..], "sh", "-c", "echo $(cat /proc/self/comm) is in"]).ok();
        assert_eq!(said.stdout, "cat is in\n", "{flag}");
    }
    space.rbuild(["rm", "-f"].into_iter().chain(flags.map(|flag| &flag[2..]))).ok();
    let shared = format!("{}:/h:rshared", space.mkdir("dir").display());
    space
        .rbuild(["run", "--rm", "-v", &shared, "busybox", "true"])
        .refuses(125, &["not a shared mount", "ordinary user"]);
}

#[test]
fn images_carry_the_ids_of_the_container() {
    let Some(space) = TestSpace::rootless() else { return };
    let space = space.with_busybox();
    let context = space.dockerfile("FROM busybox\nRUN touch /f && chown 1234:4321 /f && rm /etc/shadow && rm -r /home && mkdir /home && touch /home/x\n");
    let dest = space.path("out.tar");
    space.build(&context, &["-t", "app", "-o", &format!("type=oci,dest={}", dest.display())]).ok();
    let image = Image::from_oci(&dest);
    let layer = image.layer(1);
    assert_eq!((layer["f"].uid, layer["f"].gid), (1234, 4321));
    assert!(layer.contains_key("etc/.wh.shadow"), "{:?}", layer.keys());
    assert!(
        layer.values().all(|entry| entry.xattrs.iter().all(|name| !name.contains("overlay"))),
        "{layer:?}"
    );
    assert_eq!(
        fs::metadata(&dest).unwrap().uid(),
        fs::metadata(space.path("home")).unwrap().uid(),
        "the file is the user's"
    );

    // The same archive serves root.
    let other = TestSpace::new();
    other.rbuild(["load".as_ref(), "-i".as_ref(), dest.as_os_str()]).ok();
    assert_eq!(other.stdout_of("app", &["stat", "-c", "%u:%g", "/f"]), "1234:4321\n");
}

#[test]
fn packages_are_installed_without_root() {
    let Some(space) = TestSpace::rootless() else { return };
    let space = space.with_debian();
    let context = space.dockerfile(
        "FROM debian\nRUN apt-get update && apt-get install -y --no-install-recommends tree && rm -rf /var/lib/apt/lists/*\nCMD [\"tree\", \"--version\"]\n",
    );
    space.build(&context, &["-t", "app"]).ok();
    let said = space.stdout_of("app", &[]);
    assert!(said.starts_with("tree v"), "{said}");
    space.assert_nothing_runs();
}

#[test]
fn the_store_is_in_the_users_home_by_default() {
    let Some(space) = TestSpace::rootless() else { return };
    let mut command = space.command(["info"]);
    let default =
        common::process::finish(command.env_remove("RBUILD_ROOT"), None, std::time::Duration::from_secs(60))
            .ok();
    let home = space.path("home");
    let expected = home.join(".local/share/rbuild");
    assert!(default.stdout.contains(expected.to_str().unwrap()), "{default}");
    let data = space.mkdir("data");
    let mut command = space.command(["info"]);
    command.env_remove("RBUILD_ROOT").env("XDG_DATA_HOME", &data);
    let chosen = common::process::finish(&mut command, None, std::time::Duration::from_secs(60)).ok();
    assert!(chosen.stdout.contains(data.join("rbuild").to_str().unwrap()), "{chosen}");
    assert!(chosen.stdout.to_lowercase().contains("rootless"), "{chosen}");
}

#[test]
fn steps_reach_the_network_and_none_is_none() {
    let Some(space) = TestSpace::rootless() else { return };
    let space = space.with_busybox();
    space.build_text("app", "FROM busybox\nRUN ip route | grep -c ^default > /out; grep -c nameserver /etc/resolv.conf >> /out\nRUN --network=none ip route | wc -l >> /out\n");
    assert_eq!(space.stdout_of("app", &["cat", "/out"]), "1\n1\n0\n");
    let host = fs::read_link("/proc/self/ns/net").unwrap().display().to_string();
    let seen = space
        .rbuild(["run", "--rm", "--network", "host", "busybox", "readlink", "/proc/self/ns/net"])
        .ok()
        .stdout;
    assert_eq!(seen.trim(), host);
    space.assert_nothing_runs();
}

#[test]
fn a_user_without_subordinate_ids_is_told_and_served() {
    let Some(space) = TestSpace::rootless_without_ranges() else { return };
    let imported = space.import("busybox");
    let context = space.dockerfile("FROM busybox\nRUN id -u > /out && echo hi >> /out\n");
    let built = space.build(&context, &["-t", "app"]).ok();
    let said = format!("{imported}{built}");
    assert!(said.contains("--add-subuids"), "the warning says how to get them\n{said}");
    assert_eq!(space.stdout_of("app", &["cat", "/out"]), "0\nhi\n");
}

#[test]
fn runs_keep_exit_codes_and_signals() {
    let Some(space) = TestSpace::rootless() else { return };
    let space = space.with_busybox();
    space.rbuild(["run", "--rm", "--network", "none", "busybox", "sh", "-c", "exit 9"]).code(9);
    space.rbuild(["run", "--rm", "--network", "none", "busybox", "nope"]).refuses(127, &["nope"]);
    let mut running = common::process::Running::start(&mut space.command([
        "run",
        "--rm",
        "busybox",
        "sh",
        "-c",
        "trap 'exit 4' TERM; echo ready; while :; do sleep 0.05; done",
    ]));
    running.wait_for("ready", std::time::Duration::from_secs(60));
    running.signal(nix::sys::signal::Signal::SIGTERM);
    running.wait(std::time::Duration::from_secs(60)).code(4);
    space.assert_nothing_runs();
}
