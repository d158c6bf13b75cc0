//! The fuzz targets in small: known files, mutated for a few seconds with a fixed seed, so that every run of the
//! tests tries them without a fuzzer. A finding of a real fuzzing session belongs into `fixtures/bad` or `SEEDS`.

use std::path::Path;
use std::time::{Duration, Instant};

#[path = "fuzz/shared/archive.rs"]
mod archive;
#[path = "fuzz/shared/language.rs"]
mod language;

/// How long each test may mutate.
const TIME: Duration = Duration::from_secs(3);

/// Files that are right and use much of the language.
const SEEDS: &[&str] = &[
    "# syntax=docker/dockerfile:1\n# escape=`\nARG V=1\nFROM --platform=$P a:${V:-2} AS b\nRUN x `\n # c\n\n y\n",
    "FROM a\nRUN --mount=type=cache,target=/c,\"id=a,b\" <<A cat >a && <<-'B' cat >b\n#!x\nA\n\t$x\n\tB\nCOPY --chown=1:2 <<E [\"a\" /d\nE\n",
    "FROM a\nENV A=\"b c\" D='e'\\ f\nLABEL g  h i\nVOLUME [\"/a b\", \"\\u00e9\\ud83d\\ude00\"]\nHEALTHCHECK --interval=1m30s CMD [\"x\"]\n",
    "FROM a\nONBUILD COPY <<E /f\nx\nE\nEXPOSE 80-90/tcp $P\nSHELL [\"a\"]\nARG a b=c\nADD --unpack --checksum=sha256:x u /\nUSER a\nWORKDIR b\\\\\n",
];

/// Words that use much of the expander.
const WORDS: &[&str] = &[
    "0${a#*/}${a%%.*}${b:-${c:+\"$d\"}}'$a'\\$",
    "1${a//\\//-}${c/w*s/$b}${d?x}`$a\"`\"$1\"",
    "0<< $a <<EOF${a:?b}$$",
];

/// A generator of numbers that is good enough and the same everywhere (xorshift).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit.max(1) as u64).unwrap_or(0)
    }
}

/// Changes a text at a few places: cuts, doubles, swaps in bytes and pieces of other texts.
fn mutate(numbers: &mut Numbers, corpus: &[Vec<u8>]) -> Vec<u8> {
    const BYTES: &[u8] = b"\n\r\\`$ {}\"'<>-=[],:#/%*?\t\x00\xff0aE|";
    let mut text = corpus[numbers.below(corpus.len())].clone();
    for _ in 0..=numbers.below(6) {
        let at = numbers.below(text.len() + 1);
        let end = (at + numbers.below(12)).min(text.len());
        match numbers.below(5) {
            0 => drop(text.drain(at..end)),
            1 => text.insert(at, BYTES[numbers.below(BYTES.len())]),
            2 if at < text.len() => text[at] = BYTES[numbers.below(BYTES.len())],
            3 => {
                let piece = text[at..end].to_vec();
                text.splice(at..at, piece);
            }
            _ => {
                let other = &corpus[numbers.below(corpus.len())];
                let from = numbers.below(other.len() + 1);
                let to = (from + numbers.below(40)).min(other.len());
                text.splice(at..end, other[from..to].iter().copied());
            }
        }
    }
    text
}

fn run(corpus: &[Vec<u8>], seed: u64, check: impl Fn(&[u8]) + std::panic::RefUnwindSafe) -> u64 {
    corpus.iter().for_each(|text| check(text));
    let (mut numbers, started, mut runs) = (Numbers(seed), Instant::now(), 0);
    while started.elapsed() < TIME {
        let text = mutate(&mut numbers, corpus);
        if std::panic::catch_unwind(|| check(&text)).is_err() {
            panic!("found by mutation {runs}: {:?}", String::from_utf8_lossy(&text));
        }
        runs += 1;
    }
    runs
}

#[test]
fn mutated_dockerfiles_parse_or_fail() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/bad");
    let files = std::fs::read_dir(folder).expect("the fixtures").map(|entry| entry.expect("an entry").path());
    let mut corpus: Vec<Vec<u8>> = files.map(|path| std::fs::read(path).expect("a file")).collect();
    corpus.sort();
    corpus.extend(SEEDS.iter().map(|seed| seed.as_bytes().to_vec()));
    let runs = run(&corpus, 0x9e37_79b9_7f4a_7c15, language::check_dockerfile);
    println!("{runs} mutated Dockerfiles");
    assert!(runs > 10);
}

#[test]
fn mutated_words_expand_or_fail() {
    let corpus: Vec<Vec<u8>> = WORDS.iter().map(|word| word.as_bytes().to_vec()).collect();
    let runs = run(&corpus, 0xd1b5_4a32_d192_ed03, language::check_word);
    println!("{runs} mutated words");
    assert!(runs > 10);
}

/// A layer with one entry of each kind that unpacking treats differently.
fn layer() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut add = |name: &str, kind: tar::EntryType, link: &str, body: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_size(body.len() as u64);
        if !link.is_empty() {
            header.set_link_name(link).expect("a short name");
        }
        tar.append_data(&mut header, name, body).expect("memory can be written");
    };
    use tar::EntryType as T;
    add("d/", T::Directory, "", b"");
    add("d/file", T::Regular, "", b"hello");
    add("d/again", T::Link, "d/file", b"");
    add("up", T::Symlink, "../outside", b"");
    add("up/x", T::Regular, "", b"through a link");
    add("d/.wh.gone", T::Regular, "", b"");
    add("d/.wh..wh..opq", T::Regular, "", b"");
    add("pipe", T::Fifo, "", b"");
    add(&"long/".repeat(40), T::Directory, "", b"");
    add("d", T::Regular, "", b"a file where a directory was");
    tar.into_inner().expect("memory can be written")
}

#[test]
fn mutated_archives_unpack_inside_or_fail() {
    let room = tempfile::tempdir().expect("a temporary directory");
    let check = |bytes: &[u8]| archive::check_archive(&archive::with_checksums(bytes.to_vec()), room.path());
    let runs = run(&[layer()], 0x2545_f491_4f6c_dd1d, std::panic::AssertUnwindSafe(check).0);
    println!("{runs} mutated archives");
    assert!(runs > 10);
}
