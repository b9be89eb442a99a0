//! The window as text: HLS playlists and DASH MPDs. Pure functions of a [`Snapshot`]: no clock, no I/O, and the same
//! text for the same snapshot.
//!
//! They rely on what the window promises of its listed segments: numbers without holes, one length of window in every track,
//! gaps only at the end of a period. URIs are relative to the stream's folder, the same at the origin and in the publish folder.

#[cfg(test)]
mod audio_tests;
pub mod dash;
#[cfg(test)]
mod folder_tests;
pub mod hls;
#[cfg(test)]
mod testing;

use std::sync::Arc;

use crate::window::{Period, Snapshot};

/// Whether there is something to play: every track lists a segment with media. Before that, playlists and MPD have nothing
/// to say that players accept.
pub fn playable(snapshot: &Snapshot) -> bool {
    let has_media = |track: &crate::window::TrackView| track.listed.iter().any(|s| !s.gap);
    !snapshot.tracks.is_empty() && snapshot.tracks.iter().all(has_media)
}

/// Whether both are the same stretch of the stream; they may have been read back apart, one for each track.
fn same_period(a: &Arc<Period>, b: &Arc<Period>) -> bool {
    Arc::ptr_eq(a, b) || (a.first_tick == b.first_tick && a.grid == b.grid)
}
