//! How far a run before has published, known before any stream starts: the daemon's time may not begin earlier.

use std::path::Path;
use std::time::Duration;

use crate::tick::{Tick, UnixTime};

use super::folder::Folder;
use super::state::{Found, State};

/// Where what a run before has published ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredEnd {
    /// When its last tick ends.
    pub time: UnixTime,
    /// A segment's length.
    pub segment: Duration,
}

/// Where the `state.json` of `stream` in `dir` says that it ends. A state that is missing or damaged says nothing;
/// [`super::restore`] will tell of it.
pub fn stored_end(dir: &Path, stream: &str) -> Option<StoredEnd> {
    let folder = Folder::open(dir).ok()??;
    let Found::State(state, _) = State::read(&folder, stream).ok()? else {
        return None;
    };
    let (last, grid) = (state.last_tick?, state.grid?);
    Some(StoredEnd {
        time: grid.time_of(Tick::next(last)),
        segment: grid
            .framerate
            .duration_of(u64::from(grid.ticks_per_segment.get())),
    })
}
