//! `--call`: what a Dockerfile says about itself, without building: its faults, its targets, what a target can be given.

use super::build::failure as build_failure;
use super::table::table;
use super::{CliError, CommandResult, Ctx};
use crate::build::{self, BuildRequest};
use crate::dockerfile::{self, LineIndex, ast, lint::Warning};
use crate::image::Images;
use crate::plan::Outline;
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
                let name = plan.stage.clone().unwrap_or_else(|| "default".into());
                match self.json {
                    true => ctx.out.line(&format!("{:#}", outline_json(&name, &plan.outline)))?,
                    false => ctx.out.text(&outline_text(&name, &plan.outline))?,
                }
                Ok(ExitCode::SUCCESS)
            }
            Question::Check | Question::Build => self.check(request, images, ctx),
        }
    }

    fn check(self, request: &BuildRequest, images: &Images, ctx: &Ctx) -> CommandResult {
        let mut request = request.clone();
        request.plan.all_stages = request.plan.target.is_none();
        let plans = build::check_all(&request, images).map_err(|e| build_failure(e, None, true))?;
        let warnings = build::all_warnings(&plans);
        let found = warnings.len();
        if self.json {
            ctx.out.line(&format!("{:#}", warnings_json(&warnings, &request)))?;
        } else if found == 0 {
            ctx.out.line("Check complete, no warnings found.")?;
        } else {
            ctx.out.text(&super::warnings::text(&warnings, &request.dockerfile))?;
        }
        if found == 0 || self.ignore_status {
            return Ok(ExitCode::SUCCESS);
        }
        let plural = if found == 1 { "warning has" } else { "warnings have" };
        Err(CliError::new(format!("check complete, {found} {plural} been found")))
    }

    fn targets(self, request: &BuildRequest, ctx: &Ctx) -> CommandResult {
        let file = dockerfile::parse(&request.dockerfile.text).map_err(|d| {
            CliError::new(d.render(
                &request.dockerfile.path.display().to_string(),
                &request.dockerfile.text,
                false,
            ))
        })?;
        match self.json {
            true => ctx.out.line(&format!("{:#}", targets_json(&file)))?,
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
        let default = if n + 1 == file.stages.len() { " (default)" } else { "" };
        let Some(name) = stage.name().or((!default.is_empty()).then_some("default")) else { continue };
        rows.push(vec![format!("{name}{default}"), description(stage).to_owned()]);
    }
    table(&rows)
}

fn targets_json(file: &ast::Dockerfile) -> Value {
    let one = |(n, stage): (usize, &ast::Stage)| {
        json!({
            "name": stage.name().unwrap_or_default(),
            "default": n + 1 == file.stages.len(),
            "description": description(stage),
            "base": stage.from.image.as_str(),
        })
    };
    json!({ "targets": file.stages.iter().enumerate().map(one).collect::<Vec<_>>() })
}

fn outline_text(name: &str, outline: &Outline) -> String {
    let mut text = format!("TARGET: {name}\n");
    let mut section = |rows: Vec<Vec<String>>| {
        if rows.len() > 1 {
            text.push('\n');
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

fn outline_json(name: &str, outline: &Outline) -> Value {
    let needs = |needs: &[crate::plan::OutlineNeed]| {
        needs.iter().map(|n| json!({ "name": n.id, "required": n.required })).collect::<Vec<_>>()
    };
    json!({
        "name": name,
        "args": outline.args.iter().map(|a| json!({
            "name": a.name, "value": a.value, "description": a.description,
        })).collect::<Vec<_>>(),
        "secrets": needs(&outline.secrets),
        "ssh": needs(&outline.ssh),
    })
}

fn warnings_json(warnings: &[Warning], request: &BuildRequest) -> Value {
    let lines = LineIndex::new(&request.dockerfile.text);
    let one = |w: &Warning| {
        let ranges = w.spans.iter().map(|span| {
            let (first, last) = lines.lines(*span);
            json!({ "start": { "line": first }, "end": { "line": last } })
        });
        json!({
            "ruleName": w.rule.name(),
            "description": w.rule.description(),
            "url": w.rule.url(),
            "detail": w.message,
            "location": { "ranges": ranges.collect::<Vec<_>>() },
        })
    };
    json!({
        "warnings": warnings.iter().map(one).collect::<Vec<_>>(),
        "sources": [{ "filename": request.dockerfile.path.display().to_string() }],
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
        assert_eq!(targets_json(&file)["targets"][1]["default"], true);
    }
}
