//! What reading a Dockerfile costs: 30 and 300 instructions, so that what grows faster than the text is seen.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rbuild::dockerfile::parse;

/// Instructions of the kinds that real Dockerfiles are made of.
fn text(instructions: usize) -> String {
    let mut out =
        String::from("# syntax=docker/dockerfile:1\nARG VERSION=1.2\nFROM debian:${VERSION} AS build\n");
    for n in 0..instructions {
        out += &match n % 6 {
            0 => format!(
                "RUN apt-get update && apt-get install -y --no-install-recommends \\\n    package-{n} \\\n    # why\n    other-{n}\n"
            ),
            1 => format!("ENV NAME_{n}=\"a ${{NAME:-value}} b\" PATH=/opt/{n}/bin:$PATH\n"),
            2 => format!("COPY --chown=1000:1000 --from=build [\"a {n}\", \"src/*.rs\", \"/app/\"]\n"),
            3 => format!("RUN <<EOF\nset -e\necho {n} > /file\ncat /file\nEOF\n"),
            4 => format!("RUN --mount=type=cache,target=/var/cache/{n} --network=none make -j4\n"),
            _ => format!("LABEL org.example.{n}='one' other=\"two\\\"three\"\n"),
        };
    }
    out
}

fn lexer(c: &mut Criterion) {
    let mut group = c.benchmark_group("parse");
    for instructions in [30, 300] {
        let text = text(instructions);
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_with_input(BenchmarkId::from_parameter(instructions), &text, |b, text| {
            b.iter(|| parse(text.as_bytes()).expect("a correct Dockerfile"))
        });
    }
    group.finish();
}

criterion_group!(benches, lexer);
criterion_main!(benches);
