//! What a context shows, what it reads and what it remembers.

use super::*;
use crate::tree::{SourceNode, SourceTree, TreePath, Walk, Walked};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

type Stored = Arc<Mutex<Option<Vec<u8>>>>;

struct MemoryCache(Stored);

impl StatCache for MemoryCache {
    fn load(&self) -> Option<Vec<u8>> {
        self.0.lock().unwrap().clone()
    }

    fn store(&self, parts: &[&[u8]]) {
        *self.0.lock().unwrap() = Some(parts.concat());
    }
}

/// Lists what is stored: path and first byte of the content id.
fn stored(stored: &Stored) -> Vec<(String, Option<u8>)> {
    let kept = kept::Kept::new(stored.lock().unwrap().clone().unwrap_or_default());
    let dirs = (0..kept.dirs()).flat_map(|dir| kept.dir_entries(dir).map(move |entry| (dir, entry)));
    let path = |(dir, entry)| {
        let path = TreePath::clean(&[kept.dir_path(dir), b"/", kept.name(entry)].concat());
        (path.to_string(), kept.content(entry).map(|id| id.0[0]))
    };
    dirs.map(path).collect()
}

fn p(path: &str) -> TreePath {
    TreePath::clean(path.as_bytes())
}

fn put(dir: &Path, files: &[&str]) {
    for file in files {
        let path = dir.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, file).unwrap();
    }
}

fn context(dir: &Path, ignore: &str) -> BuildContext {
    let rules = IgnoreRules::parse(ignore.as_bytes(), ".dockerignore").unwrap();
    BuildContext::dir(dir, rules, None).unwrap()
}

fn names(found: &Walk) -> Vec<String> {
    found.iter().map(|w| String::from_utf8_lossy(w.path.as_bytes()).into_owned()).collect()
}

fn walk(context: &BuildContext) -> Vec<String> {
    names(&context.walk(&TreePath::root(), &|_| true).unwrap())
}

#[test]
fn a_walk_shows_all_that_no_rule_hides_in_path_order() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), &["a/x", "a/y/z", "a-b", "build/keep.o", "build/b.o", "build/sub/c.o", "n/m/k", "n/o"]);
    fs::create_dir_all(dir.path().join("empty/in")).unwrap();
    let all = ["a", "a/x", "a/y", "a/y/z", "a-b"];
    let found = walk(&context(dir.path(), "build\n!build/keep.o\nn\n!n/**/k\nempty"));
    assert_eq!(found, [&all[..], &["build", "build/keep.o", "n", "n/m", "n/m/k"]].concat());
    let found = walk(&context(dir.path(), "build\nn"));
    assert_eq!(found, [&all[..], &["empty", "empty/in"]].concat());
    let found = walk(&context(dir.path(), "*\n!a\na/y"));
    assert_eq!(found, ["a", "a/x"]);
    assert!(walk(&context(dir.path(), "**")).is_empty());
}

#[test]
fn walk_list_and_stat_agree() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), &["a/x", "a/y/z", "b/c/d/e", "b/c/f", "b/g", "k"]);
    for rules in ["", "b\n!b/c/d/e", "**/x", "*\n!**/e", "a/y\nb/c\n!b/c/f"] {
        let context = context(dir.path(), rules);
        let walked = context.walk(&TreePath::root(), &|_| true).unwrap();
        let mut listed = Vec::new();
        let mut ahead = vec![TreePath::root()];
        while let Some(here) = ahead.pop() {
            for (name, entry) in context.list(&here).unwrap() {
                let path = here.child(&name);
                assert_eq!(context.stat(&path).unwrap().as_ref(), Some(&entry), "{path}");
                if entry.node == SourceNode::Dir {
                    ahead.push(path.clone());
                }
                listed.push(Walked { path, entry, content: None });
            }
        }
        listed.sort_by(|a, b| a.path.cmp(&b.path));
        assert_eq!(walked.iter().collect::<Vec<_>>(), listed, "{rules:?}");
        for Walked { path, .. } in
            self::context(dir.path(), "").walk(&TreePath::root(), &|_| true).unwrap().iter()
        {
            assert_eq!(
                context.stat(&path).unwrap().is_some(),
                walked.iter().any(|w| w.path == path),
                "{path}"
            );
        }
    }
}

