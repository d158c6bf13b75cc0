//! Whole lives of images: imported, built upon, squashed, written out, loaded elsewhere, removed.

use super::*;
use crate::digest::ResultId;
use crate::layer::Compression;
use crate::oci::{Config, History};
use crate::plan::BaseImage;
use crate::snapshot::StepRecord;
use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

pub(super) struct Space {
    pub(super) dir: tempfile::TempDir,
    pub(super) images: Images,
}

impl Space {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        let images = Images::new(store.clone(), Snapshots::new(store));
        Self { dir, images }
    }

    pub(super) fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    /// Commits a step that does `work` in a directory on top of `parent`.
    fn step(&self, parent: &ResultId, work: impl FnOnce(&Path)) -> ResultId {
        let prepared = self.images.snapshots.prepare(parent).unwrap();
        work(&prepared.upper);
        let diff = prepared.scan(&HashSet::new()).unwrap();
        self.images.snapshots.commit(prepared, diff, StepRecord::default()).unwrap().id
    }

    fn import(&self, name: &str) -> Image {
        let request = ImportRequest {
            name: Some(name.parse().unwrap()),
            message: "made by a test".into(),
            platform: None,
            epoch: None,
            edit: None,
        };
        let id = self.images.import(Box::new(std::io::Cursor::new(rootfs())), &request).unwrap();
        self.images.get(&id).unwrap()
    }

    /// An image of the base, a step that adds, one that changes nothing, and one that removes.
    fn request(&self, base: &Image, names: &[&str]) -> AssembleRequest {
        let first = self.step(&base.top(), |upper| {
            fs::create_dir(upper.join("data")).unwrap();
            fs::set_permissions(upper.join("data"), fs::Permissions::from_mode(0o755)).unwrap();
            fs::write(upper.join("data/body"), "body\n").unwrap();
            fs::write(upper.join("data/gone"), "gone\n").unwrap();
            fs::hard_link(upper.join("data/body"), upper.join("data/hard")).unwrap();
            symlink("body", upper.join("data/soft")).unwrap();
        });
        let second = self.step(&first, |_| ());
        let third = self.step(&second, |upper| {
            fs::create_dir(upper.join("data")).unwrap();
            fs::write(upper.join("data/new"), "new\n").unwrap();
            whiteout(&upper.join("data/gone"));
            fs::create_dir(upper.join("etc")).unwrap();
            whiteout(&upper.join("etc/motd"));
        });
        let line = |text: &str, empty_layer| History {
            created_by: Some(text.into()),
            empty_layer,
            ..History::default()
        };
        let mut config = base.config.clone();
        config.config.labels.insert("purpose".into(), "test".into());
        AssembleRequest {
            config,
            history: vec![
                line("LABEL purpose=test", true),
                line("RUN add", false),
                line("RUN true", false),
                line("RUN remove", false),
            ],
            layers: vec![first, second, third],
            base: Some(BaseImage { image: base.id.clone(), config: base.config.clone() }),
            epoch: None,
            squash: false,
            annotations: Default::default(),
            names: names.iter().map(|n| n.parse().unwrap()).collect(),
        }
    }

    fn app(&self) -> Image {
        let base = self.import("base");
        let id = self.images.assemble(self.request(&base, &["app:v1", "example.org/team/app"])).unwrap();
        self.images.get(&id).unwrap()
    }

    pub(super) fn export(&self, image: &Image, format: ExportFormat, name: &str) -> std::path::PathBuf {
        self.export_with(image, format, name, None)
    }

    fn export_with(
        &self,
        image: &Image,
        format: ExportFormat,
        name: &str,
        compression: Option<Compression>,
    ) -> std::path::PathBuf {
        let path = self.path(name);
        let options = ExportOptions { compression, ..ExportOptions::default() };
        let named = [(image.clone(), image.names.clone())];
        self.images.export(&named, format, &options, Target::Path(&path)).unwrap();
        path
    }
}

fn whiteout(path: &Path) {
    let dir = crate::sys::inroot::open_root(path.parent().unwrap()).unwrap();
    let name = path.file_name().unwrap();
    crate::sys::file::mknod_at(&dir, name, rustix::fs::FileType::CharacterDevice, 0, 0, 0).unwrap();
}

