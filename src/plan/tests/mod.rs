//! Dockerfile text in, ops and config out, with base images that exist in the test only.

mod args;
mod config;
mod copy;
mod errors;
mod graphs;
mod onbuild;
mod random;
mod run;
mod stages;
mod warnings;

use super::*;
use crate::digest::{Digest, ImageId};
use crate::dockerfile::parse;
use crate::oci::ImageConfig;
use crate::platform::Platform;
use std::cell::RefCell;
use std::fmt::Write as _;

/// Knows `busybox`, `debian`, `triggers` (with ONBUILD), `arm` (another platform) and `empty` (no layers), and
/// notes what was asked for.
#[derive(Default)]
struct Bases {
    asked: RefCell<Vec<String>>,
}

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

impl BaseImages for Bases {
    fn resolve(&self, name: &str, platform: Option<&Platform>) -> Result<BaseImage, BaseImageError> {
        self.asked.borrow_mut().push(name.to_owned());
        let short = name.strip_suffix(":latest").unwrap_or(name);
        let config = match short {
            "busybox" => format!(r#"{{"Env":["{PATH}"],"Cmd":["sh"]}}"#),
            "debian" => {
                r#"{"Env":["A=base"],"Cmd":["bash"],"Entrypoint":["/init"],"WorkingDir":"/srv","User":"www",
                "Labels":{"from":"debian"},"Image":"sha256:old"}"#
                    .to_owned()
            }
            "triggers" => {
                r#"{"OnBuild":["ARG V=trigger","RUN make $V","COPY --from=tools /t /t"]}"#.to_owned()
            }
            "shouting" => r#"{"OnBuild":["RNU make"]}"#.to_owned(),
            "arm" | "empty" => "{}".to_owned(),
            _ => {
                return Err(BaseImageError {
                    name: name.to_owned(),
                    why: "there is no such image".to_owned(),
                });
            }
        };
        let layer = Digest::sha256_of(short.as_bytes());
        let layers = if short == "empty" {
            String::new()
        } else {
            format!("{layer:?}").replace("sha", "\"sha") + "\""
        };
        let architecture = match (short, platform) {
            ("arm", _) => "arm64",
            (_, Some(platform)) => &platform.architecture,
            (_, None) => "amd64",
        };
        let text = format!(
            r#"{{"architecture":"{architecture}","os":"linux","created":"2020-01-01T00:00:00Z","config":{config},
            "container":"gone","rootfs":{{"type":"layers","diff_ids":[{layers}]}},"history":[{{"created_by":"base"}}]}}"#
        );
        let config: ImageConfig = serde_json::from_str(&text).unwrap();
        Ok(BaseImage { image: ImageId(Digest::sha256_of(text.as_bytes())), config })
    }
}

/// Options for the platform that the snapshots were made for, wherever the test runs.
fn options() -> PlanOptions {
    PlanOptions { build_platform: "linux/amd64".parse().unwrap(), ..PlanOptions::new() }
}

fn with_args(args: &[(&str, &str)]) -> PlanOptions {
    let args = args.iter().map(|(name, value)| ((*name).to_owned(), Some((*value).to_owned())));
    PlanOptions { build_args: args.collect(), ..options() }
}

fn try_plan(text: &str, options: &PlanOptions) -> Result<Plan, Diagnostic> {
    plan(text.as_bytes(), &parse(text.as_bytes())?, options, &Bases::default())
}

fn planned_with(text: &str, options: &PlanOptions) -> Plan {
    match try_plan(text, options) {
        Ok(plan) => plan,
        Err(error) => panic!("{}", error.render("Dockerfile", text.as_bytes(), false)),
    }
}

fn planned(text: &str) -> Plan {
    planned_with(text, &options())
}

/// The error message as it is printed.
fn fails_with(text: &str, options: &PlanOptions) -> String {
    match try_plan(text, options) {
        Ok(_) => panic!("planned:\n{text}"),
        Err(error) => error.render("Dockerfile", text.as_bytes(), false),
    }
}

fn fails(text: &str) -> String {
    fails_with(text, &options())
}

impl Plan {
    /// The RUN ops in order.
    fn runs(&self) -> Vec<&RunOp> {
        let ops = self.graph.node_weights().map(|vertex| &vertex.op);
        ops.filter_map(|op| if let Op::Run(run) = op { Some(&**run) } else { None }).collect()
    }

    /// The COPY and ADD ops in order.
    fn copies(&self) -> Vec<&CopyOp> {
        let ops = self.graph.node_weights().map(|vertex| &vertex.op);
        ops.filter_map(|op| if let Op::Copy(copy) = op { Some(&**copy) } else { None }).collect()
    }

    fn labels(&self) -> Vec<&str> {
        self.graph.node_weights().map(|vertex| vertex.label.as_str()).collect()
    }

    /// The history lines; those with a layer have a `+`.
    fn lines_of_history(&self) -> Vec<String> {
        let line = |entry: &PlannedHistory| {
            assert_eq!(entry.empty_layer, entry.vertex.is_none());
            format!("{} {}", if entry.empty_layer { ' ' } else { '+' }, entry.created_by)
                .trim_start()
                .to_owned()
        };
        self.history.iter().map(line).collect()
    }

    /// Everything that a person would want to compare.
    fn dump(&self) -> String {
        let mut out = String::new();
        for vertex in self.order() {
            let Vertex { op, label, lines, .. } = &self.graph[vertex];
            let _ = writeln!(out, "{} {label} ({}..{})", vertex.index(), lines.start, lines.end);
            for (role, from) in self.inputs(vertex) {
                let _ = writeln!(out, "    {role:?} {}", from.index());
            }
            if !matches!(op, Op::Scratch | Op::Image(_)) {
                let _ = writeln!(out, "    {op:?}");
            }
        }
        let layers: Vec<_> = self.layers.iter().map(|layer| layer.index()).collect();
        let _ = writeln!(out, "target {}, layers {layers:?}", self.target.index());
        let _ = writeln!(out, "{}", serde_json::to_string_pretty(&self.config).unwrap());
        for line in self.lines_of_history() {
            let _ = writeln!(out, "{line}");
        }
        for warning in &self.warnings {
            let _ = writeln!(out, "{}: {}", warning.rule.name(), warning.message);
        }
        out
    }
}

impl RunOp {
    fn env(&self, name: &str) -> Option<&str> {
        self.env.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// The script of a shell form.
    fn script(&self) -> &str {
        self.args.last().unwrap()
    }
}