#[test]
fn an_entry_has_no_host_in_it() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), &["f"]);
    fs::set_permissions(dir.path().join("f"), fs::Permissions::from_mode(0o4751)).unwrap();
    fs::hard_link(dir.path().join("f"), dir.path().join("g")).unwrap();
    symlink("/etc", dir.path().join("l")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("s")).unwrap();
    let context = context(dir.path(), "");
    let get = |path: &str| context.stat(&p(path)).unwrap();
    let f = get("f").unwrap();
    assert_eq!((f.meta.mode, f.meta.uid, f.meta.gid), (0o4751, 0, 0));
    assert_eq!(f.node, SourceNode::File { size: 1 });
    assert!(f.links.is_some() && f.links == get("g").unwrap().links);
    assert_eq!(get("l").unwrap().node, SourceNode::Symlink { target: b"/etc".to_vec() });
    assert_eq!(get("s").unwrap().node, SourceNode::Socket);
    assert_eq!(get("").unwrap().node, SourceNode::Dir);
    assert_eq!(get("l/passwd"), None);
    assert_eq!(get("f/x"), None);
    assert_eq!(get("none"), None);
    assert!(context.open(&p("l")).is_err());
    assert!(context.open(&p("l/passwd")).is_err());
    assert!(context.open(&p("s")).is_err());
}

#[test]
fn user_attributes_are_seen() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), &["f"]);
    let file = fs::File::open(dir.path().join("f")).unwrap();
    if crate::sys::xattr::set_of(&file, b"user.x", b"1").is_err() {
        println!("skipped: no user attributes on this file system");
        return;
    }
    let entry = context(dir.path(), "").stat(&p("f")).unwrap().unwrap();
    assert_eq!(entry.meta.xattrs, [(b"user.x".to_vec(), b"1".to_vec())]);
}

#[test]
fn what_was_remembered_is_not_read_again_until_it_changes() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), &["d/f", "d/g", "e/h"]);
    std::thread::sleep(Duration::from_millis(60));
    let kept = Stored::default();
    let open = || {
        let cache = Some(Box::new(MemoryCache(kept.clone())) as Box<dyn StatCache>);
        BuildContext::dir(dir.path(), IgnoreRules::none(), cache).unwrap()
    };
    let content = |context: &BuildContext, path: &str| {
        let entry = context.stat(&p(path)).unwrap().unwrap();
        context.content(&p(path), &entry).unwrap()
    };
    let first = content(&open(), "d/f");
    let id = blake3::hash(b"d/f");
    assert_eq!(first, id.into());
    // lazy: one file asked for, one file remembered
    assert_eq!(stored(&kept), [("/d/f".to_owned(), Some(first.0[0]))]);

    // a marked entry shows that the memory is used, and that a change of the file ends it
    let mark = [7; 32];
    let marked = |bytes: &[u8]| {
        let at = bytes.windows(32).position(|part| part == first.0).unwrap();
        let mut bytes = bytes.to_vec();
        bytes[at..at + 32].copy_from_slice(&mark);
        let sum = blake3::hash(&bytes[40..]);
        bytes[8..40].copy_from_slice(sum.as_bytes());
        bytes
    };
    let bytes = marked(kept.lock().unwrap().as_ref().unwrap());
    *kept.lock().unwrap() = Some(bytes);
    assert_eq!(content(&open(), "d/f").0, mark);
    let walked = open();
    let found = walked.walk(&TreePath::root(), &|_| true).unwrap();
    assert_eq!(found.iter().find(|w| w.path == p("d/f")).unwrap().content.unwrap().0, mark);
    assert_eq!(content(&walked, "d/f").0, mark);
    drop(walked);
    let all = [("/d", None), ("/e", None), ("/d/f", Some(7)), ("/d/g", None), ("/e/h", None)];
    assert_eq!(stored(&kept), all.map(|(path, id)| (path.to_owned(), id)));
    fs::write(dir.path().join("d/f"), "xyz").unwrap();
    assert_eq!(content(&open(), "d/f"), blake3::hash(b"xyz").into());
    // too young to be trusted: read each time, not remembered
    assert!(
        stored(&kept).iter().all(|(path, id)| path != "/d/f" || *id == Some(7)),
        "a racy file was remembered"
    );

    // what is gone is forgotten, with all below it
    fs::remove_dir_all(dir.path().join("d")).unwrap();
    fs::write(dir.path().join("e/i"), "i").unwrap();
    std::thread::sleep(Duration::from_millis(60));
    open().walk(&TreePath::root(), &|_| true).unwrap();
    assert_eq!(stored(&kept), ["/e", "/e/h", "/e/i"].map(|path| (path.to_owned(), None)));
}

