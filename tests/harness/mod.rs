//! What the tests share: places, processes, the daemon, readers of what it publishes, and the checker of live windows.

pub(crate) mod broken_ffmpeg;
pub(crate) mod browser_session;
pub(crate) mod checker;
pub(crate) mod clap;
pub(crate) mod daemon;
pub(crate) mod dash;
pub(crate) mod dice;
pub(crate) mod held;
pub(crate) mod held_players;
pub(crate) mod hls;
pub(crate) mod http;
pub(crate) mod liar;
pub(crate) mod media;
pub(crate) mod memory_limit;
pub(crate) mod mount;
pub(crate) mod nginx;
pub(crate) mod place;
pub(crate) mod players;
pub(crate) mod process;
pub(crate) mod reference;
pub(crate) mod rtsp;
pub(crate) mod service_manager;
pub(crate) mod slowed;
pub(crate) mod streams;
pub(crate) mod tick_log;
pub(crate) mod tone;
pub(crate) mod truth;
pub(crate) mod wall_clock;

use std::fs::File;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

/// Where tests keep what is worth keeping between runs.
pub(crate) fn cache_dir() -> PathBuf {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

/// The machine, as long as it is held.
pub(crate) struct Machine {
    _lock: File,
}

/// Waits for the machine, with nobody else's test on it: for tests that measure. Holds between threads and processes, so
/// that it works under every test runner.
pub(crate) fn alone() -> Machine {
    take(FlockOperation::LockExclusive)
}

/// Waits for the machine, beside others' tests.
pub(crate) fn beside_others() -> Machine {
    take(FlockOperation::LockShared)
}

fn take(operation: FlockOperation) -> Machine {
    let lock = File::create(cache_dir().join("machine.lock")).unwrap();
    flock(&lock, operation).unwrap();
    Machine { _lock: lock }
}

/// Says that a test shows nothing on this machine. In `make faults` and `make soak` that is a failure: who runs them wants all.
#[track_caller]
pub(crate) fn not_shown(why: &str) {
    assert!(
        std::env::var_os("RINGGEAR_SHOW_ALL").is_none(),
        "not shown: {why}"
    );
    eprintln!("not shown: {why}");
}

/// Waits until `condition` gives a value, and fails the test when it has none by the deadline.
#[track_caller]
pub(crate) fn wait_for<T>(
    what: &str,
    within: Duration,
    mut condition: impl FnMut() -> Option<T>,
) -> T {
    let deadline = Instant::now() + within;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "not within {within:?}: {what}");
        pause();
    }
}

/// What the environment asks for, so that one test serves in every run and for hours: the number in `variable`, or `otherwise`.
#[track_caller]
pub(crate) fn asked_for(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).map_or(otherwise, |text| {
        let number = text.parse();
        number.unwrap_or_else(|error| panic!("{variable}={text}: {error}"))
    })
}

/// The pause between two looks at a condition.
pub(crate) fn pause() {
    std::thread::sleep(Duration::from_millis(20));
}
