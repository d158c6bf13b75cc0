//! Images whose documents lie or are malformed, and outer archives that are traps themselves.

use crate::canary::Canary;
use crate::common::archive::sha256;
use crate::common::{Done, TestSpace, base};
use crate::hostile::{Tar, config, docker_archive};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::symlink;

/// Loads an archive; it must be taken or be refused as bad input is.
fn load(space: &TestSpace, canary: &Canary, what: &str, archive: &[u8]) -> Done {
    let file = space.write("evil.tar", archive);
    let done = space.rbuild(["load".as_ref(), "-i".as_ref(), file.as_os_str()]);
    assert_sane(what, &done);
    canary.assert_untouched(what);
    done
}

/// No crash, and no exit code that is not ours.
#[track_caller]
fn assert_sane(what: &str, done: &Done) {
    assert!(matches!(done.status.code(), Some(0 | 1 | 125 | 126 | 127)), "{what}: {}\n{done}", done.status);
    assert!(!done.stderr.contains("panicked"), "{what}\n{done}");
}

/// What was answered otherwise than it should; told together, so that one run shows all.
#[derive(Default)]
struct Faults(Vec<String>);

impl Faults {
    fn refused(&mut self, what: &str, word: &str, done: &Done) {
        if done.status.success() || !done.stderr.contains(word) {
            let said: String = done.stderr.chars().take(600).collect();
            self.0.push(format!("{what}: {} and no {word:?} in {said}", done.status));
        }
    }
}

impl Drop for Faults {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert!(self.0.is_empty(), "{}", self.0.join("\n"));
        }
    }
}

/// Docker archives of busybox with a change of the config.
fn with_config(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let layers = [fs::read(base("busybox")).unwrap()];
    let mut config = config(&layers);
    change(&mut config);
    docker_archive(&config, &layers)
}

#[test]
fn configs_that_are_no_configs_are_refused() {
    let space = TestSpace::new();
    let canary = Canary::plant(&space);
    let mut faults = Faults::default();
    let set = |key: &'static str, value: Value| move |config: &mut Value| config[key] = value;
    let diff = |ids: Value| move |config: &mut Value| config["rootfs"]["diff_ids"] = ids;
    type Change = Box<dyn FnOnce(&mut Value)>;
    let zero = format!("sha256:{}", "0".repeat(64));
    let cases: Vec<(&str, &str, Change)> = vec![
        ("a list", "cannot be read", Box::new(|config| *config = json!([]))),
        ("no rootfs", "rootfs", Box::new(|config| drop(config.as_object_mut().unwrap().remove("rootfs")))),
        ("rootfs of another type", "layers", Box::new(|config| config["rootfs"]["type"] = json!("images"))),
        ("no layers", "layers", Box::new(diff(json!([])))),
        ("too many layers", "layers", Box::new(diff(json!([zero, zero])))),
        ("another layer", "diff ID", Box::new(diff(json!([zero])))),
        ("a path as digest", "digest", Box::new(diff(json!(["sha256:../../../../outside/secret"])))),
        ("a number as digest", "cannot be read", Box::new(diff(json!([7])))),
        ("five hundred and one layers", "layers", Box::new(diff(json!(vec![zero.clone(); 501])))),
        ("history of numbers", "cannot be read", Box::new(set("history", json!([1, 2])))),
        ("a text as config", "cannot be read", Box::new(set("config", json!("x")))),
        ("Env as text", "cannot be read", Box::new(set("config", json!({ "Env": "A=1" })))),
        ("Cmd of numbers", "cannot be read", Box::new(set("config", json!({ "Cmd": [1] })))),
        ("Labels of lists", "cannot be read", Box::new(set("config", json!({ "Labels": { "a": [] } })))),
        ("Volumes as list", "cannot be read", Box::new(set("config", json!({ "Volumes": ["/a"] })))),
        ("os as number", "cannot be read", Box::new(set("os", json!(1)))),
        (
            "StopTimeout beyond counting",
            "cannot be read",
            Box::new(set("config", json!({ "StopTimeout": 1e300 }))),
        ),
    ];
    for (what, word, change) in cases {
        let done = load(&space, &canary, what, &with_config(change));
        faults.refused(what, word, &done);
    }
    let layers = [Tar::new().file("a", "x").end()];
    for (what, word, text) in [
        ("deep", "cannot be read", format!("{}{}", "[".repeat(100_000), "]".repeat(100_000))),
        ("cut off", "EOF", "{\"os\": ".to_owned()),
        ("huge", "accepted", format!("{{\"os\": \"{}\"}}", "x".repeat(17 << 20))),
        ("not UTF-8", "config", "{\"os\": \"\\ud800\"}".to_owned()),
    ] {
        let archive = docker_archive(&json!("CONFIG"), &layers);
        // the config is exchanged as bytes, since it is no JSON at all
        let manifest = json!([{ "Config": "c", "RepoTags": ["evil:1"], "Layers": ["layer0.tar"] }]);
        let archive =
            [Tar::new().file("manifest.json", &manifest.to_string()).file("c", &text).unfinished(), archive]
                .concat();
        let archive = drop_member(archive, "manifest.json", 1);
        let done = load(&space, &canary, what, &archive);
        faults.refused(what, word, &done);
    }
    assert_eq!(space.rbuild(["images", "-q"]).ok().stdout, "");
}

