//! What a context shows, what it reads and what it remembers.

use super::*;
use crate::tree::{SourceNode, SourceTree, TreePath};
use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

type Stored = Arc<Mutex<HashMap<TreePath, CachedDir>>>;

struct MapCache(Stored);

impl StatCache for MapCache {
    fn load(&self, dir: &TreePath) -> Option<CachedDir> {
        self.0.lock().unwrap().get(dir).cloned()
    }

    fn store(&self, dir: &TreePath, entries: CachedDir) {
        self.0.lock().unwrap().insert(dir.clone(), entries);
    }
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

fn names(found: &[(TreePath, crate::tree::SourceEntry)]) -> Vec<String> {
    found.iter().map(|(p, _)| String::from_utf8_lossy(p.as_bytes()).into_owned()).collect()
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
                listed.push((path, entry));
            }
        }
        listed.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(walked, listed, "{rules:?}");
        for (path, _) in self::context(dir.path(), "").walk(&TreePath::root(), &|_| true).unwrap() {
            assert_eq!(context.stat(&path).unwrap().is_some(), walked.iter().any(|w| w.0 == path), "{path}");
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
    let stored = Stored::default();
    let open = || {
        BuildContext::dir(dir.path(), IgnoreRules::none(), Some(Box::new(MapCache(stored.clone())))).unwrap()
    };
    let content = |context: &BuildContext, path: &str| {
        let entry = context.stat(&p(path)).unwrap().unwrap();
        context.content(&p(path), &entry).unwrap()
    };
    let first = content(&open(), "d/f");
    assert_eq!(first, blake3::hash(b"d/f").into());
    // lazy: one file asked for, one file remembered
    assert_eq!(stored.lock().unwrap().keys().map(ToString::to_string).collect::<Vec<_>>(), ["/d"]);
    assert_eq!(stored.lock().unwrap()[&p("d")].entries.len(), 1);

    // a marked entry shows that the memory is used, and that a change of the file ends it
    let mark = [7; 32];
    stored.lock().unwrap().get_mut(&p("d")).unwrap().entries[0].content =
        Some(blake3::Hash::from_bytes(mark).into());
    assert_eq!(content(&open(), "d/f").0, mark);
    let walked = open();
    walked.walk(&TreePath::root(), &|_| true).unwrap();
    assert_eq!(content(&walked, "d/f").0, mark);
    drop(walked);
    assert_eq!(stored.lock().unwrap()[&p("d")].entries.len(), 2);
    fs::write(dir.path().join("d/f"), "xyz").unwrap();
    assert_eq!(content(&open(), "d/f"), blake3::hash(b"xyz").into());

    // too young to be trusted: read each time, not remembered
    let fresh = stored.lock().unwrap()[&p("d")].entries.iter().find(|e| e.name == b"f").cloned();
    assert!(
        fresh.is_none_or(|e| e.content.is_none() || e.content.unwrap().0 == mark),
        "a racy file was remembered"
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
