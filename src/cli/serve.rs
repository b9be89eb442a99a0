//! `ringgear serve`: the daemon.

use std::path::PathBuf;

use tracing::Level;

use super::logging::{self, LogArgs};
use super::{CliError, signals};
use crate::config;
use crate::daemon::{Asked, Daemon};
use crate::service::{self, RestBeforeFailing, Watchdog};

/// Runs the daemon until SIGTERM or SIGINT; a second one stops it at once. SIGHUP reads the config again.
#[derive(Debug, clap::Args)]
pub(super) struct ServeArgs {
    /// The config; without it $RINGGEAR_CONFIG, else /etc/ringgear/ringgear.toml
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    log: LogArgs,
}

/// Runs it.
pub(super) fn run(args: ServeArgs) -> Result<(), CliError> {
    logging::start(&args.log, Level::INFO)?;
    let path = config::find(args.config)?;
    let plan = config::load(&path).inspect_err(|_| RestBeforeFailing::needed().take(|| false))?;
    let asked = signals::listen()
        .map_err(|error| CliError::Failed(format!("signals can't be handled: {error}")))?;
    serve(&plan, Some(path.clone()), asked, |daemon| {
        let scheme = if plan.tls.is_some() { "https" } else { "http" };
        tracing::info!(
            config = %path.display(), origin = %format_args!("{scheme}://{}/", daemon.address()),
            socket = %plan.socket.display(), streams = plan.streams.len(), "ringgear {} is up", env!("CARGO_PKG_VERSION")
        );
        Ok(())
    })
}

/// Runs a daemon of `plan`, which `file` says, until it is asked to stop. `up` is called once its doors are open; what it returns is
/// dropped before the daemon stops.
pub(super) fn serve<T>(
    plan: &config::Plan,
    file: Option<PathBuf>,
    asked: Asked,
    up: impl FnOnce(&Daemon) -> Result<T, CliError>,
) -> Result<(), CliError> {
    let rest = RestBeforeFailing::needed();
    let daemon = Daemon::start(plan, file).map_err(|error| {
        rest.take(|| *asked.to_stop.borrow());
        CliError::Failed(error.to_string())
    })?;
    let outcome = up(&daemon);
    if outcome.is_ok() {
        daemon.wait(asked, Watchdog::asked_for());
    }
    let outcome = outcome.map(drop);
    service::stopping();
    tracing::info!("stopping: the last segments are published");
    daemon.stop();
    tracing::info!("stopped");
    outcome
}
