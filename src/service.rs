//! What a service manager is told (sd_notify(3)): that the daemon is up, that it goes on, that it stops. Without one, nothing.

use std::time::Duration;

use sd_notify::NotifyState;

/// The doors are open and all streams have begun.
pub(crate) fn ready() {
    tell(NotifyState::Ready);
}

/// The stop has begun; what follows may take seconds.
pub(crate) fn stopping() {
    tell(NotifyState::Stopping);
}

/// The service manager's watchdog (`WatchdogSec=`), which starts a daemon again that does not feed it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Watchdog {
    limit: Duration,
}

impl Watchdog {
    /// The watchdog, if the service manager has set one on this process.
    pub(crate) fn asked_for() -> Option<Self> {
        sd_notify::watchdog_enabled().map(|limit| Self { limit })
    }

    /// How often it is to be fed: thrice within its limit, so that one delay on a busy machine is no death.
    pub(crate) fn interval(&self) -> Duration {
        (self.limit / 3).max(Duration::from_millis(10))
    }

    /// Says that the daemon goes on.
    pub(crate) fn feed(&self) {
        tell(NotifyState::Watchdog);
    }
}

fn tell(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "the service manager can't be told: check that the unit has Type=notify");
    }
}
