//! rbuild builds Dockerfiles: one static binary, no daemon, root or rootless.
//!
//! The rooms stand on floors and only look down:
//! words (`digest`, `reference`, `platform`, `tree`, `oci`, `progress`, `interrupt`), the kernel (`sys`), parts
//! (`dockerfile`, `context`, `layer`, `store`, `cache`, `sandbox`, `network`), wholes (`snapshot`, `plan`,
//! `image`, `registry`), acts (`solve`, `share`, `runtime`, `gc`, `transfer`), the joins (`build`, `check`) and the door (`cli`).

#![deny(unsafe_code)]

pub mod build;
pub mod cache;
pub mod check;
pub mod cli;
pub mod context;
pub mod digest;
pub mod dockerfile;
pub mod fault;
pub mod gc;
pub mod image;
pub mod interrupt;
pub mod layer;
pub mod network;
pub mod oci;
pub mod plan;
pub mod platform;
pub mod progress;
pub mod reference;
pub mod registry;
pub mod runtime;
pub mod sandbox;
pub mod share;
pub mod snapshot;
pub mod solve;
pub mod store;
pub mod suggest;
#[allow(unsafe_code, reason = "system calls that no kept crate wraps; docs/unsafe.md lists each")]
pub mod sys;
pub mod transfer;
pub mod tree;
