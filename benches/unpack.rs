//! What bringing a layer in costs: the stream alone, and all of it to the disk, next to tar.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use rbuild::layer::{Compression, UnpackOptions, decoder, encoder, unpack_blob};
use std::io::{Cursor, Write};
use std::path::Path;
use std::process::{Command, Stdio};

const FILES: usize = 2000;

/// A gzip layer of small files.
fn blob() -> Vec<u8> {
    let mut tar = tar::Builder::new(encoder(Vec::new(), Compression::Gzip(6)).expect("a compressor"));
    for file in 0..FILES {
        let text = format!("{file} some text that is not always the same {}\n", file * 7919).repeat(200);
        let mut header = tar::Header::new_ustar();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(1_700_000_000);
        let name = format!("dir{}/file{file}", file % 40);
        tar.append_data(&mut header, name, text.as_bytes()).expect("memory takes all");
    }
    tar.into_inner().and_then(|out| out.finish()).expect("memory takes all")
}

fn temp() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temp directory")
}

fn tar_xzf(blob: &[u8], into: &Path) {
    let mut tar = Command::new("tar")
        .arg("-xzf-")
        .arg("-C")
        .arg(into)
        .stdin(Stdio::piped())
        .spawn()
        .expect("tar is installed");
    tar.stdin.take().expect("it was asked for").write_all(blob).expect("tar reads");
    assert!(tar.wait().is_ok_and(|status| status.success()));
}

fn unpack(c: &mut Criterion) {
    let blob = blob();
    let options = UnpackOptions::default();
    let mut group = c.benchmark_group("unpack 2000 files");
    group.sample_size(10).throughput(Throughput::Bytes(blob.len() as u64));
    group.bench_function("decompress only", |b| {
        b.iter(|| {
            let mut plain = decoder(Box::new(Cursor::new(&blob))).expect("gzip");
            std::io::copy(&mut plain, &mut std::io::sink()).expect("a whole stream")
        })
    });
    group.bench_function("to the disk", |b| {
        let run = |dir: tempfile::TempDir| {
            let source = Box::new(Cursor::new(blob.clone()));
            unpack_blob(source, dir.path(), &options).expect("a good layer");
            dir
        };
        b.iter_batched(temp, run, BatchSize::PerIteration)
    });
    group.bench_function("tar -xzf", |b| {
        let run = |dir: tempfile::TempDir| {
            tar_xzf(&blob, dir.path());
            dir
        };
        b.iter_batched(temp, run, BatchSize::PerIteration)
    });
    group.finish();
}

criterion_group!(benches, unpack);
criterion_main!(benches);
