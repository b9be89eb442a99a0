//! What viewers may fetch now: the segments of each track, their rotation, and how long each stays fetchable after it left the playlists.

mod snapshot;

pub use snapshot::{OpenSegment, Period, Segment, Snapshot, TrackInit, TrackView};
