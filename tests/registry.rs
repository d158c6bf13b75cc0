//! Pull and push against a real registry, with skopeo as the second opinion.

mod common;

use common::process::{Running, eventually};
use common::registry::Registry;
use common::web::{self, Meter, Stall, Web};
use common::{TestSpace, archive, tools_or_skip};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::fs;
use std::time::Duration;

/// No step of a test takes as long.
const PATIENCE: Duration = Duration::from_secs(120);

/// A space with an image of two layers above the base, named so that it belongs into `host`.
fn space_with_app(host: &str) -> (TestSpace, String) {
    let space = TestSpace::new().with_busybox();
    let name = format!("{host}/team/app:v1");
    let context = space.dockerfile(
        "FROM busybox\nRUN echo first > /first && chmod 4755 /first\nRUN echo second > /second && rm /etc/shadow\nCMD [\"cat\", \"/first\", \"/second\"]\n",
    );
    space.build(&context, &["-t", &name]).ok();
    (space, name)
}

/// A registry in a space of its own, which must live as long.
fn registry() -> Option<(TestSpace, Registry)> {
    let space = TestSpace::new();
    let registry = Registry::start(&space)?;
    Some((space, registry))
}

fn digest_of(done: &common::Done) -> String {
    let at = done.stdout.find("sha256:").unwrap_or_else(|| panic!("no digest in\n{done}"));
    done.stdout[at..at + 71].to_owned()
}

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).expect("JSON")
}

fn blobs_asked(sent: &str) -> usize {
    sent.lines().filter(|l| l.starts_with("GET ") && l.contains("/blobs/")).count()
}

#[test]
fn what_is_pushed_comes_back() {
    let Some((_held, registry)) = registry() else { return };
    let (space, name) = space_with_app(&registry.host);
    let pushed = space.rbuild(["push", &name]).ok();
    assert!(
        pushed.stdout.starts_with(&format!("The push refers to repository [{}/team/app]", registry.host))
    );
    assert!(pushed.stdout.matches(": Pushed").count() == 3 && pushed.stdout.contains("v1: digest: sha256:"));
    let other = TestSpace::new();
    let pulled = other.rbuild(["pull", &name]).ok();
    for words in ["v1: Pulling from team/app", "Digest: sha256:", "Status: Downloaded newer image for", &name]
    {
        assert!(pulled.stdout.contains(words), "{words}\n{pulled}");
    }
    assert_eq!(digest_of(&pulled), digest_of(&pushed));
    assert_eq!(other.inspect(&name)["Id"], space.inspect(&name)["Id"]);
    assert_eq!(other.stdout_of(&name, &[]), "first\nsecond\n");
    // again: nothing to do, and the words say so
    let again = other.rbuild(["pull", &name]).ok();
    assert!(again.stdout.contains("Status: Image is up to date for"), "{again}");
    assert_eq!(other.rbuild(["pull", "-q", &name]).ok().stdout, format!("{name}\n"));
    // by digest, which is then a name of its own
    let digest = digest_of(&pushed);
    let by_digest = format!("{}/team/app@{digest}", registry.host);
    let third = TestSpace::new();
    third.rbuild(["pull", &by_digest]).ok();
    assert_eq!(third.stdout_of(&by_digest, &["cat", "/first"]), "first\n");
    // what was pulled goes elsewhere with the same digest, its blobs as they came
    let copy = format!("{}/copies/app:v1", registry.host);
    other.rbuild(["tag", &name, &copy]).ok();
    let copied = other.rbuild(["push", &copy]).ok();
    assert_eq!(digest_of(&copied), digest);
    assert_eq!(copied.stdout.matches("Mounted from another repository").count(), 3, "{copied}");
    other.rbuild(["pull", &format!("{}/team/app:nope", registry.host)]).refuses(1, &["MANIFEST_UNKNOWN"]);
    other.rbuild(["push", &format!("{}/team/none:1", registry.host)]).refuses(1, &["no such image"]);
}

