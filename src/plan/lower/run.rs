//! RUN.

use super::Lowering;
use crate::dockerfile::ast::{self, Command, Heredoc, Instruction, Run, RunSecurity};
use crate::dockerfile::diagnostic::Diagnostic;
use crate::dockerfile::mount::{Mount, RawMount};
use crate::dockerfile::span::{Span, Text};
use crate::plan::op::{Op, RunNetwork, RunOp};
use crate::plan::wording;

/// Where scripts of heredocs are mounted.
const PIPES: &str = "/dev/pipes/";

/// Host name inside a step when nobody says another.
const HOSTNAME: &str = "buildkitsandbox";

/// What a RUN runs.
#[derive(Debug, PartialEq, Eq)]
struct Program {
    args: Vec<String>,
    scripts: Vec<(String, String)>,
    /// What to show behind the instruction.
    summary: Option<String>,
}

impl Lowering<'_, '_> {
    pub(super) fn run(&mut self, instruction: &Instruction, run: &Run) -> Result<(), Diagnostic> {
        self.refuse_forbidden(run)?;
        let program = self.program(run);
        let given: Vec<RawMount> = run.mounts.iter().chain(&self.planner.options.mounts).cloned().collect();
        let typed = self.typed_mounts(instruction, &given)?;
        let (mounts, inputs) = self.mounts(instruction, &given, run.mounts.len(), &typed)?;
        let mut env = self.state.env.clone();
        if let Some(socket) = super::mounts::first_socket(&mounts[..run.mounts.len()])
            && env.get("SSH_AUTH_SOCK").is_none()
        {
            env.set("SSH_AUTH_SOCK", socket);
        }
        let created_by = wording::run(&program.args, &self.state.declared_values());
        let shown = self.shown_run(instruction, &typed, program.summary.as_deref());
        let op = RunOp {
            args: program.args,
            scripts: program.scripts,
            env: env.to_vec(),
            proxy_env: self.planner.proxies.clone(),
            cwd: self.state.cwd(),
            user: self.state.config.config.user.clone(),
            mounts,
            own_mounts: run.mounts.len(),
            network: match run.network {
                ast::RunNetwork::Default => self.planner.options.network,
                ast::RunNetwork::None => RunNetwork::None,
                ast::RunNetwork::Host => RunNetwork::Host,
            },
            insecure: run.security == RunSecurity::Insecure,
            hostname: self.hostname(),
            platform: self.state.platform.clone(),
        };
        self.stack(Op::Run(Box::new(op)), inputs, instruction, shown, created_by);
        Ok(())
    }

    /// Refuses what the user did not allow and what cannot be done.
    fn refuse_forbidden(&self, run: &Run) -> Result<(), Diagnostic> {
        let options = self.planner.options;
        let refuse = |what: &str, entitlement: &str, span: Option<Span>| {
            Err(Diagnostic::new("rbuild::entitlement", format!("RUN {what} is not allowed in this build"))
                .at(span.unwrap_or_default())
                .help(format!("allow it with --allow {entitlement}")))
        };
        if let Some(device) = run.devices.first() {
            return Err(Diagnostic::new("rbuild::device", "RUN --device: devices cannot be given to a step")
                .at(device.span)
                .help("remove the flag"));
        }
        let host = run.network == ast::RunNetwork::Host;
        if host && !options.allow_host_network && options.network != RunNetwork::Host {
            return refuse("--network=host", "network.host", run.network_span);
        }
        if run.security == RunSecurity::Insecure && !options.allow_insecure {
            return refuse("--security=insecure", "security.insecure", run.security_span);
        }
        Ok(())
    }

    /// Gives the argument list; the shell form gets the shell in force.
    fn program(&self, run: &Run) -> Program {
        let text = match &run.command {
            Command::Exec(words) => {
                let args = words.iter().map(|word| word.as_str().to_owned()).collect();
                return Program { args, scripts: Vec::new(), summary: None };
            }
            Command::Shell(text) => text,
        };
        let mut program = shell_script(text, &run.heredocs, self.state.platform.os != "windows");
        program.args.splice(0..0, self.state.shell());
        program
    }

    /// Expands the values of the mounts.
    fn typed_mounts(
        &mut self,
        instruction: &Instruction,
        given: &[RawMount],
    ) -> Result<Vec<Mount>, Diagnostic> {
        let (words, env) = (self.planner.words, self.state.env.clone());
        let (mut typed, mut met) = (Vec::new(), Vec::new());
        for raw in given {
            typed.push(raw.expand(&mut |value| {
                let expanded = words.lexer().word(value, &env)?;
                let text = expanded.text.clone();
                met.push(expanded);
                Ok(text)
            })?);
        }
        met.iter().for_each(|expanded| self.check_undefined(expanded, &instruction.head));
        Ok(typed)
    }