/// Renames the `n`th member called `name` (from 0), so that it does not count.
fn drop_member(mut archive: Vec<u8>, name: &str, n: usize) -> Vec<u8> {
    let mut at = 0;
    let mut seen = 0;
    while archive[at..at + 512].iter().any(|byte| *byte != 0) {
        let size = std::str::from_utf8(&archive[at + 124..at + 135]).unwrap();
        let size = usize::from_str_radix(size, 8).unwrap();
        if archive[at..].starts_with(name.as_bytes()) && archive[at + name.len()] == 0 {
            if seen == n {
                // one letter up here and one down there keep the checksum
                archive[at] += 1;
                archive[at + 1] -= 1;
            }
            seen += 1;
        }
        at += 512 + size.next_multiple_of(512);
    }
    archive
}

/// What a config may say and nobody can do: each command has to bear it, and no container of it reaches out.
#[test]
fn strange_configs_do_no_harm() {
    let space = TestSpace::new();
    let canary = Canary::plant(&space);
    let mut faults = Faults::default();
    let outside = canary.path("");
    let dotted = canary.dotted("dir");
    let cases: Vec<(&str, Value, Option<&str>)> = vec![
        ("a user beyond counting", json!({ "User": "4294967296" }), Some("4294967296")),
        (
            "a user that wraps to root",
            json!({ "User": "18446744073709551616" }),
            Some("18446744073709551616"),
        ),
        ("a user out of range", json!({ "User": "2147483648" }), Some("2147483648")),
        ("a group out of range", json!({ "User": "1:4294967295" }), Some("4294967295")),
        ("a negative user", json!({ "User": "-1" }), Some("-1")),
        ("a user that is a path", json!({ "User": "../../etc/passwd" }), Some("passwd")),
        ("a user of two lines", json!({ "User": "root\nx:0" }), Some("user")),
        ("a directory with dots", json!({ "WorkingDir": dotted }), None),
        ("a directory that is relative", json!({ "WorkingDir": "../../.." }), None),
        ("a descriptor as directory", json!({ "WorkingDir": "/proc/self/fd/7" }), Some("working directory")),
        (
            "another descriptor as directory",
            json!({ "WorkingDir": "/proc/self/fd/3/../../.." }),
            Some("working directory"),
        ),
        ("a volume with dots", json!({ "Volumes": { dotted.clone(): {} } }), None),
        ("a volume on the root", json!({ "Volumes": { "/": {} } }), None),
        ("a volume on /proc", json!({ "Volumes": { "/proc": {}, "/dev/": {}, "/sys/fs": {} } }), None),
        ("a volume without a name", json!({ "Volumes": { "": {} } }), None),
        ("a volume at the host's place", json!({ "Volumes": { outside: {} } }), None),
        (
            "ports that are none",
            json!({ "ExposedPorts": { "99999999/tcp": {}, "../../x": {}, "": {} } }),
            None,
        ),
        ("variables without a name", json!({ "Env": ["=x", "", "A", "LD_PRELOAD=/x", "PATH"] }), None),
        ("a variable with a NUL", json!({ "Env": ["A=\u{0}b"] }), None),
        ("a command with a NUL", json!({ "Entrypoint": ["/bin/sh\u{0}x"] }), None),
        ("an empty command", json!({ "Entrypoint": [""], "Cmd": [] }), None),
        ("a signal that is none", json!({ "StopSignal": "; rm -rf /" }), None),
        (
            "times beyond counting",
            json!({ "StopTimeout": i64::MAX, "Healthcheck": { "Test": ["CMD", "true"], "Interval": i64::MIN, "Timeout": i64::MAX, "StartPeriod": -1, "Retries": i64::MAX } }),
            None,
        ),
        (
            "triggers that are none",
            json!({ "OnBuild": ["FROM x", "ONBUILD RUN x", "\u{1b}[2J", "MAINTAINER"] }),
            None,
        ),
        ("a shell of nothing", json!({ "Shell": [] }), None),
        (
            "labels of ours",
            json!({ "Labels": { "org.opencontainers.image.ref.name": "busybox:latest", "\u{1b}]0;x\u{7}": "\n" } }),
            None,
        ),
    ];
    for (what, inner, refused) in cases {
        let archive = with_config(|config| config["config"] = inner);
        load(&space, &canary, what, &archive).ok();
        let seen = space.rbuild(["inspect", "evil:1"]).ok();
        assert!(!seen.stdout.contains('\u{1b}'), "{what}\n{seen}");
        let ran = space.rbuild([
            "run",
            "--rm",
            "--network",
            "none",
            "evil:1",
            "sh",
            "-c",
            "echo x > ./planted; pwd",
        ]);
        assert_sane(what, &ran);
        canary.assert_untouched(&format!("{what}: run\n{ran}"));
        let context = space.dockerfile("FROM evil:1\nRUN echo x > ./planted; true\nWORKDIR sub\n");
        let built = space.build(&context, &["-t", "built"]);
        assert_sane(what, &built);
        canary.assert_untouched(&format!("{what}: build\n{built}"));
        if let Some(word) = refused {
            faults.refused(&format!("run with {what}"), word, &ran);
            // a builder cleans the path, which leads nowhere then
            if !what.contains("another descriptor") {
                faults.refused(&format!("build with {what}"), word, &built);
            }
        }
    }
    for (key, value) in [
        ("created", json!("99999999999-13-45T99:99:99Z")),
        ("created", json!("1969-12-31T23:59:59.999999999999999999Z")),
        ("created", json!("")),
        ("author", json!("\u{1b}[2J")),
        ("architecture", json!("../../x")),
        ("os", json!("windows")),
        ("variant", json!("\u{1b}[2J")),
        ("history", json!([{ "created_by": "\u{1b}[2J\r\n", "comment": "\u{9b}2J", "created": "x" }])),
        ("history", json!(vec![json!({ "empty_layer": true }); 10_000])),
    ] {
        let what = format!("{key} {}", value.to_string().chars().take(60).collect::<String>());
        let loaded = load(&space, &canary, &what, &with_config(|config| config[key] = value));
        if loaded.status.success() {
            for command in
                [&["images"][..], &["history", "--no-trunc", "evil:1"], &["inspect", "evil:1"], &["ps", "-a"]]
            {
                let done = space.rbuild(command).ok();
                let raw = done.stdout.chars().any(|c| c.is_control() && c != '\n');
                assert!(!raw, "{what}: {command:?}\n{:?}", done.stdout);
            }
            assert_sane(&what, &space.rbuild(["run", "--rm", "--network", "none", "evil:1", "true"]));
        }
    }
}

