//! One build for several platforms: an index in the store, in archives, in directories and in a registry, which skopeo
//! reads as it is.

mod common;

use common::registry::Registry;
use common::registry_log::LoggedRegistry;
use common::{Done, TestSpace, archive, is_image_id, tools_or_skip};
use serde_json::Value;
use std::fs;
use std::path::Path;

/// One stage that all platforms share, one that knows its target, and files only for each of them.
const THREE_STAGES: &str = "\
FROM --platform=$BUILDPLATFORM busybox AS tool
RUN echo once > /tool
FROM --platform=$BUILDPLATFORM busybox AS cross
ARG TARGETARCH
RUN echo for $TARGETARCH > /bin-$TARGETARCH
FROM scratch
COPY --from=tool /tool /tool
COPY --from=cross /bin-* /
COPY f /
LABEL a=b
";

/// Go's name for this machine's architecture, and another one.
fn architectures() -> (&'static str, &'static str) {
    match std::env::consts::ARCH {
        "aarch64" => ("arm64", "amd64"),
        _ => ("amd64", "arm64"),
    }
}

/// Both as the value of `--platform`, this machine's first.
fn both() -> String {
    let (own, other) = architectures();
    format!("linux/{own},linux/{other}")
}

fn space() -> TestSpace {
    let space = TestSpace::new().with_busybox();
    space.dockerfile(THREE_STAGES);
    space.write("ctx/f", "from the context\n");
    space
}

fn build(space: &TestSpace, args: &[&str]) -> Done {
    let platforms = both();
    let mut all = vec!["--platform", &platforms];
    all.extend(args);
    space.build(&space.path("ctx"), &all)
}

fn json(bytes: impl AsRef<[u8]>) -> Value {
    serde_json::from_slice(bytes.as_ref()).expect("JSON")
}

fn platforms(index: &Value) -> Vec<String> {
    let all = index["manifests"].as_array().expect("an index").iter();
    all.map(|m| {
        format!(
            "{}/{}",
            m["platform"]["os"].as_str().expect("an os"),
            m["platform"]["architecture"].as_str().expect("an architecture")
        )
    })
    .collect()
}

fn listed(space: &TestSpace) -> Vec<String> {
    let lines = space.rbuild(["images", "--format", "{{.Repository}}:{{.Tag}} {{.Platforms}}"]).ok().stdout;
    lines.lines().map(str::to_owned).collect()
}

/// A base image for both platforms in a registry, made by rbuild in a space of its own.
fn push_base(registry: &Registry) -> String {
    let maker = space();
    let name = format!("{}/base:1", registry.host);
    maker.dockerfile("FROM scratch\nARG TARGETARCH\nCOPY f /arch-$TARGETARCH\n");
    build(&maker, &["-t", &name, "--push"]).ok();
    name
}