    /// Writes the instruction as it is shown; variables that hold secrets show stars.
    fn shown_run(&self, instruction: &Instruction, mounts: &[Mount], summary: Option<&str>) -> String {
        let mut env = self.state.env.clone();
        for mount in mounts {
            if let Mount::Secret(secret) = mount
                && let Some(name) = &secret.env
            {
                env.set(name, "****");
            }
        }
        let mut text = instruction.head.original.as_str().trim().to_owned();
        if let Some(summary) = summary {
            text.push_str(&format!(" ({summary})"));
        }
        self.shown(&text, &env, true)
    }

    fn hostname(&self) -> String {
        let given = self.planner.given.get("BUILDKIT_SANDBOX_HOSTNAME");
        let name = given.or(self.planner.options.hostname.as_ref()).filter(|name| !name.is_empty());
        name.map_or_else(|| HOSTNAME.to_owned(), Clone::clone)
    }
}

/// Gives what the shell gets as its argument. A heredoc alone is the script, or a program of its own when it starts
/// with `#!`; heredocs with a command before them are put together again for the shell to read.
fn shell_script(text: &Text, heredocs: &[Heredoc], shebang: bool) -> Program {
    let mut program = Program { args: vec![text.as_str().to_owned()], scripts: Vec::new(), summary: None };
    match heredocs {
        [] => {}
        [only] if is_marker(text.as_str()) => {
            let body = only.body().into_owned();
            program.summary = Some(summary(only.content.as_str()));
            if shebang && body.starts_with("#!") {
                program.args = vec![format!("{PIPES}{}", only.name)];
                program.scripts = vec![(only.name.clone(), body)];
            } else {
                program.args = vec![body];
            }
        }
        several => {
            for heredoc in several {
                let script = &mut program.args[0];
                script.push('\n');
                script.push_str(heredoc.content.as_str());
                script.push_str(&heredoc.name);
            }
        }
    }
    program
}

/// Says whether a command is nothing but `<<WORD`.
fn is_marker(text: &str) -> bool {
    let text = text.trim().trim_start_matches(|c: char| c.is_ascii_digit());
    let word = text.strip_prefix("<<").map(|word| word.strip_prefix('-').unwrap_or(word));
    word.is_some_and(|word| match word.chars().next() {
        Some(quote @ ('"' | '\'')) => word[1..].find(quote) == Some(word.len() - 2),
        _ => !word.contains(|c: char| c.is_whitespace() || c == '<'),
    })
}

/// Gives the first line of a script.
fn summary(script: &str) -> String {
    let script = script.trim();
    match script.split_once('\n') {
        Some((first, _)) => format!("{}...", first.trim_end_matches('\r')),
        None => script.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heredoc(name: &str, content: &str, chomp: bool) -> Heredoc {
        let content = Text::detached(content);
        Heredoc { name: name.into(), span: Span::default(), fd: 0, expand: true, chomp, content }
    }

    fn script(text: &str, heredocs: &[Heredoc]) -> Program {
        shell_script(&Text::detached(text), heredocs, true)
    }

    #[test]
    fn a_heredoc_alone_is_the_script() {
        let got = script("<<-EOF", &[heredoc("EOF", "\techo a\n\t\techo b\n", true)]);
        assert_eq!(got.args, ["echo a\necho b\n"]);
        assert_eq!((got.scripts, got.summary.as_deref()), (vec![], Some("echo a...")));
        assert_eq!(script("<<'E F'", &[heredoc("E F", "x\n", false)]).args, ["x\n"]);
    }

    #[test]
    fn a_heredoc_with_an_interpreter_is_a_program() {
        let got = script("<<EOF", &[heredoc("EOF", "#!/bin/awk -f\nBEGIN {}\n", false)]);
        assert_eq!(got.args, ["/dev/pipes/EOF"]);
        assert_eq!(got.scripts, [("EOF".to_owned(), "#!/bin/awk -f\nBEGIN {}\n".to_owned())]);
        let windows = shell_script(&Text::detached("<<EOF"), &[heredoc("EOF", "#!x\n", false)], false);
        assert_eq!(windows.args, ["#!x\n"]);
    }

    #[test]
    fn heredocs_behind_a_command_are_left_to_the_shell() {
        let got = script("cat <<A <<-B", &[heredoc("A", "1\n", false), heredoc("B", "\t2\n", true)]);
        assert_eq!(got.args, ["cat <<A <<-B\n1\nA\n\t2\nB"]);
        assert_eq!(script("<<A cat", &[heredoc("A", "1\n", false)]).args, ["<<A cat\n1\nA"]);
    }
}