/// A root file system with a shell behind a link.
fn rootfs() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut add = |name: &str, kind, mode, body: &str| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_mtime(1_000_000_000);
        if kind == tar::EntryType::Symlink {
            header.set_size(0);
            tar.append_link(&mut header, name, body).unwrap();
        } else {
            header.set_size(body.len() as u64);
            tar.append_data(&mut header, name, body.as_bytes()).unwrap();
        }
    };
    add("usr/", tar::EntryType::Directory, 0o755, "");
    add("usr/bin/", tar::EntryType::Directory, 0o755, "");
    add("bin", tar::EntryType::Symlink, 0o777, "usr/bin");
    add("usr/bin/sh", tar::EntryType::Regular, 0o755, "#!shell\n");
    add("etc/", tar::EntryType::Directory, 0o755, "");
    add("etc/motd", tar::EntryType::Regular, 0o644, "hello\n");
    tar.into_inner().unwrap()
}

/// Overlay whiteouts need root.
fn skip() -> bool {
    let skip = rustix::process::geteuid().as_raw() != 0;
    if skip {
        eprintln!("skipped: whiteouts are made as root");
    }
    skip
}

fn has_tool(name: &str) -> bool {
    let found = Command::new(name).arg("--version").output().is_ok();
    if !found {
        eprintln!("skipped: {name} is not installed");
    }
    found
}