#[test]
fn one_build_makes_an_image_for_each_platform() {
    let (own, other) = architectures();
    let space = space();
    let (iid, meta) = (space.path("iid"), space.path("meta"));
    let files = ["--iidfile", iid.to_str().unwrap(), "--metadata-file", meta.to_str().unwrap()];
    let first = build(&space, &[&["-t", "app", "-t", "app:2"][..], &files].concat()).ok();
    // what knows nothing of the target runs once, and the labels say what is for whom
    let mut ran: Vec<String> =
        first.executed().into_iter().filter(|title| title.starts_with("RUN")).collect();
    ran.sort();
    let for_arch = |arch: &str| format!("RUN echo for {arch} > /bin-{arch}");
    let mut wanted = vec!["RUN echo once > /tool".to_owned(), for_arch(own), for_arch(other)];
    wanted.sort();
    assert_eq!(ran, wanted, "{first}");
    for label in [
        format!("[linux/{own} tool 2/2] RUN echo once"),
        format!("[linux/{own}->{other} cross 2/2] RUN"),
        format!("[linux/{own} cross 2/2] RUN"),
        format!("[linux/{other} stage-2 3/3] COPY f /"),
    ] {
        assert!(first.stderr.contains(&label), "{label}\n{first}");
    }
    // the files that say what came of it speak of the index
    let id = fs::read_to_string(&iid).unwrap();
    assert!(is_image_id(&id), "{id}");
    let said = json(fs::read(&meta).unwrap());
    assert_eq!(said["containerimage.digest"], id.as_str());
    assert_eq!(said["containerimage.descriptor"]["mediaType"], "application/vnd.oci.image.index.v1+json");
    assert!(said.get("containerimage.config.digest").is_none(), "{said}");
    // the same again: nothing runs, and it is the same index
    let again = build(&space, &[&["-t", "app"][..], &files].concat()).ok();
    assert_eq!(again.executed(), [""; 0], "{again}");
    assert_eq!(fs::read_to_string(&iid).unwrap(), id);
    // the store knows it as one image of two names, and chooses the one for this machine
    let row = |tag: &str| format!("app:{tag} linux/{own},linux/{other}");
    for tag in ["latest", "2"] {
        assert!(listed(&space).contains(&row(tag)), "{:?}", listed(&space));
    }
    let (told, here) = (space.inspect("app"), space.inspect(&id));
    assert_eq!((&told["Id"], &told["Architecture"]), (&Value::from(id.as_str()), &Value::from(own)));
    assert_eq!(told, here);
    assert_eq!(told["Manifests"].as_array().unwrap().len(), 2);
    let of_other =
        space.rbuild(["image", "inspect", "--platform", &format!("linux/{other}"), "app"]).ok().stdout;
    let of_other = json(of_other);
    assert_eq!(of_other[0]["Architecture"], other);
    let by_id = space.inspect(of_other[0]["Id"].as_str().unwrap());
    assert_eq!((&by_id["Architecture"], &by_id["RepoTags"]), (&Value::from(other), &told["RepoTags"]));
    let history = space.rbuild([
        "history",
        "--platform",
        &format!("linux/{other}"),
        "--format",
        "{{.CreatedBy}}",
        "app",
    ]);
    assert_eq!(history.ok().stdout.lines().next(), Some("LABEL a=b"));
    space
        .rbuild(["inspect", "--type", "image", "--platform", "linux/s390x", "app"])
        .refuses(1, &["no image for linux/s390x", &format!("linux/{own}, linux/{other}")]);
}

#[test]
fn what_it_consists_of_stays_and_goes_with_its_names() {
    let (_, other) = architectures();
    let space = space();
    build(&space, &["-t", "app", "--squash"]).ok();
    space.rbuild(["tag", "app", "two:1"]).ok();
    let id = |arch: &str| {
        let text =
            space.rbuild(["image", "inspect", "--platform", &format!("linux/{arch}"), "app"]).ok().stdout;
        json(text)[0]["Id"].as_str().unwrap().to_owned()
    };
    let of_other = id(other);
    // the parts have no life of their own
    space.rbuild(["rmi", &of_other]).refuses(1, &["one of several in", "app:latest", "as a whole"]);
    assert_eq!(space.rbuild(["rmi", "app"]).ok().stdout, "Untagged: app:latest\n");
    // gc keeps all of them
    space.rbuild(["system", "prune", "-f"]).ok();
    space.rbuild(["builder", "prune", "-a", "-f"]).ok();
    let saved = space.path("saved.tar");
    space.rbuild(["save", "two:1", "-o", saved.to_str().unwrap()]).ok();
    let out = space.path("out");
    space
        .rbuild([
            "save",
            "--platform",
            &format!("linux/{other}"),
            "--format",
            "oci",
            "two:1",
            "-o",
            out.to_str().unwrap(),
        ])
        .ok();
    let image = archive::Image::from_oci(&out);
    assert_eq!(image.config["architecture"], other);
    assert_eq!(image.layer(0).keys().filter(|p| p.starts_with("bin-")).count(), 1);
    // an archive for all has them all, and others choose from it
    let members = archive::read(&saved);
    let index = json(&members["index.json"].content);
    let top = index["manifests"][0]["digest"].as_str().unwrap().replace(':', "/");
    assert_eq!(platforms(&json(&members[&format!("blobs/{top}")].content)).join(","), both());
    let elsewhere = TestSpace::new();
    elsewhere.rbuild(["load", "--platform", &format!("linux/{other}"), "-i", saved.to_str().unwrap()]).ok();
    assert_eq!(elsewhere.inspect("two:1")["Architecture"], other);
    // the last name takes everything along
    let gone = space.rbuild(["rmi", "two:1"]).ok().stdout;
    assert_eq!(gone.lines().filter(|line| line.starts_with("Deleted: sha256:")).count(), 2, "{gone}");
    space.rbuild(["inspect", &of_other]).refuses(1, &["no such"]);
    let blobs = fs::read_dir(space.store().join("images/blobs/sha256")).unwrap().count();
    // those of busybox: config, manifest and layer
    assert!(blobs <= 3, "{blobs} blobs are left");
}

