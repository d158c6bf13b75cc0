use super::*;
use crate::tree::{Entry, Node, SourceEntry, TreePath};
use std::io::Cursor;
use std::os::unix::fs::MetadataExt;

/// Builds archives that no honest writer makes.
#[derive(Default)]
struct Evil(Vec<u8>);

impl Evil {
    fn raw(mut self, kind: u8, name: &[u8], link: &[u8], size: u64, body: &[u8]) -> Self {
        let mut header = tar::Header::new_ustar();
        let old = header.as_old_mut();
        old.name[..name.len()].copy_from_slice(name);
        old.linkname[..link.len()].copy_from_slice(link);
        old.linkflag = [kind];
        header.set_mode(0o644);
        header.set_uid(rustix::process::geteuid().as_raw().into());
        header.set_gid(rustix::process::getegid().as_raw().into());
        header.set_mtime(1_000_000_000);
        header.set_size(size);
        header.set_device_major(1).unwrap();
        header.set_device_minor(3).unwrap();
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(body);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }
    fn file(self, name: &str, body: &str) -> Self {
        self.raw(b'0', name.as_bytes(), b"", body.len() as u64, body.as_bytes())
    }
    fn dir(self, name: &str) -> Self {
        self.raw(b'5', name.as_bytes(), b"", 0, b"")
    }
    fn symlink(self, name: &str, to: &str) -> Self {
        self.raw(b'2', name.as_bytes(), to.as_bytes(), 0, b"")
    }
    fn hardlink(self, name: &str, to: &str) -> Self {
        self.raw(b'1', name.as_bytes(), to.as_bytes(), 0, b"")
    }
    fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut body = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let len =
                (1..5).map(|digits| rest + digits).find(|len| len.to_string().len() == len - rest).unwrap();
            body.extend_from_slice(format!("{len} {key}=").as_bytes());
            body.extend_from_slice(value);
            body.push(b'\n');
        }
        self.raw(b'x', b"pax", b"", body.len() as u64, &body)
    }
    fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }
}

struct Unpacked {
    dir: tempfile::TempDir,
    result: Result<Diff, LayerError>,
}

fn run_with(bytes: &[u8], opts: &UnpackOptions<'_>) -> Unpacked {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("root")).unwrap();
    std::fs::write(dir.path().join("secret"), "untouched").unwrap();
    let result = unpack(&mut Cursor::new(bytes), &dir.path().join("root"), opts);
    assert_eq!(std::fs::read(dir.path().join("secret")).unwrap(), b"untouched");
    let outside: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(outside.len(), 2, "something was made outside of the root: {outside:?}");
    Unpacked { dir, result }
}

