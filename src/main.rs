//! The `rbuild` binary: everything it does is in the library.

fn main() -> std::process::ExitCode {
    // The helpers, and the monitors of containers, are this program under other names.
    let helper = rbuild::sandbox::helper_main().or_else(rbuild::network::helper_main);
    helper.or_else(rbuild::runtime::monitor_main).unwrap_or_else(rbuild::cli::main)
}