#[test]
fn an_unchanged_push_sends_next_to_nothing() {
    let Some((_held, registry)) = registry() else { return };
    let meter = Meter::before(&registry.host);
    let (space, name) = space_with_app(&meter.host);
    space.rbuild(["push", &name]).ok();
    assert!(meter.take().len() > 500_000, "the first push sends layers");
    let again = space.rbuild(["push", &name]).ok();
    let sent = meter.take();
    assert!(sent.len() < 2_000, "{} bytes for an unchanged push:\n{sent}", sent.len());
    assert_eq!(again.stdout.matches("Layer already exists").count(), 3, "{again}");
    // another tag of the same image sends the manifest alone
    let other = format!("{}/team/app:v2", meter.host);
    space.rbuild(["tag", &name, &other]).ok();
    space.rbuild(["push", &other]).ok();
    let sent = meter.take();
    assert!(sent.len() < 6_000 && !sent.contains("POST "), "{} bytes for another tag:\n{sent}", sent.len());
    // a further layer is the only one that travels
    let context = space.dockerfile(&format!("FROM {name}\nRUN echo third > /third\n"));
    space.build(&context, &["-t", &other, "--push"]).ok();
    let sent = meter.take();
    assert_eq!(
        sent.lines().filter(|l| l.starts_with("PUT ") && l.contains("/blobs/")).count(),
        2,
        "layer and config"
    );
}

#[test]
fn layers_that_are_here_do_not_travel() {
    let Some((_held, registry)) = registry() else { return };
    let meter = Meter::before(&registry.host);
    let (space, name) = space_with_app(&meter.host);
    let next = format!("{}/team/app:v2", meter.host);
    let context = space.dockerfile(&format!("FROM {name}\nRUN echo third > /third\n"));
    space.build(&context, &["-t", &next]).ok();
    space.rbuild(["push", "-a", &format!("{}/team/app", meter.host)]).ok();
    let other = TestSpace::new();
    other.rbuild(["pull", &name]).ok();
    meter.take();
    other.rbuild(["pull", &next]).ok();
    assert_eq!(blobs_asked(&meter.take()), 2, "a config and the new layer");
    other.rbuild(["pull", "-q", "-a", &format!("{}/team/app", meter.host)]).ok();
    assert!(blobs_asked(&meter.take()) <= 2, "configs at most");
    assert_eq!(other.stdout_of(&next, &["cat", "/third"]), "third\n");
    // a base that is here needs no registry, unless one insists
    let context = other.dockerfile(&format!("FROM {next}\nRUN true\n"));
    other.build(&context, &[]).ok();
    assert_eq!(meter.take(), "");
    other.build(&context, &["--pull"]).ok();
    assert!(meter.take().contains("/manifests/v2"));
}

