//! `--call`: what a Dockerfile says about itself, without building: its faults, its targets, what a target can be given.

use super::build::failure as build_failure;
use super::table::table;
use super::{CliError, CommandResult, Ctx};
use crate::build::{self, BuildRequest};
use crate::dockerfile::{self, LineIndex, Span, ast, lint::Warning};
use crate::image::Images;
use crate::plan::{Outline, OutlineArg, OutlineNeed};
use base64::Engine as _;
use serde_json::{Value, json};
use std::process::ExitCode;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Question {
    /// Build after all.
    Build,
    /// The warnings of all stages, or of what the target needs.
    Check,
    /// Arguments, secrets and agents of the target.
    Outline,
    /// The stages.
    Targets,
}

/// `--call=WHAT[,format=text|json][,ignorestatus=true]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) question: Question,
    json: bool,
    ignore_status: bool,
}

impl Call {
    pub(super) const CHECK: Self = Self { question: Question::Check, json: false, ignore_status: false };

    /// Reads the value of the flag.
    pub(super) fn parse(text: &str) -> Result<Self, CliError> {
        let bad = |why: &str| {
            CliError::new(format!("--call {text:?}: {why}"))
                .hint("write build, check, outline or targets, with ,format=json if you like")
        };
        let mut fields = text.split(',');
        let question = match fields.next().unwrap_or_default() {
            "" | "build" => Question::Build,
            "check" | "lint" => Question::Check,
            "outline" => Question::Outline,
            "targets" => Question::Targets,
            _ => return Err(bad("nothing of this name can be called")),
        };
        let mut call = Self { question, json: false, ignore_status: false };
        for field in fields {
            match field {
                "format=json" => call.json = true,
                "format=text" => call.json = false,
                "ignorestatus" | "ignorestatus=true" => call.ignore_status = true,
                "ignorestatus=false" => call.ignore_status = false,
                _ => return Err(bad("unknown option")),
            }
        }
        Ok(call)
    }

    /// Answers on standard output.
    pub(super) fn answer(self, request: &BuildRequest, images: &Images, ctx: &Ctx) -> CommandResult {
        match self.question {
            Question::Targets => self.targets(request, ctx),
            Question::Outline => {
                let plan = build::check(request, images).map_err(|e| build_failure(e, None, true))?;
                let file = parse(request)?;
                let stage = plan.stage.as_deref().and_then(|name| {
                    file.stages.iter().rfind(|stage| stage.name() == Some(&name.to_ascii_lowercase()))
                });
                match self.json {
                    true => ctx.out.line(&format!("{:#}", outline_json(stage, &plan.outline, request)))?,
                    false => ctx.out.text(&outline_text(stage, &plan.outline))?,
                }
                Ok(ExitCode::SUCCESS)
            }
            Question::Check | Question::Build => self.check(request, images, ctx),
        }
    }

    fn check(self, request: &BuildRequest, images: &Images, ctx: &Ctx) -> CommandResult {
        let mut request = request.clone();
        request.plan.all_stages = request.plan.target.is_none();
        let plan = build::check(&request, images).map_err(|e| build_failure(e, None, true))?;
        let found = plan.warnings.len();
        if self.json {
            ctx.out.line(&format!("{:#}", warnings_json(&plan.warnings, &request)))?;
        } else if found == 0 {
            ctx.out.line("Check complete, no warnings found.")?;
        } else {
            ctx.out.text(&super::warnings::text(&plan.warnings, &request.dockerfile))?;
        }
        if found == 0 || self.ignore_status {
            return Ok(ExitCode::SUCCESS);
        }
        let plural = if found == 1 { "warning has" } else { "warnings have" };
        Err(CliError::new(format!("check complete, {found} {plural} been found")))
    }