fn tool(program: &str, args: &[&str]) -> String {
    let out = Command::new(program).args(args).output().unwrap();
    assert!(out.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

/// The tree of the app image, as far as it is looked at.
fn assert_tree(root: &Path) {
    assert_eq!(fs::read_to_string(root.join("data/body")).unwrap(), "body\n");
    assert_eq!(fs::read_to_string(root.join("data/hard")).unwrap(), "body\n");
    assert_eq!(fs::read_link(root.join("data/soft")).unwrap(), Path::new("body"));
    assert_eq!(fs::read_to_string(root.join("data/new")).unwrap(), "new\n");
    assert!(!root.join("data/gone").exists() && !root.join("etc/motd").exists());
    assert_eq!(fs::read_link(root.join("bin")).unwrap(), Path::new("usr/bin"));
    use std::os::unix::fs::MetadataExt;
    let inode = |name: &str| fs::metadata(root.join(name)).unwrap().ino();
    assert_eq!(inode("data/body"), inode("data/hard"));
}

#[test]
fn the_same_import_gives_the_same_image() {
    let space = Space::new();
    let image = space.import("base");
    assert_eq!(image.config.config.cmd.as_deref(), Some(&["sh".to_owned()][..]));
    assert_eq!(image.config.config.env.len(), 1);
    space.images.validate(&image.id).unwrap();
    assert_eq!(space.import("base"), image);
    assert_eq!(space.images.list().unwrap().images.len(), 1);
    let found = space.images.resolve_base("docker.io/library/base", Some(&Platform::host())).unwrap();
    assert_eq!(found.image, image.id);
    let other: Platform = "linux/s390x".parse().unwrap();
    assert!(space.images.resolve_base("base", Some(&other)).unwrap_err().why.contains("is for"));
    let missing = space.images.resolve_base("bass", None).unwrap_err().to_string();
    assert!(missing.contains("did you mean base") && missing.contains("rbuild import"), "{missing}");
}

#[test]
fn an_image_is_assembled_and_keeps_its_promises() {
    if skip() {
        return;
    }
    let space = Space::new();
    let image = space.app();
    space.images.validate(&image.id).unwrap();
    assert_eq!(image.manifest.layers.len(), 3, "the step that changed nothing has no layer");
    assert_eq!(image.config.history.len(), 5);
    let empty: Vec<bool> = image.config.history.iter().map(|h| h.empty_layer).collect();
    assert_eq!(empty, [false, true, false, true, false]);
    assert!(image.config.history.iter().all(|h| h.created.is_some()));
    assert_eq!(image.names.len(), 2);
    assert!(space.images.snapshots.has(&image.top()), "FROM app finds its layers");

    // nothing changed: the same image, whatever the clock says
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let base = space.images.resolve("base").unwrap();
    let again = space.images.assemble(space.request(&base, &["app:v1"])).unwrap();
    assert_eq!(again, image.id);

    // short IDs and what they may not be
    let hex = image.id.0.encoded();
    assert_eq!(space.images.resolve(&hex[..12]).unwrap().id, image.id);
    assert_eq!(space.images.resolve(image.id.0.as_str()).unwrap().id, image.id);
    assert!(matches!(space.images.resolve("f00f00f00f00"), Err(ImageError::NotFound { .. })));
    assert!(matches!(space.images.resolve("a b"), Err(ImageError::Reference(_))));
    let pinned = format!("app@{}", image.descriptor.digest);
    assert_eq!(space.images.resolve(&pinned).unwrap().id, image.id);
}

#[test]
fn an_image_that_nobody_asked_for_yet_is_assembled_when_somebody_does() {
    if skip() {
        return;
    }
    let space = Space::new();
    let images = &space.images;
    let base = space.import("base");
    let request = space.request(&base, &["app:v1", "example.org/team/app"]);
    // without a name there would be no way to ask
    assert!(!images.defer(&AssembleRequest { names: Vec::new(), ..request.clone() }).unwrap());
    assert!(images.defer(&request).unwrap());
    assert!(images.defer(&request).unwrap(), "the same again");
    let pending = || images.entries().unwrap().iter().filter(|e| pending::is_pending(e)).count();
    assert_eq!(pending(), 2);
    let unknown = |result: &ResultId| images.snapshots.layer(result).unwrap().diff_id.is_none();
    // asking for another image, by name or ID, leaves it as it is, and so does finding out what is needed
    assert_eq!(images.resolve("base").unwrap().id, base.id);
    assert_eq!(images.get(&base.id).unwrap().id, base.id);
    assert!(!images.any_damaged().unwrap());
    let (results, blobs) = images.roots().unwrap();
    assert!(request.layers.iter().all(|layer| results.contains(layer)) && results.contains(&base.top()));
    assert!(blobs.contains(&base.id.0) && blobs.contains(&base.descriptor.digest));
    assert_eq!(images.prune_blobs().unwrap(), 0);
    // its base may go: what it needs of it stays
    images.remove("base", false, &|_| None).unwrap();
    assert_eq!(pending(), 2);
    assert!(request.layers.iter().all(unknown), "no layer has been read");
    let image = images.resolve("app:v1").unwrap();
    images.validate(&image.id).unwrap();
    assert_eq!(image.names.len(), 2);
    assert_eq!(images.entries().unwrap().len(), 2);
    assert!(!images.defer(&request).unwrap(), "now all digests are known");
    assert!(images.prune_blobs().unwrap() > 0, "the documents of the base are needed no more");
    images.validate(&image.id).unwrap();
}

#[test]
fn a_deferred_image_has_the_id_that_it_would_have_had_at_once() {
    if skip() {
        return;
    }
    let space = Space::new();
    let base = space.import("base");
    for epoch in [None, Some(1_600_000_000)] {
        let request = AssembleRequest { epoch, ..space.request(&base, &["app"]) };
        assert!(space.images.defer(&request).unwrap());
        std::thread::sleep(std::time::Duration::from_millis(1100));
        // two at once: both get it
        let ids: Vec<_> = std::thread::scope(|scope| {
            let ask = || scope.spawn(|| space.images.resolve("app").unwrap().id);
            let both = [ask(), ask()];
            both.map(|thread| thread.join().unwrap()).to_vec()
        });
        assert_eq!(ids[0], ids[1]);
        assert_eq!(space.images.assemble(request).unwrap(), ids[0], "{epoch:?}");
    }
}

#[test]
fn a_deferred_image_may_lose_its_name_and_one_without_layers_says_so() {
    if skip() {
        return;
    }
    let space = Space::new();
    let base = space.import("base");
    let request = space.request(&base, &["app"]);
    assert!(space.images.defer(&request).unwrap());
    let other = AssembleRequest {
        layers: request.layers[..1].to_vec(),
        history: request.history[..2].to_vec(),
        ..request.clone()
    };
    assert!(space.images.defer(&other).unwrap());
    let listing = space.images.list().unwrap();
    assert_eq!(listing.images.iter().filter(|image| image.names.is_empty()).count(), 1, "the first app");
    assert_eq!(listing.images.len(), 3);
    // the snapshots are gone, as after a power cut
    let third = space.step(&base.top(), |upper| fs::write(upper.join("x"), "x").unwrap());
    let lost = AssembleRequest { layers: vec![third], history: request.history[..2].to_vec(), ..request };
    assert!(space.images.defer(&lost).unwrap());
    fs::remove_dir_all(space.path("store/snapshots").join(third.to_string())).unwrap();
    let fresh = Images::new(space.images.store.clone(), Snapshots::new(space.images.store.clone()));
    assert!(fresh.resolve("app").unwrap_err().to_string().contains("not in the store"));
    assert_eq!(fresh.list().unwrap().damaged.len(), 1);
    assert_eq!(fresh.resolve("base").unwrap().id, base.id);
    // it can be named anew, or lose its name
    assert_eq!(fresh.remove("app", false, &|_| None).unwrap().len(), 1);
    assert!(matches!(fresh.resolve("app"), Err(ImageError::NotFound { .. })));
}

#[test]
fn two_stores_agree_when_there_is_an_epoch() {
    if skip() {
        return;
    }
    let build = |squash| {
        let space = Space::new();
        let base = space.import("base");
        let mut request = space.request(&base, &[]);
        request.epoch = Some(1_600_000_000);
        request.squash = squash;
        // The base's own times are no matter here.
        request.base = None;
        request.layers.insert(0, base.top());
        request.history.insert(0, History::default());
        let id = space.images.assemble(request).unwrap();
        space.images.validate(&id).unwrap();
        let image = space.images.get(&id).unwrap();
        assert_eq!(image.config.created.as_deref(), Some("2020-09-13T12:26:40Z"));
        image
    };
    for squash in [false, true] {
        let first = build(squash);
        std::thread::sleep(std::time::Duration::from_millis(1100));
        assert_eq!(build(squash).id, first.id);
    }
}

#[test]
fn layers_that_were_compressed_ahead_are_the_same() {
    if skip() {
        return;
    }
    let mut space = Space::new();
    let base = space.import("base");
    let plain = space.images.clone();
    space.images = plain.exporting(Compression::Gzip(6)).unwrap();
    let id = space.images.assemble(space.request(&base, &["app:v1"])).unwrap();
    let image = space.images.get(&id).unwrap();
    let format = ExportFormat::Oci { archive: true };
    let ways = [Compression::Gzip(6), Compression::Gzip(1), Compression::Zstd(0), Compression::None];
    let write = |space: &Space, name: &str| -> Vec<Vec<u8>> {
        ways.iter()
            .map(|how| fs::read(space.export_with(&image, format, name, Some(*how))).unwrap())
            .collect()
    };
    let ahead = write(&space, "ahead.tar");
    space.images = plain;
    assert!(write(&space, "plain.tar") == ahead, "the archives differ");
    // what waited is gone with whom it waited for
    let left: Vec<_> =
        fs::read_dir(space.path("store/tmp")).unwrap().flatten().map(|e| e.file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with("export")), "{left:?}");
}

#[test]
fn squash_gives_one_layer_above_the_base() {
    if skip() {
        return;
    }
    let space = Space::new();
    let base = space.import("base");
    let mut request = space.request(&base, &["small"]);
    request.squash = true;
    let id = space.images.assemble(request.clone()).unwrap();
    space.images.validate(&id).unwrap();
    let image = space.images.get(&id).unwrap();
    assert_eq!(image.manifest.layers.len(), 2);
    assert_eq!(image.manifest.layers[0], base.manifest.layers[0], "the base stays as it is");
    let last = image.config.history.last().unwrap();
    assert!(!last.empty_layer && last.comment.as_ref().unwrap().starts_with("merge 3 layers onto sha256:"));
    assert_eq!(image.config.history.iter().filter(|h| h.empty_layer).count(), 4);
    let diff = space.images.snapshots.diff(&image.top()).unwrap();
    let paths: Vec<String> = diff.entries().map(|e| e.path.to_string()).collect();
    assert!(
        paths.contains(&"/etc/motd".to_owned()) && !paths.contains(&"/data/gone".to_owned()),
        "{paths:?}"
    );
    assert_tree(&space.export(&image, ExportFormat::Local { delete: false }, "tree"));
    assert_eq!(space.images.assemble(request.clone()).unwrap(), id);

    // on nothing there is one layer in all
    request.base = None;
    request.layers.insert(0, base.top());
    request.history.insert(0, History::default());
    let flat = space.images.get(&space.images.assemble(request).unwrap()).unwrap();
    assert_eq!(flat.manifest.layers.len(), 1);
    space.images.validate(&flat.id).unwrap();
    assert_tree(&space.export(&flat, ExportFormat::Local { delete: false }, "flat"));
}

#[test]
fn what_is_exported_is_loaded_as_it_was() {
    if skip() {
        return;
    }
    let space = Space::new();
    let image = space.app();
    let forms = [
        (ExportFormat::Docker { archive: true }, Some(Compression::None)),
        (ExportFormat::Docker { archive: true }, None),
        (ExportFormat::Oci { archive: true }, Some(Compression::Zstd(3))),
        (ExportFormat::Oci { archive: true }, Some(Compression::None)),
        (ExportFormat::Oci { archive: false }, None),
        (ExportFormat::Docker { archive: false }, Some(Compression::Gzip(1))),
    ];
    for (at, (format, compression)) in forms.into_iter().enumerate() {
        let path = space.export_with(&image, format, &format!("out{at}"), compression);
        let again = space.export_with(&image, format, &format!("again{at}"), compression);
        if path.is_file() {
            assert_eq!(fs::read(&path).unwrap(), fs::read(again).unwrap(), "the same bytes each time");
        }
        let other = Space::new();
        let loaded = other.images.load(LoadInput::Path(path.clone()), None).unwrap();
        assert_eq!(loaded.len(), 1, "{format:?}");
        assert_eq!((&loaded[0].id, &loaded[0].names), (&image.id, &image.names), "{format:?}");
        other.images.validate(&image.id).unwrap();
        let there = other.images.get(&image.id).unwrap();
        assert_tree(&other.export(&there, ExportFormat::Local { delete: false }, "tree"));
        // from a stream, and a second time
        if path.is_file() {
            let file = fs::File::open(&path).unwrap();
            other.images.load(LoadInput::Stream(Box::new(file)), None).unwrap();
        }
        assert_eq!(other.images.list().unwrap().images.len(), 1);
        // a loaded image is a base like any other
        let request = other.request(&there, &["more"]);
        let more = other.images.assemble(request).unwrap();
        other.images.validate(&more).unwrap();
        other.export(&other.images.get(&more).unwrap(), ExportFormat::Oci { archive: true }, "more.tar");
    }
}

#[test]
fn a_flat_tar_holds_the_tree() {
    if skip() {
        return;
    }
    let space = Space::new();
    let tar = space.export(&space.app(), ExportFormat::Tar, "flat.tar");
    let root = space.path("root");
    fs::create_dir(&root).unwrap();
    tool("tar", &["-xf", tar.to_str().unwrap(), "-C", root.to_str().unwrap()]);
    assert_tree(&root);
}

#[test]
fn a_directory_is_filled_without_following_its_links() {
    if skip() {
        return;
    }
    let space = Space::new();
    let image = space.app();
    let (tree, outside) = (space.path("tree"), space.path("outside"));
    fs::create_dir_all(tree.join("usr")).unwrap();
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("body"), "mine").unwrap();
    symlink(&outside, tree.join("data")).unwrap();
    symlink(outside.join("body"), tree.join("bin")).unwrap();
    fs::write(tree.join("stale"), "").unwrap();
    fs::create_dir_all(tree.join("usr/bin/sh/deep")).unwrap();
    space.export(&image, ExportFormat::Local { delete: false }, "tree");
    assert_tree(&tree);
    assert_eq!(fs::read_to_string(outside.join("body")).unwrap(), "mine");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    assert!(tree.join("stale").exists());
    space.export(&image, ExportFormat::Local { delete: true }, "tree");
    assert!(!tree.join("stale").exists());
    assert_tree(&tree);
}

