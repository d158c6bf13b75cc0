//! `--cache-to` and `--cache-from`: what one machine built another one need not build. A machine is a store of its own.
#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use common::registry_log::LoggedRegistry;
use common::{Done, TestSpace, base, is_root, process, skip, tools_or_skip};
use std::collections::BTreeSet;
use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(300);

/// Two stages: of the first only a small file is in the image, and a large one is not.
const TWO_STAGES: &str = "FROM busybox AS builder\n\
    RUN mkdir /out && echo built > /out/app && head -c 300000 /dev/urandom > /big\n\
    RUN echo more > /out/more\n\
    FROM busybox\n\
    WORKDIR /w\n\
    COPY --from=builder /out/app /w/app\n\
    COPY f /w/f\n\
    RUN true\n\
    RUN cat /w/app /w/f > /w/all\n\
    CMD [\"cat\", \"/w/all\"]\n";
/// How its instructions begin.
const ITS_STEPS: [&str; 7] =
    ["RUN mkdir", "RUN echo more", "WORKDIR", "COPY --from", "COPY f", "RUN true", "RUN cat"];

/// A store with its own name in a space.
struct Machine<'a> {
    space: &'a TestSpace,
    store: &'static str,
}

impl Machine<'_> {
    fn run(&self, args: &[&str]) -> Done {
        let mut command = self.space.command(args);
        command.env("RBUILD_ROOT", self.space.path(self.store));
        process::finish(&mut command, None, PATIENCE)
    }

    fn build(&self, args: &[&str]) -> Done {
        let context = self.space.path("ctx");
        let mut all = vec!["build", "--progress", "plain"];
        all.extend(args);
        all.push(context.to_str().unwrap());
        self.run(&all)
    }

    fn output(&self, image: &str) -> String {
        self.run(&["run", "--rm", "--network", "none", image]).ok().stdout
    }

    /// Snapshots whose files are here.
    fn present(&self) -> BTreeSet<String> {
        let dir = self.space.path(&format!("{}/snapshots", self.store));
        // links are further names
        names(&dir).into_iter().filter(|name| !dir.join(name).is_symlink()).collect()
    }
}

