//! What viewers may fetch now: the segments of each track, their rotation, and how long each stays fetchable after it left the playlists.

mod column;
mod mutable;
mod place;
mod snapshot;

pub use mutable::{GivenUp, MAX_LEAD, MIN_SEGMENTS, PushError, Shortage, Window, WindowSettings};
pub use place::{ListedPart, Place};
pub use snapshot::{Mode, OpenSegment, Period, Segment, Snapshot, TrackInit, TrackView};
