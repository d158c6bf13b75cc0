//! ARG.

use super::Lowering;
use crate::dockerfile::ast::{ArgVar, Instruction};
use crate::dockerfile::diagnostic::Diagnostic;
use crate::dockerfile::lint::Warning;
use crate::plan::scope;

impl Lowering<'_, '_> {
    /// ARG: each word sees those before it. The value is that of the command line, else the default, else that of the
    /// global ARG of the same name; without any the variable stays as it is.
    pub(super) fn arg(&mut self, instruction: &Instruction, vars: &[ArgVar]) -> Result<(), Diagnostic> {
        let mut created_by = String::from("ARG");
        for var in vars {
            // a name is taken as it stands, variables and quotes included
            let name = var.name.as_str().to_owned();
            let place = self.place(instruction.span());
            if let Some(warning) = Warning::secret_in_arg_or_env("ARG", &name, &instruction.head) {
                self.warn(warning);
            }
            let given = self.planner.given.get(&name).cloned();
            self.planner.asked.insert(name.clone());
            let inherited = given.is_none() && var.default.is_none();
            let value = match (given, &var.default) {
                (Some(given), _) => Some(given),
                (None, Some(default)) => Some(self.word(default, instruction)?),
                (None, None) => self.planner.globals.get(&name).map(str::to_owned),
            };
            if let Some(value) = value.as_deref().filter(|_| scope::enters_env(&name)) {
                self.state.env.set(&name, value);
            }
            created_by.push(' ');
            created_by.push_str(&name);
            if let Some(value) = &value {
                created_by.push('=');
                created_by.push_str(value);
            }
            let known = self.planner.outline.args.iter().any(|arg| arg.name == name);
            if !(known || inherited && value.is_some()) {
                let mut arg = scope::outline_arg(instruction, var, &name, value.clone());
                arg.span = place;
                self.planner.outline.args.push(arg);
            }
            self.state.declared.push((name, value));
        }
        self.state.note(created_by);
        Ok(())
    }
}
