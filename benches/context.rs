//! What a COPY of 20,000 files costs: the first time, when nothing changed, and next to find's walk of the same tree.

use criterion::{Criterion, criterion_group, criterion_main};
use rbuild::context::{BuildContext, IgnoreRules, StatCache};
use rbuild::plan::{CopyOp, CopySource, From};
use rbuild::solve::ops::copy::{Selection, Sources, select};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const DIRS: usize = 400;
const FILES_EACH: usize = 50;

#[derive(Clone, Default)]
struct MemoryCache(Arc<Mutex<Option<Vec<u8>>>>);

impl StatCache for MemoryCache {
    fn load(&self) -> Option<Vec<u8>> {
        self.0.lock().expect("no bench panics").clone()
    }

    fn store(&self, parts: &[&[u8]]) {
        *self.0.lock().expect("no bench panics") = Some(parts.concat());
    }
}

fn fill(root: &Path) {
    for dir in 0..DIRS {
        let path = root.join(format!("pkg{}/mod{}", dir / 20, dir % 20));
        std::fs::create_dir_all(&path).expect("a directory in the temp directory");
        for file in 0..FILES_EACH {
            let text = format!("{dir} {file} ").repeat(100);
            std::fs::write(path.join(format!("source_file_{file}.rs")), text).expect("a small file");
        }
    }
    // files that are younger than a clock tick are read again each time
    std::thread::sleep(Duration::from_millis(100));
}

fn copy_all() -> CopyOp {
    CopyOp::plain(vec![CopySource::Path(".".to_owned())], From::Context(String::new()), "/app/")
}

fn select_all(root: &Path, rules: &IgnoreRules, cache: MemoryCache) -> Selection {
    let context =
        BuildContext::dir(root, rules.clone(), Some(Box::new(cache))).expect("the directory is there");
    select(&Sources::paths(&context), &copy_all()).expect("nothing is missing")
}

fn find(root: &Path) {
    let status = Command::new("find")
        .arg(root)
        .args(["-printf", "%p %s %T@ %C@ %i %m\n"])
        .stdout(Stdio::null())
        .status();
    assert!(status.is_ok_and(|s| s.success()));
}

fn context(c: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temp directory");
    fill(dir.path());
    let rules =
        IgnoreRules::parse(b"**/node_modules\n**/*.log\n.git\n!keep.log\ntarget\n", "").expect("good rules");
    let mut group = c.benchmark_group("20000 files");
    group.sample_size(20);
    group.bench_function("find -printf", |b| b.iter(|| find(dir.path())));
    group.bench_function("first time", |b| {
        b.iter(|| select_all(dir.path(), &IgnoreRules::none(), MemoryCache::default()).key_id())
    });
    let cache = MemoryCache::default();
    let first = select_all(dir.path(), &IgnoreRules::none(), cache.clone()).key_id();
    group.bench_function("nothing changed", |b| {
        b.iter(|| {
            let key = select_all(dir.path(), &IgnoreRules::none(), cache.clone()).key_id();
            assert_eq!(key, first);
        })
    });
    group.bench_function("nothing changed, five ignore rules", |b| {
        b.iter(|| select_all(dir.path(), &rules, cache.clone()).key_id())
    });
    group.finish();
}

criterion_group!(benches, context);
criterion_main!(benches);
