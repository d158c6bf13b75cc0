//! The image commands: what is listed, named, taken away and told about images.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use common::{TestSpace, is_image_id};

fn space_with_app() -> TestSpace {
    let space = TestSpace::new().with_busybox();
    space.build_text(
        "app",
        "FROM busybox\nENV COLOUR=green\nRUN echo one > /one\nWORKDIR /srv\nLABEL team=\"a b\"\nRUN echo two > /two\nCMD [\"cat\", \"/one\"]\n",
    );
    space
}

#[test]
fn images_are_listed_by_name() {
    let space = space_with_app();
    space.rbuild(["tag", "app", "example.org:5000/team/app:v1"]).ok();
    let listed = space.rbuild(["images"]).ok().stdout;
    let mut lines = listed.lines();
    let head: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
    assert_eq!(head, ["REPOSITORY", "TAG", "IMAGE", "ID", "CREATED", "SIZE"]);
    let rows: Vec<Vec<&str>> = lines.map(|line| line.split_whitespace().collect()).collect();
    let id_of = |name: &str, tag: &str| {
        let row = rows.iter().find(|row| row[0] == name && row[1] == tag);
        row.unwrap_or_else(|| panic!("no {name}:{tag} in\n{listed}"))[2].to_owned()
    };
    assert_eq!(id_of("app", "latest"), id_of("example.org:5000/team/app", "v1"));
    assert_ne!(id_of("app", "latest"), id_of("busybox", "latest"));
    assert_eq!(id_of("app", "latest").len(), 12, "ids are cut to 12 digits");

    let only = space.rbuild(["images", "app"]).ok().stdout;
    assert_eq!(only.lines().count(), 2, "{only}");
    let ids = space.rbuild(["images", "-q", "--no-trunc"]).ok().stdout;
    assert!(ids.lines().count() >= 2 && ids.lines().all(is_image_id), "{ids}");
}

#[test]
fn an_image_answers_to_its_id_and_every_unique_start_of_it() {
    let space = space_with_app();
    let id = space.inspect("app")["Id"].as_str().unwrap().to_owned();
    assert!(is_image_id(&id), "{id}");
    let hex = &id["sha256:".len()..];
    for name in [id.as_str(), hex, &hex[..12], &hex[..6], "app", "app:latest", "docker.io/library/app:latest"]
    {
        assert_eq!(space.inspect(name)["Id"], id.as_str(), "by {name}");
        assert_eq!(space.stdout_of(name, &[]), "one\n", "run {name}");
    }
    space.rbuild(["inspect", "ffffffffffff"]).refuses(1, &["ffffffffffff"]);
}

#[test]
fn tag_and_rmi_name_and_unname() {
    let space = space_with_app();
    let id = space.inspect("app")["Id"].as_str().unwrap().to_owned();
    space.rbuild(["tag", "app", "other:v2"]).ok();
    let said = space.rbuild(["rmi", "app"]).ok().stdout;
    assert!(said.contains("Untagged: app:latest") && !said.contains("Deleted:"), "{said}");
    space.rbuild(["inspect", "app"]).refuses(1, &["app"]);
    assert_eq!(space.inspect("other:v2")["Id"], id.as_str());

    let said = space.rbuild(["rmi", "other:v2"]).ok().stdout;
    assert!(said.contains("Untagged: other:v2") && said.contains(&format!("Deleted: {id}")), "{said}");
    space.rbuild(["inspect", &id]).code(1);
    space.rbuild(["rmi", "other:v2"]).refuses(1, &["other:v2"]);
    // The base is a name of its own.
    assert_eq!(space.stdout_of("busybox", &["echo", "here"]), "here\n");
}

#[test]
fn a_moved_tag_leaves_the_old_image_without_a_name() {
    let space = space_with_app();
    let old = space.inspect("app")["Id"].as_str().unwrap().to_owned();
    space.build_text("app", "FROM busybox\nRUN echo two > /two\n");
    assert_ne!(space.inspect("app")["Id"], old.as_str());
    assert_eq!(space.inspect(&old)["Id"], old.as_str());
    assert_eq!(space.inspect(&old)["RepoTags"].as_array().map_or(0, Vec::len), 0);
}

