//! WORKDIR: makes sure that a directory is there.

use super::copy;
use super::copying::apply_env;
use crate::plan::WorkdirOp;
use crate::snapshot::Prepared;
use crate::solve::{BuildEnv, OpError};
use crate::tree::Diff;

/// Makes what is missing of the path, owned by the user of the step; what is there stays as it is.
pub(in crate::solve) fn run(op: &WorkdirOp, prepared: &Prepared, env: &BuildEnv) -> Result<Diff, OpError> {
    let view = prepared.parent.view();
    let owner = Some(op.user.as_str()).filter(|u| !u.is_empty());
    apply_env(env, |apply| Ok(copy::make_directory(&op.path, owner, &view, &prepared.upper, apply)?))
}
