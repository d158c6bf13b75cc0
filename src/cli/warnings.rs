//! What the checks found, after a build or from `--check`.

use crate::context::Dockerfile;
use crate::dockerfile::Diagnostic;
use crate::plan::Warning;

/// Renders all warnings, with their places in the Dockerfile.
pub(super) fn text(warnings: &[Warning], dockerfile: &Dockerfile) -> String {
    let name = dockerfile.path.display().to_string();
    let one = |w: &Warning| {
        let found = Diagnostic::new(w.rule, format!("{}: {}", w.rule, w.message)).at(w.span);
        format!("\n{}", found.render(&name, &dockerfile.text, false))
    };
    warnings.iter().map(one).collect()
}