#[test]
fn other_tools_take_what_we_write() {
    if skip() {
        return;
    }
    let space = Space::new();
    let image = space.app();
    let docker =
        space.export_with(&image, ExportFormat::Docker { archive: true }, "d.tar", Some(Compression::None));
    let oci = space.export(&image, ExportFormat::Oci { archive: true }, "o.tar");
    let layout = space.export(&image, ExportFormat::Oci { archive: false }, "layout");
    if has_tool("skopeo") {
        for source in [
            format!("docker-archive:{}:app:v1", docker.display()),
            format!("oci-archive:{}:v1", oci.display()),
            format!("oci:{}:v1", layout.display()),
        ] {
            let config = tool("skopeo", &["inspect", "--config", "--raw", &source]);
            assert_eq!(Digest::sha256_of(config.as_bytes()), image.id.0, "{source}");
            let copy = format!("dir:{}", space.path("copy").display());
            tool("skopeo", &["--insecure-policy", "copy", &source, &copy]);
        }
        // and its archives come in
        let back = space.path("back.tar");
        let to = format!("docker-archive:{}:back:1", back.display());
        tool("skopeo", &["--insecure-policy", "copy", &format!("oci-archive:{}:v1", oci.display()), &to]);
        let other = Space::new();
        let loaded = other.images.load(LoadInput::Path(back), None).unwrap();
        assert_eq!(
            (loaded[0].id.clone(), loaded[0].names[0].familiar()),
            (image.id.clone(), "back:1".into())
        );
    }
    if has_tool("umoci") {
        let bundle = space.path("bundle");
        tool("umoci", &["unpack", "--image", &format!("{}:v1", layout.display()), bundle.to_str().unwrap()]);
        assert_tree(&bundle.join("rootfs"));
    }
}