#[test]
fn two_processes_fetch_a_layer_once() {
    let Some((_held, registry)) = registry() else { return };
    let meter = Meter::before(&registry.host);
    let (space, name) = space_with_app(&meter.host);
    space.rbuild(["push", &name]).ok();
    meter.take();
    let other = TestSpace::new();
    let start = || other.command(["pull", &name]).spawn().expect("rbuild starts");
    let pulls: Vec<_> = (0..4).map(|_| start()).collect();
    for pull in pulls {
        let done = pull.wait_with_output().expect("it ends");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
    let sent = meter.take();
    let layers = other.inspect(&name)["RootFS"]["Layers"].as_array().map_or(0, Vec::len);
    // each process asks for the config, which is small; layers come once
    assert!(blobs_asked(&sent) <= layers + 4, "{} blobs for {layers} layers", blobs_asked(&sent));
    assert_eq!(other.stdout_of(&name, &[]), "first\nsecond\n");
}

#[test]
fn a_killed_pull_leaves_no_name_and_the_next_one_works() {
    let Some((_held, registry)) = registry() else { return };
    let (space, _) = space_with_app(&registry.host);
    let name = format!("{}/team/big:1", registry.host);
    let context = space.dockerfile("FROM busybox\nRUN dd if=/dev/urandom of=/big bs=1M count=40\n");
    space.build(&context, &["-t", &name]).ok();
    space.rbuild(["push", &name]).ok();
    let other = TestSpace::new();
    for millis in [20, 60, 120, 200] {
        let mut pull = other.command(["pull", &name]).spawn().expect("rbuild starts");
        std::thread::sleep(std::time::Duration::from_millis(millis));
        let _ = pull.kill();
        let _ = pull.wait();
    }
    other.rbuild(["pull", &name]).ok();
    assert_eq!(other.inspect(&name)["Id"], space.inspect(&name)["Id"]);
    let left = fs::read_dir(other.store().join("tmp")).expect("a store").flatten().count();
    assert_eq!(left, 0, "what dead pulls left is swept");
}

#[test]
fn an_interrupted_transfer_ends_soon_and_keeps_what_is_whole() {
    let Some((_held, registry)) = registry() else { return };
    let (space, name) = space_with_app(&registry.host);
    // a push whose layers the registry does not take
    let deaf = Stall::before(&registry.host, |sent| sent.contains("PUT /v2/"));
    let elsewhere = format!("{}/team/app:v1", deaf.host);
    space.rbuild(["tag", &name, &elsewhere]).ok();
    let mut push = Running::start(&mut space.command(["push", &elsewhere]));
    push.wait_for("push layer", PATIENCE);
    push.signal(Signal::SIGINT);
    let done = push.wait(PATIENCE).refuses(130, &["interrupted"]);
    assert!(!done.stdout.contains("digest:"), "{done}");
    assert_eq!(files_in(&space.store().join("tmp")), 0);
    // and the next one goes through
    let pushed = space.rbuild(["push", &name]).ok();
    let layers = space.inspect(&name)["RootFS"]["Layers"].as_array().map_or(0, Vec::len);
    assert_eq!(pushed.stdout.matches(": Pushed").count(), layers, "{pushed}");
    // a pull of which the second layer does not come
    let raw = json(space.rbuild(["manifest", "inspect", &name]).ok().stdout.as_bytes());
    let second = raw["layers"][1]["digest"].as_str().expect("a layer").to_owned();
    let mute =
        Stall::before(&registry.host, move |sent| sent.contains(&format!("GET /v2/team/app/blobs/{second}")));
    let slow = format!("{}/team/app:v1", mute.host);
    let other = TestSpace::new();
    let mut pull = Running::start(&mut other.command(["pull", &slow]));
    let blobs = other.store().join("images/blobs/sha256");
    let whole = || raw["layers"].as_array().expect("layers").iter();
    let has = |layer: &Value| {
        let digest = layer["digest"].as_str().expect("a digest");
        blobs.join(digest.trim_start_matches("sha256:")).exists()
    };
    pull.wait_for("pull layer", PATIENCE);
    eventually("the other layers come", PATIENCE, || {
        whole().filter(|layer| has(layer)).count() == layers - 1
    });
    pull.signal(Signal::SIGTERM);
    pull.wait(PATIENCE).refuses(143, &["interrupted"]);
    assert_eq!(files_in(&other.store().join("tmp")), 0);
    other.rbuild(["inspect", &slow]).refuses(1, &["no such"]);
    // a run that waits for its image is no different
    let mut run = Running::start(&mut other.command(["run", "--rm", "--network", "none", &slow]));
    run.wait_for("pull layer", PATIENCE);
    run.signal(Signal::SIGINT);
    run.wait(PATIENCE).refuses(130, &["interrupted"]);
    assert_eq!(files_in(&other.store().join("tmp")), 0);
    // what had come is not asked for again
    let meter = Meter::before(&registry.host);
    let name = format!("{}/team/app:v1", meter.host);
    other.rbuild(["pull", &name]).ok();
    // the config, and the layer that was missing
    assert_eq!(blobs_asked(&meter.take()), 2);
    assert_eq!(other.stdout_of(&name, &[]), "first\nsecond\n");
}

fn files_in(dir: &std::path::Path) -> usize {
    fs::read_dir(dir).expect("a directory").flatten().count()
}

#[test]
fn skopeo_and_we_agree_on_digests() {
    if !tools_or_skip(&["skopeo"]) {
        return;
    }
    let Some((_held, registry)) = registry() else { return };
    let (space, name) = space_with_app(&registry.host);
    let pushed = digest_of(&space.rbuild(["push", &name]).ok());
    let seen =
        space.run_tool("skopeo", ["inspect", "--tls-verify=false", &format!("docker://{name}")]).ok().stdout;
    let seen: Value = serde_json::from_str(&seen).expect("skopeo prints JSON");
    assert_eq!(seen["Digest"].as_str(), Some(pushed.as_str()));
    let copy = |args: &[&str]| {
        let all = ["--insecure-policy", "copy", "--src-tls-verify=false", "--dest-tls-verify=false"];
        space.run_tool("skopeo", all.iter().chain(args)).ok();
    };
    // ours, as skopeo checks and copies it
    let dir = space.path("copy");
    copy(&[&format!("docker://{name}"), &format!("dir:{}", dir.display())]);
    assert_eq!(archive::sha256(&fs::read(dir.join("manifest.json")).unwrap()), pushed);
    // skopeo's, in every form that there is, as we pull it and push it on
    for (form, flags) in [
        ("oci", &["--format", "oci"][..]),
        ("docker", &["--format", "v2s2"]),
        ("zstd", &["--format", "oci", "--dest-compress-format", "zstd"]),
    ] {
        let theirs = format!("{}/theirs/{form}:1", registry.host);
        copy(&[flags, &[&format!("docker://{name}"), &format!("docker://{theirs}")]].concat());
        let there = space.run_tool(
            "skopeo",
            ["inspect", "--tls-verify=false", "--format", "{{.Digest}}", &format!("docker://{theirs}")],
        );
        let there = there.ok().stdout.trim().to_owned();
        let other = TestSpace::new();
        assert_eq!(digest_of(&other.rbuild(["pull", &theirs]).ok()), there, "{form}");
        assert_eq!(other.stdout_of(&theirs, &[]), "first\nsecond\n", "{form}");
        let on = format!("{}/on/{form}:1", registry.host);
        other.rbuild(["tag", &theirs, &on]).ok();
        assert_eq!(digest_of(&other.rbuild(["push", &on]).ok()), there, "{form}: it goes on as it came");
    }
}

#[test]
fn layers_go_out_as_asked_and_the_same_each_time() {
    let Some((_held, registry)) = registry() else { return };
    let (space, name) = space_with_app(&registry.host);
    let manifest = |name: &str| -> Value {
        let text = space.rbuild(["manifest", "inspect", name]).ok().stdout;
        serde_json::from_str(&text).expect("it is JSON")
    };
    for (flags, kind) in [
        (&["--compression", "gzip"][..], "tar+gzip"),
        (&["--compression", "zstd", "--compression-level", "3"], "tar+zstd"),
        (&["--compression", "uncompressed"], "layer.v1.tar"),
    ] {
        let first = digest_of(&space.rbuild([&["push"], flags, &[&name]].concat()).ok());
        let manifest = manifest(&name);
        let layer = manifest["layers"][2]["mediaType"].as_str().unwrap_or_default();
        assert!(layer.ends_with(kind), "{layer} for {flags:?}");
        // another machine that builds the same sends the same
        let epoch = digest_of(&space.rbuild([&["push"], flags, &[&name]].concat()).ok());
        assert_eq!(first, epoch);
    }
    space.rbuild(["push", "--compression", "lzma", &name]).refuses(1, &["lzma"]);
}

#[test]
fn builds_push_and_say_what_they_pushed() {
    let Some((_held, registry)) = registry() else { return };
    let (space, name) = space_with_app(&registry.host);
    let context = space.path("ctx");
    let there = |name: &str| -> Value {
        serde_json::from_str(&space.rbuild(["manifest", "inspect", "-v", name]).ok().stdout).expect("JSON")
    };
    let meta = space.path("meta.json");
    space.build(&context, &["-t", &name, "--push", "--metadata-file", meta.to_str().unwrap()]).ok();
    let meta: Value = serde_json::from_slice(&fs::read(&meta).unwrap()).expect("JSON");
    assert_eq!(meta["containerimage.digest"], there(&name)["Descriptor"]["digest"]);
    let zstd = format!("{}/team/zstd:1", registry.host);
    let output = format!("type=registry,name={zstd},compression=zstd,annotation.who=me");
    space.build(&context, &["-o", &output]).ok();
    let manifest = &there(&zstd)["Manifest"];
    assert_eq!(manifest["annotations"]["who"], "me");
    assert!(manifest["layers"][1]["mediaType"].as_str().unwrap_or_default().ends_with("zstd"), "{manifest}");
    let by_digest = format!("{}/team/digest", registry.host);
    space
        .build(&context, &["-o", &format!("type=image,name={by_digest},push=true,push-by-digest=true")])
        .ok();
    space.rbuild(["pull", &by_digest]).refuses(1, &["MANIFEST_UNKNOWN"]);
    space.build(&context, &["--push"]).refuses(1, &["a push needs a name", "--tag"]);
}

#[test]
fn run_brings_what_it_lacks() {
    let Some((_held, registry)) = registry() else { return };
    let (space, name) = space_with_app(&registry.host);
    space.rbuild(["push", &name]).ok();
    let other = TestSpace::new();
    let run =
        |flags: &[&str]| other.rbuild([&["run", "--rm", "--network", "none"], flags, &[&name]].concat());
    run(&["--pull", "never"]).refuses(125, &["Unable to find image", "--pull missing"]);
    assert_eq!(run(&[]).ok().stdout, "first\nsecond\n");
    // the tag moves on
    let context = space.dockerfile("FROM busybox\nCMD [\"echo\", \"newer\"]\n");
    space.build(&context, &["-t", &name, "--push"]).ok();
    assert_eq!(run(&[]).ok().stdout, "first\nsecond\n");
    assert_eq!(run(&["--pull", "always"]).ok().stdout, "newer\n");
    other.rbuild(["run", "--rm", "127.0.0.1:1/x"]).refuses(125, &["127.0.0.1:1"]);
}

#[test]
fn one_name_for_several_platforms() {
    let Some((_held, registry)) = registry() else { return };
    let (space, name) = space_with_app(&registry.host);
    let (amd, arm) = (format!("{}/many/amd:1", registry.host), format!("{}/many/arm:1", registry.host));
    space.rbuild(["tag", &name, &amd]).ok();
    space.rbuild(["push", &amd]).ok();
    let context = space.dockerfile("FROM scratch\nCOPY Dockerfile /\n");
    space.build(&context, &["-t", &arm, "--platform", "linux/arm/v6", "--push"]).ok();
    let list = format!("{}/many/all:1", registry.host);
    space.rbuild(["manifest", "create", &list, &amd, &arm]).ok();
    space.rbuild(["manifest", "create", &list, &amd]).refuses(1, &["begun already", "--amend"]);
    space.rbuild(["manifest", "push", "--purge", &list]).ok();
    space.rbuild(["manifest", "rm", &list]).refuses(1, &["was begun here"]);
    let index: Value =
        serde_json::from_str(&space.rbuild(["manifest", "inspect", &list]).ok().stdout).expect("JSON");
    let platforms: Vec<&str> = index["manifests"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|m| m["platform"]["architecture"].as_str())
        .collect();
    assert_eq!(platforms, ["amd64", "arm"]);
    let other = TestSpace::new();
    let get = |platform: &str| other.rbuild(["pull", "--platform", platform, &list]);
    get("linux/amd64").ok();
    assert_eq!(other.inspect(&list)["Architecture"], "amd64");
    // a v7 runs what is for a v6
    get("linux/arm/v7").ok();
    assert_eq!(other.inspect(&list)["Variant"], "v6");
    get("linux/s390x").refuses(1, &["no image for linux/s390x", "linux/amd64", "--platform"]);
    other.rbuild(["pull", "--platform", "linux/s390x", &amd]).refuses(1, &["no image for linux/s390x"]);
}

#[test]
fn an_ordinary_user_pulls_runs_and_pushes() {
    let Some(user) = TestSpace::rootless() else { return };
    let Some((_held, registry)) = registry() else { return };
    let (space, name) = space_with_app(&registry.host);
    space.rbuild(["push", &name]).ok();
    user.rbuild(["pull", &name]).ok();
    assert_eq!(user.inspect(&name)["Id"], space.inspect(&name)["Id"]);
    let ran = user.rbuild(["run", "--rm", "--network", "none", &name]).ok();
    assert_eq!(ran.stdout, "first\nsecond\n");
    let mine = format!("{}/mine/app:1", registry.host);
    let context = user.dockerfile(&format!("FROM {name}\nRUN echo own > /own\n"));
    user.build(&context, &["-t", &mine, "--push"]).ok();
    space.rbuild(["pull", &mine]).ok();
    assert_eq!(space.stdout_of(&mine, &["cat", "/own"]), "own\n");
}

#[test]
fn mirrors_are_asked_first_and_may_fail() {
    let Some((_held, registry)) = registry() else { return };
    let (space, _) = space_with_app(&registry.host);
    space.rbuild(["tag", "busybox", &format!("{}/library/busybox:mirrored", registry.host)]).ok();
    space.rbuild(["push", &format!("{}/library/busybox:mirrored", registry.host)]).ok();
    let other = TestSpace::new();
    let mirrors = format!("{{\"registry-mirrors\": [\"http://127.0.0.1:1\", \"http://{}\"]}}", registry.host);
    let file = other.write("registries.json", mirrors);
    let mut pull = other.command(["pull", "busybox:mirrored"]);
    pull.env("RBUILD_REGISTRY_CONFIG", &file).env("RBUILD_REGISTRY_TIMEOUT", "2");
    let done = common::process::finish(&mut pull, None, std::time::Duration::from_secs(60)).ok();
    assert!(done.stdout.contains("docker.io/library/busybox:mirrored"), "{done}");
    assert_eq!(other.stdout_of("busybox:mirrored", &["echo", "runs"]), "runs\n");
}

#[test]
fn layers_that_never_came_are_fetched_to_be_pushed_elsewhere() {
    let Some((_held, registry)) = registry() else { return };
    let Some((_held_too, second)) = self::registry() else { return };
    let (space, name) = space_with_app(&registry.host);
    space.rbuild(["push", &name]).ok();
    // a build that runs nothing brings the documents alone
    let other = TestSpace::new();
    let context = other.dockerfile(&format!("FROM {name}\nENV more=1\n"));
    let there = format!("{}/mine/app:1", second.host);
    let done = other.build(&context, &["-t", &there, "--push"]).ok();
    let layers = |name: &str| -> Vec<String> {
        let manifest: Value =
            serde_json::from_str(&space.rbuild(["manifest", "inspect", name]).ok().stdout).expect("JSON");
        let all = manifest["layers"].as_array().expect("a list").iter();
        all.map(|layer| layer["digest"].as_str().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(layers(&there), layers(&name), "blobs stay what they were\n{done}");
    space.rbuild(["pull", &there]).ok();
    assert_eq!(space.stdout_of(&there, &[]), "first\nsecond\n");
}

#[test]
fn proxies_stand_in_between_where_they_are_told_to() {
    let Some((_held, registry)) = registry() else { return };
    let (space, name) = space_with_app(&registry.host);
    space.rbuild(["push", &name]).ok();
    // leads to the registry whatever it is asked for
    let to = registry.host.clone();
    let proxy = Web::start(move |request, stream| {
        if request.method != "CONNECT" {
            return web::reply(stream, "405 Method Not Allowed", &[], b"");
        }
        let mut server = std::net::TcpStream::connect(&to)?;
        std::io::Write::write_all(stream, b"HTTP/1.1 200 Connection established\r\n\r\n")?;
        let (mut up, mut down) = (stream.try_clone()?, server.try_clone()?);
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut up, &mut server);
            let _ = server.shutdown(std::net::Shutdown::Both);
        });
        std::io::copy(&mut down, stream).map(drop)
    });
    let other = TestSpace::new();
    let far = "registry.invalid:5000/team/app:v1";
    let pull = |no_proxy: &str| {
        let mut pull = other.command(["pull", "--insecure-registry", "registry.invalid:5000", far]);
        pull.env("ALL_PROXY", format!("http://{}", proxy.host())).env("NO_PROXY", no_proxy);
        common::process::finish(&mut pull, None, std::time::Duration::from_secs(60))
    };
    pull("registry.invalid").refuses(1, &["registry.invalid:5000", "not known"]);
    assert!(proxy.seen().is_empty());
    pull("").ok();
    assert!(proxy.seen().iter().any(|r| r.method == "CONNECT" && r.path == "registry.invalid:5000"));
    assert_eq!(other.stdout_of(far, &["cat", "/first"]), "first\n");
    // this machine is asked without
    let before = proxy.seen().len();
    let mut near = other.command(["pull", &name]);
    near.env("ALL_PROXY", format!("http://{}", proxy.host()));
    common::process::finish(&mut near, None, std::time::Duration::from_secs(60)).ok();
    assert_eq!(proxy.seen().len(), before);
}