    fn targets(self, request: &BuildRequest, ctx: &Ctx) -> CommandResult {
        let file = parse(request)?;
        match self.json {
            true => ctx.out.line(&format!("{:#}", targets_json(&file, &request.dockerfile.text)))?,
            false => ctx.out.text(&targets_text(&file))?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn description(stage: &ast::Stage) -> &str {
    stage.name().and_then(|name| stage.head.doc_comment(name)).unwrap_or_default()
}

fn targets_text(file: &ast::Dockerfile) -> String {
    let mut rows = vec![vec!["TARGET".to_owned(), "DESCRIPTION".to_owned()]];
    for (n, stage) in file.stages.iter().enumerate() {
        let name = match (stage.name(), n + 1 == file.stages.len()) {
            (Some(name), true) => format!("{name} (default)"),
            (Some(name), false) => name.to_owned(),
            (None, true) => "(default)".to_owned(),
            (None, false) => continue,
        };
        rows.push(vec![name, description(stage).to_owned()]);
    }
    table(&rows)
}

fn targets_json(file: &ast::Dockerfile, text: &[u8]) -> Value {
    let lines = LineIndex::new(text);
    let one = |(n, stage): (usize, &ast::Stage)| {
        object([
            ("name", words(stage.name().unwrap_or_default())),
            ("default", truth(n + 1 == file.stages.len())),
            ("description", words(description(stage))),
            ("base", words(stage.from.image.as_str())),
            ("location", Some(location(&lines, &[stage.head.span]))),
        ])
    };
    json!({
        "targets": file.stages.iter().enumerate().map(one).collect::<Vec<_>>(),
        "sources": [base64(text)],
    })
}

fn outline_text(stage: Option<&ast::Stage>, outline: &Outline) -> String {
    let mut text = String::new();
    if let Some((name, about)) = stage.and_then(|stage| Some((stage.name()?, description(stage)))) {
        match about {
            "" => text.push_str(&format!("TARGET: {name}\n")),
            about => text.push_str(&format!("TARGET:      {name}\nDESCRIPTION: {about}\n")),
        }
    }
    let mut section = |rows: Vec<Vec<String>>| {
        if rows.len() > 1 {
            let gap = if text.is_empty() { "" } else { "\n" };
            text.push_str(gap);
            text.push_str(&table(&rows));
        }
    };
    let mut args = vec![vec!["BUILD ARG".to_owned(), "VALUE".to_owned(), "DESCRIPTION".to_owned()]];
    args.extend(outline.args.iter().map(|a| {
        vec![a.name.clone(), a.value.clone().unwrap_or_default(), a.description.clone().unwrap_or_default()]
    }));
    section(args);
    for (title, needs) in [("SECRET", &outline.secrets), ("SSH", &outline.ssh)] {
        let mut rows = vec![vec![title.to_owned(), "REQUIRED".to_owned()]];
        rows.extend(
            needs.iter().map(|n| vec![n.id.clone(), if n.required { "true".into() } else { String::new() }]),
        );
        section(rows);
    }
    text
}

/// What buildx prints: fields that say nothing are left out.
fn outline_json(stage: Option<&ast::Stage>, outline: &Outline, request: &BuildRequest) -> Value {
    let text = &request.dockerfile.text;
    let lines = LineIndex::new(text);
    let needs = |needs: &[OutlineNeed]| {
        let one = |need: &OutlineNeed| {
            object([
                ("name", words(&need.id)),
                ("required", truth(need.required)),
                ("location", Some(location(&lines, &[need.span]))),
            ])
        };
        Some(Value::from(needs.iter().map(one).collect::<Vec<_>>())).filter(|_| !needs.is_empty())
    };
    let arg = |arg: &OutlineArg| {
        object([
            ("name", words(&arg.name)),
            ("description", words(arg.description.as_deref().unwrap_or_default())),
            ("value", words(arg.value.as_deref().unwrap_or_default())),
            ("location", Some(location(&lines, &[arg.span]))),
        ])
    };
    let args: Vec<Value> = outline.args.iter().map(arg).collect();
    object([
        ("name", words(stage.and_then(ast::Stage::name).unwrap_or_default())),
        ("description", words(stage.map(description).unwrap_or_default())),
        ("args", Some(Value::from(args)).filter(|_| !outline.args.is_empty())),
        ("secrets", needs(&outline.secrets)),
        ("ssh", needs(&outline.ssh)),
        ("sources", Some(json!([base64(text)]))),
    ])
}

fn object<const N: usize>(fields: [(&str, Option<Value>); N]) -> Value {
    fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

fn words(text: &str) -> Option<Value> {
    (!text.is_empty()).then(|| text.into())
}

fn truth(holds: bool) -> Option<Value> {
    holds.then_some(Value::Bool(true))
}

fn location(lines: &LineIndex, spans: &[Span]) -> Value {
    // one range a line, as BuildKit has it
    let ranges = spans.iter().flat_map(|span| {
        let (first, last) = lines.lines(*span);
        (first..=last).map(|line| json!({ "start": { "line": line }, "end": { "line": line } }))
    });
    json!({ "ranges": ranges.collect::<Vec<_>>() })
}

fn base64(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

fn parse(request: &BuildRequest) -> Result<ast::Dockerfile, CliError> {
    let (path, text) = (&request.dockerfile.path, &request.dockerfile.text);
    dockerfile::parse(text).map_err(|d| CliError::new(d.render(&path.display().to_string(), text, false)))
}

fn warnings_json(warnings: &[Warning], request: &BuildRequest) -> Value {
    let text = &request.dockerfile.text;
    let lines = LineIndex::new(text);
    let one = |w: &Warning| {
        json!({
            "ruleName": w.rule.name(),
            "description": w.rule.description(),
            "url": w.rule.url(),
            "detail": w.message,
            "location": location(&lines, &w.spans),
        })
    };
    json!({
        "warnings": warnings.iter().map(one).collect::<Vec<_>>(),
        "sources": [{
            "filename": request.dockerfile.path.display().to_string(),
            "data": base64(text),
            "language": "Dockerfile",
        }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_is_read() {
        assert_eq!(Call::parse("check").unwrap(), Call::CHECK);
        let json = Call::parse("targets,format=json,ignorestatus=true").unwrap();
        assert!(json.json && json.ignore_status && json.question == Question::Targets);
        for text in ["what", "check,format=xml", "check,"] {
            assert!(Call::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn targets_are_listed_with_their_comments() {
        let file = dockerfile::parse(b"# base the tools\nFROM a AS base\nFROM base AS app\n").unwrap();
        assert_eq!(
            targets_text(&file),
            "TARGET          DESCRIPTION\nbase            the tools\napp (default)   \n"
        );
        assert_eq!(targets_json(&file, b"# base\n\n\n")["targets"][1]["default"], true);
    }
}
