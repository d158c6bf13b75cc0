//! The check CopyIgnoredFile: sources of COPY and ADD that the ignore file keeps out of the context.
//!
//! It needs the Dockerfile and the ignore rules, which only meet here.

use crate::context::IgnoreRules;
use crate::dockerfile::ast::{self, Kind, Source};
use crate::dockerfile::lint::Warning;
use crate::tree::TreePath;

/// Finds them among the plain sources: a pattern or variable says too little. As in BuildKit nothing is said when the
/// ignore file takes anything back with `!`.
pub(super) fn ignored_sources(file: &ast::Dockerfile, rules: &IgnoreRules) -> Vec<Warning> {
    if rules.is_empty() || rules.has_exceptions() {
        return Vec::new();
    }
    let instructions = file.stages.iter().flat_map(|stage| &stage.instructions);
    instructions.flat_map(|instruction| of_instruction(instruction, rules)).collect()
}

fn of_instruction(instruction: &ast::Instruction, rules: &IgnoreRules) -> Vec<Warning> {
    let (command, sources) = match &instruction.kind {
        Kind::Copy(copy) if copy.from.is_none() => ("Copy", &copy.sources),
        Kind::Add(add) => ("Add", &add.sources),
        _ => return Vec::new(),
    };
    let plain = |source: &Source| match source {
        Source::Path(text) if !text.as_str().contains(['$', '*', '?', '[', '\\', '"', ':']) => {
            Some(text.as_str().to_owned())
        }
        _ => None,
    };
    let ignored = |path: &String| rules.excludes(&TreePath::clean(path.as_bytes()));
    let paths = sources.iter().filter_map(plain).filter(ignored);
    paths.map(|path| Warning::copy_ignored_file(command, &path, &instruction.head)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_sources_of_the_context_are_judged() {
        let text = b"FROM a AS b\nCOPY keep secret.txt /x/\nADD dir/f /y\nCOPY --from=b secret.txt /\nCOPY s*.txt $V /\n";
        let file = crate::dockerfile::parse(text).unwrap();
        let found = |rules: &str| {
            let rules = IgnoreRules::parse(rules.as_bytes(), ".dockerignore").unwrap();
            ignored_sources(&file, &rules).into_iter().map(|w| w.message).collect::<Vec<_>>()
        };
        assert_eq!(
            found("secret.txt\ndir\n"),
            [
                "Attempting to Copy file \"secret.txt\" that is excluded by .dockerignore",
                "Attempting to Add file \"dir/f\" that is excluded by .dockerignore"
            ]
        );
        assert!(found("secret.txt\n!secret.txt\n").is_empty());
        assert!(found("").is_empty());
    }
}
