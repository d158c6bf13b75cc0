//! After a build: build cache that is over the limit goes.

use crate::cli::{CliError, table, talk, values};
use crate::gc::{Collector, Keep};

/// Removes build cache that is over the limit. The build is done; nothing about this makes it fail.
pub(super) fn tidy(collector: &Collector, keep: Keep) {
    match collector.after_build(keep) {
        Ok(Some(pruned)) if pruned.bytes > 0 => talk(&format!(
            "Removed {} of build cache that was over the limit (RBUILD_KEEP_STORAGE)\n",
            table::human_size(pruned.bytes)
        )),
        Ok(_) => {}
        Err(error) => talk(&format!("warning: the build cache could not be tidied up: {error}\n")),
    }
}

/// Reads `RBUILD_KEEP_STORAGE`: bytes of build cache to keep, 0 for all; by the size of the disk if not set.
pub(super) fn keep_storage() -> Result<Keep, CliError> {
    match std::env::var("RBUILD_KEEP_STORAGE") {
        Ok(text) if !text.is_empty() => Ok(match values::bytes("RBUILD_KEEP_STORAGE", &text)? {
            0 => Keep::All,
            bytes => Keep::Bytes(bytes),
        }),
        _ => Ok(Keep::ByDisk),
    }
}
