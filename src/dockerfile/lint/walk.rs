//! The checks that need nothing but the tree.
//!
//! A word with variables is not judged here: its value is not known, and `plan`, which knows it, judges it instead.

use std::collections::BTreeMap;

use super::{Rule, Warning};
use crate::dockerfile::ast::{Command, Dockerfile, Head, Instruction, Kind, Stage};
use crate::dockerfile::word::{Env, Expanded, Lexer};
use crate::platform::Platform;

/// What a stage takes over from its base, as far as the checks must know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Inherited {
    /// A stage below has set WORKDIR.
    pub workdir: bool,
    /// The base has a SHELL of its own.
    pub shell: bool,
}

/// Checks a whole file, every stage of it. The findings are in the order of the file; which of them are wanted is
/// for [`Warning::is_wanted`] to say.
pub fn check(file: &Dockerfile) -> Vec<Warning> {
    let mut warnings = check_file(file);
    let mut below: BTreeMap<&str, Inherited> = BTreeMap::new();
    for stage in &file.stages {
        let inherited = below.get(stage.from.image.as_str()).copied().unwrap_or_default();
        let (found, left) = check_stage(stage, inherited, file.escape);
        warnings.extend(found);
        if let Some(name) = stage.name() {
            below.insert(name, left);
        }
    }
    warnings.sort_by_key(|warning| warning.spans.first().copied());
    warnings
}

/// Makes the checks that concern the file as a whole and its FROM lines; they count whatever the target is.
pub fn check_file(file: &Dockerfile) -> Vec<Warning> {
    let mut warnings = Vec::new();
    for head in file.heads() {
        if let Some(blank) = head.blank_continuations.first() {
            let warning = Warning::new(Rule::NoEmptyContinuation, "Empty continuation line", head);
            warnings.push(warning.at(head.blank_continuations.iter().fold(*blank, |all, one| all.to(*one))));
        }
    }
    casing(file, &mut warnings);
    descriptions(file, &mut warnings);
    let mut names = Vec::new();
    for stage in &file.stages {
        from_line(stage, file.escape, &mut names, &mut warnings);
    }
    let instructions = file.stages.iter().flat_map(|stage| &stage.instructions);
    for instruction in instructions.filter(|instruction| matches!(instruction.kind, Kind::Maintainer(_))) {
        let message = "Maintainer instruction is deprecated in favor of using label";
        warnings.push(Warning::new(Rule::MaintainerDeprecated, message, &instruction.head));
    }
    warnings
}

/// The commands of the stages vote on the case; who deviates or mixes is reported.
fn casing(file: &Dockerfile, warnings: &mut Vec<Warning>) {
    let staged = || {
        file.stages.iter().flat_map(|stage| {
            std::iter::once(&stage.head).chain(stage.instructions.iter().map(|instruction| &instruction.head))
        })
    };
    let count = |case: fn(&char) -> bool| {
        staged().filter(|head| head.keyword.as_str().chars().all(|c| case(&c))).count()
    };
    let lower = count(char::is_ascii_lowercase) > count(char::is_ascii_uppercase);
    let (case, name): (fn(&char) -> bool, _) =
        if lower { (char::is_ascii_lowercase, "lowercase") } else { (char::is_ascii_uppercase, "uppercase") };
    for head in staged().filter(|head| !head.keyword.as_str().chars().all(|c| case(&c))) {
        let message =
            format!("Command '{}' should match the case of the command majority ({name})", head.keyword);
        warnings.push(Warning::new(Rule::ConsistentInstructionCasing, message, head).at(head.keyword.span()));
    }
}

fn descriptions(file: &Dockerfile, warnings: &mut Vec<Warning>) {
    for stage in &file.stages {
        if let Some(name) = stage.name() {
            warnings.extend(description("FROM", &[name], &stage.head));
        }
    }
    let instructions = file.stages.iter().flat_map(|stage| &stage.instructions);
    for Instruction { head, kind } in file.global_args.iter().chain(instructions) {
        if let Kind::Arg(vars) = kind {
            let names: Vec<&str> = vars.iter().map(|var| var.name.as_str()).collect();
            warnings.extend(description("ARG", &names, head));
        }
    }
}