fn names(dir: &Path) -> BTreeSet<String> {
    let Ok(entries) = fs::read_dir(dir) else { return BTreeSet::new() };
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// A machine that has the base image and nothing else.
fn machine<'a>(space: &'a TestSpace, store: &'static str) -> Machine<'a> {
    let machine = Machine { space, store };
    let mut tar = base("busybox");
    let copy = space.path("busybox.tar");
    if !copy.exists() {
        fs::copy(&tar, &copy).unwrap();
    }
    tar = copy;
    machine.run(&["import", tar.to_str().unwrap(), "busybox"]).ok();
    machine
}

fn two_stages(space: &TestSpace) {
    space.dockerfile(TWO_STAGES);
    space.write("ctx/f", "from the context\n");
}

fn nothing_ran(done: &Done) {
    assert_eq!(done.executed(), [""; 0], "{done}");
}

fn local_cache(space: &TestSpace) {
    two_stages(space);
    space.mkdir("shared");
    let cache = space.path("shared/cache");
    let (to, from) = (
        format!("type=local,dest={},mode=max", cache.display()),
        format!("type=local,src={}", cache.display()),
    );
    let first = machine(space, "one");
    first.build(&["-t", "app", "--cache-to", &to]).ok().assert_executed(&ITS_STEPS);
    let second = machine(space, "two");
    let done = second.build(&["-t", "app", "--cache-from", &from, "--explain"]).ok();
    nothing_ran(&done);
    assert!(done.stderr.contains("found in the cache"), "{done}");
    // the cache may go: the image is whole
    fs::rename(&cache, space.path("shared/gone")).unwrap();
    assert_eq!(second.output("app"), "built\nfrom the context\n");
    // what the image does not need stayed where it was
    assert!(second.present().len() < first.present().len(), "{:?}", second.present());
    // from now on the machine knows it itself
    let again = second.build(&["-t", "app"]).ok();
    assert_eq!(
        again.executed(),
        ["RUN mkdir", "RUN echo more"].map(|s| s.to_owned())[..0].to_vec(),
        "{again}"
    );
}

#[test]
fn a_local_cache_fills_an_empty_store() {
    local_cache(&TestSpace::new());
}

#[test]
fn a_local_cache_fills_the_empty_store_of_an_ordinary_user() {
    if !is_root() {
        return skip("the other test does it");
    }
    let Some(space) = TestSpace::rootless() else { return };
    local_cache(&space);
}

#[test]
fn min_finds_every_step_and_makes_again_what_it_does_not_hold() {
    let space = TestSpace::new();
    two_stages(&space);
    let cache = space.path("cache");
    let (to, from) =
        (format!("type=local,dest={}", cache.display()), format!("type=local,src={}", cache.display()));
    machine(&space, "one").build(&["-t", "app", "--cache-to", &to]).ok();
    let blobs: u64 = fs::read_dir(cache.join("blobs/sha256"))
        .unwrap()
        .map(|blob| blob.unwrap().metadata().unwrap().len())
        .sum();
    assert!(blobs < 100_000, "mode=min holds the large file of a stage: {blobs} bytes");
    let second = machine(&space, "two");
    nothing_ran(&second.build(&["-t", "app", "--cache-from", &from]).ok());
    assert_eq!(second.output("app"), "built\nfrom the context\n");

    // a change that needs the files of the other stage: it runs again, and what is not touched stays known
    let third = machine(&space, "three");
    space.dockerfile(&TWO_STAGES.replace("RUN cat", "COPY --from=builder /out/more /w/more\nRUN cat"));
    let done = third.build(&["-t", "app", "--cache-from", &from]).ok();
    let executed = done.executed();
    assert!(executed.iter().any(|step| step.starts_with("RUN mkdir")), "{done}");
    assert!(executed.iter().any(|step| step.contains("/out/more /w/more")), "{done}");
    assert!(!executed.iter().any(|step| step.starts_with("WORKDIR")), "{done}");
    assert_eq!(third.output("app"), "built\nfrom the context\n");
}

#[test]
fn the_forms_and_compressions_are_all_read() {
    let space = TestSpace::new();
    two_stages(&space);
    let first = machine(&space, "one");
    for (number, options) in [
        "compression=zstd",
        "compression=uncompressed",
        "compression=gzip,compression-level=1,force-compression=true",
        "image-manifest=false",
        "oci-mediatypes=false",
        "tag=other",
    ]
    .into_iter()
    .enumerate()
    {
        let cache = space.path(&format!("cache{number}"));
        let to = format!("type=local,dest={},mode=max,{options}", cache.display());
        first.build(&["--cache-to", &to]).ok();
        let tag = if options == "tag=other" { ",tag=other" } else { "" };
        let from = format!("type=local,src={}{tag}", cache.display());
        let second = machine(&space, "two");
        let done = second.build(&["-t", "app", "--cache-from", &from]).ok();
        nothing_ran(&done);
        assert_eq!(second.output("app"), "built\nfrom the context\n", "{options}");
        fs::remove_dir_all(space.path("two")).unwrap();
    }
}

#[test]
fn a_local_cache_drops_what_nothing_leads_to() {
    let space = TestSpace::new();
    space.dockerfile("FROM busybox\nCOPY f /f\n");
    let cache = space.path("cache");
    let blobs = || names(&cache.join("blobs/sha256"));
    let first = machine(&space, "one");
    let mut sizes = Vec::new();
    for (text, options) in [("1", ""), ("2", ""), ("3", ",reset=false"), ("4", ",tag=b"), ("5", "")] {
        space.write("ctx/f", text);
        let to = format!("type=local,dest={}{options}", cache.display());
        first.build(&["--cache-to", &to]).ok();
        sizes.push(blobs().len());
    }
    // manifest, list of steps, layer; without reset those before stay; another tag is kept
    assert_eq!(sizes, [3, 3, 6, 6, 6]);
    let second = machine(&space, "two");
    let at = |tag: &str| format!("type=local,src={},tag={tag}", cache.display());
    nothing_ran(&second.build(&["--cache-from", &at("latest"), "--cache-from", &at("b")]).ok());
    space.write("ctx/f", "4");
    nothing_ran(&second.build(&["--cache-from", &at("latest"), "--cache-from", &at("b")]).ok());
}

#[test]
fn a_cache_in_a_registry_gives_what_the_image_needs_and_no_more() {
    let space = TestSpace::new();
    let Some(registry) = LoggedRegistry::start(&space) else { return };
    two_stages(&space);
    let first = machine(&space, "one");
    let name = format!("{}/team/cache:main", registry.host);
    let to = format!("type=registry,ref={name},mode=max");
    first.build(&["-t", "app", "--cache-to", &to]).ok();
    // the second time nothing but the list and the manifest goes over the wire
    registry.forget();
    let done = first.build(&["-t", "app", "--cache-to", &to]).ok();
    assert!(done.stderr.contains("sent 0 blobs"), "{done}");

    let second = machine(&space, "two");
    registry.forget();
    let done = second.build(&["-t", "app", "--cache-from", &name]).ok();
    nothing_ran(&done);
    // the list of steps
    assert_eq!(registry.downloaded(&[]).len(), 1, "{:?}", registry.asked());
    assert_eq!(second.output("app"), "built\nfrom the context\n");
    // the layers of WORKDIR, two COPY and two RUN, and not the large one of the other stage
    assert_eq!(registry.downloaded(&[]).len(), 6, "{:?}", registry.asked());
    registry.forget();
    assert_eq!(second.output("app"), "built\nfrom the context\n");
    nothing_ran(&second.build(&["-t", "app"]).ok());
    assert!(registry.asked().is_empty(), "{:?}", registry.asked());
}

#[test]
fn an_image_carries_its_own_cache() {
    let space = TestSpace::new();
    let Some(registry) = LoggedRegistry::start(&space) else { return };
    two_stages(&space);
    let first = machine(&space, "one");
    let name = format!("{}/team/app:1", registry.host);
    first.build(&["-t", &name, "--push", "--cache-to", "type=inline"]).ok();
    let second = machine(&space, "two");
    let done = second.build(&["-t", "app", "--cache-from", &name]).ok();
    nothing_ran(&done);
    assert_eq!(second.output("app"), "built\nfrom the context\n");
    // as buildx asks for it
    let arg = format!("{}/team/arg:1", registry.host);
    first.build(&["-t", &arg, "--push", "--build-arg", "BUILDKIT_INLINE_CACHE=1"]).ok();
    let by_arg = machine(&space, "by-arg");
    nothing_ran(&by_arg.build(&["-t", "app", "--cache-from", &arg]).ok());
    // an image without record is no cache, and no error
    let plain = format!("{}/team/plain:1", registry.host);
    first.build(&["-t", &plain, "--push"]).ok();
    let third = machine(&space, "three");
    let done = third.build(&["-t", "app", "--cache-from", &format!("type=registry,ref={plain}")]).ok();
    done.assert_executed(&ITS_STEPS);
    assert!(!done.stderr.contains("warning"), "{done}");
}

/// A real S3 server on the loopback device.
struct S3 {
    child: Child,
    endpoint: String,
}

impl S3 {
    fn start() -> Option<Self> {
        let own = Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/moto/bin/moto_server");
        if !own.exists() && !tools_or_skip(&["moto_server"]) {
            return None;
        }
        let port = common::registry::free_port();
        let child = Command::new(if own.exists() { own } else { "moto_server".into() })
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let server = Self { child, endpoint: format!("http://127.0.0.1:{port}") };
        process::eventually("the bucket server answers", Duration::from_secs(60), || {
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        Some(server)
    }

    /// Makes a bucket, with a request of our own: moto asks for no signature here.
    fn bucket(&self, name: &str) {
        let made =
            Command::new("curl").args(["-sf", "-X", "PUT", &format!("{}/{name}", self.endpoint)]).status();
        assert!(made.unwrap().success());
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_bucket_holds_a_cache() {
    let Some(server) = S3::start() else { return };
    if !tools_or_skip(&["curl"]) {
        return;
    }
    server.bucket("team");
    let space = TestSpace::new();
    two_stages(&space);
    let at = format!(
        "type=s3,bucket=team,region=us-east-1,endpoint_url={},use_path_style=true,prefix=ci/,name=app,\
         access_key_id=key,secret_access_key=very-secret",
        server.endpoint
    );
    let first = machine(&space, "one");
    let done = first.build(&["-t", "app", "--cache-to", &format!("{at},mode=max,upload_parallelism=2")]).ok();
    assert!(done.stderr.contains("7 layers"), "{done}");
    assert!(!done.stderr.contains("very-secret") && !done.stderr.contains("Signature"), "{done}");
    assert!(
        first
            .build(&["-t", "app", "--cache-to", &format!("{at},mode=max")])
            .ok()
            .stderr
            .contains("sent 0 blobs")
    );
    let second = machine(&space, "two");
    nothing_ran(&second.build(&["-t", "app", "--cache-from", &at]).ok());
    drop(server);
    assert_eq!(second.output("app"), "built\nfrom the context\n");
    // without a server: a warning in bounded time, and the build goes on
    let third = machine(&space, "three");
    let done = third.build(&["-t", "app", "--cache-from", &at]).ok();
    done.assert_executed(&ITS_STEPS);
    assert!(done.stderr.contains("cannot be read") && !done.stderr.contains("very-secret"), "{done}");
}

#[test]
fn an_ordinary_user_shares_caches_through_registries_and_buckets() {
    let Some(space) = TestSpace::rootless().filter(|_| is_root()) else {
        return skip("the other tests do it, or there is no such user");
    };
    two_stages(&space);
    let held = TestSpace::new();
    let registry = common::registry::Registry::start(&held);
    let at_registry =
        registry.as_ref().map(|registry| format!("type=registry,ref={}/team/cache:main", registry.host));
    let bucket = S3::start().filter(|_| tools_or_skip(&["curl"]));
    let at_bucket = bucket.as_ref().map(|server| {
        server.bucket("team");
        format!(
            "type=s3,bucket=team,region=us-east-1,endpoint_url={},use_path_style=true,access_key_id=key,\
             secret_access_key=secret",
            server.endpoint
        )
    });
    let first = machine(&space, "one");
    for (at, store) in at_registry.iter().zip(["two"]).chain(at_bucket.iter().zip(["three"])) {
        first.build(&["-t", "app", "--cache-to", &format!("{at},mode=max,ignore-error=false")]).ok();
        let other = machine(&space, store);
        nothing_ran(&other.build(&["-t", "app", "--cache-from", at]).ok());
        assert_eq!(other.output("app"), "built\nfrom the context\n", "{at}");
    }
}

#[test]
fn a_bucket_that_is_missing_is_said() {
    let Some(server) = S3::start() else { return };
    let space = TestSpace::new();
    two_stages(&space);
    let at = format!(
        "type=s3,bucket=nobody,region=us-east-1,endpoint_url={},use_path_style=true,access_key_id=k,\
         secret_access_key=very-secret",
        server.endpoint
    );
    let first = machine(&space, "one");
    let done = first.build(&["-t", "app", "--cache-to", &at]).ok();
    assert!(done.stderr.contains("NoSuchBucket") && !done.stderr.contains("very-secret"), "{done}");
    first
        .build(&["-t", "app", "--cache-to", &format!("{at},ignore-error=false")])
        .refuses(1, &["NoSuchBucket"]);
    let second = machine(&space, "two");
    let done = second.build(&["-t", "app", "--cache-from", &at]).ok();
    assert!(done.stderr.contains("NoSuchBucket") && !done.stderr.contains("very-secret"), "{done}");
}

#[test]
fn cache_mounts_travel() {
    let space = TestSpace::new();
    space.dockerfile(
        "FROM busybox\nARG N\nRUN --mount=type=cache,id=c,target=/c echo $N >> /c/n; cat /c/n > /seen\n",
    );
    let cache = space.path("cache");
    let (to, from) = (
        format!("type=local,dest={},mounts=true", cache.display()),
        format!("type=local,src={}", cache.display()),
    );
    machine(&space, "one").build(&["-t", "app", "--build-arg", "N=1", "--cache-to", &to]).ok();
    let second = machine(&space, "two");
    second.build(&["-t", "app", "--build-arg", "N=2", "--cache-from", &from, "--cache-to", &to]).ok();
    let seen = |machine: &Machine<'_>| {
        machine.run(&["run", "--rm", "--network", "none", "app", "cat", "/seen"]).ok().stdout
    };
    assert_eq!(seen(&second), "1\n2\n");
    // a cache that is here wins; one that is not wanted is not taken
    let third = machine(&space, "three");
    third.build(&["-t", "app", "--build-arg", "N=3", "--cache-from", &format!("{from},mounts=false")]).ok();
    assert_eq!(seen(&third), "3\n");
    third.build(&["-t", "app", "--build-arg", "N=4", "--cache-from", &from]).ok();
    assert_eq!(seen(&third), "3\n4\n");
    // a machine that only looked hands on what it did not need
    let fourth = machine(&space, "four");
    nothing_ran(&fourth.build(&["--build-arg", "N=2", "--cache-from", &from, "--cache-to", &to]).ok());
    let fifth = machine(&space, "five");
    fifth.build(&["-t", "app", "--build-arg", "N=5", "--cache-from", &from]).ok();
    assert_eq!(seen(&fifth), "1\n2\n5\n");
}

/// Every file of a cache.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut out = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { out.extend(files(&path)) } else { out.push(path) }
    }
    out.sort();
    out
}

#[test]
fn a_broken_cache_is_a_miss_and_never_a_wrong_image() {
    let space = TestSpace::new();
    two_stages(&space);
    let good = space.path("cache");
    let to = format!("type=local,dest={},mode=max", good.display());
    machine(&space, "one").build(&["-t", "app", "--cache-to", &to]).ok();
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 5] = [
        ("gone", |file| fs::remove_file(file).unwrap()),
        ("empty", |file| fs::write(file, b"").unwrap()),
        ("cut off", |file| {
            let bytes = fs::read(file).unwrap();
            fs::write(file, &bytes[..bytes.len() / 2]).unwrap();
        }),
        ("one bit", |file| {
            let mut bytes = fs::read(file).unwrap();
            let at = bytes.len() / 2;
            bytes[at] ^= 1;
            fs::write(file, bytes).unwrap();
        }),
        ("a pipe", |file| {
            fs::remove_file(file).unwrap();
            nix::unistd::mkfifo(file, nix::sys::stat::Mode::S_IRWXU).unwrap();
        }),
    ];
    let count = files(&good).len();
    for number in 0..count {
        // all damages of one file and one damage of all files would say the same
        let (what, damage) = damages[number % damages.len()];
        let bad = space.path("bad");
        let _ = fs::remove_dir_all(&bad);
        assert!(Command::new("cp").arg("-r").arg(&good).arg(&bad).status().unwrap().success());
        let file = &files(&bad)[number];
        damage(file);
        let second = machine(&space, "two");
        let from = format!("type=local,src={}", bad.display());
        let done = second.build(&["-t", "app", "--cache-from", &from]).ok();
        assert!(!done.stderr.contains("panicked"), "{what} {}\n{done}", file.display());
        assert_eq!(second.output("app"), "built\nfrom the context\n", "{what} {}", file.display());
        fs::remove_dir_all(space.path("two")).unwrap();
    }
}

#[test]
fn a_lying_cache_is_found_out() {
    let space = TestSpace::new();
    space.dockerfile("FROM busybox\nRUN echo one > /f\nRUN echo two > /g\nCMD [\"cat\", \"/f\", \"/g\"]\n");
    let good = space.path("cache");
    let to = format!("type=local,dest={},mode=max", good.display());
    machine(&space, "one").build(&["-t", "app", "--cache-to", &to]).ok();
    type Lie = fn(&mut serde_json::Value);
    let lies: [(&str, Lie); 6] = [
        ("layers are swapped", |list| {
            let (a, b) = (list["results"][0]["layer"].clone(), list["results"][1]["layer"].clone());
            list["results"][0]["layer"] = b;
            list["results"][1]["layer"] = a;
        }),
        ("a diff ID is another", |list| {
            list["results"][0]["layer"]["diff_id"] = format!("sha256:{}", "0".repeat(64)).into();
        }),
        ("a size is another", |list| list["results"][0]["layer"]["blob"]["size"] = 5.into()),
        ("a result stands on itself", |list| {
            list["results"][0]["parent"] = list["results"][1]["id"].clone();
        }),
        ("a result is named that nobody knows", |list| {
            list["steps"][0]["result"] = "7".repeat(64).into();
        }),
        ("a path is where a digest should be", |list| {
            list["results"][0]["layer"]["blob"]["digest"] = "sha256:../../../../etc/passwd".into();
        }),
    ];
    for (what, lie) in lies {
        let bad = space.path("bad");
        let _ = fs::remove_dir_all(&bad);
        assert!(Command::new("cp").arg("-r").arg(&good).arg(&bad).status().unwrap().success());
        rewrite(&bad, lie);
        let second = machine(&space, "two");
        let from = format!("type=local,src={}", bad.display());
        let done = second.build(&["-t", "app", "--cache-from", &from]).ok();
        assert_eq!(second.output("app"), "one\ntwo\n", "{what}\n{done}");
        assert!(!done.executed().is_empty(), "{what}\n{done}");
        fs::remove_dir_all(space.path("two")).unwrap();
    }
}

/// Changes the list of a cache and all digests that lead to it.
fn rewrite(cache: &Path, change: impl FnOnce(&mut serde_json::Value)) {
    let read =
        |path: &Path| -> serde_json::Value { serde_json::from_slice(&fs::read(path).unwrap()).unwrap() };
    let blob = |digest: &serde_json::Value| {
        cache.join("blobs/sha256").join(digest.as_str().unwrap().strip_prefix("sha256:").unwrap())
    };
    let put = |value: &serde_json::Value| {
        let bytes = value.to_string();
        let file = cache.join("written");
        fs::write(&file, &bytes).unwrap();
        let sum = Command::new("sha256sum").arg(&file).output().unwrap().stdout;
        let hex = String::from_utf8(sum[..64].to_vec()).unwrap();
        fs::rename(&file, cache.join("blobs/sha256").join(&hex)).unwrap();
        (format!("sha256:{hex}"), bytes.len())
    };
    let mut index = read(&cache.join("index.json"));
    let mut manifest = read(&blob(&index["manifests"][0]["digest"]));
    let mut list = read(&blob(&manifest["config"]["digest"]));
    change(&mut list);
    let (digest, size) = put(&list);
    (manifest["config"]["digest"], manifest["config"]["size"]) = (digest.into(), size.into());
    let (digest, size) = put(&manifest);
    (index["manifests"][0]["digest"], index["manifests"][0]["size"]) = (digest.into(), size.into());
    fs::write(cache.join("index.json"), index.to_string()).unwrap();
}

#[test]
fn failing_exports_and_missing_imports_are_said_and_do_no_harm() {
    let space = TestSpace::new();
    space.dockerfile("FROM busybox\nRUN echo one > /f\n");
    let file = space.write("a-file", "");
    let first = machine(&space, "one");
    let to = format!("type=local,dest={}/cache", file.display());
    let done = first.build(&["-t", "app", "--cache-to", &to]).ok();
    assert!(done.stderr.contains("does not fail the build"), "{done}");
    first
        .build(&["-t", "app", "--cache-to", &format!("{to},ignore-error=false")])
        .refuses(1, &["exporting cache"]);
    first.run(&["run", "--rm", "--network", "none", "app", "cat", "/f"]).ok();
    let second = machine(&space, "two");
    let done = second.build(&["-t", "app", "--cache-from", "type=local,src=nowhere"]).ok();
    assert!(done.stderr.contains("there is no cache yet") && !done.stderr.contains("warning"), "{done}");
    let done = second.build(&["--no-cache", "-t", "app", "--cache-from", "127.0.0.1:1/none"]).ok();
    done.assert_executed(&["RUN echo"]);
    for (flag, text) in
        [("--cache-from", "type=tape"), ("--cache-to", "type=local"), ("--cache-to", "type=gha")]
    {
        second.build(&[flag, text]).refuses(1, &[flag]);
    }
}

#[test]
fn secrets_and_arguments_are_in_no_cache() {
    let space = TestSpace::new();
    space.dockerfile(
        "FROM busybox\nARG TOKEN\nRUN --mount=type=secret,id=s test -s /run/secrets/s && test -n \"$TOKEN\" && echo ok > /f\n",
    );
    let secret = space.write("secret", "the-value-of-the-secret");
    let cache = space.path("cache");
    let to = format!("type=local,dest={},mode=max,mounts=true,compression=uncompressed", cache.display());
    let secret = format!("id=s,src={}", secret.display());
    let first = machine(&space, "one");
    first
        .build(&["--secret", &secret, "--build-arg", "TOKEN=the-value-of-the-argument", "--cache-to", &to])
        .ok();
    for file in files(&cache) {
        let bytes = fs::read(&file).unwrap();
        for value in ["the-value-of-the-secret", "the-value-of-the-argument"] {
            let found = bytes.windows(value.len()).any(|part| part == value.as_bytes());
            assert!(!found, "{value} is in {}", file.display());
        }
    }
}

#[test]
fn a_copy_that_is_kept_as_a_difference_travels_whole() {
    let space = TestSpace::new();
    space.dockerfile("FROM busybox\nCOPY many /many\nCMD [\"sh\", \"-c\", \"cat /many/* | sort -u\"]\n");
    for number in 0..1500 {
        space.write(&format!("ctx/many/{number}"), "old\n");
    }
    let first = machine(&space, "one");
    first.build(&["-t", "app"]).ok();
    space.write("ctx/many/7", "new\n");
    let cache = space.path("cache");
    first.build(&["-t", "app", "--cache-to", &format!("type=local,dest={}", cache.display())]).ok();
    let second = machine(&space, "two");
    let done =
        second.build(&["-t", "app", "--cache-from", &format!("type=local,src={}", cache.display())]).ok();
    nothing_ran(&done);
    assert!(!done.stderr.contains("warning"), "{done}");
    assert_eq!(second.output("app"), "new\nold\n");
}