fn run(bytes: &[u8]) -> Unpacked {
    run_with(bytes, &UnpackOptions { chown_ok: is_root(), userxattr: !is_root(), ..UnpackOptions::default() })
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn p(path: &str) -> TreePath {
    TreePath::clean(path.as_bytes())
}

impl Unpacked {
    fn paths(&self) -> Vec<String> {
        let diff = self.result.as_ref().unwrap();
        diff.entries().map(|e| String::from_utf8(e.path.as_bytes().to_vec()).unwrap()).collect()
    }
    fn entry(&self, path: &str) -> Entry {
        self.result.as_ref().unwrap().get(&p(path)).unwrap_or_else(|| panic!("no {path}")).clone()
    }
    fn text(&self, path: &str) -> String {
        std::fs::read_to_string(self.dir.path().join("root").join(path)).unwrap()
    }
    fn error(&self) -> String {
        self.result.as_ref().unwrap_err().to_string()
    }
}

#[test]
fn names_that_leave_the_root_are_refused() {
    let cases: &[(&str, Evil)] = &[
        ("dots", Evil::default().file("../secret", "x")),
        ("dots inside", Evil::default().file("a/../../secret", "x")),
        ("absolute dots", Evil::default().file("/../secret", "x")),
        ("only dots", Evil::default().file("..", "x")),
        ("hard link out", Evil::default().hardlink("a", "../secret")),
        ("hard link through nothing", Evil::default().hardlink("a", "missing")),
        ("hard link to itself's directory", Evil::default().dir("d").hardlink("d/a", "d")),
        ("root as file", Evil::default().file("./", "x").file(".", "x")),
        ("root as link", Evil::default().symlink(".", "/etc")),
        ("whiteout of nothing", Evil::default().file(".wh.", "")),
        ("whiteout of dot", Evil::default().file("a/.wh..", "")),
        ("whiteout of dots", Evil::default().file("a/.wh...", "")),
        ("below a whiteout", Evil::default().file(".wh.a/b", "")),
        ("below a file", Evil::default().file("f", "x").file("f/g", "x")),
        ("no name", Evil::default().file("", "x")),
        ("unknown type", Evil::default().raw(b'Z', b"a", b"", 0, b"")),
        ("sparse", Evil::default().raw(b'S', b"a", b"", 0, b"")),
        ("empty link", Evil::default().symlink("a", "")),
        ("NUL in a name", Evil::default().pax(&[("path", b"a\0b")]).file("x", "")),
        ("negative size", Evil::default().pax(&[("size", b"-1")]).file("x", "")),
        ("huge size", Evil::default().pax(&[("size", b"99999999999999999999")]).file("x", "")),
        ("size near the top", Evil::default().pax(&[("size", b"18446744073709551615")]).file("x", "")),
        ("owner that means nothing", Evil::default().pax(&[("uid", b"4294967295")]).file("x", "")),
        ("long name claims much", Evil::default().raw(b'L', b"././@LongLink", b"", 1 << 30, b"")),
        ("pax claims much", Evil::default().raw(b'x', b"pax", b"", 1 << 30, b"")),
        ("pax with wrong length", Evil::default().raw(b'x', b"pax", b"", 9, b"99 path=a\n").file("x", "")),
        ("pax without key", Evil::default().raw(b'x', b"pax", b"", 6, b"6 =ab\n").file("x", "")),
        ("long name at the end", Evil::default().raw(b'L', b"././@LongLink", b"", 3, b"abc")),
        ("pax sparse", Evil::default().pax(&[("GNU.sparse.map", b"0,1")]).file("x", "")),
    ];
    for (what, archive) in cases {
        let done = run(&Evil(archive.0.clone()).end());
        assert!(done.result.is_err(), "{what} was accepted: {:?}", done.paths());
    }
}

#[test]
fn links_on_the_way_stay_inside() {
    let out = run(&Evil::default().symlink("out", "../../..").file("out/secret", "x").end());
    assert_eq!(out.text("secret"), "x");
    let abs = run(&Evil::default().symlink("etc", "/real").dir("real").file("etc/passwd", "x").end());
    assert_eq!(abs.text("real/passwd"), "x");
    assert_eq!(abs.paths(), ["etc", "real", "real/passwd"]);
    // a link as the last name is replaced, not followed
    let last = run(&Evil::default().symlink("a", "../secret").file("a", "mine").end());
    assert_eq!(last.text("a"), "mine");
    let round = run(&Evil::default().symlink("a", "b").symlink("b", "a").file("a/x", "").end());
    assert!(round.error().contains("too many symbolic links"), "{}", round.error());
    // a hard link to a link is a second link, never its target
    let link = run(&Evil::default().symlink("a", "../secret").hardlink("b", "a").end());
    assert_eq!(link.entry("b").node, Node::Symlink { target: b"../secret".to_vec() });
}

#[test]
fn absolute_and_dotted_names_mean_the_root() {
    let done =
        run(&Evil::default().dir("./").file("/a", "1").file("./b/./c", "2").file("b//d/../e", "3").end());
    assert_eq!(done.paths(), ["a", "b", "b/c", "b/e"]);
    let link = run(&Evil::default().file("a", "1").hardlink("b", "/a").end());
    assert_eq!(link.entry("b").node, Node::Hardlink { target: p("a") });
}

#[test]
fn an_archive_of_plain_names_cannot_leave_its_root() {
    let opts = UnpackOptions { plain_names: true, ..UnpackOptions::default() };
    let done = run_with(&Evil::default().file("../up", "1").file("a/../../../b/c", "2").end(), &opts);
    assert_eq!(done.paths(), ["b", "b/c", "up"]);
    // a link leads to what is inside, or nowhere
    let inside = Evil::default().dir("etc").symlink("l", "/etc").file("l/x", "1").end();
    assert_eq!(run_with(&inside, &opts).paths(), ["etc", "etc/x", "l"]);
    for target in ["/etc", "../../etc", "none"] {
        let done = run_with(&Evil::default().symlink("l", target).file("l/x", "1").end(), &opts);
        assert!(done.error().contains("leads nowhere"), "{target}: {}", done.error());
    }
    let below = run_with(&Evil::default().dir("d").symlink("l", "d").file("l/new/x", "1").end(), &opts);
    assert_eq!(below.paths(), ["d", "d/new", "d/new/x", "l"]);
    let hard = run_with(&Evil::default().hardlink("h", "../../etc/passwd").end(), &opts);
    assert!(hard.error().contains("outside of the root"), "{}", hard.error());
}

#[test]
fn the_last_of_several_wins() {
    let twice = run(&Evil::default().file("a", "1").file("a", "22").end());
    assert_eq!(twice.text("a"), "22");
    let Node::File { size, content } = twice.entry("a").node else { panic!("no file") };
    assert_eq!((size, content), (2, blake3::hash(b"22").into()));
    // the hard link keeps the bytes that it was made to
    let kept = run(&Evil::default().file("b", "1").hardlink("a", "b").file("b", "2").end());
    assert_eq!((kept.text("a"), kept.text("b")), ("1".into(), "2".into()));
    assert!(matches!(kept.entry("a").node, Node::File { .. }));
    assert!(matches!(kept.entry("b").node, Node::File { .. }));
    let dir = run(&Evil::default().file("d/x/y", "1").file("d", "now a file").end());
    assert_eq!(dir.paths(), ["d"]);
    let back = run(&Evil::default().file("d", "1").dir("d").file("d/x", "2").end());
    assert_eq!(back.paths(), ["d", "d/x"]);
    let hard = run(&Evil::default().file("a", "1").hardlink("b", "a").hardlink("b", "a").end());
    assert_eq!(hard.entry("b").node, Node::Hardlink { target: p("a") });
}

#[test]
fn hard_links_are_named_from_the_first_path() {
    let done = run(&Evil::default().file("z", "body").hardlink("a", "z").hardlink("m", "a").end());
    assert!(matches!(done.entry("a").node, Node::File { size: 4, .. }));
    assert_eq!(done.entry("m").node, Node::Hardlink { target: p("a") });
    assert_eq!(done.entry("z").node, Node::Hardlink { target: p("a") });
    let root = done.dir.path().join("root");
    assert_eq!(root.join("a").metadata().unwrap().ino(), root.join("z").metadata().unwrap().ino());
}

#[test]
fn whiteouts_hide_lower_layers_only() {
    if !is_root() {
        eprintln!("skipped: opaque marks of overlayfs need root here");
        return;
    }
    let done =
        run(&Evil::default().file("a", "1").file(".wh.a", "").file(".wh.b", "").file("d/.wh.x", "").end());
    assert_eq!(done.paths(), ["a", "b", "d", "d/x"]);
    assert_eq!(done.entry("b").node, Node::Whiteout);
    assert!(matches!(done.entry("a").node, Node::File { .. }));
    let dir = run(&Evil::default().file(".wh.d", "").file("d/x", "1").end());
    assert_eq!(dir.entry("d").node, Node::Dir { opaque: true });
    let opaque = run(&Evil::default().file("d/x", "1").file("d/.wh..wh..opq", "").end());
    assert_eq!(opaque.entry("d").node, Node::Dir { opaque: true });
    assert_eq!(opaque.paths(), ["d", "d/x"]);
    let aufs =
        run(&Evil::default().file(".wh..wh.plnk/12", "1").file(".wh..wh.aufs", "").file("a", "").end());
    assert_eq!(aufs.paths(), ["a"]);
    let plain = UnpackOptions { plain_names: true, ..UnpackOptions::default() };
    let plain = run_with(&Evil::default().file(".wh.a", "text").end(), &plain);
    assert_eq!(plain.text(".wh.a"), "text");
    // scan reads back what was made
    let again = crate::layer::scan(
        &opaque.dir.path().join("root"),
        &crate::layer::ScanOptions { userxattr: false, skip: &Default::default() },
    );
    assert_eq!(again.unwrap().content_id(), opaque.result.unwrap().content_id());
}

#[test]
fn a_cut_archive_is_an_error_or_a_clean_end() {
    let whole = Evil::default().dir("d").file("d/f", &"x".repeat(1000)).symlink("l", "d").end();
    for cut in 0..whole.len() {
        let done = run(&whole[..cut]);
        let between = cut == 0 || [512, 512 + 512 + 1024, 4 * 512 + 512].contains(&cut) || cut >= 2560 + 512;
        assert_eq!(done.result.is_ok(), between, "cut at {cut}");
    }
}

#[test]
fn damage_never_panics() {
    let whole = Evil::default().pax(&[("path", b"long/name"), ("mtime", b"-1.5")]).file("x", "body").end();
    // every byte of the fields, few of the padding
    for at in (0..whole.len().min(2048)).filter(|at| at % 512 < 265 || at % 40 == 0) {
        let mut bad = whole.clone();
        bad[at] ^= 0x81;
        drop(run(&bad));
    }
}

#[test]
fn limits_hold() {
    let opts =
        |bytes, entries| UnpackOptions { limits: Limits { bytes, entries }, ..UnpackOptions::default() };
    let archive = Evil::default().file("a", "123").file("b", "456").end();
    assert!(run_with(&archive, &opts(6, 2)).result.is_ok());
    assert!(matches!(
        run_with(&archive, &opts(5, 2)).result,
        Err(LayerError::Limit { what: "bytes", limit: 5 })
    ));
    assert!(matches!(
        run_with(&archive, &opts(6, 1)).result,
        Err(LayerError::Limit { what: "entries", limit: 1 })
    ));
}

#[test]
fn what_cannot_be_made_is_still_told() {
    let archive = Evil::default()
        .pax(&[
            ("uid", b"12345"),
            ("gid", b"70000"),
            ("SCHILY.xattr.user.a", b"1"),
            ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
        ])
        .file("f", "x")
        .raw(b'4', b"disk", b"", 0, b"")
        .raw(b'6', b"pipe", b"", 0, b"")
        .end();
    let done = run_with(&archive, &UnpackOptions::default());
    let f = done.entry("f");
    assert_eq!((f.meta.uid, f.meta.gid), (12345, 70000));
    assert_eq!(f.meta.xattrs, [(b"user.a".to_vec(), b"1".to_vec())]);
    assert_eq!(f.meta.mtime.secs, 1_000_000_000);
    assert_eq!(done.dir.path().join("root/f").metadata().unwrap().uid(), rustix::process::geteuid().as_raw());
    assert_eq!(done.entry("disk").node, Node::BlockDevice { major: 1, minor: 3 });
    assert_eq!(done.entry("pipe").node, Node::Fifo);
}

#[test]
fn times_and_long_names_are_read() {
    let long = "d/".to_owned() + &"n".repeat(200);
    let archive = Evil::default()
        .pax(&[("path", long.as_bytes()), ("mtime", b"-1.25")])
        .file("x", "1")
        .raw(b'L', b"././@LongLink", b"", long.len() as u64 + 3, format!("{long}2\0").as_bytes())
        .file("short", "2")
        .end();
    let done = run(&archive);
    assert_eq!(done.entry(&long).meta.mtime, crate::tree::Mtime { secs: -2, nanos: 750_000_000 });
    assert_eq!(done.text(&format!("{long}2")), "2");
}

#[test]
fn large_and_sparse_bodies_are_exact() {
    let mut body = vec![0u8; 3 << 20];
    body[1 << 20] = 1;
    body[(3 << 20) - 5000] = 2;
    let archive = Evil::default().raw(b'0', b"big", b"", body.len() as u64, &body).end();
    let done = run(&archive);
    let path = done.dir.path().join("root/big");
    assert_eq!(std::fs::read(&path).unwrap(), body);
    let Node::File { content, .. } = done.entry("big").node else { panic!("no file") };
    assert_eq!(content, blake3::hash(&body).into());
    let meta = path.metadata().unwrap();
    assert!(meta.blocks() * 512 < 1 << 20, "{} blocks for two bytes", meta.blocks());
}

/// A lower layer of one directory, one file in it, and a link to the directory.
struct Lower(tempfile::TempDir);

impl SourceTree for Lower {
    fn stat(&self, path: &TreePath) -> std::io::Result<Option<SourceEntry>> {
        use crate::tree::SourceNode;
        let node = match path.as_bytes() {
            b"usr" => SourceNode::Dir,
            b"usr/f" => SourceNode::File { size: 5 },
            b"lib" => SourceNode::Symlink { target: b"usr".to_vec() },
            _ => return Ok(None),
        };
        let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let meta = crate::tree::Meta { mode: 0o750, uid: own.0, gid: own.1, ..Default::default() };
        Ok(Some(SourceEntry { meta, node, links: None }))
    }
    fn list(&self, _: &TreePath) -> std::io::Result<Vec<(Vec<u8>, SourceEntry)>> {
        let names = ["lib", "usr"];
        Ok(names.iter().map(|n| (n.as_bytes().to_vec(), self.stat(&p(n)).unwrap().unwrap())).collect())
    }
    fn content(&self, _: &TreePath, _: &SourceEntry) -> std::io::Result<crate::digest::ContentId> {
        Ok(blake3::hash(b"lower").into())
    }
    fn open(&self, _: &TreePath) -> std::io::Result<std::fs::File> {
        std::fs::write(self.0.path().join("f"), "lower")?;
        std::fs::File::open(self.0.path().join("f"))
    }
}

#[test]
fn the_layer_below_gives_parents_links_and_link_targets() {
    let lower = Lower(tempfile::tempdir().unwrap());
    let opts = UnpackOptions { parent: Some(&lower), chown_ok: is_root(), ..UnpackOptions::default() };
    let done = run_with(&Evil::default().file("lib/new", "1").hardlink("h", "usr/f").end(), &opts);
    assert_eq!(done.paths(), ["h", "usr", "usr/f", "usr/new"]);
    assert_eq!(done.entry("usr").meta.mode, 0o750);
    assert_eq!(done.entry("usr/f").node, Node::Hardlink { target: p("h") });
    assert_eq!(done.text("h"), "lower");
    // the link is deleted first, so its target is not meant any more
    let gone = run_with(
        &Evil::default().file(".wh.lib", "").file("lib/new", "1").end(),
        &UnpackOptions { userxattr: true, ..opts },
    );
    if is_root() {
        assert_eq!(gone.paths(), ["lib", "lib/new"]);
    }
    let root = run_with(&Evil::default().file(".wh..wh..opq", "").file("usr/x", "1").end(), &opts);
    if is_root() {
        assert_eq!(root.paths(), ["lib", "usr", "usr/x"]);
        assert_eq!(root.entry("lib").node, Node::Whiteout);
        assert_eq!(root.entry("usr").node, Node::Dir { opaque: true });
    }
}

#[test]
fn what_is_hidden_below_lends_no_links() {
    let lower = Lower(tempfile::tempdir().unwrap());
    let opts = UnpackOptions { parent: Some(&lower), chown_ok: is_root(), ..UnpackOptions::default() };
    let new = Evil::default;
    for (what, tar) in [
        ("deleted", new().file(".wh.usr", "").dir("usr")),
        ("deleted after", new().dir("usr").file(".wh.usr", "")),
        ("opaque", new().dir("usr").file("usr/.wh..wh..opq", "")),
        ("the root opaque", new().file(".wh..wh..opq", "").dir("usr")),
        ("the root opaque after", new().dir("usr").file(".wh..wh..opq", "")),
        ("the file deleted", new().file("usr/.wh.f", "")),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let bytes = tar.hardlink("h", "usr/f").end();
        let error = unpack(&mut &bytes[..], dir.path(), &opts).unwrap_err().to_string();
        assert!(error.contains("does not exist"), "{what}: {error}");
    }
}

/// An empty layer that counts the questions.
#[derive(Default)]
struct Counting(std::sync::atomic::AtomicUsize);

impl SourceTree for Counting {
    fn stat(&self, _: &TreePath) -> std::io::Result<Option<SourceEntry>> {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Ok(None)
    }
    fn list(&self, _: &TreePath) -> std::io::Result<Vec<(Vec<u8>, SourceEntry)>> {
        Ok(Vec::new())
    }
    fn content(&self, _: &TreePath, _: &SourceEntry) -> std::io::Result<crate::digest::ContentId> {
        Err(std::io::ErrorKind::NotFound.into())
    }
    fn open(&self, _: &TreePath) -> std::io::Result<std::fs::File> {
        Err(std::io::ErrorKind::NotFound.into())
    }
}

/// One name of a few kilobytes once kept a processor busy for minutes: each of its parents looked at all above it.
#[test]
fn a_deep_name_asks_the_layer_below_once() {
    let lower = Counting::default();
    let opts = UnpackOptions { parent: Some(&lower), chown_ok: is_root(), ..UnpackOptions::default() };
    let deep = format!("{}f", "d/".repeat(500));
    let tar = Evil::default().pax(&[("path", deep.as_bytes())]).file("f", "1").end();
    let done = run_with(&tar, &opts);
    assert_eq!(done.paths().len(), 501);
    assert_eq!(lower.0.into_inner(), 1);
}
