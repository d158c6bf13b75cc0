//! Images on their way out and in: every exporter, read back by the tools that others use, and their archives by us.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::fs::{self, File};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use common::archive::{self, Image};
use common::docker::Docker;
use common::registry::Registry;
use common::{TestSpace, is_root, root_or_skip, tools_or_skip};

/// What layers must carry: owners, modes, links of both kinds, whiteouts, odd names, a fifo, an empty directory.
const DOCKERFILE: &str = r#"FROM busybox
RUN mkdir -p /data/empty /data/opaque/old && echo body > /data/body && chown 33:44 /data/body && chmod 4750 /data/body \
 && ln /data/body /data/hard && ln -s body /data/soft && mkfifo /data/fifo && echo x > "/data/a b" \
 && long=$(printf '%0120d' 7) && mkdir /data/$long && echo long > /data/$long/$long
RUN rm /etc/shadow && rm -r /data/opaque && mkdir /data/opaque && echo new > /data/opaque/new
LABEL purpose="to be saved"
ENTRYPOINT ["cat"]
CMD ["/data/opaque/new"]
"#;

/// A space with that image under two names.
fn space_with_app() -> TestSpace {
    let space = TestSpace::new().with_busybox();
    let context = space.dockerfile(DOCKERFILE);
    space.build(&context, &["-t", "app:v1", "-t", "example.org/team/app"]).ok();
    space
}

fn export(space: &TestSpace, kind: &str, name: &str) -> PathBuf {
    let dest = space.path(name);
    let output = format!("type={kind},dest={}", dest.display());
    space.build(&space.path("ctx"), &["-t", "app:v1", "--output", &output]).ok();
    dest
}

