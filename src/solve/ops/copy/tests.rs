//! The rules of COPY, as tables over small trees: what BuildKit makes of them, checked in the diff and on disk.

use super::*;
use crate::digest::ContentId;
use crate::layer::Limits;
use crate::plan::{CopyOp, CopySource, From};
use crate::tree::{Diff, Meta, Mtime, Node, SourceEntry, SourceNode};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Seek, Write};
use std::path::Path;

/// A tree in memory.
#[derive(Default)]
pub(super) struct Memory {
    entries: BTreeMap<TreePath, (SourceEntry, Vec<u8>)>,
    /// A source that forgets what it promised: `open` gives other bytes.
    lies: bool,
}

pub(super) fn p(path: &str) -> TreePath {
    TreePath::clean(path.as_bytes())
}

impl Memory {
    pub(super) fn new() -> Self {
        Self::default()
    }

    fn add(mut self, path: &str, node: SourceNode, mode: u32, bytes: &[u8]) -> Self {
        let path = p(path);
        if let Some(parent) = path.parent().filter(|d| !d.is_root() && !self.entries.contains_key(d)) {
            self = self.dir(std::str::from_utf8(parent.as_bytes()).unwrap());
        }
        let meta = Meta { mode, mtime: Mtime { secs: 1000, nanos: 5 }, ..Meta::default() };
        self.entries.insert(path, (SourceEntry { meta, node, links: None }, bytes.to_vec()));
        self
    }

    pub(super) fn dir(self, path: &str) -> Self {
        self.add(path, SourceNode::Dir, 0o755, b"")
    }

    pub(super) fn bytes(self, path: &str, bytes: &[u8]) -> Self {
        self.add(path, SourceNode::File { size: bytes.len() as u64 }, 0o644, bytes)
    }

    pub(super) fn file(self, path: &str, text: &str) -> Self {
        self.bytes(path, text.as_bytes())
    }

    pub(super) fn link(self, path: &str, target: &str) -> Self {
        self.add(path, SourceNode::Symlink { target: target.into() }, 0o777, b"")
    }

    fn node(self, path: &str, node: SourceNode) -> Self {
        self.add(path, node, 0o600, b"")
    }

    /// Changes the last that was added... by its path.
    fn meta(mut self, path: &str, mode: u32, uid: u32, gid: u32) -> Self {
        let entry = &mut self.entries.get_mut(&p(path)).unwrap().0;
        entry.meta = Meta { mode, uid, gid, ..entry.meta.clone() };
        self
    }

    fn edit(mut self, path: &str, edit: impl FnOnce(&mut SourceEntry)) -> Self {
        edit(&mut self.entries.get_mut(&p(path)).unwrap().0);
        self
    }
}

impl SourceTree for Memory {
    fn stat(&self, path: &TreePath) -> io::Result<Option<SourceEntry>> {
        Ok(self.entries.get(path).map(|(entry, _)| entry.clone()))
    }

    fn list(&self, dir: &TreePath) -> io::Result<Vec<(Vec<u8>, SourceEntry)>> {
        let below = self.entries.iter().filter(|(path, _)| path.parent().as_ref() == Some(dir));
        Ok(below.map(|(path, (entry, _))| (path.file_name().unwrap().to_vec(), entry.clone())).collect())
    }

    fn content(&self, path: &TreePath, _entry: &SourceEntry) -> io::Result<ContentId> {
        Ok(blake3::hash(&self.entries[path].1).into())
    }

    fn open(&self, path: &TreePath) -> io::Result<File> {
        let mut file = tempfile::tempfile()?;
        let mut bytes = self.entries[path].1.clone();
        if self.lies {
            bytes.fill(b'!');
        }
        file.write_all(&bytes)?;
        file.rewind()?;
        Ok(file)
    }
}

pub(super) fn copy_op(sources: &[&str], dest: &str) -> CopyOp {
    CopyOp::plain(
        sources.iter().map(|s| CopySource::Path((*s).to_owned())).collect(),
        From::Context(String::new()),
        dest,
    )
}