#[test]
fn lists_of_images_that_lead_astray_are_refused() {
    let space = TestSpace::new();
    let canary = Canary::plant(&space);
    let mut faults = Faults::default();
    let layers = [Tar::new().file("a", "x").end()];
    let config = config(&layers).to_string();
    let docker = |manifest: &str| {
        Tar::new()
            .file("manifest.json", manifest)
            .file("config.json", &config)
            .entry(b'0', "layer0.tar", "", 0o644, &layers[0])
            .end()
    };
    let item = |config: Value, tags: Value, layers: Value| {
        json!([{ "Config": config, "RepoTags": tags, "Layers": layers }]).to_string()
    };
    let good = || json!("config.json");
    let secret = canary.path("secret");
    for (what, word, manifest) in [
        ("no list", "cannot be read", "{}".to_owned()),
        ("an empty list", "no image", "[]".to_owned()),
        ("an item of nothing", "manifest.json", "[{}]".to_owned()),
        ("deep", "cannot be read", "[".repeat(50_000)),
        ("a config of the host", "it has no", item(json!(secret), json!([]), json!(["layer0.tar"]))),
        (
            "a config above",
            "it has no",
            item(json!(canary.dotted("secret")), json!([]), json!(["layer0.tar"])),
        ),
        ("a layer of the host", "it has no", item(good(), json!([]), json!([secret]))),
        ("a layer above", "it has no", item(good(), json!([]), json!([canary.dotted("secret")]))),
        ("a layer that is a number", "manifest.json", item(good(), json!([]), json!([1]))),
        ("a name above", "name", item(good(), json!(["../../evil:1"]), json!(["layer0.tar"]))),
        ("a tag that is a path", "name", item(good(), json!(["evil:../../x"]), json!(["layer0.tar"]))),
        (
            "a name that steers terminals",
            "name",
            item(good(), json!(["evil\u{1b}[2J:1"]), json!(["layer0.tar"])),
        ),
        ("a name of two lines", "name", item(good(), json!(["evil\n:1"]), json!(["layer0.tar"]))),
    ] {
        let done = load(&space, &canary, what, &docker(&manifest));
        faults.refused(what, word, &done);
        assert!(!done.stderr.contains('\u{1b}'), "{what}");
    }
    assert_eq!(space.rbuild(["images", "-q"]).ok().stdout, "");
}