#[test]
fn an_index_goes_to_a_registry_and_skopeo_reads_it() {
    if !tools_or_skip(&["skopeo"]) {
        return;
    }
    let (_, other) = architectures();
    let space = space();
    let Some(registry) = LoggedRegistry::start(&space) else { return };
    let name = format!("{}/team/app:v1", registry.host);
    let meta = space.path("meta");
    let notes = [
        "index:i=1".to_owned(),
        format!("manifest[linux/{other}]:m=2"),
        "manifest-descriptor:d=3".to_owned(),
    ];
    let mut args = vec!["-t", &name, "--push", "--metadata-file", meta.to_str().unwrap()];
    notes.iter().for_each(|note| args.extend(["--annotation", note]));
    build(&space, &args).ok();
    let digest = json(fs::read(&meta).unwrap())["containerimage.digest"].as_str().unwrap().to_owned();
    let at = format!("docker://{name}");
    let raw = space.run_tool("skopeo", ["inspect", "--tls-verify=false", "--raw", &at]).ok().stdout;
    assert_eq!(format!("sha256:{}", archive::sha256(raw.as_bytes()).trim_start_matches("sha256:")), digest);
    let index = json(&raw);
    assert_eq!(platforms(&index).join(","), both());
    assert_eq!(index["annotations"]["i"], "1");
    assert!(index["manifests"].as_array().unwrap().iter().all(|m| m["annotations"]["d"] == "3"));
    // each platform's image is the one that was built for it
    for (arch, note) in [(architectures().0, None), (other, Some("2"))] {
        let part =
            index["manifests"].as_array().unwrap().iter().find(|m| m["platform"]["architecture"] == arch);
        let part = format!(
            "docker://{}@{}",
            name.trim_end_matches(":v1"),
            part.unwrap()["digest"].as_str().unwrap()
        );
        let raw = space.run_tool("skopeo", ["inspect", "--tls-verify=false", "--raw", &part]).ok().stdout;
        assert_eq!(json(&raw)["annotations"]["m"].as_str(), note);
        let config =
            space.run_tool("skopeo", ["inspect", "--tls-verify=false", "--config", &part]).ok().stdout;
        assert_eq!(json(&config)["architecture"], arch);
    }
    let layout = format!("oci:{}:v1", space.path("layout").display());
    space.run_tool("skopeo", ["copy", "-q", "--all", "--src-tls-verify=false", &at, &layout]).ok();
    let copied = json(fs::read(space.path("layout/index.json")).unwrap());
    assert_eq!(copied["manifests"][0]["digest"], digest.as_str());
    // what is there already is asked for once and not sent again
    registry.forget();
    let pushed = space.rbuild(["push", &name]).ok();
    assert!(pushed.stdout.contains(&format!("v1: digest: {digest}")), "{pushed}");
    let asked = registry.asked();
    assert!(asked.iter().all(|line| line.starts_with("HEAD ") || line == "GET /v2/"), "{asked:?}");
    // and comes back for either
    let elsewhere = TestSpace::new();
    for arch in [other, architectures().0] {
        elsewhere.rbuild(["pull", "-q", "--platform", &format!("linux/{arch}"), &name]).ok();
        assert_eq!(elsewhere.inspect(&name)["Architecture"], arch);
    }
    // one of them alone is a plain image
    let alone = format!("{}/team/alone:v1", registry.host);
    space.rbuild(["tag", &name, &alone]).ok();
    space.rbuild(["push", "--platform", &format!("linux/{other}"), &alone]).ok();
    let raw = space
        .run_tool("skopeo", ["inspect", "--tls-verify=false", "--raw", &format!("docker://{alone}")])
        .ok();
    assert_eq!(json(raw.stdout)["mediaType"], "application/vnd.oci.image.manifest.v1+json");
}