pub(super) fn tar_of(files: &[(&str, &str)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, text) in files {
        let mut header = tar::Header::new_ustar();
        let dir = name.ends_with('/');
        header.set_entry_type(if dir { tar::EntryType::Directory } else { tar::EntryType::Regular });
        header.set_mode(if dir { 0o711 } else { 0o640 });
        header.set_uid(7);
        header.set_gid(8);
        header.set_size(text.len() as u64);
        header.set_mtime(77);
        tar.append_data(&mut header, name, text.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap()
}

fn run_in(dir: &Path, source: &Memory, base: &Memory, op: &CopyOp) -> Result<Diff, CopyError> {
    let (upper, scratch) = (dir.join("upper"), dir.join("scratch"));
    std::fs::create_dir(&upper).unwrap();
    std::fs::create_dir(&scratch).unwrap();
    let sources = Sources::paths(source);
    let selection = select(&sources, op)?;
    let env = ApplyEnv {
        bodies: None,
        now: Mtime { secs: 2000, nanos: 0 },
        chown: crate::sys::fsutil::can_chown(),
        scratch: &scratch,
        limits: Limits::default(),
    };
    let scan = |dir: &Path| {
        let skip = std::collections::HashSet::new();
        crate::layer::scan(dir, &crate::layer::ScanOptions { userxattr: false, skip: &skip }).unwrap()
    };
    let result = apply(&selection, &sources, base, op, &upper, &env);
    // directories of many files are placed in another way, which must make no difference
    let (in_runs, more_scratch) = (dir.join("in-runs"), dir.join("more-scratch"));
    std::fs::create_dir(&in_runs).unwrap();
    std::fs::create_dir(&more_scratch).unwrap();
    let env = ApplyEnv { scratch: &more_scratch, ..env };
    let again = apply::lay_out(&selection, &sources, base, op, &env, 1).and_then(|(placed, unpacked)| {
        write::write(&placed, placed.items(), &[], &sources, &in_runs, &unpacked, &env)?;
        Ok(placed.diff())
    });
    match (&result, &again) {
        (Ok(diff), Ok(again)) => assert_eq!(diff, again),
        (Err(error), Err(again)) => assert_eq!(error.to_string(), again.to_string()),
        _ => panic!("{result:?}, but {again:?} when it is placed in runs"),
    }
    let diff = result?;
    let scanned = scan(&upper);
    if env.chown {
        assert_eq!(scan(&in_runs), diff, "the diff is what is on disk, placed in runs");
        assert_eq!(scanned, diff, "the diff is what is on disk");
    } else {
        println!("skipped: comparison of owners with the disk, since this user may not set them");
    }
    Ok(diff)
}

fn run(source: &Memory, base: &Memory, op: &CopyOp) -> Result<Diff, CopyError> {
    let dir = tempfile::tempdir().unwrap();
    run_in(dir.path(), source, base, op)
}

/// One line an entry: path, kind, mode, owner, what is special.
fn lines(diff: &Diff) -> Vec<String> {
    let line = |e: &crate::tree::Entry| {
        let kind = match &e.node {
            Node::File { size, .. } => format!("f{size}"),
            Node::Hardlink { target } => format!("h{target}"),
            Node::Dir { opaque } => if *opaque { "do" } else { "d" }.to_owned(),
            Node::Symlink { target } => format!("l:{}", String::from_utf8_lossy(target)),
            Node::CharDevice { major, minor } => format!("c{major}:{minor}"),
            Node::BlockDevice { major, minor } => format!("b{major}:{minor}"),
            Node::Fifo => "p".to_owned(),
            Node::Whiteout => "w".to_owned(),
        };
        format!("{} {kind} {:o} {}:{}", e.path, e.meta.mode, e.meta.uid, e.meta.gid)
    };
    diff.entries().map(|e| line(&e)).collect()
}

#[track_caller]
fn check(source: &Memory, base: &Memory, op: &CopyOp, want: &[&str]) {
    assert_eq!(lines(&run(source, base, op).unwrap()), want);
}

fn source() -> Memory {
    Memory::new()
        .file("f", "F")
        .meta("f", 0o751, 0, 0)
        .dir("d/sub")
        .meta("d", 0o700, 100, 200)
        .meta("d/sub", 0o711, 101, 201)
        .file("d/n", "n")
        .file("d/sub/m", "m")
        .meta("d/sub/m", 0o600, 5, 6)
        .link("d/l", "n")
        .link("to-d", "d")
        .link("to-f", "/d/../f")
}

#[test]
fn a_file_goes_to_a_name_or_into_a_directory() {
    let base = Memory::new()
        .dir("old")
        .link("lo", "old")
        .link("lf", "file")
        .file("file", "x")
        .meta("file", 0o4600, 9, 9);
    for (dest, want) in [
        ("/new", &["/new f1 751 0:0"][..]),
        ("/new/", &["/new d 755 0:0", "/new/f f1 751 0:0"]),
        ("/new/.", &["/new d 755 0:0", "/new/f f1 751 0:0"]),
        ("/a/b/c", &["/a d 755 0:0", "/a/b d 755 0:0", "/a/b/c f1 751 0:0"]),
        ("/old", &["/old d 755 0:0", "/old/f f1 751 0:0"]),
        ("/lo/", &["/old d 755 0:0", "/old/f f1 751 0:0"]),
        ("/lo/x", &["/old d 755 0:0", "/old/x f1 751 0:0"]),
        ("/file", &["/file f1 751 0:0"]),
        ("/lf", &["/file f1 751 0:0"]),
        ("/", &["/f f1 751 0:0"]),
    ] {
        check(&source(), &base, &copy_op(&["f"], dest), want);
        check(&source(), &base, &copy_op(&["../f/"], dest), want);
    }
    check(&source(), &base, &copy_op(&["to-f"], "/x/"), &["/x d 755 0:0", "/x/to-f f1 751 0:0"]);
}

#[test]
fn a_directory_means_its_content() {
    let want = |top: &str| {
        let rest = ["l l:n 777 0:0", "n f1 644 0:0", "sub d 711 101:201", "sub/m f1 600 5:6"];
        [vec![format!("/t d {top}")], rest.iter().map(|r| format!("/t/{r}")).collect()].concat()
    };
    for src in ["d", "d/", "d/.", "/d", "to-d"] {
        let diff = run(&source(), &Memory::new(), &copy_op(&[src], "/t")).unwrap();
        assert_eq!(lines(&diff), want("755 0:0"), "{src}");
        assert_eq!(diff.get(&p("t")).unwrap().meta.mtime.secs, 1000, "the time is that of the source");
        let base = Memory::new().dir("t").meta("t", 0o750, 500, 600);
        let diff = run(&source(), &base, &copy_op(&[src], "/t/")).unwrap();
        assert_eq!(lines(&diff), want("750 500:600"), "{src}");
    }
}

#[test]
fn an_existing_directory_below_takes_the_metadata_of_the_source() {
    // fsutil passes overwriteTargetMetadata for everything below the top
    let base = Memory::new()
        .file("t/sub/old", "o")
        .meta("t/sub", 0o777, 1, 1)
        .file("t/n", "old")
        .meta("t/n", 0o600, 3, 3);
    let want = [
        "/t d 755 0:0",
        "/t/l l:n 777 0:0",
        "/t/n f1 644 0:0",
        "/t/sub d 711 101:201",
        "/t/sub/m f1 600 5:6",
    ];
    check(&source(), &base, &copy_op(&["d"], "/t"), &want);
}

#[test]
fn what_cannot_be_merged_is_an_error() {
    let base = Memory::new()
        .file("file", "x")
        .link("linked/sub", "x")
        .dir("dirs/n")
        .dir("dirs/f")
        .file("flat/sub", "x");
    let error =
        |src: &str, dest: &str| run(&source(), &base, &copy_op(&[src], dest)).unwrap_err().to_string();
    assert!(error("d", "/linked").starts_with("cannot copy to non-directory: /linked/sub"));
    assert!(error("d", "/flat").starts_with("cannot copy to non-directory: /flat/sub"));
    assert!(error("d", "/file").starts_with("cannot copy to non-directory: /file"));
    assert!(error("d", "/dirs").starts_with("cannot replace the directory /dirs/n"));
    assert!(error("f", "/dirs").starts_with("cannot replace the directory /dirs/f"));
    assert!(error("f", "/file/x").contains("/file is not a directory"));
    assert!(error("f", "/file/").contains("/file is not a directory"));
}

#[test]
fn a_link_below_the_destination_is_replaced_by_a_file() {
    let base = Memory::new().link("t/n", "/etc/passwd").file("etc/passwd", "root");
    let diff = run(&source(), &base, &copy_op(&["d"], "/t")).unwrap();
    assert!(matches!(diff.get(&p("t/n")).unwrap().node, Node::File { .. }));
    assert!(diff.get(&p("etc")).is_none());
    check(&source(), &base, &copy_op(&["f"], "/x/../t/n"), &["/etc d 755 0:0", "/etc/passwd f1 751 0:0"]);
}

#[test]
fn destination_links_stay_in_the_image() {
    let base = Memory::new().link("out", "../../../escape").link("deep", "/made/later");
    check(&source(), &base, &copy_op(&["f"], "/out/"), &["/escape d 755 0:0", "/escape/f f1 751 0:0"]);
    check(&source(), &base, &copy_op(&["f"], "/deep"), &["/made d 755 0:0", "/made/later f1 751 0:0"]);
}

#[test]
fn chown_and_chmod_reach_what_is_made() {
    let base = Memory::new().dir("old").file("etc/passwd", "app:x:10:20::/:/bin/sh\n");
    let op = |dest: &str, chown: &str, chmod: &str| CopyOp {
        chown: (!chown.is_empty()).then(|| chown.to_owned()),
        chmod: (!chmod.is_empty()).then(|| chmod.to_owned()),
        ..copy_op(&["f"], dest)
    };
    check(&source(), &base, &op("/new/f", "app", ""), &["/new d 755 10:20", "/new/f f1 751 10:20"]);
    check(&source(), &base, &op("/old/f", "3:4", ""), &["/old d 755 0:0", "/old/f f1 751 3:4"]);
    check(&source(), &base, &op("/new/f", "", "644"), &["/new d 644 0:0", "/new/f f1 644 0:0"]);
    check(&source(), &base, &op("/new/f", "", "u=rw,go=r"), &["/new d 755 0:0", "/new/f f1 644 0:0"]);
    check(&source(), &base, &op("/f", "1", "4711"), &["/f f1 4711 1:1"]);
    let dir = CopyOp { sources: vec![CopySource::Path("d".into())], ..op("/t", "1:2", "u=rwX,go=") };
    let want =
        ["/t d 755 1:2", "/t/l l:n 777 1:2", "/t/n f1 600 1:2", "/t/sub d 700 1:2", "/t/sub/m f1 600 1:2"];
    check(&source(), &base, &dir, &want);
    assert!(matches!(run(&source(), &base, &op("/f", "none", "")), Err(CopyError::Chown { .. })));
    assert!(matches!(run(&source(), &base, &op("/f", "", "9")), Err(CopyError::Chmod { .. })));
}

#[test]
fn many_sources_need_a_directory() {
    let source = source().file("g", "G").dir("e").file("e/n", "from e");
    let error = run(&source, &Memory::new(), &copy_op(&["f", "g"], "/x")).unwrap_err();
    assert!(error.to_string().contains("has to end with a slash"), "{error}");
    let base = Memory::new().dir("x");
    let want = ["/x d 755 0:0", "/x/f f1 751 0:0", "/x/g f1 644 0:0"];
    check(&source, &base, &copy_op(&["f", "g"], "/x"), &want);
    check(&source, &Memory::new(), &copy_op(&["f", "g"], "/x/"), &want);
    check(&source, &Memory::new(), &copy_op(&["[fg]"], "/x/"), &want);
    // later ones win, directories merge
    let diff = run(&source, &Memory::new(), &copy_op(&["d", "e"], "/x")).unwrap();
    assert!(matches!(diff.get(&p("x/n")).unwrap().node, Node::File { size: 6, .. }));
    assert!(diff.get(&p("x/sub/m")).is_some());
}

#[test]
fn nothing_matched_is_nothing_done() {
    let diff = run(&source(), &Memory::new(), &copy_op(&["none*"], "/x/")).unwrap();
    assert!(diff.is_empty());
    let error = run(&source(), &Memory::new(), &copy_op(&["f", "missing.txt"], "/x/")).unwrap_err();
    assert_eq!(error.to_string(), "\"/missing.txt\": not found");
    assert!(matches!(
        run(&source().link("dangling", "no"), &Memory::new(), &copy_op(&["dang*"], "/x/")),
        Err(CopyError::NotFound { .. })
    ));
}

#[test]
fn excludes_are_relative_to_the_source_and_spare_named_files() {
    let source = Memory::new()
        .file("d/a.txt", "")
        .file("d/b.md", "")
        .file("d/sub/c.txt", "")
        .file("d/sub/d.md", "")
        .file("d/sub/deep/e.txt", "");
    let paths = |sources: &[&str], exclude: &[&str]| {
        let op =
            CopyOp { exclude: exclude.iter().map(|e| (*e).to_owned()).collect(), ..copy_op(sources, "/o/") };
        let diff = run(&source, &Memory::new(), &op).unwrap();
        diff.entries().skip(1).map(|e| e.path.to_string()[3..].to_owned()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(paths(&["d"], &["*.md"]), "a.txt sub sub/c.txt sub/d.md sub/deep sub/deep/e.txt");
    assert_eq!(paths(&["d"], &["**/*.md", "**/deep"]), "a.txt sub sub/c.txt");
    assert_eq!(paths(&["d"], &["sub"]), "a.txt b.md");
    assert_eq!(paths(&["d"], &["sub", "!sub/deep"]), "a.txt b.md sub sub/deep sub/deep/e.txt");
    assert_eq!(paths(&["."], &["d/sub"]), "d d/a.txt d/b.md");
    assert_eq!(paths(&["d/a.txt", "d/b.md"], &["*.txt"]), "a.txt b.md");
    assert_eq!(paths(&["d"], &["*"]), "");
}

#[test]
fn parents_are_kept_from_the_pivot_on() {
    let source = Memory::new()
        .file("a/b/x.txt", "")
        .file("a/b/y", "")
        .file("a/c/z.txt", "")
        .dir("a/e")
        .meta("a/b", 0o700, 1, 2);
    let lines_of = |src: &str, dest: &str, base: &Memory| {
        let op = CopyOp { parents: true, ..copy_op(&[src], dest) };
        run(&source, base, &op).map(|diff| lines(&diff))
    };
    let new = Memory::new();
    let ok = |src: &str, want: &[&str]| assert_eq!(lines_of(src, "/o", &new).unwrap(), want, "{src}");
    ok("a/b/x.txt", &["/o d 755 0:0", "/o/a d 755 0:0", "/o/a/b d 700 1:2", "/o/a/b/x.txt f0 644 0:0"]);
    ok("a/./b/x.txt", &["/o d 755 0:0", "/o/b d 700 1:2", "/o/b/x.txt f0 644 0:0"]);
    ok("./a/e", &["/o d 755 0:0", "/o/a d 755 0:0", "/o/a/e d 755 0:0"]);
    ok(
        "a/./**/*.txt",
        &[
            "/o d 755 0:0",
            "/o/b d 700 1:2",
            "/o/b/x.txt f0 644 0:0",
            "/o/c d 755 0:0",
            "/o/c/z.txt f0 644 0:0",
        ],
    );
    ok("a/no*", &["/o d 755 0:0"]);
    assert!(matches!(lines_of("a/none", "/o", &new), Err(CopyError::NotFound { .. })));
    // a directory on the way that is there already gets the mode, not the owner
    let base = Memory::new().dir("o/a/b").meta("o/a/b", 0o755, 9, 9);
    assert!(lines_of("a/b/y", "/o", &base).unwrap().contains(&"/o/a/b d 700 9:9".to_owned()));
    assert!(lines_of("a/b", "/o", &base).unwrap().contains(&"/o/a/b d 700 1:2".to_owned()));
}

#[test]
fn link_does_not_look_at_the_base() {
    let base = Memory::new()
        .dir("real")
        .link("l", "real")
        .dir("etc")
        .file("etc/passwd", "app:x:1:2\n")
        .meta("etc", 0o700, 3, 4);
    let op = |dest: &str| CopyOp { link: true, ..copy_op(&["f"], dest) };
    check(&source(), &base, &op("/l/x"), &["/l d 755 0:0", "/l/x f1 751 0:0"]);
    check(&source(), &base, &op("/etc/x"), &["/etc d 755 0:0", "/etc/x f1 751 0:0"]);
    check(&source(), &base, &op("/real"), &["/real f1 751 0:0"]);
    let named = CopyOp { chown: Some("app".into()), ..op("/x") };
    assert!(matches!(run(&source(), &base, &named), Err(CopyError::Chown { .. })));
    // with --chmod it is a plain copy
    let both = CopyOp { chmod: Some("600".into()), ..op("/l/x") };
    check(&source(), &base, &both, &["/real d 755 0:0", "/real/x f1 600 0:0"]);
}

#[test]
fn heredocs_are_files() {
    let mut op = copy_op(&["f"], "/o/");
    op.sources.push(CopySource::Inline { name: "here".into(), content: "text\n".into() });
    op.chown = Some("1".into());
    let diff = run(&source(), &Memory::new(), &op).unwrap();
    assert_eq!(lines(&diff), ["/o d 755 1:1", "/o/f f1 751 1:1", "/o/here f5 644 1:1"]);
    op = CopyOp { sources: vec![op.sources.remove(1)], dest: "/name".into(), ..op };
    check(&source(), &Memory::new(), &op, &["/name f5 644 1:1"]);
}

#[test]
fn links_devices_and_attributes_survive() {
    let source = Memory::new()
        .file("d/a", "x")
        .file("d/b", "x")
        .file("d/c", "x")
        .edit("d/a", |e| e.links = Some((1, 2)))
        .edit("d/b", |e| e.links = Some((1, 2)))
        .edit("d/c", |e| e.meta.xattrs = vec![(b"user.k".to_vec(), b"v".to_vec())])
        .node("d/fifo", SourceNode::Fifo)
        .node("d/sock", SourceNode::Socket);
    let want = [
        "/t d 755 0:0",
        "/t/a f1 644 0:0",
        "/t/b h/t/a 644 0:0",
        "/t/c f1 644 0:0",
        "/t/fifo p 600 0:0",
        "/t/sock f0 600 0:0",
    ];
    check(&source, &Memory::new(), &copy_op(&["d"], "/t"), &want);
    // two sources are two copies, and do not share
    let diff = run(&source, &Memory::new(), &copy_op(&["d/a", "d/b"], "/t/")).unwrap();
    assert!(diff.entries().all(|e| !matches!(e.node, Node::Hardlink { .. })));
    if crate::sys::fsutil::can_chown() {
        let source = source.node("d/null", SourceNode::CharDevice { major: 1, minor: 3 });
        let diff = run(&source, &Memory::new(), &copy_op(&["d"], "/t")).unwrap();
        assert_eq!(diff.get(&p("t/null")).unwrap().node, Node::CharDevice { major: 1, minor: 3 });
    } else {
        println!("skipped: devices need root");
    }
}

#[test]
fn a_source_that_changed_is_an_error() {
    let source = Memory { lies: true, ..source() };
    let error = run(&source, &Memory::new(), &copy_op(&["f"], "/x")).unwrap_err();
    assert!(matches!(error, CopyError::Changed { .. }), "{error}");
}

#[test]
fn the_key_counts_content_and_not_time_or_inode() {
    let key = |source: &Memory, op: &CopyOp| select(&Sources::paths(source), op).unwrap().key_id();
    let op = copy_op(&["d"], "/t");
    let first = key(&source(), &op);
    let same = source().edit("d/n", |e| e.meta.mtime.secs = 9).file("other", "").meta("d", 0o777, 1, 1);
    assert_eq!(first, key(&same, &op));
    let linked = |a, b| source().edit("d/n", |e| e.links = Some(a)).edit("d/sub/m", |e| e.links = Some(b));
    assert_eq!(first, key(&linked((1, 1), (1, 2)), &op));
    assert_eq!(key(&linked((1, 1), (1, 1)), &op), key(&linked((7, 7), (7, 7)), &op));
    for other in [
        linked((1, 1), (1, 1)),
        source().file("d/n", "m"),
        source().meta("d/n", 0o600, 0, 0),
        source().meta("d/n", 0o644, 1, 0),
        source().link("d/l", "m"),
        source().file("d/new", ""),
        source().edit("d/n", |e| e.meta.xattrs = vec![(b"user.a".to_vec(), vec![])]),
    ] {
        assert_ne!(first, key(&other, &op));
    }
    let glob = copy_op(&["[fg]*"], "/t/");
    let renamed = Memory {
        entries: source()
            .entries
            .into_iter()
            .map(|(k, v)| if k == p("f") { (p("g"), v) } else { (k, v) })
            .collect(),
        lies: false,
    };
    assert_ne!(key(&source(), &glob), key(&renamed, &glob));
}

#[test]
fn archives_are_unpacked_over_what_is_there() {
    let tar =
        tar_of(&[("x/", ""), ("x/f", "new"), ("bin/tool", "t"), ("file-over-dir", "f"), ("imp/lied", "i")]);
    let source = Memory::new().bytes("a.bin", &tar).file("plain", "p");
    let base = Memory::new()
        .file("o/x/old", "")
        .link("o/bin", "usr/bin")
        .dir("o/usr/bin")
        .file("o/file-over-dir/gone", "");
    let op = CopyOp { is_add: true, ..copy_op(&["a.bin"], "/o") };
    let want = [
        "/o d 755 0:0",
        "/o/file-over-dir f1 640 7:8",
        "/o/imp d 755 0:0",
        "/o/imp/lied f1 640 7:8",
        "/o/usr d 755 0:0",
        "/o/usr/bin d 755 0:0",
        "/o/usr/bin/tool f1 640 7:8",
        "/o/x d 711 7:8",
        "/o/x/f f3 640 7:8",
    ];
    check(&source, &base, &op, &want);
    let owned =
        run(&source, &base, &CopyOp { chown: Some("1:2".into()), chmod: Some("777".into()), ..op.clone() })
            .unwrap();
    assert!(lines(&owned).contains(&"/o/x/f f3 640 1:2".to_owned()), "{:?}", lines(&owned));
    // COPY, and ADD told not to, take the file as it is
    for op in [CopyOp { is_add: false, ..op.clone() }, CopyOp { unpack: Some(false), ..op.clone() }] {
        let diff = run(&source, &base, &op).unwrap();
        assert!(diff.get(&p("o/a.bin")).is_some() && diff.entries().len() == 2);
    }
    // a mix: the archive is unpacked beside the file
    let mix = CopyOp { is_add: true, ..copy_op(&["plain", "a.bin"], "/new/") };
    let diff = run(&source, &base, &mix).unwrap();
    assert!(diff.get(&p("new/plain")).is_some() && diff.get(&p("new/x/f")).is_some());
}