#[test]
fn names_and_images_go_away() {
    if skip() {
        return;
    }
    let space = Space::new();
    let image = space.app();
    let hex = &image.id.0.encoded()[..12];
    let free = |_: &ImageId| None;
    let busy = |_: &ImageId| Some(ImageUser { name: "container c1".to_owned(), runs: true });
    assert!(matches!(space.images.remove(hex, false, &free), Err(ImageError::InUse { .. })), "two names");
    let gone = space.images.remove("app:v1", false, &busy).unwrap();
    assert_eq!(gone, [Removed::Untagged("app:v1".parse().unwrap())]);
    assert!(matches!(
        space.images.remove("example.org/team/app", false, &busy),
        Err(ImageError::InUse { .. })
    ));
    assert!(matches!(space.images.remove(hex, true, &busy), Err(ImageError::InUse { .. })), "it runs");
    let gone = space.images.remove(hex, false, &free).unwrap();
    assert_eq!(gone.len(), 2);
    assert_eq!(gone[1], Removed::Deleted(image.id.clone()));
    assert!(space.images.get(&image.id).is_err());
    assert!(!space.images.store.blobs().has(&image.id.0), "its config is gone");
    let base = space.images.resolve("base").unwrap();
    space.images.validate(&base.id).unwrap();

    // a name that moves leaves an image without name, which prune takes
    let id = space.images.assemble(space.request(&base, &["base"])).unwrap();
    assert_eq!(space.images.resolve("base").unwrap().id, id);
    assert!(space.images.get(&base.id).unwrap().names.is_empty());
    let pruned = space.images.prune(&|i| i.names.is_empty()).unwrap();
    assert_eq!(pruned, [Removed::Deleted(base.id)]);
    space.images.validate(&id).unwrap();
}