/// Insists that `root` holds the tree of the Dockerfile above, with its owners where it `keeps_owners`.
fn assert_tree(root: &Path, keeps_owners: bool) {
    let stat =
        |name: &str| fs::symlink_metadata(root.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    let (body, hard) = (stat("data/body"), stat("data/hard"));
    assert_eq!(fs::read(root.join("data/body")).unwrap(), b"body\n");
    if keeps_owners && is_root() {
        assert_eq!((body.uid(), body.gid()), (33, 44));
    }
    assert_eq!(body.mode() & 0o7777, 0o4750);
    assert_eq!((body.ino(), body.nlink()), (hard.ino(), 2), "hard links stay one file");
    assert_eq!(fs::read_link(root.join("data/soft")).unwrap(), Path::new("body"));
    assert!(stat("data/fifo").file_type().is_fifo());
    assert!(stat("data/empty").is_dir());
    assert_eq!(fs::read(root.join("data/a b")).unwrap(), b"x\n");
    let long = format!("{:0120}", 7);
    assert_eq!(fs::read(root.join("data").join(&long).join(&long)).unwrap(), b"long\n");
    assert!(!root.join("etc/shadow").exists(), "a removed file of the base");
    let opaque: Vec<_> =
        fs::read_dir(root.join("data/opaque")).unwrap().flatten().map(|e| e.file_name()).collect();
    assert_eq!(opaque, ["new"], "a directory that was removed and made again");
    assert_eq!(stat("tmp").mode() & 0o7777, 0o1777);
    for stub in ["etc/resolv.conf", "etc/hosts"] {
        assert!(!root.join(stub).exists(), "{stub} was lent to the steps, it is no part of the image");
    }
}

#[test]
fn each_archive_agrees_with_its_own_config() {
    let space = space_with_app();
    let oci = Image::from_oci(&export(&space, "oci", "oci.tar"));
    let docker = Image::from_docker(&export(&space, "docker", "docker.tar"));
    assert_eq!(oci.layers.len(), 3);
    assert_eq!(oci.config, docker.config);
    assert_eq!(docker.names, ["app:v1"]);
    assert_eq!(oci.config["config"]["Entrypoint"], serde_json::json!(["cat"]));
    assert_eq!(oci.config["config"]["Labels"]["purpose"], "to be saved");
    let names: Vec<String> = oci.layer(2).into_keys().collect();
    assert!(names.contains(&"etc/.wh.shadow".to_owned()), "{names:?}");
    assert!(
        names.contains(&"data/opaque/.wh..wh..opq".to_owned())
            || names.contains(&"data/opaque/.wh.old".to_owned())
    );
    assert!(
        !names.iter().any(|name| name.starts_with("data/body")),
        "what did not change is not sent again: {names:?}"
    );
}

#[test]
fn the_tar_exporter_writes_the_flat_tree() {
    let space = space_with_app();
    let tar = export(&space, "tar", "flat.tar");
    let entries = archive::read(&tar);
    assert!(entries.keys().all(|name| !name.contains(".wh.")), "no whiteouts in a flat tree");
    let (body, hard) = (&entries["data/body"], &entries["data/hard"]);
    assert_eq!((body.uid, body.gid, body.mode & 0o7777), (33, 44, 0o4750));
    assert!(body.kind == tar::EntryType::Link || hard.kind == tar::EntryType::Link);
    assert!(!entries.contains_key("etc/shadow") && !entries.contains_key("etc/hosts"));
    assert_eq!(
        entries.keys().filter(|name| name.starts_with("proc/") || name.starts_with("sys/")).count(),
        0
    );
    if root_or_skip() {
        let root = space.mkdir("unpacked");
        space.run_tool("tar", ["-xpf", tar.to_str().unwrap(), "-C", root.to_str().unwrap()]).ok();
        assert_tree(&root, true);
    }
    // `-` is stdout.
    let output =
        ["build", "-q", "-o", "type=tar,dest=-", space.path("ctx").to_str().unwrap()].map(str::to_owned);
    let mut command = space.command(output);
    let piped = command.stdout(File::create(space.path("piped.tar")).unwrap()).status().unwrap();
    assert!(piped.success());
    assert_eq!(archive::read(&space.path("piped.tar")), entries);
}

#[test]
fn the_local_exporter_writes_a_directory() {
    let space = space_with_app();
    let tree = export(&space, "local", "tree");
    assert_tree(&tree, false);
    // A directory on the host belongs to who asked for it.
    let caller = fs::metadata(space.path("ctx")).unwrap();
    let body = fs::metadata(tree.join("data/body")).unwrap();
    assert_eq!((body.uid(), body.gid()), (caller.uid(), caller.gid()));
}

#[test]
fn skopeo_inspects_and_copies_our_archives() {
    if !tools_or_skip(&["skopeo"]) {
        return;
    }
    let space = space_with_app();
    let id = space.inspect("app:v1")["Id"].as_str().unwrap().to_owned();
    for (kind, transport) in [("oci", "oci-archive"), ("docker", "docker-archive")] {
        let file = export(&space, kind, kind);
        let source = format!("{transport}:{}", file.display());
        let config = space.run_tool("skopeo", ["inspect", "--config", "--raw", &source]).ok().stdout;
        assert_eq!(archive::sha256(config.as_bytes()), id, "{kind}: the config is the image");
        let seen = space.run_tool("skopeo", ["inspect", &source]).ok().stdout;
        let seen: serde_json::Value = serde_json::from_str(&seen).unwrap();
        assert_eq!(seen["Layers"].as_array().map(Vec::len), Some(3), "{kind}");
        assert_eq!(seen["Labels"]["purpose"], "to be saved", "{kind}");
        let copy = format!("dir:{}", space.path(&format!("{kind}-copy")).display());
        space.run_tool("skopeo", ["--insecure-policy", "copy", &source, &copy]).ok();
    }
}

#[test]
fn umoci_unpacks_our_layers() {
    if !tools_or_skip(&["umoci"]) {
        return;
    }
    let space = space_with_app();
    let file = export(&space, "oci", "oci.tar");
    let layout = space.mkdir("layout");
    space.run_tool("tar", ["-xf", file.to_str().unwrap(), "-C", layout.to_str().unwrap()]).ok();
    let image = format!("{}:v1", layout.display());
    let bundle = space.path("bundle");
    let mut args = vec!["unpack", "--image", &image];
    if !is_root() {
        args.push("--rootless");
    }
    args.push(bundle.to_str().unwrap());
    space.run_tool("umoci", args).ok();
    assert_tree(&bundle.join("rootfs"), true);
}

#[test]
fn podman_loads_and_runs_what_save_writes() {
    if !tools_or_skip(&["podman"]) || !root_or_skip() {
        return;
    }
    let space = space_with_app();
    let file = space.path("saved.tar");
    space.rbuild(["save", "-o", file.to_str().unwrap(), "app:v1", "example.org/team/app"]).ok();
    let root = space.path("podman").display().to_string();
    // Podman refuses a long path here.
    let short = tempfile::tempdir_in("/tmp").unwrap();
    let run = short.path().display().to_string();
    let podman = |args: &[&str]| {
        let all =
            ["--root", &root, "--runroot", &run, "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs"];
        space.run_tool("podman", all.iter().chain(args))
    };
    let said = podman(&["load", "-i", file.to_str().unwrap()]).ok().stdout;
    assert!(said.contains("app:v1") && said.contains("example.org/team/app:latest"), "{said}");
    let id = podman(&["image", "inspect", "--format", "{{.Id}}", "example.org/team/app"]).ok().stdout;
    assert_eq!(format!("sha256:{}", id.trim()), space.inspect("app:v1")["Id"].as_str().unwrap());
    // Mounted by podman, the tree is ours.
    let mounted = podman(&["image", "mount", "example.org/team/app"]).ok().stdout;
    assert_tree(Path::new(mounted.trim()), true);
    podman(&["image", "umount", "--all"]).ok();
}

#[test]
fn docker_loads_and_runs_what_save_writes() {
    let space = space_with_app();
    let Some(docker) = Docker::start(&space) else { return };
    let file = space.path("saved.tar");
    space.rbuild(["save", "-o", file.to_str().unwrap(), "app:v1", "example.org/team/app"]).ok();
    let said = docker.run(&["load", "-i", file.to_str().unwrap()]).ok().stdout;
    assert!(said.contains("Loaded image: app:v1") && said.contains("example.org/team/app:latest"), "{said}");
    let id = docker.run(&["image", "inspect", "--format", "{{.Id}}", "app:v1"]).ok().stdout;
    assert_eq!(id.trim(), space.inspect("app:v1")["Id"].as_str().unwrap());
    let history = docker.run(&["history", "--no-trunc", "app:v1"]).ok().stdout;
    assert!(history.contains("mkfifo /data/fifo"), "{history}");

    // The exporter's archive is good as well, and the image comes back from docker as the one that went.
    let exported = export(&space, "docker", "docker.tar");
    docker.run(&["load", "-i", exported.to_str().unwrap()]).ok();
    let back = space.path("back.tar");
    docker.run(&["save", "-o", back.to_str().unwrap(), "app:v1"]).ok();
    let other = TestSpace::new();
    other.rbuild(["load", "-i", back.to_str().unwrap()]).ok();
    assert_eq!(other.inspect("app:v1")["Id"], space.inspect("app:v1")["Id"]);
    assert_eq!(other.stdout_of("app:v1", &[]), "new\n");
}

#[test]
fn a_registry_takes_our_archives() {
    if !tools_or_skip(&["skopeo"]) {
        return;
    }
    let space = space_with_app();
    let Some(registry) = Registry::start(&space) else { return };
    let file = export(&space, "oci", "oci.tar");
    let (source, there) =
        (format!("oci-archive:{}", file.display()), format!("docker://{}/app:v1", registry.host));
    space.run_tool("skopeo", ["--insecure-policy", "copy", "--dest-tls-verify=false", &source, &there]).ok();
    let back = format!("docker-archive:{}:app:back", space.path("back.tar").display());
    space.run_tool("skopeo", ["--insecure-policy", "copy", "--src-tls-verify=false", &there, &back]).ok();
    let other = TestSpace::new();
    other.rbuild(["load".as_ref(), "-i".as_ref(), space.path("back.tar").as_os_str()]).ok();
    assert_eq!(other.stdout_of("app:back", &[]), "new\n");
}

#[test]
fn save_and_load_bring_an_image_back() {
    let space = space_with_app();
    let file = space.path("saved.tar");
    space.rbuild(["save", "-o", file.to_str().unwrap(), "app:v1", "example.org/team/app"]).ok();
    let id = space.inspect("app:v1")["Id"].clone();
    let saved = fs::read(&file).unwrap();
    // Save to stdout is the same archive.
    let mut command = space.command(["save", "app:v1", "example.org/team/app"]);
    assert!(command.stdout(File::create(space.path("piped.tar")).unwrap()).status().unwrap().success());
    assert_eq!(fs::read(space.path("piped.tar")).unwrap(), saved);

    let other = TestSpace::new();
    let said = other.rbuild_fed(["load"], &saved).ok().stdout;
    assert!(
        said.contains("Loaded image: app:v1") && said.contains("Loaded image: example.org/team/app:latest"),
        "{said}"
    );
    assert_eq!(other.inspect("example.org/team/app")["Id"], id);
    assert_eq!(other.stdout_of("app:v1", &[]), "new\n");
    // What was loaded can be built upon and exported again.
    let context = other.dockerfile("FROM app:v1\nRUN cat /data/body > /copy\n");
    let dest = other.path("tree");
    other.build(&context, &["-o", &format!("type=local,dest={}", dest.display())]).ok();
    assert_tree(&dest, false);
    assert_eq!(fs::read(dest.join("copy")).unwrap(), b"body\n");
}

#[test]
fn archives_of_other_tools_are_loaded() {
    if !tools_or_skip(&["skopeo", "gzip", "zstd"]) {
        return;
    }
    let space = space_with_app();
    let layers = space.inspect("app:v1")["RootFS"].clone();
    let source = format!("oci-archive:{}", export(&space, "oci", "ours.tar").display());
    let skopeo = |flags: &[&str], to: &str| {
        let all = ["--insecure-policy", "copy"].iter().chain(flags).copied().chain([source.as_str(), to]);
        space.run_tool("skopeo", all).ok();
    };
    let file = |name: &str| space.path(name).display().to_string();
    skopeo(&[], &format!("docker-archive:{}:other/app:v2", file("docker.tar")));
    skopeo(&[], &format!("oci-archive:{}:other/app:v2", file("oci.tar")));
    skopeo(
        &["--dest-compress-format", "zstd"],
        &format!("oci-archive:{}:other/app:v2", file("layers-zstd.tar")),
    );
    space.run_tool("gzip", ["-k", &file("docker.tar")]).ok();
    space.run_tool("zstd", ["-q", "-k", &file("oci.tar")]).ok();
    for name in ["docker.tar", "oci.tar", "layers-zstd.tar", "docker.tar.gz", "oci.tar.zst"] {
        let other = TestSpace::new();
        let said = other.rbuild(["load", "--input", &file(name)]).ok().stdout;
        assert!(said.contains("Loaded image"), "{name}: {said}");
        let loaded = said.lines().find_map(|line| line.split_once(": ")).unwrap().1.trim().to_owned();
        assert!(loaded.contains("v2"), "{name}: {said}");
        let image = other.inspect(&loaded);
        assert_eq!(image["RootFS"], layers, "{name}");
        assert_eq!(image["Config"]["Cmd"], serde_json::json!(["/data/opaque/new"]), "{name}");
        assert_eq!(other.stdout_of(&loaded, &[]), "new\n", "{name}");
    }
}

#[test]
fn a_damaged_archive_is_refused_and_leaves_nothing() {
    let space = space_with_app();
    let good = fs::read(export(&space, "oci", "good.tar")).unwrap();
    let other = TestSpace::new();
    let mut flipped = good.clone();
    let place = good.len() / 2;
    flipped[place] ^= 0xff;
    for (what, bytes) in
        [("cut off", &good[..good.len() / 3]), ("flipped", &flipped), ("no archive", b"hello".as_slice())]
    {
        let file = other.write("bad.tar", bytes);
        let failed = other.rbuild(["load".as_ref(), "-i".as_ref(), file.as_os_str()]);
        failed.refuses(1, &["error: "]);
        let listed = other.rbuild(["images", "-q"]).ok().stdout;
        assert_eq!(listed, "", "{what}");
    }
    other.rbuild(["load", "-i", "no-such-file.tar"]).refuses(1, &["no-such-file.tar", "no such file"]);
}

#[test]
fn file_capabilities_survive() {
    if !root_or_skip() || !tools_or_skip(&["setfattr", "getfattr"]) {
        return;
    }
    let space = TestSpace::new();
    let file = space.write("more/ping", "tool");
    // cap_net_raw, effective and permitted, as the kernel stores it.
    let value = "0x0100000200200000000000000000000000000000";
    space.run_tool("setfattr", ["-n", "security.capability", "-v", value, file.to_str().unwrap()]).ok();
    let tar = space.path("base.tar");
    fs::copy(common::base("busybox"), &tar).unwrap();
    let more = space.path("more").display().to_string();
    // Appending to the base itself would drop the attribute, as its entries need no extended headers.
    let with = ["--format=posix", "--xattrs", "--xattrs-include=*", "-cf", "more.tar", "-C", &more, "./ping"];
    space.run_tool("tar", with).ok();
    space.run_tool("tar", ["-Af", "base.tar", "more.tar"]).ok();
    space.rbuild(["import".as_ref(), tar.as_os_str(), "with-caps".as_ref()]).ok();
    let context = space.dockerfile(
        "FROM with-caps AS base\nFROM with-caps\nRUN chmod 711 /ping\nCOPY --from=base /ping /copy/ping\n",
    );
    let dest = space.path("out.tar");
    space.build(&context, &["-t", "caps", "-o", &format!("type=oci,dest={}", dest.display())]).ok();
    let image = Image::from_oci(&dest);
    for (layer, name) in [(0, "ping"), (1, "ping"), (2, "copy/ping")] {
        assert_eq!(image.layer(layer)[name].xattrs, ["security.capability"], "{name} in layer {layer}");
    }
    let other = TestSpace::new();
    other.rbuild(["load".as_ref(), "-i".as_ref(), dest.as_os_str()]).ok();
    let tree = other.path("tree");
    let context = other.dockerfile("FROM caps\n");
    other.build(&context, &["-o", &format!("type=local,dest={}", tree.display())]).ok();
    let seen = other.run_tool(
        "getfattr",
        ["-n", "security.capability", "-e", "hex", tree.join("ping").to_str().unwrap()],
    );
    assert!(seen.ok().stdout.contains(value));
}