/// The nearest comment must begin with one of the names.
fn description(instruction: &str, names: &[&str], head: &Head) -> Option<Warning> {
    let comment = head.comments.last()?;
    let first = comment.as_str().split(' ').next().unwrap_or_default();
    if names.contains(&first) {
        return None;
    }
    let example = if let [name] = names { name } else { "<arg_key>" };
    let message = format!("Comment for {instruction} should follow the format: `# {example} <description>`");
    Some(Warning::new(Rule::InvalidDefinitionDescription, message, head))
}

fn from_line<'a>(stage: &'a Stage, escape: char, names: &mut Vec<&'a str>, warnings: &mut Vec<Warning>) {
    let head = &stage.head;
    platform(stage, escape, warnings);
    let Some(alias) = &stage.from.alias else { return };
    if alias.written.as_str() != alias.name {
        let message = format!("Stage name '{}' should be lowercase", alias.written);
        warnings.push(Warning::new(Rule::StageNameCasing, message, head).at(alias.written.span()));
    }
    let (from, keyword) = (head.keyword.as_str(), alias.keyword.as_str());
    let same = |case: fn(&str) -> String| from != case(from) || keyword == case(keyword);
    if !(same(str::to_ascii_lowercase) && same(str::to_ascii_uppercase)) {
        let message = format!("'{keyword}' and '{from}' keywords' casing do not match");
        warnings.push(Warning::new(Rule::FromAsCasing, message, head).at(alias.keyword.span()));
    }
    if ["scratch", "context"].contains(&alias.name.as_str()) {
        let message = format!("Stage name should not use the same name as reserved stage {:?}", alias.name);
        warnings.push(Warning::new(Rule::ReservedStageName, message, head).at(alias.written.span()));
    }
    if names.contains(&alias.name.as_str()) {
        let message = format!("Duplicate stage name {:?}, stage names should be unique", alias.name);
        warnings.push(Warning::new(Rule::DuplicateStageName, message, head).at(alias.written.span()));
    }
    names.push(&alias.name);
}

/// Stands for the value of TARGETPLATFORM; no platform is called so.
struct TargetPlatform;

const SENTINEL: &str = "\u{0}";

impl Env for TargetPlatform {
    fn get(&self, name: &str) -> Option<&str> {
        (name == "TARGETPLATFORM").then_some(SENTINEL)
    }
}

fn platform(stage: &Stage, escape: char, warnings: &mut Vec<Warning>) {
    let Some(written) = &stage.from.platform else { return };
    let Ok(Expanded { text, used, unset }) = Lexer::new(escape).word(written.as_str(), &TargetPlatform)
    else {
        return;
    };
    let found = match (used.is_empty(), unset.is_empty()) {
        (false, true) if text == SENTINEL => {
            Warning::redundant_target_platform(written.as_str(), &stage.head)
        }
        (true, true) => {
            let name = stage.name().unwrap_or_default();
            let named =
                |platform: Platform| name.contains(&platform.os) || name.contains(&platform.architecture);
            if text.parse().map_or(true, named) {
                return;
            }
            Warning::from_platform_flag_const(&text, &stage.head)
        }
        _ => return,
    };
    warnings.push(found.at(written.span()));
}

/// Makes the checks of one stage; `plan` skips stages that the target does not need. Gives also what a stage that
/// is built on this one inherits.
pub fn check_stage(stage: &Stage, inherited: Inherited, escape: char) -> (Vec<Warning>, Inherited) {
    let mut walk = Walk { now: inherited, lexer: Lexer::new(escape), warnings: Vec::new() };
    stage.instructions.iter().for_each(|instruction| walk.instruction(instruction));
    let kinds: [fn(&Kind) -> bool; 3] = [
        |kind| matches!(kind, Kind::Cmd(_)),
        |kind| matches!(kind, Kind::Entrypoint(_)),
        |kind| matches!(kind, Kind::Healthcheck(_)),
    ];
    for is_kind in kinds {
        let all: Vec<&Instruction> =
            stage.instructions.iter().filter(|instruction| is_kind(&instruction.kind)).collect();
        for pair in all.windows(2) {
            let earlier = pair[0].head.original.span();
            walk.warnings.push(Warning::multiple_instructions(&pair[1].head, earlier));
        }
    }
    (walk.warnings, walk.now)
}

struct Walk {
    now: Inherited,
    lexer: Lexer,
    warnings: Vec<Warning>,
}

