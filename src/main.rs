//! The `ringgear` program.

#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    ringgear::cli::main()
}
