//! The `rbuild` binary: everything it does is in the library.

fn main() -> std::process::ExitCode {
    rbuild::cli::main()
}
