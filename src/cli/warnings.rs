//! What the checks found, after a build or from `--check`.

use crate::context::Dockerfile;
use crate::dockerfile::lint::Warning;

/// Renders all warnings, with their places in the Dockerfile.
pub(super) fn text(warnings: &[Warning], dockerfile: &Dockerfile) -> String {
    let name = dockerfile.path.display().to_string();
    let one = |warning: &Warning| format!("\n{}", warning.render(&name, &dockerfile.text, false));
    warnings.iter().map(one).collect()
}
