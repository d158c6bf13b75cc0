//! What a step's layer costs once the step is done: reading its directory as a diff, the diff ID, and each compression.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rbuild::layer::{Compression, ScanOptions, diff_id, encoder, scan, write_tar};
use rbuild::tree::{Diff, TreePath};
use std::collections::HashSet;
use std::fs::File;
use std::io::Write;
use std::path::Path;

const FILES: usize = 1000;

/// Files that compress about as well as sources do, 32 KiB each.
fn fill(root: &Path) {
    for file in 0..FILES {
        let dir = root.join(format!("dir{}", file % 20));
        std::fs::create_dir_all(&dir).expect("a directory in the temp directory");
        let line = |n: usize| format!("let value_{} = call_{}({n}, {file});\n", n * 31 % 97, (n * file) % 53);
        let text: String = (0..1000).map(line).collect();
        std::fs::write(dir.join(format!("file{file}")), text).expect("a small file");
    }
}

fn read(root: &Path) -> Diff {
    let skip = HashSet::new();
    scan(root, &ScanOptions { userxattr: false, skip: &skip }).expect("the directory is there")
}

fn tar(diff: &Diff, root: &Path) -> Vec<u8> {
    let mut out = Vec::new();
    write_tar(diff, &|path: &TreePath| File::open(root.join(path.as_os_str())), None, &mut out)
        .expect("a tar");
    out
}

fn layer(c: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temp directory");
    fill(dir.path());
    let diff = read(dir.path());
    let tar = tar(&diff, dir.path());
    let mut group = c.benchmark_group("layer of 1000 files");
    group.sample_size(10).throughput(Throughput::Bytes(tar.len() as u64));
    group.bench_function("diff", |b| b.iter(|| read(dir.path())));
    let open = |path: &TreePath| File::open(dir.path().join(path.as_os_str()));
    group.bench_function("tar and sha256", |b| b.iter(|| diff_id(&diff, &open, None).expect("files stay")));
    let all = [("gzip", Compression::Gzip(6)), ("zstd", Compression::Zstd(3))];
    for (name, how) in all {
        group.bench_function(name, |b| {
            b.iter(|| {
                let mut out = encoder(std::io::sink(), how).expect("a compressor");
                out.write_all(&tar).and_then(|()| out.finish()).expect("a sink takes all")
            })
        });
    }
    group.finish();
}

criterion_group!(benches, layer);
criterion_main!(benches);