#[test]
fn files_go_out_by_platform() {
    let (own, other) = architectures();
    let space = space();
    let out = |name: &str| space.path(name).display().to_string();
    let args = [
        format!("type=local,dest={}", out("dir")),
        format!("type=tar,dest={}", out("files.tar")),
        format!("type=oci,dest={},annotation-index.k=v", out("oci.tar")),
        format!("type=oci,dest={},tar=false,compression=zstd", out("layout")),
    ];
    let args: Vec<&str> = args.iter().flat_map(|spec| ["-o", spec]).collect();
    build(&space, &args).ok();
    let in_tar = archive::read(Path::new(&out("files.tar")));
    for arch in [own, other] {
        let bin = format!("linux_{arch}/bin-{arch}");
        assert_eq!(fs::read_to_string(space.path("dir").join(&bin)).unwrap(), format!("for {arch}\n"));
        assert_eq!(in_tar[&bin].content, format!("for {arch}\n").into_bytes());
        assert_eq!(in_tar[&format!("linux_{arch}/f")].content, b"from the context\n");
    }
    let names = fs::read_dir(space.path("dir")).unwrap().count();
    assert_eq!(names, 2, "nothing but the directories of the platforms");
    let members = archive::read(Path::new(&out("oci.tar")));
    let top = json(&members["index.json"].content);
    assert_eq!(top["manifests"].as_array().unwrap().len(), 1);
    let blob = format!("blobs/{}", top["manifests"][0]["digest"].as_str().unwrap().replace(':', "/"));
    let index = json(&members[&blob].content);
    assert_eq!((platforms(&index).join(","), &index["annotations"]["k"]), (both(), &Value::from("v")));
    if tools_or_skip(&["skopeo"]) {
        let layout = format!("oci:{}", out("layout"));
        let copy = format!("oci:{}", out("copy"));
        space.run_tool("skopeo", ["copy", "-q", "--all", &layout, &copy]).ok();
    }
    // in one directory they may meet where they have different names only
    let flat = format!("type=local,dest={},platform-split=false", out("flat"));
    build(&space, &["-o", &flat]).refuses(1, &["/f of", "for another platform", "platform-split"]);
    space.dockerfile("FROM scratch\nARG TARGETARCH\nCOPY f /f-$TARGETARCH\n");
    build(&space, &["-o", &flat]).ok();
    assert!(
        space.path("flat").join(format!("f-{other}")).exists()
            && space.path("flat").join(format!("f-{own}")).exists()
    );
    // refused before anything is built
    let docker = format!("type=docker,dest={}", out("docker.tar"));
    let refused =
        build(&space, &["-o", &docker]).refuses(1, &["does not currently support exporting manifest lists"]);
    assert_eq!(refused.steps().len(), 0, "{refused}");
}

