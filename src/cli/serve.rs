//! `ringgear serve`: the daemon.

use std::path::PathBuf;

use tokio::sync::watch;

use super::{CliError, logging, signals};
use crate::config;
use crate::daemon::Daemon;
use crate::service::{self, Watchdog};

/// Runs the daemon until SIGTERM or SIGINT; a second one stops it at once.
#[derive(Debug, clap::Args)]
pub(super) struct ServeArgs {
    /// The config; without it $RINGGEAR_CONFIG, else /etc/ringgear/ringgear.toml
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Runs it.
pub(super) fn run(args: ServeArgs) -> Result<(), CliError> {
    logging::start();
    let path = config::find(args.config)?;
    let plan = config::load(&path)?;
    let asked = signals::listen()
        .map_err(|error| CliError::Failed(format!("signals can't be handled: {error}")))?;
    serve(&plan, asked, |daemon| {
        tracing::info!(
            config = %path.display(), origin = %format_args!("http://{}/", daemon.address()),
            socket = %plan.socket.display(), streams = plan.streams.len(), "ringgear {} is up", env!("CARGO_PKG_VERSION")
        );
        Ok(())
    })
}

/// Runs a daemon of `plan` until it is asked to stop. `up` is called once its doors are open; what it returns is
/// dropped before the daemon stops.
pub(super) fn serve<T>(
    plan: &config::Plan,
    asked: watch::Receiver<bool>,
    up: impl FnOnce(&Daemon) -> Result<T, CliError>,
) -> Result<(), CliError> {
    let daemon = Daemon::start(plan).map_err(|error| CliError::Failed(error.to_string()))?;
    let outcome = up(&daemon);
    if outcome.is_ok() {
        service::ready();
        daemon.wait(asked, Watchdog::asked_for());
    }
    let outcome = outcome.map(drop);
    service::stopping();
    tracing::info!("stopping: the last segments are published");
    daemon.stop();
    tracing::info!("stopped");
    outcome
}
