//! SIGTERM and SIGINT ask to stop; a second one ends the process at once. SIGHUP does nothing harmful.

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tokio::sync::watch;

/// Begins to listen; the receiver turns true at the first request to stop.
pub(super) fn listen() -> std::io::Result<watch::Receiver<bool>> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    let (asked, told) = watch::channel(false);
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for signal in signals.forever() {
            if signal == SIGHUP {
                tracing::warn!("SIGHUP: this version reads its config at the start only; restart it to take a new one");
            } else if asked.send_replace(true) {
                tracing::warn!("stopped at once by a second signal");
                std::process::exit(1);
            }
        }
    })?;
    Ok(told)
}
