//! What a cache key costs: a RUN with a long environment, and what `--explain` keeps of it.

use criterion::{Criterion, criterion_group, criterion_main};
use rbuild::cache::KeyBuilder;
use std::hint::black_box;

fn key(c: &mut Criterion) {
    let env: Vec<String> = (0..50).map(|n| format!("VARIABLE_{n}=/usr/local/{n}/bin:/usr/bin")).collect();
    let script = "apt-get update && apt-get install -y build-essential; ".repeat(20);
    c.bench_function("key of a RUN with 50 variables", |b| {
        b.iter(|| {
            let mut key = KeyBuilder::new("RUN");
            key.id("base", &[7; 32]).text("cwd", "/src").text("user", "root").list("env", black_box(&env));
            key.list("argv", ["/bin/sh", "-c", black_box(script.as_str())]);
            key.finish()
        })
    });
}

criterion_group!(benches, key);
criterion_main!(benches);