#[test]
fn many_taggers_at_once_lose_nothing() {
    let space = Space::new();
    let image = space.import("base");
    std::thread::scope(|scope| {
        for n in 0..8 {
            let images = space.images.clone();
            let image = image.clone();
            scope.spawn(move || images.tag(&image, &format!("name{n}").parse().unwrap()).unwrap());
        }
    });
    assert_eq!(space.images.get(&image.id).unwrap().names.len(), 9);
}

#[test]
fn inspect_and_history_have_dockers_fields() {
    if skip() {
        return;
    }
    let space = Space::new();
    let image = space.app();
    let seen = space.images.inspect(&image);
    assert_eq!(seen["Id"], image.id.to_string());
    assert_eq!(seen["RepoTags"], serde_json::json!(["app:v1", "example.org/team/app:latest"]));
    assert_eq!(seen["Config"]["Cmd"], serde_json::json!(["sh"]));
    assert_eq!(seen["Config"]["Labels"]["purpose"], "test");
    assert_eq!(seen["Config"]["User"], "");
    assert!(seen["Config"]["Entrypoint"].is_null());
    assert_eq!(seen["RootFS"]["Layers"].as_array().unwrap().len(), 3);
    assert_eq!(seen["Size"], 8 + 6 + 5 + 5 + 4);
    let lines = space.images.history(&image);
    assert_eq!(lines.len(), 5);
    assert_eq!((lines[0].size, lines[0].created_by.as_str()), (4, "RUN remove"));
    assert_eq!((lines[1].size, lines[2].size, lines[4].size), (0, 10, 14));
    assert!(lines[0].id.is_some() && lines[1].id.is_none());
    assert_eq!(lines[4].comment, "made by a test");
}