impl Walk {
    fn instruction(&mut self, Instruction { head, kind }: &Instruction) {
        match kind {
            Kind::Shell(_) => self.now.shell = true,
            Kind::Cmd(Command::Shell(_)) | Kind::Entrypoint(Command::Shell(_)) if !self.now.shell => {
                self.warnings.push(Warning::json_args_recommended(head));
            }
            Kind::Workdir(path) => self.workdir(path.as_str(), head),
            Kind::Env(pairs) => {
                self.legacy(pairs.legacy, head);
                pairs.pairs.iter().for_each(|pair| self.secret("ENV", pair.key.as_str(), head));
            }
            Kind::Label(pairs) => self.legacy(pairs.legacy, head),
            Kind::Arg(vars) => vars.iter().for_each(|var| self.secret("ARG", var.name.as_str(), head)),
            Kind::Expose(ports) => ports.iter().for_each(|port| self.port(port.as_str(), head)),
            _ => {}
        }
    }

    /// The text of a word without variables.
    fn constant(&self, word: &str) -> Option<String> {
        let expanded = self.lexer.word(word, &()).ok()?;
        expanded.unset.is_empty().then_some(expanded.text)
    }

    fn workdir(&mut self, path: &str, head: &Head) {
        let first = !std::mem::replace(&mut self.now.workdir, true);
        if let Some(path) = self.constant(path).filter(|path| first && !path.starts_with('/')) {
            self.warnings.push(Warning::workdir_relative_path(&path, head));
        }
    }

    fn legacy(&mut self, legacy: bool, head: &Head) {
        if legacy {
            self.warnings.push(Warning::legacy_key_value(head));
        }
    }

    fn secret(&mut self, instruction: &str, name: &str, head: &Head) {
        let name = self.constant(name);
        self.warnings.extend(name.and_then(|name| Warning::secret_in_arg_or_env(instruction, &name, head)));
    }

    fn port(&mut self, port: &str, head: &Head) {
        let Some(port) = self.constant(port) else { return };
        self.warnings.extend(Warning::of_port(&port, head));
    }
}

impl Warning {
    /// Makes the checks of one expanded port of EXPOSE.
    pub fn of_port(port: &str, head: &Head) -> Vec<Self> {
        let mut warnings = Vec::new();
        let container = port.rsplit(':').next().unwrap_or_default();
        let protocol = container.split_once('/').map_or("", |(_, protocol)| protocol);
        if protocol.chars().any(char::is_uppercase) {
            warnings.push(Warning::expose_proto_casing(port, head));
        }
        if port.rsplit_once(':').is_some_and(|(before, _)| !before.is_empty() && before != ":") {
            warnings.push(Warning::expose_invalid_format(port, head));
        }
        warnings
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dockerfile::parse;

    fn found(source: &str) -> Vec<(Rule, String)> {
        let file = parse(source.as_bytes()).expect(source);
        let config = crate::dockerfile::lint::Config::of_file(&file).expect(source);
        let wanted = check(&file).into_iter().filter(|warning| warning.is_wanted(&config));
        wanted.map(|warning| (warning.rule, warning.message)).collect()
    }

    fn rules(source: &str) -> Vec<&'static str> {
        found(source).into_iter().map(|(rule, _)| rule.name()).collect()
    }

