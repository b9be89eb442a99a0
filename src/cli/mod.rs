//! The command line: one file per subcommand.

/// Why a subcommand failed: decides the exit status. The text is one line, with the cause and the mend.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// Wrong arguments or config: exit status 2.
    #[error("{0}")]
    Usage(String),
    /// Anything else: exit status 1.
    #[error("{0}")]
    Failed(String),
}
