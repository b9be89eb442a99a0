//! SIGTERM and SIGINT ask to stop; a second one ends the process at once. SIGHUP asks to read the config again.

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level;
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

/// Calls `heard` with the first of SIGINT, SIGTERM and SIGHUP, for what is over when its terminal is, unless that is ignored (`nohup`); the
/// second ends the process at once.
pub(super) fn on_first(heard: impl FnOnce(i32) + Send + 'static) -> std::io::Result<()> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let with_terminal = Some(SIGHUP).filter(|_| !ignores_hangup(&status));
    let mut signals = Signals::new([SIGTERM, SIGINT].into_iter().chain(with_terminal))?;
    let mut heard = Some(heard);
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            for signal in signals.forever() {
                match heard.take() {
                    Some(heard) => heard(signal),
                    None => die_of(signal),
                }
            }
        })?;
    Ok(())
}

/// Whether a process with this `/proc/PID/status` ignores SIGHUP.
fn ignores_hangup(status: &str) -> bool {
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    // The first signal's bit is 0.
    mask.is_some_and(|mask| (mask >> (SIGHUP - 1)) & 1 == 1)
}

/// The name of `signal`, for people.
pub(super) fn name_of(signal: i32) -> &'static str {
    low_level::signal_name(signal).unwrap_or("a signal")
}

/// Ends the process by `signal`, so that who started it sees that: a shell's loop ends with it, and its status there is 128 and the signal's number.
pub(super) fn die_of(signal: i32) {
    // Where that fails, the process ends by itself.
    let _ = low_level::emulate_default_handler(signal);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ignores_a_hangup_is_told_by_its_status() {
        for (mask, ignores) in [
            ("0000000000000001", true),
            ("0000000000001001", true),
            ("fffffffffffffffe", false),
            ("0000000000001000", false),
            ("", false),
        ] {
            let status = format!("Name:\tringgear\nSigBlk:\t0000000000000001\nSigIgn:\t{mask}\n");
            assert_eq!(ignores_hangup(&status), ignores, "{mask}");
        }
        assert!(!ignores_hangup(""));
    }
}