#[test]
fn inspect_speaks_as_docker_does() {
    let space = space_with_app();
    let image = space.inspect("app");
    assert_eq!(image["RepoTags"], serde_json::json!(["app:latest"]));
    assert_eq!(image["Os"], "linux");
    assert_eq!(image["Architecture"], if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" });
    assert_eq!(image["Config"]["Cmd"], serde_json::json!(["cat", "/one"]));
    assert_eq!(image["Config"]["WorkingDir"], "/srv");
    assert_eq!(image["Config"]["Labels"]["team"], "a b");
    let env = image["Config"]["Env"].as_array().unwrap();
    assert!(env.contains(&"COLOUR=green".into()), "{env:?}");
    assert!(env.iter().any(|pair| pair.as_str().unwrap().starts_with("PATH=/")), "{env:?}");
    assert!(image["Size"].as_u64().unwrap() > 1 << 20);
    assert!(image["Created"].as_str().unwrap().starts_with("20"), "{}", image["Created"]);
    // The base, two RUN and a WORKDIR; the LABEL, ENV and CMD have no layer.
    assert_eq!(image["RootFS"]["Type"], "layers");
    assert_eq!(image["RootFS"]["Layers"].as_array().map(Vec::len), Some(4), "{}", image["RootFS"]);
}

#[test]
fn history_tells_each_instruction_newest_first() {
    let space = space_with_app();
    let text = space.rbuild(["history", "--no-trunc", "app"]).ok().stdout;
    let lines: Vec<&str> = text.lines().collect();
    assert!(
        lines[0].starts_with("IMAGE") && lines[0].contains("CREATED BY") && lines[0].contains("SIZE"),
        "{text}"
    );
    let place = |what: &str| {
        lines.iter().position(|line| line.contains(what)).unwrap_or_else(|| panic!("no {what} in\n{text}"))
    };
    let order =
        ["cat", "echo two > /two", "LABEL team=a b", "WORKDIR /srv", "echo one > /one", "COLOUR=green"]
            .map(place);
    assert!(order.is_sorted(), "{order:?} in\n{text}");
    assert!(lines[1].contains(space.inspect("app")["Id"].as_str().unwrap()), "{text}");
    assert!(lines[2].starts_with("<missing>"), "{text}");
}

#[test]
fn several_tags_and_the_id_on_stdout() {
    let space = TestSpace::new().with_busybox();
    let context = space.dockerfile("FROM busybox\nRUN echo hi > /hi\n");
    let id = space.build_id(&context, &["-t", "one", "-t", "two:v1", "--tag", "example.org/three"]);
    for name in ["one:latest", "two:v1", "example.org/three"] {
        assert_eq!(space.inspect(name)["Id"], id.as_str());
    }
    let quiet = space.rbuild(["build".as_ref(), "-q".as_ref(), context.as_os_str()]).ok();
    assert_eq!(quiet.stdout, format!("{id}\n"));
    assert_eq!(quiet.stderr, "");
    // Without the word `build` it is the same command.
    let short = space.rbuild(["-q".as_ref(), "-t".as_ref(), "four".as_ref(), context.as_os_str()]).ok();
    assert_eq!(short.stdout, format!("{id}\n"));
    assert_eq!(space.inspect("four")["Id"], id.as_str());
}

#[test]
fn version_and_info_tell_what_is_there() {
    let space = TestSpace::new();
    let version = space.rbuild(["--version"]).ok().stdout;
    assert!(version.contains(env!("CARGO_PKG_VERSION")), "{version}");
    let info = space.rbuild(["info"]).ok().stdout.to_lowercase();
    for word in ["root", "snapshotter", "network", "cgroup"] {
        assert!(info.contains(word), "info does not speak of {word}:\n{info}");
    }
    assert!(info.contains(space.store().to_str().unwrap()), "{info}");
}
