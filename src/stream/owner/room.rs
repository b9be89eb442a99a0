//! A stream that has no room: what comes is left out by the window itself, and pictures by the backlog.

use super::Owner;
use crate::package::Part;
use crate::sample::TrackIndex;
use crate::stream::backlog::Backlog;
use crate::tick::UnixTime;
use crate::window::PushError;

impl Owner {
    /// Puts a part, whose first picture was `captured`, into the window.
    pub(super) fn push_part(&mut self, track: TrackIndex, part: Option<Part>, captured: UnixTime) {
        let Some(part) = part else { return };
        let now = self.parts.anchor.now();
        // What was missed while the daemon was away is late by nature.
        let counted = part.first_tick >= self.filled_to;
        match self.parts.window.push(track, part, now) {
            Ok(()) => {
                self.unshown.extend(counted.then_some(captured));
                self.dirty = true;
            }
            // Without memory the segment has become a gap, which viewers have to be told of, too.
            Err(PushError::Memory { .. }) => self.dirty = true,
            // The rest of such a segment.
            Err(PushError::Past { .. }) if self.parts.window.shortage(now).is_some() => {}
            Err(error) => {
                tracing::error!(stream = %self.name(), %error, "a part does not fit the window")
            }
        }
    }

    /// Says what had to be given up for want of memory.
    pub(super) fn tell_shortage(&mut self) {
        let now = self.parts.anchor.now();
        let (window, stream) = (&self.parts.window, &self.parts.plan.name);
        let short = self.backlog.as_ref().is_some_and(Backlog::is_short);
        let window = self.shortage.tell(window, stream, now);
        let pictures = self.shortage.tell_of_pictures(short, stream, now);
        self.parts.shared.report().memory = window.or(pictures);
    }
}
