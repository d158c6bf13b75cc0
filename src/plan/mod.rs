//! From stages to a graph of ops. Pure: no disk, no network; what a base image holds is asked through [`BaseImages`].

mod op;

pub use op::*;