#[test]
fn a_base_is_kept_for_each_platform() {
    let held = TestSpace::new();
    let Some(registry) = Registry::start(&held) else { return };
    let name = push_base(&registry);
    let (own, other) = architectures();
    let space = space();
    space.dockerfile(&format!("FROM {name}\nCOPY f /new\n"));
    build(&space, &["-t", "app"]).ok();
    // from now on the registry is not needed: neither platform's base has pushed the other one out
    for platforms in [both(), format!("linux/{own}"), format!("linux/{other}")] {
        let out = space.path(&format!("out-{}", platforms.replace([',', '/'], "-")));
        let dest = format!("type=oci,dest={}", out.display());
        space.build(&space.path("ctx"), &["--pull=never", "--platform", &platforms, "-o", &dest]).ok();
    }
    let row = listed(&space).into_iter().find(|row| row.starts_with(&name)).unwrap();
    let mut of_base: Vec<String> = row.split(' ').nth(1).unwrap().split(',').map(str::to_owned).collect();
    of_base.sort();
    assert_eq!(of_base, ["linux/amd64", "linux/arm64"]);
    let dir = space.path("dir");
    build(&space, &["--pull=never", "-o", dir.to_str().unwrap()]).ok();
    for arch in [own, other] {
        assert!(dir.join(format!("linux_{arch}/arch-{arch}")).exists());
    }
    // a context may name a layout with images for both
    let layout = format!("type=oci,tar=false,dest={}", space.path("layout").display());
    build(&space, &["--pull=never", "-o", &layout]).ok();
    space.dockerfile("FROM given\nCOPY f /newer\n");
    let given = format!("given=oci-layout://{}", space.path("layout").display());
    let dir = space.path("second");
    build(&space, &["--build-context", &given, "-o", dir.to_str().unwrap()]).ok();
    for arch in [own, other] {
        assert!(dir.join(format!("linux_{arch}/arch-{arch}")).exists(), "{arch}");
    }
}

#[test]
fn caches_hold_the_steps_of_all_platforms() {
    let held = TestSpace::new();
    let Some(registry) = Registry::start(&held) else { return };
    let (cache, name) = (format!("{}/cache", registry.host), format!("{}/app:1", registry.host));
    let first = space();
    let to = format!("type=registry,ref={cache},mode=max");
    build(&first, &["-t", &name, "--push", "--cache-to", &to]).ok();
    let inline = format!("{}/inline:1", registry.host);
    build(&first, &["-t", &inline, "--push", "--cache-to", "type=inline"]).ok();
    for from in [&cache, &inline] {
        let second = space();
        let dir = second.path("dir");
        let done = build(&second, &["-t", "app", "-o", dir.to_str().unwrap(), "--cache-from", from]).ok();
        assert_eq!(done.executed(), [""; 0], "{from}\n{done}");
        let (own, other) = architectures();
        for arch in [own, other] {
            let file = dir.join(format!("linux_{arch}/bin-{arch}"));
            assert_eq!(fs::read_to_string(file).unwrap(), format!("for {arch}\n"));
        }
    }
}

#[test]
fn what_is_asked_of_several_platforms_is_answered() {
    let space = space();
    let warned = build(&space, &["--check"]);
    assert!(warned.stdout.contains("no warnings found"), "{warned}");
    space.dockerfile("FROM scratch\nARG TARGETARCH\nCOPY f $nothing/f\n");
    let warned = build(&space, &["--check"]).refuses(1, &["1 warning has"]);
    assert_eq!(warned.stdout.matches("UndefinedVar").count(), 1, "said once for both\n{warned}");
    // one platform named twice is one
    let (own, other) = architectures();
    let twice = format!("linux/{own},linux/{own}");
    space.dockerfile("FROM scratch\nCOPY f /\n");
    space
        .build(
            &space.path("ctx"),
            &["--platform", &twice, "--platform", &format!("linux/{own}"), "-t", "one"],
        )
        .ok();
    assert!(listed(&space).contains(&format!("one:latest linux/{own}")), "{:?}", listed(&space));
    // repeated flags are as good as commas
    space
        .build(
            &space.path("ctx"),
            &["--platform", &format!("linux/{other}"), "--platform", &format!("linux/{own}"), "-t", "two"],
        )
        .ok();
    assert!(
        listed(&space).contains(&format!("two:latest linux/{other},linux/{own}")),
        "{:?}",
        listed(&space)
    );
    space
        .build(&space.path("ctx"), &["--platform", "linux/am d64,linux/arm64"])
        .refuses(1, &["is not a platform"]);
    // programs of another machine need an emulator
    if !Path::new("/proc/sys/fs/binfmt_misc/qemu-s390x").exists() {
        space.dockerfile("FROM scratch\nCOPY f /\nRUN [\"/f\"]\n");
        let platforms = format!("linux/{own},linux/s390x");
        space.build(&space.path("ctx"), &["--platform", &platforms]).refuses(1, &["s390x"]);
    }
}
