use super::*;
use crate::digest::{ChainId, DiffId, Digest};
use crate::tree::{Diff, Entry, Meta, Mtime, Node, SourceNode, SourceTree};
use std::collections::{BTreeMap, HashSet};
use std::io::Cursor;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

fn p(path: &str) -> TreePath {
    TreePath::clean(path.as_bytes())
}

struct Space {
    dir: tempfile::TempDir,
    snapshots: Snapshots,
}

fn space_in(mode: SnapshotMode) -> Space {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store")).unwrap();
    Space { dir, snapshots: Snapshots::new_with_mode(store, mode) }
}

fn space() -> Space {
    space_in(SnapshotMode::Overlay { userxattr: false })
}

fn can_make_whiteouts() -> bool {
    let dir = tempfile::tempdir().unwrap();
    let fd = fsutil::open_dir(dir.path()).unwrap();
    let made = crate::layer::whiteout::make_whiteout(std::os::fd::AsFd::as_fd(&fd), "w".as_ref());
    if made.is_err() {
        eprintln!("skipped: this user cannot make whiteouts");
    }
    made.is_ok()
}

impl Space {
    /// Commits what `write` leaves in an upper directory.
    fn step(&self, parent: &ResultId, write: impl FnOnce(&Path)) -> Committed {
        let prepared = self.snapshots.prepare(parent).unwrap();
        write(&prepared.upper);
        let diff = prepared.scan(&HashSet::new()).unwrap();
        self.snapshots.commit(prepared, diff, StepRecord::default()).unwrap()
    }

    fn again(&self) -> Snapshots {
        let store = Store::open(&self.dir.path().join("store")).unwrap();
        Snapshots::new_with_mode(store, self.snapshots.mode())
    }

    fn left_in_tmp(&self) -> usize {
        std::fs::read_dir(self.dir.path().join("store/tmp")).unwrap().count()
    }
}

#[test]
fn a_step_is_committed_and_found_by_others() {
    let s = space();
    let one = s.step(&ResultId::scratch(), |upper| {
        std::fs::create_dir(upper.join("etc")).unwrap();
        std::fs::write(upper.join("etc/passwd"), "root").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", upper.join("p")).unwrap();
        std::os::unix::fs::symlink("../../..", upper.join("etc/up")).unwrap();
    });
    let two = s.step(&one.id, |upper| std::fs::write(upper.join("new"), "2").unwrap());
    assert!(!one.existed && !two.existed && s.left_in_tmp() == 0);
    let other = s.again();
    assert!(other.has(&two.id));
    let snapshot = other.get(&two.id).unwrap();
    assert_eq!(snapshot.chain, [two.id, one.id]);
    assert_eq!(snapshot.lowers.len(), 2);
    let view = snapshot.view();
    assert_eq!(view.read(&p("p"), 100).unwrap(), b"root");
    assert!(view.read(&p("p"), 3).is_err());
    assert_eq!(view.read(&p("etc/up/new"), 100).unwrap(), b"2");
    let missing = view.resolve(b"/etc/up/etc/a/b", true).unwrap();
    assert_eq!((missing.path, missing.entry), (p("etc/a/b"), None));
    assert!(view.resolve(b"/new/x", true).is_err());
    assert!(matches!(view.resolve(b"p", false).unwrap().entry.unwrap().node, SourceNode::Symlink { .. }));
    let names: Vec<_> = view.list(&TreePath::root()).unwrap().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, [b"etc".to_vec(), b"new".to_vec(), b"p".to_vec()]);
}

#[test]
fn the_same_result_is_kept_once() {
    let s = space();
    let write = |upper: &Path| std::fs::write(upper.join("f"), "same").unwrap();
    let first = s.step(&ResultId::scratch(), write);
    // another time, another mtime
    let second = s.step(&ResultId::scratch(), |upper| {
        write(upper);
        let old = std::fs::File::open(upper.join("f")).unwrap();
        old.set_modified(std::time::UNIX_EPOCH).unwrap();
    });
    assert_eq!(first.id, second.id);
    assert!(second.existed && s.left_in_tmp() == 0);
}

