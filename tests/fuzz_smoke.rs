//! The fuzz targets in small: the seeds of each, mutated for a few seconds, so that every run of the tests tries them
//! without a fuzzer. A finding of a real fuzzing session belongs into `tests/fuzz/seeds`. `RBUILD_LONG=1` takes a
//! minute for each.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

#[path = "fuzz/shared/archive.rs"]
mod archive;
#[path = "fuzz/shared/documents.rs"]
mod documents;
#[path = "fuzz/shared/language.rs"]
mod language;
#[path = "fuzz/shared/texts.rs"]
mod texts;

/// How long each test may mutate.
fn time() -> Duration {
    Duration::from_millis(if std::env::var_os("RBUILD_LONG").is_some() { 60_000 } else { 1500 })
}

/// Gives what lies in a directory of the checkout, in the order of the names.
fn texts_in(folder: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let entries = std::fs::read_dir(folder).expect("it is there");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).expect("a file")).collect()
}

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

/// Runs one target on its seeds and on mutations of them; the same ones in each run.
#[allow(clippy::print_stdout, reason = "what a test says when asked to")]
fn run(target: &str, more: Vec<Vec<u8>>, check: impl Fn(&[u8]) + std::panic::RefUnwindSafe) {
    let mut corpus = texts_in(&format!("tests/fuzz/seeds/{target}"));
    corpus.extend(more);
    assert!(!corpus.is_empty());
    corpus.iter().for_each(|text| check(text));
    let seed = target
        .bytes()
        .fold(0x9e37_79b9_7f4a_7c15, |seed, b| (seed ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    let (mut numbers, started, mut runs) = (Numbers(seed), Instant::now(), 0_u64);
    while started.elapsed() < time() {
        let text = mutate(&mut numbers, &corpus);
        if std::panic::catch_unwind(|| check(&text)).is_err() {
            panic!("{target}, found by mutation {runs}: {:?}", String::from_utf8_lossy(&text));
        }
        runs += 1;
    }
    println!("{target}: {runs} mutations");
    assert!(runs > 0);
}

#[test]
fn mutated_dockerfiles_parse_or_fail() {
    run("dockerfile", texts_in("fixtures/bad"), language::check_dockerfile);
}

#[test]
fn mutated_words_expand_or_fail() {
    run("word", Vec::new(), language::check_word);
}

#[test]
fn mutated_ignore_files_agree_with_themselves_or_fail() {
    run("ignore", Vec::new(), texts::check_ignore);
}

#[test]
fn mutated_texts_of_a_line_are_read_or_refused() {
    run("reference", Vec::new(), texts::check_reference);
    run("challenge", Vec::new(), texts::check_challenge);
    run("env", Vec::new(), texts::check_env);
    run("flag", Vec::new(), texts::check_flag);
}

#[test]
fn mutated_documents_are_read_or_refused() {
    run("document", Vec::new(), documents::check_document);
    run("listing", Vec::new(), documents::check_listing);
}

#[test]
fn mutated_archives_unpack_inside_or_fail() {
    let room = tempfile::tempdir().expect("a temporary directory");
    let check = |bytes: &[u8]| archive::check_archive(&archive::with_checksums(bytes.to_vec()), room.path());
    run("archive", Vec::new(), std::panic::AssertUnwindSafe(check).0);
}
