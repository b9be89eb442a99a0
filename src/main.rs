//! The `ringgear` program: dispatches to one file per subcommand.

#![forbid(unsafe_code)]

fn main() {}
