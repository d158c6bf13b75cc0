//! What rbuild says about wrong Dockerfiles: one file in `fixtures/bad` for each, one snapshot of the exact text.

use std::path::Path;

use rbuild::dockerfile::ast::{Instruction, Kind, Source};
use rbuild::dockerfile::lint::Config;
use rbuild::dockerfile::word::Lexer;
use rbuild::dockerfile::{Diagnostic, Text, parse};

/// Finds the first fault that the text alone shows, with no variable set.
fn fault(source: &[u8]) -> Result<(), Diagnostic> {
    let file = parse(source)?;
    Config::of_file(&file)?;
    let lexer = Lexer::new(file.escape);
    for instruction in file.stages.iter().flat_map(|stage| &stage.instructions) {
        for word in words(instruction) {
            lexer.word(word.as_str(), &()).map_err(|error| error.at(word))?;
        }
        if let Kind::Run(run) = &instruction.kind {
            for mount in &run.mounts {
                mount.expand(&mut |word| lexer.word(word, &()).map(|expanded| expanded.text))?;
            }
        }
    }
    Ok(())
}

/// The words of an instruction that expand.
fn words(instruction: &Instruction) -> Vec<&Text> {
    match &instruction.kind {
        Kind::Env(pairs) | Kind::Label(pairs) => {
            pairs.pairs.iter().flat_map(|pair| [&pair.key, &pair.value]).collect()
        }
        Kind::Arg(vars) => {
            vars.iter().flat_map(|var| std::iter::once(&var.name).chain(&var.default)).collect()
        }
        Kind::Workdir(text) | Kind::User(text) | Kind::StopSignal(text) => vec![text],
        Kind::Expose(words) | Kind::Volume(words) => words.iter().collect(),
        Kind::Copy(copy) => {
            paths(&copy.sources).chain([&copy.dest]).chain(&copy.chown).chain(&copy.chmod).collect()
        }
        _ => Vec::new(),
    }
}

fn paths(sources: &[Source]) -> impl Iterator<Item = &Text> {
    sources.iter().filter_map(|source| match source {
        Source::Path(path) => Some(path),
        Source::Heredoc(_) => None,
    })
}

#[test]
fn each_wrong_dockerfile_has_its_message() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/bad");
    let (mut seen, mut helpless) = (0, Vec::new());
    for entry in std::fs::read_dir(&folder).expect("the fixtures") {
        let path = entry.expect("an entry").path();
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let source = std::fs::read(&path).expect("a readable file");
        let Err(error) = fault(&source) else { panic!("{name} is not wrong") };
        let mut settings = insta::Settings::clone_current();
        settings.set_prepend_module_to_snapshot(false);
        settings.set_snapshot_path("snapshots/bad");
        settings.set_omit_expression(true);
        let text = error.render("Dockerfile", &source, false);
        settings.bind(|| insta::assert_snapshot!(name.clone(), text));
        helpless.extend(error.help_text().is_none().then_some(name));
        seen += 1;
    }
    assert_eq!(helpless, [""; 0], "errors without help");
    assert!(seen >= 60, "only {seen} fixtures");
}