#[test]
fn a_directory_without_a_valid_record_is_garbage() {
    let s = space();
    let write = |upper: &Path| std::fs::write(upper.join("f"), "x").unwrap();
    let id = s.step(&ResultId::scratch(), write).id;
    let dir = s.dir.path().join("store/snapshots").join(id.to_string());
    let damage: [&dyn Fn(); 4] = [
        &|| std::fs::remove_file(dir.join("record.json")).unwrap(),
        &|| std::fs::write(dir.join("record.json"), "{}").unwrap(),
        &|| {
            let bytes = std::fs::read(dir.join("record.json")).unwrap();
            std::fs::write(dir.join("record.json"), &bytes[..bytes.len() / 2]).unwrap();
        },
        &|| std::fs::write(dir.join("tree"), "").unwrap(),
    ];
    for hurt in damage {
        hurt();
        let other = s.again();
        assert!(!other.has(&id));
        assert!(matches!(other.get(&id), Err(SnapshotError::Missing(_))));
        // made again, in the garbage's place
        let prepared = other.prepare(&ResultId::scratch()).unwrap();
        write(&prepared.upper);
        let diff = prepared.scan(&HashSet::new()).unwrap();
        let again = other.commit(prepared, diff, StepRecord::default()).unwrap();
        assert_eq!((again.id, again.existed), (id, false));
    }
    assert_eq!(s.left_in_tmp(), 0);
}

#[test]
fn a_damaged_diff_is_made_anew_from_the_files() {
    let s = space();
    let id = s.step(&ResultId::scratch(), |upper| std::fs::write(upper.join("f"), "x").unwrap()).id;
    let dir = s.dir.path().join("store/snapshots").join(id.to_string());
    let mut tree = std::fs::read(dir.join("tree")).unwrap();
    tree[20] ^= 1;
    std::fs::write(dir.join("tree"), &tree).unwrap();
    assert_eq!(s.again().diff(&id).unwrap().entries().len(), 1);
    // and when the files are damaged too, the snapshot is gone
    std::fs::write(dir.join("tree"), &tree).unwrap();
    std::fs::write(dir.join("fs/f"), "y").unwrap();
    let other = s.again();
    assert!(other.diff(&id).is_err());
    assert!(!other.has(&id));
}

#[test]
fn after_another_boot_cut_off_files_are_noticed() {
    let s = space();
    let id = s.step(&ResultId::scratch(), |upper| std::fs::write(upper.join("f"), "text").unwrap()).id;
    let dir = s.dir.path().join("store/snapshots").join(id.to_string());
    let reboot = || {
        let mut record: record::Record =
            record::unseal(&std::fs::read(dir.join("record.json")).unwrap()).unwrap();
        record.boot = "another".to_owned();
        std::fs::write(dir.join("record.json"), record::seal(&record)).unwrap();
    };
    reboot();
    assert!(s.again().has(&id));
    reboot();
    std::fs::write(dir.join("fs/f"), "").unwrap();
    assert!(!s.again().has(&id));
}

#[test]
fn aliases_lead_to_snapshots() {
    let s = space();
    let id = s.step(&ResultId::scratch(), |upper| std::fs::write(upper.join("f"), "x").unwrap()).id;
    let name = ResultId([9; 32]);
    assert!(s.snapshots.alias(&name, &ResultId([8; 32])).is_err());
    s.snapshots.alias(&name, &id).unwrap();
    s.snapshots.alias(&name, &id).unwrap();
    assert!(s.again().has(&name));
    assert_eq!(s.again().get(&name).unwrap().id, id);
    let child = s.step(&name, |upper| std::fs::write(upper.join("g"), "x").unwrap());
    assert_eq!(s.again().get(&child.id).unwrap().chain, [child.id, id]);
    assert_eq!(s.snapshots.list().unwrap().iter().find(|i| i.id == id).unwrap().aliases, [name]);
}

#[test]
fn collection_spares_what_is_kept_or_held() {
    let s = space();
    let file = |name: &'static str| move |upper: &Path| std::fs::write(upper.join(name), name).unwrap();
    let base = s.step(&ResultId::scratch(), file("base")).id;
    let kept = s.step(&base, file("kept")).id;
    let held = s.step(&base, file("held")).id;
    let loose = s.step(&held, file("loose")).id;
    s.snapshots.alias(&ResultId([7; 32]), &loose).unwrap();
    let user = s.again();
    let holding = user.get(&held).unwrap();
    let Space { dir, snapshots } = s;
    // the builder itself holds all it made
    let collector = Snapshots::new_with_mode(snapshots.store().clone(), snapshots.mode());
    assert!(collector.collect(&HashSet::from([kept])).unwrap().is_empty());
    drop(snapshots);
    let removed = collector.collect(&HashSet::from([kept])).unwrap();
    assert_eq!(removed.iter().map(|i| i.id).collect::<Vec<_>>(), [loose]);
    assert!(!collector.has(&ResultId([7; 32])));
    assert!(collector.get(&held).is_ok() && collector.get(&kept).is_ok());
    drop((holding, user));
    let collector = Snapshots::new_with_mode(collector.store().clone(), collector.mode());
    assert!(!collector.remove(&base).unwrap(), "something stands on it");
    assert_eq!(collector.collect(&HashSet::new()).unwrap().len(), 3);
    assert_eq!(std::fs::read_dir(dir.path().join("store/snapshots")).unwrap().count(), 0);
}

