//! A recording's segments that wait for the publish folder, from which they are served once it has them: until then they are in memory.

use std::collections::VecDeque;

use crate::tick::{SegmentNumber, UnixTime};
use crate::window::Snapshot;

/// What may be in memory until the publish folder has it, in bytes; beyond, no more is taken.
pub(super) const MOST_HELD: u64 = 64 << 20;
/// A recording ends with so many segments, because its playlists name them all: a day of the default length, and an hour.
pub(super) const MOST_SEGMENTS: usize = 15_000;

/// What the publisher was shown, until it says that the folder has it.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    /// When it was shown, and the newest segment.
    shown: VecDeque<(UnixTime, SegmentNumber)>,
    /// The newest segment that was shown.
    newest: Option<SegmentNumber>,
}

impl Shelf {
    /// Notes what the publisher is given to do.
    pub(super) fn note_shown(&mut self, snapshot: &Snapshot) {
        let newest = snapshot.tracks.iter().map(|view| view.listed.last());
        let newest = newest.map(|last| last.map(|segment| segment.number)).min();
        let newest = newest.flatten();
        if let Some(number) = newest
            && newest > self.newest
        {
            self.newest = newest;
            self.shown.push_back((snapshot.updated, number));
        }
    }

    /// The publish folder is at what was shown at `published`: the newest segment that it has got by that, if any.
    pub(super) fn stored(&mut self, published: UnixTime) -> Option<SegmentNumber> {
        let mut stored = None;
        while let Some((updated, newest)) = self.shown.front()
            && *updated <= published
        {
            stored = Some(*newest);
            self.shown.pop_front();
        }
        stored
    }
}
