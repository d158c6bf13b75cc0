//! Reads plain progress back: `#N [stage 2/5] RUN cmd`, `#N 0.123 log line`, `#N CACHED`, `#N DONE 0.4s`, `#N ERROR: ...`.

/// One numbered step of a build.
#[derive(Debug, Default)]
pub(crate) struct Step {
    pub(crate) number: u32,
    /// The stage and place between brackets, such as `build 2/5`; empty where there is none.
    pub(crate) place: String,
    /// What is done, such as `RUN make`.
    pub(crate) title: String,
    pub(crate) cached: bool,
    pub(crate) done: bool,
    pub(crate) error: Option<String>,
    /// The lines it wrote, without number and time.
    pub(crate) log: Vec<String>,
}

impl Step {
    /// Whether this is a file system instruction of the Dockerfile (not a base image, the context or an export).
    pub(crate) fn is_instruction(&self) -> bool {
        let word = self.title.split(' ').next().unwrap_or_default();
        matches!(word, "RUN" | "COPY" | "ADD" | "WORKDIR")
    }

    /// Whether it is an instruction that was executed to its end, not taken from the cache.
    pub(crate) fn worked(&self) -> bool {
        self.is_instruction() && self.done && !self.cached
    }
}

/// Gathers the steps in a build's stderr.
pub(crate) fn parse(stderr: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for line in stderr.lines() {
        let Some((number, text)) = line.strip_prefix('#').and_then(|rest| rest.split_once(' ')) else {
            continue;
        };
        let Ok(number) = number.parse() else { continue };
        let at = steps.iter().position(|step| step.number == number).unwrap_or_else(|| {
            steps.push(Step { number, ..Step::default() });
            steps.len() - 1
        });
        let step = &mut steps[at];
        match text {
            "CACHED" => step.cached = true,
            text if text == "DONE" || text.starts_with("DONE ") => step.done = true,
            text if text.starts_with("ERROR: ") => step.error = Some(text["ERROR: ".len()..].to_owned()),
            text if step.title.is_empty() && step.place.is_empty() => {
                let (place, title) =
                    text.strip_prefix('[').and_then(|t| t.split_once(']')).unwrap_or(("", text));
                step.place = place.to_owned();
                step.title = title.trim().to_owned();
            }
            text => {
                let timed = text.split_once(' ').filter(|(time, _)| time.parse::<f64>().is_ok());
                step.log.push(timed.map_or(text, |(_, log)| log).to_owned());
            }
        }
    }
    steps
}