    #[test]
    fn each_rule_has_its_words() {
        let cases = [
            ("FROM a AS Build", Rule::StageNameCasing, "Stage name 'Build' should be lowercase"),
            ("FROM a as b", Rule::FromAsCasing, "'as' and 'FROM' keywords' casing do not match"),
            ("FROM a\nRUN x \\\n\n y", Rule::NoEmptyContinuation, "Empty continuation line"),
            (
                "FROM a\nRun x",
                Rule::ConsistentInstructionCasing,
                "Command 'Run' should match the case of the command majority (uppercase)",
            ),
            (
                "FROM a AS b\nFROM c AS b",
                Rule::DuplicateStageName,
                "Duplicate stage name \"b\", stage names should be unique",
            ),
            (
                "FROM a AS scratch",
                Rule::ReservedStageName,
                "Stage name should not use the same name as reserved stage \"scratch\"",
            ),
            (
                "FROM a\nCMD x",
                Rule::JSONArgsRecommended,
                "JSON arguments recommended for CMD to prevent unintended behavior related to OS signals",
            ),
            (
                "FROM a\nMAINTAINER m",
                Rule::MaintainerDeprecated,
                "Maintainer instruction is deprecated in favor of using label",
            ),
            (
                "FROM a\nWORKDIR b",
                Rule::WorkdirRelativePath,
                "Relative workdir \"b\" can have unexpected results if the base image changes",
            ),
            (
                "FROM a\nCMD []\nCMD [\"b\"]",
                Rule::MultipleInstructionsDisallowed,
                "Multiple CMD instructions should not be used in the same stage because only the last one will be used",
            ),
            (
                "FROM a\nENV b c",
                Rule::LegacyKeyValueFormat,
                "\"ENV key=value\" should be used instead of legacy \"ENV key value\" format",
            ),
            (
                "FROM --platform=$TARGETPLATFORM a",
                Rule::RedundantTargetPlatform,
                "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
            ),
            (
                "FROM a\nARG API_KEY",
                Rule::SecretsUsedInArgOrEnv,
                "Do not use ARG or ENV instructions for sensitive data (ARG \"API_KEY\")",
            ),
            (
                "FROM --platform=linux/arm64 a",
                Rule::FromPlatformFlagConstDisallowed,
                "FROM --platform flag should not use constant value \"linux/arm64\"",
            ),
            (
                "FROM a\nEXPOSE 80/TCP",
                Rule::ExposeProtoCasing,
                "Defined protocol '80/TCP' in EXPOSE instruction should be lowercase",
            ),
            (
                "FROM a\nEXPOSE 127.0.0.1:80:80",
                Rule::ExposeInvalidFormat,
                "EXPOSE instruction should not define an IP address or host-port mapping, found '127.0.0.1:80:80'",
            ),
            (
                "# check=experimental=all\n# nothing\nFROM a AS b",
                Rule::InvalidDefinitionDescription,
                "Comment for FROM should follow the format: `# b <description>`",
            ),
        ];
        for (source, rule, message) in cases {
            assert_eq!(found(source), [(rule, message.to_owned())], "{source}");
        }
    }

    #[test]
    fn good_files_are_not_blamed() {
        let files = [
            "FROM a AS b\nRUN x \\\n # c\n y\nCMD [\"x\"]\n",
            "from a as b\nrun x\n",
            "FROM a\nSHELL [\"b\", \"-c\"]\nCMD x\nENTRYPOINT y\n",
            "FROM a AS b\nSHELL [\"b\", \"-c\"]\nWORKDIR /x\nFROM b\nCMD x\nWORKDIR y\n",
            "FROM a\nWORKDIR /b\nWORKDIR c\n",
            "FROM a\nWORKDIR $X\nWORKDIR c\n",
            "FROM --platform=$BUILDPLATFORM a\nFROM --platform=linux/amd64 b AS amd64-base\nFROM --platform=a/$B c",
            "FROM a\nARG PUBLIC_KEY KEYBOARD $SECRET\nEXPOSE 80 81-82/udp $P/TCP\n",
            "FROM a\n# anything\nARG B\n",
        ];
        for file in files {
            assert_eq!(found(file), [], "{file}");
        }
    }

    #[test]
    fn rules_can_be_switched_off() {
        let bad = "FROM a AS Build\nCMD x\nCMD y\n";
        assert_eq!(
            rules(bad),
            [
                "StageNameCasing",
                "JSONArgsRecommended",
                "MultipleInstructionsDisallowed",
                "JSONArgsRecommended"
            ]
        );
        assert_eq!(
            rules(&format!("# check=skip=JSONArgsRecommended,MultipleInstructionsDisallowed\n{bad}")),
            ["StageNameCasing"]
        );
        assert_eq!(rules(&format!("# check=skip=all;error=true\n{bad}")), [""; 0]);
        assert_eq!(rules("FROM a\n# check=skip=JSONArgsRecommended\nCMD x\n"), [""; 0]);
        assert_eq!(rules("FROM a\n# check=skip=StageNameCasing\nCMD x\n"), ["JSONArgsRecommended"]);
    }

    #[test]
    fn the_majority_decides_the_case() {
        assert_eq!(rules("from a\nrun x\nRUN y\n"), ["ConsistentInstructionCasing"]);
        assert_eq!(rules("from a\nRUN y\n"), ["ConsistentInstructionCasing"]);
        assert_eq!(rules("ARG x\nfrom a\nrun x\n"), [""; 0]);
    }
}