#[test]
fn two_makers_of_one_result_both_succeed() {
    let s = space();
    let made: Vec<Committed> = std::thread::scope(|scope| {
        let make = || {
            let own = s.again();
            let prepared = own.prepare(&ResultId::scratch()).unwrap();
            std::fs::write(prepared.upper.join("f"), "x").unwrap();
            let diff = prepared.scan(&HashSet::new()).unwrap();
            own.commit(prepared, diff, StepRecord::default()).unwrap()
        };
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(make)).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert_eq!(made.iter().filter(|c| !c.existed).count(), 1);
    assert!(made.iter().all(|c| c.id == made[0].id));
}

#[test]
fn a_layer_is_checked_before_it_is_seen() {
    let s = space();
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(4);
    header.set_mode(0o644);
    tar.append_data(&mut header, "f", &b"text"[..]).unwrap();
    let tar = tar.into_inner().unwrap();
    let diff_id = DiffId(Digest::sha256_of(&tar));
    let chain = ChainId::push(None, &diff_id);
    let mut gz = crate::layer::encoder(Vec::new(), crate::layer::Compression::Gzip(6)).unwrap();
    std::io::Write::write_all(&mut gz, &tar).unwrap();
    let gz = gz.finish().unwrap();
    let wrong = DiffId(Digest::sha256_of(b"other"));
    let apply = |diff_id: &DiffId, bytes: &[u8]| {
        let bytes = Box::new(Cursor::new(bytes.to_vec()));
        s.snapshots.apply_layer(&ResultId::scratch(), &chain, diff_id, None, bytes)
    };
    assert!(apply(&wrong, &gz).unwrap_err().to_string().contains("diff ID"));
    assert!(apply(&diff_id, &gz[..gz.len() - 12]).is_err());
    assert!(!s.snapshots.has(&ResultId::chain(&chain)) && s.left_in_tmp() == 0);
    let id = apply(&diff_id, &gz).unwrap();
    assert_eq!(id, ResultId::chain(&chain));
    let info = s.snapshots.layer(&id).unwrap();
    assert_eq!((info.diff_id.as_ref(), info.tar_size), (Some(&diff_id), Some(tar.len() as u64)));
    assert_eq!(s.snapshots.get(&id).unwrap().view().read(&p("f"), 10).unwrap(), b"text");
}

#[test]
fn what_overlayfs_only_copied_up_is_no_change() {
    if !can_make_whiteouts() {
        return;
    }
    let s = space();
    let base = s.step(&ResultId::scratch(), |upper| {
        for dir in ["etc", "d", "d/sub", "lonely"] {
            std::fs::create_dir(upper.join(dir)).unwrap();
        }
        for file in ["etc/hosts", "d/a", "d/sub/b", "same"] {
            std::fs::write(upper.join(file), file).unwrap();
        }
    });
    let stub = p("etc/resolv.conf");
    let prepared = s.snapshots.prepare(&base.id).unwrap();
    let upper = prepared.upper.clone();
    std::fs::create_dir(upper.join("etc")).unwrap();
    std::fs::write(upper.join("etc/resolv.conf"), "").unwrap();
    // opened for writing, not written: the copy has the old time
    std::fs::write(upper.join("same"), "same").unwrap();
    let before = base_dir(&s, &base.id).join("same").metadata().unwrap();
    let time =
        std::time::UNIX_EPOCH + std::time::Duration::new(before.mtime() as u64, before.mtime_nsec() as u32);
    std::fs::File::options().write(true).open(upper.join("same")).unwrap().set_modified(time).unwrap();
    // removed and made again: opaque, one name is back
    std::fs::create_dir(upper.join("d")).unwrap();
    std::fs::create_dir(upper.join("d/sub")).unwrap();
    let d = fsutil::open_dir(&upper.join("d")).unwrap();
    crate::layer::whiteout::mark_opaque(std::os::fd::AsFd::as_fd(&d), false).unwrap();
    // a deletion of nothing, and a new directory that the kernel marked
    let top = fsutil::open_dir(&upper).unwrap();
    crate::layer::whiteout::make_whiteout(std::os::fd::AsFd::as_fd(&top), "never".as_ref()).unwrap();
    std::fs::create_dir(upper.join("new")).unwrap();
    let new = fsutil::open_dir(&upper.join("new")).unwrap();
    crate::layer::whiteout::mark_opaque(std::os::fd::AsFd::as_fd(&new), false).unwrap();
    let diff = prepared.scan(&HashSet::from([stub])).unwrap();
    let told: Vec<String> = diff
        .entries()
        .map(|e| format!("{} {}", e.path, if e.node == Node::Whiteout { "gone" } else { "there" }))
        .collect();
    assert_eq!(told, ["/d there", "/d/a gone", "/d/sub there", "/d/sub/b gone", "/new there"]);
    assert!(diff.entries().all(|e| e.node != Node::Dir { opaque: true }));
    assert!(!upper.join("etc/resolv.conf").exists());
}

fn base_dir(s: &Space, id: &ResultId) -> std::path::PathBuf {
    s.snapshots.get(id).unwrap().lowers[0].clone()
}

#[test]
fn a_filled_mount_point_stays() {
    let s = space();
    let prepared = s.snapshots.prepare(&ResultId::scratch()).unwrap();
    std::fs::create_dir_all(prepared.upper.join("run/secrets")).unwrap();
    std::fs::create_dir_all(prepared.upper.join("mnt/cache")).unwrap();
    std::fs::write(prepared.upper.join("mnt/cache/left"), "x").unwrap();
    let skip = ["run", "run/secrets", "mnt", "mnt/cache"].map(p).into();
    let diff = prepared.scan(&skip).unwrap();
    let paths: Vec<_> = diff.entries().map(|e| e.path.to_string()).collect();
    assert_eq!(paths, ["/mnt", "/mnt/cache", "/mnt/cache/left"]);
    assert!(!prepared.upper.join("run").exists());
}

#[test]
fn copying_gives_the_same_result_as_overlay() {
    if !can_make_whiteouts() {
        return;
    }
    let s = space_in(SnapshotMode::Copy);
    let base = s.step(&ResultId::scratch(), |upper| {
        std::fs::create_dir_all(upper.join("d/sub")).unwrap();
        for file in ["d/a", "d/b", "d/sub/c", "f", "g"] {
            std::fs::write(upper.join(file), file).unwrap();
        }
        std::fs::hard_link(upper.join("f"), upper.join("f2")).unwrap();
        std::os::unix::fs::symlink("f", upper.join("l")).unwrap();
    });
    let prepared = s.snapshots.prepare(&base.id).unwrap();
    let crate::sandbox::Rootfs::Dir(root) = prepared.rootfs().unwrap() else { panic!("not a directory") };
    assert_eq!(std::fs::read(root.join("d/sub/c")).unwrap(), b"d/sub/c");
    assert_eq!(root.join("f").metadata().unwrap().ino(), root.join("f2").metadata().unwrap().ino());
    assert_ne!(
        root.join("f").metadata().unwrap().ino(),
        base_dir(&s, &base.id).join("f").metadata().unwrap().ino()
    );
    let nothing = prepared.scan(&HashSet::new()).unwrap();
    assert!(nothing.is_empty(), "{nothing:?}");
    std::fs::write(root.join("d/a"), "D/A").unwrap();
    std::fs::remove_file(root.join("d/b")).unwrap();
    std::fs::remove_file(root.join("l")).unwrap();
    std::fs::create_dir(root.join("l")).unwrap();
    std::fs::write(root.join("l/in"), "x").unwrap();
    std::fs::remove_dir_all(root.join("d/sub")).unwrap();
    std::fs::write(root.join("d/sub"), "now a file").unwrap();
    std::fs::set_permissions(root.join("g"), std::fs::Permissions::from_mode(0o600)).unwrap();
    let diff = prepared.scan(&HashSet::new()).unwrap();
    let paths: Vec<_> = diff.entries().map(|e| e.path.to_string()).collect();
    assert_eq!(paths, ["/d", "/d/a", "/d/b", "/d/sub", "/g", "/l", "/l/in"]);
    assert_eq!(diff.get(&p("d/b")).unwrap().node, Node::Whiteout);
    let next = s.snapshots.commit(prepared, diff, StepRecord::default()).unwrap();
    let view = s.snapshots.get(&next.id).unwrap().view();
    assert_eq!(view.read(&p("d/sub"), 99).unwrap(), b"now a file");
    assert_eq!(view.read(&p("l/in"), 99).unwrap(), b"x");
    assert_eq!(view.stat(&p("d/b")).unwrap(), None);
    assert!(view.stat(&p("f")).unwrap().unwrap().links.is_some());
}

/// Runs a shell script in the tree, mounted in a mount namespace of its own; false when that cannot be done here.
fn run_in(prepared: &Prepared, script: &str) -> bool {
    let (mount, root) = match prepared.rootfs().unwrap() {
        crate::sandbox::Rootfs::Dir(dir) => (String::new(), dir),
        crate::sandbox::Rootfs::Overlay { lowers, upper, work, .. } => {
            let lowers: Vec<_> = lowers.iter().map(|dir| dir.to_str().unwrap()).collect();
            let root = prepared.dir.path().join("mounted");
            std::fs::create_dir(&root).unwrap();
            let options = format!(
                "lowerdir={},upperdir={},workdir={},redirect_dir=off,metacopy=off",
                lowers.join(":"),
                upper.display(),
                work.display()
            );
            (format!("mount -t overlay overlay -o {options} {}", root.display()), root)
        }
        other => panic!("{other:?}"),
    };
    let script = format!("{mount}\ncd {} || exit 7\n{script}", root.display());
    let done = std::process::Command::new("unshare").args(["-m", "sh", "-ec", &script]).output();
    let ok = done.as_ref().is_ok_and(|out| out.status.success());
    if !ok {
        eprintln!("skipped: no overlay mount is possible here: {done:?}");
    }
    ok
}

#[test]
fn a_real_overlay_mount_and_a_copy_give_the_same_diff() {
    let script = "
        touch -d @1000 stamp; chmod 700 d/sub; rm -r d/old; mkdir d/old; echo new > d/old/file
        mv d/a d/moved; rm f; mkdir f; echo in > f/in; rm -r whole; echo x >> g; mv d2 d3; : >> same
        ln g g2; rm l; ln -s other l; mkdir -p fresh/deep; mkfifo pipe";
    let ids = [SnapshotMode::Overlay { userxattr: false }, SnapshotMode::Copy].map(|mode| {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: mounting needs root");
            return None;
        }
        let s = space_in(mode);
        let base = s.step(&ResultId::scratch(), |upper| {
            for dir in ["d/sub", "d/old/in", "whole/sub", "d2/sub"] {
                std::fs::create_dir_all(upper.join(dir)).unwrap();
            }
            for file in ["stamp", "d/a", "d/old/file", "d/old/in/x", "f", "g", "whole/x", "d2/y", "same"] {
                std::fs::write(upper.join(file), file).unwrap();
            }
            std::os::unix::fs::symlink("f", upper.join("l")).unwrap();
        });
        let prepared = s.snapshots.prepare(&base.id).unwrap();
        if !run_in(&prepared, script) {
            return None;
        }
        let diff = prepared.scan(&HashSet::new()).unwrap();
        let paths: Vec<_> = diff.entries().map(|e| e.path.to_string()).collect();
        let done = s.snapshots.commit(prepared, diff.clone(), StepRecord::default()).unwrap();
        // and what was committed is what the next step sees
        let next = s.snapshots.prepare(&done.id).unwrap();
        assert!(run_in(
            &next,
            "test ! -e whole -a ! -e d/old/in -a ! -e d/a -a -e d/moved -a -e f/in -a -e d3/y"
        ));
        assert!(next.scan(&HashSet::new()).unwrap().is_empty());
        Some((diff.content_id(), paths))
    });
    if let [Some(overlay), Some(copy)] = ids {
        assert_eq!(overlay.1, copy.1);
        assert_eq!(overlay.0, copy.0);
        assert!(!overlay.1.contains(&"/same".to_owned()));
    }
}

