//! SIGTERM and SIGINT ask to stop; a second one ends the process at once. SIGHUP asks to read the config again.

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tokio::sync::watch;

use crate::daemon::Asked;

/// Begins to listen.
pub(super) fn listen() -> std::io::Result<Asked> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    let (stop, to_stop) = watch::channel(false);
    let (reload, to_reload) = watch::channel(0);
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            for signal in signals.forever() {
                if signal == SIGHUP {
                    reload.send_modify(|asked| *asked += 1);
                } else if stop.send_replace(true) {
                    tracing::warn!("stopped at once by a second signal");
                    std::process::exit(1);
                }
            }
        })?;
    Ok(Asked { to_stop, to_reload })
}