/// A layout whose manifest is what it likes; `blob` names one by digest.
fn layout(manifest: &Value, more: impl FnOnce(Tar) -> Tar) -> Vec<u8> {
    let manifest = manifest.to_string();
    let index = json!({ "schemaVersion": 2, "manifests": [{
        "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": sha256(manifest.as_bytes()),
        "size": manifest.len(), "annotations": { "org.opencontainers.image.ref.name": "evil:1" } }] });
    let tar = Tar::new()
        .file("oci-layout", "{\"imageLayoutVersion\":\"1.0.0\"}")
        .file("index.json", &index.to_string())
        .file(blob(manifest.as_bytes()), &manifest);
    more(tar).end()
}

fn blob(bytes: &[u8]) -> String {
    format!("blobs/{}", sha256(bytes).replace(':', "/"))
}

#[test]
fn layouts_that_lie_are_refused() {
    let space = TestSpace::new();
    let canary = Canary::plant(&space);
    let mut faults = Faults::default();
    let layer = Tar::new().file("a", "x").end();
    let config = config(std::slice::from_ref(&layer)).to_string();
    let describe = |kind: &str, bytes: &[u8]| json!({ "mediaType": format!("application/vnd.oci.image.{kind}"), "digest": sha256(bytes), "size": bytes.len() });
    let manifest = |edit: &dyn Fn(&mut Value)| {
        let mut manifest = json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": describe("config.v1+json", config.as_bytes()), "layers": [describe("layer.v1.tar", &layer)] });
        edit(&mut manifest);
        manifest
    };
    let full =
        |tar: Tar| tar.file(blob(config.as_bytes()), &config).entry(b'0', blob(&layer), "", 0o644, &layer);
    load(&space, &canary, "an honest layout", &layout(&manifest(&|_| {}), full)).ok();
    space.rbuild(["rmi", "evil:1"]).ok();

    let secret = canary.path("secret");
    let linked = |kind: u8| {
        let (config, layer) = (config.clone(), layer.clone());
        let secret = secret.clone();
        move |tar: Tar| {
            tar.file(blob(config.as_bytes()), &config).entry(kind, blob(&layer), &secret, 0o644, b"")
        }
    };
    let cases: Vec<(&str, &str, Vec<u8>)> = vec![
        ("two readings", "two ways", layout(&manifest(&|m| m["manifests"] = json!([])), full)),
        (
            "another media type",
            "media type",
            layout(&manifest(&|m| m["mediaType"] = json!("application/vnd.oci.image.index.v1+json")), full),
        ),
        (
            "an artifact",
            "artifact",
            layout(&manifest(&|m| m["config"]["mediaType"] = json!("application/x")), full),
        ),
        (
            "a path as digest",
            "digest",
            layout(&manifest(&|m| m["layers"][0]["digest"] = json!("sha256:../../../outside/secret")), full),
        ),
        ("a size that lies", "bytes", layout(&manifest(&|m| m["layers"][0]["size"] = json!(3)), full)),
        (
            "a size beyond counting",
            "cannot be read",
            layout(&manifest(&|m| m["layers"][0]["size"] = json!(1e30)), full),
        ),
        (
            "a negative size",
            "cannot be read",
            layout(&manifest(&|m| m["layers"][0]["size"] = json!(-1)), full),
        ),
        (
            "layers of another type",
            "not supported",
            layout(&manifest(&|m| m["layers"][0]["mediaType"] = json!("application/x-sh")), full),
        ),
        (
            "layers on other hosts alone",
            "it has no",
            layout(&manifest(&|m| m["layers"][0]["urls"] = json!(["file:///etc/passwd"])), |tar| {
                tar.file(blob(config.as_bytes()), &config)
            }),
        ),
        ("schema 1", "schema", layout(&manifest(&|m| m["schemaVersion"] = json!(1)), full)),
        ("a blob that is a link to the host", "link", layout(&manifest(&|_| {}), linked(b'2'))),
        ("a blob that is a hard link to the host", "link", layout(&manifest(&|_| {}), linked(b'1'))),
        ("a blob that is a directory", "regular", layout(&manifest(&|_| {}), linked(b'5'))),
        ("a blob that is a device", "regular", layout(&manifest(&|_| {}), linked(b'3'))),
        ("a blob that is sparse", "regular", layout(&manifest(&|_| {}), linked(b'S'))),
        (
            "a second blob that lies",
            "digest",
            layout(&manifest(&|_| {}), |tar| {
                full(tar).entry(b'0', blob(&layer), "", 0o644, &vec![b'x'; layer.len()])
            }),
        ),
        (
            "a size over the end of the archive",
            "cut off",
            layout(&manifest(&|_| {}), |tar| full(tar).raw_header(b'0', b"z", b"", 0o644, b"77777777777\0")),
        ),
        (
            "a size that wraps around",
            "archive",
            layout(&manifest(&|_| {}), |tar| full(tar).raw_header(b'0', b"z", b"", 0o644, &[0xff; 12])),
        ),
    ];
    for (what, word, archive) in cases {
        let done = load(&space, &canary, what, &archive);
        faults.refused(what, word, &done);
    }
    // Names in the archive itself are keys and never paths.
    let archive = layout(&manifest(&|_| {}), |tar| {
        full(tar)
            .file(&secret, "owned\n")
            .file(canary.dotted("secret"), "owned\n")
            .symlink("x", &secret)
            .file("x", "owned\n")
    });
    load(&space, &canary, "names that are paths", &archive).ok();
    assert_eq!(space.rbuild(["images", "-q"]).ok().stdout.lines().count(), 1);
}

/// The directory of a layout, whose parts are links to the host.
#[test]
fn a_layout_in_a_directory_leads_nowhere() {
    let space = TestSpace::new();
    let canary = Canary::plant(&space);
    space.write("scratch/oci-layout", "{\"imageLayoutVersion\":\"1.0.0\"}");
    let dir = space.path("scratch");
    for target in
        [canary.path("secret"), "../outside/secret".into(), "/proc/self/fd/0".into(), "/dev/zero".into()]
    {
        let _ = fs::remove_file(dir.join("index.json"));
        symlink(&target, dir.join("index.json")).unwrap();
        let done = space.rbuild(["load".as_ref(), "-i".as_ref(), dir.as_os_str()]);
        // inside the directory the link leads nowhere, so there is no index
        done.refuses(1, &["neither index.json"]);
    }
    // a pipe that nobody writes to does not hang
    fs::remove_file(dir.join("index.json")).unwrap();
    nix::unistd::mkfifo(&dir.join("index.json"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    space.rbuild(["load".as_ref(), "-i".as_ref(), dir.as_os_str()]).refuses(1, &["not a regular file"]);
    canary.assert_untouched("layouts of links");
}
