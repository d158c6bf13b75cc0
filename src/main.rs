//! The `rbuild` binary: everything it does is in the library.

fn main() -> std::process::ExitCode {
    // The helpers are this program under other names.
    let helper = rbuild::sandbox::helper_main().or_else(rbuild::network::helper_main);
    helper.unwrap_or_else(rbuild::cli::main)
}
