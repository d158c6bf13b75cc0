//! The `rbuild` binary: everything it does is in the library.

fn main() -> std::process::ExitCode {
    // The sandbox helper is this program under another name.
    rbuild::sandbox::helper_main().unwrap_or_else(rbuild::cli::main)
}
