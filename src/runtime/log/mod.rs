//! What containers write, kept in docker's json-file format: one object a line, rotated by size.
//!
//! ```text
//! {"log":"text\n","stream":"stdout","time":"2006-01-02T15:04:05.999999999Z"}
//! ```
//! A line longer than 16 KiB is cut into records without line end. The writer is part of the monitor; readers look at
//! the files and need nobody.

mod config;
mod json;
mod read;
mod write;

pub use config::{LogConfig, LogDriver};
pub use read::{LogQuery, LogReader, LogRecord};
pub use write::LogWriter;

/// Which of the two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Stream {
    /// Standard output; all of a terminal.
    Out,
    /// Standard error.
    Err,
}