/// A tree as one says it: path to text of a file, `None` for a directory.
type Model = BTreeMap<TreePath, Option<u8>>;

mod random {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone)]
    enum Act {
        File(u8),
        Dir { opaque: bool },
        Whiteout,
    }

    fn layer() -> impl Strategy<Value = Vec<(TreePath, Act)>> {
        let path = proptest::collection::vec(proptest::sample::select(vec!["a", "b", "c"]), 1..4);
        let act = prop_oneof![
            2 => any::<u8>().prop_map(Act::File),
            2 => any::<bool>().prop_map(|opaque| Act::Dir { opaque }),
            1 => Just(Act::Whiteout),
        ];
        proptest::collection::vec((path.prop_map(|parts| p(&parts.join("/"))), act), 0..8)
    }

    /// Makes a diff that could be: what an entry is below is a directory.
    fn diff(acts: &[(TreePath, Act)]) -> Diff {
        let mut slots: BTreeMap<TreePath, Act> = BTreeMap::new();
        for (path, act) in acts {
            let mut above = path.parent();
            while let Some(dir) = above.filter(|dir| !dir.is_root()) {
                if !matches!(slots.get(&dir), Some(Act::Dir { .. })) {
                    slots.insert(dir.clone(), Act::Dir { opaque: false });
                }
                above = dir.parent();
            }
            if !matches!(act, Act::Dir { .. }) {
                slots.retain(|other, _| other.strip_prefix(path).is_none());
            }
            slots.insert(path.clone(), act.clone());
        }
        let entry = |(path, act): (TreePath, Act)| {
            let node = match act {
                Act::File(text) => Node::File { size: 1, content: blake3::hash(&[text]).into() },
                Act::Dir { opaque } => Node::Dir { opaque },
                Act::Whiteout => Node::Whiteout,
            };
            Entry { path, meta: Meta { mtime: Mtime::default(), ..Meta::default() }, node }
        };
        Diff::new(slots.into_iter().map(entry).collect())
    }

    /// Applies a diff to the model in the obvious way: deletions first, then what is there.
    fn apply(model: &mut Model, diff: &Diff) {
        for entry in diff.entries() {
            let path = &entry.path;
            let opaque = matches!(entry.node, Node::Dir { opaque: true });
            if !matches!(entry.node, Node::Dir { .. }) || model.get(path) != Some(&None) {
                model.retain(|other, _| other.strip_prefix(path).is_none());
            } else if opaque {
                model.retain(|other, _| other == path || other.strip_prefix(path).is_none());
            }
        }
        for entry in diff.entries() {
            match entry.node {
                Node::File { content, .. } => {
                    let text = (0..=255u8).find(|b| content == blake3::hash(&[*b]).into()).unwrap();
                    model.insert(entry.path.clone(), Some(text));
                }
                Node::Whiteout => {}
                _ => drop(model.insert(entry.path.clone(), None)),
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]
        #[test]
        fn lookups_agree_with_the_obvious_way(layers in proptest::collection::vec(layer(), 0..6)) {
            let diffs: Vec<Diff> = layers.iter().map(|acts| diff(acts)).collect();
            let mut model = Model::new();
            diffs.iter().for_each(|diff| apply(&mut model, diff));
            let top_first = diffs.iter().rev().map(|d| Arc::new(stack::Layer::new(Arc::new(d.clone()))));
            let stack = stack::Stack::new(top_first.collect());
            let names = ["a", "b", "c"];
            let mut all = vec![TreePath::root()];
            for depth in 0..4 {
                let level: Vec<_> = all.iter().filter(|path| path.components().count() == depth).cloned().collect();
                all.extend(level.iter().flat_map(|dir| names.map(|n| dir.child(n.as_bytes()))));
            }
            for path in &all {
                let found = stack.find(path).map(|hit| match hit {
                    stack::Hit::Entry(layer, at) => match &stack.layers[layer].entry(at).node {
                        Node::File { content, .. } => (0..=255u8).find(|b| *content == blake3::hash(&[*b]).into()),
                        _ => None,
                    },
                    _ => None,
                });
                let expected = if path.is_root() { Some(None) } else { model.get(path).copied() };
                prop_assert_eq!(found, expected, "at {}", path);
                let listed = stack.list(path).map(|names| names.into_keys().collect::<Vec<_>>());
                let is_dir = expected == Some(None);
                let below = || names.map(|n| n.as_bytes().to_vec()).into_iter()
                    .filter(|n| model.contains_key(&path.child(n))).collect::<Vec<_>>();
                prop_assert_eq!(listed, is_dir.then(below), "listing {}", path);
            }
        }
    }
}
