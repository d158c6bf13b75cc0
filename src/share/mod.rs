//! Caches that are shared with other machines: what steps gave, where the layers are, which of them an image needs.
//!
//! ```text
//! --cache-to    graph + results ─► export ─► Document + layer blobs ─► Target   (repository, layout, bucket)
//! --cache-from  Source ─► Document ─► import ─► SharedResults, asked by the solver where its own store knows nothing
//! ```
//!
//! A [`document`] maps step keys to result ids and says for each result what it stands on and which blob holds its
//! layer. Keys mean the same everywhere, so a machine with nothing at all can walk a whole build through the document;
//! layers are fetched by the snapshot room, when something needs their files, and believed only when their content leads
//! to the result's id. What cannot be believed is a miss. Whoever may write a cache decides what a key's result is, so a
//! cache deserves the trust of the registry or directory that it is in, no more and no less.
//!
//! This room knows graphs, snapshots and places. It does not know Dockerfiles, how a step runs, or the command line.

mod document;
mod error;
mod export;
mod import;
mod inline;
mod lasting;
mod layout;
mod manifest;
mod mounts;
mod pack;
mod place;
mod repository;
mod s3;
mod spec;

pub use error::ShareError;
pub use export::{Exported, Made, export};
pub use import::Imports;
pub use inline::{INLINE, record as inline_record};
pub use lasting::{Lasting, place_of};
pub use s3::Bucket;
pub use spec::{ExportSpec, ImportSpec, Mode, SpecError};