#[test]
fn a_wrong_request_is_refused() {
    let space = Space::new();
    let base = space.import("base");
    let request = AssembleRequest {
        config: ImageConfig { config: Config::default(), ..base.config.clone() },
        history: vec![History::default()],
        layers: Vec::new(),
        base: None,
        epoch: None,
        squash: false,
        annotations: Default::default(),
        names: Vec::new(),
    };
    assert!(matches!(space.images.assemble(request), Err(ImageError::Assemble(_))));
    let pinned: Reference = format!("a@{}", base.descriptor.digest).parse().unwrap();
    assert!(space.images.tag(&base, &pinned).is_err());
}

#[test]
fn damage_is_found() {
    if skip() {
        return;
    }
    let space = Space::new();
    let image = space.app();
    let config = space.images.store.blobs().path(&image.id.0);
    let good = fs::read(&config).unwrap();
    let mut bad = good.clone();
    bad[10] ^= 1;
    fs::write(&config, &bad).unwrap();
    assert!(space.images.resolve("app:v1").is_err());
    let listing = space.images.list().unwrap();
    assert_eq!((listing.images.len(), listing.damaged.len()), (1, 1));
    // it can still lose its name
    assert_eq!(space.images.remove("app:v1", false, &|_| None).unwrap().len(), 1);
    fs::write(&config, &good).unwrap();
    let list = space.path("store/images/index.json");
    let names = || space.images.list().unwrap().images.len();
    let before = names();
    // a changed letter in a name is damage, too; the copy serves until both are written anew
    let text = fs::read_to_string(&list).unwrap();
    for damage in ["{".to_owned(), text.replacen("base", "bass", 1), String::new()] {
        fs::write(&list, damage).unwrap();
        assert_eq!((names(), space.images.audit().len()), (before, 1));
    }
    fs::remove_file(&list).unwrap();
    assert_eq!(names(), before);
    assert_eq!(space.images.remake_list().unwrap(), before);
    assert!(space.images.audit().is_empty());
    for file in ["index.json", "index.copy.json"] {
        fs::write(list.with_file_name(file), "{").unwrap();
    }
    let error = space.images.list().unwrap_err().to_string();
    assert!(error.contains("index.json is damaged") && error.contains("system check --repair"), "{error}");
    assert_eq!(space.images.remake_list().unwrap(), before);
    assert!(space.images.list().unwrap().images.iter().all(|image| image.names.is_empty()));
}
