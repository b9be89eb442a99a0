//! Log lines on standard error, one per event; `RINGGEAR_LOG` chooses what is shown (`debug`, `ringgear::encode=trace`).

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// Starts logging for the life of the process.
pub(super) fn start() {
    start_at("info");
}

/// The same, with what is at least of this level unless `RINGGEAR_LOG` says otherwise.
pub(super) fn start_at(level: &str) {
    let filter = EnvFilter::try_from_env("RINGGEAR_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let format = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    // Under systemd the journal stamps each line itself. A second start, as in tests, keeps the first.
    let _ = match std::env::var_os("JOURNAL_STREAM") {
        Some(_) => format.without_time().try_init(),
        None => format.try_init(),
    };
}