#[test]
fn a_large_directory_is_listed_in_parts() {
    let dir = tempfile::tempdir().unwrap();
    let names: Vec<String> = (0..1300).map(|n| format!("big/f{n:04}")).collect();
    put(dir.path(), &names.iter().map(String::as_str).collect::<Vec<_>>());
    std::thread::sleep(Duration::from_millis(60));
    let kept = Stored::default();
    let open = || {
        let cache = Some(Box::new(MemoryCache(kept.clone())) as Box<dyn StatCache>);
        BuildContext::dir(dir.path(), IgnoreRules::none(), cache).unwrap()
    };
    let name = |context: &BuildContext| {
        let walked = context.walk(&TreePath::root(), &|_| true).unwrap();
        assert_eq!(
            walked.iter().skip(1).map(|w| w.path.clone()).collect::<Vec<_>>(),
            names.iter().map(|n| p(n)).collect::<Vec<_>>()
        );
        for w in walked.iter().skip(1) {
            context.content(&w.path, &w.entry).unwrap();
        }
    };
    name(&open());
    let first = stored(&kept);
    assert!(first.len() == 1301 && first.iter().skip(1).all(|(_, id)| id.is_some()));
    fs::remove_file(dir.path().join("big/f0600")).unwrap();
    fs::write(dir.path().join("big/f0001"), "changed").unwrap();
    std::thread::sleep(Duration::from_millis(60));
    open().walk(&TreePath::root(), &|_| true).unwrap();
    let then = stored(&kept);
    assert_eq!(then.len(), 1300);
    assert_eq!(
        then.iter().filter(|(_, id)| id.is_none()).map(|(path, _)| path.as_str()).collect::<Vec<_>>(),
        ["/big", "/big/f0001"]
    );
}

#[test]
fn a_file_that_changes_after_the_look_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), &["f"]);
    let context = context(dir.path(), "");
    let entry = context.stat(&p("f")).unwrap().unwrap();
    std::thread::sleep(Duration::from_millis(30));
    fs::write(dir.path().join("f"), "other").unwrap();
    let error = context.content(&p("f"), &entry).unwrap_err();
    assert!(error.to_string().contains("changed"), "{error}");
}

#[test]
fn a_file_is_still_only_while_its_stat_is() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), &["f"]);
    std::thread::sleep(Duration::from_millis(60));
    let context = context(dir.path(), "");
    let entry = context.stat(&p("f")).unwrap().unwrap();
    let file = context.open(&p("f")).unwrap();
    assert!(!context.still(&p("f"), &file).unwrap(), "nobody has named its bytes yet");
    context.content(&p("f"), &entry).unwrap();
    assert!(context.still(&p("f"), &file).unwrap());
    fs::write(dir.path().join("f"), "g").unwrap();
    assert!(!context.still(&p("f"), &file).unwrap());
}

#[test]
fn the_reason_for_a_missing_file_is_known() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), &["a.key"]);
    let context = context(dir.path(), "*.key");
    assert_eq!(context.stat(&p("a.key")).unwrap(), None);
    assert_eq!(context.why_absent(&p("a.key")).unwrap(), "excluded by line 1 of .dockerignore: *.key");
    assert_eq!(context.why_absent(&p("b")), None);
}
